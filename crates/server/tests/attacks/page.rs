//! The results as a page, which people read and CI holds us to.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use super::{
    case::Case,
    not_applicable::NOT_APPLICABLE,
    run::{Outcome, Results},
};

const PAGE: &str = "docs/attacks.md";

/// Whether the committed page is this one; with `UPDATE_DOCS`, after it was made so.
pub fn is_committed(page: &str) -> bool {
    if must_update() {
        fs::write(path(), page).unwrap();
    }
    committed() == page
}

/// The page of one run. Where the run has nothing to say, since PostgreSQL or what a case takes was
/// missing, the committed page is taken at its word, unless it is to be written.
pub fn page(cases: &[Case], on_sqlite: &Results, on_postgres: Option<&Results>) -> String {
    assert!(
        on_postgres.is_some() || !must_update(),
        "{PAGE} is written by a run on PostgreSQL too"
    );
    let committed = committed();
    let before = results_on(&committed);
    let rows: Vec<Row> = cases
        .iter()
        .map(|case| {
            let [sqlite, postgres] = before.get(case.id).copied().unwrap_or(["not run"; 2]);
            Row {
                case,
                sqlite: word(on_sqlite[case.id], sqlite),
                postgres: on_postgres.map_or(postgres, |on| word(on[case.id], postgres)),
            }
        })
        .collect();
    written(&rows)
}

fn word(outcome: Outcome, before: &str) -> &str {
    match outcome {
        Outcome::Held => "held",
        Outcome::Broken => "**broken**",
        Outcome::NotTried if must_update() => "not tried",
        Outcome::NotTried => before,
    }
}

fn must_update() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

fn committed() -> String {
    fs::read_to_string(path()).unwrap_or_default()
}

struct Row<'a> {
    case: &'a Case,
    sqlite: &'a str,
    postgres: &'a str,
}

impl Row<'_> {
    fn is_guard(&self) -> bool {
        self.case.id.starts_with("C-")
    }
}

fn written(rows: &[Row]) -> String {
    let (guards, attacks): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.is_guard());
    let excused: usize = NOT_APPLICABLE
        .iter()
        .map(|(ids, _)| ids.split_whitespace().count())
        .sum();
    let mut page = format!(
        "# Attacks\n\nWhat is tried against the running program, over HTTP and raw sockets alone, \
         and what must work all the same. An attack holds when it is refused with the right \
         status and error, no record changes, nothing is sent to the upstream or to anybody \
         else, and the same thing done right succeeds. This page is written by a run of the \
         tests (`just attacks`); a run that finds anything else fails.\n\n\
         Of {} cases, {} cannot apply; the reasons are at the end. The other {}:\n\n\
         | | Tried | Held on SQLite | Held on PostgreSQL |\n| --- | --- | --- | --- |\n",
        rows.len() + excused,
        excused,
        rows.len(),
    );
    for (kind, rows) in [("Attacks", &attacks), ("Compatibility", &guards)] {
        let held = |of: fn(&Row) -> bool| rows.iter().filter(|row| of(row)).count();
        writeln!(
            page,
            "| {kind} | {} | {} | {} |",
            rows.len(),
            held(|row| row.sqlite == "held"),
            held(|row| row.postgres == "held"),
        )
        .unwrap();
    }
    for (title, what, rows) in [
        ("Attacks", "What is tried", attacks),
        ("Compatibility", "What must work", guards),
    ] {
        write!(
            page,
            "\n## {title}\n\n| Case | {what} | SQLite | PostgreSQL |\n| --- | --- | --- | --- |\n"
        )
        .unwrap();
        for Row {
            case,
            sqlite,
            postgres,
        } in rows
        {
            writeln!(
                page,
                "| {} | {} | {sqlite} | {postgres} |",
                case.id, case.tried
            )
            .unwrap();
        }
    }
    page.push_str("\n## Not applicable\n\n| Cases | Why |\n| --- | --- |\n");
    for (ids, why) in NOT_APPLICABLE {
        writeln!(page, "| {} | {why} |", ids.replace(' ', ", ")).unwrap();
    }
    page
}

/// The last two cells of each row, by its first.
fn results_on(page: &str) -> BTreeMap<&str, [&str; 2]> {
    let rows = page.lines().filter_map(|line| {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let (id, rest) = cells.split_once(" | ")?;
        let (rest, postgres) = rest.rsplit_once(" | ")?;
        Some((id, [rest.rsplit_once(" | ")?.1, postgres]))
    });
    rows.collect()
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(PAGE)
}

#[test]
fn what_was_not_tried_is_not_said_to_have_held() {
    let before = ["not tried", "not run", "**broken**"];
    for before in before {
        assert_ne!(word(Outcome::NotTried, before), "held");
    }
    let rows = "| N-TK-24 | a \\| b | held | not tried |";
    assert_eq!(results_on(rows)["N-TK-24"], ["held", "not tried"]);
}
