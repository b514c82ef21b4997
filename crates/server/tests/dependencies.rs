//! Every direct dependency has an owner line in `docs/dependencies.md`, no line is stale, and the
//! whole stays within the budget that is written there. Every crate forbids `unsafe`.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const PAGE: &str = "docs/dependencies.md";
const PRODUCT: &str = "mcp-oauth-proxy";

#[test]
fn every_direct_dependency_has_an_owner_line_and_no_line_is_stale() {
    let lines = owner_lines();
    for (section, is_counted) in [("In the product", true), ("In tests alone", false)] {
        let written = &lines[section];
        let direct = direct(is_counted);
        let unowned: Vec<_> = direct.difference(written).collect();
        assert!(unowned.is_empty(), "{PAGE} has no line for {unowned:?}");
        let stale: Vec<_> = written.difference(&direct).collect();
        assert!(stale.is_empty(), "{PAGE}, {section}: {stale:?} is not used");
    }
}

#[test]
fn dependencies_stay_within_the_budget() {
    let most = |what: &str| -> usize {
        let lines = rows("Budget");
        let line = lines.iter().find(|cells| cells[0] == what).unwrap();
        line[1].parse().unwrap()
    };
    let direct = direct(true).len();
    let total = compiled_into_the_product().len();
    assert!(direct <= most("direct"), "{direct} direct dependencies");
    assert!(total <= most("total"), "{total} dependencies in all");
    // A budget that is far above what is spent guards nothing.
    assert!(direct + 10 > most("direct") && total + 25 > most("total"));
}

/// A crate that does not inherit the lints of the workspace could use `unsafe` unseen.
#[test]
fn every_crate_forbids_unsafe_code() {
    let workspace = manifest(&root().join("Cargo.toml"));
    let forbidden = &workspace["workspace"]["lints"]["rust"]["unsafe_code"];
    assert_eq!(forbidden.as_str(), Some("forbid"));
    let manifests = manifests();
    assert!(manifests.len() >= 2);
    for path in manifests {
        let manifest = manifest(&path);
        let lints = manifest.get("lints").map(ToString::to_string);
        let inherits = manifest.get("lints").and_then(|it| it.get("workspace"));
        let own = (|| {
            manifest
                .get("lints")?
                .get("rust")?
                .get("unsafe_code")?
                .as_str()
        })();
        assert!(
            inherits.and_then(toml::Value::as_bool) == Some(true) || own == Some("forbid"),
            "{} has lints {lints:?}",
            path.display()
        );
    }
}

/// Names of the crates that ours depend on: in the product, or in tests, examples and fuzz
/// targets alone.
fn direct(in_product: bool) -> BTreeSet<String> {
    let (mut product, mut tests) = (BTreeSet::new(), BTreeSet::new());
    for path in manifests() {
        let of_product = path.parent().unwrap().parent().unwrap().ends_with("crates");
        let manifest = manifest(&path);
        for (table, is_of_product) in [
            ("dependencies", of_product),
            ("build-dependencies", of_product),
            ("dev-dependencies", false),
        ] {
            for table in tables(&manifest, table) {
                let into = if is_of_product {
                    &mut product
                } else {
                    &mut tests
                };
                into.extend(
                    table
                        .iter()
                        .filter(|(_, how)| how.get("path").is_none())
                        .map(|(name, how)| {
                            let package = how.get("package").and_then(toml::Value::as_str);
                            package.unwrap_or(name).to_owned()
                        }),
                );
            }
        }
    }
    if in_product {
        product
    } else {
        &tests - &product
    }
}

/// The dependency tables of this name, of all platforms.
fn tables<'a>(manifest: &'a toml::Table, name: &str) -> Vec<&'a toml::Table> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(toml::Table::values);
    let of_targets = targets.filter_map(|target| target.get(name));
    let all = manifest.get(name).into_iter().chain(of_targets);
    all.filter_map(toml::Value::as_table).collect()
}

/// Every crate but ours that the product is made of, or that runs while it is built.
fn compiled_into_the_product() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["metadata", "--format-version=1", "--locked"])
        .arg("--filter-platform=x86_64-unknown-linux-gnu")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {errors}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let array = |value: &Value| value.as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ours: BTreeSet<_> = array(&metadata["workspace_members"])
        .iter()
        .map(text)
        .collect();
    let product = array(&metadata["packages"])
        .into_iter()
        .find(|package| package["name"] == PRODUCT)
        .map(|package| text(&package["id"]));
    let edges: BTreeMap<_, _> = array(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| {
            let needed = array(&node["deps"]).into_iter().filter(|dependency| {
                let kinds = array(&dependency["dep_kinds"]);
                kinds.iter().any(|kind| kind["kind"] != "dev")
            });
            let needed: Vec<_> = needed.map(|dependency| text(&dependency["pkg"])).collect();
            (text(&node["id"]), needed)
        })
        .collect();
    let (mut found, mut open) = (BTreeSet::new(), vec![product.unwrap()]);
    while let Some(id) = open.pop() {
        if found.insert(id.clone()) {
            open.extend(edges[&id].iter().cloned());
        }
    }
    &found - &ours
}

/// The crates in the first column of each table of the page.
fn owner_lines() -> BTreeMap<String, BTreeSet<String>> {
    ["In the product", "In tests alone"]
        .into_iter()
        .map(|section| {
            let mut names = BTreeSet::new();
            for cells in rows(section) {
                assert_eq!(cells.len(), 3, "{PAGE}: {cells:?}");
                assert!(cells.iter().all(|cell| !cell.is_empty()), "{cells:?}");
                assert!(names.insert(cells[0].clone()), "{} twice", cells[0]);
            }
            (section.to_owned(), names)
        })
        .collect()
}

/// The cells of the table under a heading of the page, without its head.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let section = page.split("\n## ").find(|part| part.starts_with(heading));
    let lines = section
        .unwrap()
        .lines()
        .filter(|line| line.starts_with('|'));
    lines
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// The manifest of every crate in the repository.
fn manifests() -> Vec<PathBuf> {
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let mut manifests: Vec<_> = crates.map(|entry| entry.unwrap().path()).collect();
    manifests.push(root().join("fuzz"));
    manifests
        .into_iter()
        .map(|folder| folder.join("Cargo.toml"))
        .filter(|path| path.exists())
        .collect()
}

fn manifest(path: &Path) -> toml::Table {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}
