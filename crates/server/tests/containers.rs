//! Where platforms run it: on volumes whose owners and modes they set, and in images that hold
//! nothing else.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is tests, and a failure should say where"
)]

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::geteuid;
use support::{
    client::{Client, Http, Tokens},
    nothing_may_be_missing,
    proxy::{Proxy, program},
    say,
    upstream::Upstream,
};

/// Nobody, and a group that a platform made up for one volume.
const NOBODY: u32 = 65534;
const GROUP: u32 = 2000;

const IN_ITS_GROUP: &str = "can be read or changed by everybody in its group";

/// Whether this is root, who alone can give files away and become somebody else. Otherwise the test
/// of this name was run as root by `sudo`, if there is that.
fn is_root(test: &str) -> bool {
    if geteuid().is_root() {
        return true;
    }
    let tried = Command::new("sudo")
        .args(["--non-interactive", "--preserve-env"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .output();
    let missing = match tried {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
            assert!(output.status.success(), "{output:?}");
            return false;
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert!(!nothing_may_be_missing(), "not as root: {missing}");
    say(&format!(
        "{test} is not tried, for it takes root: {missing}"
    ));
    false
}

/// A proxy on a volume, where it was started once as nobody with the group of the volume, and a
/// client that signed in then.
struct Volume {
    proxy: Proxy,
    client: Client,
    tokens: Tokens,
}

impl Volume {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
        let data_dir = proxy.data_dir();
        let directory = data_dir.parent().unwrap();
        fs::create_dir(&data_dir).unwrap();
        // Nobody may not be allowed to where the program was built.
        fs::copy(program(), directory.join("program")).unwrap();
        give_away(directory, NOBODY, GROUP);
        let [user, group] = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        let groups = format!("--groups={GROUP}");
        proxy.run_under(&[
            "setpriv",
            &user,
            &group,
            &groups,
            "sh",
            "-c",
            "exec ./program",
        ]);
        proxy.start().await;
        let client = Client::register(&Http::to(proxy.address)).await;
        let tokens = client.sign_in().await;
        proxy.stop().await;
        Self {
            proxy,
            client,
            tokens,
        }
    }

    fn key(&self) -> PathBuf {
        self.proxy.data_dir().join("key")
    }

    /// Starts it, and insists that those who were signed in are; gives what it says.
    async fn goes_on(&mut self) -> String {
        let known = self.proxy.output().len();
        self.proxy.start().await;
        let _ = self.client.call(&self.tokens).await.expect(200);
        self.proxy.stop().await;
        self.proxy.output().split_off(known)
    }

    fn add(&self, line: &str) {
        let store = "store = \"sqlite\"";
        self.proxy.reconfigure(store, &format!("{store}\n{line}"));
        give_away(self.proxy.data_dir().parent().unwrap(), NOBODY, GROUP);
    }
}

/// Starts it, and insists that it does not serve; gives what it says.
async fn does_not_start(proxy: &mut Proxy) -> String {
    let known = proxy.output().len();
    proxy.spawn();
    let status = proxy.ended().await;
    let said = proxy.output().split_off(known);
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

fn give_away(directory: &Path, user: u32, group: u32) {
    for path in all_below(directory) {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

/// A directory and all in it.
fn all_below(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(all_below(&path));
        } else {
            all.push(path);
        }
    }
    all
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Case 28: a volume with `fsGroup`, whose files get mode 0660 and a group at each start.
#[tokio::test]
async fn it_starts_again_on_a_volume_that_belongs_to_its_group() {
    if !is_root("it_starts_again_on_a_volume_that_belongs_to_its_group") {
        return;
    }
    let mut volume = Volume::new().await;
    let data_dir = volume.proxy.data_dir();
    for file in all_below(&data_dir) {
        set_mode(&file, 0o660);
    }
    set_mode(&data_dir, 0o2770);
    give_away(&data_dir, NOBODY, GROUP);
    let said = volume.goes_on().await;
    assert!(said.contains(IN_ITS_GROUP), "{said}");
    // The twin: for its owner alone there is nothing to say.
    set_mode(&volume.key(), 0o600);
    let said = volume.goes_on().await;
    assert!(!said.contains(IN_ITS_GROUP), "{said}");
}

/// Case 28: everything 0777, as network shares and some desktop mounts show it. It is refused, and
/// what the hint says works there.
#[tokio::test]
async fn a_share_that_shows_everything_to_everybody_is_for_the_operator_to_allow() {
    if !is_root("a_share_that_shows_everything_to_everybody_is_for_the_operator_to_allow") {
        return;
    }
    let mut volume = Volume::new().await;
    for path in all_below(&volume.proxy.data_dir()) {
        set_mode(&path, 0o777);
    }
    let said = does_not_start(&mut volume.proxy).await;
    assert!(
        said.contains("can be read or changed by other users"),
        "{said}"
    );
    let way_out = "key = { file = \"data/key\" }";
    assert!(said.contains(way_out), "{said}");
    volume.add(way_out);
    let said = volume.goes_on().await;
    assert!(!said.contains("data/key"), "{said}");
}

/// Neighbours of case 28: a secret of root's that is lent to the group; a group that it is not in;
/// the key of the user of the host while the program is root.
#[tokio::test]
async fn a_key_is_taken_from_root_and_from_nobody_else() {
    if !is_root("a_key_is_taken_from_root_and_from_nobody_else") {
        return;
    }
    let mut volume = Volume::new().await;
    chown(volume.key(), Some(0), Some(GROUP)).unwrap();
    set_mode(&volume.key(), 0o440);
    let said = volume.goes_on().await;
    assert!(!said.contains(IN_ITS_GROUP), "{said}");

    chown(volume.key(), Some(NOBODY), Some(GROUP + 1)).unwrap();
    set_mode(&volume.key(), 0o640);
    let said = does_not_start(&mut volume.proxy).await;
    assert!(
        said.contains("can be read or changed by other users"),
        "{said}"
    );

    chown(volume.key(), Some(NOBODY), Some(NOBODY)).unwrap();
    set_mode(&volume.key(), 0o600);
    volume.proxy.run_under(&[]);
    let said = does_not_start(&mut volume.proxy).await;
    assert!(said.contains("belongs to another user"), "{said}");
    volume.add("key = { file = \"data/key\" }");
    let _ = volume.goes_on().await;
}

/// An image that holds the program, its libraries and its configuration, and nothing else.
struct EmptyImage {
    proxy: Proxy,
    upstream: Upstream,
}

impl EmptyImage {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
        let root = proxy.data_dir().parent().unwrap().to_owned();
        let program = program();
        let libraries = Command::new("ldd").arg(&program).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        let libraries = libraries
            .split_whitespace()
            .filter(|it| it.starts_with('/'));
        for file in libraries.map(Path::new).chain([&*program]) {
            let copy = root.join(file.strip_prefix("/").unwrap());
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(file, copy).unwrap();
        }
        // As the user who may; or in a namespace where every user may.
        let root = format!("--root={}", root.display());
        let way = if geteuid().is_root() {
            vec!["unshare", &root]
        } else {
            vec!["unshare", "--map-root-user", &root]
        };
        proxy.run_under(&way);
        Self { proxy, upstream }
    }

    /// It serves; gives what it says.
    async fn serves(&mut self) -> String {
        let known = self.proxy.output().len();
        self.proxy.start().await;
        let client = Client::register(&Http::to(self.proxy.address)).await;
        let tokens = client.sign_in().await;
        let answer = client.call(&tokens).await;
        assert!(!answer.status.is_server_error(), "{answer:?}");
        self.proxy.stop().await;
        self.proxy.output().split_off(known)
    }
}

/// Case 29: no certificate bundle, and nothing needs one; and where something does, a sentence that
/// says what to do. Nowhere does it show where it was built.
#[tokio::test]
async fn certificates_are_needed_only_where_they_are_used() {
    const WITHOUT: &str = "client metadata documents cannot be fetched";
    const MISSING: &str = "there is no certificate to check TLS servers against: \
        /etc/ssl/certs/ca-certificates.crt does not exist";
    let mut image = EmptyImage::new().await;
    let remote = format!("url = \"http://{}/mcp\"", image.upstream.address);
    let key = "credential = { bearer = { env = \"UPSTREAM_KEY\" } }\n";

    let said = image.serves().await;
    assert!(said.contains(WITHOUT) && said.contains(MISSING), "{said}");
    let store = "store = \"sqlite\"";
    let no_documents = format!("{store}\nclients.documents = false");
    image.proxy.reconfigure(store, &no_documents);
    let said = image.serves().await;
    assert!(!said.contains("certificate"), "{said}");
    image.proxy.reconfigure(key, "");
    image.proxy.reconfigure(&remote, "builtin = \"demo\"");
    let said = image.serves().await;
    assert!(!said.contains("certificate"), "{said}");

    let https = "url = \"https://mcp.example/mcp\"";
    image.proxy.reconfigure("builtin = \"demo\"", https);
    let said = does_not_start(&mut image.proxy).await;
    assert!(
        said.contains("error: upstream.one.url begins with https\n"),
        "{said}"
    );
    assert!(said.contains(&format!("  because: {MISSING}; ")), "{said}");
    assert!(
        said.contains("SSL_CERT_FILE") && said.contains("SSL_CERT_DIR"),
        "{said}"
    );
    image.proxy.set("SSL_CERT_FILE", "/nowhere.pem");
    let said = does_not_start(&mut image.proxy).await;
    assert!(
        said.contains("/nowhere.pem") && said.contains("SSL_CERT_DIR"),
        "{said}"
    );

    // The neighbour: keys of a client, which are fetched.
    image.proxy.reconfigure(https, "builtin = \"demo\"");
    let keys = "client.x = { redirect_uris = [\"https://x.example/cb\"], jwks_uri = \"https://x.example/k\" }";
    image.proxy.reconfigure(store, &format!("{store}\n{keys}"));
    let said = does_not_start(&mut image.proxy).await;
    assert!(
        said.contains("client.x.jwks_uri begins with https"),
        "{said}"
    );

    // The twin: with a certificate it starts.
    let certificate = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let der = BASE64_STANDARD.encode(certificate.cert.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
    let root = image.proxy.data_dir().parent().unwrap().to_owned();
    fs::write(root.join("authority.pem"), pem).unwrap();
    image.proxy.set("SSL_CERT_FILE", "/authority.pem");
    let said = image.serves().await;
    assert!(!said.contains("there is no certificate"), "{said}");

    let all = image.proxy.output();
    for trace in ["registry/src", ".cargo", "log.file", "Os {", "Error {"] {
        assert!(!all.contains(trace), "{trace}: {all}");
    }
}
