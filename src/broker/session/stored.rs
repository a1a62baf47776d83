//! A session as the vault has it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Held, Minted, Session};
use crate::error::Result;
use crate::formats::vault_contents::{StoredIssuedToken, StoredRefreshGrant, StoredSession, StoredToken};
use crate::signin::Grant;

impl Session {
    /// Its stored form: scoped tokens can be had again.
    pub(in crate::broker) fn store(&self) -> StoredSession {
        StoredSession {
            cloud: self.cloud.clone().into(),
            unscoped: StoredToken::from(&self.unscoped.token),
            token_revoked: self.dead,
            refresh_grant: self
                .grant
                .as_ref()
                .map(|grant| StoredRefreshGrant { refresh_token: grant.refresh_token.clone() }),
            auth_context: self.evidence.clone().map(Into::into),
            signed_in_at: self.signed_in_at,
            issued_at: self.made_at,
            ends_at: self.ends_at,
            issued_tokens: self.minted.iter().map(Minted::store).collect(),
        }
    }

    /// The session that was stored.
    pub(in crate::broker) fn restore(stored: StoredSession) -> Result<Self> {
        Ok(Self {
            cloud: stored.cloud.into(),
            unscoped: Arc::new(Held::new(stored.unscoped.into(), None)?),
            dead: stored.token_revoked,
            grant: stored.refresh_grant.map(|grant| Grant::stored(grant.refresh_token)),
            evidence: stored.auth_context.map(Into::into),
            tab: None,
            is_kept_renewed: false,
            renewal_failure: None,
            signed_in_at: stored.signed_in_at,
            made_at: stored.issued_at,
            tokens: HashMap::new(),
            ends_at: stored.ends_at,
            minted: stored.issued_tokens.into_iter().map(Into::into).collect(),
        })
    }
}

impl Minted {
    /// Its stored form.
    pub(in crate::broker) fn store(&self) -> StoredIssuedToken {
        StoredIssuedToken { id: self.id.clone(), scope: self.scope.clone(), expires_at: self.expires_at }
    }
}

impl From<StoredIssuedToken> for Minted {
    fn from(StoredIssuedToken { id, scope, expires_at }: StoredIssuedToken) -> Self {
        Self { id, scope, expires_at }
    }
}
