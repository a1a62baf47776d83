//! Sessions that cannot renew themselves, kept going by a tab that the user leaves open.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::Inner;
use super::policy::{self, Rests};
use super::session::Held;
use crate::error::Result;
use crate::model::{Cloud, Identity, User, random_hex};
use crate::signin::{SignedIn, Tab, Task};
use crate::sync::lock_unpoisoned;

/// A session's hold on its tab: the tab is let go with the session.
pub(super) struct Hold {
    wanted: bool,
    let_go: oneshot::Sender<()>,
}

impl Hold {
    /// Whether a tab keeps the session going: the user wants it, and the tab is open.
    pub(super) fn keeps(&self) -> bool {
        self.wanted && !self.let_go.is_closed()
    }
}

/// What the next round is for.
struct Round {
    cloud: Cloud,
    user: User,
    due: Timestamp,
    ends: Timestamp,
}

impl Inner {
    /// Keeps the session going for as long as its tab is open and the user wants it. Nothing else follows when not.
    pub(super) async fn keep(self: &Arc<Self>, identity: &Identity, tab: Option<Tab>) {
        let Some(tab) = tab else { return };
        let (let_go, session_is_gone) = oneshot::channel();
        self.with(identity, |session| session.tab = Some(Hold { wanted: false, let_go }));
        tokio::select! {
            () = self.keep_by(identity, tab) => {}
            _ = session_is_gone => {}
        }
    }

    async fn keep_by(self: &Arc<Self>, identity: &Identity, mut tab: Tab) {
        let mut rests = Rests::NONE;
        while tab.is_wanted(&self.clock).await {
            self.want(identity, true);
            let Some(round) = self.round(identity) else { return };
            tokio::select! {
                () = tab.changes(&self.clock) => {
                    self.want(identity, false);
                    continue;
                }
                () = self.clock.sleep_until(rests.after(round.due)) => {}
            }
            // A tab that meets a browser's error page does not come back.
            if let Err(error) = self.is_reachable(&round.cloud).await {
                tracing::info!(%error, "the tab does not go round yet");
                rests.begin(self.clock.now());
                continue;
            }
            rests = Rests::NONE;
            let cloud = round.cloud.clone();
            match Box::pin(self.go_round(identity, round, tab)).await {
                Ok(Some(back)) => tab = back,
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(%error, cloud = cloud.label(), "the tab did not bring a new sign-in");
                    return;
                }
            }
        }
    }

    fn want(&self, identity: &Identity, wanted: bool) {
        self.with(identity, |session| session.tab.iter_mut().for_each(|hold| hold.wanted = wanted));
    }

    fn round(&self, identity: &Identity) -> Option<Round> {
        let state = lock_unpoisoned(&self.state);
        let session = state.sessions.get(identity)?;
        let token = &session.unscoped.token;
        let (cloud, user) = (session.cloud.clone(), token.user.clone());
        Some(Round { cloud, user, due: policy::renewal(token), ends: token.expires_at })
    }

    async fn is_reachable(&self, cloud: &Cloud) -> Result<()> {
        self.keystone(cloud)?.discover().await.map(drop)
    }

    /// One round. An identity provider that asks for something has until the session's end to be answered; meanwhile
    /// callers are served, and prompted, as without the tab.
    async fn go_round(self: &Arc<Self>, identity: &Identity, round: Round, tab: Tab) -> Result<Option<Tab>> {
        let now = self.clock.now();
        let keystone = self.keystone(&round.cloud)?;
        let task = Task {
            id: random_hex::<16>(),
            deadline: round.ends.max(now + policy::patience(round.cloud.sign_in.timeout)),
            cloud: round.cloud,
            keystone: keystone.clone(),
            clock: self.clock.clone(),
            remote: false,
            expected: Some(round.user),
            started_at: now,
        };
        let SignedIn { token, tab, .. } = tab.again(task).await?;
        let (id, held, now) = (token.id.clone(), Held::new(token, None)?, self.clock.now());
        // A Keystone whose tokens are over at once would have the tab go round without end.
        let tab = tab.filter(|_| policy::renewal(&held.token) > now);
        let kept = self.with(identity, |session| session.renewed(held, None, now));
        self.changes.note();
        self.settle().await;
        if !kept {
            // Logged out while the tab was on its way: nothing of this must outlive the session.
            keystone.revoke(&id).await.ok();
            return Ok(None);
        }
        Ok(tab)
    }

    fn with(&self, identity: &Identity, change: impl FnOnce(&mut super::Session)) -> bool {
        lock_unpoisoned(&self.state).sessions.get_mut(identity).map(change).is_some()
    }
}
