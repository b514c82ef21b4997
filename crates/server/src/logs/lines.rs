//! Lines on their way to standard error. A thread of its own writes them, so that no request
//! waits for a reader that stalls.

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

/// Lines of each kind that may wait for whoever reads them. Further ones are lost.
const MOST_WAITING: usize = 4096;

/// How long the program's end waits for what is not written yet.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Takes each line, or counts it as lost.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    format: Format,
    waiting: Mutex<Waiting>,
    no_longer_empty: Condvar,
    lost: AtomicU64,
}

#[derive(Default, Debug)]
struct Waiting {
    /// What strangers cannot have written as often as they like: whatever they do, it finds room
    /// here and is written before the others.
    kept: VecDeque<String>,
    others: VecDeque<String>,
    is_the_end: bool,
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
    pub(super) fn written_to(
        output: impl Write + Send + 'static,
        format: Format,
    ) -> (Self, Writer) {
        let lines = Self(Arc::new(Shared {
            format,
            waiting: Mutex::default(),
            no_longer_empty: Condvar::new(),
            lost: AtomicU64::new(0),
        }));
        let (ends, ended) = mpsc::channel();
        let written = lines.clone();
        thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || {
                written.write_to(output);
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

    fn add(&self, line: String, is_kept: bool) {
        let mut waiting = self.waiting();
        let was_empty = waiting.is_empty();
        let lines = if is_kept {
            &mut waiting.kept
        } else {
            &mut waiting.others
        };
        if lines.len() == MOST_WAITING {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.push_back(line);
        drop(waiting);
        if was_empty {
            self.0.no_longer_empty.notify_one();
        }
    }

    fn write_to(&self, mut output: impl Write) {
        while let Some(line) = self.next() {
            // If nobody takes it, there is nobody to tell.
            let _ = output.write_all(line.as_bytes());
        }
    }

    /// `None` at the end.
    fn next(&self) -> Option<String> {
        let mut waiting = self
            .0
            .no_longer_empty
            .wait_while(self.waiting(), |waiting| {
                waiting.is_empty() && !waiting.is_the_end
            })
            .unwrap_or_else(PoisonError::into_inner);
        let kept = waiting.kept.pop_front();
        kept.or_else(|| waiting.others.pop_front())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.others.is_empty()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.waiting().is_the_end = true;
        self.lines.0.no_longer_empty.notify_one();
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
        self.lines.add(visible.into_owned(), self.is_kept);
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
    use super::*;

    /// Has its first line in hand, and nothing written, until its gate opens.
    struct Stalled {
        has_one: Option<mpsc::Sender<()>>,
        gate: Receiver<()>,
        written: mpsc::Sender<String>,
    }

    impl Write for Stalled {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            drop(self.has_one.take());
            let _ = self.gate.recv();
            let _ = self
                .written
                .send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_kept_has_room_and_precedence_however_much_else_there_is() {
        let (has_one, with_the_writer) = mpsc::channel();
        let (opens, gate) = mpsc::channel::<()>();
        let (sender, written) = mpsc::channel();
        let output = Stalled {
            has_one: Some(has_one),
            gate,
            written: sender,
        };
        let (lines, writer) = Lines::written_to(output, Format::Text);
        lines.add("first".to_owned(), false);
        with_the_writer.recv().unwrap_err();
        for number in 0..2 * MOST_WAITING {
            lines.add(format!("refused {number}"), false);
        }
        for number in 0..MOST_WAITING {
            lines.add(format!("approved {number}"), true);
        }
        assert_eq!(lines.lost(), MOST_WAITING as u64);
        lines.add("too much".to_owned(), true);
        assert_eq!(lines.lost(), MOST_WAITING as u64 + 1);
        drop(opens);
        drop(writer);
        let written: Vec<String> = written.iter().collect();
        assert_eq!(written.len(), 1 + 2 * MOST_WAITING);
        let (approved, refused) = written[1..].split_at(MOST_WAITING);
        assert!(approved.iter().all(|line| line.starts_with("approved")));
        assert!(refused.iter().all(|line| line.starts_with("refused")));
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
