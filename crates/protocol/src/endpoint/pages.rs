//! The pages that people see: consent, and messages. No script, no image, no font, nothing from
//! elsewhere, so that nothing but the markup below can ask for a passphrase.

use askama::Template;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use crate::identity::password::Kind;

/// The only style sheet, inline in each page.
const STYLE: &str = include_str!("../../templates/pages.css");

/// How many visible characters of a name a person is shown.
const NAME_LENGTH: usize = 100;
/// How many of a detail: a description with four addresses in it.
const DETAIL_LENGTH: usize = 1000;

/// How many marks may sit on one letter: enough for every living script, too few to cover the
/// lines above and below.
const MARKS_PER_LETTER: usize = 3;

/// Asks a person whether one client may use one upstream.
#[derive(Clone, Debug)]
pub struct ConsentPage<'a> {
    /// What the client calls itself, unverified; empty when it gave no name.
    pub client_name: &'a str,
    /// The host that publishes the client's metadata document, if it is known by one.
    pub client_host: Option<&'a str>,
    /// Whether the operator set it up, and so vouches for its name.
    pub set_up_by_operator: bool,
    /// The host that the browser goes back to, or how links start that open an app.
    pub return_host: &'a str,
    /// The address in full that the browser goes back to.
    pub redirect_uri: &'a str,
    /// Whether that is a loopback address, where any local program may be listening.
    pub returns_to_this_computer: bool,
    /// Whether a known client takes its answers at that website.
    pub returns_to_known_client: bool,
    /// The upstreams to choose from; a single one is stated, not asked for.
    pub upstreams: Vec<Choice<'a>>,
    /// What the client will be able to do, one sentence each.
    pub abilities: Vec<&'a str>,
    /// What the person must type to approve.
    pub sign_in: Kind,
    /// After how many days without use the approval ends.
    pub grant_days: u64,
    /// The sealed request, sent back unread.
    pub transaction: &'a str,
    /// Where the form posts to.
    pub action: &'a str,
    /// Why the last attempt did not pass.
    pub problem: Option<&'a str>,
    /// Where the secret is found, in sentences; only for a person who runs the proxy.
    pub reminder: Option<&'a str>,
}

/// An upstream that may be chosen on the consent page.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// Its name in the configuration: the value of the field `upstream`.
    pub name: &'a str,
    pub title: &'a str,
    pub address: &'a str,
    pub selected: bool,
}

/// Tells a person how something ended and what to do next.
#[derive(Clone, Debug, Default)]
pub struct MessagePage<'a> {
    pub title: &'a str,
    pub explanation: &'a str,
    /// Empty when there is nothing to do.
    pub next_step: &'a str,
    /// A line to type or paste for that.
    pub command: Option<&'a str>,
    /// Where the person may go on to.
    pub link: Option<Link<'a>>,
    /// A link of an app that the browser hands to the system by itself.
    pub goes_to: Option<&'a str>,
    /// Small print for a support request: labels and their values.
    pub details: Vec<(&'a str, &'a str)>,
}

/// A link that leads away from here.
#[derive(Clone, Debug)]
pub struct Link<'a> {
    /// An address that a client registered.
    pub href: &'a str,
    /// What stands before the place.
    pub words: &'a str,
    /// What people should see of the address.
    pub place: &'a str,
}

/// What is at the address that the browser goes back to.
#[derive(Clone, Copy)]
enum ReturnsTo {
    /// A host on the network, whose name says who it is.
    Website,
    /// Whatever program listens on the loopback address.
    ThisComputer,
    /// Whatever app has claimed the scheme.
    App,
}

/// How well the receiver of the answer is known. The page warns if it is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The host that publishes the client's identity gets the answer.
    Published,
    /// The operator set it up, or a known client answers at that website.
    Known,
    /// Something on this computer or device gets it.
    Local,
    /// An unknown website gets it.
    Unknown,
}

impl ReturnsTo {
    /// What stands before the name of the place.
    fn before(self) -> &'static str {
        match self {
            Self::Website | Self::ThisComputer => "",
            Self::App => "an app that takes ",
        }
    }

    /// What stands after it.
    fn after(self) -> &'static str {
        match self {
            Self::Website | Self::ThisComputer => "",
            Self::App => " links",
        }
    }
}

#[derive(Template)]
#[template(path = "consent.html", whitespace = "minimize")]
struct Consent<'a> {
    style: &'static str,
    page: &'a ConsentPage<'a>,
    client_name: String,
    client_host: Option<String>,
    return_host: String,
    redirect_uri: String,
    returns_to: ReturnsTo,
    standing: Standing,
    unused_for: String,
}

#[derive(Template)]
#[template(path = "message.html", whitespace = "minimize")]
struct Message<'a> {
    style: &'static str,
    page: &'a MessagePage<'a>,
    /// The place that the link leads to.
    place: Option<String>,
    details: Vec<(&'a str, String)>,
}

/// Tells a person who opened an upstream's address in a browser what to do with it.
#[derive(Template)]
#[template(path = "address.html", whitespace = "minimize")]
pub struct AddressPage<'a> {
    style: &'static str,
    upstream: &'a str,
    name: &'a str,
    address: String,
}

impl<'a> AddressPage<'a> {
    /// `upstream` is its title, `name` what a client may call it, `address` what was opened.
    pub fn new(upstream: &'a str, name: &'a str, address: &str) -> Self {
        Self {
            style: STYLE,
            upstream,
            name,
            address: visible_ascii(address),
        }
    }

    /// The whole HTML document.
    pub fn html(&self) -> String {
        write(self)
    }
}

impl ConsentPage<'_> {
    /// The whole HTML document.
    pub fn render(&self) -> String {
        let returns_to = self.returns_to();
        write(&Consent {
            style: STYLE,
            page: self,
            client_name: printable_name(self.client_name),
            client_host: self.client_host.map(visible_ascii),
            return_host: visible_ascii(self.return_host),
            redirect_uri: visible_ascii(self.redirect_uri),
            returns_to,
            standing: self.standing(returns_to),
            unused_for: match self.grant_days {
                0 => "a few hours".to_owned(),
                1 => "a day".to_owned(),
                days => format!("{days} days"),
            },
        })
    }

    fn standing(&self, returns_to: ReturnsTo) -> Standing {
        match returns_to {
            ReturnsTo::ThisComputer | ReturnsTo::App => Standing::Local,
            ReturnsTo::Website if self.set_up_by_operator => Standing::Known,
            ReturnsTo::Website if self.client_host == Some(self.return_host) => Standing::Published,
            ReturnsTo::Website if self.returns_to_known_client => Standing::Known,
            ReturnsTo::Website => Standing::Unknown,
        }
    }

    fn returns_to(&self) -> ReturnsTo {
        let scheme = self.redirect_uri.split(':').next().unwrap_or_default();
        let is_http = ["http", "https"]
            .iter()
            .any(|http| scheme.eq_ignore_ascii_case(http));
        match (self.returns_to_this_computer, is_http) {
            (true, _) => ReturnsTo::ThisComputer,
            (false, true) => ReturnsTo::Website,
            (false, false) => ReturnsTo::App,
        }
    }
}

impl MessagePage<'_> {
    /// The whole HTML document.
    pub fn render(&self) -> String {
        write(&Message {
            style: STYLE,
            page: self,
            place: self.link.as_ref().map(|link| visible_ascii(link.place)),
            details: self
                .details
                .iter()
                .map(|&(name, value)| (name, printable(value, DETAIL_LENGTH)))
                .collect(),
        })
    }
}

fn write(page: &impl Template) -> String {
    page.render()
        .expect("a string takes every write, and no value in the templates fails to print")
}

/// The `Content-Security-Policy` of the pages: nothing loads but their own style sheet.
///
/// There is no `form-action`, because Chromium applies it to each redirect that follows the
/// form, and so to the client's own `http://localhost` or `cursor://` address.
pub fn content_security_policy() -> String {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'none'"
    )
}

/// What may be shown of a name that a client gave itself: no character that hides, reorders,
/// covers or commands; none that ends a quotation; white space collapsed; at most 100 visible characters. Empty when nothing
/// is left.
pub fn printable_name(name: &str) -> String {
    printable(name, NAME_LENGTH)
}

/// The same of a text of another length.
fn printable(name: &str, length: usize) -> String {
    let mut printable = String::new();
    let mut space_before = false;
    let mut marks = 0;
    for c in name.chars() {
        if c.is_whitespace() {
            space_before = !printable.is_empty();
        } else if is_mark(c) {
            // One without a letter before it would land on our own text.
            if !printable.is_empty() && !space_before && marks < MARKS_PER_LETTER {
                printable.push(c);
                marks += 1;
            }
        } else if !is_hidden(c) {
            if space_before {
                printable.push(' ');
            }
            printable.push(if is_quote(c) { '\'' } else { c });
            space_before = false;
            marks = 0;
        }
    }
    shortened(printable, length)
}

/// The first characters of `name`, with an ellipsis as the last of them if any had to go.
fn shortened(mut name: String, length: usize) -> String {
    let mut visible = name
        .char_indices()
        .filter(|&(_, c)| !is_mark(c))
        .skip(length - 1);
    if let (Some((last, _)), Some(_)) = (visible.next(), visible.next()) {
        name.truncate(last);
        name.truncate(name.trim_end().len());
        name.push('…');
    }
    name
}

/// Whether `c` shows as an addition to the character before it.
fn is_mark(c: char) -> bool {
    c.general_category() == GeneralCategory::NonspacingMark && !is_blank(c)
}

/// Whether `c` shows as nothing, or acts on the text around it.
pub fn is_hidden(c: char) -> bool {
    is_blank(c)
        || matches!(
            c.general_category(),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::EnclosingMark
                | GeneralCategory::PrivateUse
                | GeneralCategory::Surrogate
                | GeneralCategory::Unassigned
        )
}

/// Whether `c` looks like the end of a quotation, after which a name would speak as we do.
fn is_quote(c: char) -> bool {
    matches!(
        c,
        '"' | '\u{AB}' | '\u{BB}' | '\u{201C}'..='\u{201F}' | '\u{2033}' | '\u{2036}' | '\u{2039}'
            | '\u{203A}' | '\u{275D}' | '\u{275E}' | '\u{301D}'..='\u{301F}' | '\u{FF02}'
    )
}

/// Whether `c` is a letter, mark or symbol by its category and yet leaves no trace on the page.
fn is_blank(c: char) -> bool {
    matches!(
        c,
        // Combining grapheme joiner, Hangul fillers, Khmer inherent vowels.
        '\u{34F}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{17B4}' | '\u{17B5}'
        // Variation selectors.
        | '\u{180B}'..='\u{180F}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}'
        // A Braille pattern without dots, a note without a head.
        | '\u{2800}' | '\u{1D159}'
    )
}

/// An address as text in which each character is seen: what is not visible ASCII is percent-encoded.
fn visible_ascii(address: &str) -> String {
    address
        .bytes()
        .map(|byte| match byte {
            b'!'..=b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
