//! The client side: raw keep-alive HTTP/1.1 and requests made beforehand, so that the load costs
//! little beside what it measures.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::upstream::EVENT;

/// Room for one answer's head, and for the whole of every answer that is looked at.
const ANSWER_BUFFER: usize = 64 * 1024;
const MOST_HEADERS: usize = 64;
/// How many streams are opened at the same time.
const STREAMS_AT_ONCE: u32 = 50;
/// How many streams come from one source address. A proxy may well bound the connections of one
/// client, and a thousand idle streams are in life those of many.
const STREAMS_PER_ADDRESS: u32 = 100;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One keep-alive connection to a target.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Where the parts of the latest answer are in the connection's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: usize,
    pub(crate) body: usize,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            stream: connect(address, Ipv4Addr::LOCALHOST).await?,
            buffer: vec![0; ANSWER_BUFFER],
        })
    }

    pub(crate) async fn reopen(&mut self) -> anyhow::Result<()> {
        self.stream = connect(self.address, Ipv4Addr::LOCALHOST).await?;
        Ok(())
    }

    /// Sends one request and reads its answer to the end. Of a body that is larger than the
    /// buffer only the bytes are counted.
    pub(crate) async fn call(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.stream
            .write_all(request)
            .await
            .context("the request could not be sent")?;
        let mut filled = 0;
        let answer = loop {
            filled += self.receive(filled).await?;
            if let Some(answer) = Answer::parse(&self.buffer[..filled])? {
                break answer;
            }
        };
        let end = answer.head + answer.body;
        let is_kept = end <= self.buffer.len();
        while filled < end {
            filled += self.receive(if is_kept { filled } else { 0 }).await?;
        }
        ensure!(
            filled == end,
            "the answer is longer than its Content-Length"
        );
        Ok(answer)
    }

    async fn receive(&mut self, at: usize) -> anyhow::Result<usize> {
        let received = self
            .stream
            .read(&mut self.buffer[at..])
            .await
            .context("the answer could not be read")?;
        ensure!(received > 0, "the connection ended within an answer");
        Ok(received)
    }

    /// The latest answer's body, empty when it was too large to keep.
    pub(crate) fn body(&self, answer: Answer) -> &[u8] {
        self.buffer
            .get(answer.head..answer.head + answer.body)
            .unwrap_or_default()
    }

    /// The first header called `name` of the latest answer.
    pub(crate) fn header(&self, answer: Answer, name: &str) -> Option<&str> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        parsed.parse(&self.buffer[..answer.head]).ok()?;
        let header = parsed
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok()
    }
}

impl Answer {
    /// `None`: the head is not complete.
    fn parse(received: &[u8]) -> anyhow::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) =
            parsed.parse(received).context("the answer is no HTTP")?
        else {
            return Ok(None);
        };
        let length = parsed
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .context("the answer has no Content-Length")?;
        Ok(Some(Self {
            status: parsed.code.unwrap_or_default(),
            head,
            body: str::from_utf8(length.value)?.trim().parse()?,
        }))
    }
}

async fn connect(address: SocketAddr, source: Ipv4Addr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address))
        .await
        .with_context(|| format!("{address} did not take the connection in time"))?
        .with_context(|| format!("{address} took no connection"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One client that does the same thing over and over.
pub(crate) trait Worker: Send + 'static {
    /// Does it once.
    fn step(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Makes a new start after a failure.
    fn recover(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A client that makes one call and knows what must come back.
pub(crate) struct Caller {
    connection: Connection,
    request: Bytes,
    answer_length: usize,
}

impl Caller {
    pub(crate) async fn new(
        address: SocketAddr,
        request: Bytes,
        answer_length: usize,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            connection: Connection::open(address).await?,
            request,
            answer_length,
        })
    }
}

impl Worker for Caller {
    async fn step(&mut self) -> anyhow::Result<()> {
        let answer = self.connection.call(&self.request).await?;
        ensure!(
            answer.status == 200,
            "a call was answered with status {}",
            answer.status
        );
        ensure!(
            answer.body == self.answer_length,
            "a call was answered with {} bytes instead of {}",
            answer.body,
            self.answer_length
        );
        Ok(())
    }

    async fn recover(&mut self) -> anyhow::Result<()> {
        self.connection.reopen().await
    }
}

/// What a number of workers did in a while.
#[derive(Default)]
pub(crate) struct Sample {
    /// Of each step that worked, in nanoseconds, shortest first.
    latencies: Vec<u32>,
    pub(crate) errors: u32,
    pub(crate) first_error: Option<String>,
    elapsed: Duration,
}

impl Sample {
    fn record(&mut self, taken: Duration) {
        self.latencies
            .push(u32::try_from(taken.as_nanos()).unwrap_or(u32::MAX));
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }

    fn absorb(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// How many steps worked.
    pub(crate) fn count(&self) -> f64 {
        f64::from(u32::try_from(self.latencies.len()).unwrap_or(u32::MAX))
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.count() / self.elapsed.as_secs_f64()
    }

    /// The latency in microseconds that `percent` of the steps stayed within.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() * percent / 100).min(last);
        self.latencies
            .get(at)
            .map_or(f64::NAN, |nanoseconds| f64::from(*nanoseconds) / 1000.0)
    }
}

/// Lets every worker step as often as it can for `duration`, and hands the workers back.
pub(crate) async fn closed_loop<W: Worker>(
    workers: Vec<W>,
    duration: Duration,
) -> anyhow::Result<(Vec<W>, Sample)> {
    let until = Instant::now() + duration;
    run(workers, |_, mut worker| async move {
        let mut sample = Sample::default();
        let mut before = Instant::now();
        while before < until {
            let outcome = worker.step().await;
            let after = Instant::now();
            match outcome {
                Ok(()) => sample.record(after - before),
                Err(error) => {
                    sample.fail(&error);
                    if worker.recover().await.is_err() {
                        break;
                    }
                }
            }
            before = after;
        }
        (worker, sample)
    })
    .await
}

/// Lets the workers together begin `per_second` steps a second, whether or not earlier ones are
/// answered. A step that had to wait for its worker counts from when it was due.
pub(crate) async fn fixed_rate<W: Worker>(
    workers: Vec<W>,
    per_second: u32,
    duration: Duration,
) -> anyhow::Result<(Vec<W>, Sample)> {
    let start = Instant::now();
    let apart = Duration::from_secs(1) / per_second;
    let count = u32::try_from(workers.len()).context("too many workers")?;
    run(workers, |index, mut worker| async move {
        let mut sample = Sample::default();
        let mut due = start + apart * index;
        while due < start + duration {
            // The timer is late by up to a millisecond; that is not the target's fault.
            let begun = if Instant::now() < due {
                sleep_until(due).await;
                Instant::now()
            } else {
                due
            };
            match worker.step().await {
                Ok(()) => sample.record(begun.elapsed()),
                Err(error) => {
                    sample.fail(&error);
                    if worker.recover().await.is_err() {
                        break;
                    }
                }
            }
            due += apart * count;
        }
        (worker, sample)
    })
    .await
}

async fn run<W, F>(workers: Vec<W>, work: impl Fn(u32, W) -> F) -> anyhow::Result<(Vec<W>, Sample)>
where
    W: Worker,
    F: Future<Output = (W, Sample)> + Send + 'static,
{
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, worker) in (0..).zip(workers) {
        tasks.spawn(work(index, worker));
    }
    let mut workers = Vec::new();
    let mut total = Sample::default();
    for (worker, sample) in tasks.join_all().await {
        workers.push(worker);
        total.absorb(sample);
    }
    total.elapsed = start.elapsed();
    total.latencies.sort_unstable();
    Ok((workers, total))
}

/// Opens `count` event streams, reads the first event of each, and holds them.
pub(crate) async fn open_streams(
    address: SocketAddr,
    requests: &[Bytes],
    count: u32,
) -> anyhow::Result<Vec<TcpStream>> {
    let mut requests = requests.iter().cycle();
    let mut streams = Vec::new();
    let mut opening = JoinSet::new();
    for index in 0..count {
        let request = requests.next().context("no request for a stream")?.clone();
        let block = u8::try_from(index / STREAMS_PER_ADDRESS).context("too many streams")?;
        let source = Ipv4Addr::new(127, 0, block, 1);
        opening.spawn(open_stream(address, source, request));
        if opening.len() == usize::try_from(STREAMS_AT_ONCE)? || index + 1 == count {
            while let Some(opened) = opening.join_next().await {
                streams.push(opened??);
            }
        }
    }
    Ok(streams)
}

async fn open_stream(
    address: SocketAddr,
    source: Ipv4Addr,
    request: Bytes,
) -> anyhow::Result<TcpStream> {
    let mut stream = connect(address, source).await?;
    stream.write_all(&request).await?;
    let mut received = Vec::with_capacity(1024);
    loop {
        let count = stream.read_buf(&mut received).await?;
        ensure!(count > 0, "a stream ended before its first event");
        let text = String::from_utf8_lossy(&received);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        ensure!(
            head.is_empty() || head.starts_with("HTTP/1.1 200"),
            "a stream was refused: {}",
            head.lines().next().unwrap_or_default()
        );
        if body.contains(EVENT) {
            return Ok(stream);
        }
    }
}
