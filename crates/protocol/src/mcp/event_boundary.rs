//! Where in an event stream something may stand between two events (HTML, "Server-sent events",
//! "Parsing an event stream").

/// What a stream may begin with, and only begin with.
pub const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The last bytes of a stream, which tell whether an event is complete. Taking a frame in costs the
/// same however long it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventBoundary {
    /// The last eight bytes; the last one is the lowest.
    last: u64,
    /// How many of them there are.
    known: usize,
    /// Whether there were more before.
    is_cut: bool,
}

impl EventBoundary {
    const BYTES: usize = size_of::<u64>();

    /// Takes in what the stream goes on with.
    pub fn pass(&mut self, bytes: &[u8]) {
        let seen = self.known + bytes.len();
        self.is_cut |= seen > Self::BYTES;
        self.known = seen.min(Self::BYTES);
        for byte in &bytes[bytes.len().saturating_sub(Self::BYTES)..] {
            self.last = self.last << 8 | u64::from(*byte);
        }
    }

    /// Whether an event has just ended, or none has begun. A line ends with a line feed, a carriage
    /// return, or both, and an event with an empty line.
    ///
    /// A line feed may still follow a carriage return at the end. To the reader it is then one more
    /// empty line, which ends no event.
    pub fn is_here(self) -> bool {
        let last = self.last.to_be_bytes();
        let end = &last[Self::BYTES - self.known..];
        let Some(before) = without_line_end(end) else {
            return self.is_begin(end);
        };
        without_line_end(before).is_some() || self.is_begin(before)
    }

    /// Whether nothing that counts comes before the end of `bytes`.
    fn is_begin(self, bytes: &[u8]) -> bool {
        !self.is_cut && (bytes.is_empty() || bytes == BOM)
    }
}

fn without_line_end(bytes: &[u8]) -> Option<&[u8]> {
    bytes
        .strip_suffix(b"\r\n")
        .or_else(|| bytes.strip_suffix(b"\n"))
        .or_else(|| bytes.strip_suffix(b"\r"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_between(parts: &[&[u8]]) -> bool {
        let mut boundary = EventBoundary::default();
        for part in parts {
            boundary.pass(part);
        }
        boundary.is_here()
    }

    #[test]
    fn an_event_ends_with_an_empty_line_however_its_lines_end() {
        for text in [
            "",
            "\n",
            "\r\n",
            "\r",
            "\u{feff}",
            "\u{feff}\n",
            "\u{feff}\r\n",
            "\u{feff}data: 1\n\n",
            "data: 1\n\n",
            "data: 1\r\n\r\n",
            "data: 1\r\r",
            "data: 1\n\r\n",
            "data: 1\r\n\n",
            "data: 1\r\r\n",
            "data: 1\n\r",
            "data: 1\n\n\n\n\n\n\n\n\n\n",
            ": a comment\n\n",
        ] {
            assert!(is_between(&[text.as_bytes()]), "{text:?}");
        }
        for text in [
            "d",
            "data: 1",
            "data: 1\n",
            "data: 1\r\n",
            "data: 1\r",
            "data: 1\n\ndata: 2\n",
            "data: 1\n\n ",
            "a\u{feff}\n",
            "12345678\u{feff}\n",
            "id: 1\ndata: 1\n",
        ] {
            assert!(!is_between(&[text.as_bytes()]), "{text:?}");
        }
        assert!(!is_between(&[b"\xEF\xBB"]));
    }

    /// The slow way: reads a stream line by line.
    fn reads_as_between(text: &[u8]) -> bool {
        let mut rest = text.strip_prefix(BOM).unwrap_or(text);
        let mut is_between = true;
        while !rest.is_empty() {
            let end = rest
                .iter()
                .position(|byte| b"\r\n".contains(byte))
                .unwrap_or(rest.len());
            let line = &rest[..end];
            rest = &rest[end..];
            let after = rest
                .strip_prefix(b"\r\n")
                .or_else(|| rest.strip_prefix(b"\n"))
                .or_else(|| rest.strip_prefix(b"\r"));
            is_between = line.is_empty() && after.is_some();
            rest = after.unwrap_or_default();
        }
        is_between
    }

    proptest! {
        #[test]
        fn where_frames_are_cut_makes_no_difference(
            parts in prop::collection::vec("(\u{feff}|[\r\na]){0,6}", 0..5)
        ) {
            let whole: String = parts.concat();
            let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
            prop_assert_eq!(is_between(&parts), reads_as_between(whole.as_bytes()), "{:?}", whole);
            prop_assert_eq!(is_between(&[whole.as_bytes()]), is_between(&parts));
        }
    }
}
