//! Asks the user before a program gets a token (`confirm`): once for each process, and for no longer than that token lives.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::background_tasks::Work;
use super::single_flight::Flight;
use super::{Broker, Inner};
use crate::api;
use crate::audit::{Action, What, Who};
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, Identity, Scope, random_hex};
use crate::platform::current_exe;
use crate::platform::peer_program::{Peer, Program};
use crate::sync::lock_unpoisoned;

/// How long a user may take to answer. Tools give up not much later.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// A No counts for so long: a program that asks again and again is no reason to ask the user again and again.
const REST: SignedDuration = SignedDuration::from_secs(60);

/// Which program asks for what: a process is told from a later one with its number by its start.
type Use = (Option<(u32, u64)>, Identity, Scope, Option<String>);

/// Who was asked about, and what was answered.
pub(super) struct Confirmations {
    answered: Mutex<HashMap<Use, (bool, Timestamp)>>,
    /// Each of those that are not known is asked about by itself.
    asking: Flight<(Use, Option<String>), ()>,
    /// One question at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The one that is open, for terminals.
    open: watch::Sender<Option<Arc<Question>>>,
    /// Until when somebody may still look at a terminal who looked before.
    watched_until: Mutex<Timestamp>,
}

/// What is asked just now.
struct Question {
    id: String,
    title: String,
    text: String,
    answer: Mutex<Option<oneshot::Sender<bool>>>,
}

impl Default for Confirmations {
    fn default() -> Self {
        // A user who does not answer must not hold up a lock.
        let asking = Flight::from(&Work::default());
        let (open, watched_until) = (watch::Sender::default(), Mutex::new(Timestamp::MIN));
        Self { answered: Mutex::default(), asking, turn: Arc::default(), open, watched_until }
    }
}

/// What a program is about to get.
pub(super) struct Wish<'w> {
    pub(super) program: Option<Arc<Program>>,
    pub(super) cloud: &'w Cloud,
    pub(super) identity: &'w Identity,
    pub(super) scope: &'w Scope,
    /// The lease that it holds, by name.
    pub(super) lease: Option<&'w str>,
    /// When the token ends.
    pub(super) ends: Timestamp,
}

impl Inner {
    /// Returns when the user has allowed it; fails when they do not, or when there is nobody to ask.
    pub(super) async fn confirm_use(
        self: &Arc<Self>,
        wish: Wish<'_>,
        patience: SignedDuration,
    ) -> Result<()> {
        let Wish { program, cloud, identity, scope, lease, ends } = wish;
        let who = program.as_ref().map(|program| (program.pid, program.started));
        let key = (who, identity.clone(), scope.clone(), lease.map(str::to_owned));
        let now = self.clock.now();
        match self.answered(&key) {
            Some(true) => return Ok(()),
            Some(false) => return Err(refused(cloud, "you said no a moment ago")),
            None => {}
        }
        let what = What {
            cloud: Some(cloud.label().to_owned()),
            scope: Some(scope.to_string()),
            lease: lease.map(str::to_owned),
            ..What::done(Action::Confirm)
        };
        let (inner, cloud, asked) = (self.clone(), cloud.clone(), key.clone());
        let deadline = now + patience.min(PATIENCE);
        let asking = || async move {
            let answer = inner.ask_person(&cloud, &asked, program.as_deref(), deadline).await;
            let outcome = match answer {
                Some(true) => Ok(()),
                Some(false) => Err(refused(&cloud, "you said no, or did not answer")),
                None => Err(refused(
                    &cloud,
                    "there is no desktop, and no `ksb confirm`, where you could be asked",
                )),
            };
            inner.note(Who::Program(program), what.or(outcome.as_ref().err()));
            let until = if outcome.is_ok() { ends } else { inner.clock.now() + REST };
            let mut answered = lock_unpoisoned(&inner.confirmations.answered);
            answered.retain(|_, (_, until)| inner.clock.now() < *until);
            if answer.is_some() {
                answered.insert(asked, (outcome.is_ok(), until));
            }
            outcome
        };
        let apart = who.is_none().then(random_hex::<16>);
        self.confirmations.asking.join((key, apart), asking).await
    }

    /// What was answered, while it counts. One that is not known may be another one each time: only a No is for all of them.
    fn answered(&self, key: &Use) -> Option<bool> {
        let (allowed, until) = lock_unpoisoned(&self.confirmations.answered).get(key).copied()?;
        (self.clock.now() < until && (key.0.is_some() || !allowed)).then_some(allowed)
    }

    /// The user's answer; `None` where nobody can be asked.
    async fn ask_person(
        &self,
        cloud: &Cloud,
        key: &Use,
        program: Option<&Program>,
        deadline: Timestamp,
    ) -> Option<bool> {
        let (_, _, scope, lease) = key;
        let name = program.map_or("a program that is not known", |program| &program.name);
        let title = format!("{}: may {name} have a token?", cloud.label());
        let mut text = match program {
            Some(Program { pid, executable, parents, .. }) => {
                let path = executable.as_ref().map_or(String::new(), |path| format!(", {}", path.display()));
                format!("{name} (process {pid}{path}), started by {}, asks for {scope}.", parents.join(", "))
            }
            None => format!("Its process could not be found out. It asks for {scope}."),
        };
        if let Some(lease) = lease {
            text.push_str(" It holds the lease ");
            text.push_str(lease);
            text.push('.');
        }
        let _turn = tokio::select! {
            turn = self.confirmations.turn.lock() => turn,
            () = self.clock.sleep_until(deadline) => return Some(false),
        };
        // A No to the one before may be for this one, too.
        if let Some(answer) = self.answered(key) {
            return Some(answer);
        }
        let (answer, answered) = oneshot::channel();
        let question = Question {
            id: random_hex::<16>(),
            title: title.clone(),
            text: text.clone(),
            answer: Mutex::new(Some(answer)),
        };
        self.confirmations.open.send_replace(Some(Arc::new(question)));
        let on_desktop = async {
            match self.notices.confirm(title, text).await {
                None if self.clock.now() < *lock_unpoisoned(&self.confirmations.watched_until) => {
                    pending().await
                }
                answer => answer,
            }
        };
        let answer = tokio::select! {
            Ok(answer) = answered => Some(answer),
            answer = on_desktop => answer,
            () = self.clock.sleep_until(deadline) => Some(false),
        };
        self.confirmations.open.send_replace(None);
        answer
    }
}

impl Broker {
    /// The question that is open, as soon as there is one, for a user at a terminal.
    pub async fn question(&self, patience: Duration) -> Option<api::Question> {
        let Confirmations { open, watched_until, .. } = &self.inner.confirmations;
        let now = self.inner.clock.now();
        let longest = SignedDuration::try_from(patience).unwrap_or_default();
        *lock_unpoisoned(watched_until) = now + longest + LOOKS_AWAY;
        let mut open = open.subscribe();
        let asked = timeout(patience, open.wait_for(Option::is_some)).await.ok()?.ok()?.clone()?;
        Some(api::Question { id: asked.id.clone(), title: asked.title.clone(), text: asked.text.clone() })
    }

    /// The user at a terminal answers. Only our own program may say so for them: another one would have to act the
    /// user at a terminal, which is more than a script that is to be stopped does.
    pub async fn answer(&self, id: &str, allow: bool, peer: Peer) -> Result<()> {
        let program = self.identify(peer).await.and_then(|program| program.executable.clone());
        if program.is_none_or(|program| program != current_exe::path()) {
            let why = "only `ksb confirm` answers for the user";
            return Err(Error::new(Code::NotAllowed, why).remedy("ksb confirm"));
        }
        let open = self.inner.confirmations.open.borrow().clone().filter(|question| question.id == id);
        let answer = open.and_then(|question| lock_unpoisoned(&question.answer).take());
        let answer = answer.ok_or_else(|| {
            Error::new(Code::InvalidRequest, "this is not asked any more").remedy("run the program again")
        })?;
        // No other terminal is shown what is answered.
        self.inner.confirmations.open.send_replace(None);
        answer.send(allow).ok();
        Ok(())
    }
}

/// Between one look and the next.
const LOOKS_AWAY: SignedDuration = SignedDuration::from_secs(5);

fn refused(cloud: &Cloud, why: &str) -> Error {
    Error::new(
        Code::ConfirmationRefused,
        format!("{} is only for programs that you allow, and {why}", cloud.label()),
    )
    .cloud(cloud.label())
    .remedy("run it again, and answer the notification, or at another terminal: ksb confirm; `confirm` in config.toml or --confirm asks for it")
}
