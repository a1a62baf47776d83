//! What outlives the process: sessions with their refresh tokens, pins, and the ids of tokens that were handed out, so
//! that a logout after a crash or a reboot can still revoke them. And how often programs had a person asked to sign in,
//! so that a lock or an upgrade gives nobody a new budget.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::lease::Lease;
use super::revocation::Revocation;
use super::session::Session;
use super::{Inner, State};
use crate::api::{KeyKind, VaultReport};
use crate::error::{Code, Error, Result};
use crate::model::{Identity, Secret, User};
use crate::sync::locked;
use crate::vault::{Lost, Opened};

/// The contents of the vault, as JSON.
#[derive(Serialize, Deserialize)]
struct Kept<S, L, R> {
    sessions: Vec<(Identity, S)>,
    lapsed: Vec<(Identity, S)>,
    /// As an earlier program kept what now are `revocations`.
    ending: Vec<S>,
    #[serde(default = "Vec::new")]
    revocations: Vec<R>,
    #[serde(default)]
    lost: Option<Lost>,
    #[serde(default = "Vec::new")]
    leases: Vec<L>,
    #[serde(default = "Vec::new")]
    over: Vec<L>,
    pins: Vec<(Identity, User)>,
    #[serde(default)]
    labels: Vec<(Identity, Vec<String>)>,
    #[serde(default)]
    failures: Vec<(Identity, (u32, Timestamp))>,
    #[serde(default)]
    begun: Vec<(Identity, Vec<Timestamp>)>,
}

/// Which changes are on the disk.
#[derive(Default)]
pub(super) struct Changes {
    made: AtomicU64,
    saved: AtomicU64,
}

impl Changes {
    /// Something has changed that is to be kept.
    pub(super) fn note(&self) {
        self.made.fetch_add(1, Ordering::Release);
    }
}

impl<S, L, R> Default for Kept<S, L, R> {
    fn default() -> Self {
        let (sessions, lapsed, ending) = (Vec::new(), Vec::new(), Vec::new());
        let (revocations, lost) = (Vec::new(), None);
        let (leases, over, pins, labels) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (failures, begun) = (Vec::new(), Vec::new());
        Self { sessions, lapsed, ending, revocations, lost, leases, over, pins, labels, failures, begun }
    }
}

impl Inner {
    /// Returns when every change that was made until now is on the disk, or could not be written: nobody is given a token
    /// before. Many who wait at once cost one or two writes.
    pub(super) async fn settle(self: &Arc<Self>) {
        let wanted = self.changes.made.load(Ordering::Acquire);
        while self.changes.saved.load(Ordering::Acquire) < wanted {
            let inner = self.clone();
            // The write belongs to no caller: one that goes away must not cut it off.
            let save = || async move { inner.save().await };
            if self.saves.join((), save).await.is_err() {
                return;
            }
        }
    }

    async fn save(self: Arc<Self>) -> Result<()> {
        let (made, contents, expires_at) = {
            let state = locked(&self.state);
            let made = self.changes.made.load(Ordering::Acquire);
            (made, contents(&state, Extent::All)?, state.tokens_expire_at())
        };
        let vault = self.vault.clone();
        aside(move || vault.save(&contents, expires_at)).await?;
        self.changes.saved.store(made, Ordering::Release);
        Ok(())
    }

    /// Opens the vault and takes in what is there.
    pub(super) async fn unseal(self: &Arc<Self>, passphrase: Option<Secret>) -> Result<()> {
        let vault = self.vault.clone();
        locked(&self.state).unsealing += 1;
        let opened = aside(move || vault.open(passphrase.as_ref())).await.flatten();
        let taken_in = opened.and_then(|opened| match opened {
            Opened::Nothing => Ok(()),
            Opened::Contents(contents) => self.take_in(&contents),
            Opened::Lost(lost) => {
                locked(&self.state).lost = lost;
                self.changes.note();
                Ok(())
            }
        });
        locked(&self.state).unsealing -= 1;
        taken_in?;
        self.settle().await;
        Ok(())
    }

    /// Whoever signed in meanwhile stays signed in.
    pub(super) fn take_in(self: &Arc<Self>, contents: &[u8]) -> Result<()> {
        let kept: Kept<Session, Lease, Revocation> = serde_json::from_slice(contents)
            .map_err(|error| self.vault.disown(&format!("what is in it is not understood: {error}")))?;
        let now = self.clock.now();
        let ending = kept.ending.into_iter().filter_map(|session| {
            let trust = self.outbound.trust_of(&session.cloud).ok()?;
            let identity = Identity::of(&session.cloud, &trust);
            Some(session.into_revocation(identity, now))
        });
        let revocations: Vec<_> = ending.chain(kept.revocations).map(Arc::new).collect();
        let (mut restored, mut leases) = (Vec::new(), Vec::new());
        {
            let mut state = locked(&self.state);
            for (identity, mut session) in kept.sessions.into_iter().filter(|(_, kept)| !kept.is_over(now)) {
                if let Some(newer) = state.sessions.get_mut(&identity) {
                    newer.take_over(&session, now);
                } else {
                    restored.push(identity.clone());
                    // The settings may be others by now.
                    let latest = self.session_end(session.signed_in_at, None);
                    session.ends_at = session.ends_at.into_iter().chain(latest).min();
                    state.sessions.insert(identity, session);
                }
            }
            for (identity, session) in kept.lapsed.into_iter().filter(|(_, kept)| !kept.is_over(now)) {
                state.lapsed.entry(identity).or_insert(session);
            }
            for (identity, user) in kept.pins {
                state.pins.entry(identity).or_insert(user);
            }
            for (identity, labels) in kept.labels {
                for label in labels {
                    state.used_by(&identity, &label, &self.config);
                }
            }
            for (identity, failures) in kept.failures {
                state.failures.entry(identity).or_insert(failures);
            }
            for (identity, begun) in kept.begun {
                state.begun.entry(identity).or_insert(begun);
            }
            state.revocations.extend(revocations.iter().cloned());
            state.lost = state.lost.take().or(kept.lost);
            let through = std::mem::take(&mut state.through);
            for mut lease in kept.leases.into_iter().filter(|lease| !through.contains(&lease.id)) {
                let (latest, _) = self.lease_end(lease.made_at, None);
                let at_once = (lease.unattended && !self.config.unattended).then_some(now);
                lease.ends_at = lease.ends_at.into_iter().chain(latest).chain(at_once).min();
                leases.push(lease.id.clone());
                state.leases.insert(lease.id.clone(), lease);
            }
            state.over.extend(kept.over.into_iter().map(Arc::new));
            self.changes.note();
        }
        if !revocations.is_empty() {
            let inner = self.clone();
            self.work.spawn(async move { inner.revoke_all(revocations).await });
        }
        for id in leases {
            self.watch(&id);
        }
        let inner = self.clone();
        self.work.spawn(async move { inner.clear_over(None).await });
        for identity in restored {
            let inner = self.clone();
            tokio::spawn(async move {
                tokio::join!(
                    inner.tell(&identity),
                    inner.end_in_time(&identity),
                    inner.clone().keep_renewed(identity.clone())
                );
            });
        }
        Ok(())
    }

    /// Changes who keeps the vault's key.
    pub(super) async fn change_key(
        self: &Arc<Self>,
        kind: KeyKind,
        passphrase: Option<Secret>,
    ) -> Result<VaultReport> {
        self.check_lock()?;
        let (contents, expires_at) = {
            let state = locked(&self.state);
            (contents(&state, Extent::All)?, state.tokens_expire_at())
        };
        let vault = self.vault.clone();
        aside(move || vault.change_key(kind, passphrase.as_ref(), &contents, expires_at)).await??;
        // What changed while the key was made.
        self.changes.note();
        self.settle().await;
        Ok(self.vault.report())
    }
}

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    All,
    /// The leases that go on while it is locked.
    ThroughLock,
}

pub(super) fn contents(state: &State, extent: Extent) -> Result<Zeroizing<Vec<u8>>> {
    // What goes on while it is locked is held to the settings of all of them, too.
    let labels = pairs(&state.labels);
    let (failures, begun) = (pairs(&state.failures), pairs(&state.begun));
    let kept = match extent {
        Extent::All => Kept {
            sessions: state.sessions.iter().map(|(identity, session)| (identity.clone(), session)).collect(),
            lapsed: state.lapsed.iter().map(|(identity, session)| (identity.clone(), session)).collect(),
            ending: Vec::new(),
            revocations: state.revocations.iter().map(|left| &**left).collect(),
            lost: state.lost.clone(),
            leases: state.leases.values().collect(),
            over: state.over.iter().map(|lease| &**lease).collect(),
            pins: pairs(&state.pins),
            labels,
            failures,
            begun,
        },
        Extent::ThroughLock => Kept {
            leases: state.leases.values().filter(|lease| lease.through_lock).collect(),
            labels,
            failures,
            begun,
            ..Kept::default()
        },
    };
    let json = serde_json::to_vec(&kept).map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    Ok(Zeroizing::new(json))
}

impl State {
    /// When the last token has expired that is kept here, or in a vault that was lost before.
    fn tokens_expire_at(&self) -> Option<Timestamp> {
        let now = Timestamp::MIN;
        let sessions =
            self.sessions.values().chain(self.lapsed.values()).flat_map(|session| session.minted(now));
        let leases = self.leases.values().chain(self.over.iter().map(|lease| &**lease));
        let leases = leases.flat_map(|lease| lease.minted.iter().cloned());
        let revocations = self.revocations.iter().flat_map(|left| left.tokens.iter().cloned());
        let tokens = sessions.chain(leases).chain(revocations).map(|token| token.expires_at);
        tokens.chain(self.lost.as_ref().map(|lost| lost.expires_at)).max()
    }
}

/// JSON's keys are strings only.
fn pairs<T: Clone>(all: &HashMap<Identity, T>) -> Vec<(Identity, T)> {
    all.iter().map(|(identity, of)| (identity.clone(), of.clone())).collect()
}

/// Work that blocks, on a thread that nobody waits for at the end: a keyring may never answer.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, wait) = oneshot::channel();
    std::thread::spawn(move || done.send(work()).ok());
    wait.await.map_err(|_| Error::new(Code::Internal, "the vault's thread died; see the agent's log"))
}

/// How long an agent that starts waits for its vault before it answers without.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
