//! Lines of any bytes and any length, of which never more is kept than a tap may have.

use std::io::{self, BufRead};

use gatebell_engine::decode;
use gatebell_engine::tap::TAP_LEN_MAX;

/// Bytes of a line that are kept: enough to tell a tap of the largest size, and its carriage return, from a longer one.
const LINE_KEPT_MAX: usize = TAP_LEN_MAX + 2;

/// Cuts `input` into lines.
pub(super) struct Lines<R> {
    input: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`.
    pub(super) fn new(input: R) -> Self {
        Self { input, line: Vec::with_capacity(LINE_KEPT_MAX) }
    }

    /// The next line that is not blank, without its line end; of a longer one than a tap may be, only as much as shows
    /// that. `None` at the end.
    pub(super) fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let read = self.read_line()?;
            if read.is_record {
                let line = self.line.strip_suffix(b"\r").filter(|_| read.is_kept_whole).unwrap_or(&self.line);
                return Ok(Some(line));
            }
            if read.is_end {
                return Ok(None);
            }
        }
    }

    fn read_line(&mut self) -> io::Result<LineRead> {
        self.line.clear();
        let mut read = LineRead { is_record: false, is_kept_whole: true, is_end: false };
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                read.is_end = true;
                return Ok(read);
            }
            let line_end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..line_end.unwrap_or(chunk.len())];
            read.is_record |= !decode::is_blank(part);
            let room = LINE_KEPT_MAX - self.line.len();
            read.is_kept_whole &= part.len() <= room;
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let consumed = part.len() + usize::from(line_end.is_some());
            self.input.consume(consumed);
            if line_end.is_some() {
                return Ok(read);
            }
        }
    }
}

/// What became of reading a line.
struct LineRead {
    /// Whether there is more in it than white space.
    is_record: bool,
    /// Whether all of it was kept.
    is_kept_whole: bool,
    /// Whether the input ended.
    is_end: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    fn lines_of(bytes: &[u8], chunk_len: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(BufReader::with_capacity(chunk_len, bytes));
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            all.push(line.to_vec());
        }
        all
    }

    #[test]
    fn blank_lines_are_no_records() {
        let lines = lines_of(b"\n\r\n a \r\n\t \nb\n\n", 3);
        assert_eq!(lines, [b" a ".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn the_last_line_needs_no_end() {
        assert_eq!(lines_of(b"a\nb", 3), [b"a", b"b"]);
    }

    #[test]
    fn a_line_of_the_largest_size_is_whole_with_either_line_end() {
        let largest = vec![b'x'; TAP_LEN_MAX];
        for line_end in ["\n", "\r\n", ""] {
            let bytes = [&largest, line_end.as_bytes()].concat();
            assert_eq!(lines_of(&bytes, 100), std::slice::from_ref(&largest));
        }
    }

    #[test]
    fn a_longer_line_is_cut_but_still_too_long() {
        for len in [TAP_LEN_MAX + 1, TAP_LEN_MAX + 2, TAP_LEN_MAX + 3, 1_000_000] {
            for line_end in ["\n", "\r\n"] {
                let bytes = [&vec![b'x'; len], line_end.as_bytes(), b"next"].concat();
                let lines = lines_of(&bytes, 1000);
                assert_eq!(lines.len(), 2);
                assert!((TAP_LEN_MAX + 1..=LINE_KEPT_MAX).contains(&lines[0].len()), "{len}");
                assert_eq!(lines[1], b"next");
            }
        }
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_input_comes(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), any::<u8>()], 0..200),
            chunk_len in 1_usize..20,
        ) {
            let naive: Vec<Vec<u8>> = bytes
                .split(|byte| *byte == b'\n')
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
                .filter(|line| !line.iter().all(|byte| b" \t\r\n".contains(byte)))
                .collect();
            prop_assert_eq!(lines_of(&bytes, chunk_len), naive);
        }
    }
}
