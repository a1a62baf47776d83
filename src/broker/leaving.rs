//! The end of this process's part: it stops, or makes room for a fresh one that knows only what it is handed.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::kept::{self, Extent};
use super::{Broker, Inner, State};
use crate::error::{Code, Error, Result};
use crate::model::Secret;
use crate::platform::own;
use crate::sync::locked;
use crate::vault::{Key, Seal};

/// Why the process leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It ends.
    Stop,
    /// Its memory is to be forgotten: the same program takes over, without what is locked.
    Lock,
    /// A newer program takes over, with everything.
    Upgrade,
}

/// What the next process is handed, as JSON.
#[derive(Serialize, Deserialize)]
struct Handed {
    /// See [`kept`].
    contents: Secret,
    /// What opens the vault, where it is to stay open.
    seal: Option<HandedSeal>,
}

#[derive(Serialize, Deserialize)]
struct HandedSeal {
    lines: String,
    key: Secret,
}

impl Broker {
    /// Returns when the process is to leave.
    pub async fn departure(&self) -> Departure {
        let mut departure = self.inner.departure.subscribe();
        let wanted = departure.wait_for(Option::is_some).await.ok().and_then(|wanted| *wanted);
        wanted.unwrap_or(Departure::Stop)
    }

    /// Ends the process.
    pub fn stop(&self) {
        self.inner.departure.send_replace(Some(Departure::Stop));
    }

    /// Has the program that now lies where ours did take over.
    pub fn hand_over(&self) -> Result<()> {
        self.inner.check_room()?;
        let refused = |why: String| {
            Error::new(Code::HandoverRefused, why).remedy("to have another program serve you: ksb stop")
        };
        if !own::was_replaced() {
            let own = own::path().display().to_string();
            return Err(refused(format!("{own} is the program that runs already")));
        }
        if !locked(&self.inner.state).pending.is_empty() {
            return Err(refused("a sign-in is under way; afterwards it can be done".into()));
        }
        if let Err(error) = self.inner.config.check() {
            return Err(refused(format!("the next one could not start: {error}")));
        }
        self.inner.departure.send_replace(Some(Departure::Upgrade));
        Ok(())
    }

    /// Returns when nothing is under way that must not be cut off, or after `patience`.
    pub async fn rest(&self, patience: Duration) {
        if timeout(patience, self.inner.work.done()).await.is_err() {
            tracing::warn!("something is cut off that did not end");
        }
    }

    /// What the next process needs of this one's memory. Nobody changes anything any more.
    pub async fn pack(&self, departure: Departure) -> Result<Zeroizing<Vec<u8>>> {
        self.inner.settle().await;
        let state = locked(&self.inner.state);
        let whole = departure != Departure::Lock;
        let contents = kept::contents(&state, if whole { Extent::All } else { Extent::ThroughLock })?;
        let seal = if whole { self.inner.vault.seal() } else { None };
        let handed = Handed {
            contents: Secret::new(String::from_utf8_lossy(&contents).into_owned()),
            seal: seal.map(|(lines, key)| HandedSeal {
                lines,
                key: Secret::new(BASE64_STANDARD.encode(key.bytes())),
            }),
        };
        let json =
            serde_json::to_vec(&handed).map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        Ok(Zeroizing::new(json))
    }

    /// Takes in what an earlier process packed.
    pub fn unpack(&self, packed: &[u8]) -> Result<()> {
        let not_understood = |why: String| Error::new(Code::Internal, format!("what was handed over: {why}"));
        let Handed { contents, seal } =
            serde_json::from_slice(packed).map_err(|error| not_understood(error.to_string()))?;
        if let Some(HandedSeal { lines, key }) = seal {
            let key = BASE64_STANDARD.decode(key.expose()).ok().map(Zeroizing::new);
            let key = key.and_then(|key| Key::of(&key));
            let seal = key.and_then(|key| Seal::of(lines, key));
            self.inner.vault.take_over(seal.ok_or_else(|| not_understood("the vault's seal".into()))?);
        }
        self.inner.take_in(contents.expose().as_bytes())?;
        let State { lock, leases, through, .. } = &mut *locked(&self.inner.state);
        if lock.is_some() {
            through.extend(leases.keys().cloned());
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
        let why = "this agent is a part of `ksb exec --no-agent`, whose command needs it to its end";
        Err(Error::new(Code::HandoverRefused, why).remedy("end that command: it signs out everywhere"))
    }
}
