//! Renewal without the user: before a session's token ends, its refresh token gives another.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::Inner;
use super::policy::{self, Rests};
use super::session::{Held, Session};
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, Identity, Secret, User};
use crate::signin::{Grant, Refreshed};
use crate::sync::lock_unpoisoned;

impl Inner {
    /// Renews the session; false when it cannot be, and a sign-in is needed. Many callers cost one request.
    pub(super) async fn renew(self: &Arc<Self>, identity: &Identity) -> Result<bool> {
        let Some((cloud, _, user)) = self.grant(identity) else { return Ok(false) };
        let (inner, whose) = (self.clone(), identity.clone());
        let work = || async move {
            let outcome = inner.refresh(&whose).await;
            if let Err(error) = &outcome {
                inner.note_renewal_failure(&whose, &cloud, error);
            }
            inner.note_renewal(&cloud, &user, &outcome);
            outcome
        };
        self.renewals.join(identity.clone(), work).await
    }

    /// Renews the session ahead of need, for as long as it is the same one. While the identity provider does not answer,
    /// the pauses grow; once the token has ended, renewal waits for somebody to ask, and goes on from there.
    pub(super) fn keep_renewed(self: Arc<Self>, identity: Identity) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Some(since) = self.set_kept_renewed(&identity, None) else { return };
            self.renew_ahead(&identity, since).await;
            self.set_kept_renewed(&identity, Some(since));
        })
    }

    /// Marks the session as one that is renewed ahead, and says since when there is one; or, with that, as one that is not
    /// any more. Nothing when it is so already.
    fn set_kept_renewed(&self, identity: &Identity, since: Option<Timestamp>) -> Option<Timestamp> {
        let mut state = lock_unpoisoned(&self.state);
        let session = state.sessions.get_mut(identity)?;
        let is_kept = since.is_none();
        if session.is_kept_renewed == is_kept || since.is_some_and(|since| since != session.signed_in_at) {
            return None;
        }
        session.is_kept_renewed = is_kept;
        Some(session.signed_in_at)
    }

    async fn renew_ahead(self: &Arc<Self>, identity: &Identity, since: Timestamp) {
        let mut rests = Rests::NONE;
        while let Some((due, _)) = self.due(identity, since) {
            self.clock.sleep_until(rests.after(due)).await;
            if self.due(identity, since).is_none_or(|(newer, _)| newer != due) {
                // Somebody asked for more and had it renewed meanwhile.
                continue;
            }
            if self.departure.borrow().is_some() {
                // Whoever comes after us has the time that this takes.
                return;
            }
            match self.renew(identity).await {
                // A Keystone whose tokens are over at once (its clock is wrong, and it does not say) would be asked
                // without end.
                Ok(_) if self.is_due_at_once(identity) => return,
                Ok(_) => rests = Rests::NONE,
                Err(error) => {
                    let now = self.clock.now();
                    tracing::info!(%error, "renewal failed");
                    if self.due(identity, since).is_none_or(|(_, ends)| now >= ends) {
                        return;
                    }
                    rests.begin(now);
                }
            }
        }
    }

    /// When the session is to be renewed, and when its token ends; nothing when it is another one, or has no grant.
    fn due(&self, identity: &Identity, since: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let state = lock_unpoisoned(&self.state);
        let session = state.sessions.get(identity).filter(|session| session.signed_in_at == since)?;
        session.grant.as_ref()?;
        let token = &session.unscoped.token;
        Some((policy::renewal(token), token.expires_at))
    }

    /// Whether the session's token was past its renewal when it was made.
    fn is_due_at_once(&self, identity: &Identity) -> bool {
        let state = lock_unpoisoned(&self.state);
        let session = state.sessions.get(identity);
        session.is_some_and(|session| policy::renewal(&session.unscoped.token) <= session.made_at)
    }

    fn grant(&self, identity: &Identity) -> Option<(Cloud, Grant, User)> {
        let state = lock_unpoisoned(&self.state);
        let session = state.sessions.get(identity)?;
        Some((session.cloud.clone(), session.grant.clone()?, session.unscoped.token.user.clone()))
    }

    /// A new unscoped token by the refresh token, inside the flight of its identity. A network's failure costs no
    /// credential; only the identity provider's own word ends a grant.
    async fn refresh(self: &Arc<Self>, identity: &Identity) -> Result<bool> {
        self.check_lock()?;
        let Some((cloud, grant, user)) = self.grant(identity) else {
            return Ok(false);
        };
        let provider = grant.provider(&cloud, &self.outbound, &self.clock).await?;
        let old = &grant.refresh_token;
        let granted = match provider.refresh(old).await? {
            Refreshed::Granted(granted) => *granted,
            Refreshed::Ended(why) => {
                tracing::info!(cloud = cloud.label(), %why, "the identity provider ended the grant");
                self.with_grant(identity, old, |session| session.grant = None);
                self.note_renewal_failure(identity, &cloud, &why);
                return Ok(false);
            }
        };
        let newest = granted.refresh_token.unwrap_or_else(|| old.clone());
        let kept = self.with_grant(identity, old, |session| {
            session.grant = Some(grant.rotated(newest.clone()));
        });
        // On the disk before it is used: from now on the identity provider takes the old one for stolen.
        self.settle().await;
        if !kept {
            // Logged out while the identity provider answered: nothing of this must outlive the session.
            provider.revoke(&newest).await.ok();
            return Ok(false);
        }
        let keystone = self.keystone(&cloud)?;
        let token = keystone.federated(&granted.bearer).await?;
        if token.user.id != user.id {
            keystone.revoke(&token.id).await.ok();
            let why = format!("the renewed sign-in is {}, not {}", token.user.name, user.name);
            return Err(Error::new(Code::TokenRefused, why).cloud(cloud.label()));
        }
        let (id, held) = (token.id.clone(), Held::new(token, None)?);
        let now = self.clock.now();
        let kept = self.with_grant(identity, &newest, |session| session.renewed(held, granted.evidence, now));
        if !kept {
            keystone.revoke(&id).await.ok();
            return Ok(false);
        }
        let (inner, whose) = (self.clone(), identity.clone());
        tokio::spawn(async move { inner.clear_over(Some(&whose)).await });
        if !self.is_due_at_once(identity) {
            tokio::spawn(self.clone().keep_renewed(identity.clone()));
        }
        Ok(true)
    }

    /// Keeps why the session was not renewed, for the user who wonders at its end.
    fn note_renewal_failure(&self, identity: &Identity, cloud: &Cloud, error: &Error) {
        let provider = cloud.sign_in.oidc.as_ref().and_then(|oidc| oidc.discovery_endpoint.host_str());
        let at = provider.map_or(String::new(), |host| format!(" by {host}"));
        let mut state = lock_unpoisoned(&self.state);
        if let Some(session) = state.sessions.get_mut(identity) {
            session.renewal_failure = Some(format!("its renewal{at} failed: {}", error.detail));
        }
    }

    /// Changes the session that still has this refresh token.
    fn with_grant(&self, identity: &Identity, token: &Secret, change: impl FnOnce(&mut Session)) -> bool {
        let mut state = lock_unpoisoned(&self.state);
        let session = state.sessions.get_mut(identity);
        let same = |session: &&mut Session| {
            session.grant.as_ref().is_some_and(|grant| grant.refresh_token == *token)
        };
        let changed = session.filter(same).map(change).is_some();
        self.changes.note();
        changed
    }
}
