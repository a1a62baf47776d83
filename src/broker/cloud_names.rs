//! The names of the entries that use a session, for `ksb status`.

use super::State;
use crate::model::Identity;

/// More than one cloud has names in a user's files.
const MOST: usize = 64;

impl State {
    /// Remembers that a session, or its sign-in, is used by the cloud of this label; whether that is new.
    pub(super) fn used_by(&mut self, identity: &Identity, label: &str) -> bool {
        let labels = self.labels.entry(identity.clone()).or_default();
        let is_new = labels.len() < MOST && !labels.iter().any(|known| known == label);
        if is_new {
            labels.push(label.to_owned());
        }
        is_new
    }

    /// A sign-in is over; nothing need be remembered if nobody came of it.
    pub(super) fn forget_labels(&mut self, identity: &Identity) {
        if !self.pins.contains_key(identity) && !self.pending.contains_key(identity) {
            self.labels.remove(identity);
        }
    }

    pub(super) fn labels(&self, identity: &Identity) -> &[String] {
        self.labels.get(identity).map_or(&[], Vec::as_slice)
    }
}
