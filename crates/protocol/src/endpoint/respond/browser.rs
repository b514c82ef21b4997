//! People who open in a browser what is for programs.

use axum::{body::Body, extract::State};
use http::{Method, Request, Response, StatusCode, header};

use super::{
    super::{
        App,
        pages::{AddressPage, MessagePage},
    },
    JSON, page,
    unrouted::not_found,
};

/// The path that a person opened in a browser, which says that it wants a page. MCP clients, which
/// have a token or ask for other types, do not say so; and where they look for documents there is
/// never a page, since discovery stumbles over one.
pub(crate) fn opened_in_browser<B>(request: &Request<B>) -> Option<String> {
    let headers = request.headers();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read || headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let accepts = |essence: &[u8]| {
        headers.get_all(header::ACCEPT).iter().any(|it| {
            let accepted = it.as_bytes().split(|byte| *byte == b',');
            accepted.map(<[u8]>::trim_ascii).any(|range| {
                let range = range.split(|byte| *byte == b';').next();
                range.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(essence))
            })
        })
    };
    let path = request.uri().path();
    let wants_page = accepts(b"text/html")
        && !accepts(b"text/event-stream")
        && !path.starts_with("/.well-known/");
    wants_page.then(|| path.to_owned())
}

/// The same refusal as a page, for a person who opened `path` in a browser. Status, challenge and
/// `Allow` stay; what is no refusal in JSON is left as it is.
pub(crate) fn for_browser(app: &App, path: &str, response: Response<Body>) -> Response<Body> {
    if response.headers().get(header::CONTENT_TYPE) != Some(&JSON) {
        return response;
    }
    let next_step = full_addresses(app);
    let message = match response.status() {
        StatusCode::UNAUTHORIZED => {
            let policy = &app.policy;
            let plain = path.strip_suffix('/').unwrap_or(path);
            let at_path = policy.upstreams.iter().find(|it| it.path == plain);
            let (upstream, address) = match (at_path, policy.upstreams.first()) {
                (Some(upstream), _) => (upstream, policy.issuer.url(path)),
                (None, Some(upstream)) => (upstream, upstream.resource.to_string()),
                (None, None) => return response,
            };
            AddressPage::new(&upstream.title, &upstream.name, &address).html()
        }
        StatusCode::NOT_FOUND => MessagePage {
            title: "There is nothing at this address",
            explanation: "The address may be mistyped, or its server was removed.",
            next_step: &next_step,
            ..MessagePage::default()
        }
        .render(),
        StatusCode::METHOD_NOT_ALLOWED => MessagePage {
            title: "There is no page at this address",
            explanation: "It is for programs, or for a form that was sent before. Nothing was approved or \
                          changed by opening it.",
            next_step: "If you came from an approval page, go back to your app and connect again.",
            ..MessagePage::default()
        }
        .render(),
        _ => return response,
    };
    let mut page = page(app, response.status(), message);
    for name in [header::WWW_AUTHENTICATE, header::ALLOW] {
        if let Some(value) = response.headers().get(&name) {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page
}

/// Whether a request is a browser's that opens the public address, and not an MCP client's.
pub(crate) fn is_for_front_page<B>(request: &Request<B>) -> bool {
    request.uri().path() == "/" && opened_in_browser(request).is_some()
}

/// The page at the public address, for browsers. Programs get a 404 there unless it is the address
/// of an MCP server. The page names no server to an unauthenticated caller.
pub(crate) async fn front_page(State(app): State<App>, request: Request<Body>) -> Response<Body> {
    if !is_for_front_page(&request) {
        return not_found(&app, request.uri());
    }
    let next_step = full_addresses(&app);
    let message = MessagePage {
        title: "This address is for MCP clients",
        explanation: "Assistants, editors and other programs reach MCP servers through this proxy, \
                      after a person has approved them.",
        next_step: &next_step,
        ..MessagePage::default()
    };
    page(&app, StatusCode::OK, message.render())
}

/// Which address goes into a client. Only a proxy for this computer alone names them on a page.
fn full_addresses(app: &App) -> String {
    let policy = &app.policy;
    if policy.issuer.is_https() {
        return format!(
            "Ask the operator of this proxy for the full address of the server that you want. It begins \
             with {}/ and goes into your MCP client, not into a browser. If you run this proxy, its \
             start printed the addresses, and the command check prints them again.",
            policy.issuer
        );
    }
    let addresses = policy.upstreams.iter().map(|it| it.resource.as_str());
    let addresses: Vec<&str> = addresses.collect();
    format!("Put this into your MCP client: {}", addresses.join(" or "))
}
