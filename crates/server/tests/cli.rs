//! The command line: what it answers, what overrides the file, what a start does and says.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and so may what it calls"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    thread,
};

use server::{
    cli::serve::{PassphraseNotice, prepare, start_text},
    config::{self, Environment, Mistakes, Plan},
};
use tempfile::TempDir;

const PASSPHRASE: &str = "orange tractor wisdom sail";

fn run_in(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mcp-oauth-proxy"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn fails(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    stderr
}

fn empty_directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Loads `text` as the configuration file, in a directory of its own.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<Plan, Mistakes> {
    let directory = empty_directory();
    let file = directory.path().join("proxy.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    config::load(Some(&file), &environment(variables))
}

#[test]
fn help_tells_every_command_flag_and_variable() {
    let here = empty_directory();
    let help = succeeds(&run_in(here.path(), &["--help"], &[]));
    insta::assert_snapshot!("help", help);
    let check_help = succeeds(&run_in(here.path(), &["check", "--help"], &[]));
    insta::assert_snapshot!("check_help", check_help);
    let serve_help = succeeds(&run_in(here.path(), &["serve", "--help"], &[]));
    insta::assert_snapshot!("serve_help", serve_help);
}

#[test]
fn version_is_that_of_the_package() {
    let here = empty_directory();
    assert_eq!(
        succeeds(&run_in(here.path(), &["--version"], &[])),
        concat!("mcp-oauth-proxy ", env!("CARGO_PKG_VERSION"), "\n"),
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    let here = empty_directory();
    for arguments in [
        &["chek"][..],
        &["serve", "--offline"],
        &["--confg", "x"],
        &["check", "extra"],
        &["--config"],
    ] {
        let stderr = fails(&run_in(here.path(), arguments, &[]), 2);
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
}

#[test]
fn config_is_named_before_or_after_the_command() {
    let here = empty_directory();
    fs::write(here.path().join("a.toml"), "listen = '127.0.0.1:7001'").unwrap();
    for arguments in [
        &["check", "--config", "a.toml"][..],
        &["--config", "a.toml", "check"],
        &["--config=a.toml", "check"],
    ] {
        let answer = succeeds(&run_in(here.path(), arguments, &[]));
        assert!(answer.contains("http://127.0.0.1:7001/mcp\n"), "{answer}");
    }
}

#[test]
fn a_named_file_must_exist_but_the_default_one_need_not() {
    let here = empty_directory();
    for arguments in [
        &["--config", "none.toml"][..],
        &["serve", "--config", "none.toml"],
        &["check", "--config", "none.toml"],
    ] {
        let stderr = fails(&run_in(here.path(), arguments, &[]), 2);
        assert!(stderr.contains("none.toml: cannot be read: "), "{stderr}");
    }
    let directory = fs::canonicalize(here.path()).unwrap();
    let here_is = |answer: String| answer.replace(directory.to_str().unwrap(), "<here>");
    let answer = here_is(succeeds(&run_in(here.path(), &["check"], &[])));
    insta::assert_snapshot!("check_without_a_file", answer);
    let answer = here_is(succeeds(&run_in(here.path(), &["check", "--all"], &[])));
    insta::assert_snapshot!("check_all_without_a_file", answer);

    fs::write(
        here.path().join("mcp-oauth-proxy.toml"),
        "listen = '127.0.0.1:7001'",
    )
    .unwrap();
    let answer = succeeds(&run_in(here.path(), &["check"], &[]));
    assert!(answer.contains("http://127.0.0.1:7001/mcp\n"), "{answer}");
}

#[test]
fn check_creates_nothing() {
    let here = empty_directory();
    succeeds(&run_in(here.path(), &["check"], &[]));
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
}

#[test]
fn check_warns_of_a_data_directory_that_others_can_write() {
    let here = empty_directory();
    let data_dir = here.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    for (mode, is_warned_of) in [
        (0o777, Some("chmod go-w ./data")),
        // Its own group alone.
        (
            0o770,
            Some("chmod g-w ./data, unless nobody else is in that group"),
        ),
        (0o755, None),
        (0o1777, None),
    ] {
        fs::set_permissions(&data_dir, fs::Permissions::from_mode(mode)).unwrap();
        let output = run_in(here.path(), &["check"], &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &succeeds(&output);
        assert_eq!(said.contains("chmod"), is_warned_of.is_some(), "{said}");
        assert!(said.contains(is_warned_of.unwrap_or_default()), "{said}");
    }
}

/// Case 28: the key can come from where a platform puts secrets, however they are readable there.
/// What it opens is the same as with the key file.
#[test]
fn the_key_can_come_from_elsewhere() {
    let directory = empty_directory();
    let made = prepare_in(&directory, load("", &[]).unwrap()).keys;
    let file = directory.path().join("data/key");
    let text = fs::read_to_string(&file).unwrap();
    let elsewhere = directory.path().join("secret");
    fs::write(&elsewhere, &text).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(&file, "none").unwrap();
    let named = format!("key = {{ file = '{}' }}", elsewhere.display());
    for (config, variables) in [
        (&*named, &[][..]),
        ("key = { env = 'KEY' }", &[("KEY", text.as_str())]),
        ("key = { env = 'KEY' }", &[("KEY", text.trim())]),
    ] {
        let plan = load(config, variables).unwrap();
        let prepared = prepare_in(&directory, plan);
        assert_eq!(prepared.keys.first().as_bytes(), made.first().as_bytes());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "none");

    // No other text is a key, and none is repeated.
    let zeroes = format!("mcp-oauth-proxy-key-1:{}", "A".repeat(43));
    for (secret, says) in [
        ("s3cr3t", "key is not in the format mcp-oauth-proxy-key-1:"),
        (&zeroes, "key holds a placeholder, not a random key"),
        ("", "refers to the environment variable KEY, which is empty"),
    ] {
        let mistakes = load("key = { env = 'KEY' }", &[("KEY", secret)]).unwrap_err();
        let said = mistakes.to_string();
        assert!(said.contains(says) && !said.contains("s3cr3t"), "{said}");
    }
}

#[test]
fn a_start_that_fails_says_why_and_exits_with_1() {
    let here = empty_directory();
    let key = here.path().join("data/key");
    fs::create_dir(here.path().join("data")).unwrap();
    fs::write(&key, "anything").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    for arguments in [&[][..], &["serve"]] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(fails(&run_in(here.path(), arguments, &[]), 1), @r#"
            error: the key file ./data/key can be read or changed by other users
            hint: chmod 600 ./data/key; where a platform or a file system sets the mode, write key = { file = "./data/key" } into the configuration, which takes it as it is
            "#);
        }
    }
    fs::write(here.path().join("file"), "").unwrap();
    fs::write(here.path().join("proxy.toml"), "data_dir = 'file/data'").unwrap();
    let stderr = fails(&run_in(here.path(), &["--config", "proxy.toml"], &[]), 1);
    insta::assert_snapshot!(stderr, @"
    error: the key file file/data/key cannot be read
      because: Not a directory (os error 20)
    hint: let the user that runs this program read file/data/key
    ");

    // Directories of the kernel's, in which even root makes nothing.
    fs::write(here.path().join("proxy.toml"), "data_dir = '/proc/data'").unwrap();
    let stderr = fails(&run_in(here.path(), &["--config", "proxy.toml"], &[]), 1);
    insta::assert_snapshot!(stderr, @"
    error: the data directory /proc/data cannot be created
      because: No such file or directory (os error 2)
    hint: create /proc/data for the user that runs this program, or set data_dir to a directory where it may write
    ");
    fs::write(here.path().join("proxy.toml"), "data_dir = '/proc/self'").unwrap();
    let stderr = fails(&run_in(here.path(), &["--config", "proxy.toml"], &[]), 1);
    insta::assert_snapshot!(stderr, @"
    error: the key file /proc/self/key cannot be written
      because: No such file or directory (os error 2)
    hint: let the user that runs this program write to /proc/self, or set data_dir to a directory where it may
    ");
}

#[test]
fn a_first_start_that_fails_leaves_no_passphrase_that_nobody_was_told() {
    let directory = empty_directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run_in(directory.path(), &["serve"], &[("LISTEN", &address)]);
    let error = fails(&output, 1);
    assert!(
        error.contains(&format!("cannot listen on {address}")),
        "{error}"
    );
    assert!(directory.path().join("data/key").exists());
    assert!(!directory.path().join("data/passphrase.hash").exists());
}

#[test]
fn a_start_that_fails_first_writes_the_log() {
    let directory = empty_directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 200; exec \"$0\" serve"])
        .arg(env!("CARGO_BIN_EXE_mcp-oauth-proxy"))
        .current_dir(directory.path())
        .env_clear()
        .env("LISTEN", taken.local_addr().unwrap().to_string())
        .output()
        .unwrap();
    let text = fails(&output, 1);
    let [logged, error] =
        ["few files may be open", "error: cannot listen"].map(|part| text.find(part));
    assert!(logged.is_some() && logged < error, "{text}");
}

#[test]
fn an_empty_variable_for_the_upstream_is_warned_about() {
    let plan = load("", &[("UPSTREAM_URL", ""), ("UPSTREAM_TOKEN", "")]).unwrap();
    assert_eq!(
        plan.warnings,
        [
            "UPSTREAM_URL is empty, so it is taken as not set",
            "UPSTREAM_TOKEN is empty, so it is taken as not set",
        ]
    );
}

#[test]
fn a_proxy_in_front_that_is_not_named_is_warned_about_wherever_it_is() {
    let at = |listen: &str, rest: &str| {
        let file = format!("public_url = 'https://mcp.example.com'\nlisten = '{listen}'\n{rest}");
        load(&file, &[]).unwrap().warnings
    };
    let nearby = at("127.0.0.1:8080", "");
    assert!(matches!(&nearby[..], [only] if only.ends_with("write ranges = [\"127.0.0.1\"]")));
    let anywhere = at("0.0.0.0:8080", "");
    assert!(matches!(&anywhere[..], [only] if only.contains("let nobody else reach `listen`")));
    let named = at("0.0.0.0:8080", "trusted_proxies.ranges = ['10.0.0.5']");
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn the_environment_overrides_the_file() {
    let file = "public_url = 'https://old.example'\nlisten = '127.0.0.1:1'\nsign_in.pin = 'k7wq2z'\ntrusted_proxies.ranges = ['127.0.0.1']";
    let plan = load(
        file,
        &[
            ("PUBLIC_URL", "https://new.example"),
            ("LISTEN", "127.0.0.1:2"),
            ("PASSPHRASE", PASSPHRASE),
        ],
    )
    .unwrap();
    assert_eq!(plan.issuer.as_str(), "https://new.example");
    assert_eq!(plan.settings.listen.port(), 2);
    assert_eq!(
        plan.warnings,
        ["sign_in.pin is not used, because PASSPHRASE is set in the environment"]
    );
    let prepared = prepare_in(&empty_directory(), plan);
    assert!(prepared.policy.sign_in.is_proved_by(PASSPHRASE));

    // Container tools pass an empty variable for one that nobody set.
    let plan = load(
        file,
        &[("PUBLIC_URL", ""), ("LISTEN", ""), ("PASSPHRASE", "")],
    )
    .unwrap();
    assert_eq!(plan.issuer.as_str(), "https://old.example");
    assert_eq!(plan.settings.listen.port(), 1);
    assert!(plan.warnings.is_empty());
}

#[test]
fn the_environment_can_name_the_upstream() {
    let here = empty_directory();
    let variables = [
        ("UPSTREAM_URL", "https://up.example/mcp?key=s3cr3t"),
        ("UPSTREAM_TOKEN", "s3cr3t"),
    ];
    let answer = succeeds(&run_in(here.path(), &["check", "--offline"], &variables));
    let upstream = answer.split("\n\n").nth(1).unwrap();
    insta::assert_snapshot!(upstream, @"
    upstream upstream
      title                      up.example
      for clients                http://127.0.0.1:8080/mcp
      also at                    http://127.0.0.1:8080
      sends to                   https://up.example/mcp?key=••••
      credential                 Authorization: Bearer •••• (from the environment variable UPSTREAM_TOKEN)
    ");
    let answer = succeeds(&run_in(here.path(), &["check"], &variables[1..]));
    assert!(answer.contains("the built-in demo server"), "{answer}");
    assert!(
        answer.contains("warning: UPSTREAM_TOKEN is not used, because UPSTREAM_URL is not set"),
        "{answer}"
    );
}

#[test]
fn mistakes_in_the_environment_are_found_with_those_in_the_file() {
    let here = empty_directory();
    fs::write(
        here.path().join("mcp-oauth-proxy.toml"),
        "data_dir = ''\n\n[upstream.demo]\nbuiltin = 'demo'\n",
    )
    .unwrap();
    let variables = [
        ("PUBLIC_URL", "https://mcp.example.com/mcp"),
        ("LISTEN", "8080"),
        ("PASSPHRASE", "passphrase123"),
        ("UPSTREAM_URL", "https://up.example/mcp"),
    ];
    insta::assert_snapshot!(
        "mistakes_in_the_environment",
        fails(&run_in(here.path(), &[], &variables), 2)
    );
}

#[test]
fn each_mistake_in_the_environment_names_its_variable() {
    for (variables, expected) in [
        (
            &[("LISTEN", "0.0.0.0:80")][..],
            "environment: LISTEN is reached from other machines",
        ),
        (
            &[("LISTEN", "127.0.0.1:0")],
            "environment: LISTEN leaves the port to chance",
        ),
        (
            &[("PUBLIC_URL", "http://mcp.example.com")],
            "environment: PUBLIC_URL must start with https://",
        ),
        (
            &[("PASSPHRASE", "s3cr3t")],
            "environment: PASSPHRASE has fewer than 12 characters",
        ),
        (
            &[("UPSTREAM_URL", "https://me:s3cr3t@up.example")],
            "environment: UPSTREAM_URL must not contain a user name",
        ),
        (
            &[("UPSTREAM_URL", "up.example")],
            "environment: UPSTREAM_URL is not an absolute URL",
        ),
        (
            &[
                ("UPSTREAM_URL", "https://up.example"),
                ("UPSTREAM_TOKEN", "s3cr3t\n"),
            ],
            "environment: UPSTREAM_TOKEN has characters that no header may carry",
        ),
    ] {
        let mistakes = load("", variables).unwrap_err();
        assert_eq!(mistakes.list().len(), 1, "{mistakes}");
        let shown = mistakes.to_string();
        assert!(shown.contains(expected), "{shown}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}

#[test]
fn a_default_port_is_left_out_of_the_default_public_url() {
    for (listen, public_url) in [
        ("127.0.0.1:80", "http://127.0.0.1"),
        ("localhost:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
    ] {
        let plan = load("", &[("LISTEN", listen)]).unwrap();
        assert_eq!(plan.issuer.as_str(), public_url);
    }
}

/// A public URL at which nothing of this program listens is right only with something in front.
#[test]
fn a_public_url_on_this_machine_with_another_port_is_warned_about() {
    let warned = |file: &str, variables: &[(&str, &str)]| load(file, variables).unwrap().warnings;
    let other = [("PUBLIC_URL", "http://127.0.0.1:9000")];
    assert_eq!(
        warned("", &other),
        [
            "PUBLIC_URL has port 9000, but listen has port 8080: unless something in front forwards \
             from one to the other, set listen (or LISTEN) to 127.0.0.1:9000, or leave public_url \
             out: it follows listen"
        ]
    );
    let default_port = "public_url = 'http://localhost'";
    let warnings = warned(default_port, &[("LISTEN", "127.0.0.1:8081")]);
    let beginning = "public_url has port 80, but LISTEN has port 8081: ";
    assert!(
        warnings.iter().any(|it| it.starts_with(beginning)),
        "{warnings:?}"
    );

    let front = "trusted_proxies.ranges = ['127.0.0.1']\n";
    let tls = "public_url = 'https://localhost:8443'\ntrusted_proxies.ranges = ['127.0.0.1']";
    for (file, listen) in [
        ("", "127.0.0.1:9000"),
        ("", "localhost:9000"),
        (front, "127.0.0.1:8080"),
        (tls, "127.0.0.1:8080"),
    ] {
        let variables = if file == tls { &[][..] } else { &other };
        let variables = [variables, &[("LISTEN", listen)]].concat();
        assert_eq!(warned(file, &variables), [""; 0], "{file} {listen}");
    }
}

#[test]
fn a_shared_store_makes_grants_go_stale() {
    let sqlite = prepare_in(&empty_directory(), load("", &[]).unwrap());
    assert_eq!(sqlite.policy.grant_freshness, None);
    let postgres = load("store = 'postgres://me@db/proxy'", &[]).unwrap();
    let postgres = prepare_in(&empty_directory(), postgres);
    assert_eq!(postgres.policy.grant_freshness.unwrap().as_secs(), 3);
}

/// Prepares a start with `directory` as the working directory would be.
#[track_caller]
fn prepare_in(directory: &TempDir, mut plan: Plan) -> server::cli::serve::Prepared {
    plan.settings.data_dir = directory.path().join("data");
    prepare(plan).unwrap()
}

/// The start text, with what differs from run to run replaced.
fn shown(directory: &TempDir, prepared: &server::cli::serve::Prepared) -> String {
    start_text(prepared)
        .replace(directory.path().to_str().unwrap(), ".")
        .replace(&prepared.file, "<file>")
        .replace(env!("CARGO_PKG_VERSION"), "<version>")
}

#[test]
fn the_first_start_tells_the_passphrase_and_later_ones_how_to_get_a_new_one() {
    let directory = empty_directory();

    let first = prepare_in(&directory, load("", &[]).unwrap());
    let text = shown(&directory, &first);
    let passphrase = text.trim_end().rsplit(' ').next().unwrap();
    let groups: Vec<&str> = passphrase.split('-').collect();
    assert_eq!(groups.len(), 8);
    assert!(groups.iter().all(|group| group.len() == 4));
    assert!(first.policy.sign_in.is_proved_by(passphrase));
    assert!(
        first
            .policy
            .sign_in
            .is_proved_by(&groups.concat().to_uppercase())
    );
    let reminder = first.policy.sign_in.reminder.clone().unwrap();
    assert!(reminder.contains("data/passphrase.hash"), "{reminder}");
    insta::assert_snapshot!(text.replace(passphrase, "<passphrase>"), @"
    mcp-oauth-proxy <version> listens on 127.0.0.1:8080
      configuration  <file>
      data           ./data (new)

    The address to put into your MCP client:
      http://127.0.0.1:8080/mcp  (Demo)

    In Claude Code, for example:
      claude mcp add --transport http demo http://127.0.0.1:8080/mcp
      then type /mcp in it to sign in

    The page that opens then asks for this passphrase, with or without its hyphens. It is shown
    only now, so keep it:
      <passphrase>
    ");

    let second = prepare_in(&directory, load("", &[]).unwrap());
    assert!(matches!(second.passphrase, PassphraseNotice::ToldBefore));
    assert!(second.policy.sign_in.is_proved_by(passphrase));
    assert_eq!(
        first.keys.first().as_bytes(),
        second.keys.first().as_bytes()
    );
    insta::assert_snapshot!(shown(&directory, &second), @"
    mcp-oauth-proxy <version> listens on 127.0.0.1:8080
      configuration  <file>
      data           ./data

    The address to put into your MCP client:
      http://127.0.0.1:8080/mcp  (Demo)

    In Claude Code, for example:
      claude mcp add --transport http demo http://127.0.0.1:8080/mcp
      then type /mcp in it to sign in

    Your passphrase is the one shown at the first start. For a new one, remove
    ./data/passphrase.hash and start again.
    ");
}

#[test]
fn a_chosen_passphrase_is_not_shown_and_each_upstream_has_its_address() {
    let directory = empty_directory();
    let file = "
        public_url = 'https://mcp.example.com'
        [upstream.notes]
        title = 'Notes'
        url = 'https://notes.example/mcp'
        [upstream.tasks]
        url = 'https://tasks.example/mcp'
    ";
    let prepared = prepare_in(
        &directory,
        load(file, &[("PASSPHRASE", PASSPHRASE)]).unwrap(),
    );
    insta::assert_snapshot!(shown(&directory, &prepared), @"
    mcp-oauth-proxy <version> listens on 127.0.0.1:8080
      configuration  <file>
      data           ./data (new)

    The addresses to put into your MCP client:
      https://mcp.example.com/mcp/notes  (Notes)
      https://mcp.example.com/mcp/tasks  (tasks)

    In Claude Code, for example:
      claude mcp add --transport http notes https://mcp.example.com/mcp/notes
      then type /mcp in it to sign in
    In claude.ai or ChatGPT:
      add a custom connector with this address, which has to be reachable from the internet

    The page that opens then asks for what you chose as passphrase or PIN.
    ");
    assert!(!directory.path().join("data/passphrase.hash").exists());
}

/// Case 09: an address of a home network is refused, and what is to be typed instead is named, with the
/// port that the proxy listens on. Each address that this gives is one that is taken.
#[test]
fn an_address_at_home_is_refused_with_a_way_out_that_works() {
    for home in [
        "http://192.168.1.10:8080",
        "http://raspberry.local:8080",
        "http://nas",
    ] {
        let file = format!("listen = '0.0.0.0:9000'\npublic_url = '{home}'");
        let shown = load(&file, &[]).unwrap_err().to_string();
        for way in [
            "public_url must start with https://",
            "tailscale serve --bg 9000 ",
            "tailscale funnel --bg 9000 ",
            "cloudflared tunnel --url http://127.0.0.1:9000 ",
            "caddy reverse-proxy --from NAME.local --to 127.0.0.1:9000 --internal-certs",
        ] {
            assert!(shown.contains(way), "{way}: {shown}");
        }
    }
    for given in [
        "https://raspberry.tail1234.ts.net",
        "https://three-random-words.trycloudflare.com",
        "https://raspberry.local",
        "https://192.168.1.10",
    ] {
        let plan = load(&format!("public_url = '{given}'"), &[]).unwrap();
        assert_eq!(plan.issuer.as_str(), given);
    }
}

/// Case 09, a neighbour: a public URL with a path. What the remedy says to write is taken.
#[test]
fn a_public_url_with_a_path_is_refused_with_a_way_out_that_works() {
    let refused = "public_url = 'https://nas.example.com/proxy'";
    let shown = load(refused, &[]).unwrap_err().to_string();
    assert!(shown.contains("public_url must not have a path"), "{shown}");
    let offered = "https://nas.example.com:8443";
    assert!(shown.contains(offered), "{shown}");
    let file = format!("public_url = '{offered}'\n[upstream.a]\nbuiltin = 'demo'\npath = '/proxy'");
    let plan = load(&file, &[]).unwrap();
    let resource = plan.upstreams[0].policy.resource.as_str();
    assert_eq!(resource, "https://nas.example.com:8443/proxy");
}

/// A server that answers each request with what `answer` makes of its first line, and closes.
fn serving(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut first = String::new();
            let mut length = 0;
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap_or(0) > 0 && line != "\r\n" {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if first.is_empty() {
                    first = std::mem::take(&mut line);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let _ = stream.get_mut().write_all(answer(&first).as_bytes());
        }
    });
    format!("http://{address}")
}

fn http(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[test]
fn check_tries_each_server_and_warns_of_what_does_not_answer() {
    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","serverInfo":{"name":"Tickets\u001b[2J","version":"3.1"}}}"#;
    let good = serving(|_| http("200 OK", "application/json", ANSWER));
    let wrong_key = serving(|_| http("401 Unauthorized", "text/plain", "no"));
    let wrong_path = serving(|_| http("404 Not Found", "text/plain", "nothing"));
    let old = serving(|first| {
        if first.starts_with("GET ") {
            http(
                "200 OK",
                "text/event-stream",
                "event: endpoint\ndata: /m\n\n",
            )
        } else {
            http("405 Method Not Allowed", "text/plain", "")
        }
    });
    let moved = serving(|_| {
        "HTTP/1.1 302 Found\r\nlocation: https://other.example/mcp?key=s3cr3t\r\ncontent-length: 0\r\n\r\n".to_owned()
    });
    let no_tls = good.replace("http://", "https://");
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let check = |url: &str, more: &[&str]| {
        let here = empty_directory();
        let variables = [
            ("UPSTREAM_URL", format!("{url}/mcp")),
            ("UPSTREAM_TOKEN", "s3cr3t".to_owned()),
        ];
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(a, b)| (*a, b.as_str())).collect();
        let answer = succeeds(&run_in(
            here.path(),
            &[&["check"], more].concat(),
            &variables,
        ));
        assert!(!answer.contains("s3cr3t"), "{answer}");
        assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
        answer
    };
    let answer = check(&good, &[]);
    let says = "answers                    yes, \"Tickets\\u{1b}[2J\" \"3.1\" MCP 2025-11-25\n";
    assert!(answer.contains(says), "{answer}");
    assert!(answer.ends_with("\n\nok\n"), "{answer}");
    for (url, warning) in [
        (
            &wrong_key,
            "the upstream refuses our credential: check that it is right and still valid (HTTP 401)\n",
        ),
        (
            &wrong_path,
            "the upstream has nothing at the path of its url: correct the path; most end in /mcp. A server that has its address at /sse only needs a bridge",
        ),
        (&old, "the upstream speaks the HTTP with SSE of 2024"),
        (&moved, "(https://other.example/mcp, HTTP 302)\n"),
        (
            &no_tls,
            "the upstream does not speak TLS there: try http://",
        ),
        (
            &nobody,
            "the upstream cannot be reached: start it, or correct the host or port of its url (",
        ),
    ] {
        let answer = check(url, &[]);
        assert!(
            answer.contains("answers                    no, see the warning\n"),
            "{answer}"
        );
        assert!(
            answer.contains("\nwarning: upstream upstream: the upstream "),
            "{answer}"
        );
        assert!(answer.contains(warning), "{answer}");
        assert!(answer.ends_with("\n\n1 warning\n"), "{answer}");
        // Whoever says so gets no trial.
        let answer = check(url, &["--offline"]);
        assert!(!answer.contains("answers"), "{answer}");
        assert!(answer.ends_with("\n\nok\n"), "{answer}");
    }
}

#[test]
fn check_shows_what_differs_from_the_default_and_all_on_demand() {
    let here = empty_directory();
    let file =
        "limits.mcp_body = '8MiB'\ntokens.access_lifetime = '30m'\nclients.registration = false";
    fs::write(here.path().join("mcp-oauth-proxy.toml"), file).unwrap();
    let answer = succeeds(&run_in(here.path(), &["check"], &[]));
    let all = succeeds(&run_in(here.path(), &["check", "--all"], &[]));
    for row in [
        "  mcp_body                   8MiB\n",
        "  access_lifetime            30m\n",
        "registration                 off\n",
    ] {
        assert!(answer.contains(row) && all.contains(row), "{answer}");
    }
    for row in ["oauth_body", "refresh_idle", "client documents", "metadata"] {
        assert!(!answer.contains(row), "{answer}");
        assert!(all.contains(row), "{all}");
    }
    assert!(answer.contains("--all shows it") && !all.contains("--all"));
}

#[test]
fn a_slash_at_the_end_of_the_public_url_says_nothing() {
    let plan = load("public_url = 'https://mcp.example.com/'", &[]).unwrap();
    assert_eq!(plan.issuer.as_str(), "https://mcp.example.com");
    let plan = load("", &[("PUBLIC_URL", "https://mcp.example.com/")]).unwrap();
    assert_eq!(plan.issuer.as_str(), "https://mcp.example.com");
    for more in [
        "https://mcp.example.com//",
        "https://mcp.example.com/mcp/",
        "/",
    ] {
        assert!(load("", &[("PUBLIC_URL", more)]).is_err(), "{more}");
    }
}

/// What claude.ai and ChatGPT can do with the address is said where it is printed.
#[test]
fn a_public_address_is_for_other_clients_too_unless_its_port_is_another() {
    let directory = empty_directory();
    let text = |public_url: &str| {
        let file = format!("public_url = '{public_url}'\ntrusted_proxies.ranges = ['127.0.0.1']");
        let plan = load(&file, &[("PASSPHRASE", PASSPHRASE)]).unwrap();
        let notes = plan.notes.join("\n");
        (shown(&directory, &prepare_in(&directory, plan)), notes)
    };
    let (usual, notes) = text("https://mcp.example.com");
    assert!(
        usual.contains("add a custom connector with this address"),
        "{usual}"
    );
    assert_eq!(notes, "");
    let (other, notes) = text("https://mcp.example.com:8443");
    assert!(
        other.contains("not with port 8443: they reach port 443 only"),
        "{other}"
    );
    assert_eq!(
        notes,
        "public_url has port 8443: claude.ai and ChatGPT reach port 443 only"
    );
    let (local, notes) = text("http://127.0.0.1:8080");
    assert!(!local.contains("claude.ai"), "{local}");
    assert_eq!(notes, "");
}
