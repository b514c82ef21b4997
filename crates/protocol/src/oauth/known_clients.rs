//! What single clients need beyond the standards, as data: the one place of this crate that knows
//! a client's name. Each peculiarity has a public report and a test, and says no more than the
//! report shows. `docs/clients.md` is made from it. As of 2026-11-20.
//!
//! A client is recognised by an address that nobody else can answer at: the URL of its document,
//! or a redirect URI. What it calls itself is its own claim, and opens nothing.

use super::{
    client::ClientMetadata, client_auth::AuthMethod, client_document::DocumentUrl, jwks::KeySource,
    redirect_uri::RedirectUri,
};

/// One client, as it is found in the world.
#[derive(Debug)]
pub struct KnownClient {
    pub name: &'static str,
    /// Where it wants its answers, as it registers or publishes them; `{}` stands for a part that
    /// differs from one installation to the next. An error may go to these without asking.
    pub redirect_uris: &'static [&'static str],
    /// Schemes of its app without the dot that RFC 8252 §7.1 asks for. Of some only the scheme is
    /// known, from links that open the app, and not the address of a callback.
    pub app_schemes: &'static [&'static str],
    /// A copy of its metadata document, for when that does not get through: some publishers keep
    /// programs in data centres away from them with a bot challenge. Never used when the publisher
    /// itself says otherwise.
    pub document: Option<Document>,
    /// What it does that others do not, or that others have refused.
    pub peculiarities: &'static [Peculiarity],
}

/// One client's document, as far as we use it. Only what is known from a source that can be read.
#[derive(Debug)]
pub struct Document {
    pub client_id: &'static str,
    pub client_name: &'static str,
    pub redirect_uris: &'static [&'static str],
    /// Loopback addresses that the client really uses, though its document leaves them out.
    pub unpublished_redirect_uris: &'static [&'static str],
    /// Where its keys are, if it can prove who it is with one. It need not.
    pub jwks_uri: Option<&'static str>,
    /// Where this can be read.
    pub source: &'static str,
}

/// What a client does, and how it is answered.
#[derive(Debug)]
pub struct Peculiarity {
    pub does: &'static str,
    pub answer: &'static str,
    /// Who saw it.
    pub report: &'static str,
    /// The test that shows that it is so.
    pub test: &'static str,
}

pub const KNOWN_CLIENTS: &[KnownClient] = &[
    KnownClient {
        name: "Claude (web, desktop, phones)",
        redirect_uris: &[
            "https://claude.ai/api/mcp/auth_callback",
            "https://claude.com/api/mcp/auth_callback",
        ],
        app_schemes: &["claude"],
        document: Some(Document {
            client_id: "https://claude.ai/oauth/mcp-oauth-client-metadata",
            client_name: "Claude",
            redirect_uris: &["https://claude.ai/api/mcp/auth_callback"],
            unpublished_redirect_uris: &[],
            jwks_uri: None,
            source: "https://github.com/anthropics/claude-ai-mcp/issues/96",
        }),
        peculiarities: &[
            Peculiarity {
                does: "keeps its document from data centres with a bot challenge",
                answer: "a copy in this program stands in",
                report: "https://github.com/anthropics/claude-ai-mcp/issues/650",
                test: "ci_09_claude_connects_when_its_document_does_not_get_through",
            },
            Peculiarity {
                does: "asks for a secret when it registers, and gives up when it gets an error",
                answer: "it gets one",
                report: "https://github.com/anthropics/claude-ai-mcp/issues/1043",
                test: "a_confidential_client_gets_a_secret_that_works_and_is_then_needed",
            },
            Peculiarity {
                does: "registers twice for one connection",
                answer: "both registrations work",
                report: "https://github.com/anthropics/claude-ai-mcp/issues/654",
                test: "two_registrations_a_second_apart_both_work",
            },
            Peculiarity {
                does: "sends a typed-in secret in the body, even where only Basic is offered",
                answer: "a secret is taken either way",
                report: "https://github.com/anthropics/claude-ai-mcp/issues/667",
                test: "a_typed_in_secret_is_taken_in_the_body_and_in_the_header",
            },
            Peculiarity {
                does: "refreshes one grant from two machines",
                answer: "the second gets the same answer",
                report: "https://github.com/jlowin/fastmcp/issues/4264",
                test: "a_refresh_token_is_rotated_and_a_repeated_one_gets_the_same_answer",
            },
            Peculiarity {
                does: "since August 2026 opens a session and then names the revision of 2026-07-28 in its header",
                answer: "the session's own revision goes to the server",
                report: "https://github.com/CodeWithCJ/SparkyFitness/issues/2155",
                test: "a_newer_version_header_in_a_session_of_the_older_era_is_put_right",
            },
            Peculiarity {
                does: "never sends back the session id that it was given",
                answer: "its newest session is used, that of the same approval",
                report: "https://github.com/anthropics/claude-ai-mcp/issues/975",
                test: "a_request_without_a_session_uses_the_newest_one_of_its_grant",
            },
            Peculiarity {
                does: "sends bodies of 2026-07-28 under a header of 2025-11-25",
                answer: "the header is written from the body",
                report: "https://github.com/anthropics/claude-code/issues/93290",
                test: "an_older_version_header_on_a_body_of_the_newer_era_is_put_right",
            },
        ],
    },
    KnownClient {
        name: "Claude Code",
        redirect_uris: &[
            "http://localhost:{}/callback",
            "http://127.0.0.1:{}/callback",
        ],
        app_schemes: &[],
        document: Some(Document {
            client_id: "https://claude.ai/oauth/claude-code-client-metadata",
            client_name: "Claude Code",
            redirect_uris: &["http://localhost/callback", "http://127.0.0.1/callback"],
            unpublished_redirect_uris: &[],
            jwks_uri: None,
            source: "https://github.com/anthropics/claude-code/issues/37767",
        }),
        peculiarities: &[
            Peculiarity {
                does: "takes any free port, of localhost too",
                answer: "the port of a loopback address is free",
                report: "https://github.com/anthropics/claude-code/issues/37747",
                test: "ci_05_claude_code_connects_from_whatever_port_is_free",
            },
            Peculiarity {
                does: "sends its version header twice, with one value",
                answer: "equal doubles mean one",
                report: "https://github.com/lowdefy/lowdefy/issues/2345",
                test: "what_says_the_same_twice_says_it_once",
            },
            Peculiarity {
                does: "begins a session after the server has said that it speaks 2026-07-28",
                answer: "a handshake is of the older era, whatever its header says",
                report: "https://github.com/anthropics/claude-code/issues/96183",
                test: "a_handshake_with_a_newer_header_is_a_handshake",
            },
        ],
    },
    KnownClient {
        name: "ChatGPT",
        redirect_uris: &[
            "https://chatgpt.com/connector_platform_oauth_redirect",
            "https://chatgpt.com/connector/oauth/{}",
        ],
        app_schemes: &[],
        document: Some(Document {
            client_id: "https://chatgpt.com/oauth/client.json",
            client_name: "ChatGPT",
            redirect_uris: &["https://chatgpt.com/connector_platform_oauth_redirect"],
            unpublished_redirect_uris: &[],
            jwks_uri: Some("https://chatgpt.com/oauth/jwks.json"),
            source: "https://github.com/django-oauth/django-oauth-toolkit/issues/1857",
        }),
        peculiarities: &[
            Peculiarity {
                does: "lists the ways in which it can authenticate, none and a key",
                answer: "a signed assertion is checked, none is asked for",
                report: "https://github.com/django-oauth/django-oauth-toolkit/issues/1857",
                test: "c_12_chatgpt_connects_with_its_key_and_without",
            },
            Peculiarity {
                does: "signs an assertion wherever it may, and does not fall back",
                answer: "private_key_jwt is offered",
                report: "https://github.com/engram-app/Engram/pull/1637",
                test: "c_12_chatgpt_connects_with_its_key_and_without",
            },
            Peculiarity {
                does: "calls without the session id, from several machines",
                answer: "its newest session is used, that of the same approval",
                report: "https://github.com/modelcontextprotocol/ext-apps/issues/647",
                test: "a_request_without_a_session_uses_the_newest_one_of_its_grant",
            },
            Peculiarity {
                does: "puts reserved members of the newer era into bodies of the older one",
                answer: "they say nothing of the era",
                report: "https://github.com/stacklok/toolhive/issues/6188",
                test: "other_metadata_in_an_old_body_changes_nothing",
            },
        ],
    },
    KnownClient {
        name: "Codex",
        redirect_uris: &[
            "http://127.0.0.1:{}/callback",
            "http://localhost:{}/callback",
            "http://127.0.0.1:{}/callback/{}",
        ],
        app_schemes: &[],
        document: Some(Document {
            client_id: "https://chatgpt.com/oauth/codex/client.json",
            client_name: "Codex",
            redirect_uris: &["http://127.0.0.1/callback", "http://localhost/callback"],
            unpublished_redirect_uris: &[],
            jwks_uri: None,
            source: "https://github.com/anomalyco/opencode/pull/47737",
        }),
        peculiarities: &[
            Peculiarity {
                does: "writes a slash at the end of the resource",
                answer: "it is the same resource",
                report: "https://github.com/openai/codex/issues/35716",
                test: "other_spellings_of_a_resource_give_a_token_for_the_same_one",
            },
            Peculiarity {
                does: "in 0.142 to 0.146 loses iss on the way back, and insists on it where it is announced: \
                       approved, and then nothing",
                answer: "update it, or set announce_iss = false under [clients]",
                report: "https://github.com/openai/codex/issues/33354",
                test: "iss_is_sent_also_where_it_is_not_announced",
            },
            Peculiarity {
                does: "refreshes without naming the resource",
                answer: "the one that was approved is meant",
                report: "https://github.com/openai/codex/issues/33403",
                test: "codex_connects_by_document_and_by_registration",
            },
        ],
    },
    KnownClient {
        name: "VS Code",
        redirect_uris: &[
            "https://vscode.dev/redirect",
            "https://insiders.vscode.dev/redirect",
            "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
        ],
        app_schemes: &["vscode", "vscode-insiders"],
        document: Some(Document {
            client_id: "https://vscode.dev/oauth/client-metadata.json",
            client_name: "Visual Studio Code",
            redirect_uris: &["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
            unpublished_redirect_uris: &[],
            jwks_uri: None,
            source: "https://github.com/microsoft/vscode/issues/298300",
        }),
        peculiarities: &[
            Peculiarity {
                does: "registers for a grant type that is not offered here, device_code",
                answer: "it is left out of what it gets",
                report: "https://github.com/microsoft/vscode/blob/main/src/vs/base/common/oauth.ts",
                test: "vs_code_connects_by_document_and_by_registration",
            },
            Peculiarity {
                does: "takes another port when its own is busy",
                answer: "the port of a loopback address is free",
                report: "https://github.com/microsoft/vscode/issues/278512",
                test: "vs_code_connects_by_document_and_by_registration",
            },
            Peculiarity {
                does: "has named a method in its header that is not the one in its body",
                answer: "it hears that the two differ, as from any server of the newer era",
                report: "https://github.com/agentgateway/agentgateway/issues/3439",
                test: "a_header_that_contradicts_the_body_is_refused_in_both_eras",
            },
        ],
    },
    KnownClient {
        name: "GitHub Copilot CLI",
        redirect_uris: &["http://127.0.0.1:{}/"],
        app_schemes: &[],
        document: Some(Document {
            client_id: "https://github.com/copilot/cli/client-metadata.json",
            client_name: "GitHub Copilot CLI",
            redirect_uris: &["http://127.0.0.1:33418/"],
            unpublished_redirect_uris: &[],
            jwks_uri: None,
            source: "https://github.com/github/copilot-cli/issues/4901",
        }),
        peculiarities: &[Peculiarity {
            does: "uses another port than it registered or published",
            answer: "the port of a loopback address is free",
            report: "https://github.com/github/copilot-cli/issues/1951",
            test: "copilot_cli_connects_from_another_port_than_it_named",
        }],
    },
    KnownClient {
        name: "Cursor",
        redirect_uris: &[
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "http://localhost:8787/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
        ],
        app_schemes: &["cursor"],
        document: None,
        peculiarities: &[Peculiarity {
            does: "registers a web page, a program and an app at once, and calls them all web",
            answer: "each redirect URI is judged by itself",
            report: "https://github.com/elie222/inbox-zero/pull/3780",
            test: "cursor_connects_by_registration",
        }],
    },
    KnownClient {
        name: "Gemini CLI",
        redirect_uris: &["http://localhost:{}/oauth/callback"],
        app_schemes: &[],
        document: None,
        peculiarities: &[Peculiarity {
            does: "compares the resource with the address that it was given, to the letter",
            answer: "an address that was typed with a slash is described with one",
            report: "https://github.com/google-gemini/gemini-cli/issues/20017",
            test: "an_address_with_a_slash_at_its_end_is_served_and_described_with_it",
        }],
    },
    KnownClient {
        name: "MCP Inspector",
        redirect_uris: &["http://localhost:6274/oauth/callback"],
        app_schemes: &[],
        document: None,
        peculiarities: &[Peculiarity {
            does: "runs in a page of another origin",
            answer: "metadata, registration and tokens may be read from any origin",
            report: "https://github.com/modelcontextprotocol/inspector",
            test: "the_inspector_connects_from_a_page",
        }],
    },
    KnownClient {
        name: "mcp-remote",
        redirect_uris: &["http://localhost:{}/oauth/callback"],
        app_schemes: &[],
        document: None,
        peculiarities: &[
            Peculiarity {
                does: "asks for the scopes of OpenID Connect, at a refresh too",
                answer: "what is not offered is left out",
                report: "https://github.com/geelen/mcp-remote",
                test: "mcp_remote_connects_by_registration",
            },
            Peculiarity {
                does: "from 0.9.0 to September 2026 loses iss on the way back, and insists on it where it \
                       is announced",
                answer: "update it, or set announce_iss = false under [clients]",
                report: "https://github.com/punkpeye/mcp-remote/pull/359",
                test: "iss_is_sent_also_where_it_is_not_announced",
            },
        ],
    },
    KnownClient {
        name: "Hermes Desktop",
        redirect_uris: &[],
        app_schemes: &[],
        document: None,
        peculiarities: &[Peculiarity {
            does: "to September 2026 loses iss on the way back, and insists on it where it is announced: \
                   approved, and then nothing",
            answer: "update it, or set announce_iss = false under [clients]",
            report: "https://github.com/NousResearch/hermes-agent/pull/108455",
            test: "iss_is_sent_also_where_it_is_not_announced",
        }],
    },
    KnownClient {
        name: "Zed",
        redirect_uris: &["http://127.0.0.1:{}/callback"],
        app_schemes: &["zed"],
        document: Some(Document {
            client_id: "https://zed.dev/oauth/client-metadata.json",
            client_name: "Zed",
            redirect_uris: &["http://127.0.0.1/callback"],
            unpublished_redirect_uris: &[],
            jwks_uri: None,
            source: "https://github.com/zed-industries/zed/issues/56210",
        }),
        peculiarities: &[
            Peculiarity {
                does: "publishes a loopback address without the port that it uses",
                answer: "the port of a loopback address is free",
                report: "https://github.com/zed-industries/zed/issues/56210",
                test: "zed_connects_by_document",
            },
            Peculiarity {
                does: "is said to return to its app by a scheme without a dot",
                answer: "the scheme may be registered",
                report: "https://github.com/mindset-ai/memex-ai/pull/146",
                test: "apps_connect_by_the_schemes_that_they_are_known_for",
            },
        ],
    },
    KnownClient {
        name: "OpenCode",
        redirect_uris: &[
            "http://127.0.0.1:{}/mcp/oauth/callback",
            "http://127.0.0.1:{}/callback",
            "http://localhost:{}/callback",
        ],
        app_schemes: &[],
        document: Some(Document {
            client_id: "https://opencode.ai/oauth/opencode/client.json",
            client_name: "opencode",
            redirect_uris: &["http://127.0.0.1/callback", "http://localhost/callback"],
            unpublished_redirect_uris: &["http://127.0.0.1/mcp/oauth/callback"],
            jwks_uri: None,
            source: "https://github.com/anomalyco/opencode/pull/47737",
        }),
        peculiarities: &[Peculiarity {
            does: "uses a loopback address that its document leaves out",
            answer: "that address counts as published",
            report: "https://github.com/anomalyco/opencode/issues/50510",
            test: "opencode_connects_by_document_though_that_leaves_its_address_out",
        }],
    },
    KnownClient {
        name: "Perplexity",
        redirect_uris: &["https://www.perplexity.ai/rest/connections/oauth_callback"],
        app_schemes: &[],
        document: None,
        peculiarities: &[Peculiarity {
            does: "wants a secret, also where it could do without",
            answer: "it gets one if it asks for it, or leaves the method out",
            report: "https://github.com/koala73/worldmonitor/pull/8305",
            test: "hosted_clients_connect_by_registration_with_a_secret",
        }],
    },
    KnownClient {
        name: "Microsoft Copilot Studio",
        redirect_uris: &[
            "https://teams.microsoft.com/api/platform/v1.0/oAuthRedirect",
            "https://global.consent.azure-apim.net/redirect/{}",
        ],
        app_schemes: &[],
        document: None,
        peculiarities: &[Peculiarity {
            does: "makes an address of its own for each tool",
            answer: "any https address may be registered",
            report: "https://github.com/Teamwork/mcp/issues/67",
            test: "hosted_clients_connect_by_registration_with_a_secret",
        }],
    },
    KnownClient {
        name: "Google Antigravity",
        redirect_uris: &["https://antigravity.google/oauth-callback"],
        app_schemes: &["antigravity"],
        document: None,
        peculiarities: &[
            Peculiarity {
                does: "returns to a page of its publisher",
                answer: "any https address may be registered",
                report: "https://github.com/bytebase/bytebase/pull/20447",
                test: "hosted_clients_connect_by_registration_with_a_secret",
            },
            Peculiarity {
                does: "is in another server's list of apps with a scheme without a dot",
                answer: "the scheme may be registered",
                report: "https://github.com/trypostit/trypost/pull/336",
                test: "apps_connect_by_the_schemes_that_they_are_known_for",
            },
        ],
    },
    KnownClient {
        name: "JetBrains, Windsurf",
        redirect_uris: &[],
        app_schemes: &["jetbrains", "windsurf"],
        document: None,
        peculiarities: &[Peculiarity {
            does: "returns to its app by a scheme without a dot",
            answer: "the scheme may be registered",
            report: "https://github.com/bytebase/bytebase/issues/20510",
            test: "apps_connect_by_the_schemes_that_they_are_known_for",
        }],
    },
    KnownClient {
        name: "Raycast",
        redirect_uris: &[],
        app_schemes: &["raycast"],
        document: None,
        peculiarities: &[Peculiarity {
            does: "returns to its app by a link with a name in its query",
            answer: "the scheme may be registered, and the link counts with its query",
            report: "https://developers.raycast.com/api-reference/oauth",
            test: "apps_connect_with_the_links_of_public_reports",
        }],
    },
    KnownClient {
        name: "Obsidian, by its plugins",
        redirect_uris: &[],
        app_schemes: &["obsidian"],
        document: None,
        peculiarities: &[Peculiarity {
            does: "returns to its app by a link of the plugin's choice",
            answer: "the scheme may be registered",
            report: "https://github.com/takeshy/obsidian-gemini-helper/pull/58",
            test: "apps_connect_with_the_links_of_public_reports",
        }],
    },
    KnownClient {
        name: "Kiro",
        redirect_uris: &[],
        app_schemes: &["kiro"],
        document: None,
        peculiarities: &[
            Peculiarity {
                does: "returns from its own sign-in by a scheme without a dot",
                answer: "the scheme may be registered",
                report: "https://github.com/kirodotdev/Kiro/issues/6087",
                test: "apps_connect_with_the_links_of_public_reports",
            },
            Peculiarity {
                does: "in versions of July 2026 loses iss on the way back, and insists on it where it is \
                       announced: approved, and then nothing",
                answer: "update it, or set announce_iss = false under [clients]",
                report: "https://github.com/kirodotdev/Kiro/issues/10461",
                test: "iss_is_sent_also_where_it_is_not_announced",
            },
        ],
    },
    KnownClient {
        name: "Goose",
        redirect_uris: &["http://127.0.0.1:{}/oauth_callback"],
        app_schemes: &["goose"],
        document: None,
        peculiarities: &[
            Peculiarity {
                does: "opens by links of a scheme without a dot; no report of a callback by one",
                answer: "the scheme may be registered",
                report: "https://github.com/aaif-goose/goose/pull/617",
                test: "apps_connect_by_the_schemes_that_they_are_known_for",
            },
            Peculiarity {
                does: "to 1.45 loses iss on the way back, and insists on it where it is announced: \
                       approved, and then \"auth required\"",
                answer: "update it, or set announce_iss = false under [clients]",
                report: "https://github.com/aaif-goose/goose/issues/10981",
                test: "iss_is_sent_also_where_it_is_not_announced",
            },
        ],
    },
    KnownClient {
        name: "LM Studio",
        redirect_uris: &[],
        app_schemes: &["lmstudio"],
        document: None,
        peculiarities: &[Peculiarity {
            does: "opens by links of a scheme without a dot; no report of a callback by one",
            answer: "the scheme may be registered",
            report: "https://github.com/exa-labs/exa-mcp-server/pull/369",
            test: "apps_connect_by_the_schemes_that_they_are_known_for",
        }],
    },
    KnownClient {
        name: "Warp",
        redirect_uris: &["warp://mcp/oauth2callback"],
        app_schemes: &["warp"],
        document: None,
        peculiarities: &[
            Peculiarity {
                does: "returns to its app by a scheme without a dot",
                answer: "the scheme may be registered",
                report: "https://github.com/warpdotdev/warp/issues/9088",
                test: "apps_connect_with_the_links_of_public_reports",
            },
            Peculiarity {
                does: "to April 2026 appends ?server_id=… to the link that it registered",
                answer: "update it: the page says which link it asks for and which it registered",
                report: "https://github.com/warpdotdev/warp/issues/9088",
                test: "a_page_shows_the_address_that_was_asked_for_and_those_that_are_known",
            },
        ],
    },
    KnownClient {
        name: "Trae",
        redirect_uris: &[],
        app_schemes: &["trae"],
        document: None,
        peculiarities: &[Peculiarity {
            does: "has extensions that return to its app by a scheme without a dot",
            answer: "the scheme may be registered",
            report: "https://github.com/Mermaid-Chart/issue-tracker/issues/135",
            test: "apps_connect_by_the_schemes_that_they_are_known_for",
        }],
    },
    KnownClient {
        name: "Qoder",
        redirect_uris: &[],
        app_schemes: &["qoder"],
        document: None,
        peculiarities: &[Peculiarity {
            does: "has extensions that return to its app by a scheme without a dot",
            answer: "the scheme may be registered",
            report: "https://github.com/Mermaid-Chart/issue-tracker/issues/268",
            test: "apps_connect_with_the_links_of_public_reports",
        }],
    },
    KnownClient {
        name: "VSCodium",
        redirect_uris: &[],
        app_schemes: &["vscodium"],
        document: None,
        peculiarities: &[Peculiarity {
            does: "is VS Code with a scheme of its own, by which its extensions return",
            answer: "the scheme may be registered",
            report: "https://github.com/sourcegraph/cody/issues/3119",
            test: "apps_connect_with_the_links_of_public_reports",
        }],
    },
];

/// Clients that cannot connect, since they send no `code_challenge`. That is no setting: without
/// PKCE a code that leaks is as good as a token.
pub const WITHOUT_PKCE: &[Peculiarity] = &[
    Peculiarity {
        does: "Microsoft Foundry, with OAuth identity passthrough",
        answer: "PKCE was requested from its vendor",
        report: "https://github.com/microsoft-foundry/new-foundry-portal/issues/109",
        test: "a_client_without_pkce_is_named_and_told_to_use_it",
    },
    Peculiarity {
        does: "n8n, in the MCP OAuth2 credential of 2025",
        answer: "update it",
        report: "https://github.com/n8n-io/n8n/issues/22103",
        test: "a_client_without_pkce_is_named_and_told_to_use_it",
    },
    Peculiarity {
        does: "Google ADK, in McpToolset of 1.28",
        answer: "PKCE was requested from its vendor",
        report: "https://github.com/google/adk-python/issues/5101",
        test: "a_client_without_pkce_is_named_and_told_to_use_it",
    },
];

/// The copy of the document at `url`, if there is one.
pub fn pinned_copy(url: &DocumentUrl) -> Option<ClientMetadata> {
    let document = document(url)?;
    let published = document.redirect_uris.iter();
    let redirect_uris = published.map(|uri| RedirectUri::parse(uri));
    let keys = match document.jwks_uri {
        Some(jwks_uri) => Some(KeySource::At(DocumentUrl::parse(jwks_uri)?)),
        None => None,
    };
    Some(ClientMetadata {
        client_name: document.client_name.to_owned(),
        redirect_uris: redirect_uris
            .chain(unpublished_redirect_uris(url).map(Some))
            .collect::<Option<_>>()?,
        token_endpoint_auth_method: AuthMethod::None,
        keys,
    })
}

/// Addresses that count as published in the document at `url`.
pub fn unpublished_redirect_uris(url: &DocumentUrl) -> impl Iterator<Item = RedirectUri> {
    document(url)
        .into_iter()
        .flat_map(|document| document.unpublished_redirect_uris)
        .filter_map(|uri| RedirectUri::parse(uri))
}

/// Whether a known client's app has this scheme.
pub fn is_app_scheme(scheme: &str) -> bool {
    KNOWN_CLIENTS
        .iter()
        .any(|client| client.app_schemes.contains(&scheme))
}

/// Whether an answer at `redirect_uri` reaches a known client, or nobody.
pub fn is_known_redirect_uri(redirect_uri: &RedirectUri) -> bool {
    KNOWN_CLIENTS
        .iter()
        .flat_map(|client| client.redirect_uris)
        .any(|known| fits(known, redirect_uri.as_str()))
}

/// Whether `text` is `known` with something harmless in each of its gaps.
fn fits(known: &str, text: &str) -> bool {
    let Some((before, after)) = known.split_once("{}") else {
        return known == text;
    };
    let Some(rest) = text.strip_prefix(before) else {
        return false;
    };
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let length = rest.bytes().take_while(|byte| legal(byte)).count();
    length > 0 && fits(after, &rest[length..])
}

fn document(url: &DocumentUrl) -> Option<&'static Document> {
    KNOWN_CLIENTS
        .iter()
        .filter_map(|client| client.document.as_ref())
        .find(|document| document.client_id == url.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::oauth::{app_scheme::AppScheme, client_document};

    fn documents() -> impl Iterator<Item = &'static Document> {
        KNOWN_CLIENTS
            .iter()
            .filter_map(|client| client.document.as_ref())
    }

    #[test]
    fn ci_09_each_pinned_copy_is_what_its_document_would_become() {
        for known in documents() {
            let url = DocumentUrl::parse(known.client_id).expect(known.client_id);
            let mut document = json!({
                "client_id": known.client_id,
                "client_name": known.client_name,
                "redirect_uris": known.redirect_uris,
                "token_endpoint_auth_method": "none",
            });
            if let Some(jwks_uri) = known.jwks_uri {
                document["token_endpoint_auth_method"] = json!("private_key_jwt");
                document["token_endpoint_auth_methods_supported"] =
                    json!(["none", "private_key_jwt"]);
                document["jwks_uri"] = Value::from(jwks_uri);
            }
            let fetched =
                client_document::parse(&url, document.to_string().as_bytes(), &[]).unwrap();
            assert_eq!(pinned_copy(&url), Some(fetched));
        }
        let other = DocumentUrl::parse("https://claude.ai/oauth/other").unwrap();
        assert_eq!(pinned_copy(&other), None);
    }

    /// What a document leaves out may only lead to the person's own computer.
    #[test]
    fn an_address_that_is_added_to_a_document_is_a_loopback_address() {
        for uri in documents().flat_map(|document| document.unpublished_redirect_uris) {
            assert!(RedirectUri::parse(uri).unwrap().is_loopback(), "{uri}");
        }
    }

    #[test]
    fn each_redirect_uri_may_be_registered_and_is_known() {
        let all = KNOWN_CLIENTS.iter().flat_map(|client| client.redirect_uris);
        for known in all {
            let uri = known.replacen(":{}", ":51234", 1).replace("{}", "aB3-_x");
            let uri = RedirectUri::parse(&uri).unwrap_or_else(|| panic!("{uri}"));
            assert!(is_known_redirect_uri(&uri), "{uri}");
        }
    }

    /// A gap takes a name, never a way out of the place.
    #[test]
    fn a_gap_in_a_known_redirect_uri_is_one_name() {
        let known = |uri: &str| is_known_redirect_uri(&RedirectUri::presented(uri));
        assert!(known("https://chatgpt.com/connector/oauth/aB3_x-9"));
        for other in [
            "https://chatgpt.com/connector/oauth/",
            "https://chatgpt.com/connector/oauth/a/b",
            "https://chatgpt.com/connector/oauth/a?b",
            "https://chatgpt.com/connector/oauth/a%2f",
            "https://chatgpt.com.evil.example/connector/oauth/a",
            "https://evil.example/https://chatgpt.com/connector/oauth/a",
            "https://claude.ai/api/mcp/auth_callback/x",
            "http://localhost:@evil.example/callback",
            "cursor://other/oauth/callback",
        ] {
            assert!(!known(other), "{other}");
        }
    }

    #[test]
    fn no_scheme_of_an_app_is_one_of_browsers_or_of_the_system() {
        for scheme in KNOWN_CLIENTS.iter().flat_map(|client| client.app_schemes) {
            let parsed = AppScheme::parse(scheme).unwrap_or_else(|no| panic!("{scheme}: {no:?}"));
            assert!(parsed.is_known());
        }
        for dangerous in ["http", "javascript", "data", "intent", "ftp", "mailto"] {
            assert!(!is_app_scheme(dangerous), "{dangerous}");
        }
    }
}
