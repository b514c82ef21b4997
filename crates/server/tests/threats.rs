//! `docs/threats.md` says what is true: the code and the tests that it names exist, and every
//! boundary has an answer to each question.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = "docs/threats.md";
const HEAD: [&str; 5] = ["Question", "Threat", "Code", "Test", "Note"];
const QUESTIONS: [&str; 6] = [
    "Spoofing",
    "Tampering",
    "Repudiation",
    "Information disclosure",
    "Denial of service",
    "Elevation of privilege",
];
const BOUNDARIES: [&str; 7] = [
    "Clients and whoever can reach the port",
    "The browser and the person in front of it",
    "Upstreams",
    "The store",
    "Hosts of client documents",
    "The operator and the configuration",
    "Logs and metrics",
];

#[test]
fn every_threat_names_code_that_exists_and_a_test_that_is_one() {
    let mistakes = mistakes(&page());
    assert!(mistakes.is_empty(), "{PAGE}: {mistakes:#?}");
}

#[test]
fn every_boundary_answers_every_question() {
    let mut answered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows(&page()) {
        let questions = answered.entry(row.boundary).or_default();
        questions.insert(row.cells[0].clone());
    }
    let all = BTreeSet::from(QUESTIONS.map(str::to_owned));
    let boundaries: BTreeSet<&str> = answered.keys().map(String::as_str).collect();
    assert_eq!(boundaries, BTreeSet::from(BOUNDARIES));
    for (boundary, questions) in answered {
        assert_eq!(questions, all, "{boundary}");
    }
}

/// What the check must notice: without this, noticing nothing would prove nothing.
#[test]
fn every_kind_of_mistake_in_the_page_is_noticed() {
    let code = "`server/src/main.rs: main`";
    let test = "`server/tests/threats.rs: every_boundary_answers_every_question`";
    let with = |code: &str, test: &str| {
        let rows = format!("| Spoofing | A threat | {code} | {test} | |");
        mistakes(&format!("\n## Upstreams\n\n| head |\n| --- |\n{rows}\n"))
    };
    assert_eq!(with(code, test), Vec::<String>::new());
    for (code, test) in [
        (code, ""),
        ("", test),
        ("`server/src/nowhere.rs: main`", test),
        ("`server/src/main.rs: nothing`", test),
        (code, "`server/tests/nowhere.rs: a_test`"),
        (code, "`server/tests/threats.rs: no_such_test`"),
        // A function, but not a test.
        (code, "`server/tests/threats.rs: mistakes`"),
        (code, "`N-ZZ-99`"),
    ] {
        assert_eq!(with(code, test).len(), 1, "{code} {test}");
    }
}

struct Row {
    boundary: String,
    cells: Vec<String>,
}

/// The rows of all tables, without their heads.
fn rows(page: &str) -> Vec<Row> {
    page.split("\n## ")
        .skip(1)
        .flat_map(|section| {
            let boundary = section.lines().next().unwrap_or_default();
            let lines = section.lines().filter(|line| line.starts_with('|'));
            lines.skip(2).map(|line| {
                let cells = line
                    .trim_start_matches('|')
                    .trim_end_matches('|')
                    .split('|');
                Row {
                    boundary: boundary.to_owned(),
                    cells: cells.map(|cell| cell.trim().to_owned()).collect(),
                }
            })
        })
        .collect()
}

fn mistakes(page: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    for Row { cells, .. } in rows(page) {
        let [question, threat, code, tests, _note] = &cells[..] else {
            mistakes.push(format!("not {HEAD:?}: {cells:?}"));
            continue;
        };
        if !QUESTIONS.contains(&question.as_str()) || threat.is_empty() {
            mistakes.push(format!("no question of STRIDE, or no threat: {cells:?}"));
        }
        let (code, tests) = (quoted(code), quoted(tests));
        if code.is_empty() {
            mistakes.push(format!("no code against: {threat}"));
        }
        if tests.is_empty() {
            mistakes.push(format!("no test of: {threat}"));
        }
        let code = code.into_iter().filter(|named| !has_item(named));
        mistakes.extend(code.map(|named| format!("no such code: {named}")));
        let tests = tests.into_iter().filter(|named| !is_test(named));
        mistakes.extend(tests.map(|named| format!("no such test: {named}")));
    }
    mistakes
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether `file: name` is a function, type or constant.
fn has_item(named: &str) -> bool {
    let Some((text, name)) = source(named) else {
        return false;
    };
    let words: Vec<&str> = text
        .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
        .collect();
    words.windows(2).any(|pair| {
        matches!(pair[0], "fn" | "struct" | "enum" | "trait" | "const") && pair[1] == name
    })
}

/// Whether `file: name` is a test function, or an id that of an attack.
fn is_test(named: &str) -> bool {
    let Some((text, name)) = source(named) else {
        let id = format!("\"{named}\",");
        return sources("server/tests/attacks")
            .iter()
            .any(|file| read(file).contains(&id));
    };
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        let function = line.strip_prefix("async ").unwrap_or(line);
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(function) = function.strip_prefix("fn ") {
            if is_test && function.split('(').next() == Some(name) {
                return true;
            }
            is_test = false;
        }
    }
    false
}

/// The text of the file, and the name in it.
fn source(named: &str) -> Option<(String, &str)> {
    let (file, name) = named.split_once(": ")?;
    let text = fs::read_to_string(root().join("crates").join(file)).ok()?;
    Some((text, name))
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("crates").join(folder)).expect("it is there");
    let files = folder.map(|entry| entry.expect("it can be read").path());
    files
        .filter(|file| file.extension().is_some_and(|it| it == "rs"))
        .collect()
}

fn page() -> String {
    read(&root().join(PAGE))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("it can be read")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
