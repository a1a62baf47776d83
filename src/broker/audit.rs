//! What goes into the audit log: each operation as its caller asked for it, and what the agent does by itself.

use std::sync::Arc;

use jiff::SignedDuration;

use super::{Broker, Inner, Leased, LoggedIn, Served};
use crate::api::{Lease, LeaseRequest, LoggedOut, LoginRequest, TokenRequest};
use crate::audit::{Action, Log, Outcome, What, Who};
use crate::error::{Error, Result};
use crate::model::{Cloud, Scope, Token, User};
use crate::platform::peer_program::{Peer, Program};

/// What happens again and again is written so often.
const FLUSH: SignedDuration = SignedDuration::from_mins(5);

impl Broker {
    /// Notes what somebody asked of the agent as a whole, and how it ended.
    pub fn note<T>(&self, peer: Peer, action: Action, outcome: &Result<T>) {
        let what = What::done(action).or(outcome.as_ref().err());
        self.inner.note(Who::Peer(peer), what);
    }

    /// The agent is about to end: everything that was noted is in the file when this returns.
    pub async fn close_log(&self) {
        self.inner.log.flush();
        self.inner.note(Who::Agent, What::done(Action::Stop));
        self.inner.log.flushed().await;
    }

    /// The program at the other end of a connection, while it is there.
    pub async fn identify(&self, peer: Peer) -> Option<Arc<Program>> {
        self.inner.log.identify(peer).await
    }
}

impl What {
    /// The same, but that it failed, if it did.
    pub(super) fn or(self, error: Option<&Error>) -> Self {
        let Some(error) = error else { return self };
        Self {
            outcome: Outcome::Refused,
            code: Some(error.code),
            request_id: error.request_id.clone(),
            ..self
        }
    }

    fn of(self, cloud: &Cloud) -> Self {
        Self { cloud: Some(cloud.label().to_owned()), ..self }
    }

    fn waits(self) -> Self {
        Self { outcome: Outcome::Waits, ..self }
    }

    fn with(self, token: &Token) -> Self {
        Self { user: Some(token.user.name.clone()), request_id: token.request_id.clone(), ..self }
    }
}

impl Inner {
    pub(super) fn note(&self, who: Who, what: What) {
        self.log.note(self.clock.now(), who, what);
    }

    pub(super) fn note_token(&self, peer: Peer, request: &TokenRequest, outcome: &Result<Served>) {
        let what = What { scope: Some(request.scope.to_string()), ..What::done(Action::Token) };
        let what = what.of(&request.cloud);
        self.note(
            Who::Peer(peer),
            match outcome {
                Ok(Served::Token(held)) => what.with(&held.token),
                Ok(Served::SignIn(_)) => what.waits(),
                Err(error) => what.or(Some(error)),
            },
        );
    }

    pub(super) fn note_login(&self, peer: Peer, request: &LoginRequest, outcome: &Result<LoggedIn>) {
        let what = What::done(Action::Login).of(&request.cloud);
        self.note(
            Who::Peer(peer),
            match outcome {
                Ok(LoggedIn::Session(session)) => What { user: Some(session.user.name.clone()), ..what },
                Ok(LoggedIn::SignIn(_)) => what.waits(),
                Err(error) => what.or(Some(error)),
            },
        );
    }

    pub(super) fn note_lease(&self, peer: Peer, request: &LeaseRequest, outcome: &Result<Leased>) {
        let what = What { scope: Some(request.scope.to_string()), ..What::done(Action::Lease) };
        let what = what.of(&request.cloud);
        self.note(
            Who::Peer(peer),
            match outcome {
                Ok(Leased::Lease(reply)) => {
                    let lease = &reply.lease;
                    let kinds = [(lease.confined, "confined"), (lease.unattended, "unattended")];
                    let kinds: Vec<_> = kinds.iter().filter(|(is, _)| *is).map(|(_, kind)| *kind).collect();
                    let detail = Some(kinds.join(", ")).filter(|kinds| !kinds.is_empty());
                    What { lease: Some(lease.name.clone()), detail, ..what }
                }
                Ok(Leased::SignIn(_)) => what.waits(),
                Err(error) => What { lease: request.name.clone(), ..what.or(Some(error)) },
            },
        );
    }

    /// A lease's holder asked for a token.
    pub(super) fn note_lease_token(
        &self,
        program: Option<Arc<Program>>,
        lease: &str,
        cloud: &Cloud,
        scope: &Scope,
        outcome: &Result<Arc<Token>>,
    ) {
        let lease = Some(lease.to_owned());
        let what = What { scope: Some(scope.to_string()), lease, ..What::done(Action::Token) }.of(cloud);
        self.note(
            Who::Program(program),
            match outcome {
                Ok(token) => what.with(token),
                Err(error) => what.or(Some(error)),
            },
        );
    }

    /// Somebody showed what is no lease's. There may be very many of them: nobody looks who it is.
    pub(super) fn note_stranger(&self, error: &Error) {
        self.note(Who::Program(None), What::done(Action::Token).or(Some(error)));
    }

    pub(super) fn note_lease_end(&self, who: Who, lease: &Lease) {
        let (lease, cloud) = (Some(lease.name.clone()), Some(lease.cloud.clone()));
        self.note(who, What { cloud, lease, ..What::done(Action::LeaseEnd) });
    }

    pub(super) fn note_sign_in(&self, cloud: &Cloud, user: Option<&User>, outcome: &Result<()>) {
        let user = user.filter(|_| outcome.is_ok()).map(|user| user.name.clone());
        let what = What { user, ..What::done(Action::SignIn) }.of(cloud);
        self.note(Who::Agent, what.or(outcome.as_ref().err()));
    }

    pub(super) fn note_sign_in_begun(&self, cloud: &Cloud) {
        self.note(Who::Agent, What::done(Action::SignIn).of(cloud).waits());
    }

    pub(super) fn note_renewal(&self, cloud: &Cloud, user: &User, outcome: &Result<bool>) {
        let what = What { user: Some(user.name.clone()), ..What::done(Action::Renewal) }.of(cloud);
        self.note(
            Who::Agent,
            match outcome {
                Ok(true) => what,
                Ok(false) => What { outcome: Outcome::Refused, ..what },
                Err(error) => what.or(Some(error)),
            },
        );
    }

    pub(super) fn note_logout(&self, who: &Who, ended: &[LoggedOut]) {
        for LoggedOut { cloud, user, revoked, not_revoked, .. } in ended {
            let detail = Some(format!("{revoked} token(s) revoked, {} not", not_revoked.len()));
            let (cloud, user) = (Some(cloud.clone()), Some(user.name.clone()));
            self.note(who.clone(), What { cloud, user, detail, ..What::done(Action::Logout) });
        }
    }

    pub(super) fn note_trust(&self, peer: Peer, cloud: &Cloud, outcome: &Result<()>) {
        let what = What { detail: Some(cloud.keystone_root()), ..What::done(Action::Trust) }.of(cloud);
        self.note(Who::Peer(peer), what.or(outcome.as_ref().err()));
    }
}

/// Writes what is pending in time, for as long as there is a log.
pub(super) async fn keep(log: std::sync::Weak<Log>, clock: crate::time::SharedClock) {
    loop {
        let Some(pending) = log.upgrade().map(|log| log.pending()) else { return };
        pending.await;
        clock.sleep_until(clock.now() + FLUSH).await;
        let Some(log) = log.upgrade() else { return };
        log.flush();
    }
}
