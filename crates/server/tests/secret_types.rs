//! No type that holds a secret can show it: it lacks `Display` and `Serialize`, and what its
//! `Debug` says, where it has one, is also what a panic could say.

use std::{fmt, fs, os::unix::fs::PermissionsExt};

use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::{
    forward::credential::Credential,
    identity::password::SignIn,
    oauth::{
        authorization_code::CodeExchange, client_auth::Presented, identifiers::Issuer,
        pkce::CodeVerifier,
    },
    policy::Policy,
    token::{Keys, PresentedRefreshToken},
};
use secrecy::SecretString;
use server::{
    cli::serve::{self, PassphraseNotice, Prepared},
    config::{self, Config, Environment, Plan, Settings, StoreKind},
    key_file::KeyRing,
    passphrase::Generated,
};

/// Does not compile when one of the types has the trait: it then has `Asked` twice, and the compiler
/// cannot tell which is meant.
macro_rules! none_has {
    ($trait:path: $($type:ty),+ $(,)?) => {
        const _: () = {
            struct Shows;
            trait Asked<Answer> {
                const ASKED: () = ();
            }
            impl<T: ?Sized> Asked<()> for T {}
            impl<T: ?Sized + $trait> Asked<Shows> for T {}
            $(let () = <$type as Asked<_>>::ASKED;)+
        };
    };
}

none_has!(
    fmt::Display: CodeVerifier, Presented, PresentedRefreshToken, CodeExchange<'static>,
    Credential, SignIn, Keys, KeyRing, Generated, SecretString, PassphraseNotice, StoreKind,
    Environment, Config, Plan, Settings, Policy, Prepared,
);
none_has!(
    serde::Serialize: CodeVerifier, Presented, PresentedRefreshToken, CodeExchange<'static>,
    Credential, SignIn, Keys, KeyRing, Generated, SecretString, PassphraseNotice, StoreKind,
    Environment, Config, Plan, Settings, Policy, Prepared,
);
// What was taken from a request is nobody's to show.
none_has!(
    fmt::Debug: CodeVerifier, Presented, PresentedRefreshToken, CodeExchange<'static>, Environment,
);

/// A panic prints its message, and that is often a value's `Debug`.
#[test]
fn the_debug_text_of_whatever_holds_secrets_shows_none() {
    const SECRETS: [&str; 8] = [
        "bearer-Jq2LmZ0pTxN4uVb",
        "header-8sQ1wErTy7UiOpA",
        "basic-Zx9CvBnM3LkJhGf",
        "query-5tGbYhNuJmIkOlP",
        "passphrase-QaZwSxEdCrF",
        "database-Vt6ByNuMiKo",
        "fixed-3RtYuIoPaSdFgH",
        "address-6ZxCvBnM9LkJh",
    ];
    let [
        bearer,
        header,
        basic,
        query,
        passphrase,
        database,
        fixed,
        address,
    ] = SECRETS;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = directory.path().join("proxy.toml");
    let text = format!(
        r#"
        data_dir = "{}"
        store = "postgres://proxy:{database}@db.example/proxy?password={database}"
        sign_in.passphrase = "{passphrase}"
        [upstream.one]
        url = "https://one.example/mcp"
        credential = {{ bearer = "{bearer}" }}
        [upstream.two]
        url = "https://two.example/mcp"
        credential = {{ header = "X-API-Key", value = "{header}" }}
        [upstream.three]
        url = "https://three.example/mcp"
        credential = {{ basic = {{ username = "proxy", password = "{basic}" }} }}
        [upstream.four]
        url = "https://four.example/mcp"
        credential = {{ query = "key", value = "{query}" }}
        [upstream.five]
        url = "https://five.example/{address}/mcp"
        headers = {{ X-API-Key = "{fixed}" }}
        "#,
        data.display()
    );
    let written: Config = toml::from_str(&text).unwrap();
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let plan = config::load(Some(&file), &Environment::default()).unwrap();

    let mut shown = vec![format!("{written:?} {written:#?} {plan:?} {plan:#?}")];
    let prepared = serve::prepare(plan).unwrap();
    shown.push(format!("{prepared:?} {prepared:#?}"));
    let master = *prepared.keys.first().as_bytes();
    let keys = Keys::derive(
        &master,
        [],
        &Issuer::parse("https://mcp.example.com").unwrap(),
    );
    shown.push(format!("{keys:?} {keys:#?}"));
    let shown = shown.concat();
    let key_file = fs::read_to_string(data.join("key")).unwrap();
    let key = key_file.trim().rsplit(':').next().unwrap();

    assert!(shown.contains("one.example") && shown.contains("X-API-Key"));
    let in_basic = BASE64_STANDARD.encode(format!("proxy:{basic}"));
    for secret in SECRETS.into_iter().chain([key, &in_basic]) {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
        // As the list of numbers that `Debug` makes of bytes.
        let numbers = format!("{:?}", secret.as_bytes());
        assert!(
            !shown.contains(numbers.trim_matches(['[', ']'])),
            "{secret}, in numbers"
        );
    }
    let numbers = format!("{master:?}");
    assert!(
        !shown.contains(numbers.trim_matches(['[', ']'])),
        "the key, in numbers"
    );
}
