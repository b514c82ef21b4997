//! What codes and refresh tokens are supposed to do, written from the rules and not from the code:
//! the refresh policy (RFC 9700 §4.14.2, and what real clients need beside it) and what a code is
//! good for (RFC 6749 §4.1.2). It knows no bytes, no store and no HTTP.

use std::collections::BTreeSet;

/// Seconds.
type Time = i64;

const HOUR: Time = 3600;
const DAY: Time = 24 * HOUR;
/// How long a registration lasts that nothing was approved for.
const UNUSED_CLIENT: Time = DAY;
const PAGE_LIFETIME: Time = 600;
const CODE_LIFETIME: Time = 300;
/// A second redemption within this time is the network's doing, and no theft.
const TRANSPORT_DUPLICATE: Time = 2;
const ACCESS_LIFETIME: Time = HOUR;
const IDLE: Time = 30 * DAY;
const ABSOLUTE: Time = 365 * DAY;
/// W of the refresh policy.
const WINDOW: Time = 120;
const LOST_ANSWER: Time = DAY;
/// How long records outlive their use.
const MEMORY: Time = HOUR;

/// Everything that is true at one moment. What is written down may lag behind what happened when
/// the store is in trouble, so there may be several worlds that fit all answers so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Until when each client is known.
    clients: Vec<Time>,
    authorizations: Vec<Authorization>,
    /// Uses of access tokens, by authorization and generation, that the running process has
    /// written down or tried to: it tries once.
    noted: BTreeSet<(usize, u32)>,
}

/// One authorization request that a person was asked about, its code and its grant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Authorization {
    client: usize,
    scope: Scope,
    page_until: Time,
    decision: Option<Decision>,
    grant: Option<Grant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Approved { code_until: Time },
    Denied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    created_at: Time,
    generation: u32,
    rotated_at: Time,
    /// Whether the request that rotated last asked for less than was granted.
    asked_for_less: bool,
    access_used: bool,
    idle_until: Time,
    absolute_until: Time,
    revoked: bool,
}

/// What was granted, or is asked for in a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Mcp,
    McpAndOffline,
}

/// The resource that a refresh names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Own,
    Other,
    Unknown,
}

/// A request, in terms of the rules.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Authorize {
        client: usize,
    },
    Approve {
        authorization: usize,
    },
    Deny {
        authorization: usize,
    },
    Redeem {
        authorization: usize,
        by: usize,
        /// Whether verifier, `redirect_uri` and the code's own text are what they must be.
        is_right: bool,
    },
    Refresh {
        authorization: usize,
        generation: u32,
        by: usize,
        scope: Option<Scope>,
        target: Option<Target>,
    },
    /// A refresh with a token that nobody issued.
    Forge {
        by: usize,
    },
    Revoke {
        authorization: usize,
        by: usize,
    },
    Call {
        authorization: usize,
        generation: u32,
        until: Time,
        /// Whether it goes to the resource that the token is for.
        is_own: bool,
    },
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The page that asks a person.
    Asked,
    Code,
    AccessDenied,
    /// A page that ends here.
    Notice,
    Tokens {
        generation: u32,
        access_until: Time,
    },
    Done,
    Forwarded,
    /// 401 with a challenge.
    Challenged,
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    InvalidTarget,
}

/// One durable change. The changes of a request happen in order, and a fault comes between any two.
#[derive(Clone, Copy, Debug)]
enum Change {
    KeepClient { client: usize, until: Time },
    Decide(usize, Decision),
    Grant(usize, Grant),
}

/// What the rules say to a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    changes: Vec<Change>,
    noted: Option<(usize, u32)>,
}

impl Outcome {
    fn unchanged(verdict: Verdict) -> Self {
        Self {
            verdict,
            changes: Vec::new(),
            noted: None,
        }
    }

    fn with(verdict: Verdict, changes: impl IntoIterator<Item = Change>) -> Self {
        Self {
            changes: changes.into_iter().collect(),
            ..Self::unchanged(verdict)
        }
    }
}

impl Grant {
    fn until(&self) -> Time {
        self.idle_until.min(self.absolute_until)
    }

    fn is_live(&self, now: Time) -> bool {
        !self.revoked && now < self.until()
    }

    fn tokens(&self, now: Time) -> Verdict {
        Verdict::Tokens {
            generation: self.generation,
            access_until: (now + ACCESS_LIFETIME).min(self.absolute_until),
        }
    }
}

impl World {
    pub fn register(&mut self, now: Time) {
        self.clients.push(now + UNUSED_CLIENT);
    }

    /// A person is asked; nothing is written down for it.
    pub fn ask(&mut self, client: usize, scope: Scope, now: Time) {
        self.authorizations.push(Authorization {
            client,
            scope,
            page_until: now + PAGE_LIFETIME,
            decision: None,
            grant: None,
        });
    }

    /// The process ends and another begins.
    pub fn restart(&mut self) {
        self.noted.clear();
    }

    /// The store gives up what it need not keep any longer.
    pub fn sweep(&mut self, now: Time) {
        for authorization in &mut self.authorizations {
            authorization
                .grant
                .take_if(|grant| grant.until() + MEMORY <= now);
        }
    }

    /// Goes back to what the grants of `earlier` were, as a store that lost writes does. Grants
    /// that are newer stay.
    pub fn lose_writes_since(&mut self, earlier: &Self) {
        for (now, then) in self.authorizations.iter_mut().zip(&earlier.authorizations) {
            if now.grant.is_some() && then.grant.is_some() {
                now.grant = then.grant;
            }
        }
    }

    /// The world after all that a request brings about.
    pub fn after(mut self, outcome: &Outcome) -> Self {
        self.noted.extend(outcome.noted);
        for change in &outcome.changes {
            self.change(*change);
        }
        self
    }

    /// Every world that a request may leave behind that met a fault, or died on its way.
    pub fn after_a_fault(&self, outcome: &Outcome) -> Vec<Self> {
        let mut worlds = vec![self.clone()];
        for change in &outcome.changes {
            let mut next = worlds[worlds.len() - 1].clone();
            next.change(*change);
            worlds.push(next);
        }
        // A process that is not sure of a grant any more looks again, and then notes its use again;
        // one that could not write a use down does not try twice.
        let unsure: Vec<Self> = worlds
            .iter()
            .map(|world| Self {
                noted: BTreeSet::new(),
                ..world.clone()
            })
            .collect();
        let tried: Vec<Self> = worlds
            .iter()
            .map(|world| {
                let mut world = world.clone();
                world.noted.extend(outcome.noted);
                world
            })
            .collect();
        worlds.extend(unsure);
        worlds.extend(tried);
        worlds
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::KeepClient { client, until } => self.clients[client] = until,
            Change::Decide(authorization, decision) => {
                self.authorizations[authorization].decision = Some(decision);
            }
            Change::Grant(authorization, grant) => {
                self.authorizations[authorization].grant = Some(grant);
            }
        }
    }

    /// What the rules say.
    pub fn judge(&self, operation: Operation, now: Time) -> Outcome {
        match operation {
            Operation::Authorize { client } => Outcome::unchanged(if self.knows(client, now) {
                Verdict::Asked
            } else {
                Verdict::Notice
            }),
            Operation::Approve { authorization } => self.approve(authorization, now),
            Operation::Deny { authorization } => self.deny(authorization, now),
            Operation::Redeem { by, .. }
            | Operation::Refresh { by, .. }
            | Operation::Forge { by }
            | Operation::Revoke { by, .. }
                if !self.knows(by, now) =>
            {
                Outcome::unchanged(Verdict::InvalidClient)
            }
            Operation::Redeem {
                authorization,
                by,
                is_right,
            } => self.redeem(authorization, by, is_right, now),
            Operation::Refresh {
                authorization,
                generation,
                by,
                scope,
                target,
            } => self.refresh(authorization, generation, by, (scope, target), now),
            Operation::Forge { .. } => Outcome::unchanged(Verdict::InvalidGrant),
            Operation::Revoke { authorization, by } => Outcome::with(
                Verdict::Done,
                (self.authorizations[authorization].client == by)
                    .then(|| self.revocation(authorization))
                    .flatten(),
            ),
            Operation::Call {
                authorization,
                generation,
                until,
                is_own,
            } => self.call(authorization, generation, until, is_own, now),
        }
    }

    fn knows(&self, client: usize, now: Time) -> bool {
        now < self.clients[client]
    }

    fn approve(&self, index: usize, now: Time) -> Outcome {
        let authorization = &self.authorizations[index];
        if now >= authorization.page_until || !self.knows(authorization.client, now) {
            return Outcome::unchanged(Verdict::Notice);
        }
        match authorization.decision {
            None => {
                let code_until = now + CODE_LIFETIME;
                let approved = Decision::Approved { code_until };
                Outcome::with(Verdict::Code, [Change::Decide(index, approved)])
            }
            Some(Decision::Approved { code_until }) if now < code_until => {
                Outcome::unchanged(Verdict::Code)
            }
            Some(_) => Outcome::unchanged(Verdict::Notice),
        }
    }

    fn deny(&self, index: usize, now: Time) -> Outcome {
        let authorization = &self.authorizations[index];
        if now >= authorization.page_until || !self.knows(authorization.client, now) {
            return Outcome::unchanged(Verdict::Notice);
        }
        match authorization.decision {
            None => Outcome::with(
                Verdict::AccessDenied,
                [Change::Decide(index, Decision::Denied)],
            ),
            Some(Decision::Denied) => Outcome::unchanged(Verdict::AccessDenied),
            Some(Decision::Approved { .. }) => Outcome::unchanged(Verdict::Notice),
        }
    }

    /// Everything is checked before anything is spent; a code succeeds exactly once, and who comes
    /// second with all that it takes ends what it gave.
    fn redeem(&self, index: usize, by: usize, is_right: bool, now: Time) -> Outcome {
        let authorization = &self.authorizations[index];
        let refused = Outcome::unchanged(Verdict::InvalidGrant);
        let Some(Decision::Approved { code_until }) = authorization.decision else {
            return refused;
        };
        if by != authorization.client || now >= code_until || !is_right {
            return refused;
        }
        let grant = Grant {
            created_at: now,
            generation: 1,
            rotated_at: now,
            asked_for_less: false,
            access_used: false,
            idle_until: now + IDLE,
            absolute_until: now + ABSOLUTE,
            revoked: false,
        };
        let kept = self.keep(by, &grant);
        match authorization.grant {
            None => {
                let changes = kept.into_iter().chain([Change::Grant(index, grant)]);
                Outcome::with(grant.tokens(now), changes)
            }
            Some(first) => {
                let is_theft = now - first.created_at > TRANSPORT_DUPLICATE;
                let ended = is_theft.then(|| self.revocation(index)).flatten();
                Outcome::with(Verdict::InvalidGrant, kept.into_iter().chain(ended))
            }
        }
    }

    /// Rules 1 to 9, by their numbers.
    fn refresh(
        &self,
        index: usize,
        generation: u32,
        by: usize,
        (scope, target): (Option<Scope>, Option<Target>),
        now: Time,
    ) -> Outcome {
        let authorization = &self.authorizations[index];
        let refused = Outcome::unchanged;
        if target == Some(Target::Unknown) {
            return refused(Verdict::InvalidTarget);
        }
        let Some(grant) = authorization.grant else {
            return refused(Verdict::InvalidGrant);
        };
        // 2.
        if by != authorization.client {
            return refused(Verdict::InvalidGrant);
        }
        if authorization.scope == Scope::Mcp && scope == Some(Scope::McpAndOffline) {
            return refused(Verdict::InvalidScope);
        }
        if target == Some(Target::Other) {
            return refused(Verdict::InvalidTarget);
        }
        // 3.
        if !grant.is_live(now) {
            return refused(Verdict::InvalidGrant);
        }
        let asks_for_less =
            authorization.scope == Scope::McpAndOffline && scope == Some(Scope::Mcp);
        // 4 and 9.
        if generation >= grant.generation {
            let rotated = Grant {
                generation: generation + 1,
                rotated_at: now,
                asked_for_less: asks_for_less,
                access_used: false,
                idle_until: now + IDLE,
                ..grant
            };
            let kept = self.keep(by, &rotated);
            let changes = kept.into_iter().chain([Change::Grant(index, rotated)]);
            return Outcome::with(rotated.tokens(now), changes);
        }
        let age = now - grant.rotated_at;
        let is_predecessor = generation + 1 == grant.generation;
        let in_window = age <= WINDOW;
        let is_lost = !grant.access_used && age <= LOST_ANSWER;
        if is_predecessor && (in_window || is_lost) {
            // 5 and 6, for who asks the same as the first time.
            return refused(if asks_for_less == grant.asked_for_less {
                grant.tokens(now)
            } else {
                Verdict::InvalidGrant
            });
        }
        // 7 and 8.
        Outcome::with(Verdict::InvalidGrant, self.revocation(index))
    }

    fn call(&self, index: usize, generation: u32, until: Time, is_own: bool, now: Time) -> Outcome {
        let live = self.authorizations[index]
            .grant
            .filter(|grant| is_own && now < until && grant.is_live(now));
        let Some(grant) = live else {
            return Outcome::unchanged(Verdict::Challenged);
        };
        let is_news = generation == grant.generation && !self.noted.contains(&(index, generation));
        let used = Grant {
            access_used: true,
            ..grant
        };
        Outcome {
            verdict: Verdict::Forwarded,
            changes: (is_news && !grant.access_used)
                .then_some(Change::Grant(index, used))
                .into_iter()
                .collect(),
            noted: is_news.then_some((index, generation)),
        }
    }

    /// A registration is kept as long as its newest grant, and one idle time longer when that has
    /// to be written anyway.
    fn keep(&self, client: usize, grant: &Grant) -> Option<Change> {
        (self.clients[client] < grant.until()).then(|| Change::KeepClient {
            client,
            until: grant.until() + IDLE,
        })
    }

    fn revocation(&self, index: usize) -> Option<Change> {
        let grant = self.authorizations[index].grant?;
        (!grant.revoked).then_some(Change::Grant(
            index,
            Grant {
                revoked: true,
                ..grant
            },
        ))
    }
}
