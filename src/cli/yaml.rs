//! The user's clouds.yaml and secure.yaml, changed by `ksb clouds adopt` and `ksb clouds`.
//!
//! `lines` puts lines into a text and takes them out again; `file` knows which file is the user's and replaces it
//! in one step.

mod file;
mod lines;

use std::path::Path;

pub(super) use file::{Kind, PersonsFile, own_places, target};
pub(super) use lines::{CLOUDS, Fault, Mark, is_spent, marked, put, said, take};

/// A word of a command that can be pasted into a shell.
pub(super) fn quoted(word: impl AsRef<Path>) -> String {
    let word = word.as_ref().to_string_lossy();
    shlex::try_quote(&word).map_or_else(|_| word.to_string(), Into::into)
}
