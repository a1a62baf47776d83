//! Sign-ins as callers see them: who opens the browser, how far it is, how it ended.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, watch};

use crate::api::{Problem, SignIn, SignInState};
use crate::error::Error;
use crate::model::Cloud;
use crate::signin::{Command, Progress};
use crate::sync::lock_unpoisoned;
use crate::time::SharedClock;

use super::policy::OPENER_GRACE;
use super::waiters::Waiters;

/// A sign-in, under way or just over.
pub(super) struct Entry {
    pub(super) opening: Opening,
    opener: Mutex<Opener>,
    /// How long the session is to last at most.
    lifetime: Mutex<Option<SignedDuration>>,
    stage: watch::Sender<Stage>,
    /// Callers at terminals that wait for it.
    pub(super) waiters: Waiters,
}

/// How far it is, with a number that grows with every change.
#[derive(Debug, Clone, Default)]
struct Stage {
    revision: u64,
    progress: Progress,
    ended: Option<Result<(), Error>>,
}

/// Who was asked to open the browser.
#[derive(Debug, Clone, Copy)]
enum Opener {
    Nobody,
    AskedAt(Timestamp),
    Opened,
}

/// What a sign-in began with, and the way to those who see to it.
pub(super) struct Opening {
    pub(super) id: String,
    pub(super) cloud: Cloud,
    pub(super) url: String,
    pub(super) user_code: Option<String>,
    pub(super) elsewhere: Option<String>,
    pub(super) tunnel: Option<String>,
    pub(super) browser: Option<String>,
    pub(super) private_window: bool,
    /// Not by the user (`ksb login`).
    pub(super) by_program: bool,
    pub(super) started_at: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) cancel: Arc<Notify>,
}

impl Entry {
    pub(super) fn new(opening: Opening) -> Self {
        let (opener, stage) = (Mutex::new(Opener::Nobody), watch::Sender::new(Stage::default()));
        Self { opening, opener, lifetime: Mutex::default(), stage, waiters: Waiters::default() }
    }

    /// Somebody wants the session to last no longer.
    pub(super) fn limit(&self, lifetime: SignedDuration) {
        let mut limit = lock_unpoisoned(&self.lifetime);
        *limit = Some(limit.map_or(lifetime, |other| other.min(lifetime)));
    }

    pub(super) fn lifetime(&self) -> Option<SignedDuration> {
        *lock_unpoisoned(&self.lifetime)
    }

    pub(super) fn show(&self, progress: Progress) {
        // An opener that died since has done its part all the same.
        if progress.opened {
            self.opened();
        }
        self.change(|stage| stage.progress = progress);
    }

    pub(super) fn end(&self, how: Result<(), Error>) {
        self.change(|stage| stage.ended = Some(how));
    }

    fn change(&self, change: impl FnOnce(&mut Stage)) {
        self.stage.send_modify(|stage| {
            change(stage);
            stage.revision += 1;
        });
    }

    /// The caller has opened the URL.
    pub(super) fn opened(&self) {
        *lock_unpoisoned(&self.opener) = Opener::Opened;
    }

    /// Has the next caller that looks open the browser again.
    pub(super) fn reopen(&self) {
        let mut opener = lock_unpoisoned(&self.opener);
        if let Opener::Opened = *opener {
            *opener = Opener::Nobody;
        }
    }

    /// The sign-in as this caller sees it. Exactly one caller at a time is the opener; one that does
    /// not say in time that it opened the browser has probably died, and the next one is asked.
    pub(super) fn view(&self, now: Timestamp) -> SignIn {
        let Stage { revision, progress, ended } = self.stage.borrow().clone();
        let (state, problem) = match ended {
            Some(Ok(())) => (SignInState::Done, None),
            Some(Err(error)) => (SignInState::Failed, Some(Problem::from(error))),
            None if progress.confirming => (SignInState::Confirming, None),
            None if !progress.asks.is_empty() => (SignInState::Asking, None),
            None => (SignInState::Waiting, None),
        };
        SignIn {
            id: self.opening.id.clone(),
            cloud: self.opening.cloud.label().to_owned(),
            state,
            revision,
            url: self.opening.url.clone(),
            user_code: self.opening.user_code.clone(),
            elsewhere: self.opening.elsewhere.clone(),
            tunnel: self.opening.tunnel.clone(),
            // No browser of this machine can open what waits at the other end of SSH.
            opener: matches!(state, SignInState::Waiting | SignInState::Asking)
                && self.opening.tunnel.is_none()
                && self.ask(now),
            browser: self.opening.browser.clone(),
            private_window: self.opening.private_window,
            started_at: self.opening.started_at,
            deadline: self.opening.deadline,
            waiters: self.waiters.count(now),
            asks: progress.asks,
            notices: progress.notices,
            offers: progress.offers,
            refused: progress.refused.map(Problem::from),
            problem,
        }
    }

    /// The same without asking anybody to open anything.
    pub(super) fn glance(&self, now: Timestamp) -> SignIn {
        let opener = std::mem::replace(&mut *lock_unpoisoned(&self.opener), Opener::Opened);
        let view = self.view(now);
        *lock_unpoisoned(&self.opener) = opener;
        view
    }

    fn ask(&self, now: Timestamp) -> bool {
        let mut opener = lock_unpoisoned(&self.opener);
        let free = match *opener {
            Opener::Nobody => true,
            Opener::AskedAt(when) => now.duration_since(when) >= OPENER_GRACE,
            Opener::Opened => false,
        };
        if free {
            *opener = Opener::AskedAt(now);
        }
        free
    }

    /// Whether nobody was asked to open it yet; from now on somebody is.
    pub(super) fn call(&self, now: Timestamp) -> bool {
        let mut opener = lock_unpoisoned(&self.opener);
        let first = matches!(*opener, Opener::Nobody);
        if first {
            *opener = Opener::AskedAt(now);
        }
        first
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage.borrow().ended.is_some()
    }

    /// Returns when it is over, as it ended.
    pub(super) async fn over(&self) -> Result<(), Error> {
        let mut stage = self.stage.subscribe();
        let ended =
            stage.wait_for(|stage| stage.ended.is_some()).await.ok().and_then(|stage| stage.ended.clone());
        ended.unwrap_or(Ok(()))
    }

    /// Returns when something happened since `seen`, when another opener is wanted, or after `patience`.
    pub(super) async fn changed(&self, seen: u64, patience: Duration, clock: &SharedClock) {
        let mut stage = self.stage.subscribe();
        let opener = *lock_unpoisoned(&self.opener);
        let opener_wanted = async {
            match opener {
                Opener::AskedAt(when) => clock.sleep_until(when + OPENER_GRACE).await,
                Opener::Nobody | Opener::Opened => std::future::pending().await,
            }
        };
        let news = stage.wait_for(|stage| stage.revision > seen || stage.ended.is_some());
        tokio::select! {
            _ = news => {}
            () = opener_wanted => {}
            () = async { let _elapsed = tokio::time::timeout(patience, std::future::pending::<()>()).await; } => {}
        }
    }
}
