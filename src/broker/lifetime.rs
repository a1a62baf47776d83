//! Sessions and leases that end at a time that was set, however long they could go on (`ssh-add -t`).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Broker, Inner, policy};
use crate::audit::Who;
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, Identity};
use crate::sync::lock_unpoisoned;

impl Inner {
    /// When a session that begins now is to end: what its user wants, and no later than the settings say.
    pub(super) fn session_end(&self, begins: Timestamp, wish: Option<SignedDuration>) -> Option<Timestamp> {
        let longest = self.config.session_lifetime;
        wish.into_iter().chain(longest).min().map(|lifetime| begins + lifetime)
    }

    /// The user wants the session to end so long after now; it does not outlive the settings by that.
    pub(super) fn shorten(self: &Arc<Self>, identity: &Identity, wish: SignedDuration) {
        let now = self.clock.now();
        let changed = lock_unpoisoned(&self.state).sessions.get_mut(identity).map(|session| {
            let latest = self.session_end(session.signed_in_at, None);
            session.ends_at = Some(latest.map_or(now + wish, |latest| latest.min(now + wish)));
            self.changes.note();
        });
        if changed.is_some() {
            let (inner, identity) = (self.clone(), identity.clone());
            tokio::spawn(async move { inner.end_in_time(&identity).await });
        }
    }

    /// Waits for the session's end, tells ahead of it, and logs it out; another end is another's to wait for.
    pub(super) async fn end_in_time(self: &Arc<Self>, identity: &Identity) {
        let due = || {
            let state = lock_unpoisoned(&self.state);
            let session = state.sessions.get(identity)?;
            Some((session.ends_at?, session.soon()?, session.unscoped.token.expires_at, session.renews()))
        };
        let Some((ends, soon, ..)) = due() else { return };
        self.clock.sleep_until(soon).await;
        if let Some((same, _, token_ends, renews)) = due()
            && same == ends
            && (renews || token_ends > ends)
        {
            self.notify(identity, ends).await;
        }
        self.clock.sleep_until(ends).await;
        if due().is_some_and(|(same, ..)| same == ends) {
            tracing::info!("a session has reached its lifetime");
            let broker = Broker { inner: self.clone() };
            if let Err(error) = broker.end_identities(Some(identity), Who::Agent).await {
                tracing::warn!(%error, "a session could not be ended");
            }
        }
    }

    /// Refuses a lease that goes on without its user where the settings do.
    pub(super) fn check_unattended(&self, cloud: &Cloud) -> Result<()> {
        if self.config.unattended {
            return Ok(());
        }
        let file = self.config.origin("lease.unattended");
        Err(Error::new(
            Code::NotAllowed,
            format!("{file} has `unattended = false`: no lease goes on without you"),
        )
        .cloud(cloud.label())
        .remedy(format!("leave out --unattended, and stay signed in: ksb login {}", cloud.argument())))
    }

    /// When a lease that is made at this time is to end, and what there is to say about that.
    pub(super) fn lease_end(&self, made: Timestamp, ttl: Option<u64>) -> (Option<Timestamp>, Option<String>) {
        let wish = ttl.map(policy::lifetime);
        let longest = self.config.lease_lifetime;
        let is_cut = longest.is_some_and(|longest| wish.is_none_or(|wish| wish > longest));
        let notice = is_cut.then(|| {
            format!("lease.lifetime in {} ends it sooner than asked", self.config.origin("lease.lifetime"))
        });
        (wish.into_iter().chain(longest).min().map(|lifetime| made + lifetime), notice)
    }
}
