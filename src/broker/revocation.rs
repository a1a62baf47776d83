//! What a logout could not revoke. It is kept for that alone, and tried again until it is revoked or has expired.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::select;

use super::policy::Rests;
use super::session::Minted;
use super::{Inner, State};
use crate::api::{LoggedOut, NotRevoked, Unrevoked};
use crate::error::{Code, Error, Result};
use crate::formats::vault_contents::{StoredRefreshGrant, StoredRevocation};
use crate::model::{Cloud, Identity, User};
use crate::platform::network;
use crate::signin::Grant;
use crate::sync::lock_unpoisoned;

/// What a session that was logged out still has at its cloud and its identity provider.
#[derive(Clone)]
pub(super) struct Revocation {
    pub(super) identity: Identity,
    pub(super) cloud: Cloud,
    pub(super) user: User,
    /// Scoped tokens first: the unscoped one opens the way to them.
    pub(super) tokens: Vec<Minted>,
    pub(super) grant: Option<Grant>,
    /// Why the last attempt left something.
    pub(super) reason: Option<String>,
}

impl From<StoredRevocation> for Revocation {
    fn from(stored: StoredRevocation) -> Self {
        Self {
            identity: Identity::from_bytes(stored.identity),
            cloud: stored.cloud.into(),
            user: stored.user.into(),
            tokens: stored.tokens.into_iter().map(Into::into).collect(),
            grant: stored.refresh_grant.map(|grant| Grant::stored(grant.refresh_token)),
            reason: None,
        }
    }
}

impl Revocation {
    /// Its stored form.
    pub(super) fn store(&self) -> StoredRevocation {
        StoredRevocation {
            identity: self.identity.bytes(),
            cloud: self.cloud.clone().into(),
            user: self.user.clone().into(),
            tokens: self.tokens.iter().map(Minted::store).collect(),
            refresh_grant: self
                .grant
                .as_ref()
                .map(|grant| StoredRefreshGrant { refresh_token: grant.refresh_token.clone() }),
        }
    }

    /// Whether nothing is left to revoke.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.grant.is_none() && self.tokens.iter().all(|token| token.expires_at <= now)
    }

    /// How it is reported while no server has answered yet.
    pub(super) fn unanswered(&self, now: Timestamp) -> LoggedOut {
        let waiting = Self { reason: Some(UNANSWERED.to_owned()), ..self.clone() };
        LoggedOut {
            cloud: self.cloud.label().to_owned(),
            user: self.user.clone(),
            revoked: 0,
            not_revoked: waiting.view(now).not_revoked,
            logout_url: None,
        }
    }

    /// What is left, for a list.
    fn view(&self, now: Timestamp) -> Unrevoked {
        let reason = || self.reason.clone().unwrap_or_else(|| "being revoked".to_owned());
        let tokens = self.tokens.iter().filter(|token| token.expires_at > now);
        let tokens = tokens.map(|token| NotRevoked {
            scope: token.scope.clone(),
            expires_at: Some(token.expires_at),
            reason: reason(),
            is_final: false,
        });
        let grant = self.grant.iter().map(|_| NotRevoked::grant(reason(), false));
        Unrevoked {
            cloud: self.cloud.label().to_owned(),
            user: Some(self.user.clone()),
            lease: None,
            not_revoked: tokens.chain(grant).collect(),
        }
    }
}

/// Why something is not revoked that a server was asked to revoke.
pub(super) const UNANSWERED: &str = "there is no answer yet";

impl NotRevoked {
    fn grant(reason: String, is_final: bool) -> Self {
        Self { scope: "the identity provider's refresh".to_owned(), expires_at: None, reason, is_final }
    }
}

impl State {
    /// What was logged out or ended and is still good at a cloud.
    pub(super) fn unrevoked(&self, now: Timestamp) -> Vec<Unrevoked> {
        let sessions = self.revocations.iter().filter(|left| !left.is_over(now)).map(|left| left.view(now));
        let leases = self.over.iter().filter(|lease| !lease.leaves_nothing(now));
        sessions.chain(leases.map(|lease| lease.unrevoked(now))).collect()
    }
}

impl Inner {
    /// Revokes what these sessions gave, as far as that goes now; the rest is tried again later.
    pub(super) async fn revoke_all(self: &Arc<Self>, revocations: Vec<Arc<Revocation>>) -> Vec<LoggedOut> {
        // Whatever happens while Keystone is asked, nobody is signed in again.
        self.settle().await;
        let outcomes = join_all(revocations.iter().map(|revocation| self.revoke(revocation))).await;
        let now = self.clock.now();
        let mut logged_out = Vec::new();
        {
            let mut state = lock_unpoisoned(&self.state);
            for (tried, (left, outcome)) in revocations.iter().zip(outcomes) {
                logged_out.push(outcome);
                // Another attempt may have come first.
                let place = state.revocations.iter().position(|known| Arc::ptr_eq(known, tried));
                match place {
                    Some(place) if left.is_over(now) => drop(state.revocations.remove(place)),
                    Some(place) => state.revocations[place] = Arc::new(left),
                    None => {}
                }
            }
            self.changes.note();
        }
        self.settle().await;
        self.retry_revocations();
        logged_out
    }

    /// Revokes what a session minted. Keystone does not do it by chain: a rescoped federated token outlives the one it
    /// came from.
    async fn revoke(&self, revocation: &Revocation) -> (Revocation, LoggedOut) {
        let mut left = revocation.clone();
        let now = self.clock.now();
        left.tokens.retain(|token| token.expires_at > now);
        let outcomes: Vec<Result<()>> = match self.keystone(&revocation.cloud) {
            Ok(keystone) => join_all(left.tokens.iter().map(|token| keystone.revoke(&token.id))).await,
            Err(error) => left.tokens.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut not_revoked = Vec::new();
        let mut revoked = 0;
        for (token, outcome) in std::mem::take(&mut left.tokens).into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => revoked += 1,
                Err(Error { detail: reason, .. }) => {
                    let (scope, expires_at) = (token.scope.clone(), Some(token.expires_at));
                    not_revoked.push(NotRevoked { scope, expires_at, reason, is_final: false });
                    left.tokens.push(token);
                }
            }
        }
        if let Some(grant) = &revocation.grant
            && let Err(error) = self.end_grant(&revocation.cloud, grant).await
        {
            // An identity provider that refuses will go on refusing: its refresh token has no end that is known here.
            let is_final = !is_unreachable(&error);
            if is_final {
                left.grant = None;
            }
            not_revoked.push(NotRevoked::grant(error.detail, is_final));
        } else {
            left.grant = None;
        }
        left.reason = not_revoked.first().map(|first| first.reason.clone());
        let end_session_url = || revocation.grant.as_ref()?.end_session_url();
        let logout_url = self.config.logout_url(&revocation.cloud).or_else(end_session_url);
        let outcome = LoggedOut {
            cloud: revocation.cloud.label().to_owned(),
            user: revocation.user.clone(),
            revoked,
            not_revoked,
            logout_url: logout_url.map(String::from),
        };
        (left, outcome)
    }

    /// Ends a refresh token at the identity provider.
    pub(super) async fn end_grant(&self, cloud: &Cloud, grant: &Grant) -> Result<()> {
        let provider = grant.provider(cloud, &self.outbound, &self.clock).await?;
        provider.revoke(&grant.refresh_token).await
    }

    /// Tries again, in growing pauses and whenever the network changes, for as long as something is left that another
    /// attempt may revoke.
    pub(super) fn retry_revocations(self: &Arc<Self>) {
        {
            let mut state = lock_unpoisoned(&self.state);
            if state.is_retrying || !state.has_retries(self.clock.now()) {
                return;
            }
            state.is_retrying = true;
        }
        let inner = self.clone();
        tokio::spawn(async move {
            let mut rests = Rests::SHORT;
            loop {
                let now = inner.clock.now();
                rests.begin(now);
                select! {
                    () = inner.clock.sleep_until(rests.after(now)) => {}
                    () = network::changed() => rests = Rests::SHORT,
                }
                let revocations = lock_unpoisoned(&inner.state).revocations.clone();
                if !revocations.is_empty() {
                    Box::pin(inner.revoke_all(revocations)).await;
                }
                inner.clear_over(None).await;
                let mut state = lock_unpoisoned(&inner.state);
                if !state.has_retries(inner.clock.now()) || inner.departure.borrow().is_some() {
                    state.is_retrying = false;
                    return;
                }
            }
        });
    }
}

impl State {
    /// Whether another attempt may revoke something. What only the user's next sign-in can delete waits for that.
    fn has_retries(&self, now: Timestamp) -> bool {
        let is_unreachable =
            |id: &String| self.over.iter().any(|lease| lease.id == *id && !lease.leaves_nothing(now));
        self.revocations.iter().any(|left| !left.is_over(now)) || self.unreachable.iter().any(is_unreachable)
    }
}

/// Whether the server may answer another time.
pub(super) fn is_unreachable(error: &Error) -> bool {
    matches!(
        error.code,
        Code::KeystoneUnreachable
            | Code::KeystoneError
            | Code::NotKeystone
            | Code::IdentityProviderUnreachable
            | Code::KeystoneTls
            | Code::IdentityProviderTls
    )
}
