//! Locked: what is signed in lies sealed in the vault, and no process knows it.
//!
//! The agent's own memory is forgotten by a fresh process in its place (`leaving`). A file beside the socket says that
//! it is locked: whoever kills the agent does not open it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::Mutex;

use super::shutdown::Departure;
use super::{Broker, Inner, policy};
use crate::api::{LockReason, LockReply, LockReport, VaultReport, VaultState};
use crate::audit::{Action, What, Who};
use crate::error::{Code, Error, Result};
use crate::formats::Format;
use crate::formats::lock_file::{LockFile, Reason};
use crate::model::Secret;
use crate::platform::files;
use crate::platform::peer_program::Peer;
use crate::sync::lock_unpoisoned;

/// Held by whoever opens the vault.
pub(super) type Turn = Arc<Mutex<()>>;

impl Broker {
    /// Locks: nothing is given out any more, no browser is opened, and this process makes room for one that knows
    /// nothing. Where nothing is kept on the disk, that is a logout. Without a `peer` it is the machine that locks.
    pub async fn lock(&self, reason: LockReason, peer: Option<Peer>) -> Result<LockReply> {
        if let Some(peer) = peer {
            self.inner.log.meet(peer).await;
        }
        {
            let mut state = lock_unpoisoned(&self.inner.state);
            state.locks += 1;
            state.is_welcome = false;
        }
        // A caller that leaves meanwhile cuts nothing off.
        let broker = self.clone();
        let who = peer.map_or(Who::Agent, Who::Peer);
        let locking = self.inner.work.spawn(async move {
            let knows_nothing = broker.is_locked() && broker.inner.departure.borrow().is_none();
            let mut outcome = broker.lock_now(reason, who.clone()).await;
            let what = What { detail: Some(reason.to_string()), ..What::done(Action::Lock) };
            broker.inner.note(who, what.or(outcome.as_ref().err()));
            if peer.is_none() {
                broker.inner.tell_of_lock(&outcome);
            }
            if broker.is_locked() && !knows_nothing {
                let sleeps = reason == LockReason::Sleep;
                broker.depart(if sleeps { Departure::Sleep } else { Departure::Lock });
                if let Ok(reply) = &mut outcome {
                    reply.restarts = true;
                }
            }
            outcome
        });
        locking.await.map_err(|error| Error::new(Code::Internal, error.to_string()))?
    }

    async fn lock_now(&self, reason: LockReason, who: Who) -> Result<LockReply> {
        let inner = &self.inner;
        inner.check_room()?;
        let was_locked = lock_unpoisoned(&inner.state).lock.clone();
        if let Some(lock) = was_locked {
            // If the user locked it, the screen does not unlock it.
            let reason = if reason == LockReason::Person { reason } else { lock.reason };
            let lock = LockReport { reason, ..lock };
            inner.set_lock(Some(lock.clone()))?;
            return Ok(LockReply {
                lock,
                logged_out: None,
                paused: 0,
                through: inner.through(),
                restarts: false,
            });
        }
        inner.settle().await;
        let vault = inner.vault.report();
        if let Some(problem) = &vault.problem {
            let why = format!("what is newer than the vault would be lost: {problem}");
            return Err(Error::new(Code::VaultUnusable, why)
                .remedy("mend that, then: ksb lock; or give it up: ksb logout --all"));
        }
        let lock = LockReport { since: inner.clock.now(), reason };
        inner.set_lock(Some(lock.clone()))?;
        for entry in lock_unpoisoned(&inner.state).pending.values() {
            entry.opening.cancel.notify_one();
        }
        let is_kept = vault.state == VaultState::Open || lock_unpoisoned(&inner.state).is_empty();
        let logged_out = if is_kept { None } else { Some(self.end_identities(None, who).await?) };
        let through = inner.through();
        let leases = lock_unpoisoned(&inner.state).leases.len();
        let paused = u32::try_from(leases).unwrap_or(u32::MAX) - through;
        tracing::info!(?reason, "locked");
        Ok(LockReply { lock, logged_out, paused, through, restarts: false })
    }

    /// Opens the vault, and with it the lock. One try at a time, and each failure makes the next one wait longer.
    pub(super) async fn unlock(&self, passphrase: Option<Secret>, who: Who) -> Result<VaultReport> {
        let inner = &self.inner;
        let locks = lock_unpoisoned(&inner.state).locks;
        let turn = inner.turn.clone().lock_owned().await;
        if passphrase.is_some() {
            let (failures, last) = lock_unpoisoned(&inner.state).tries;
            inner.clock.sleep_until(last + policy::unlock_pause(failures)).await;
        }
        if inner.departure.borrow().is_some() {
            // What is still in this process's memory is not to be had any more: its successor is asked.
            return std::future::pending().await;
        }
        // A caller that leaves meanwhile takes back no try, and nothing of what is opened.
        let broker = self.clone();
        let unlocking = tokio::spawn(async move {
            let outcome = broker.unlock_now(passphrase, who, locks).await;
            drop(turn);
            outcome
        });
        unlocking.await.map_err(|error| Error::new(Code::Internal, error.to_string()))?
    }

    /// `locks` is how often it was to be locked when this was wished.
    async fn unlock_now(&self, passphrase: Option<Secret>, who: Who, locks: u64) -> Result<VaultReport> {
        let inner = &self.inner;
        let is_a_try = passphrase.is_some();
        let opened = inner.unseal(passphrase).await;
        if is_a_try {
            let failed = opened.as_ref().is_err_and(|error| error.code == Code::VaultSealed);
            {
                let mut state = lock_unpoisoned(&inner.state);
                state.tries =
                    if failed { (state.tries.0 + 1, inner.clock.now()) } else { Default::default() };
            }
            inner.remark();
        }
        opened?;
        if lock_unpoisoned(&inner.state).locks != locks {
            // What was opened is to be forgotten again.
            self.depart(Departure::Lock);
            return Err(is_locked());
        }
        if inner.set_lock(None)?.is_some() {
            tracing::info!("unlocked");
            inner.note(who, What::done(Action::Unlock));
        }
        Ok(inner.vault.report())
    }

    /// Whether nothing is given out.
    pub fn is_locked(&self) -> bool {
        self.inner.check_lock().is_err()
    }

    /// The user is back at their screen: what the machine locked opens, if nobody has to type anything for it.
    pub async fn welcome(&self) {
        {
            let mut state = lock_unpoisoned(&self.inner.state);
            if state.lock.as_ref().is_none_or(|lock| lock.reason == LockReason::Person) {
                return;
            }
            if self.inner.departure.borrow().is_some() {
                state.is_welcome = true;
                return;
            }
        }
        if let Err(error) = self.unlock(None, Who::Agent).await {
            tracing::info!(%error, "stays locked");
        }
    }

    /// Locks when nobody asked for anything for so long.
    pub async fn lock_when_idle(&self, idle: SignedDuration) {
        let mut since = self.inner.clock.now();
        loop {
            self.inner.clock.sleep_until(since + idle).await;
            let now = self.inner.clock.now();
            let (used_at, has_some) = {
                let state = lock_unpoisoned(&self.inner.state);
                (state.used_at, !state.sessions.is_empty() && state.lock.is_none())
            };
            match used_at {
                Some(used_at) if used_at > since => since = used_at,
                _ if !has_some => since = now,
                _ => {
                    if let Err(error) = self.lock(LockReason::Idle, None).await {
                        tracing::warn!(%error, "cannot be locked");
                        since = now;
                    }
                }
            }
        }
    }
}

impl Inner {
    /// Looks whether an earlier process was locked.
    pub(super) fn recall_lock(&self) {
        let Ok(json) = fs::read(self.lock_file()) else { return };
        // Of a file that is not understood only its being there counts.
        let file = LockFile::read(&json).unwrap_or_else(|_| LockFile {
            version: LockFile::VERSION,
            since: self.clock.now(),
            reason: Reason::User,
            ended_leases: Vec::new(),
            unlock_failures: Default::default(),
        });
        let mut state = lock_unpoisoned(&self.state);
        state.lock = Some(LockReport { since: file.since, reason: file.reason.into() });
        state.tries = file.unlock_failures;
        state.through.extend(file.ended_leases);
    }

    /// Refuses while it is locked.
    pub(super) fn check_lock(&self) -> Result<()> {
        match &lock_unpoisoned(&self.state).lock {
            Some(_) => Err(is_locked()),
            None => Ok(()),
        }
    }

    /// A user's tool asked for something.
    pub(super) fn used(&self) {
        lock_unpoisoned(&self.state).used_at = Some(self.clock.now());
    }

    fn set_lock(&self, lock: Option<LockReport>) -> Result<Option<LockReport>> {
        let file = self.lock_file();
        let failed = |error: std::io::Error| Error::io(file.display(), &error);
        let mut state = lock_unpoisoned(&self.state);
        match &lock {
            Some(lock) => {
                let has_ended = |id: &&String| !state.leases.contains_key(*id);
                let over = state.through.iter().filter(has_ended).cloned().collect();
                let lock_file = LockFile {
                    version: LockFile::VERSION,
                    since: lock.since,
                    reason: lock.reason.into(),
                    ended_leases: over,
                    unlock_failures: state.tries,
                };
                let json = lock_file.write().unwrap_or_default();
                files::replace(&file, &json).map_err(failed)?;
            }
            None if file.exists() => fs::remove_file(&file).map_err(failed)?,
            None => {}
        }
        Ok(std::mem::replace(&mut state.lock, lock))
    }

    /// While it is locked, something has changed that the vault cannot keep.
    pub(super) fn remark(&self) {
        let lock = lock_unpoisoned(&self.state).lock.clone();
        if lock.is_some()
            && let Err(error) = self.set_lock(lock)
        {
            tracing::warn!(%error, "what changed while it is locked is not kept");
        }
    }

    /// Nobody is at a terminal when the machine locks by itself.
    fn tell_of_lock(self: &Arc<Self>, outcome: &Result<LockReply>) {
        let (title, text) = match outcome {
            Ok(LockReply { logged_out: Some(logged_out), .. }) if !logged_out.sessions.is_empty() => (
                "ksb: locked, and signed out".to_owned(),
                "No vault keeps what you sign in to. Sign in again: ksb login".to_owned(),
            ),
            Err(error) => ("ksb: could not be locked".to_owned(), error.to_string()),
            Ok(_) => return,
        };
        let inner = self.clone();
        self.work.spawn(async move { inner.notices.tell(title, text).await });
    }

    fn lock_file(&self) -> PathBuf {
        self.runtime_directory.path().join("locked")
    }

    /// How many leases go on while it is locked.
    fn through(self: &Arc<Self>) -> u32 {
        let state = lock_unpoisoned(&self.state);
        let through = state.leases.values().filter(|lease| lease.unattended).count();
        u32::try_from(through).unwrap_or(u32::MAX)
    }
}

impl From<LockReason> for Reason {
    fn from(reason: LockReason) -> Self {
        match reason {
            LockReason::Person => Self::User,
            LockReason::Idle => Self::Idle,
            LockReason::Screen => Self::Screen,
            LockReason::Sleep => Self::Sleep,
        }
    }
}

impl From<Reason> for LockReason {
    fn from(stored: Reason) -> Self {
        match stored {
            Reason::User => Self::Person,
            Reason::Idle => Self::Idle,
            Reason::Screen => Self::Screen,
            Reason::Sleep => Self::Sleep,
        }
    }
}

pub(super) fn is_locked() -> Error {
    Error::new(Code::Locked, "the agent is locked").remedy("ksb unlock")
}
