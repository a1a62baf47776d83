//! Waiting for what another process does: bounded, and said what for.

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine. Whoever waits this long, waits for something that never comes.
pub const LIMIT: Duration = Duration::from_mins(2);

const LOOK: Duration = Duration::from_millis(20);

/// Looks until there is something. For what tells nobody: files, other processes' ends.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    at_most(LIMIT, look).unwrap_or_else(|| panic!("waited {LIMIT:?} for {what}"))
}

/// The same without a failure.
pub fn at_most<T>(limit: Duration, look: impl FnMut() -> Option<T>) -> Option<T> {
    every(LOOK, limit, look)
}

/// Looks now and then, for what takes long to come or much to look at.
pub fn every<T>(pause: Duration, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if began.elapsed() > limit {
            return None;
        }
        std::thread::park_timeout(pause);
    }
}
