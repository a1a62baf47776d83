//! Keystone's own users: a password, and what its rules ask for besides (`multi_factor_auth_rules`). The user is asked
//! on the terminal, for one thing after the other: so a wrong password and a wrong code are told apart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc, watch};

use super::{Command, Progress, SignedIn, Started, Task};
use crate::api::Ask;
use crate::error::{Code, Error, Result};
use crate::keystone::{Proof, Receipt};
use crate::model::{Factor, LocalUser, Secret, Token};
use crate::sync::lock_unpoisoned;

/// Answers of a user that may be wrong; then the sign-in is over. Many clouds lock an account after five.
const TRIES: u32 = 3;

/// Keystone takes codes of the last ten half minutes at most (`[totp] included_previous_windows`).
const REMEMBER_CODE: SignedDuration = SignedDuration::from_mins(6);

/// Codes that were sent. Keystone takes the same one again for as long as it lives, although RFC 6238 section 5.2 forbids
/// it: so whoever read one over a shoulder must not find us sending it twice, and a user is told to wait for the next.
#[derive(Default)]
pub struct UsedCodes(Mutex<HashMap<[u8; 32], Timestamp>>);

impl UsedCodes {
    /// Whether it was sent before; from now on it was.
    fn use_up(&self, code: [u8; 32], now: Timestamp) -> bool {
        let mut used = lock_unpoisoned(&self.0);
        used.retain(|_, when| now.duration_since(*when) < REMEMBER_CODE);
        used.insert(code, now).is_some()
    }

    /// Keystone did not take it: typing it again is the same mistake, not a replay.
    fn forget(&self, code: &[u8; 32]) {
        lock_unpoisoned(&self.0).remove(code);
    }
}

/// Shows what the entry holds, and starts to wait for the rest.
pub(super) async fn start(task: Task, codes: Arc<UsedCodes>) -> Result<Started> {
    let user = task.cloud.sign_in.password.clone().ok_or_else(|| {
        Error::new(Code::InvalidConfig, "this way to sign in needs `username`").cloud(task.cloud.label())
    })?;
    let first = user.methods.first().copied().unwrap_or(Factor::Password);
    let mut proving =
        Proving { task, user, codes, next: first, receipt: None, tries: TRIES, notices: Vec::new() };
    if let Some(token) = proving.with_the_entrys_password().await? {
        return Ok(Started::over(SignedIn::without_grant(token)));
    }
    let first = proving.progress();
    Ok(Started::going_on(String::new(), None, first, |progress, heard, cancelled| async move {
        proving.until_over(&progress, heard, &cancelled).await
    }))
}

/// How far a user's proof is.
struct Proving {
    task: Task,
    user: LocalUser,
    codes: Arc<UsedCodes>,
    /// What is to be shown next.
    next: Factor,
    /// For what was shown.
    receipt: Option<Receipt>,
    tries: u32,
    notices: Vec<String>,
}

impl Proving {
    async fn until_over(
        mut self,
        progress: &watch::Sender<Progress>,
        mut heard: mpsc::Receiver<Command>,
        cancelled: &Notify,
    ) -> Result<SignedIn> {
        let deadline = self.task.clock.sleep_until(self.task.deadline);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => {
                    let waited = self.task.deadline.duration_since(self.task.started_at).as_secs();
                    let why = format!("the {} was not typed within {waited} seconds", self.next);
                    return Err(self.task.again(Code::SignInTimedOut, why));
                }
                () = cancelled.notified() => return Err(self.task.cancelled()),
                Some(command) = heard.recv() => match command {
                    Command::Factors(answers, reply) => match self.answered(&answers).await {
                        Ok(Some(token)) => {
                            drop(reply.send(Ok(())));
                            return Ok(SignedIn::without_grant(token));
                        }
                        Ok(None) => {
                            progress.send_replace(self.progress());
                            drop(reply.send(Ok(())));
                        }
                        // Who asked learns it from the end of the sign-in.
                        Err(refusal) if self.tries == 0 => return Err(refusal),
                        Err(refusal) => drop(reply.send(Err(refusal))),
                    },
                    other => other.makes_no_sense_here(&self.task, "this sign-in is made on the terminal"),
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        let text = match self.next {
            Factor::Password => format!("Password of {}", self.user.user),
            Factor::Totp => format!("One-time code of {}", self.user.user),
        };
        let asks = vec![Ask { factor: self.next, text }];
        Progress { asks, notices: self.notices.clone(), ..Progress::default() }
    }

    /// The entry's password, where it has one and Keystone asks for it. It is sent once: a second try would lock the account.
    async fn with_the_entrys_password(&mut self) -> Result<Option<Token>> {
        if self.next != Factor::Password {
            return Ok(None);
        }
        let Some(password) = self.user.password.take() else { return Ok(None) };
        self.show(&password).await.map_err(|error| match error.code {
            Code::FactorRefused => {
                error.remedy("correct the entry's `password`, or take it out to be asked for it")
            }
            _ => error,
        })
    }

    async fn answered(&mut self, answers: &BTreeMap<String, Secret>) -> Result<Option<Token>> {
        let answer = answers.get(self.next.name()).filter(|answer| !answer.expose().is_empty());
        let Some(answer) = answer else {
            return Err(self.task.again(Code::InvalidRequest, format!("the {} is asked for", self.next)));
        };
        if self.next == Factor::Password {
            return self.then_the_entry(answer).await;
        }
        // Many apps show it with a gap in its middle.
        let code = Secret::new(answer.expose().split_whitespace().collect::<String>());
        let digest = self.digest(&code);
        if self.codes.use_up(digest, self.task.clock.now()) {
            let why = "this one-time code was used before: wait for the next one";
            return Err(self.task.again(Code::FactorRefused, why.into()));
        }
        let shown = self.then_the_entry(&code).await;
        if shown.as_ref().is_err_and(|error| error.code == Code::FactorRefused) {
            self.codes.forget(&digest);
        }
        shown
    }

    /// What the user typed, and the entry's password where Keystone asks for that next.
    async fn then_the_entry(&mut self, typed: &Secret) -> Result<Option<Token>> {
        match self.show(typed).await? {
            Some(token) => Ok(Some(token)),
            None => self.with_the_entrys_password().await,
        }
    }

    fn digest(&self, code: &Secret) -> [u8; 32] {
        let who = format!("{} {}", self.task.cloud.keystone_root(), self.user.user);
        Sha256::new().chain_update(who).chain_update([0]).chain_update(code.expose()).finalize().into()
    }

    /// Shows what is next. Nothing: there is more to show.
    async fn show(&mut self, secret: &Secret) -> Result<Option<Token>> {
        let shown = self.next;
        match self.task.keystone.prove(&self.user.user, shown, secret, self.receipt.as_ref()).await? {
            Proof::Token(token) => {
                self.task.check_user(&token).await?;
                Ok(Some(*token))
            }
            Proof::More(receipt) => {
                self.next = self.missing(&receipt)?;
                self.receipt = Some(receipt);
                Ok(None)
            }
            Proof::Refused(why) => {
                self.tries = self.tries.saturating_sub(1);
                let why = why.map_or(String::new(), |why| format!(": {why}"));
                let refusal = format!("Keystone does not take the {shown} of {}{why}", self.user.user);
                Err(self.task.again(Code::FactorRefused, refusal))
            }
            Proof::TooLate => {
                self.receipt = None;
                self.next = Factor::Password;
                self.notices
                    .push("that took too long for Keystone: please begin with the password again".into());
                Ok(None)
            }
        }
    }

    /// What of Keystone's rules comes next: by the one that asks least of the user, of those that we can meet.
    fn missing(&self, receipt: &Receipt) -> Result<Factor> {
        let known = |rule: &Vec<String>| {
            let factors: Option<Vec<_>> = rule.iter().map(|method| Factor::named(method)).collect();
            factors.filter(|factors| !factors.is_empty())
        };
        let least = receipt.missing.iter().filter_map(known).min_by_key(Vec::len);
        least.and_then(|factors| factors.into_iter().min()).ok_or_else(|| {
            let rules: Vec<_> = receipt.missing.iter().map(|rule| rule.join(" with ")).collect();
            let why =
                format!("Keystone asks for {} besides, which cannot be shown here", rules.join(", or "));
            Error::new(Code::InvalidConfig, why)
                .cloud(self.task.cloud.label())
                .remedy("ask the operator for a rule (multi_factor_auth_rules) of password and totp")
        })
    }
}
