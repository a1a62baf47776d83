//! What commands write to standard output and standard error.
//!
//! Text for users shows control and bidirectional characters as escapes: names come from servers and from files. A closed
//! pipe (`ksb status | head -1`) is no error; a full disk is one, reported when the command ends.

use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::is_tricky;
use crate::sync::lock_unpoisoned;

/// The first failure of standard output.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// A line for the user on standard output.
macro_rules! outln {
    ($($text:tt)*) => { $crate::cli::output::line(&format!($($text)*)) };
}

/// A line for the user on standard error.
macro_rules! errln {
    ($($text:tt)*) => { $crate::cli::output::error_line(&format!($($text)*)) };
}

pub(in crate::cli) use {errln, outln};

/// A line for the user on standard output.
pub(super) fn line(text: &str) {
    exact(&format!("{}\n", visible(text)));
}

/// A line for the user on standard error. A failure has nowhere to be reported.
pub(super) fn error_line(text: &str) {
    writeln!(io::stderr(), "{}", visible(text)).ok();
}

/// JSON on standard output.
pub(super) fn json(value: &impl Serialize) {
    exact(&format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default()));
}

/// Text for another program on standard output, as it is.
pub(super) fn exact(text: &str) {
    write(|stdout| stdout.write_all(text.as_bytes()));
}

/// What a function writes to standard output.
pub(super) fn write(write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = write(&mut stdout).and_then(|()| stdout.flush()) {
        lock_unpoisoned(&FAILURE).get_or_insert(error);
    }
}

/// Whether everything could be written.
pub(super) fn finish() -> Result<()> {
    match lock_unpoisoned(&FAILURE).take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", &error)),
        _ => Ok(()),
    }
}

/// Text of several lines in which nothing steers a terminal or reorders it.
fn visible(text: &str) -> String {
    escape(text, |char| is_tricky(char) && char != '\n')
}

/// The same for a name within a line.
pub(super) fn printable(text: &str) -> String {
    escape(text, is_tricky)
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if is_escaped(char) { escaped.extend(char.escape_default()) } else { escaped.push(char) }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal_or_reorders_a_line() {
        assert_eq!(visible("a\x1b[2Jb\nc\u{202e}"), "a\\u{1b}[2Jb\nc\\u{202e}");
        assert_eq!(printable("a\x1b[2Jb\nc\r"), "a\\u{1b}[2Jb\\nc\\r");
        assert_eq!(visible("Région – „Süd“"), "Région – „Süd“");
    }
}
