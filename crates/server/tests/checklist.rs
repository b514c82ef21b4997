//! What is promised is tested: each line of the checklist is carried by a test, and
//! `docs/checklist.md` says by which. `UPDATE_DOCS=1 cargo test --test checklist` writes it anew.
//!
//! A test carries a line by naming its id in its doc comment (`/// TK-05, S1-13`) or at the start
//! of its name (`tk_05_…`).

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Areas: prefix, what it is about, and the lines that hold.
const AREAS: [(&str, &str, &[u32]); 13] = [
    (
        "RS",
        "Resource server: challenge and metadata",
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 17, 18, 23, 24, 25, 26,
        ],
    ),
    (
        "MD",
        "Authorization server metadata",
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16],
    ),
    (
        "RG",
        "Dynamic client registration",
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13],
    ),
    (
        "CI",
        "Client ID metadata documents",
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14],
    ),
    (
        "AZ",
        "Authorization and consent",
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 19, 20, 23, 24,
        ],
    ),
    (
        "TK",
        "Token endpoint",
        &[
            1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
        ],
    ),
    ("RV", "Revocation", &[1, 2, 3, 4]),
    (
        "TL",
        "Transport with sessions, up to 2025-11-25",
        &[1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16],
    ),
    (
        "TM",
        "Transport without sessions, from 2026-07-28",
        &[1, 6, 8, 13],
    ),
    // Not 8, which is about keys that each user brings.
    ("PX", "Proxy", &[1, 2, 3, 4, 5, 6, 7, 9, 10, 17, 18]),
    (
        "S1",
        "A passphrase in front of one server with a static token",
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 22, 23,
        ],
    ),
    (
        "S2",
        "A PIN in front of any server that takes a token",
        &[
            1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20,
        ],
    ),
    (
        "S5",
        "Many servers on one address",
        &[1, 2, 16, 17, 18, 19, 21, 22, 25],
    ),
];

const PAGE: &str = "docs/checklist.md";

#[test]
fn every_line_of_the_checklist_is_carried_by_a_test() {
    let carried = carried();
    let missing: Vec<String> = AREAS
        .iter()
        .flat_map(|(prefix, _, lines)| lines.iter().map(move |line| id(prefix, *line)))
        .filter(|id| !carried.contains_key(id))
        .collect();
    assert!(missing.is_empty(), "no test carries {missing:?}");
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
        for line in lines {
            let id = id(prefix, *line);
            let tests = carried
                .get(&id)
                .map(|tests| tests.join("<br>"))
                .unwrap_or_default();
            writeln!(page, "| {id} | {tests} |").unwrap();
        }
    }
    page
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
