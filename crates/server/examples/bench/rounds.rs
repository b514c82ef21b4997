//! The order of measuring: round by round, every target in each, their order turning, so that a
//! machine which is busy for a while is busy for all of them.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::{
    figures::{CallFigure, Figures, MemoryFigure, OAuthFigure, Pace, Target, Workload},
    load::{Caller, Connection, Sample, Worker, closed_loop, fixed_rate, open_streams},
    machine::Pinning,
    oauth::{NewClients, Refresher, Session, Site, sign_in_sessions},
    processes::{Process, Tokens, start_nginx, start_proxy},
    report::progress,
};

/// How long a phase may take beyond what it is meant to.
const GRACE: Duration = Duration::from_secs(15);
/// How many calls a second count as modest.
pub(crate) const MODEST_RATE: u32 = 500;
const MODEST_CONNECTIONS: usize = 16;
/// How many people connect new clients at the same time.
pub(crate) const PEOPLE: usize = 4;

/// How much is measured.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) streams: u32,
    pub(crate) sessions: u32,
    warm_up: Duration,
    calls: Duration,
    oauth: Duration,
    /// How long memory gets to settle.
    settle: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        streams: 1000,
        sessions: 64,
        warm_up: Duration::from_millis(200),
        calls: Duration::from_secs(1),
        oauth: Duration::from_secs(2),
        settle: Duration::from_secs(1),
    };

    /// Only shows that everything works.
    pub(crate) const QUICK: Self = Self {
        rounds: 1,
        streams: 50,
        sessions: 8,
        warm_up: Duration::from_millis(50),
        calls: Duration::from_millis(300),
        oauth: Duration::from_millis(500),
        settle: Duration::from_millis(200),
    };

    /// How many files the proxy needs open for its streams, with some to spare.
    pub(crate) fn files(&self) -> u32 {
        2 * self.streams + 1000
    }
}

/// The programs, and what they all know.
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) pinning: Pinning,
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) proxy: PathBuf,
    pub(crate) upstream: SocketAddr,
    pub(crate) upstream_key: String,
}

/// A target that is up and lets its clients in.
struct Running {
    target: Target,
    address: SocketAddr,
    process: Option<Process>,
    /// Resident memory before the first request, in KiB.
    idle: f64,
    /// What clients present.
    tokens: Vec<String>,
    /// The proxy's own side of OAuth.
    site: Option<Arc<Site>>,
    sessions: Vec<Session>,
}

impl Bench {
    pub(crate) async fn measure(&self) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        let mut targets = vec![Target::Direct, Target::Proxy];
        if self.nginx.is_some() {
            targets.insert(1, Target::Nginx);
        }
        let mut running = Vec::new();
        for target in targets {
            running.push(self.start(target).await?);
        }
        for round in 1..=self.plan.rounds {
            for workload in Workload::ALL {
                for one in &running {
                    let measured = self.measure_calls(workload, one, &mut figures).await;
                    measured.with_context(|| one.last_words())?;
                }
            }
            for one in &mut running {
                let measured = self.measure_oauth(one, &mut figures).await;
                measured.with_context(|| one.last_words())?;
            }
            for target in running.iter().map(|one| one.target) {
                if target != Target::Direct {
                    let fresh = self.start(target).await?;
                    let measured = self.measure_streams(&fresh, &mut figures).await;
                    measured.with_context(|| fresh.last_words())?;
                }
            }
            running.rotate_left(1);
            progress(&format!("round {round} of {} is done", self.plan.rounds));
        }
        Ok(figures)
    }

    /// Starts a target, lets its clients in, and makes sure that it keeps others out.
    async fn start(&self, target: Target) -> anyhow::Result<Running> {
        let secret = Tokens::default().next();
        let process = match target {
            Target::Direct => None,
            Target::Nginx => {
                let program = self.nginx.as_deref().context("nginx is not installed")?;
                let key = &self.upstream_key;
                let upstream = self.upstream;
                Some(start_nginx(program, &self.pinning, upstream, key, &secret)?)
            }
            Target::Proxy => {
                let key = &self.upstream_key;
                let upstream = self.upstream;
                Some(start_proxy(
                    &self.proxy,
                    &self.pinning,
                    upstream,
                    key,
                    &secret,
                )?)
            }
        };
        let mut running = Running {
            target,
            address: process.as_ref().map_or(self.upstream, |one| one.address),
            process,
            idle: 0.0,
            tokens: vec![secret],
            site: None,
            sessions: Vec::new(),
        };
        let prepared = self.let_clients_in(&mut running).await;
        prepared.with_context(|| running.last_words())?;
        Ok(running)
    }

    async fn let_clients_in(&self, running: &mut Running) -> anyhow::Result<()> {
        sleep(self.plan.settle).await;
        running.idle = running.resident_kib()?;
        match running.target {
            Target::Direct => running.tokens = vec![self.upstream_key.clone()],
            Target::Nginx => {}
            Target::Proxy => {
                let site = Arc::new(Site::new(running.address, &running.tokens[0]));
                running.sessions = sign_in_sessions(&site, self.plan.sessions).await?;
                running.tokens = running
                    .sessions
                    .iter()
                    .map(|session| session.access_token.clone())
                    .collect();
                running.site = Some(site);
            }
        }
        let stranger = call_request(
            running.address,
            "stranger",
            &Workload::OneConnection.exchange().0,
        );
        let answer = Connection::open(running.address)
            .await?
            .call(&stranger)
            .await?;
        ensure!(
            answer.status == 401,
            "a wrong token was answered with status {} instead of 401",
            answer.status
        );
        Ok(())
    }

    async fn measure_calls(
        &self,
        workload: Workload,
        running: &Running,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let phase = format!("{}, {}", running.target.title(), workload.title());
        let callers = running.callers(workload, workload.connections()).await?;
        let callers = self.warm_up(&phase, callers, figures).await?;
        let (_, pace) = running
            .pace(&phase, callers, self.plan.calls, figures)
            .await?;
        figures.calls.push(CallFigure {
            workload,
            target: running.target,
            pace,
        });
        Ok(())
    }

    /// Opens every connection on the way to the upstream, which must not count as a slow call.
    async fn warm_up(
        &self,
        phase: &str,
        callers: Vec<Caller>,
        figures: &mut Figures,
    ) -> anyhow::Result<Vec<Caller>> {
        let time = self.plan.warm_up;
        let (callers, sample) = bounded(phase, time, closed_loop(callers, time)).await?;
        figures.note_errors(phase, &sample);
        Ok(callers)
    }

    /// Refreshes, new clients, and calls at a modest rate alone and beside refreshes.
    async fn measure_oauth(
        &self,
        running: &mut Running,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let Some(site) = running.site.clone() else {
            return Ok(());
        };
        let time = self.plan.oauth;
        let mut people = Vec::new();
        for _ in 0..PEOPLE {
            people.push(NewClients::new(Arc::clone(&site)).await?);
        }
        let (_, new_clients) = running.pace("new clients", people, time, figures).await?;

        let mut refreshers = Vec::new();
        for session in running.sessions.drain(..) {
            refreshers.push(Refresher::new(Arc::clone(&site), session).await?);
        }
        let (refreshers, rotation) = running.pace("refreshes", refreshers, time, figures).await?;

        let callers = running
            .callers(Workload::OneConnection, MODEST_CONNECTIONS)
            .await?;
        let callers = self.warm_up("calls alone", callers, figures).await?;
        let alone = fixed_rate(callers, MODEST_RATE, time);
        let (callers, alone) = bounded("calls alone", time, alone).await?;
        figures.note_errors("calls alone", &alone);

        let both = async {
            tokio::try_join!(
                fixed_rate(callers, MODEST_RATE, time),
                closed_loop(refreshers, time)
            )
        };
        let ((_, beside), (refreshers, background)) =
            bounded("calls beside refreshes", time, both).await?;
        figures.note_errors("calls beside refreshes", &beside);
        figures.note_errors("refreshes beside calls", &background);

        running.sessions = refreshers
            .into_iter()
            .map(Refresher::into_session)
            .collect();
        figures.oauth.push(OAuthFigure {
            refreshes: rotation,
            new_clients,
            calls_alone: Pace::of(&alone, None),
            calls_beside: Pace::of(&beside, None),
        });
        Ok(())
    }

    /// Memory of idle streams, in a process that has done nothing else.
    async fn measure_streams(
        &self,
        running: &Running,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let target = running.target;
        let callers = running.callers(Workload::OneConnection, 1).await?;
        let phase = format!("{}, before the streams", target.title());
        running
            .pace(&phase, callers, self.plan.warm_up, figures)
            .await?;
        let before_streams = running.resident_kib()?;

        let requests: Vec<Bytes> = running
            .tokens
            .iter()
            .map(|token| stream_request(running.address, token))
            .collect();
        let opening = open_streams(running.address, &requests, self.plan.streams);
        let phase = format!("{}, opening streams", target.title());
        let streams = bounded(&phase, Duration::ZERO, opening).await?;
        sleep(self.plan.settle).await;
        let with_streams = running.resident_kib()?;
        drop(streams);
        sleep(2 * self.plan.settle).await;
        figures.memory.push(MemoryFigure {
            target,
            streams: f64::from(self.plan.streams),
            idle: running.idle,
            before_streams,
            with_streams,
            after_streams: running.resident_kib()?,
        });
        Ok(())
    }
}

impl Running {
    /// What to say about the target when something has failed.
    fn last_words(&self) -> String {
        let output = self.process.as_ref().map(Process::output);
        format!(
            "{} failed; the end of what it wrote is {:?}",
            self.target.title(),
            output.unwrap_or_default()
        )
    }

    async fn callers(&self, workload: Workload, count: usize) -> anyhow::Result<Vec<Caller>> {
        let (body, answer_length) = workload.exchange();
        let mut callers = Vec::new();
        for token in self.tokens.iter().cycle().take(count) {
            let request = call_request(self.address, token, &body);
            callers.push(Caller::new(self.address, request, answer_length).await?);
        }
        Ok(callers)
    }

    /// Lets the workers do what they can for `time` and says how fast it went.
    async fn pace<W: Worker>(
        &self,
        phase: &str,
        workers: Vec<W>,
        time: Duration,
        figures: &mut Figures,
    ) -> anyhow::Result<(Vec<W>, Pace)> {
        let before = self.cpu_seconds()?;
        let (workers, sample): (_, Sample) =
            bounded(phase, time, closed_loop(workers, time)).await?;
        let cpu = self
            .cpu_seconds()?
            .zip(before)
            .map(|(after, before)| after - before);
        figures.note_errors(phase, &sample);
        ensure!(
            sample.count() > 0.0,
            "{phase}: nothing worked; first: {}",
            sample.first_error.unwrap_or_default()
        );
        Ok((workers, Pace::of(&sample, cpu)))
    }

    fn cpu_seconds(&self) -> anyhow::Result<Option<f64>> {
        self.process.as_ref().map(Process::cpu_seconds).transpose()
    }

    fn resident_kib(&self) -> anyhow::Result<f64> {
        self.process.as_ref().map_or(Ok(0.0), Process::resident_kib)
    }
}

async fn bounded<T>(
    phase: &str,
    time: Duration,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    timeout(time + GRACE, work)
        .await
        .with_context(|| format!("{phase}: still not done {GRACE:?} after it should be"))?
        .with_context(|| phase.to_owned())
}

fn call_request(address: SocketAddr, token: &str, body: &[u8]) -> Bytes {
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         MCP-Protocol-Version: 2025-11-25\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Bytes::from([head.as_bytes(), body].concat())
}

fn stream_request(address: SocketAddr, token: &str) -> Bytes {
    Bytes::from(format!(
        "GET /mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Accept: text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n\r\n"
    ))
}
