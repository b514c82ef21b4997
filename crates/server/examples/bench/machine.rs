//! The machine beneath: its CPUs and who runs on which, its disk, its limits.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::Instant;

/// Which CPUs the programs run on.
pub(crate) enum Pinning {
    /// The program under test on one, load and upstream on another.
    Apart { tested: u32, load: u32 },
    /// Wherever the kernel puts them, and why.
    Free(&'static str),
}

impl Pinning {
    /// Pins this process to the second CPU that it may use. It must not have started threads.
    pub(crate) fn apply() -> anyhow::Result<Self> {
        let cpus = allowed_cpus()?;
        let [tested, load, ..] = cpus[..] else {
            return Ok(Self::Free("there is only one CPU"));
        };
        let pinned = Command::new("taskset")
            .args(["--all-tasks", "--cpu-list", "--pid", &load.to_string()])
            .arg(process::id().to_string())
            .stdout(Stdio::null())
            .status();
        Ok(match pinned {
            Ok(status) if status.success() => Self::Apart { tested, load },
            Ok(_) => Self::Free("`taskset` failed"),
            Err(_) => Self::Free("there is no `taskset`; install util-linux"),
        })
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        match self {
            Self::Apart { tested, .. } => {
                let mut command = Command::new("taskset");
                command
                    .args(["--cpu-list", &tested.to_string()])
                    .arg(program);
                command
            }
            Self::Free(_) => Command::new(program),
        }
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Apart { tested, load } => format!(
                "pinned by `taskset`: nginx and mcp-oauth-proxy on CPU {tested}, \
                 load and upstream together on CPU {load}"
            ),
            Self::Free(why) => format!("not pinned, so the figures are worth less: {why}"),
        }
    }
}

fn allowed_cpus() -> anyhow::Result<Vec<u32>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .context("/proc/self/status does not say which CPUs are allowed")?;
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(from.parse::<u32>()?..=to.parse()?);
    }
    Ok(cpus)
}

/// Raises the number of files that this process and its children may open to what the system
/// allows, and says what that is.
pub(crate) fn raise_file_limit() -> anyhow::Result<u32> {
    // Where there is no `prlimit`, the limit stays as it is and may well do.
    let _ = Command::new("prlimit")
        .args(["--pid", &process::id().to_string()])
        .arg(format!("--nofile={}:", file_limits()?.1))
        .status();
    Ok(file_limits()?.0)
}

/// The soft and the hard limit.
fn file_limits() -> anyhow::Result<(u32, u32)> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let mut fields = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .context("/proc/self/limits does not say how many files may be open")?
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(u32::MAX));
    let soft = fields.next().context("no soft limit")?;
    Ok((soft, fields.next().context("no hard limit")?))
}

/// What the figures were measured on.
pub(crate) fn describe() -> anyhow::Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(format!(
        "{} CPUs ({model}), load {} before the run, data on {}, where a synced write of 4 KiB takes {:.2} ms",
        allowed_cpus()?.len(),
        load.split(' ').next().unwrap_or("unknown"),
        filesystem(&scratch_root())?,
        synced_write()?.as_secs_f64() * 1000.0
    ))
}

/// The kind of file system that `path` is on.
fn filesystem(path: &Path) -> anyhow::Result<String> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut fields: Vec<(&str, &str)> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mounted_at, _)| path.starts_with(mounted_at))
        .collect();
    fields.sort_by_key(|(mounted_at, _)| mounted_at.len());
    let (_, kind) = fields.last().context("no file system holds the data")?;
    Ok((*kind).to_owned())
}

/// What one durable write costs here at best: the median of a few.
fn synced_write() -> anyhow::Result<Duration> {
    let directory = scratch_directory()?;
    let mut file = fs::File::create(directory.path().join("synced"))?;
    let mut taken = Vec::new();
    for _ in 0..25 {
        let start = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        taken.push(start.elapsed());
    }
    taken.sort();
    Ok(taken[taken.len() / 2])
}

/// A directory of our own, on a disk: the target directory where there is one, since `/tmp` may
/// be memory and a durable write there costs nothing.
pub(crate) fn scratch_directory() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(scratch_root())
        .context("no scratch directory could be made")
}

fn scratch_root() -> PathBuf {
    fs::canonicalize("target").unwrap_or_else(|_| env::temp_dir())
}
