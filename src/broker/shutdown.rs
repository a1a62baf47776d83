//! The end of this process's part: it stops, or makes room for a fresh one that knows only what it is handed.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::persistence::{self, Extent};
use super::{Broker, Inner};
use crate::error::{Code, Error, Result};
use crate::formats::Format;
use crate::formats::handover::{Handover, VaultSeal};
use crate::model::Secret;
use crate::platform::current_exe;
use crate::sync::lock_unpoisoned;
use crate::vault::{Key, Seal};

/// Why the process leaves. A later one comes before an earlier one, while it has not left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Departure {
    /// A newer program takes over, with everything.
    Upgrade,
    /// Its memory is to be forgotten: the same program takes over, without what is locked.
    Lock,
    /// The same, and the computer does not wait: logind lets it sleep after five seconds (logind.conf(5)).
    Sleep,
    /// It ends.
    Stop,
}

impl Departure {
    /// How long it waits, still serving, for what must not be cut off: longer than any single answer may take.
    fn rest(self) -> Duration {
        match self {
            Self::Upgrade | Self::Lock => Duration::from_mins(1),
            Self::Sleep => Duration::from_secs(2),
            Self::Stop => Duration::ZERO,
        }
    }

    /// How long requests in flight may take to end.
    pub fn grace(self) -> Duration {
        Duration::from_secs(if self == Self::Sleep { 1 } else { 5 })
    }
}

impl Broker {
    /// Returns when the process is to leave, and why by now.
    pub async fn departure(&self) -> Departure {
        let mut departure = self.inner.departure.subscribe();
        let wanted = departure.wait_for(Option::is_some).await.ok().and_then(|wanted| *wanted);
        wanted.unwrap_or(Departure::Stop)
    }

    /// Whether it is to leave.
    pub fn is_leaving(&self) -> bool {
        self.inner.departure.borrow().is_some()
    }

    /// Has the process leave.
    pub(super) fn depart(&self, why: Departure) {
        self.inner.departure.send_if_modified(|wanted| {
            let comes_first = *wanted < Some(why);
            if comes_first {
                *wanted = Some(why);
            }
            comes_first
        });
    }

    /// Ends the process.
    pub fn stop(&self) {
        self.depart(Departure::Stop);
    }

    /// Returns when no sign-in is under way.
    pub async fn sign_ins_over(&self) {
        loop {
            let under_way = lock_unpoisoned(&self.inner.state).pending.values().next().cloned();
            let Some(entry) = under_way else { return };
            entry.over().await.ok();
        }
    }

    /// Has the program that now lies where ours did take over.
    pub async fn hand_over(&self) -> Result<()> {
        self.inner.check_room()?;
        let refused = |why: String| {
            Error::new(Code::HandoverRefused, why).remedy("to have another program serve you: ksb agent stop")
        };
        if !current_exe::was_replaced() {
            let own = current_exe::path().display().to_string();
            return Err(refused(format!("{own} is the program that runs already")));
        }
        if !current_exe::takes_over().await {
            let own = current_exe::path().display().to_string();
            return Err(refused(format!(
                "{own} does not run, or is no ksb that can take over from this one"
            )));
        }
        if !lock_unpoisoned(&self.inner.state).pending.is_empty() {
            return Err(refused("a sign-in is under way; afterwards it can be done".into()));
        }
        if let Err(error) = self.inner.config.check() {
            return Err(refused(format!("the next one could not start: {error}")));
        }
        self.depart(Departure::Upgrade);
        Ok(())
    }

    /// Returns when nothing is under way that must not be cut off, or when the departure waits no longer.
    pub async fn rest_before_departure(&self) {
        let mut departure = self.inner.departure.subscribe();
        loop {
            let why = departure.borrow_and_update().unwrap_or(Departure::Stop);
            if why == Departure::Stop {
                return;
            }
            tokio::select! {
                () = self.rest(why.rest()) => return,
                _more_urgent = departure.changed() => {}
            }
        }
    }

    /// Returns when nothing is under way that must not be cut off, or after `patience`.
    pub async fn rest(&self, patience: Duration) {
        if timeout(patience, self.inner.work.done()).await.is_err() {
            tracing::warn!("something is cut off that did not end");
        }
    }

    /// Lets the next agent have the vault. It takes the place of this one as soon as that is free, whatever tasks still live here.
    pub fn release_vault(&self) {
        self.inner.vault.release();
    }

    /// What the next process needs of this one's memory. Nobody changes anything any more.
    pub async fn pack(&self) -> Result<Zeroizing<Vec<u8>>> {
        self.inner.settle().await;
        // The keyring's helper would be a child that the next process does not know.
        self.inner.vault.stop_asking();
        let state = lock_unpoisoned(&self.inner.state);
        let is_open = state.lock.is_none();
        let contents =
            persistence::contents(&state, if is_open { Extent::All } else { Extent::ThroughLock })?;
        // Of a vault that is being opened we do not know yet what is in it: the next process opens it again.
        let seal = if is_open && state.unsealing == 0 { self.inner.vault.seal() } else { None };
        let handover = Handover {
            version: Handover::VERSION,
            lock_exempt: state.through.clone(),
            screen_unlocked: state.is_welcome,
            contents: Secret::new(String::from_utf8_lossy(&contents).into_owned()),
            seal: seal.map(|(lines, key)| VaultSeal {
                lines,
                key: Secret::new(BASE64_STANDARD.encode(key.bytes())),
            }),
        };
        handover.write().map_err(|error| Error::new(Code::Internal, error.to_string()))
    }

    /// Takes in what an earlier process packed.
    pub fn unpack(&self, packed: &[u8]) -> Result<()> {
        let not_understood = |why: String| Error::new(Code::Internal, format!("what was handed over: {why}"));
        let Handover { contents, seal, lock_exempt, screen_unlocked, .. } =
            Handover::read(packed).map_err(|error| not_understood(error.to_string()))?;
        if let Some(VaultSeal { lines, key }) = seal {
            let key = BASE64_STANDARD.decode(key.expose()).ok().map(Zeroizing::new);
            let key = key.and_then(|key| Key::of(&key));
            let seal = key.and_then(|key| Seal::of(&lines, key));
            self.inner.vault.take_over(seal.ok_or_else(|| not_understood("the vault's seal".into()))?);
        }
        self.inner.take_in(contents.expose().as_bytes())?;
        {
            let mut state = lock_unpoisoned(&self.inner.state);
            if state.lock.is_some() {
                let living: Vec<_> = state.leases.keys().cloned().collect();
                state.through.extend(lock_exempt.into_iter().chain(living));
            }
        }
        if screen_unlocked {
            let broker = self.clone();
            tokio::spawn(async move { broker.welcome().await });
        }
        Ok(())
    }
}

impl Inner {
    /// Refuses where no process may take this one's place.
    pub(super) fn check_room(&self) -> Result<()> {
        if self.config.makes_room {
            return Ok(());
        }
        let why = "this agent is a part of `ksb exec --ephemeral`, whose command needs it to its end";
        Err(Error::new(Code::HandoverRefused, why).remedy("end that command: it signs out everywhere"))
    }
}
