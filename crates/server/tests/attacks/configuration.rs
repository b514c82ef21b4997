//! What the operator gets wrong (of LG).

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    sync::Arc,
};

use tokio::net::TcpStream;

use super::{
    case::{Case, case},
    support::{
        client::{Client, Http},
        proxy::Proxy,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "N-LG-12",
            "a start with weak secrets, readable files, or open to a network",
            careless,
        ),
        case(
            "N-LG-13",
            "a configuration that breaks while the program runs",
            breaks_meanwhile,
        ),
        case(
            "N-LG-14",
            "a configuration with keys that there are not",
            unknown_keys,
        ),
    ]
}

/// Lines of a configuration, variables of the environment, and what the program says of them.
type Start = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

#[rustfmt::skip]
const CARELESS: &[Start] = &[
    ("public_url = \"http://mcp.example.com\"", &[], "public_url must start with https://"),
    ("public_url = \"http://10.0.0.5:8080\"", &[], "public_url must start with https://"),
    ("", &[("LISTEN", "0.0.0.0:8080")], "LISTEN is reached from other machines, but no public_url"),
    ("", &[("LISTEN", "[::]:8080")], "LISTEN is reached from other machines, but no public_url"),
    ("", &[("PASSPHRASE", "s3cr3t")], "PASSPHRASE has fewer than 12 characters"),
    ("", &[("PASSPHRASE", "change-me-please")], "PASSPHRASE is a placeholder"),
    ("", &[("PASSPHRASE", "aaaaaaaaaaaaaaaaaaaa")], "PASSPHRASE is a placeholder"),
    ("sign_in.passphrase = \"passphrase123\"", &[("PASSPHRASE", "")], "sign_in.passphrase is a placeholder"),
    ("sign_in.pin = \"123456\"", &[("PASSPHRASE", "")], "sign_in.pin is a pattern"),
    ("sign_in.pin = \"12345\"", &[("PASSPHRASE", "")], "sign_in.pin must be 6 to 12 ASCII letters and digits"),
    ("", &[("UPSTREAM_KEY", "")], "upstream.one.credential"),
];

#[rustfmt::skip]
const UNKNOWN: &[Start] = &[
    ("colour = \"blue\"", &[], "2:1: colour is not a known key"),
    ("public_ur1 = \"https://mcp.example.com\"", &[], "did you mean `public_url`?"),
    ("limits.client = 100", &[], "did you mean `clients`?"),
    ("tokens.access_livetime = \"1h\"", &[], "did you mean `access_lifetime`?"),
    ("sign_in.passprase = \"s3cr3t\"", &[], "did you mean `passphrase`?"),
    ("trusted_proxies.range = [\"10.0.0.0/8\"]", &[], "did you mean `ranges`?"),
    ("upstreams.two.url = \"https://two.example\"", &[], "upstreams is not a known key"),
    ("upstream.two = { ulr = \"https://two.example\" }", &[], "upstream.two.ulr is not a known key"),
    ("upstream.two = { url = \"https://two.example\", credential = { barer = \"x\" } }", &[], "barer is not"),
];

/// The program refuses to start, and leaves nothing behind.
async fn does_not_start(world: &World, (lines, variables, says): Start) {
    let lines = format!("store = \"sqlite\"\n{lines}");
    let mut proxy = Proxy::prepared(world.upstream.address, &lines);
    for (name, value) in variables {
        proxy.set(name, value);
    }
    proxy.spawn();
    let status = world.unchanged(proxy.ended()).await;
    let output = proxy.output();
    assert_eq!(status.code(), Some(2), "{lines}: {output}");
    assert!(output.contains(says), "{says}: {output}");
    assert!(output.contains("\n  hint: "), "{output}");
    assert!(!output.contains("s3cr3t"), "{output}");
    assert!(proxy.files().is_empty(), "{lines}");
    assert!(!proxy.data_dir().exists(), "{lines}");
    assert!(TcpStream::connect(proxy.address).await.is_err());
}

/// The twin: with these lines it starts, and somebody gets in.
async fn starts(world: &World, lines: &str) {
    let lines = format!("store = \"sqlite\"\n{lines}");
    let proxy = Proxy::with(world.upstream.address, &lines).await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;
    world.serves(&client, &tokens).await;
}

async fn careless(world: Arc<World>) {
    for start in CARELESS {
        does_not_start(&world, *start).await;
    }
    starts(&world, "").await;

    // What may be meant like that is warned about.
    let warnings = |lines: &str, listen: Option<&str>| {
        let mut proxy = Proxy::prepared(world.upstream.address, lines);
        if let Some(listen) = listen {
            proxy.set("LISTEN", listen);
        }
        let file = proxy.data_dir().with_file_name("mcp-oauth-proxy.toml");
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        String::from_utf8(proxy.check()).unwrap()
    };
    let public = "public_url = \"https://mcp.example.com\"";
    let named = format!("{public}\ntrusted_proxies.ranges = [\"10.0.0.5\"]");
    let secret =
        "upstream.two = { url = \"https://two.example\", credential = { bearer = \"x\" } }";
    for (lines, listen, says) in [
        (
            secret,
            None,
            "holds a secret and other users of this machine can read it",
        ),
        (
            public,
            Some("0.0.0.0:8080"),
            "let nobody else reach `listen`, where there is no TLS",
        ),
        (public, None, "write ranges = [\"127.0.0.1\"]"),
        (
            "public_url = \"http://localhost\"",
            Some("0.0.0.0:8080"),
            "only clients on this machine",
        ),
        (
            "trusted_proxies.ranges = [\"0.0.0.0/0\"]",
            None,
            "any client can claim any address",
        ),
        (
            "upstream.two.url = \"http://two.example\"",
            None,
            "cross the network unencrypted",
        ),
    ] {
        let said = warnings(lines, listen);
        assert!(
            said.contains("\nwarning: ") && said.contains(says),
            "{says}: {said}"
        );
    }
    for (lines, listen) in [("", None), (&*named, Some("0.0.0.0:8080"))] {
        let said = warnings(lines, listen);
        assert!(!said.contains("warning: "), "{said}");
    }

    // Nor does it go on with a key that others could have read.
    let mut world = world.another("").await;
    let client = world.client().await;
    let tokens = client.sign_in().await;
    world.proxy.stop().await;
    let key = world.proxy.data_dir().join("key");
    // Only root can give a file to a group that it is not in itself.
    let of_another_group = chown(&key, None, Some(65534)).is_ok().then_some(0o640);
    for mode in [0o644, 0o666, 0o604].into_iter().chain(of_another_group) {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let known = world.proxy.output().len();
        world.proxy.spawn();
        let status = world.proxy.ended().await;
        let said = world.proxy.output().split_off(known);
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(
            said.contains("can be read or changed by other users"),
            "{said}"
        );
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    world.proxy.start().await;
    world.serves(&client, &tokens).await;
}

/// It is read at a start, and never else: SIGHUP ends the program, as a terminal that goes does.
async fn breaks_meanwhile(world: Arc<World>) {
    let mut world = world.another("").await;
    let client = world.client().await;
    let tokens = client.sign_in().await;
    for (piece, broken) in [
        ("[upstream.one]", "[upstream.one"),
        ("[upstream.one]", "[upstream.ONE]"),
        ("store = ", "stoer = "),
        ("http://", "ftp://"),
    ] {
        world.proxy.reconfigure(piece, broken);
        world.serves(&client, &tokens).await;
        let before = world.records().await;
        world.proxy.signal("HUP");
        assert_eq!(world.proxy.ended().await.code(), Some(0));
        world.proxy.spawn();
        assert_eq!(world.proxy.ended().await.code(), Some(2));
        assert_eq!(world.records().await, before);
        world.proxy.reconfigure(broken, piece);
        world.proxy.start().await;
        world.serves(&client, &tokens).await;
    }
}

async fn unknown_keys(world: Arc<World>) {
    for start in UNKNOWN {
        does_not_start(&world, *start).await;
    }
    starts(
        &world,
        "limits.clients = 100\ntokens.access_lifetime = \"1h\"",
    )
    .await;
}
