//! Ahead of its end, a session that does not renew itself says so: once, and not in the middle of a run.

use jiff::{SignedDuration, Timestamp};

use super::sign_in_attempt::{Entry, Opening};
use super::{Inner, policy};
use crate::model::Identity;
use crate::sync::lock_unpoisoned;

/// The session's token, as far as its end matters.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ending {
    signed_in_at: Timestamp,
    renewal: Timestamp,
    hard_end: Timestamp,
    ends: Timestamp,
}

impl Inner {
    /// Waits for the end to come near, and tells. Whoever renews has until the token is not served any more.
    pub(super) async fn tell(&self, identity: &Identity) {
        let Some(mut now) = self.ending(identity) else { return };
        loop {
            let before = now;
            self.clock.sleep_until(before.renewal).await;
            if self.ending(identity) == Some(before) && !self.ends_soon(identity) {
                self.clock.sleep_until(before.hard_end).await;
            }
            match self.ending(identity) {
                Some(same) if same == before => return self.notify(identity, before.ends).await,
                Some(renewed) if renewed.signed_in_at == before.signed_in_at => now = renewed,
                // Signed out, or in again: that sign-in tells for itself.
                _ => return,
            }
        }
    }

    /// Tells a user whose tool waits at the facade, where no terminal of theirs does: once for each sign-in.
    pub(super) fn call(&self, entry: &Entry, lease: &str) {
        if !entry.call(self.clock.now()) {
            return;
        }
        let name = lock_unpoisoned(&self.state)
            .leases
            .get(lease)
            .map(|lease| lease.name.clone())
            .unwrap_or_default();
        let Opening { cloud, url, .. } = &entry.opening;
        let title = format!("{}: sign in, a tool waits", cloud.label());
        let text = format!("It holds the lease {name}. Click here, or: ksb login {}", cloud.argument());
        tokio::spawn(self.notices.ask(title, text, url.clone()));
    }

    pub(super) async fn notify(&self, identity: &Identity, ends: Timestamp) {
        let left = ends.duration_since(self.clock.now());
        let cloud = lock_unpoisoned(&self.state).sessions.get(identity).map(|session| session.cloud.clone());
        // A computer that slept through it has nobody to tell.
        let Some(cloud) = cloud.filter(|_| left > SignedDuration::ZERO) else { return };
        let left = match left.as_secs() {
            seconds @ ..120 => format!("{seconds} s"),
            seconds => format!("{} min", seconds / 60),
        };
        let title = format!("{}: your sign-in ends in {left}", cloud.label());
        self.notices.tell(title, format!("Sign in again: ksb login {}", cloud.argument())).await;
    }

    fn ending(&self, identity: &Identity) -> Option<Ending> {
        let state = lock_unpoisoned(&self.state);
        let session = state.sessions.get(identity)?;
        // A set end that comes first is told for itself.
        if session.ends_at.is_some_and(|ends_at| ends_at <= session.unscoped.token.expires_at) {
            return None;
        }
        let (signed_in_at, token) = (session.signed_in_at, &session.unscoped.token);
        let (renewal, hard_end) = (policy::renewal(token), policy::hard_end(token));
        Some(Ending { signed_in_at, renewal, hard_end, ends: token.expires_at })
    }

    fn ends_soon(&self, identity: &Identity) -> bool {
        let now = self.clock.now();
        lock_unpoisoned(&self.state).sessions.get(identity).is_some_and(|session| session.ends_soon(now))
    }
}
