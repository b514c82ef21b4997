//! Keys of other programs that people try, and the right keys here.

use super::key::{Key, Segment};

/// Wrong keys, and the remedy for each.
type Guesses = &'static [(&'static [&'static str], &'static str)];

const BRIDGE: &str = "stdio needs a bridge: run the program behind one, as in `npx supergateway --stdio \"COMMAND\" --outputTransport streamableHttp --port 8000`, and write the address of that as url = \"http://127.0.0.1:8000/mcp\"";
const TIMEOUT: &str = "write response_timeout = \"10m\", or another time, into [limits]";
const CERTIFICATES: &str = "certificates are always checked; name those of an authority of your own with SSL_CERT_FILE in the environment";

const OF_AN_UPSTREAM: Guesses = &[
    (
        &[
            "access_token",
            "api_key",
            "api_token",
            "apikey",
            "auth",
            "auth_token",
            "authentication",
            "authorization",
            "bearer",
            "bearer_token",
            "bearer_token_env_var",
            "key",
            "pat",
            "secret",
            "token",
        ],
        "write credential = { bearer = { env = \"NAME\" } }, or { header = \"X-API-Key\", value = { env = \"NAME\" } } for a key in a header of its own",
    ),
    (
        &["basic", "password", "user", "username"],
        "write credential = { basic = { username = \"…\", password = { env = \"NAME\" } } }",
    ),
    (
        &["args", "command", "cwd", "env", "environment", "stdio"],
        BRIDGE,
    ),
    (
        &["protocol", "transport", "type"],
        "remove it: every MCP server is reached by Streamable HTTP; one that speaks over stdio, or the HTTP with SSE of 2024, needs a bridge, of which the README has one",
    ),
    (
        &[
            "address",
            "base_url",
            "endpoint",
            "http_url",
            "httpurl",
            "server",
            "server_url",
            "serverurl",
            "target",
            "uri",
        ],
        "write the address of the MCP server as url = \"https://…\"",
    ),
    (
        &[
            "custom_headers",
            "env_http_headers",
            "extra_headers",
            "header",
            "http_headers",
            "requestinit",
            "set_headers",
        ],
        "write headers = { X-Tenant = \"7\", X-API-Key = { env = \"NAME\" } }",
    ),
    (
        &[
            "allowed_headers",
            "forward_headers",
            "forwarded_headers",
            "headers_passthrough",
            "pass_through_headers",
            "passthrough_headers",
            "proxy_headers",
        ],
        "write pass_headers = [\"X-MCP-Toolsets\"], with the names of headers that clients set",
    ),
    (
        &["host_header", "server_name"],
        "write host = \"localhost:8000\", or whatever name the MCP server knows itself by",
    ),
    (
        &["client_id", "client_secret", "oauth", "scope", "scopes"],
        "signing in at an MCP server by OAuth is not supported: give it a key, as credential = { bearer = { env = \"NAME\" } }",
    ),
    (
        &["description", "display_name", "label", "name"],
        "write title = \"…\" for what people are shown; the name stands in [upstream.<name>]",
    ),
    (&["request_timeout", "timeout", "tool_timeout_sec"], TIMEOUT),
    (
        &[
            "ca",
            "ca_file",
            "cert",
            "insecure",
            "skip_verify",
            "tls",
            "verify",
            "verify_ssl",
        ],
        CERTIFICATES,
    ),
    (
        &["proxy", "http_proxy", "https_proxy"],
        "set HTTPS_PROXY in the environment",
    ),
    (
        &["disabled", "enabled"],
        "put a # before each line of this table to switch it off",
    ),
];

const OF_A_CREDENTIAL: Guesses = &[
    (
        &[
            "access_token",
            "api_key",
            "apikey",
            "auth",
            "authorization",
            "env",
            "file",
            "key",
            "secret",
            "token",
        ],
        "write { bearer = { env = \"NAME\" } }, or { header = \"X-API-Key\", value = { env = \"NAME\" } } for a key in a header of its own",
    ),
    (
        &["password", "user", "username"],
        "write { basic = { username = \"…\", password = { env = \"NAME\" } } }",
    ),
    (
        &["kind", "scheme", "type"],
        "remove it: the kind is the key itself, as in { bearer = { env = \"NAME\" } }",
    ),
    (
        &["headers"],
        "write headers = { X-Tenant = \"7\", … } beside `credential`, in the table of the upstream",
    ),
    (
        &["name"],
        "write { header = \"X-API-Key\", value = … }, or { query = \"key\", value = … }",
    ),
    (
        &["client_id", "client_secret", "oauth", "per_user", "scopes"],
        "only keys of the operator are supported, as in { bearer = { env = \"NAME\" } }",
    ),
];

const OF_THE_FILE: Guesses = &[
    (
        &["mcpservers", "mcp_servers", "servers", "upstreams"],
        "write [upstream.<name>] for each MCP server",
    ),
    (
        &[
            "backend",
            "command",
            "endpoint",
            "target",
            "upstream_token",
            "upstream_url",
            "url",
        ],
        "write url = \"https://…\" and credential = { bearer = { env = \"NAME\" } } into a table [upstream.<name>]",
    ),
    (
        &["address", "bind", "host", "listen_addr", "port"],
        "write listen = \"127.0.0.1:8080\"",
    ),
    (
        &["base_url", "domain", "external_url", "issuer", "server_url"],
        "write public_url = \"https://mcp.example.com\"",
    ),
    (
        &["passphrase", "password", "pin", "secret"],
        "write [sign_in], and below it passphrase = { env = \"PASSPHRASE\" } or pin = { env = \"PIN\" }",
    ),
    (
        &["database", "database_url", "db", "storage"],
        "write store = \"sqlite\", or store = { env = \"DATABASE_URL\" } for a PostgreSQL database",
    ),
    (
        &["data", "data_directory", "datadir", "state_dir"],
        "write data_dir = \"./data\"",
    ),
    (
        &["key_file", "keyfile", "master_key", "secret_key"],
        "write key = { file = \"…\" }",
    ),
    (
        &["log", "log_level", "logging", "loglevel", "verbose"],
        "set RUST_LOG in the environment, as in RUST_LOG=info,calls=off",
    ),
    (
        &["metrics", "metrics_port", "prometheus"],
        "write metrics_listen = \"127.0.0.1:9090\"",
    ),
    (
        &[
            "cert",
            "certificate",
            "certificates",
            "tls",
            "tls_cert",
            "tls_key",
        ],
        "this program has no TLS of its own: let a reverse proxy or a tunnel in front of it hold the certificate",
    ),
    (
        &["http_proxy", "https_proxy", "proxy"],
        "set HTTPS_PROXY in the environment",
    ),
    (
        &["cors", "cors_origins", "origins"],
        "write allowed_origins = [\"https://app.example.com\"]",
    ),
    (
        &["github", "google", "idp", "oidc"],
        "people sign in with a passphrase or PIN: see [sign_in]",
    ),
];

const OF_SIGN_IN: Guesses = &[
    (
        &["password", "secret"],
        "write passphrase = { env = \"PASSPHRASE\" }",
    ),
    (
        &["github", "google", "oidc", "users"],
        "people sign in with a passphrase or PIN alone",
    ),
];

/// What to do instead of a key that is not known, if it is one that people try.
pub(super) fn pointer(key: &Key) -> Option<&'static str> {
    let Key::File(path) = key else { return None };
    let names: Vec<&str> = path
        .iter()
        .map(|segment| match segment {
            Segment::Name(name) => name.as_str(),
            Segment::Index(_) => "",
        })
        .collect();
    let (guesses, word) = match names[..] {
        ["upstream", _, word] => (OF_AN_UPSTREAM, word),
        ["upstream", _, "credential", word] => (OF_A_CREDENTIAL, word),
        ["sign_in", word] => (OF_SIGN_IN, word),
        [word] => (OF_THE_FILE, word),
        _ => return None,
    };
    // However it is written: `apiKey`, `api-key`, `API_KEY`.
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let word = plain(word);
    guesses
        .iter()
        .find(|(words, _)| words.iter().any(|it| plain(it) == word))
        .map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_people_try_lead_to_the_right_key() {
        for (key, remedy) in [
            ("upstream.one.token", "credential = { bearer"),
            ("upstream.one.apiKey", "credential = { bearer"),
            ("upstream.one.API-KEY", "credential = { bearer"),
            ("upstream.one.command", "stdio needs a bridge"),
            ("upstream.one.args", "stdio needs a bridge"),
            ("upstream.one.type", "needs a bridge"),
            ("upstream.one.serverUrl", "url = "),
            ("upstream.one.http_headers", "headers = "),
            ("upstream.one.credential.token", "{ bearer ="),
            ("upstream.one.credential.username", "{ basic ="),
            ("mcpServers", "[upstream.<name>]"),
            ("port", "listen = "),
            ("passphrase", "[sign_in]"),
        ] {
            let found = pointer(&Key::of(key)).unwrap_or_default();
            assert!(found.contains(remedy), "{key}: {found}");
        }
        for key in [
            "colour",
            "upstream.one.colour",
            "limits.token",
            "tokens.url",
        ] {
            assert_eq!(pointer(&Key::of(key)), None, "{key}");
        }
    }
}
