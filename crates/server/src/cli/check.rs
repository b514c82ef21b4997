//! `check`: what the configuration comes to, for people, with every secret masked.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io::{self, Write as _},
};

use anyhow::Context as _;
use protocol::{
    endpoint::mcp::trial,
    forward::headers,
    journal::Trial,
    policy::{ClientPolicy, OF_THE_ONLY_ONE, TokenPolicy},
};
use rustls::RootCertStore;

use crate::{
    addresses,
    config::{
        KeyPlan, LimitsPlan, Plan, PlannedClient, PlannedUpstream, SignInPlan, describe_limits,
        show_duration,
    },
    logs::{brief, chain, remedy},
    system::SystemClock,
    upstream::{RemoteUpstream, UpstreamTimeouts, system_tls, tls_trusting},
};

/// Prints what a good configuration comes to: `all` of it, or what matters. Unless `offline`, each
/// upstream is tried.
pub(super) fn run(mut plan: Plan, all: bool, offline: bool) -> anyhow::Result<()> {
    let trials = if offline {
        plan.upstreams.iter().map(|_| None).collect()
    } else {
        try_upstreams(&plan)?
    };
    let mut warnings = std::mem::take(&mut plan.warnings);
    for (upstream, trial) in plan.upstreams.iter().zip(&trials) {
        warnings.extend(trial.as_ref().and_then(|trial| failure(upstream, trial)));
    }
    let mut text = describe(&plan, &trials, all);
    let mut notes = std::mem::take(&mut plan.notes);
    add_costs(plan, &mut notes, &mut warnings);
    write_end(&mut text, &notes, &warnings).expect("a String takes any text");
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// What comes of a trial of each upstream, in their order. The demo needs none.
fn try_upstreams(plan: &Plan) -> anyhow::Result<Vec<Option<Trial>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let settings = &plan.settings;
    let tls = system_tls().unwrap_or_else(|_| tls_trusting(RootCertStore::empty()));
    let timeouts: &UpstreamTimeouts = &settings.limits.upstream;
    let (clock, name) = (SystemClock::new(), headers::proxy_name("check"));
    Ok(runtime.block_on(async {
        let way = RemoteUpstream::through(settings.proxies.clone(), tls, timeouts);
        let upstreams = plan.upstreams.iter().map(|upstream| &upstream.policy);
        trial::of_each(&way, &clock, &name, upstreams).await
    }))
}

/// What to say of a trial that failed, in the words of the log.
fn failure(upstream: &PlannedUpstream, trial: &Trial) -> Option<String> {
    let Trial::Failed {
        why,
        detail,
        status,
        cause,
    } = trial
    else {
        return None;
    };
    let status = status.map(|status| format!("HTTP {}", status.as_u16()));
    let cause = cause.as_ref().and_then(Error::source).map(chain);
    let details = [detail.clone(), status, cause].into_iter().flatten();
    let details: Vec<String> = details.collect();
    let details = match &details[..] {
        [] => String::new(),
        details => format!(" ({})", details.join(", ")),
    };
    let name = &upstream.policy.name;
    Some(format!("upstream {name}: {}{details}", remedy(*why)))
}

/// Adds which approvals that were given before would hold no more.
fn add_costs(plan: Plan, notes: &mut Vec<String>, warnings: &mut Vec<String>) {
    match addresses::foretell(plan) {
        Ok(all) => {
            for lost in all {
                let list = if lost.remedy.is_some() {
                    &mut *warnings
                } else {
                    &mut *notes
                };
                list.push(lost.to_string());
            }
        }
        Err(error) => warnings.push(format!(
            "the store could not be read for approvals that would end: {error}"
        )),
    }
}

fn describe(plan: &Plan, trials: &[Option<Trial>], all: bool) -> String {
    let mut described = Described {
        text: String::new(),
        all,
    };
    described
        .write_plan(plan, trials)
        .expect("a String takes any text");
    described.text
}

fn write_end(text: &mut String, notes: &[String], warnings: &[String]) -> fmt::Result {
    text.push('\n');
    for note in notes {
        writeln!(text, "note: {note}")?;
    }
    for warning in warnings {
        writeln!(text, "warning: {warning}")?;
    }
    if !notes.is_empty() || !warnings.is_empty() {
        text.push('\n');
    }
    match warnings.len() {
        0 => writeln!(text, "ok"),
        1 => writeln!(text, "1 warning"),
        several => writeln!(text, "{several} warnings"),
    }
}

/// A description in the making.
struct Described {
    text: String,
    /// Whether defaults are in it too.
    all: bool,
}

impl Described {
    fn row(&mut self, name: &str, value: &str) -> fmt::Result {
        writeln!(self.text, "{name:<28} {value}")
    }

    /// A row that says nothing as long as it says what is usual.
    fn unless(&mut self, usual: &str, name: &str, value: &str) -> fmt::Result {
        if self.all || value != usual {
            self.row(name, value)?;
        }
        Ok(())
    }

    fn write_plan(&mut self, plan: &Plan, trials: &[Option<Trial>]) -> fmt::Result {
        let settings = &plan.settings;
        let metrics = settings
            .metrics_listen
            .map_or_else(|| "off".to_owned(), |address| address.to_string());
        self.row("configuration", &plan.shown_file())?;
        self.row("data directory", &settings.shown_data_dir())?;
        self.row("public URL", plan.issuer.as_str())?;
        self.unless("none", "aliases", &list(&plan.aliases))?;
        self.row("listen", &settings.listen.to_string())?;
        self.unless("off", "metrics", &metrics)?;
        self.unless("in the data directory", "key", &key(plan))?;
        self.row("store", &settings.store.shown())?;
        self.row("sign-in", &sign_in(&plan.sign_in))?;
        self.unless("none", "allowed origins", &list(&plan.allowed_origins))?;
        self.unless("none", "trusted proxies", &list(&plan.trusted_proxies))?;
        self.unless("none", "outgoing proxy", &outgoing_proxy(plan))?;
        let (clients, usual) = (&plan.client_policy, ClientPolicy::default());
        self.unless(
            on_or_off(usual.registration),
            "registration",
            on_or_off(clients.registration),
        )?;
        self.unless(&documents(&usual), "client documents", &documents(clients))?;
        self.unless(&app_schemes(&usual), "app schemes", &app_schemes(clients))?;
        self.unless(
            yes_or_no(usual.announce_iss),
            "iss announced",
            yes_or_no(clients.announce_iss),
        )?;
        for (upstream, trial) in plan.upstreams.iter().zip(trials) {
            self.write_upstream(plan, upstream, trial.as_ref())?;
        }
        for client in &plan.clients {
            self.write_client(client)?;
        }
        self.write_section(
            "tokens",
            tokens(&plan.tokens),
            tokens(&TokenPolicy::default()),
        )?;
        self.write_section(
            "limits",
            describe_limits(&settings.limits),
            describe_limits(&LimitsPlan::default()),
        )?;
        if !self.all {
            writeln!(self.text, "\nall else is as by default; --all shows it")?;
        }
        Ok(())
    }

    fn write_upstream(
        &mut self,
        plan: &Plan,
        upstream: &PlannedUpstream,
        trial: Option<&Trial>,
    ) -> fmt::Result {
        let policy = &upstream.policy;
        writeln!(self.text, "\nupstream {}", policy.name)?;
        self.row("  title", &policy.title)?;
        self.row("  for clients", policy.resource.as_str())?;
        if plan.upstreams.len() == 1 {
            let others = OF_THE_ONLY_ONE
                .into_iter()
                .filter(|path| *path != policy.path);
            let others: Vec<String> = others.map(|path| plan.issuer.url(path)).collect();
            self.row("  also at", &list(&others))?;
        }
        if self.all {
            let metadata = format!("/.well-known/oauth-protected-resource{}", policy.path);
            self.row("  metadata", &plan.issuer.url(&metadata))?;
        }
        self.row("  sends to", &upstream.destination)?;
        self.row("  credential", &upstream.credential)?;
        for (name, line) in &upstream.headers {
            self.row(&format!("  {name}"), line)?;
        }
        match trial {
            Some(trial) => self.row("  answers", &answers(trial)),
            None => Ok(()),
        }
    }

    fn write_client(&mut self, planned: &PlannedClient) -> fmt::Result {
        let client = &planned.client;
        writeln!(self.text, "\nclient {}", client.client_id)?;
        self.row("  title", &client.metadata.client_name)?;
        self.row("  redirect_uris", &list(&client.metadata.redirect_uris))?;
        self.row("  authentication", &planned.authentication)
    }

    /// What of a table differs from the default, or all of it.
    fn write_section(
        &mut self,
        name: &str,
        rows: Vec<(&'static str, String)>,
        usual: Vec<(&'static str, String)>,
    ) -> fmt::Result {
        let rows = rows.into_iter().zip(usual);
        let rows: Vec<_> = rows
            .filter(|(row, usual)| self.all || row != usual)
            .collect();
        if !rows.is_empty() {
            writeln!(self.text, "\n{name}")?;
        }
        for ((name, value), _) in rows {
            self.row(&format!("  {name}"), &value)?;
        }
        Ok(())
    }
}

/// What a server said of itself when it was tried, in its own words, quoted.
fn answers(trial: &Trial) -> String {
    let Trial::Answered(about) = trial else {
        return "no, see the warning".to_owned();
    };
    let said = [&about.name, &about.version];
    let said = said.into_iter().flatten();
    let mut said: Vec<String> = said.map(|text| format!("{:?}", brief(text))).collect();
    let revision = about.revision.as_ref();
    said.extend(revision.map(|revision| format!("MCP {}", revision.as_str())));
    if said.is_empty() {
        return "yes".to_owned();
    }
    format!("yes, {}", said.join(" "))
}

fn tokens(tokens: &TokenPolicy) -> Vec<(&'static str, String)> {
    let time = show_duration;
    vec![
        ("access_lifetime", time(tokens.access_lifetime)),
        ("refresh_idle", time(tokens.refresh_idle)),
        ("refresh_absolute", time(tokens.refresh_absolute)),
        ("refresh_retry_window", time(tokens.refresh_retry_window)),
        ("code_lifetime", time(tokens.code_lifetime)),
        (
            "heal_store_regression",
            tokens.heal_store_regression.to_string(),
        ),
    ]
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
