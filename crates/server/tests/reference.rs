//! The JSON schema and the reference page of the configuration, made from the structs that read
//! it. `UPDATE_DOCS=1 cargo test --test reference` writes them anew.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it calls"
)]

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use protocol::forward::headers::passes_anyway;
use serde_json::Value;

fn schema() -> Value {
    server::config::schema().to_value()
}

/// Follows a `$ref` to its definition.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// A setting: its dotted key, where `<name>` stands for any name, and its schema.
type Setting<'a> = (String, &'a Value);

/// Every setting below `schema`, tables before what is in them, in the order of the structs.
fn settings<'a>(root: &'a Value, schema: &'a Value, prefix: &str, into: &mut Vec<Setting<'a>>) {
    let target = resolve(root, schema);
    for (name, property) in target["properties"].as_object().into_iter().flatten() {
        let key = format!("{prefix}{name}");
        into.push((key.clone(), property));
        settings(root, property, &format!("{key}."), into);
    }
    if target["additionalProperties"].is_object() {
        let key = format!("{prefix}<name>");
        into.push((key.clone(), &target["additionalProperties"]));
        settings(
            root,
            &target["additionalProperties"],
            &format!("{key}."),
            into,
        );
    }
    for choice in target["anyOf"].as_array().into_iter().flatten() {
        settings(root, choice, prefix, into);
    }
}

fn page(root: &Value) -> String {
    let mut page = String::new();
    writeln!(page, "# Configuration\n").unwrap();
    writeln!(page, "{}\n", root["description"].as_str().unwrap()).unwrap();
    writeln!(
        page,
        "The file is `./mcp-oauth-proxy.toml`, or what `--config` names. Without it, every key has\n\
         its default. `mcp-oauth-proxy check` prints what a configuration comes to, and every\n\
         mistake in it. Editors complete and check the file with\n\
         [config.schema.json](config.schema.json).\n"
    )
    .unwrap();
    section(&mut page, root, root, "", "Keys outside every table");
    let mut all = Vec::new();
    settings(root, root, "", &mut all);
    for (key, schema) in &all {
        let is_table = resolve(root, schema)["properties"].is_object();
        if is_table && key.matches('.').count() == usize::from(key.contains("<name>")) {
            section(
                &mut page,
                root,
                schema,
                &format!("{key}."),
                &format!("`[{key}]`"),
            );
        }
    }
    writeln!(page, "## Secrets\n").unwrap();
    writeln!(
        page,
        "{}\n",
        root["$defs"]["Secret"]["description"].as_str().unwrap()
    )
    .unwrap();
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// One table of the file: its plain keys, each with what it means.
fn section(page: &mut String, root: &Value, schema: &Value, prefix: &str, title: &str) {
    let target = resolve(root, schema);
    writeln!(page, "## {title}\n").unwrap();
    // What stands under any name is described where the names are.
    let whole = prefix.trim_end_matches(".<name>.").trim_end_matches('.');
    if let Some(text) = root["properties"][whole]["description"].as_str() {
        writeln!(page, "{text}\n").unwrap();
    }
    for (name, property) in target["properties"].as_object().unwrap() {
        let value = resolve(root, property);
        let inside = resolve(root, &value["additionalProperties"]);
        if value["properties"].is_object() || inside["properties"].is_object() {
            continue;
        }
        writeln!(page, "### `{prefix}{name}`\n").unwrap();
        writeln!(page, "{}\n", property["description"].as_str().unwrap()).unwrap();
        if let Some(default) = property
            .get("default")
            .filter(|value| ![serde_json::json!([]), serde_json::json!({})].contains(value))
        {
            writeln!(page, "Default: `{default}`\n").unwrap();
        }
        for example in property["examples"].as_array().into_iter().flatten() {
            writeln!(page, "Example: `{name} = {example}`\n").unwrap();
        }
    }
}

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference")
}

#[track_caller]
fn is_fresh(name: &str, content: &str) {
    let path = documents().join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(documents()).unwrap();
        fs::write(&path, content).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, content,
        "docs/reference/{name} is stale: UPDATE_DOCS=1 writes it anew"
    );
}

#[test]
fn the_schema_file_is_fresh() {
    let schema = serde_json::to_string_pretty(&schema()).unwrap();
    is_fresh("config.schema.json", &(schema + "\n"));
}

#[test]
fn the_reference_page_is_fresh() {
    is_fresh("configuration.md", &page(&schema()));
}

/// Case 27: the reference says which headers of the client pass anyway.
#[test]
fn the_headers_that_pass_anyway_are_those_that_the_reference_names() {
    const OTHERS: [&str; 12] = [
        "user-agent",
        "accept-charset",
        "authorization",
        "cookie",
        "expect",
        "from",
        "host",
        "if-none-match",
        "origin",
        "range",
        "referer",
        "x-request-id",
    ];
    let root = schema();
    let text = root["$defs"]["UpstreamConfig"]["properties"]["pass_headers"]["description"]
        .as_str()
        .unwrap()
        .replace('\n', " ");
    let (_, list) = text.split_once("pass anyway are").unwrap();
    let (list, _) = list.split_once('.').unwrap();
    let named: BTreeSet<String> = list
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_lowercase)
        .collect();
    assert!(named.contains("mcp-…") && named.len() > 10, "{named:?}");
    let passes = |name: &str| passes_anyway(&name.parse().unwrap());
    for name in &named {
        assert!(name == "mcp-…" || passes(name), "{name}");
    }
    for name in OTHERS {
        assert!(!passes(name), "{name}");
    }
}

#[test]
fn every_setting_is_described() {
    let root = schema();
    let mut all = Vec::new();
    settings(&root, &root, "", &mut all);
    for (key, schema) in all {
        let text = schema["description"].as_str();
        let text = text.or_else(|| resolve(&root, schema)["description"].as_str());
        assert!(text.is_some_and(|text| !text.is_empty()), "{key}");
    }
}

/// The keys of a table of a configuration file, names of upstreams, clients and headers replaced
/// by `<name>`.
fn keys(table: &toml::Table, prefix: &str, into: &mut BTreeSet<String>) {
    for (name, value) in table {
        let tables = ["upstream.", "client.", "upstream.<name>.headers."];
        let name = if tables.contains(&prefix) {
            "<name>"
        } else {
            name
        };
        let key = format!("{prefix}{name}");
        if let Some(table) = value.as_table() {
            keys(table, &format!("{key}."), into);
        }
        into.insert(key);
    }
}

#[test]
fn the_schema_has_every_key_of_the_valid_samples_and_they_use_nearly_every_key_of_it() {
    let root = schema();
    let mut all = Vec::new();
    settings(&root, &root, "", &mut all);
    let known: BTreeSet<String> = all.into_iter().map(|(key, _)| key).collect();

    let mut used = BTreeSet::new();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sample-configs/valid");
    for entry in fs::read_dir(samples).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        keys(&text.parse().unwrap(), "", &mut used);
    }

    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "not in the schema: {unknown:?}");
    let unused: Vec<_> = known
        .difference(&used)
        // Each secret has both; that each works is seen on some of them.
        .filter(|key| !matches!(key.rsplit_once('.'), Some((_, "env" | "file"))))
        .collect();
    assert!(unused.is_empty(), "in no valid sample: {unused:?}");
}
