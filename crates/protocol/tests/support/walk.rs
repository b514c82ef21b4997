//! A walk through the life of clients and grants, each step read from four bytes, and each answer
//! held against the model. Whoever chooses the bytes, proptest or a fuzzer, chooses the walk.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use protocol::{
    oauth::grant::Grant,
    policy::Policy,
    ports::{Clock, Store, Timestamp},
    token::PresentedRefreshToken,
};
use serde_json::json;

use super::{
    Answer, TestServer,
    client::{Browser, McpClient, REDIRECT_URI, Tokens},
    model::{Operation, Scope, Target, Verdict, World},
    policy,
};

/// Waits that fall on either side of every deadline there is.
const WAITS: [u64; 22] = [
    0, 1, 2, 3, 10, 60, 119, 120, 121, 299, 300, 301, 599, 600, 3599, 3600, 3601, 86_399, 86_400,
    86_401, 2_592_000, 31_536_000,
];
/// What a client may hold in its hands at one time; older things are kept, since thieves do.
const MOST: usize = 24;
/// Worlds that may be possible at one time.
const MOST_WORLDS: usize = 512;

/// The server's answer was none that the rules allow.
#[derive(Debug)]
pub struct Disagreement(#[expect(unused, reason = "shown by `Debug`")] String);

struct Client {
    client_id: String,
    client_secret: Option<String>,
}

struct Authorization {
    client: usize,
    path: &'static str,
    browser: Browser,
    page: Answer,
    code: Option<String>,
}

/// The tokens of one answer.
struct Held {
    authorization: usize,
    generation: u32,
    access_until: i64,
    tokens: Tokens,
}

/// What goes wrong during the next request.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    /// The store fails or loses an answer somewhere on the way.
    Store,
    /// The process dies after its answer is made, or while it asks the store.
    Crash,
    CrashAtStore,
}

/// The server, the people and programs that use it, and every world that fits what they saw.
struct Walk {
    server: TestServer,
    policy: fn() -> Policy,
    worlds: Vec<World>,
    clients: Vec<Client>,
    authorizations: Vec<Authorization>,
    held: Vec<Held>,
    /// Each refresh token that was ever seen, by what it is.
    refresh_tokens: BTreeMap<(usize, u32), String>,
    trouble: Trouble,
    backup: Option<Backup>,
}

/// A copy of the stored grants, and every world that it may be of.
struct Backup {
    grants: Vec<(String, Bytes)>,
    worlds: Vec<World>,
}

/// The policy that the model speaks of: two upstreams, everything else as it comes.
pub fn usual() -> Policy {
    policy(&[("a", "/mcp/a"), ("b", "/mcp/b")])
}

/// Walks the way that `bytes` describe.
pub async fn walk(bytes: &[u8], policy: fn() -> Policy) -> Result<(), Disagreement> {
    let mut walk = Walk {
        server: TestServer::with(policy()),
        policy,
        worlds: vec![World::default()],
        clients: Vec::new(),
        authorizations: Vec::new(),
        held: Vec::new(),
        refresh_tokens: BTreeMap::new(),
        trouble: Trouble::None,
        backup: None,
    };
    // Nothing is possible before this, so no bytes are spent on it.
    walk.register(0).await?;
    walk.authorize(0, 0).await?;
    walk.approve(0).await?;
    walk.redeem(0, 1, 1).await?;
    for step in bytes.chunks_exact(4) {
        walk.step([step[0], step[1], step[2], step[3]]).await?;
    }
    Ok(())
}

impl Walk {
    async fn step(&mut self, [kind, a, b, c]: [u8; 4]) -> Result<(), Disagreement> {
        match kind % 32 {
            0 => self.register(a).await,
            1 | 2 => self.authorize(a, b).await,
            3 | 4 => self.approve(a).await,
            5 => self.deny(a).await,
            6..=8 => self.redeem(a, b, c).await,
            9..=15 => self.refresh(a, b, c).await,
            16 => self.forge(a, b).await,
            17 => self.revoke(a, b, c).await,
            18..=21 => self.call(a, b).await,
            22..=26 => {
                let wait = WAITS[usize::from(a) % WAITS.len()];
                self.server.clock.advance(Duration::from_secs(wait));
                Ok(())
            }
            27 => {
                self.restart();
                Ok(())
            }
            28 => {
                let nth = u64::from(a % 6) + 1;
                self.end_trouble();
                if b.is_multiple_of(2) {
                    self.server.store.fail_nth(nth);
                } else {
                    self.server.store.lose_nth(nth);
                }
                self.trouble = Trouble::Store;
                Ok(())
            }
            29 => {
                let nth = u64::from(a % 6);
                self.end_trouble();
                self.server.store.fail_nth(nth);
                self.trouble = if nth == 0 {
                    Trouble::Crash
                } else {
                    Trouble::CrashAtStore
                };
                Ok(())
            }
            30 => {
                let now = self.now();
                self.server.store.memory.sweep(Timestamp(now));
                for world in &mut self.worlds {
                    world.sweep(now);
                }
                Ok(())
            }
            _ => {
                self.lose_writes(a).await;
                Ok(())
            }
        }
    }

    fn end_trouble(&mut self) -> Trouble {
        self.server.store.fail_nth(0);
        self.server.store.lose_nth(0);
        std::mem::replace(&mut self.trouble, Trouble::None)
    }

    fn now(&self) -> i64 {
        self.server.clock.now().0
    }

    fn restart(&mut self) {
        self.server = self.server.another((self.policy)());
        for world in &mut self.worlds {
            world.restart();
        }
    }

    /// Keeps a copy of the grants, or puts the copy back over those that are there.
    async fn lose_writes(&mut self, a: u8) {
        let store = &self.server.store.memory;
        if a.is_multiple_of(2) {
            let mut grants = store.dump();
            grants.retain(|(key, _)| key.starts_with("grant/"));
            self.backup = Some(Backup {
                grants,
                worlds: self.worlds.clone(),
            });
            return;
        }
        let Some(Backup { grants, worlds }) = self.backup.take() else {
            return;
        };
        // Which of several worlds was copied is not known any more.
        let [earlier] = &worlds[..] else { return };
        for (key, value) in grants {
            if store.remove(&key).await.unwrap() {
                let grant: Grant = serde_json::from_slice(&value).unwrap();
                let until = grant.expires_at() + Duration::from_hours(1);
                assert!(store.insert(&key, value, until).await.unwrap());
            }
        }
        for world in &mut self.worlds {
            world.lose_writes_since(earlier);
        }
        self.restart();
    }

    /// The client that `index` means, as the running process sees it.
    fn client(&self, index: usize, path: &str) -> McpClient {
        let client = &self.clients[index];
        McpClient {
            server: self.server.clone(),
            client_id: client.client_id.clone(),
            client_secret: client.client_secret.clone(),
            signer: None,
            path: path.to_owned(),
            redirect_uri: REDIRECT_URI.to_owned(),
        }
    }

    /// Mostly the client that something belongs to, sometimes any.
    fn by(&self, owner: usize, choice: u8) -> usize {
        if choice.is_multiple_of(8) {
            usize::from(choice / 8) % self.clients.len()
        } else {
            owner
        }
    }

    /// Compares an answer with every world, and keeps those that it fits. `false`: the answer
    /// never came, or was no answer to what was asked.
    fn judge(
        &mut self,
        operation: Operation,
        answer: &Answer,
        seen: Option<Verdict>,
        now: i64,
    ) -> Result<bool, Disagreement> {
        let trouble = self.end_trouble();
        let crashed = matches!(trouble, Trouble::Crash | Trouble::CrashAtStore);
        let may_fail = matches!(trouble, Trouble::Store | Trouble::CrashAtStore);
        let mut fitting = Vec::new();
        let mut expected = Vec::new();
        for world in &self.worlds {
            let outcome = world.judge(operation, now);
            let fits = crashed || seen == Some(outcome.verdict);
            if fits && !(crashed && may_fail) {
                fitting.push(world.clone().after(&outcome));
            }
            // A call is served even though its use could not be written down.
            let is_call = matches!(operation, Operation::Call { .. });
            if may_fail && (crashed || seen.is_none() || fits && is_call) {
                fitting.extend(world.after_a_fault(&outcome));
            }
            expected.push(outcome.verdict);
        }
        if fitting.is_empty() {
            return Err(Disagreement(format!(
                "{operation:?} at {now}: expected one of {expected:?}, answered {seen:?}: {answer:#?}"
            )));
        }
        let mut worlds: Vec<World> = Vec::new();
        for world in fitting {
            if !worlds.contains(&world) {
                worlds.push(world);
            }
        }
        // So many unanswered requests that nothing can be told apart: what follows tells nothing.
        worlds.truncate(MOST_WORLDS);
        self.worlds = worlds;
        if crashed {
            self.restart();
        }
        Ok(!crashed && seen.is_some())
    }

    async fn register(&mut self, a: u8) -> Result<(), Disagreement> {
        if self.clients.len() >= MOST {
            return Ok(());
        }
        let method = if a.is_multiple_of(2) {
            "none"
        } else {
            "client_secret_post"
        };
        let now = self.now();
        let body = json!({
            "client_name": "Claude",
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": method,
        });
        let answer = self.server.post_json("/register", &body).await;
        let trouble = self.end_trouble();
        if matches!(trouble, Trouble::Crash | Trouble::CrashAtStore) {
            // A client that does not know its name is none.
            self.restart();
            return Ok(());
        }
        if transient(&answer) && trouble == Trouble::Store {
            return Ok(());
        }
        if answer.status != 201 {
            return Err(Disagreement(format!("not registered: {answer:#?}")));
        }
        let registered = answer.json();
        self.clients.push(Client {
            client_id: registered["client_id"].as_str().unwrap().to_owned(),
            client_secret: registered["client_secret"].as_str().map(str::to_owned),
        });
        for world in &mut self.worlds {
            world.register(now);
        }
        Ok(())
    }

    async fn authorize(&mut self, a: u8, b: u8) -> Result<(), Disagreement> {
        if self.authorizations.len() >= MOST {
            return Ok(());
        }
        let client = usize::from(a) % self.clients.len();
        let path = if b.is_multiple_of(2) {
            "/mcp/a"
        } else {
            "/mcp/b"
        };
        let (scope, text) = if b & 2 == 0 {
            (Scope::Mcp, "mcp")
        } else {
            (Scope::McpAndOffline, "mcp offline_access")
        };
        let now = self.now();
        let actor = self.client(client, path);
        let query = actor.authorization_with(&[("scope", Some(text))]);
        let (browser, page) = actor.opens(&query).await;
        let seen = match page.status.as_u16() {
            200 => Some(Verdict::Asked),
            _ => notice(&page),
        };
        if self.judge(Operation::Authorize { client }, &page, seen, now)?
            && seen == Some(Verdict::Asked)
        {
            for world in &mut self.worlds {
                world.ask(client, scope, now);
            }
            self.authorizations.push(Authorization {
                client,
                path,
                browser,
                page,
                code: None,
            });
        }
        Ok(())
    }

    async fn approve(&mut self, a: u8) -> Result<(), Disagreement> {
        self.decide(a, true).await
    }

    async fn deny(&mut self, a: u8) -> Result<(), Disagreement> {
        self.decide(a, false).await
    }

    async fn decide(&mut self, a: u8, approves: bool) -> Result<(), Disagreement> {
        let Some(authorization) = recent(a, self.authorizations.len()) else {
            return Ok(());
        };
        let now = self.now();
        let asked = &self.authorizations[authorization];
        let (mut browser, page) = (asked.browser.clone(), asked.page.clone());
        let (operation, answer) = if approves {
            let answer = browser
                .approve(&self.server, &page, super::PASSPHRASE)
                .await;
            (Operation::Approve { authorization }, answer)
        } else {
            let answer = browser.deny(&self.server, &page).await;
            (Operation::Deny { authorization }, answer)
        };
        // Strangers may write few denials, which has tests of its own: then nothing was decided.
        if answer.status == 429 && matches!(operation, Operation::Deny { .. }) {
            return Ok(());
        }
        let redirect = (answer.status == 303).then(|| answer.redirect());
        let seen = match &redirect {
            Some(redirect) if redirect.has("code") => Some(Verdict::Code),
            Some(_) => Some(Verdict::AccessDenied),
            None => notice(&answer),
        };
        if self.judge(operation, &answer, seen, now)?
            && let Some(redirect) = redirect.filter(|redirect| redirect.has("code"))
        {
            let code = redirect.parameter("code").to_owned();
            let known = &mut self.authorizations[authorization].code;
            if known.as_ref().is_some_and(|known| *known != code) {
                return Err(Disagreement("one page gave two codes".into()));
            }
            *known = Some(code);
        }
        Ok(())
    }

    async fn redeem(&mut self, a: u8, b: u8, c: u8) -> Result<(), Disagreement> {
        let Some(authorization) = recent(a, self.authorizations.len()) else {
            return Ok(());
        };
        let redeemed = &self.authorizations[authorization];
        let Some(code) = &redeemed.code else {
            return Ok(());
        };
        let by = self.by(redeemed.client, b);
        let mut code = code.clone();
        let mut changes = Vec::new();
        // Only one in a while is wrong.
        match c {
            0 => changes.push((
                "code_verifier",
                Some("x3VVgTB0rTzTnVjgWR7b8kq1GhhsdUQ1b0bB6e-8x9w"),
            )),
            4 => changes.push(("redirect_uri", Some("https://claude.ai/other"))),
            8 => code.replace_range(9..10, if &code[9..10] == "A" { "B" } else { "A" }),
            12 => changes.push(("resource", Some("https://gw.example/mcp/c"))),
            16 => changes.push(("redirect_uri", None)),
            20 => changes.push(("resource", None)),
            _ => {}
        }
        let is_right = !matches!(c, 0 | 4 | 8 | 12);
        let now = self.now();
        let actor = self.client(by, redeemed.path);
        let answer = actor.redeem_with(&code, &changes).await;
        let seen = token_verdict(&answer, now).map(|seen| match seen {
            // What it names is not here, which the model does not tell from other mistakes.
            Verdict::InvalidTarget if c == 12 => Verdict::InvalidGrant,
            seen => seen,
        });
        let operation = Operation::Redeem {
            authorization,
            by,
            is_right,
        };
        if self.judge(operation, &answer, seen, now)? {
            self.hold(authorization, seen, &answer)?;
        }
        Ok(())
    }

    async fn refresh(&mut self, a: u8, b: u8, c: u8) -> Result<(), Disagreement> {
        let Some(held) = recent(a, self.held.len()).map(|index| &self.held[index]) else {
            return Ok(());
        };
        let authorization = held.authorization;
        let asked = &self.authorizations[authorization];
        let by = self.by(asked.client, b);
        let actor = self.client(by, asked.path);
        let scope = match c % 8 {
            1 => Some(Scope::Mcp),
            2 => Some(Scope::McpAndOffline),
            _ => None,
        };
        let target = match c / 8 {
            1 => Some(Target::Own),
            2 => Some(Target::Other),
            3 => Some(Target::Unknown),
            _ => None,
        };
        let resource = target.map(|target| match target {
            Target::Own => actor.resource(),
            Target::Other if asked.path == "/mcp/a" => actor.at("/mcp/b").resource(),
            Target::Other => actor.at("/mcp/a").resource(),
            Target::Unknown => actor.at("/mcp/c").resource(),
        });
        let mut fields = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", held.tokens.refresh_token.as_str()),
        ];
        fields.extend(scope.map(|scope| match scope {
            Scope::Mcp => ("scope", "mcp"),
            Scope::McpAndOffline => ("scope", "mcp offline_access"),
        }));
        fields.extend(resource.as_deref().map(|resource| ("resource", resource)));
        let now = self.now();
        let answer = actor.token(&fields).await;
        let seen = token_verdict(&answer, now);
        let operation = Operation::Refresh {
            authorization,
            generation: held.generation,
            by,
            scope,
            target,
        };
        if self.judge(operation, &answer, seen, now)? {
            self.hold(authorization, seen, &answer)?;
        }
        Ok(())
    }

    /// A token with one character changed, or with the access token's content.
    async fn forge(&mut self, a: u8, b: u8) -> Result<(), Disagreement> {
        let Some(held) = recent(a, self.held.len()).map(|index| &self.held[index]) else {
            return Ok(());
        };
        let asked = &self.authorizations[held.authorization];
        let by = asked.client;
        let mut text = held.tokens.refresh_token.clone();
        if b == 0 {
            text = held.tokens.access_token.replace("mopa_", "mopr_");
        } else {
            // The last character holds bits that mean nothing, and is tested on its own.
            let at = 5 + usize::from(b) % (text.len() - 6);
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            text.replace_range(at..=at, other);
        }
        let now = self.now();
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", text.as_str()),
        ];
        let answer = self.client(by, asked.path).token(&fields).await;
        let seen = token_verdict(&answer, now);
        self.judge(Operation::Forge { by }, &answer, seen, now)?;
        Ok(())
    }

    async fn revoke(&mut self, a: u8, b: u8, c: u8) -> Result<(), Disagreement> {
        let Some(held) = recent(a, self.held.len()).map(|index| &self.held[index]) else {
            return Ok(());
        };
        let authorization = held.authorization;
        let asked = &self.authorizations[authorization];
        let by = self.by(asked.client, b);
        let token = if c.is_multiple_of(2) {
            &held.tokens.refresh_token
        } else {
            &held.tokens.access_token
        };
        let now = self.now();
        let answer = self.client(by, asked.path).revoke(token).await;
        let seen = match answer.status.as_u16() {
            200 => Some(Verdict::Done),
            _ => token_verdict(&answer, now),
        };
        let operation = Operation::Revoke { authorization, by };
        self.judge(operation, &answer, seen, now)?;
        Ok(())
    }

    async fn call(&mut self, a: u8, b: u8) -> Result<(), Disagreement> {
        let Some(held) = recent(a, self.held.len()).map(|index| &self.held[index]) else {
            return Ok(());
        };
        let asked = &self.authorizations[held.authorization];
        let is_own = !b.is_multiple_of(8);
        let path = match (asked.path, is_own) {
            (path, true) => path,
            ("/mcp/a", false) => "/mcp/b",
            _ => "/mcp/a",
        };
        let operation = Operation::Call {
            authorization: held.authorization,
            generation: held.generation,
            until: held.access_until,
            is_own,
        };
        let now = self.now();
        let actor = self.client(asked.client, path);
        let before = self.server.upstream.received().len();
        let answer = actor.call(&held.tokens).await;
        // As the host does, a little later.
        self.server.app.write_uses().await;
        let reached = self.server.upstream.received().len() - before;
        let seen = match answer.status.as_u16() {
            200 => Some(Verdict::Forwarded),
            401 if answer.headers.contains_key("www-authenticate") => Some(Verdict::Challenged),
            _ => None.filter(|_: &Verdict| transient(&answer)),
        };
        if reached != usize::from(answer.status == 200) {
            return Err(Disagreement(format!(
                "{reached} calls went on: {answer:#?}"
            )));
        }
        self.judge(operation, &answer, seen, now)?;
        Ok(())
    }

    /// Takes the tokens of an answer, if there are any: one text for one generation, for ever.
    fn hold(
        &mut self,
        authorization: usize,
        seen: Option<Verdict>,
        answer: &Answer,
    ) -> Result<(), Disagreement> {
        let Some(Verdict::Tokens {
            generation,
            access_until,
        }) = seen
        else {
            return Ok(());
        };
        let tokens = Tokens::of(answer);
        let text = self
            .refresh_tokens
            .entry((authorization, generation))
            .or_insert_with(|| tokens.refresh_token.clone());
        if *text != tokens.refresh_token {
            return Err(Disagreement(format!(
                "two tokens of generation {generation}"
            )));
        }
        let texts: std::collections::BTreeSet<_> = self.refresh_tokens.values().collect();
        if texts.len() != self.refresh_tokens.len() {
            return Err(Disagreement("one token for two generations".into()));
        }
        self.held.push(Held {
            authorization,
            generation,
            access_until,
            tokens,
        });
        Ok(())
    }
}

/// One of `count` things, the newest for small numbers.
fn recent(choice: u8, count: usize) -> Option<usize> {
    (count > 0).then(|| count - 1 - usize::from(choice) % count)
}

/// Whether the answer says that it is for now only, in the way that it must.
fn transient(answer: &Answer) -> bool {
    answer.status == 503 && answer.headers.contains_key("retry-after")
}

/// A page that ends here; `None` for a fault that passes.
fn notice(answer: &Answer) -> Option<Verdict> {
    assert!(
        answer.status.is_client_error() || transient(answer),
        "{answer:#?}"
    );
    answer.status.is_client_error().then_some(Verdict::Notice)
}

/// What the token endpoint says; `None` for a fault that passes.
fn token_verdict(answer: &Answer, now: i64) -> Option<Verdict> {
    let json = answer.json();
    if answer.status == 200 {
        let refresh_token = json["refresh_token"].as_str().unwrap();
        let lifetime = json["expires_in"].as_i64().unwrap();
        return Some(Verdict::Tokens {
            generation: PresentedRefreshToken::parse(refresh_token)
                .unwrap()
                .generation,
            access_until: now + lifetime,
        });
    }
    if transient(answer) {
        return None;
    }
    Some(match (answer.status.as_u16(), json["error"].as_str()) {
        (401, Some("invalid_client")) => Verdict::InvalidClient,
        (400, Some("invalid_grant")) => Verdict::InvalidGrant,
        (400, Some("invalid_scope")) => Verdict::InvalidScope,
        (400, Some("invalid_target")) => Verdict::InvalidTarget,
        _ => panic!("an answer that no rule gives: {answer:#?}"),
    })
}
