//! Z23: no text on a page becomes markup: its elements and attributes are those of a page with
//! harmless texts.
#![no_main]

use arbitrary::Arbitrary;
use fuzz::judge;
use libfuzzer_sys::fuzz_target;
use protocol::{
    endpoint::pages::{Choice, ConsentPage, Link, MessagePage, printable_name},
    identity::password::Kind,
};
use scraper::{Html, Node};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    client_name: &'a str,
    client_host: Option<&'a str>,
    return_host: &'a str,
    redirect_uri: &'a str,
    is_here: bool,
    is_set_up: bool,
    is_known: bool,
    reminder: Option<&'a str>,
    way_back: Option<(&'a str, &'a str)>,
    upstreams: Vec<(&'a str, &'a str, &'a str, bool)>,
    abilities: Vec<&'a str>,
    is_pin: bool,
    grant_days: u64,
    transaction: &'a str,
    problem: Option<&'a str>,
    next_step: &'a str,
}

/// The elements of a document with the names of their attributes, in order, and what was wrong.
fn skeleton(document: &str) -> Vec<(String, Vec<String>)> {
    let html = Html::parse_document(document);
    html.tree
        .nodes()
        .filter_map(|node| match node.value() {
            Node::Element(element) => Some((
                element.name().to_owned(),
                element.attrs().map(|(name, _)| name.to_owned()).collect(),
            )),
            Node::Comment(comment) => Some((format!("comment {}", &**comment), Vec::new())),
            _ => None,
        })
        .collect()
}

/// A harmless text that is empty when `text` is.
fn harmless(text: &str) -> &'static str {
    if text.is_empty() { "" } else { "x" }
}

fuzz_target!(|input: Input| judge(|| {
    let choices = |is_harmless: bool| {
        let text = |text| if is_harmless { harmless(text) } else { text };
        let upstreams = input.upstreams.iter().take(20);
        upstreams
            .map(|(name, title, address, selected)| Choice {
                name: text(name),
                title: text(title),
                address: text(address),
                selected: *selected,
            })
            .collect::<Vec<_>>()
    };
    let page = ConsentPage {
        client_name: input.client_name,
        client_host: input.client_host,
        return_host: input.return_host,
        redirect_uri: input.redirect_uri,
        set_up_by_operator: input.is_set_up,
        returns_to_this_computer: input.is_here,
        returns_to_known_client: input.is_known,
        upstreams: choices(false),
        abilities: input.abilities.iter().copied().take(20).collect(),
        sign_in: if input.is_pin {
            Kind::Pin
        } else {
            Kind::Passphrase
        },
        grant_days: input.grant_days,
        transaction: input.transaction,
        action: "/consent",
        problem: input.problem,
        reminder: input.reminder,
    };
    let scheme = input.redirect_uri.split(':').next().unwrap_or_default();
    let is_web = ["http", "https"]
        .iter()
        .any(|web| scheme.eq_ignore_ascii_case(web));
    let plain = ConsentPage {
        client_name: harmless(&printable_name(input.client_name)),
        client_host: input.client_host.map(harmless),
        return_host: "x",
        redirect_uri: if is_web { "https://x" } else { "x://x" },
        upstreams: choices(true),
        abilities: page.abilities.iter().copied().map(harmless).collect(),
        transaction: "x",
        problem: input.problem.map(harmless),
        reminder: input.reminder.map(harmless),
        ..page.clone()
    };
    assert_eq!(skeleton(&page.render()), skeleton(&plain.render()));

    let message = MessagePage {
        title: input.client_name,
        explanation: input.redirect_uri,
        next_step: input.next_step,
        command: input.reminder,
        link: input.way_back.map(|(href, place)| Link {
            href,
            words: "Go on",
            place,
        }),
        goes_to: None,
        details: input
            .problem
            .map(|told| ("Told", told))
            .into_iter()
            .collect(),
    };
    let plain = MessagePage {
        title: "x",
        explanation: "x",
        next_step: harmless(input.next_step),
        command: input.reminder.map(harmless),
        link: input.way_back.map(|_| Link {
            href: "x",
            words: "Go on",
            place: "x",
        }),
        goes_to: None,
        details: input
            .problem
            .map(|told| ("Told", harmless(told)))
            .into_iter()
            .collect(),
    };
    assert_eq!(skeleton(&message.render()), skeleton(&plain.render()));
}));
