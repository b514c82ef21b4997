//! Lines on their way to standard error. A thread of its own writes them, so that no request
//! waits for a reader that stalls. To wake that thread costs more than a line does, so lines of
//! calls and refusals gather for a moment and are written together.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt::Write as _,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use protocol::endpoint::pages::is_hidden;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::REQUESTS;

/// How long the thread sleeps after it has written, unless it is woken. A person at a terminal
/// does not notice it.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Bytes in one write, unless a single line is longer. A pipe takes that many in one piece, even
/// if other programs write into it as well (`PIPE_BUF`).
const BATCH: usize = 4096;

/// Batches of calls and refusals that end the pause: as much as a pipe usually holds.
const MANY: usize = 16;

/// Bytes of each kind of line that may wait for the reader: some four thousand lines. Further ones
/// are lost.
const MOST_WAITING: usize = 1024 * 1024;

/// How long the program's end waits for what is not written yet.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Takes each line, or counts it as lost.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    format: Format,
    waiting: Mutex<Waiting>,
    wake: Condvar,
    lost: AtomicU64,
}

#[derive(Default, Debug)]
struct Waiting {
    /// Lines that unauthenticated callers cannot cause at will: they always find room here, are
    /// written before the others, and wake the writer.
    kept: Batches,
    others: Batches,
    /// Batches of the others that are written before the next pause.
    due: usize,
    /// The writer has paused and sleeps until there is a line.
    is_idle: bool,
    is_the_end: bool,
}

/// Whole lines in order, those together that are written at once.
#[derive(Default, Debug)]
struct Batches {
    batches: VecDeque<String>,
    bytes: usize,
}

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Text,
    Json,
}

/// The thread that writes the lines. Dropped, it writes what waits, unless that takes long.
#[derive(Debug)]
pub struct Writer {
    lines: Lines,
    ended: Receiver<()>,
}

impl Lines {
    /// Starts the writer, which sleeps for `pause` between batches.
    pub(super) fn written_to(
        output: impl Write + Send + 'static,
        format: Format,
        pause: Duration,
    ) -> (Self, Writer) {
        let lines = Self(Arc::new(Shared {
            format,
            waiting: Mutex::default(),
            wake: Condvar::new(),
            lost: AtomicU64::new(0),
        }));
        let (ends, ended) = mpsc::channel();
        let written = lines.clone();
        thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || {
                written.write_to(output, pause);
                drop(ends);
            })
            .expect("a thread can be started");
        let writer = Writer {
            lines: lines.clone(),
            ended,
        };
        (lines, writer)
    }

    /// How many lines nobody read in time.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn add(&self, line: &str, is_kept: bool) {
        let mut waiting = self.waiting();
        let was_urgent = waiting.is_urgent();
        let lines = if is_kept {
            &mut waiting.kept
        } else {
            &mut waiting.others
        };
        if !lines.add(line) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let wakes = !was_urgent && waiting.is_urgent();
        drop(waiting);
        if wakes {
            self.0.wake.notify_one();
        }
    }

    fn write_to(&self, mut output: impl Write, pause: Duration) {
        while let Some(batch) = self.next(pause) {
            // If nobody takes it, there is nobody to tell.
            let _ = output.write_all(batch.as_bytes());
        }
    }

    /// What is written next; `None` at the end. All lines that wait when a pause ends are written
    /// before the next pause.
    fn next(&self, pause: Duration) -> Option<String> {
        let mut waiting = self.waiting();
        if waiting.due == 0 {
            let wake = &self.0.wake;
            waiting = wake
                .wait_timeout_while(waiting, pause, |waiting| !waiting.is_urgent())
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            waiting.is_idle = true;
            waiting = wake
                .wait_while(waiting, |waiting| !waiting.is_urgent())
                .unwrap_or_else(PoisonError::into_inner);
            waiting.is_idle = false;
            waiting.due = waiting.others.batches.len();
        }
        if let Some(batch) = waiting.kept.next() {
            return Some(batch);
        }
        let batch = waiting.others.next()?;
        waiting.due -= 1;
        Some(batch)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether the writer must not sleep on.
    fn is_urgent(&self) -> bool {
        let enough = if self.is_idle { 1 } else { MANY };
        self.is_the_end || !self.kept.batches.is_empty() || self.others.batches.len() >= enough
    }
}

impl Batches {
    /// `false` if there is no room.
    fn add(&mut self, line: &str) -> bool {
        if self.bytes + line.len() > MOST_WAITING {
            return false;
        }
        self.bytes += line.len();
        match self.batches.back_mut() {
            Some(last) if last.len() + line.len() <= BATCH => last.push_str(line),
            _ => {
                let mut batch = String::with_capacity(BATCH.max(line.len()));
                batch.push_str(line);
                self.batches.push_back(batch);
            }
        }
        true
    }

    fn next(&mut self) -> Option<String> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.len();
        Some(batch)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.waiting().is_the_end = true;
        self.lines.0.wake.notify_one();
        // Its other end is dropped with the thread.
        let _ = self.ended.recv_timeout(LAST_LINES);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            lines: self,
            is_kept: false,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line {
            lines: self,
            is_kept: is_kept(metadata),
        }
    }
}

/// Whether a line is one of ours that an operator needs after the fact.
fn is_kept(metadata: &Metadata<'_>) -> bool {
    let is_ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
    is_ours && metadata.target() != REQUESTS && *metadata.level() <= Level::INFO
}

/// Takes one line, in one piece.
#[derive(Debug)]
pub struct Line<'a> {
    lines: &'a Lines,
    is_kept: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let visible = visible(&text, self.lines.0.format);
        self.lines.add(&visible, self.is_kept);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line in which nothing hides, reorders or commands: such characters are escaped. What of ASCII
/// does so is escaped in its field already, and here stands for the colours and the line's end.
fn visible(line: &str, format: Format) -> Cow<'_, str> {
    if line.bytes().all(|byte| byte < 0x7f) {
        return line.into();
    }
    let mut visible = String::with_capacity(line.len());
    for c in line.chars() {
        if !acts(c) {
            visible.push(c);
        } else if format == Format::Json {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a string cannot fail.
                let _ = write!(visible, "\\u{unit:04x}");
            }
        } else {
            visible.extend(c.escape_unicode());
        }
    }
    visible.into()
}

fn acts(c: char) -> bool {
    c == '\u{7f}' || !c.is_ascii() && (c.is_whitespace() || is_hidden(c))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// No test waits that long, so that the writer is awake for another reason than its clock.
    const NEVER: Duration = Duration::from_hours(1);
    /// What is written at once is here by then, on any machine.
    const SURELY: Duration = Duration::from_secs(30);

    /// Shows each write.
    struct Shown(mpsc::Sender<String>);

    impl Write for Shown {
        fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(batch).into_owned());
            Ok(batch.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(pause: Duration) -> (Lines, Writer, Receiver<String>) {
        let (shows, pieces) = mpsc::channel();
        let (lines, writer) = Lines::written_to(Shown(shows), Format::Text, pause);
        (lines, writer, pieces)
    }

    /// Has its first line in hand, and nothing written, until its gate opens.
    struct Stalled {
        has_one: Option<mpsc::Sender<()>>,
        gate: Receiver<()>,
        written: Shown,
    }

    impl Write for Stalled {
        fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
            drop(self.has_one.take());
            let _ = self.gate.recv();
            self.written.write(batch)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_kept_has_room_and_precedence_however_much_else_there_is() {
        const LINE: usize = 100;
        const MOST: usize = MOST_WAITING / LINE;
        let line = |text: &str, number: usize| {
            let start = format!("{text} {number} ");
            format!("{start:-<0$}\n", LINE - 1)
        };
        let (has_one, with_the_writer) = mpsc::channel();
        let (opens, gate) = mpsc::channel::<()>();
        let (sender, written) = mpsc::channel();
        let output = Stalled {
            has_one: Some(has_one),
            gate,
            written: Shown(sender),
        };
        let (lines, writer) = Lines::written_to(output, Format::Text, Duration::ZERO);
        lines.add("first\n", false);
        with_the_writer.recv().unwrap_err();
        for number in 0..2 * MOST {
            lines.add(&line("refused", number), false);
        }
        for number in 0..MOST {
            lines.add(&line("approved", number), true);
        }
        assert_eq!(lines.lost(), MOST as u64);
        lines.add(&line("too much", 0), true);
        assert_eq!(lines.lost(), MOST as u64 + 1);
        drop(opens);
        drop(writer);
        let written: String = written.iter().collect();
        let approved = (0..MOST).map(|number| line("approved", number));
        let refused = (0..MOST).map(|number| line("refused", number));
        let expected: String = ["first\n".to_owned()]
            .into_iter()
            .chain(approved)
            .chain(refused)
            .collect();
        // Compared as a whole, a difference would fill screens.
        assert!(written == expected, "{} bytes", written.len());
    }

    #[test]
    fn whole_lines_are_written_together_as_many_as_a_pipe_takes_in_one_piece() {
        let (lines, writer, pieces) = shown(NEVER);
        let long = format!("{}\n", "long ".repeat(BATCH));
        let mut all: Vec<String> = (0..100).map(|number| format!("call {number}\n")).collect();
        all.insert(50, long.clone());
        for line in &all {
            lines.add(line, false);
            // A writer that does not pause has its chance here.
            thread::yield_now();
        }
        drop(writer);
        let pieces: Vec<String> = pieces.iter().collect();
        assert_eq!(pieces.concat(), all.concat());
        for piece in &pieces {
            assert!(piece.ends_with('\n'), "{piece:?}");
            assert!(piece.len() <= BATCH || *piece == long, "{piece:?}");
        }
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn a_call_is_written_after_the_pause_though_nothing_follows_it() {
        assert!(PAUSE < Duration::from_millis(50));
        for (pause, times) in [(PAUSE, 3), (Duration::ZERO, 300)] {
            let (lines, _writer, pieces) = shown(pause);
            for number in 0..times {
                let line = format!("call {number}\n");
                lines.add(&line, false);
                assert_eq!(pieces.recv_timeout(SURELY).unwrap(), line);
            }
        }
    }

    #[test]
    fn a_kept_line_ends_the_pause_and_room_comes_back_with_each_that_is_written() {
        let (lines, _writer, pieces) = shown(NEVER);
        let line = format!("{}\n", "approved ".repeat(BATCH));
        for _ in 0..2 * MOST_WAITING / line.len() {
            lines.add(&line, true);
            assert!(pieces.recv_timeout(SURELY).unwrap() == line);
        }
        assert_eq!(lines.lost(), 0);
    }

    #[test]
    fn a_kept_line_takes_the_calls_along_that_wait() {
        let (lines, _writer, pieces) = shown(NEVER);
        lines.add("a call\n", false);
        lines.add("another call\n", false);
        lines.add("approved\n", true);
        assert_eq!(pieces.recv_timeout(SURELY).unwrap(), "approved\n");
        let calls = pieces.recv_timeout(SURELY).unwrap();
        assert_eq!(calls, "a call\nanother call\n");
    }

    #[test]
    fn many_calls_end_the_pause() {
        let (lines, _writer, pieces) = shown(NEVER);
        let line = format!("{}\n", "x".repeat(BATCH - 1));
        for _ in 0..MANY {
            lines.add(&line, false);
        }
        for _ in 0..MANY {
            assert_eq!(pieces.recv_timeout(SURELY).unwrap(), line);
        }
    }

    #[test]
    fn the_writer_is_woken_only_when_it_sleeps_and_must_not() {
        let waiting = |kept: usize, others: usize| {
            let mut waiting = Waiting::default();
            for _ in 0..kept {
                assert!(waiting.kept.add("kept\n"));
            }
            for _ in 0..others {
                assert!(waiting.others.add(&"x".repeat(BATCH)));
            }
            waiting
        };
        assert!(!waiting(0, 0).is_urgent());
        assert!(!waiting(0, MANY - 1).is_urgent());
        assert!(waiting(0, MANY).is_urgent());
        assert!(waiting(1, 0).is_urgent());
        for (others, is_urgent) in [(0, false), (1, true)] {
            let mut waiting = waiting(0, others);
            waiting.is_idle = true;
            assert_eq!(waiting.is_urgent(), is_urgent);
        }
        let mut waiting = waiting(0, 0);
        waiting.is_the_end = true;
        assert!(waiting.is_urgent());
    }

    #[test]
    fn what_waits_is_written_at_the_end_also_if_a_panic_is_the_end() {
        let (lines, writer, pieces) = shown(NEVER);
        lines.add("a call\n", false);
        let started = Instant::now();
        let panicked = std::panic::catch_unwind(move || {
            let _writes_the_rest = writer;
            panic!("as a bug would");
        });
        assert!(panicked.is_err());
        let is_written = pieces.try_recv().as_deref() == Ok("a call\n");
        assert!(is_written || started.elapsed() >= LAST_LINES);
    }

    #[test]
    fn characters_that_act_are_escaped_and_others_are_not() {
        for (line, text, json) in [
            (
                "\u{1b}[2mname\u{1b}[0m\n",
                "\u{1b}[2mname\u{1b}[0m\n",
                "\u{1b}[2mname\u{1b}[0m\n",
            ),
            ("Zoë 名前 …", "Zoë 名前 …", "Zoë 名前 …"),
            ("\u{7f}\u{9b}2J", r"\u{7f}\u{9b}2J", r"\u007f\u009b2J"),
            ("\u{202e}\u{2066}", r"\u{202e}\u{2066}", r"\u202e\u2066"),
            (
                "\u{85}\u{2028}\u{2029}",
                r"\u{85}\u{2028}\u{2029}",
                r"\u0085\u2028\u2029",
            ),
            (
                "\u{200b}\u{feff}\u{a0}",
                r"\u{200b}\u{feff}\u{a0}",
                r"\u200b\ufeff\u00a0",
            ),
            ("\u{e0041}", r"\u{e0041}", r"\udb40\udc41"),
        ] {
            assert_eq!(visible(line, Format::Text), text);
            assert_eq!(visible(line, Format::Json), json);
        }
    }
}
