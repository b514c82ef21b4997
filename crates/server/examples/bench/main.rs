//! Measures the proxy beside nginx and beside no proxy at all: `just bench`.
//!
//! It builds nothing: it takes the proxy's program from `PROXY_BIN` (default
//! `target/release/mcp-oauth-proxy`) and nginx from the system. Load and upstream are in here.
//! Everything happens on this machine's loopback interface.

mod figures;
mod load;
mod machine;
mod oauth;
mod processes;
mod report;
mod rounds;
mod upstream;

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser as _;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::{
    machine::Pinning,
    processes::{Tokens, find_nginx},
    report::progress,
    rounds::{Bench, Plan},
};

/// The longest that a run may take before it gives up.
const DEADLINE: Duration = Duration::from_mins(5);
const DEFAULT_PROXY: &str = "target/release/mcp-oauth-proxy";

/// Measures the proxy beside nginx and beside no proxy at all.
#[derive(clap::Parser)]
struct Arguments {
    /// Only shows that everything works, in a few seconds; the figures mean little
    #[arg(long)]
    quick: bool,
    /// Also writes the report to this file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // The machine before the pinning, which hides all CPUs but one; the pinning before the first
    // thread, which would stay where it is.
    let machine = machine::describe()?;
    let bench = prepare(arguments, Pinning::apply()?)?;
    let setup = describe(machine, &bench)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        // Whatever comes first, leaving ends the programs under test.
        tokio::select! {
            figures = bench.measure() => figures,
            _ = interrupted.recv() => bail!("interrupted"),
            _ = terminated.recv() => bail!("told to end"),
            () = sleep(DEADLINE) => bail!("not done after {DEADLINE:?}"),
        }
    })?;
    let report = report::render(&setup, &bench.plan, &figures);
    io::stdout().write_all(report.as_bytes())?;
    if let Some(file) = &arguments.markdown {
        fs::write(file, &report)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    ensure!(
        figures.errors == 0,
        "{} answers were wrong or missing, so the figures do not count",
        figures.errors
    );
    Ok(())
}

fn prepare(arguments: &Arguments, pinning: Pinning) -> anyhow::Result<Bench> {
    let proxy =
        env::var_os("PROXY_BIN").map_or_else(|| PathBuf::from(DEFAULT_PROXY), PathBuf::from);
    ensure!(
        proxy.is_file(),
        "there is no program {}; build it with `cargo build --release`, or name another in PROXY_BIN",
        proxy.display()
    );
    let nginx = find_nginx();
    if nginx.is_none() {
        progress(
            "nginx is not installed, so there is nothing to compare with; on Debian: apt-get install nginx-light",
        );
    }
    let mut plan = if arguments.quick {
        Plan::QUICK
    } else {
        Plan::FULL
    };
    let files = machine::raise_file_limit()?;
    if files < plan.files() {
        progress(&format!(
            "only {files} files may be open, too few for {} streams, which are left out; \
             raise the limit with `ulimit -n {}`",
            plan.streams,
            plan.files()
        ));
        plan.streams = 0;
    }
    // Not the first of its kind: that one is the clients' token or passphrase.
    let upstream_key = Tokens::starting_at(1).next();
    Ok(Bench {
        plan,
        pinning,
        nginx,
        proxy,
        upstream: upstream::start(&upstream_key)?,
        upstream_key,
    })
}

/// What is measured, where and how, as the first lines of the report.
fn describe(machine: String, bench: &Bench) -> anyhow::Result<Vec<String>> {
    let nginx = match &bench.nginx {
        Some(program) => processes::version(program)?,
        None => "not installed".to_owned(),
    };
    Ok(vec![
        machine,
        bench.pinning.describe(),
        format!(
            "nginx: {nginx}; 1 worker, a map of 1,000 tokens, unbuffered as event streams need it"
        ),
        format!(
            "mcp-oauth-proxy: {}, default worker threads (one for each CPU that it may use), metrics on",
            bench.proxy.display()
        ),
    ])
}
