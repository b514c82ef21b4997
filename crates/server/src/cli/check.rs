//! `check`: what the configuration comes to, for people, with every secret masked.

use std::fmt::{self, Write};

use protocol::policy::{ClientPolicy, OF_THE_ONLY_ONE};

use crate::{
    addresses,
    config::{
        KeyPlan, Plan, PlannedClient, PlannedUpstream, SignInPlan, describe_limits, show_duration,
    },
};

/// Describes the outcome of a good configuration.
pub(super) fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    write_plan(&mut text, plan).expect("a String takes any text");
    text
}

/// Describes which approvals that were given before would hold no more.
pub(super) fn describe_costs(plan: Plan) -> String {
    match addresses::foretell(plan) {
        Ok(lost) => lost.iter().fold(String::new(), |text, lost| {
            format!("{text}\nwarning: {lost}\n")
        }),
        Err(error) => format!(
            "\nwarning: the store could not be read for approvals that would end: {error}\n"
        ),
    }
}

fn write_plan(text: &mut String, plan: &Plan) -> fmt::Result {
    let settings = &plan.settings;
    let file = plan.file.as_ref().map_or_else(
        || "none, built-in defaults".to_owned(),
        |path| path.display().to_string(),
    );
    let metrics = settings
        .metrics_listen
        .map_or_else(|| "off".to_owned(), |address| address.to_string());
    row(text, "configuration", &file)?;
    row(text, "public URL", plan.issuer.as_str())?;
    if !plan.aliases.is_empty() {
        row(text, "aliases", &list(&plan.aliases))?;
    }
    row(text, "listen", &settings.listen.to_string())?;
    row(text, "metrics", &metrics)?;
    row(
        text,
        "data directory",
        &settings.data_dir.display().to_string(),
    )?;
    row(text, "key", &key(plan))?;
    row(text, "store", &settings.store.shown())?;
    row(text, "sign-in", &sign_in(&plan.sign_in))?;
    row(text, "allowed origins", &list(&plan.allowed_origins))?;
    row(text, "trusted proxies", &list(&plan.trusted_proxies))?;
    row(text, "outgoing proxy", &outgoing_proxy(plan))?;
    row(
        text,
        "registration",
        on_or_off(plan.client_policy.registration),
    )?;
    row(text, "client documents", &documents(&plan.client_policy))?;
    let clients = &plan.client_policy;
    row(text, "app schemes", &app_schemes(clients))?;
    row(text, "iss announced", yes_or_no(clients.announce_iss))?;
    for upstream in &plan.upstreams {
        write_upstream(text, plan, upstream)?;
    }
    for client in &plan.clients {
        write_client(text, client)?;
    }
    write_tokens(text, plan)?;
    write_limits(text, plan)?;
    if !plan.warnings.is_empty() || !plan.notes.is_empty() {
        text.push('\n');
    }
    for note in &plan.notes {
        writeln!(text, "note: {note}")?;
    }
    for warning in &plan.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    Ok(())
}

fn write_upstream(text: &mut String, plan: &Plan, upstream: &PlannedUpstream) -> fmt::Result {
    let policy = &upstream.policy;
    let metadata = format!("/.well-known/oauth-protected-resource{}", policy.path);
    writeln!(text, "\nupstream {}", policy.name)?;
    row(text, "  title", &policy.title)?;
    row(text, "  for clients", policy.resource.as_str())?;
    if plan.upstreams.len() == 1 {
        let others = OF_THE_ONLY_ONE
            .into_iter()
            .filter(|path| *path != policy.path);
        let others: Vec<String> = others.map(|path| plan.issuer.url(path)).collect();
        row(text, "  also at", &list(&others))?;
    }
    row(text, "  metadata", &plan.issuer.url(&metadata))?;
    row(text, "  sends to", &upstream.destination)?;
    row(text, "  credential", &upstream.credential)?;
    for (name, line) in &upstream.headers {
        row(text, &format!("  {name}"), line)?;
    }
    Ok(())
}

fn write_tokens(text: &mut String, plan: &Plan) -> fmt::Result {
    let tokens = &plan.tokens;
    writeln!(text, "\ntokens")?;
    for (name, lifetime) in [
        ("  access_lifetime", tokens.access_lifetime),
        ("  refresh_idle", tokens.refresh_idle),
        ("  refresh_absolute", tokens.refresh_absolute),
        ("  refresh_retry_window", tokens.refresh_retry_window),
        ("  code_lifetime", tokens.code_lifetime),
    ] {
        row(text, name, &show_duration(lifetime))?;
    }
    row(
        text,
        "  heal_store_regression",
        &tokens.heal_store_regression.to_string(),
    )
}

fn write_limits(text: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(text, "\nlimits")?;
    for (name, value) in describe_limits(&plan.settings.limits) {
        row(text, &format!("  {name}"), &value)?;
    }
    Ok(())
}

fn write_client(text: &mut String, planned: &PlannedClient) -> fmt::Result {
    let client = &planned.client;
    writeln!(text, "\nclient {}", client.client_id)?;
    row(text, "  title", &client.metadata.client_name)?;
    row(
        text,
        "  redirect_uris",
        &list(&client.metadata.redirect_uris),
    )?;
    row(text, "  authentication", &planned.authentication)
}

fn on_or_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn yes_or_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no, but sent" }
}

fn app_schemes(policy: &ClientPolicy) -> String {
    if policy.app_schemes.is_empty() {
        return "those of known apps".to_owned();
    }
    format!("those of known apps, {}", list(&policy.app_schemes))
}

fn documents(policy: &ClientPolicy) -> String {
    if !policy.documents {
        return "off".to_owned();
    }
    let from = if policy.document_hosts.is_empty() {
        "any host".to_owned()
    } else {
        list(&policy.document_hosts)
    };
    let but = if policy.refused_document_hosts.is_empty() {
        String::new()
    } else {
        format!(", but not {}", list(&policy.refused_document_hosts))
    };
    format!("from {from}{but}")
}

fn row(text: &mut String, name: &str, value: &str) -> fmt::Result {
    writeln!(text, "{name:<28} {value}")
}

fn outgoing_proxy(plan: &Plan) -> String {
    let users = plan.settings.proxies.users(
        plan.upstreams.iter().map(|upstream| &upstream.policy),
        plan.client_policy.documents,
    );
    match &users[..] {
        [] => "none".to_owned(),
        users => users.join("; "),
    }
}

fn key(plan: &Plan) -> String {
    match &plan.key {
        KeyPlan::DataDir => "in the data directory".to_owned(),
        KeyPlan::Configured { source, .. } => source.to_string(),
    }
}

fn sign_in(plan: &SignInPlan) -> String {
    use protocol::identity::password::Kind;

    match plan {
        SignInPlan::Generated => "passphrase, generated at the first start".to_owned(),
        SignInPlan::Configured { sign_in, source } => {
            let kind = match sign_in.kind {
                Kind::Passphrase => "passphrase",
                Kind::Pin => "PIN",
            };
            format!("{kind} ({source})")
        }
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(", ")
}
