//! The table in `lib.rs` leads to files that exist, and leaves out no rule.

use std::{collections::BTreeSet, fs, path::Path};

/// The cells of the table's rows, without backticks.
fn rows() -> Vec<Vec<String>> {
    include_str!("../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .skip(2)
        .map(|line| {
            let cells = line.trim_end_matches(" |").split(" | ");
            cells
                .map(|cell| cell.trim_matches('`').to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn every_file_in_the_table_exists() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = rows();
    assert!(rows.len() > 15, "the table was not found: {rows:?}");
    for row in rows {
        let [standard, module, endpoint, test] = &row[..] else {
            panic!("not four cells: {row:?}")
        };
        for file in [
            format!("src/{module}"),
            format!("src/{endpoint}"),
            format!("tests/{test}"),
        ] {
            assert!(
                package.join(&file).is_file(),
                "{standard}: {file} does not exist"
            );
        }
    }
}

#[test]
fn every_rule_of_oauth_is_in_the_table() {
    /// Shared by all rules, so no standard is theirs.
    const SHARED: [&str; 5] = [
        "oauth/mod.rs",
        "oauth/form.rs",
        "oauth/identifiers.rs",
        "oauth/grant.rs",
        "oauth/access_token.rs",
    ];
    let known: BTreeSet<String> = rows().into_iter().map(|row| row[1].clone()).collect();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/oauth")).unwrap() {
        let module = format!(
            "oauth/{}",
            entry.unwrap().file_name().into_string().unwrap()
        );
        assert!(
            known.contains(&module) || SHARED.contains(&&*module),
            "{module} is in no row"
        );
    }
}
