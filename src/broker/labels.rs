//! What a session's clouds are called: a caller chooses the name that it comes with, and settings are made by name.

use super::{Inner, State};
use crate::config::Config;
use crate::model::{Cloud, Identity};
use crate::sync::locked;

/// More than one cloud has names in a person's files. Of others only those that settings are made by are remembered, so
/// that a crowd of them neither fills the memory nor leads past a setting.
const MOST: usize = 64;

impl State {
    /// Remembers that a session, or its sign-in, is used by the cloud of this label; whether that is new.
    pub(super) fn used_by(&mut self, identity: &Identity, label: &str, config: &Config) -> bool {
        let labels = self.labels.entry(identity.clone()).or_default();
        let is_new =
            !labels.iter().any(|known| known == label) && (labels.len() < MOST || config.is_about(label));
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

    /// The names whose settings hold for a request, all of them: one session serves all.
    pub(super) fn names<'s>(
        &'s self,
        cloud: &'s Cloud,
        identity: &Identity,
    ) -> impl Iterator<Item = Option<&'s str>> + use<'s> {
        let known = self.labels(identity).iter().map(|label| Some(label.as_str()));
        std::iter::once(cloud.name.as_deref()).chain(known)
    }
}

impl Inner {
    /// Whether a person is asked before a program gets a token.
    pub(super) fn confirms(&self, cloud: &Cloud, identity: &Identity) -> bool {
        locked(&self.state).names(cloud, identity).any(|name| self.config.confirms(name))
    }
}
