//! What is promised is tested: each line of the checklist is carried by a test, or stands below
//! with the reason why it cannot be. `docs/checklist.md` shows both, and
//! `UPDATE_DOCS=1 cargo test --test checklist` writes it anew.
//!
//! A test carries a line by naming its id in its doc comment (`/// TK-05, S1-13`) or at the start
//! of its name (`tk_05_…`).

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// Areas: prefix, what it is about, and its lines.
const AREAS: [(&str, &str, &[RangeInclusive<u32>]); 13] = [
    ("RS", "Resource server: challenge and metadata", &[1..=26]),
    ("MD", "Authorization server metadata", &[1..=17]),
    ("RG", "Dynamic client registration", &[1..=14]),
    ("CI", "Client ID metadata documents", &[1..=14]),
    ("AZ", "Authorization and consent", &[1..=28]),
    ("TK", "Token endpoint", &[1..=26]),
    ("RV", "Revocation", &[1..=4]),
    ("TL", "Transport with sessions, up to 2025-11-25", &[1..=18]),
    (
        "TM",
        "Transport without sessions, from 2026-07-28",
        &[1..=15],
    ),
    ("PX", "Proxy", &[1..=20]),
    (
        "S1",
        "A passphrase in front of one server with a static token",
        &[1..=18, 22..=23],
    ),
    (
        "S2",
        "A PIN in front of any server that takes a token",
        &[1..=1, 3..=14, 16..=20],
    ),
    (
        "S5",
        "Many servers on one address",
        &[1..=2, 16..=19, 21..=22, 25..=25],
    ),
];

/// Lines that ask for something which is not there to be tested, and why it is not.
const NOT_YET: &[(&str, &str)] = &[
    (
        "RS-19",
        "There is one scope, `mcp`, and every access token has it: no token can have too little.",
    ),
    ("RS-20", "As RS-19: no challenge asks for more scope."),
    ("RS-21", "As RS-19: no scope is broader than another."),
    (
        "MD-17",
        "No OpenID Connect document is served; a test of MD-13 holds its address to a plain 404.",
    ),
    (
        "AZ-21",
        "The browser is sent to no identity provider and no upstream's authorization server.",
    ),
    ("AZ-22", "As AZ-21: no callback comes back from one."),
    (
        "TL-14",
        "Upstreams speak Streamable HTTP. The transport of 2024-11-05, which it replaced, is not translated yet.",
    ),
    (
        "TM-05",
        "No policy is decided by `Mcp-Method` or `Mcp-Name`; they are passed on, and logged as what the client claims.",
    ),
    (
        "PX-08",
        "Credentials are the operator's. One that is refused is a 502, since no user could renew it.",
    ),
    ("PX-12", "As PX-08: no user's credential is stored."),
    (
        "PX-13",
        "As AZ-21: the proxy is no OAuth client of anybody.",
    ),
    (
        "PX-15",
        "As AZ-21: no address that an upstream names is shown to a person.",
    ),
];

/// Lines whose part of the program is being built.
const BEING_BUILT: &[&str] = &["RG-10"];

const PAGE: &str = "docs/checklist.md";

#[test]
fn every_line_is_carried_by_a_test_or_has_one_reason_why_it_cannot_be() {
    let carried = carried();
    let left_out: Vec<&str> = NOT_YET.iter().map(|(id, _)| *id).collect();
    let left_out = [&left_out, BEING_BUILT].concat();
    let wrong: Vec<String> = lines()
        .filter(|id| {
            let reasons = left_out.iter().filter(|known| *known == id).count();
            reasons + usize::from(carried.contains_key(id)) != 1
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "neither or both of a test and a reason: {wrong:?}"
    );
    let unknown: Vec<_> = left_out
        .iter()
        .filter(|id| !lines().any(|line| line == **id))
        .collect();
    assert!(unknown.is_empty(), "no such lines: {unknown:?}");
}

#[test]
fn the_checklist_page_is_fresh() {
    let page = page(&carried());
    let path = root().join(PAGE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{PAGE} is stale: run UPDATE_DOCS=1 cargo test --test checklist"
    );
}

/// The page, from the tests that carry each line.
fn page(carried: &BTreeMap<String, Vec<String>>) -> String {
    let mut page = String::from(
        "# Checklist\n\nWhat is promised, and the tests that hold us to it. This page is generated from the tests.\n",
    );
    for (prefix, title, lines) in AREAS {
        write!(
            page,
            "\n## {prefix}: {title}\n\n| Line | Tests |\n| --- | --- |\n"
        )
        .unwrap();
        for id in ids(prefix, lines) {
            if let Some(tests) = carried.get(&id) {
                writeln!(page, "| {id} | {} |", tests.join("<br>")).unwrap();
            }
        }
    }
    page.push_str("\n## Does not apply yet\n\n| Line | Why |\n| --- | --- |\n");
    for (id, why) in NOT_YET {
        writeln!(page, "| {id} | {why} |").unwrap();
    }
    page
}

/// Every line of every area.
fn lines() -> impl Iterator<Item = String> {
    AREAS
        .iter()
        .flat_map(|(prefix, _, lines)| ids(prefix, lines))
}

fn ids(prefix: &str, lines: &[RangeInclusive<u32>]) -> impl Iterator<Item = String> {
    let lines = lines.iter().cloned().flatten();
    lines.map(move |line| id(prefix, line))
}

/// The tests, as `file: name in words`, by the lines that they carry.
fn carried() -> BTreeMap<String, Vec<String>> {
    let mut carried: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut files = Vec::new();
    for folder in [
        "crates/protocol/src",
        "crates/protocol/tests",
        "crates/server/src",
        "crates/server/tests",
    ] {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let shown = file
            .strip_prefix(root().join("crates"))
            .unwrap()
            .display()
            .to_string();
        for (name, ids) in tests(&text) {
            for id in ids {
                let tests = carried.entry(id).or_default();
                tests.push(format!("`{shown}`: {}", name.replace('_', " ")));
            }
        }
    }
    carried
}

/// The test functions in a source text, each with the ids that it carries.
fn tests(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let (mut ids, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            ids.extend(ids_in(comment));
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = line
            .strip_prefix("fn ")
            .or_else(|| line.strip_prefix("async fn "))
        {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            if is_test {
                ids.extend(ids_in(&name.to_uppercase().replace('_', "-")));
                ids.sort();
                ids.dedup();
                found.push((name.to_owned(), std::mem::take(&mut ids)));
            }
            ids.clear();
            is_test = false;
        } else if !line.starts_with('#') && !line.starts_with("//") {
            ids.clear();
        }
    }
    found
}

/// Everything in `text` that looks like an id of one of our areas. `N-RS-01` is not `RS-01`.
fn ids_in(text: &str) -> Vec<String> {
    let mut words = vec![""];
    words.extend(text.split(|c: char| !c.is_ascii_alphanumeric()));
    words
        .windows(3)
        .filter(|words| words[0] != "N" && words[2].len() == 2)
        .filter(|words| AREAS.iter().any(|(prefix, ..)| *prefix == words[1]))
        .filter_map(|words| Some(id(words[1], words[2].parse().ok()?)))
        .collect()
}

fn id(prefix: &str, line: u32) -> String {
    format!("{prefix}-{line:02}")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}
