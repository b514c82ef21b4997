//! Every sample configuration, valid and invalid, through the real program.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it calls"
)]

use std::{
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use server::config::{Environment, load};

const SECRET: &str = "s3cr3t";

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sample-configs")
}

/// The sample files of one kind, relative to [`samples`], in the order of their names.
fn files(kind: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(samples().join(kind))
        .unwrap()
        .map(|entry| Path::new(kind).join(entry.unwrap().file_name()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn check(directory: &Path, config: &Path, variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mcp-oauth-proxy"))
        .args(["check", "--all", "--offline", "--config"])
        .arg(config)
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn check_sample(config: &Path) -> Output {
    check(
        &samples(),
        config,
        &[
            ("WASENDER_PAT", "k-s3cr3t-from-a-variable"),
            ("PASSPHRASE_OF_THE_FILE", "orange tractor s3cr3t sail"),
            ("PIN", "k7s3cr3t"),
            (
                "KEY",
                "mcp-oauth-proxy-key-1:s3cr3tQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
            ),
            (
                "DATABASE_URL",
                "postgres://proxy:s3cr3t@db.example:5433/proxy?password=s3cr3t",
            ),
            ("EMPTY_VARIABLE", ""),
            (
                "UPSTREAM_ADDRESS",
                "https://mcp.example/fc-abcdef0123456789s3cr3t/v2/mcp",
            ),
        ],
    )
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// S2-20
#[test]
fn every_valid_sample_comes_to_what_it_says() {
    let mut all = String::new();
    for file in files("valid") {
        let output = check_sample(&file);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}: {stderr}",
            file.display()
        );
        assert_eq!(stderr, "");
        assert!(!stdout.contains(SECRET), "{stdout}");
        writeln!(all, "=== {}\n{stdout}", file.display()).unwrap();
    }
    let all = all.replace(samples().to_str().unwrap(), "<samples>");
    insta::assert_snapshot!("valid", all);
}

/// Each invalid sample ends with its mistakes, one to a line: `#! line:column: key reason…`.
/// S2-07, S5-21
#[test]
fn every_invalid_sample_is_refused_with_each_of_its_mistakes() {
    let mut all = String::new();
    for file in files("invalid") {
        let name = file.display().to_string();
        let sample = fs::read_to_string(samples().join(&file)).unwrap();
        let expected: Vec<String> = sample
            .lines()
            .filter_map(|line| line.strip_prefix("#! "))
            .map(|mistake| format!("{name}:{mistake}"))
            .collect();
        assert!(!expected.is_empty(), "{name} does not say what is wrong");

        let output = check_sample(&file);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));

        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert_eq!(stdout, "");
        assert!(!stderr.contains(SECRET), "{stderr}");
        let found: Vec<&str> = stderr
            .lines()
            .filter(|line| line.starts_with(&name))
            .collect();
        let all_expected = found.len() == expected.len()
            && found
                .iter()
                .zip(&expected)
                .all(|(found, expected)| found.starts_with(expected));
        assert!(all_expected, "expected {expected:#?}, found {stderr}");
        assert_eq!(stderr.matches("\n  hint: ").count(), found.len());
        writeln!(all, "=== {stderr}").unwrap();
    }
    insta::assert_snapshot!("invalid", all);
}

#[test]
fn a_damaged_file_never_breaks_the_program_or_gives_a_secret_away() {
    let directory = tempfile::tempdir().unwrap();
    let damaged = directory.path().join("damaged.toml");
    let environment = Environment::default();
    for file in files("invalid").into_iter().chain(files("valid")) {
        let sample = fs::read_to_string(samples().join(&file)).unwrap();
        // What is wrong with the sample quotes no secret, so there is nothing to gain in it.
        let sample = sample.split("\n#! ").next().unwrap();
        // Every place would take a minute; a step prime to most line lengths meets all kinds.
        for (start, character) in sample.char_indices().step_by(13) {
            let end = start + character.len_utf8();
            let cut = sample[..start].to_owned();
            let without_one = format!("{}{}", &sample[..start], &sample[end..]);
            for text in [cut, without_one] {
                fs::write(&damaged, &text).unwrap();
                let shown = match load(Some(&damaged), &environment) {
                    Ok(plan) => format!("{plan:?}"),
                    Err(mistakes) => format!("{mistakes}{mistakes:?}"),
                };
                assert!(!shown.contains(SECRET), "{text}\n{shown}");
            }
        }
    }
}

#[test]
fn a_file_with_a_secret_that_others_can_read_is_warned_about() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    let warning = "warning: proxy.toml holds a secret and other users of this machine can read it: chmod 600 proxy.toml";
    let literal = "[sign_in]\npassphrase = 'orange tractor wisdom sail'\n";
    let postgres = "store = 'postgres://me:password@db/proxy'\n";
    let key = "[upstream.one]\nurl = 'https://one.example/mcp'\ncredential = { query = 'k', value = 'v' }\n";
    let master = "key = 'mcp-oauth-proxy-key-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8'\n";
    let in_address = "[upstream.one]\nurl = 'https://one.example/fc-abcdef0123456789abcdef/mcp'\n";
    let header = "[upstream.one]\nurl = 'https://one.example/mcp'\nheaders = { X-API-Key = 'v' }\n";
    let tenant = "[upstream.one]\nurl = 'https://one.example/mcp'\nheaders = { X-Tenant = '7' }\n";
    let reference = "[sign_in]\npassphrase = { env = 'P' }\n";
    for (text_of_file, mode, is_warned) in [
        (literal, 0o644, true),
        (literal, 0o640, true),
        (literal, 0o600, false),
        (postgres, 0o644, true),
        (key, 0o644, true),
        (in_address, 0o644, true),
        (header, 0o644, true),
        (tenant, 0o644, false),
        (master, 0o644, true),
        (reference, 0o644, false),
        ("store = 'sqlite'", 0o644, false),
        ("store = 'postgres://me@db/proxy'", 0o644, false),
    ] {
        fs::write(&file, text_of_file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = check(
            directory.path(),
            Path::new("proxy.toml"),
            &[("P", "orange tractor wisdom sail")],
        );
        let stdout = text(&output.stdout);
        assert_eq!(
            stdout.contains(warning),
            is_warned,
            "{mode:o} {text_of_file}: {stdout}"
        );
    }
}

/// A newcomer copies the first file of the README, writes an address and a key into it, and has no
/// mistake and no warning.
#[test]
fn the_first_file_of_the_readme_works_as_it_is() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, block) = readme.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mcp-oauth-proxy.toml");
    fs::write(&file, block).unwrap();
    for (mode, last) in [(0o600, "\nok\n"), (0o644, "\n1 warning\n")] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = check(directory.path(), &file, &[]);
        let shown = text_of(&output);
        assert_eq!(output.status.code(), Some(0), "{shown}");
        assert!(shown.ends_with(last), "{shown}");
    }
}

#[test]
fn a_database_across_the_network_without_tls_is_warned_about() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    for (url, is_warned) in [
        ("postgres://me@db.example/proxy", true),
        ("postgres://me@192.0.2.7:5433/proxy", true),
        ("postgres:///proxy?host=db.example", true),
        ("postgres://me@localhost/proxy?hostaddr=192.0.2.7", true),
        ("postgres://me@db.example/proxy?sslmode=prefer", true),
        ("postgres://me@db.example/proxy?sslmode=disable", true),
        ("postgres://me@db.example/proxy?sslmode=require", false),
        ("postgres://me@db.example/proxy?sslmode=verify-ca", false),
        ("postgres://me@db.example/proxy?ssl-mode=verify-full", false),
        ("postgres://me@localhost/proxy", false),
        ("postgres://me@127.0.0.1:5433/proxy", false),
        ("postgres://me@[::1]/proxy", false),
        ("postgres:///proxy?host=/run/postgresql", false),
        ("postgres:///proxy", false),
    ] {
        fs::write(&file, format!("store = '{url}'\n")).unwrap();
        let output = check(directory.path(), &file, &[]);
        let stdout = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{stdout}");
        let warned = stdout.contains("warning: store names another machine without asking for TLS");
        assert_eq!(warned, is_warned, "{url}: {stdout}");
    }
}

/// Case 31: of an address only what is no key is shown, wherever it comes from.
#[test]
fn what_looks_like_a_key_in_an_address_is_masked() {
    const KEY: &str = "fc-abcdef0123456789abcdef";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    let secret = directory.path().join("address");
    for (address, shown) in [
        (
            format!("https://mcp.example/{KEY}/v2/mcp"),
            "https://mcp.example/••••/v2/mcp",
        ),
        (
            format!("https://{KEY}.mcp.example/mcp"),
            "https://••••.mcp.example/mcp",
        ),
        (
            format!("https://mcp.example/mcp?{KEY}"),
            "https://mcp.example/mcp?••••=••••",
        ),
    ] {
        fs::write(&secret, format!("{address}\n")).unwrap();
        for (url, variable) in [
            (format!("'{address}'"), "NONE"),
            ("{ env = 'ADDRESS' }".to_owned(), "ADDRESS"),
            ("{ file = 'address' }".to_owned(), "NONE"),
            // None in the file at all.
            (String::new(), "UPSTREAM_URL"),
        ] {
            let text = match &*url {
                "" => String::new(),
                url => format!("upstream.one.url = {url}\n"),
            };
            fs::write(&file, text).unwrap();
            let output = check(directory.path(), &file, &[(variable, &address)]);
            let stdout = text_of(&output);
            assert_eq!(output.status.code(), Some(0), "{stdout}");
            assert!(
                stdout.contains(&format!("  sends to                   {shown}\n")),
                "{stdout}"
            );
            assert!(!stdout.contains(KEY), "{stdout}");
        }
    }
}

fn text_of(output: &Output) -> String {
    [text(&output.stdout), text(&output.stderr)].concat()
}
