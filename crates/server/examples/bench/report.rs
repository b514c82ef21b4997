//! The figures as tables that read well both in a terminal and as Markdown.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use crate::{
    figures::{CallFigure, Figures, MemoryFigure, OAuthFigure, Pace, Target, Workload, median},
    rounds::{MODEST_RATE, PEOPLE, Plan},
};

/// Says how far the run is, beside the report.
pub(crate) fn progress(line: &str) {
    // Whoever has closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "{line}");
}

/// The whole report.
pub(crate) fn render(setup: &[String], plan: &Plan, figures: &Figures) -> String {
    let mut text = String::new();
    for line in setup {
        let _ = writeln!(text, "- {line}");
    }
    let _ = writeln!(
        text,
        "- median of {} interleaved rounds; ratios are medians of the rounds' own ratios, with their range",
        plan.rounds
    );
    section(&mut text, "Calls", &calls(figures));
    section(
        &mut text,
        "Calls, against nginx and direct",
        &ratios(figures),
    );
    section(
        &mut text,
        "Memory and idle event streams",
        &memory(plan, figures),
    );
    section(&mut text, "OAuth on SQLite", &oauth(plan, figures));
    section(&mut text, "Goals", &goals(figures));
    let _ = writeln!(text, "\nErrors: {}", figures.errors);
    for complaint in &figures.complaints {
        let _ = writeln!(text, "- {complaint}");
    }
    text
}

fn calls(figures: &Figures) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "answer",
        "target",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "CPU µs/call",
    ])];
    for workload in Workload::ALL {
        for target in [Target::Direct, Target::Nginx, Target::Proxy] {
            let paces = paces(figures, workload, target);
            if !paces.is_empty() {
                let mut cells = row([workload.title(), target.title()]);
                cells.extend(pace_cells(&paces));
                rows.push(cells);
            }
        }
    }
    rows
}

fn ratios(figures: &Figures) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "answer",
        "requests/s ÷ nginx",
        "p50 ÷ nginx",
        "p99 ÷ nginx",
        "CPU ÷ nginx",
        "p50 added to direct, µs",
    ])];
    for workload in Workload::ALL {
        let against = |other, figure: fn(&Pace) -> f64, compare: fn(f64, f64) -> f64| {
            with_range(&compared(figures, workload, other, figure, compare))
        };
        let ratio = |figure| against(Target::Nginx, figure, |ours, theirs| ours / theirs);
        rows.push(vec![
            workload.title().to_owned(),
            ratio(|pace| pace.per_second),
            ratio(|pace| pace.p50),
            ratio(|pace| pace.p99),
            ratio(cpu),
            against(
                Target::Direct,
                |pace| pace.p50,
                |ours, theirs| ours - theirs,
            ),
        ]);
    }
    rows
}

fn memory(plan: &Plan, figures: &Figures) -> Vec<Vec<String>> {
    let mut rows = vec![vec![
        "target".to_owned(),
        "RSS idle MiB".to_owned(),
        "before streams MiB".to_owned(),
        format!("with {} streams MiB", plan.streams),
        "KiB/stream".to_owned(),
        "after closing MiB".to_owned(),
    ]];
    for target in [Target::Nginx, Target::Proxy] {
        let of = |figure: &dyn Fn(&MemoryFigure) -> f64| {
            number(median(memory_figures(figures, target, figure)))
        };
        if figures.memory.iter().any(|figure| figure.target == target) {
            rows.push(vec![
                target.title().to_owned(),
                of(&|figure| figure.idle / 1024.0),
                of(&|figure| figure.before_streams / 1024.0),
                of(&|figure| figure.with_streams / 1024.0),
                of(&MemoryFigure::per_stream),
                of(&|figure| figure.after_streams / 1024.0),
            ]);
        }
    }
    rows
}

fn oauth(plan: &Plan, figures: &Figures) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "what",
        "per second",
        "p50 µs",
        "p99 µs",
        "CPU µs each",
    ])];
    let mut add = |title: String, phase: fn(&OAuthFigure) -> Pace| {
        let mut cells = vec![title];
        cells.extend(pace_cells(
            &figures.oauth.iter().map(phase).collect::<Vec<_>>(),
        ));
        rows.push(cells);
    };
    add(
        format!("refreshes, {} sessions at once", plan.sessions),
        |figure| figure.refreshes,
    );
    add(
        format!("new clients, {PEOPLE} at once, 4 requests each"),
        |figure| figure.new_clients,
    );
    add(format!("calls at {MODEST_RATE}/s, alone"), |figure| {
        figure.calls_alone
    });
    add(
        format!("calls at {MODEST_RATE}/s, beside the refreshes"),
        |figure| figure.calls_beside,
    );
    let p99_ratio = figures
        .oauth
        .iter()
        .map(|figure| figure.calls_beside.p99 / figure.calls_alone.p99)
        .collect::<Vec<_>>();
    let none = String::new();
    rows.push(vec![
        "p99 beside ÷ alone".to_owned(),
        none.clone(),
        none.clone(),
        with_range(&p99_ratio),
        none,
    ]);
    rows
}

fn goals(figures: &Figures) -> Vec<Vec<String>> {
    let small = |other, workload, figure, compare| {
        median(compared(figures, workload, other, figure, compare))
    };
    let ours = |figure: &dyn Fn(&MemoryFigure) -> f64| {
        median(memory_figures(figures, Target::Proxy, figure))
    };
    let at_most = |figure: Option<f64>, limit: f64| verdict(figure, figure <= Some(limit));
    let cpu_ratio = small(
        Target::Nginx,
        Workload::ManyConnections,
        cpu,
        |ours, theirs| ours / theirs,
    );
    let added = small(
        Target::Direct,
        Workload::OneConnection,
        |pace| pace.p50,
        |ours, theirs| (ours - theirs) / 1000.0,
    );
    let per_stream = ours(&MemoryFigure::per_stream);
    let idle = ours(&|figure| figure.idle / 1024.0);
    let refreshes = median(
        figures
            .oauth
            .iter()
            .map(|figure| figure.refreshes.per_second)
            .collect(),
    );
    let mut rows = vec![row(["goal", "figure", "verdict"])];
    for (goal, figure, verdict) in [
        (
            "CPU per call, 64 connections ≤ 1.5 × nginx",
            cpu_ratio,
            at_most(cpu_ratio, 1.5),
        ),
        (
            "p50 added to direct, 1 connection ≤ 0.3 ms",
            added,
            at_most(added, 0.3),
        ),
        (
            "memory ≤ 40 KiB per idle stream",
            per_stream,
            at_most(per_stream, 40.0),
        ),
        ("RSS idle ≤ 20 MiB", idle, at_most(idle, 20.0)),
        (
            "durable refreshes ≥ 500/s",
            refreshes,
            verdict(refreshes, refreshes >= Some(500.0)),
        ),
    ] {
        rows.push(vec![goal.to_owned(), number(figure), verdict.to_owned()]);
    }
    rows
}

fn verdict(figure: Option<f64>, is_met: bool) -> &'static str {
    match figure {
        None => "not measured",
        Some(_) if is_met => "ok",
        Some(_) => "missed",
    }
}

impl MemoryFigure {
    fn per_stream(&self) -> f64 {
        (self.with_streams - self.before_streams) / self.streams
    }
}

fn memory_figures(
    figures: &Figures,
    target: Target,
    figure: &dyn Fn(&MemoryFigure) -> f64,
) -> Vec<f64> {
    let of_target = figures.memory.iter().filter(|one| one.target == target);
    of_target.map(figure).collect()
}

fn paces(figures: &Figures, workload: Workload, target: Target) -> Vec<Pace> {
    let is_it = |figure: &&CallFigure| figure.workload == workload && figure.target == target;
    let matching = figures.calls.iter().filter(is_it);
    matching.map(|figure| figure.pace).collect()
}

fn cpu(pace: &Pace) -> f64 {
    pace.cpu.unwrap_or(f64::NAN)
}

/// What the proxy's figure comes to beside another target's, round by round.
fn compared(
    figures: &Figures,
    workload: Workload,
    other: Target,
    figure: fn(&Pace) -> f64,
    compare: fn(f64, f64) -> f64,
) -> Vec<f64> {
    let theirs = paces(figures, workload, other);
    let ours = paces(figures, workload, Target::Proxy);
    ours.iter()
        .zip(&theirs)
        .map(|(ours, theirs)| compare(figure(ours), figure(theirs)))
        .collect()
}

fn pace_cells(paces: &[Pace]) -> Vec<String> {
    let of = |figure: fn(&Pace) -> f64| number(median(paces.iter().map(figure).collect()));
    vec![
        of(|pace| pace.per_second),
        of(|pace| pace.p50),
        of(|pace| pace.p99),
        of(cpu),
    ]
}

/// The median and in brackets the smallest and the largest.
fn with_range(values: &[f64]) -> String {
    let smallest = values.iter().copied().min_by(f64::total_cmp);
    let largest = values.iter().copied().max_by(f64::total_cmp);
    match median(values.to_vec()) {
        None => number(None),
        median if values.len() == 1 => number(median),
        median => format!(
            "{} [{}–{}]",
            number(median),
            number(smallest),
            number(largest)
        ),
    }
}

/// Three digits, or all before the point.
fn number(value: Option<f64>) -> String {
    match value.filter(|value| value.is_finite()) {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A heading and a table whose first row is its header.
fn section(text: &mut String, title: &str, rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let _ = writeln!(text, "\n## {title}\n");
    for (index, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(text, "| {cell:width$} ", width = width(column));
        }
        let _ = writeln!(text, "|");
        if index == 0 {
            for column in 0..row.len() {
                let _ = write!(text, "|{}", "-".repeat(width(column) + 2));
            }
            let _ = writeln!(text, "|");
        }
    }
}
