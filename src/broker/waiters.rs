//! Which callers at terminals wait for a sign-in. If none does, its tab may be closed.

use std::collections::HashMap;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};

use crate::sync::lock_unpoisoned;
use crate::time::SharedClock;

/// Between two of its questions a caller waits as well.
const GAP: SignedDuration = SignedDuration::from_secs(5);

/// Callers by the id that each chose for itself.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<String, Waiter>>);

struct Waiter {
    /// Long polls that are held now.
    polls: u32,
    seen_at: Timestamp,
}

impl Waiter {
    fn waits(&self, now: Timestamp) -> bool {
        self.polls > 0 || now.duration_since(self.seen_at) < GAP
    }
}

impl Waiters {
    /// Whether another caller than this one waits.
    pub(super) fn has_others(&self, than: &str, now: Timestamp) -> bool {
        lock_unpoisoned(&self.0).iter().any(|(id, waiter)| id != than && waiter.waits(now))
    }

    /// How many wait.
    pub(super) fn count(&self, now: Timestamp) -> u32 {
        let waits = lock_unpoisoned(&self.0).values().filter(|waiter| waiter.waits(now)).count();
        u32::try_from(waits).unwrap_or(u32::MAX)
    }

    /// The caller is about to wait.
    pub(super) fn enter(&self, id: &str, now: Timestamp) {
        let mut waiters = lock_unpoisoned(&self.0);
        waiters.retain(|_, waiter| waiter.waits(now));
        waiters.entry(id.to_owned()).or_insert(Waiter { polls: 0, seen_at: now }).seen_at = now;
    }

    /// The caller has given up.
    pub(super) fn leave(&self, id: &str) {
        lock_unpoisoned(&self.0).remove(id);
    }

    /// The caller waits for as long as this lives.
    pub(super) fn poll<'w>(&'w self, id: &str, clock: &'w SharedClock) -> Poll<'w> {
        self.enter(id, clock.now());
        if let Some(waiter) = lock_unpoisoned(&self.0).get_mut(id) {
            waiter.polls += 1;
        }
        Poll { waiters: self, id: id.to_owned(), clock, is_answered: false }
    }
}

/// A long poll that is held.
pub(super) struct Poll<'w> {
    waiters: &'w Waiters,
    id: String,
    clock: &'w SharedClock,
    is_answered: bool,
}

impl Poll<'_> {
    /// The caller gets its answer, and may ask again.
    pub(super) fn answer(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut waiters = lock_unpoisoned(&self.waiters.0);
        if let Some(waiter) = waiters.get_mut(&self.id) {
            waiter.polls = waiter.polls.saturating_sub(1);
            waiter.seen_at = self.clock.now();
            // Its connection ended: the caller is dead.
            if !self.is_answered && waiter.polls == 0 {
                waiters.remove(&self.id);
            }
        }
    }
}
