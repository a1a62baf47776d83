//! A session: what a sign-in left, and the tokens that were made from it.

mod stored;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use axum::body::Bytes;
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use crate::api::{self, CachedScope, TokenReply};
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, Evidence, Identity, OidcClient, Scope, Secret, Token};
use crate::signin::Grant;

use super::policy;
use super::revocation::Revocation;
use super::tab_renewal::Hold;

/// What a successful sign-in left. The vault keeps all but the scoped tokens: they can be had again.
pub(super) struct Session {
    /// The cloud it was made for: where and how Keystone is asked.
    pub(super) cloud: Cloud,
    /// The token that every scoped one is made from.
    pub(super) unscoped: Arc<Held>,
    /// Keystone does not honour it any more; only a renewal gives another.
    dead: bool,
    /// What renews it without the user.
    pub(super) grant: Option<Grant>,
    /// How the user proved who they are, as far as the identity provider tells.
    evidence: Option<Evidence>,
    /// The tab that may keep it going.
    pub(super) tab: Option<Hold>,
    /// Whether somebody sees to it that it is renewed ahead of need.
    pub(super) is_kept_renewed: bool,
    /// Why the last renewal failed, in a sentence.
    pub(super) renewal_failure: Option<String>,
    /// When the user signed in, by our clock.
    pub(super) signed_in_at: Timestamp,
    /// When the unscoped token was made, by the user or by the grant.
    pub(super) made_at: Timestamp,
    tokens: HashMap<Scope, Arc<Held>>,
    /// When it is to be logged out, however long it could go on.
    pub(super) ends_at: Option<Timestamp>,
    /// Every token made from this session, for the logout: also those that are not served any more.
    minted: Vec<Minted>,
}

/// A token with the answer that serves it, rendered once.
pub struct Held {
    pub(super) token: Token,
    reply: Bytes,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.token.fmt(f)
    }
}

impl Held {
    /// A [`TokenReply`] as JSON.
    pub fn reply(&self) -> Bytes {
        self.reply.clone()
    }

    /// `assumed` says what was filled in to get the token.
    pub(super) fn new(token: Token, assumed: Option<String>) -> Result<Self> {
        let reply = TokenReply {
            token_id: token.id.clone(),
            expires_at: token.expires_at,
            assumed,
            body: token.body.clone(),
        };
        let json =
            serde_json::to_vec(&reply).map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        // Wiped when the last answer that holds it has been sent.
        Ok(Self { token, reply: Bytes::from_owner(Zeroizing::new(json)) })
    }
}

/// A token that Keystone made for us.
#[derive(Clone)]
pub(super) struct Minted {
    pub(super) id: Secret,
    pub(super) scope: String,
    pub(super) expires_at: Timestamp,
}

impl Minted {
    pub(super) fn of(scope: &Scope, token: &Token) -> Self {
        Self { id: token.id.clone(), scope: scope.to_string(), expires_at: token.expires_at }
    }
}

impl Session {
    pub(super) fn new(
        cloud: Cloud,
        unscoped: Held,
        grant: Option<Grant>,
        evidence: Option<Evidence>,
        now: Timestamp,
    ) -> Self {
        let minted = vec![Minted::of(&Scope::Unscoped, &unscoped.token)];
        Self {
            // What it was proved with has done its part, and is nobody's to keep.
            cloud: Cloud { sign_in: cloud.sign_in.without_proof(), ..cloud },
            unscoped: Arc::new(unscoped),
            dead: false,
            grant,
            evidence,
            tab: None,
            is_kept_renewed: false,
            renewal_failure: None,
            signed_in_at: now,
            made_at: now,
            tokens: HashMap::new(),
            ends_at: None,
            minted,
        }
    }

    /// Puts a new unscoped token in the place of the old one. Scoped ones are made from it when next asked for; until
    /// then the old ones are served as long as they live.
    pub(super) fn renewed(&mut self, unscoped: Held, evidence: Option<Evidence>, now: Timestamp) {
        // A renewal need not say again what the sign-in said.
        self.evidence = evidence.or_else(|| self.evidence.take());
        self.minted.retain(|minted| minted.expires_at > now);
        self.minted.push(Minted::of(&Scope::Unscoped, &unscoped.token));
        self.unscoped = Arc::new(unscoped);
        self.dead = false;
        self.renewal_failure = None;
        self.made_at = now;
    }

    /// Makes the tokens of an earlier session of the same identity ours to revoke.
    pub(super) fn take_over(&mut self, earlier: &Self, now: Timestamp) {
        self.minted.splice(0..0, earlier.minted.iter().filter(|minted| minted.expires_at > now).cloned());
    }

    /// The token of a scope, however much life it has left.
    pub(super) fn held(&self, scope: &Scope) -> Option<&Arc<Held>> {
        match scope {
            Scope::Unscoped => Some(&self.unscoped).filter(|_| !self.dead),
            _ => self.tokens.get(scope),
        }
    }

    pub(super) fn insert(&mut self, scope: Scope, held: Arc<Held>, now: Timestamp) {
        self.minted.retain(|minted| minted.expires_at > now);
        self.minted.push(Minted::of(&scope, &held.token));
        self.tokens.insert(scope, held);
    }

    /// Forgets a token that Keystone does not honour any more.
    pub(super) fn forget(&mut self, id: &Secret) {
        self.tokens.retain(|_, held| held.token.id != *id);
        self.dead |= self.unscoped.token.id == *id;
    }

    /// Drops the scoped tokens, so that the next request mints anew; they are still revoked at logout.
    pub(super) fn drop_scoped(&mut self) -> usize {
        self.tokens.drain().count()
    }

    /// Whether it shows what this entry requires; clouds that share an identity may differ in that.
    pub(super) fn meets(&self, cloud: &Cloud, now: Timestamp) -> bool {
        cloud.missing(self.evidence.as_ref(), now).is_none()
    }

    /// Whether the session can still give tokens of at least this life.
    pub(super) fn lives(&self, now: Timestamp, min_validity: u64) -> bool {
        let wanted = policy::lifetime(min_validity);
        let lasts = self.ends_at.is_none_or(|ends_at| ends_at.duration_since(now) > wanted);
        !self.dead && lasts && policy::serves(&self.unscoped.token, now, min_validity)
    }

    /// Whether its time is over.
    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|ends_at| ends_at <= now)
    }

    /// When it ends without another sign-in, if nothing renews it beyond that.
    pub(super) fn last_end(&self, now: Timestamp) -> Option<Timestamp> {
        let keeps = self.renews() || self.tab.as_ref().is_some_and(Hold::keeps);
        let token = (!keeps).then_some(self.unscoped.token.expires_at).filter(|end| *end > now);
        self.ends_at.into_iter().chain(token).min()
    }

    /// From when on it is about to reach the end that was set.
    pub(super) fn soon(&self) -> Option<Timestamp> {
        let ends_at = self.ends_at?;
        let ahead = SignedDuration::from_mins(10).min(ends_at.duration_since(self.signed_in_at) / 2);
        Some(ends_at - ahead)
    }

    /// Whether a token may be served to a caller who asks for this life. Right after a sign-in nothing
    /// longer can be had.
    pub(super) fn is_enough(&self, held: &Held, now: Timestamp, min_validity: u64) -> bool {
        let wanted = if self.is_fresh(now) { 0 } else { min_validity };
        policy::serves(&held.token, now, wanted)
    }

    /// Whether the session's token was made a moment ago, so that another one would last no longer.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now.duration_since(self.made_at) < policy::FRESH
    }

    /// The session's own token, while Keystone takes it.
    pub(super) fn own_token(&self, now: Timestamp) -> Option<&Arc<Held>> {
        Some(&self.unscoped).filter(|held| !self.dead && held.token.expires_at > now)
    }

    pub(super) fn renews(&self) -> bool {
        self.grant.is_some() || self.cloud.sign_in.renews()
    }

    /// Whether it is about to end, and nothing renews it: a user who asks for a sign-in gets one.
    pub(super) fn ends_soon(&self, now: Timestamp) -> bool {
        let renews = self.renews() || self.tab.as_ref().is_some_and(Hold::keeps);
        let over_soon = self.soon().is_some_and(|soon| soon <= now);
        over_soon || !renews && policy::renewal(&self.unscoped.token) <= now
    }

    /// Whether nothing can be had from it, and nothing need be revoked.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.grant.is_none() && self.minted.iter().all(|minted| minted.expires_at <= now)
    }

    /// What is left to do for a session that is logged out.
    pub(super) fn into_revocation(self, identity: Identity, now: Timestamp) -> Revocation {
        Revocation {
            identity,
            tokens: self.minted(now),
            user: self.unscoped.token.user.clone(),
            cloud: self.cloud,
            grant: self.grant,
            reason: None,
        }
    }

    /// The living tokens that it made: scoped ones first, because the unscoped one opens the way to them.
    pub(super) fn minted(&self, now: Timestamp) -> Vec<Minted> {
        self.minted.iter().rev().filter(|minted| minted.expires_at > now).cloned().collect()
    }

    /// `labels` are those of the clouds that have used it.
    pub(super) fn view(&self, labels: &[String], now: Timestamp) -> api::Session {
        let mut scopes: Vec<_> = self
            .tokens
            .iter()
            .filter(|(_, held)| held.token.expires_at > now)
            .map(|(scope, held)| CachedScope { scope: scope.to_string(), expires_at: held.token.expires_at })
            .collect();
        scopes.sort_by(|a, b| a.scope.cmp(&b.scope));
        api::Session {
            clouds: labels.to_owned(),
            auth_url: self.cloud.auth_url.to_string(),
            identity_provider: self.cloud.identity_provider.clone(),
            protocol: self.cloud.protocol.clone(),
            account: self.cloud.account.clone(),
            user: self.unscoped.token.user.clone(),
            signed_in_at: self.signed_in_at,
            expires_at: self
                .ends_at
                .map_or(self.unscoped.token.expires_at, |end| end.min(self.unscoped.token.expires_at)),
            ends_at: self.ends_at,
            renews: self.renews(),
            renewal_failure: self.renewal_failure.clone(),
            offline_access: self.grant.is_some()
                && self.cloud.sign_in.oidc.as_ref().is_some_and(OidcClient::asks_offline_access),
            kept_by_tab: self.tab.as_ref().is_some_and(Hold::keeps),
            ends_soon: self.ends_soon(now),
            evidence: self.evidence.clone(),
            scopes,
            tls_verified: self.cloud.tls.verify,
        }
    }
}
