//! The frames of HTTP/2 as they pass on their way to hyper, which knows no deadline for one that
//! drips in, and has no objection to any number that carry nothing.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::Instant;

use super::{Limit, connection::Socket, deadline::Watch};

/// Frames without content that a connection may send at once: resets, pings, settings, windows
/// and the like.
const ALLOWANCE: u32 = 4096;
/// How it grows back: with what the peer lets us send, and with time.
const BYTES_FOR_ONE: usize = 64;
const TIME_FOR_ONE: Duration = Duration::from_millis(100);

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// The length of the connection preface, which comes before the first frame.
const PREFACE_BYTES: u32 = 24;

const HEADER_BYTES: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// The socket of an HTTP/2 connection.
pub(super) struct FrameSocket {
    socket: Socket,
    frames: Frames,
    watch: Arc<Watch>,
}

impl FrameSocket {
    pub(super) fn new(socket: Socket, watch: Arc<Watch>) -> Self {
        Self {
            socket,
            frames: Frames::new(),
            watch,
        }
    }

    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.sent(bytes);
        }
        written
    }
}

impl Drop for FrameSocket {
    /// What the kernel still holds for a peer that takes nothing would stay for minutes.
    fn drop(&mut self) {
        if self.watch.is_write_blocked() {
            self.socket.reset();
        }
    }
}

impl Read for FrameSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut bytes = [0; READ_BYTES];
        let room = buffer.remaining().min(READ_BYTES);
        let mut read = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut this.socket).poll_read(cx, read.unfilled()))?;
        let read = read.filled();
        if this.frames.pass(read, &this.watch).is_err() {
            this.watch.met(Limit::EmptyFrames);
            return Poll::Ready(Err(io::Error::other("too many frames without content")));
        }
        buffer.put_slice(read);
        Poll::Ready(Ok(()))
    }
}

impl Write for FrameSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Where in the sequence of frames the peer is.
struct Frames {
    /// The header of the frame that has begun, and how much of it is there.
    header: [u8; HEADER_BYTES],
    known: usize,
    /// Bytes of its content that are yet to come.
    content: u32,
    /// A block of headers has begun that goes on in further frames.
    in_block: bool,
    /// Frames and blocks that were complete, and how many were when the deadline was set.
    complete: u64,
    timed: Option<u64>,
    /// Frames without content that may still come, and the bytes sent that count towards more.
    allowance: u32,
    sent: usize,
    refilled: Instant,
}

/// The allowance is used up.
struct UsedUp;

impl Frames {
    fn new() -> Self {
        Self {
            header: [0; HEADER_BYTES],
            known: 0,
            content: PREFACE_BYTES,
            in_block: false,
            complete: 0,
            timed: None,
            allowance: ALLOWANCE,
            sent: 0,
            refilled: Instant::now(),
        }
    }

    fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// Follows what has arrived, and keeps the deadline for what has begun.
    fn pass(&mut self, mut bytes: &[u8], watch: &Watch) -> Result<(), UsedUp> {
        while !bytes.is_empty() {
            if self.content > 0 {
                let here = bytes.len().min(self.content as usize);
                self.content -= u32::try_from(here).expect("it is at most the content");
                bytes = &bytes[here..];
                self.end_frame();
            } else {
                self.header[self.known] = bytes[0];
                bytes = &bytes[1..];
                self.known += 1;
                if self.known == HEADER_BYTES {
                    self.begin_frame()?;
                    self.end_frame();
                }
            }
        }
        // Content of a request may take its time; the request's own deadline looks at that.
        let in_data = self.known == HEADER_BYTES && self.header[3] == DATA;
        let waits = self.in_block || self.known > 0 && !in_data;
        if !waits {
            watch.frame_complete();
            self.timed = None;
        } else if self.timed != Some(self.complete) {
            watch.frame_begun();
            self.timed = Some(self.complete);
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<(), UsedUp> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.content = u32::from_be_bytes([0, high, middle, low]);
        if kind == HEADERS || kind == CONTINUATION {
            self.in_block = flags & END_HEADERS == 0;
        }
        let has_content = match kind {
            DATA => self.content > 0,
            HEADERS => !self.in_block,
            _ => false,
        };
        if !has_content {
            self.take_one()?;
        }
        Ok(())
    }

    fn end_frame(&mut self) {
        if self.content == 0 {
            self.known = 0;
            if !self.in_block {
                self.complete += 1;
            }
        }
    }

    fn take_one(&mut self) -> Result<(), UsedUp> {
        if self.allowance == 0 {
            self.refill();
        }
        self.allowance = self.allowance.checked_sub(1).ok_or(UsedUp)?;
        Ok(())
    }

    fn refill(&mut self) {
        let elapsed = self.refilled.elapsed().as_millis() / TIME_FOR_ONE.as_millis();
        let by_time = u32::try_from(elapsed).unwrap_or(ALLOWANCE);
        let by_bytes = u32::try_from(self.sent / BYTES_FOR_ONE).unwrap_or(ALLOWANCE);
        self.allowance = by_time.saturating_add(by_bytes).min(ALLOWANCE);
        self.sent = 0;
        self.refilled = Instant::now();
    }
}
