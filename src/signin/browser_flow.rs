//! A sign-in in the user's own browser, bound to the tab it started in.
//!
//! The URL that is opened lies on another origin than the callback (a port of its own): that page can
//! remove what an earlier owner of the callback's port left behind, before the tab goes there, gets
//! its secret and moves on. The host is the callback's, because Firefox keeps storage
//! apart by site: asked from `127.0.0.1`, it clears only what `localhost` keeps *within* `127.0.0.1`,
//! and a service worker stays. See `loopback` for the way back, and `websso` and `oidc_code` for where
//! the tab goes and what is made of what it brings back.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use jiff::SignedDuration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use url::Url;

use super::loopback::{self, Brought, CallbackPort, Mail, PageReply, Seat, Unclaimed, Word};
use super::start_page::StartPort;
use super::{Command, Progress, SignedIn, Started, Task};
use crate::api::Offer;
use crate::error::{Code, Error, Result};
use crate::model::Secret;

/// After this long without an answer the user is told what other servers' error pages mean.
const HINT_AFTER: SignedDuration = SignedDuration::from_secs(20);

/// Where a tab goes, and what is made of what it brings back.
pub(super) trait Errand: Send + Sync + 'static {
    /// The address outside this computer that the tab is sent to.
    fn address(&self) -> &Url;
    /// A token of Keystone's for what came back.
    fn redeem<'a>(&'a self, task: &'a Task, brought: Brought) -> BoxFuture<'a, Result<SignedIn>>;
    /// Where a browser on another machine can go, if what it brings back fits into an address.
    fn elsewhere(&self) -> Option<&Url> {
        None
    }
    /// Whether the tab may go round again before the session ends.
    fn may_be_kept(&self) -> bool {
        false
    }
    /// What the user should know who waits, and sees an error page that the broker cannot see.
    fn hint(&self, task: &Task) -> String;
}

/// Opens the start page of a sign-in whose callback is bound, and starts to wait.
pub(super) fn start(
    task: Task,
    port: &Arc<CallbackPort>,
    start_port: Arc<StartPort>,
    errand: impl Errand,
) -> Started {
    let (mail_to, mail) = mpsc::channel(16);
    let seat = port.seat(&task.id, errand.address().clone(), mail_to, None);
    let (progress, progress_seen) = watch::channel(Progress::default());
    let link = start_port.link(&task.cloud, &seat, progress.clone());
    let url = link.url();
    let tunnel = port.forward().zip(link.forward());
    let tunnel = tunnel.map(|(callback, start)| format!("ssh -N {callback} {start}"));
    let elsewhere = errand.elsewhere().map(Url::to_string);
    let (commands, commands_heard) = mpsc::channel(4);
    let (end, outcome) = oneshot::channel();
    let cancel = Arc::new(Notify::new());
    let wait = Wait { task, seat, errand, progress, keep: "offered", candidates: HashMap::new() };
    let cancelled = cancel.clone();
    tokio::spawn(async move {
        let ended = wait.until_over(mail, commands_heard, &cancelled).await;
        drop(link);
        let _broker_is_gone = end.send(ended);
    });
    Started { url, user_code: None, elsewhere, tunnel, progress: progress_seen, commands, cancel, outcome }
}

/// A tab of an earlier sign-in goes round again. Nobody waits in a terminal, and no start page is needed: the callback's
/// port has been ours since the first round.
pub(super) async fn round(
    task: Task,
    seat: Seat,
    errand: impl Errand,
    mail: mpsc::Receiver<Mail>,
) -> Result<SignedIn> {
    let (progress, _nobody_watches) = watch::channel(Progress::default());
    let (_, commands) = mpsc::channel(1);
    let wait = Wait { task, seat, errand, progress, keep: "kept", candidates: HashMap::new() };
    wait.until_over(mail, commands, &Notify::new()).await
}

/// Tells the terminal, and hands on what ends the sign-in.
fn answer(reply: oneshot::Sender<Result<()>>, done: Result<SignedIn>) -> Option<SignedIn> {
    let (said, signed_in) = match done {
        Ok(signed_in) => (Ok(()), Some(signed_in)),
        Err(error) => (Err(error), None),
    };
    let _caller_is_gone = reply.send(said);
    signed_in
}

/// A sign-in that waits for its browser.
struct Wait<E> {
    task: Task,
    seat: Seat,
    errand: E,
    progress: watch::Sender<Progress>,
    /// What the last page says of *Keep me signed in*.
    keep: &'static str,
    /// Proven tokens that wait for the user's answer on their page, by claim.
    candidates: HashMap<String, SignedIn>,
}

impl<E: Errand> Wait<E> {
    async fn until_over(
        mut self,
        mut mail: mpsc::Receiver<Mail>,
        mut commands: mpsc::Receiver<Command>,
        cancelled: &Notify,
    ) -> Result<SignedIn> {
        let deadline = self.task.clock.sleep_until(self.task.deadline);
        let mut hint = Some(self.task.clock.sleep_until(self.task.started_at + HINT_AFTER));
        tokio::pin!(deadline);
        loop {
            let hint_due = async {
                match &mut hint {
                    Some(due) => due.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut deadline => return Err(self.timed_out()),
                () = cancelled.notified() => return Err(self.task.cancelled()),
                () = hint_due => {
                    hint = None;
                    self.notice(self.errand.hint(&self.task));
                }
                Some(command) = commands.recv() => {
                    let done = tokio::select! {
                        done = self.obey(command) => done,
                        () = &mut deadline => return Err(self.timed_out()),
                        () = cancelled.notified() => return Err(self.task.cancelled()),
                    };
                    if let Some(signed_in) = done { return Ok(signed_in) }
                }
                Some(letter) = mail.recv() => {
                    let done = tokio::select! {
                        done = self.read(letter) => done,
                        () = &mut deadline => return Err(self.timed_out()),
                        () = cancelled.notified() => return Err(self.task.cancelled()),
                    };
                    if let Some(signed_in) = done { return Ok(signed_in) }
                }
            }
        }
    }

    /// A page's word; the token that ends the sign-in, if it does.
    async fn read(&mut self, letter: Mail) -> Option<SignedIn> {
        let Mail { claim, tab, word, reply } = letter;
        let (mut shown, mut signed_in) = match word {
            Word::Brought(brought) => self.proven(claim, brought).await,
            Word::Answer(accept) => self.answered(&claim, accept),
            Word::Unproven => {
                self.tell(|progress| progress.offers += 1);
                (PageReply::state("unproven"), None)
            }
        };
        if let (Some(signed_in), Some(tab)) = (&mut signed_in, tab)
            && self.errand.may_be_kept()
        {
            // Before the page knows: it comes at once.
            signed_in.tab = self.seat.keep(tab);
            shown.keep = signed_in.tab.as_ref().map(|_| self.keep);
        }
        let _page_is_gone = reply.send(shown);
        signed_in
    }

    /// Something came back to our tab. Whose it is decides what the page shows.
    async fn proven(&mut self, claim: String, brought: Brought) -> (PageReply, Option<SignedIn>) {
        let signed_in = match self.errand.redeem(&self.task, brought).await {
            Ok(signed_in) => signed_in,
            Err(error) => {
                self.notice(format!("what the browser brought cannot be used: {}", error.detail));
                // A stranger's tab brings what is refused as a token; nobody is to stop waiting because of it.
                if error.code != Code::TokenRefused {
                    self.tell(|progress| progress.refused = Some(error.clone()));
                }
                let message = Some(error.detail);
                let reply = if error.code == Code::TokenRefused {
                    // Whose identity provider it was, the message says; the sign-in itself goes on.
                    PageReply { message, identity_provider: None, ..self.page("refused") }
                } else {
                    PageReply { message, remedy: error.remedy, ..self.page("failed") }
                };
                return (reply, None);
            }
        };
        let token = &signed_in.token;
        let shown = |state| PageReply {
            user: Some(token.user.name.clone()),
            user_domain: Some(token.user.domain.to_string()),
            identity_provider: token.federation.as_ref().map(|(idp, _)| idp.clone()),
            ..self.page(state)
        };
        match &self.task.expected {
            Some(expected) if expected.id == token.user.id => (shown("done"), Some(signed_in)),
            Some(expected) => {
                let remedy = format!("ksb login {} --switch-user", self.task.cloud.argument());
                let reply = PageReply {
                    expected_user: Some(expected.name.clone()),
                    remedy: Some(remedy.clone()),
                    ..shown("wrong-user")
                };
                self.notice(format!(
                    "the browser is signed in as {}, not as {}; to change over: {remedy}",
                    token.user.name, expected.name
                ));
                (reply, None)
            }
            None => {
                let reply = shown("confirm");
                self.candidates.insert(claim, signed_in);
                self.tell(|progress| progress.confirming = true);
                (reply, None)
            }
        }
    }

    fn answered(&mut self, claim: &str, accept: bool) -> (PageReply, Option<SignedIn>) {
        let Some(signed_in) = self.candidates.remove(claim) else { return (self.page("expired"), None) };
        let token = &signed_in.token;
        let (user, user_domain) = (Some(token.user.name.clone()), Some(token.user.domain.to_string()));
        if accept {
            return (PageReply { user, user_domain, ..self.page("done") }, Some(signed_in));
        }
        let remedy = format!("ksb login {} --switch-user", self.task.cloud.argument());
        self.notice(format!("{} was declined on the page; for another account: {remedy}", token.user.name));
        let confirming = !self.candidates.is_empty();
        self.tell(|progress| progress.confirming = confirming);
        (PageReply { user, user_domain, remedy: Some(remedy), ..self.page("declined") }, None)
    }

    /// The user at the terminal; the token that ends the sign-in, if it does.
    async fn obey(&mut self, command: Command) -> Option<SignedIn> {
        match command {
            Command::Offers(reply) => {
                let unclaimed = self.seat.unclaimed();
                let examined = join_all(unclaimed.iter().map(|waiting| self.redeem_offer(waiting))).await;
                let good = unclaimed.into_iter().zip(examined).filter_map(|(waiting, examined)| {
                    let token = examined.ok()?.token;
                    let identity_provider = token.federation.map(|(idp, _)| idp);
                    Some(Offer { code: waiting.code, user: token.user, identity_provider })
                });
                let _caller_is_gone = reply.send(Ok(good.collect()));
                None
            }
            command @ Command::Factors(..) => {
                command.makes_no_sense_here(&self.task, "this sign-in is made in the browser");
                None
            }
            Command::Accept(code, reply) => answer(reply, self.take(&code).await),
            Command::Redirected(url, reply) => answer(reply, self.redirected(&url).await),
        }
    }

    async fn redeem_offer(&self, offer: &Unclaimed) -> Result<SignedIn> {
        self.errand.redeem(&self.task, Brought::Token(offer.token.clone())).await
    }

    async fn take(&self, code: &str) -> Result<SignedIn> {
        let unclaimed = self.seat.unclaimed().into_iter().find(|unclaimed| unclaimed.code == code);
        let unclaimed = unclaimed
            .ok_or_else(|| self.error(Code::UnknownSignIn, format!("no token with the code {code} waits")))?;
        self.expected(self.redeem_offer(&unclaimed).await?)
    }

    /// What a browser on another machine brought, by the hand of the user at the terminal: `state` and PKCE bind it to
    /// this sign-in.
    async fn redirected(&self, url: &Secret) -> Result<SignedIn> {
        let response = Url::parse(url.expose().trim()).ok().and_then(|url| loopback::response_in(&url));
        let response = response.ok_or_else(|| {
            self.error(
                Code::InvalidRequest,
                "that is not the address of a finished sign-in: no code in it".into(),
            )
        })?;
        if self.errand.elsewhere().is_none() {
            let why = "this cloud sends its token in a form, not in an address: there is nothing to paste";
            return Err(self.error(Code::InvalidRequest, why.into()));
        }
        self.expected(self.errand.redeem(&self.task, Brought::Response(Box::new(response))).await?)
    }

    /// The sign-in, unless it is not the pinned user's.
    fn expected(&self, signed_in: SignedIn) -> Result<SignedIn> {
        let token = &signed_in.token;
        match &self.task.expected {
            Some(expected) if expected.id != token.user.id => Err(self
                .error(Code::TokenRefused, format!("that is {}, not {}", token.user.name, expected.name))
                .remedy(format!("ksb login {} --switch-user", self.task.cloud.argument()))),
            _ => Ok(signed_in),
        }
    }

    fn timed_out(&self) -> Error {
        let waited = self.task.deadline.duration_since(self.task.started_at).as_secs();
        self.task.again(Code::SignInTimedOut, format!("nobody finished signing in within {waited} seconds"))
    }

    fn page(&self, state: &'static str) -> PageReply {
        let cloud = &self.task.cloud;
        PageReply {
            cloud: Some(cloud.label().to_owned()),
            keystone: cloud.auth_url.host_str().map(str::to_owned),
            identity_provider: cloud.identity_provider.clone(),
            ..PageReply::state(state)
        }
    }

    fn notice(&self, text: String) {
        // A page that is reloaded says the same thing again; the terminal needs it once.
        self.tell(|progress| {
            if !progress.notices.contains(&text) && progress.notices.len() < 20 {
                progress.notices.push(text);
            }
        });
    }

    fn tell(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    fn error(&self, code: Code, detail: String) -> Error {
        Error::new(code, detail).cloud(self.task.cloud.label())
    }
}
