//! What outlives the process: sessions with their refresh tokens, pins, and the ids of tokens that were handed out, so
//! that a logout after a crash or a reboot can still revoke them. And when a program last had a sign-in opened, so that a
//! lock or an upgrade ends no cool-down.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::lease::Lease;
use super::session::Session;
use super::{Inner, State};
use crate::api::{KeyKind, VaultReport};
use crate::error::{Code, Error, Result};
use crate::formats::Format;
use crate::formats::vault_contents::{LastPrompt, StoredIdentity, StoredSession, VaultContents};
use crate::model::{Identity, Secret};
use crate::sync::lock_unpoisoned;
use crate::vault::Opened;

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
            let state = lock_unpoisoned(&self.state);
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
        lock_unpoisoned(&self.state).unsealing += 1;
        let opened = aside(move || vault.open(passphrase.as_ref())).await.flatten();
        let taken_in = opened.and_then(|opened| match opened {
            Opened::Nothing => Ok(()),
            Opened::Contents(contents) => self.take_in(&contents),
            Opened::Lost(lost) => {
                lock_unpoisoned(&self.state).lost = lost;
                self.changes.note();
                Ok(())
            }
        });
        lock_unpoisoned(&self.state).unsealing -= 1;
        taken_in?;
        self.settle().await;
        Ok(())
    }

    /// Whoever signed in meanwhile stays signed in.
    pub(super) fn take_in(self: &Arc<Self>, contents: &[u8]) -> Result<()> {
        let kept = VaultContents::read(contents)
            .map_err(|error| self.vault.disown(&format!("what is in it is not understood: {error}")))?;
        let now = self.clock.now();
        let sessions = restore(kept.sessions)?;
        let lapsed = restore(kept.revoked_sessions)?;
        let revocations: Vec<_> = kept.revocations.into_iter().map(|left| Arc::new(left.into())).collect();
        let (mut restored, mut leases) = (Vec::new(), Vec::new());
        {
            let mut state = lock_unpoisoned(&self.state);
            for (identity, mut session) in sessions.into_iter().filter(|(_, kept)| !kept.is_over(now)) {
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
            for (identity, session) in lapsed.into_iter().filter(|(_, kept)| !kept.is_over(now)) {
                state.lapsed.entry(identity).or_insert(session);
            }
            for (identity, user) in identified(kept.pinned_users) {
                state.pins.entry(identity).or_insert(user.into());
            }
            for (identity, labels) in identified(kept.cloud_names) {
                for label in labels {
                    state.used_by(&identity, &label);
                }
            }
            for (identity, LastPrompt(when)) in identified(kept.last_prompts) {
                state.last_prompts.entry(identity).or_insert(when);
            }
            state.revocations.extend(revocations.iter().cloned());
            state.lost = state.lost.take().or(kept.lost_vault.map(Into::into));
            let through = std::mem::take(&mut state.through);
            let kept_leases = kept.leases.into_iter().filter(|lease| !through.contains(&lease.id));
            for mut lease in kept_leases.map(Lease::from) {
                let (latest, _) = self.lease_end(lease.made_at, None);
                let at_once = (lease.unattended && !self.config.unattended).then_some(now);
                lease.ends_at = lease.ends_at.into_iter().chain(latest).chain(at_once).min();
                leases.push(lease.id.clone());
                state.leases.insert(lease.id.clone(), lease);
            }
            state.over.extend(kept.ended_leases.into_iter().map(|lease| Arc::new(lease.into())));
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
            let state = lock_unpoisoned(&self.state);
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
    let kept = VaultContents {
        version: VaultContents::VERSION,
        cloud_names: pairs(&state.labels),
        last_prompts: state
            .last_prompts
            .iter()
            .map(|(identity, when)| (identity.bytes(), LastPrompt(*when)))
            .collect(),
        ..VaultContents::default()
    };
    let kept = match extent {
        Extent::All => VaultContents {
            sessions: stored(&state.sessions),
            revoked_sessions: stored(&state.lapsed),
            revocations: state.revocations.iter().map(|left| left.store()).collect(),
            lost_vault: state.lost.clone().map(Into::into),
            leases: state.leases.values().map(Lease::store).collect(),
            ended_leases: state.over.iter().map(|lease| lease.store()).collect(),
            pinned_users: state
                .pins
                .iter()
                .map(|(identity, user)| (identity.bytes(), user.clone().into()))
                .collect(),
            ..kept
        },
        Extent::ThroughLock => {
            let leases = state.leases.values().filter(|lease| lease.unattended).map(Lease::store);
            VaultContents { leases: leases.collect(), ..kept }
        }
    };
    kept.write().map_err(|error| Error::new(Code::Internal, error.to_string()))
}

fn stored(sessions: &HashMap<Identity, Session>) -> Vec<(StoredIdentity, StoredSession)> {
    sessions.iter().map(|(identity, session)| (identity.bytes(), session.store())).collect()
}

fn restore(stored: Vec<(StoredIdentity, StoredSession)>) -> Result<Vec<(Identity, Session)>> {
    identified(stored).map(|(identity, session)| Ok((identity, Session::restore(session)?))).collect()
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

fn pairs<T: Clone>(all: &HashMap<Identity, T>) -> Vec<(StoredIdentity, T)> {
    all.iter().map(|(identity, of)| (identity.bytes(), of.clone())).collect()
}

fn identified<T>(stored: Vec<(StoredIdentity, T)>) -> impl Iterator<Item = (Identity, T)> {
    stored.into_iter().map(|(identity, of)| (Identity::from_bytes(identity), of))
}

/// Work that blocks, on a thread that nobody waits for at the end: a keyring may never answer.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, wait) = oneshot::channel();
    std::thread::spawn(move || done.send(work()).ok());
    wait.await.map_err(|_| Error::new(Code::Internal, "the vault's thread died; see the agent's log"))
}

/// How long an agent that starts waits for its vault before it answers without.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Everything that is taken in is stored again.
    #[test]
    fn what_is_stored_is_restored_and_stored_again() {
        let example = include_bytes!("../../tests/formats/vault-contents-1.json");
        let kept = VaultContents::read(example).unwrap();
        let mut state = State::default();
        state.sessions.extend(restore(kept.sessions).unwrap());
        state.lapsed.extend(restore(kept.revoked_sessions).unwrap());
        state.revocations.extend(kept.revocations.into_iter().map(|left| Arc::new(left.into())));
        state.lost = kept.lost_vault.map(Into::into);
        let leases = kept.leases.into_iter().map(Lease::from);
        state.leases.extend(leases.map(|lease| (lease.id.clone(), lease)));
        state.over.extend(kept.ended_leases.into_iter().map(|lease| Arc::new(lease.into())));
        state.pins.extend(identified(kept.pinned_users).map(|(identity, user)| (identity, user.into())));
        state.labels.extend(identified(kept.cloud_names));
        state.last_prompts.extend(identified(kept.last_prompts).map(|(identity, last)| (identity, last.0)));

        let sorted = |json: &[u8]| {
            let mut json: Value = serde_json::from_slice(json).unwrap();
            for list in json.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut) {
                list.sort_by_key(Value::to_string);
            }
            json
        };
        assert_eq!(sorted(&contents(&state, Extent::All).unwrap()), sorted(example));
    }
}
