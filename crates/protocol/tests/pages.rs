//! The pages that people see, read as a browser reads them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use protocol::{
    endpoint::pages::{
        Choice, ConsentPage, Link, MessagePage, content_security_policy, printable_name,
    },
    identity::password::Kind,
};
use scraper::{ElementRef, Html, Selector};
use sha2::{Digest, Sha256};

fn claude() -> ConsentPage<'static> {
    ConsentPage {
        client_name: "Claude",
        client_host: None,
        set_up_by_operator: false,
        return_host: "claude.ai",
        redirect_uri: "https://claude.ai/api/mcp/auth_callback",
        returns_to_this_computer: false,
        returns_to_known_client: true,
        upstreams: vec![Choice {
            name: "whatsapp",
            title: "WhatsApp",
            address: "https://mcp.example.com/mcp/whatsapp",
            selected: false,
        }],
        abilities: vec!["Use every tool of this server, to read and to change things."],
        sign_in: Kind::Passphrase,
        grant_days: 30,
        transaction: "sealed-transaction",
        action: "/consent",
        problem: None,
        reminder: None,
    }
}

fn too_many_attempts() -> MessagePage<'static> {
    MessagePage {
        title: "Too many attempts",
        explanation: "The passphrase was wrong 5 times in a row. Nothing was approved.",
        next_step: "Wait 15 minutes. Then start the connection again in your client.",
        details: vec![("Reference", "01JD3V8Q6Z2T")],
        ..MessagePage::default()
    }
}

fn two_upstreams() -> Vec<Choice<'static>> {
    vec![
        Choice {
            name: "whatsapp",
            title: "WhatsApp",
            address: "https://mcp.example.com/mcp/whatsapp",
            selected: false,
        },
        Choice {
            name: "linear",
            title: "Linear",
            address: "https://mcp.example.com/mcp/linear",
            selected: false,
        },
    ]
}

#[track_caller]
fn one<'a>(document: &'a Html, selector: &str) -> ElementRef<'a> {
    let found = all(document, selector);
    assert_eq!(found.len(), 1, "elements that match {selector}");
    found[0]
}

fn all<'a>(document: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    let selector = Selector::parse(selector).expect("the tests write good selectors");
    document.select(&selector).collect()
}

/// The text of an element as a person reads it.
fn words(element: ElementRef<'_>) -> String {
    let text: String = element.text().collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Everything in the document but its text: elements in order, each with its attributes' names,
/// and with the values of all that could act.
fn shape(document: &Html) -> Vec<String> {
    document
        .root_element()
        .descendent_elements()
        .map(|element| {
            let mut attributes: Vec<String> = element
                .value()
                .attrs()
                .map(|(name, value)| match name {
                    "value" | "action" => name.to_owned(),
                    _ => format!("{name}={value}"),
                })
                .collect();
            attributes.sort();
            format!("{} {}", element.value().name(), attributes.join(" "))
        })
        .collect()
}

/// The document without its style sheet, which has tests of its own.
fn without_style(html: &str) -> String {
    let (before, rest) = html
        .split_once("<style>")
        .expect("each page has a style sheet");
    let (_, after) = rest.split_once("</style>").expect("the style sheet ends");
    format!("{before}<style></style>{after}")
}

#[test]
fn a_typical_consent_page() {
    insta::assert_snapshot!(without_style(&claude().render()));
}

#[test]
fn a_message_page() {
    insta::assert_snapshot!(without_style(&too_many_attempts().render()));
}

/// CI-12, CIM-09
#[test]
fn ci_12_the_consent_page_names_the_host_that_publishes_the_client() {
    let page = ConsentPage {
        client_host: Some("claude\u{202e}.ai"),
        ..claude()
    };
    let document = Html::parse_document(&page.render());
    assert_eq!(
        words(one(&document, "#identity")),
        "It uses the identity that is published at claude%E2%80%AE.ai."
    );
    let registered = Html::parse_document(&claude().render());
    assert!(all(&registered, "#identity").is_empty());
}

#[test]
fn the_consent_page_says_who_where_what_and_how_long() {
    let document = Html::parse_document(&claude().render());
    assert_eq!(
        words(one(&document, "title")),
        "Approve “Claude”? – mcp-oauth-proxy"
    );
    assert_eq!(
        words(one(&document, "#ask")),
        "A client that calls itself “Claude” asks to use WhatsApp."
    );
    let ways: Vec<String> = all(&document, ".way").into_iter().map(words).collect();
    assert_eq!(
        ways,
        [
            "Access goes to claude.ai https://claude.ai/api/mcp/auth_callback",
            "It may use WhatsApp https://mcp.example.com/mcp/whatsapp",
        ]
    );
    assert_eq!(
        words(one(&document, "#decision")),
        "You approve access for claude.ai, as the owner of this proxy."
    );
    let page = words(document.root_element());
    for said in [
        "Use every tool of this server, to read and to change things.",
        "Work while you are away, until it has not been used for 30 days or you disconnect it in the client.",
        "If you did not start this, deny and close this page.",
    ] {
        assert!(page.contains(said), "{said:?} is not in {page:?}");
    }
}

#[test]
fn the_place_that_access_goes_to_is_larger_than_the_name() {
    let html = claude().render();
    let document = Html::parse_document(&html);
    assert_eq!(
        words(one(&document, ".way:not(.end) > strong")),
        "claude.ai"
    );
    assert!(html.contains(".way strong { display: block; font-size: 1.25rem;"));
    // The name is in the running text, and only there.
    assert_eq!(words(one(&document, "#ask > strong")), "“Claude”");
    assert_eq!(html.matches("Claude").count(), 2, "beside the title");
}

#[test]
fn the_form_posts_the_transaction_the_secret_and_the_decision() {
    let document = Html::parse_document(&claude().render());
    let form = one(&document, "form").value();
    assert_eq!(form.attr("method"), Some("post"));
    assert_eq!(form.attr("action"), Some("/consent"));
    assert_eq!(form.attr("novalidate"), None);
    let fields: Vec<(&str, &str)> = all(&document, "input[name], button")
        .into_iter()
        .map(|field| {
            let field = field.value();
            (
                field.attr("name").unwrap(),
                field.attr("value").unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(
        fields,
        [
            ("transaction", "sealed-transaction"),
            ("secret", ""),
            // The first button is the one that the Enter key presses.
            ("decision", "approve"),
            ("decision", "deny"),
        ]
    );
    let [approve, deny] = all(&document, "button")[..] else {
        panic!("not two buttons");
    };
    assert_eq!(approve.value().attr("formnovalidate"), None);
    assert_eq!(deny.value().attr("formnovalidate"), Some(""));
    for button in [approve, deny] {
        assert_eq!(button.value().attr("type"), None, "submits by default");
    }
}

#[test]
fn a_passphrase_and_a_pin_are_asked_for_in_their_own_way() {
    let passphrase = Html::parse_document(&claude().render());
    let field = one(&passphrase, "#secret").value();
    assert_eq!(words(one(&passphrase, "label[for=secret]")), "Passphrase");
    assert_eq!(field.attr("autocomplete"), Some("current-password"));
    assert_eq!(field.attr("inputmode"), None);

    let pin = ConsentPage {
        sign_in: Kind::Pin,
        ..claude()
    };
    let pin = Html::parse_document(&pin.render());
    let field = one(&pin, "#secret").value();
    assert_eq!(words(one(&pin, "label[for=secret]")), "PIN");
    assert_eq!(field.attr("autocomplete"), Some("off"));
    assert_eq!(field.attr("inputmode"), None);

    for document in [&passphrase, &pin] {
        let field = one(document, "#secret").value();
        assert_eq!(field.attr("type"), Some("password"));
        assert_eq!(field.attr("required"), Some(""));
        assert_eq!(field.attr("value"), None);
    }
}

#[test]
fn a_single_upstream_is_stated_and_several_are_asked_for() {
    let single = Html::parse_document(&claude().render());
    assert!(all(&single, "[name=upstream]").is_empty());

    let mut page = ConsentPage {
        upstreams: two_upstreams(),
        ..claude()
    };
    let several = Html::parse_document(&page.render());
    assert_eq!(words(one(&several, "legend")), "It may use one of these");
    let labels: Vec<String> = all(&several, "fieldset label")
        .into_iter()
        .map(words)
        .collect();
    assert_eq!(
        labels,
        [
            "WhatsApp https://mcp.example.com/mcp/whatsapp",
            "Linear https://mcp.example.com/mcp/linear",
        ]
    );
    assert!(all(&several, "[checked]").is_empty());
    assert_eq!(all(&several, "[type=radio][required]").len(), 2);

    page.upstreams[1].selected = true;
    let chosen = Html::parse_document(&page.render());
    assert_eq!(
        one(&chosen, "[checked]").value().attr("value"),
        Some("linear")
    );
}

/// Pain 13 of the newcomers: the page is loud where a stranger may get the answer, and calm where not.
#[test]
fn the_warning_follows_the_risk() {
    let known = Html::parse_document(&claude().render());
    assert!(all(&known, ".note, .tag").is_empty());

    let stranger = ConsentPage {
        client_name: "Claude by Anthropic (official) – verified ✓",
        return_host: "claude-ai.login.evil.example",
        redirect_uri: "https://claude-ai.login.evil.example/cb",
        returns_to_known_client: false,
        ..claude()
    };
    let document = Html::parse_document(&stranger.render());
    assert_eq!(words(one(&document, ".tag")), "not verified");
    assert_eq!(
        words(one(&document, ".note")),
        "Nobody vouches for this client. It chose its name itself. Approve only if you know \
         this address, read to its end, and have just started the connection there yourself."
    );
    let published = |host| ConsentPage {
        client_host: Some(host),
        ..stranger.clone()
    };
    // By its own host it is named, and that is all that there is to say.
    let own = Html::parse_document(&published("claude-ai.login.evil.example").render());
    assert!(all(&own, ".note, .tag").is_empty());
    assert_eq!(
        words(one(&own, "#identity")),
        "It uses the identity that is published at claude-ai.login.evil.example, which also gets the \
         answer."
    );
    // An identity that is published elsewhere says nothing of who gets the answer.
    let other = Html::parse_document(&published("claude.ai").render());
    assert_eq!(words(one(&other, ".tag")), "not verified");
    assert_eq!(all(&other, ".note").len(), 1);
    let set_up = ConsentPage {
        set_up_by_operator: true,
        ..stranger.clone()
    };
    let set_up = Html::parse_document(&set_up.render());
    assert!(all(&set_up, ".note, .tag").is_empty());

    let this_computer = ConsentPage {
        return_host: "localhost:53682",
        redirect_uri: "http://localhost:53682/callback",
        returns_to_this_computer: true,
        ..claude()
    };
    let this_computer = Html::parse_document(&this_computer.render());
    assert!(all(&this_computer, ".note, .tag").is_empty());
    assert_eq!(
        words(one(&this_computer, "#local")),
        "This is the computer you are using. Any program on it can claim this name, so approve \
         only what you have just started yourself."
    );

    let app = ConsentPage {
        return_host: "cursor://",
        redirect_uri: "cursor://anysphere.cursor-mcp/oauth/callback",
        ..claude()
    };
    let app = Html::parse_document(&app.render());
    assert!(words(one(&app, ".note")).starts_with("This opens an app on your device."));
    assert_eq!(
        words(one(&app, ".way:not(.end) > strong")),
        "an app that takes cursor:// links"
    );
}

/// Case 11
#[test]
fn the_page_after_an_app_was_approved_opens_it_and_has_a_link() {
    let location = "cursor://anysphere.cursor-mcp/oauth/callback?code=a&state=b'\"c";
    let page = MessagePage {
        title: "Done",
        explanation: "It is done.",
        link: Some(Link {
            href: location,
            words: "Open the app:",
            place: "cursor://",
        }),
        goes_to: Some(location),
        ..MessagePage::default()
    };
    let document = Html::parse_document(&page.render());
    let refresh = one(&document, "meta[http-equiv=refresh]").value();
    assert_eq!(
        refresh.attr("content"),
        Some(&*format!("0; url={location}"))
    );
    let link = one(&document, "a");
    assert_eq!(link.value().attr("href"), Some(location));
    assert_eq!(words(link), "Open the app: cursor://");
    assert!(all(&document, "form, input, script").is_empty());
}

/// Pain 8 of the newcomers
#[test]
fn a_person_who_runs_the_proxy_is_told_where_the_passphrase_is() {
    let page = ConsentPage {
        reminder: Some("Lost? Delete data/passphrase.hash and start the proxy again."),
        ..claude()
    };
    let document = Html::parse_document(&page.render());
    assert_eq!(
        words(one(&document, "#reminder")),
        "Where is it? Lost? Delete data/passphrase.hash and start the proxy again."
    );
}

#[test]
fn a_problem_is_announced_and_tied_to_the_field() {
    let page = ConsentPage {
        problem: Some("That passphrase is not right. 3 attempts are left."),
        ..claude()
    };
    let document = Html::parse_document(&page.render());
    let alert = one(&document, "[role=alert]");
    assert_eq!(
        words(alert),
        "That passphrase is not right. 3 attempts are left."
    );
    let field = one(&document, "#secret").value();
    assert_eq!(field.attr("aria-invalid"), Some("true"));
    assert_eq!(field.attr("autofocus"), Some(""));
    assert!(
        field
            .attr("aria-describedby")
            .unwrap()
            .starts_with("problem ")
    );

    let calm = Html::parse_document(&claude().render());
    assert!(all(&calm, "[role=alert], [aria-invalid], [autofocus], #problem").is_empty());
}

#[test]
fn a_screen_reader_finds_its_way() {
    let consent = ConsentPage {
        upstreams: two_upstreams(),
        problem: Some("That passphrase is not right."),
        ..claude()
    };
    for html in [
        claude().render(),
        consent.render(),
        too_many_attempts().render(),
    ] {
        let document = Html::parse_document(&html);
        assert!(document.errors.is_empty(), "{:?}", document.errors);
        assert_eq!(one(&document, "html").value().attr("lang"), Some("en"));
        for landmark in ["title", "header", "main", "h1"] {
            assert!(!words(one(&document, landmark)).is_empty());
        }
        for field in all(&document, "input:not([type=hidden]):not([hidden])") {
            let labelled = field.value().id().map_or_else(
                || {
                    field
                        .ancestors()
                        .any(|a| ElementRef::wrap(a).is_some_and(|a| a.value().name() == "label"))
                },
                |id| all(&document, &format!("label[for={id}]")).len() == 1,
            );
            assert!(labelled, "{} has no label", field.html());
        }
        for element in all(&document, "[aria-describedby], [aria-labelledby]") {
            for attribute in ["aria-describedby", "aria-labelledby"] {
                for id in element.value().attr(attribute).unwrap_or("").split(' ') {
                    assert!(id.is_empty() || !words(one(&document, &format!("#{id}"))).is_empty());
                }
            }
        }
    }
}

#[test]
fn nothing_runs_and_nothing_is_loaded() {
    for html in [claude().render(), too_many_attempts().render()] {
        let document = Html::parse_document(&html);
        let active = "script, img, link, iframe, object, embed, base, a, use, image, \
                      meta[http-equiv], [style], [src], [href]";
        assert!(all(&document, active).is_empty());
        for element in document.root_element().descendent_elements() {
            for (name, _) in element.value().attrs() {
                assert!(!name.starts_with("on"), "{}", element.html());
            }
        }
        let style = &html[html.find("<style>").unwrap()..html.find("</style>").unwrap()];
        assert!(!style.contains("url(") && !style.contains("@import"));
        assert!(html.len() <= 8 * 1024, "{} bytes", html.len());
    }
}

#[test]
fn the_policy_names_the_style_sheet_that_the_pages_carry() {
    for html in [claude().render(), too_many_attempts().render()] {
        let document = Html::parse_document(&html);
        // As parsed, since that is what a browser hashes.
        let style: String = one(&document, "style").text().collect();
        let hash = STANDARD.encode(Sha256::digest(&style));
        assert_eq!(
            content_security_policy(),
            format!(
                "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; \
                 frame-ancestors 'none'"
            )
        );
    }
}

/// The value of a colour variable in a style sheet, as linear light per channel.
fn colour(style: &str, name: &str) -> [f64; 3] {
    let (_, rest) = style
        .split_once(&format!("--{name}: #"))
        .expect("the variable is set");
    let digits = rest.split(';').next().unwrap_or_default();
    let width = digits.len() / 3;
    std::array::from_fn(|channel| {
        let digit = &digits[channel * width..(channel + 1) * width];
        let value = u8::from_str_radix(digit, 16).expect("a hexadecimal colour");
        let value = f64::from(if width == 1 { value * 17 } else { value }) / 255.0;
        if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    })
}

/// The contrast ratio of two colours (WCAG 2.2 §1.4.3).
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let [a, b] = [a, b].map(|[r, g, b]| 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05);
    a.max(b) / a.min(b)
}

#[test]
fn text_and_controls_stand_out_in_light_and_dark() {
    let html = claude().render();
    let (light, dark) = html.split_once("prefers-color-scheme: dark").unwrap();
    for style in [light, dark] {
        for (front, back, at_least) in [
            ("text", "page", 4.5),
            ("text", "card", 4.5),
            ("text", "quiet", 4.5),
            ("text", "care-bg", 4.5),
            ("soft", "card", 4.5),
            ("soft", "quiet", 4.5),
            ("care", "card", 4.5),
            ("on", "accent", 4.5),
            ("accent", "quiet", 3.0),
            ("edge", "card", 3.0),
            ("edge", "quiet", 3.0),
        ] {
            let ratio = contrast(colour(style, front), colour(style, back));
            assert!(ratio >= at_least, "{front} on {back} is {ratio:.2}");
        }
    }
}

#[test]
fn a_name_loses_what_hides_reorders_covers_or_commands() {
    for (name, shown) in [
        ("Claude", "Claude"),
        ("  Claude \t\r\n Code\u{A0}\u{2028}2 ", "Claude Code 2"),
        ("evil\u{202E}edualC", "eviledualC"),
        ("\u{2066}a\u{2069}\u{200F}b\u{61C}c", "abc"),
        ("Cl\u{200B}a\u{200D}u\u{FEFF}d\u{2060}e\u{AD}", "Claude"),
        ("\u{1B}[31mred\u{7}\u{0}\u{9B}", "[31mred"),
        ("a \u{200B} b", "a b"),
        ("\u{E000}x\u{F0000}y\u{E0041}\u{378}", "xy"),
        ("x\u{3164}\u{115F}\u{FFA0}\u{2800}y\u{34F}", "xy"),
        ("\u{301}\u{301}", ""),
        ("e\u{301} \u{301}x", "e\u{301} x"),
        (
            "o\u{300}\u{301}\u{302}\u{303}\u{304}",
            "o\u{300}\u{301}\u{302}",
        ),
        ("x\u{20DD}", "x"),
        (
            "Claude”, which “the” \"operator\" «set» up. “",
            "Claude', which 'the' 'operator' 'set' up. '",
        ),
        ("Bob’s ‘app’", "Bob’s ‘app’"),
        ("👩\u{200D}👩\u{200D}👧 ❤\u{FE0F}", "👩👩👧 ❤"),
        ("クロード · Клод · كلود · မြို့", "クロード · Клод · كلود · မြို့"),
        ("", ""),
        ("\u{200B} \u{202E}", ""),
    ] {
        assert_eq!(printable_name(name), shown, "{name:?}");
    }
}

#[test]
fn a_long_name_ends_after_a_hundred_visible_characters() {
    let exact = "é".repeat(100);
    assert_eq!(printable_name(&exact), exact);
    assert_eq!(
        printable_name(&"x".repeat(5_000)),
        format!("{}…", "x".repeat(99))
    );
    let marked = "e\u{301}".repeat(100);
    assert_eq!(printable_name(&marked), marked);
    assert_eq!(
        printable_name(&format!("{marked}x")),
        format!("{}…", "e\u{301}".repeat(99))
    );
    assert_eq!(
        printable_name(&format!("{} {}", "x".repeat(98), "y".repeat(9))),
        format!("{}…", "x".repeat(98))
    );
}

#[test]
fn a_client_without_a_visible_name_is_called_unnamed() {
    for name in ["", " ", "\u{202E}\u{200B}"] {
        let page = ConsentPage {
            client_name: name,
            ..claude()
        };
        let document = Html::parse_document(&page.render());
        assert_eq!(
            words(one(&document, "title")),
            "Approve an unnamed client? – mcp-oauth-proxy"
        );
        assert_eq!(
            words(one(&document, "#ask")),
            "A client that gives no name asks to use WhatsApp."
        );
    }
}

#[test]
fn hidden_characters_of_an_address_are_spelled_out() {
    let page = ConsentPage {
        return_host: "claude.ai\u{202E}",
        redirect_uri: "https://claude.ai\u{202E}/ \u{0}<b>é",
        ..claude()
    };
    let document = Html::parse_document(&page.render());
    assert_eq!(
        words(one(&document, ".way:not(.end)")),
        "Access goes to claude.ai%E2%80%AE https://claude.ai%E2%80%AE/%20%00<b>%C3%A9"
    );
}

#[test]
fn hostile_names_are_text_and_leave_the_rest_of_the_page_alone() {
    let expected = shape(&Html::parse_document(&claude().render()));
    for name in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'><svg/onload=alert(1)>",
        "</title><meta http-equiv=refresh content=0>",
        "</bdi></strong></p></form><form action=//evil.example>",
        "</style><style>*{display:none}",
        "<!--",
        "<![CDATA[",
        "&lt;script&gt;",
        "&#60;b&#62;",
        "{{ page.transaction }}",
        "Claude\u{202E}",
        "\u{1B}]0;owned\u{7}",
        "👩\u{200D}👩\u{200D}👧",
        &"x".repeat(5_000),
    ] {
        let page = ConsentPage {
            client_name: name,
            ..claude()
        };
        let html = page.render();
        let document = Html::parse_document(&html);
        assert_eq!(shape(&document), expected, "{name:?}");
        assert_eq!(
            words(one(&document, "#ask > strong")),
            format!("“{}”", printable_name(name))
        );
        assert_eq!(
            words(one(&document, ".way:not(.end) > strong")),
            "claude.ai"
        );
        assert!(html.len() <= 9 * 1024, "{} bytes", html.len());
    }
}

/// Text that is likely to break out of where it is put, if anything is.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        any::<char>().prop_map(String::from),
        "[<>\"'&/=;!`\\- a-z{}%]{0,12}",
        proptest::sample::select(vec![
            "<script>",
            "</script>",
            "<!--",
            "-->",
            "\"><img src=x onerror=x>",
            "' autofocus x='",
            "</title>",
            "</style>",
            "</form>",
            "<form>",
            "<input name=secret>",
            "&quot;",
            "&#x3c;",
            "<![CDATA[",
            "]]>",
            "<plaintext>",
            "<template>",
            "\u{0}",
            "\u{202E}",
            "\u{1B}[2J",
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_of_a_consent_page_becomes_markup(
        texts in proptest::collection::vec(hostile_text(), 15),
    ) {
        let plain = |text: &'static str| -> Vec<String> { vec![text.to_owned(); 15] };
        let render = |texts: &[String]| {
            let page = ConsentPage {
                // A letter keeps the name from being empty, which is another page.
                client_name: &format!("x{}", texts[0]),
                client_host: Some(&texts[14]),
                set_up_by_operator: false,
                return_host: &texts[1],
                // The scheme decides which warning is shown.
                redirect_uri: &format!("data:{}", texts[2]),
                returns_to_this_computer: false,
                returns_to_known_client: false,
                upstreams: vec![
                    Choice { name: &texts[3], title: &texts[4], address: &texts[5], selected: true },
                    Choice { name: &texts[6], title: &texts[7], address: &texts[8], selected: false },
                ],
                abilities: vec![&texts[9], &texts[10]],
                sign_in: Kind::Passphrase,
                grant_days: 30,
                transaction: &texts[11],
                action: &texts[12],
                problem: Some(&texts[13]),
                reminder: Some(&texts[10]),
            };
            Html::parse_document(&page.render())
        };
        let document = render(&texts);
        prop_assert_eq!(shape(&document), shape(&render(&plain("x"))));
        // And what goes back is what was sent, as far as HTML can carry it.
        if !texts[11].contains(['\0', '\r']) {
            let sent = one(&document, "[name=transaction]").value().attr("value");
            prop_assert_eq!(sent, Some(texts[11].as_str()));
        }
    }

    #[test]
    fn no_text_of_a_message_page_becomes_markup(
        texts in proptest::collection::vec(hostile_text(), 6),
    ) {
        let render = |texts: [&str; 6]| {
            let page = MessagePage {
                title: texts[0],
                explanation: texts[1],
                next_step: &format!("x{}", texts[2]),
                command: Some(texts[2]),
                link: Some(Link { href: texts[4], words: texts[1], place: texts[5] }),
                goes_to: None,
                details: vec![(texts[3], texts[0]), (texts[5], texts[3])],
            };
            Html::parse_document(&page.render())
        };
        let document = render(std::array::from_fn(|index| &*texts[index]));
        prop_assert_eq!(shape(&document), shape(&render(["x", "x", "x", "x", &texts[4], "x"])));
    }

    #[test]
    fn a_printable_name_stays_as_it_is(name in hostile_text()) {
        let once = printable_name(&name);
        prop_assert_eq!(printable_name(&once), once.clone());
        prop_assert!(!once.chars().any(char::is_control));
        prop_assert_eq!(once.trim(), once.as_str());
    }
}
