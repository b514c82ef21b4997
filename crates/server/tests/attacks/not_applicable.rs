//! What cannot be tried, since the program does not have what it is about.

/// Ids, separated by a space, and the reason.
pub const NOT_APPLICABLE: &[(&str, &str)] = &[
    // Authorization
    (
        "N-AZ-51",
        "There are no pushed authorization requests; every `request_uri` is refused (N-AZ-50).",
    ),
    // Callback from an identity provider
    (
        "N-CB-01 N-CB-02 N-CB-03 N-CB-04 N-CB-05 N-CB-06 N-CB-07 N-CB-08 N-CB-09 N-CB-10 N-CB-11 \
         N-CB-12 N-CB-13 N-CB-14 N-CB-15 N-CB-16 N-CB-17 N-CB-18",
        "There is no sign-in through an identity provider.",
    ),
    // Refresh
    (
        "N-RF-15 N-RF-16 N-RF-17 N-RF-18",
        "No upstream is reached with OAuth tokens of its own, so none are refreshed.",
    ),
    // Registration
    (
        "N-RG-42",
        "Registration is open to everybody or off (N-RG-41): there are no initial access tokens.",
    ),
    (
        "N-RM-01 N-RM-02 N-RM-03 N-RM-04 N-RM-05 N-RM-06",
        "Registrations cannot be managed (RFC 7592).",
    ),
    // Metadata
    (
        "N-WK-12",
        "Tokens are opaque, so no key set is published; its usual addresses are empty (N-WK-11).",
    ),
    // Introspection
    (
        "N-IN-01 N-IN-02 N-IN-03 N-IN-04 N-IN-05 N-IN-06 N-IN-07",
        "There is no introspection endpoint (N-IN-08).",
    ),
    // Access tokens
    (
        "N-JW-01 N-JW-02 N-JW-03 N-JW-04 N-JW-05 N-JW-07 N-JW-09 N-JW-10 N-JW-12 N-JW-13 N-JW-14 \
         N-JW-15 N-JW-16 N-JW-17 N-JW-18 N-JW-19 N-JW-20 N-JW-21 N-JW-22 N-JW-29",
        "Tokens are opaque: they have no header, claims or algorithm, are not encrypted, and no \
         key set is fetched for them.",
    ),
    (
        "N-JW-30",
        "Keys change at a start, which no attack can cause; `races/rotation.rs` tries what must hold across that.",
    ),
    // The MCP endpoint
    (
        "N-RS-35",
        "There is no list of allowed tools: bodies are not read, and pass as they came (N-RS-30).",
    ),
    // Upstream
    (
        "N-UP-20",
        "Answers are passed on as bytes; no filter reads them.",
    ),
    // Limits, logs, administration
    ("N-LG-11", "There is no administration over HTTP."),
];
