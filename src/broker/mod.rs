//! The heart: the operations that callers ask for. Knows nothing of HTTP servers, browsers or
//! clouds.yaml.

mod audit;
mod background_tasks;
mod cloud_names;
mod confined;
mod confirm;
mod discover;
mod expiry_notice;
mod lease;
mod leases;
mod lifetime;
mod lock;
mod persistence;
mod policy;
mod probe;
mod prompt_policy;
mod renewal;
mod revocation;
mod serving;
mod session;
mod shutdown;
mod sign_in_attempt;
mod single_flight;
mod tab_renewal;
mod trusted_clouds;
mod unattended;
mod waiters;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{oneshot, watch};

use crate::api::{
    self, CloudRequest, FacadeReport, Incomplete, LeasesReply, LockReport, LoginRequest, LogoutReply,
    LogoutRequest, Offers, ReachReply, SignIn, TokenRequest, UnlockRequest, VaultKeyRequest, VaultReport,
};
use crate::audit::{Action, Log, What, Who};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::http_client::Outbound;
use crate::keystone::{Keystone, Verdict};
use crate::model::{Cloud, DomainRef, Identity, ProjectRef, Scope, Secret, Token, User, Way, random_hex};
use crate::notifier::Notices;
use crate::platform::paths::{RuntimeDirectory, known_clouds_in};
use crate::platform::peer_program::Peer;
use crate::signin::loopback::Loopback;
use crate::signin::password::UsedCodes;
use crate::signin::{self, Command, SignedIn};
use crate::sync::lock_unpoisoned;
use crate::time::SharedClock;
use crate::vault::{Lost, Vault};

use background_tasks::Work;
use confirm::Wish;
use lease::{Ended, Lease};
pub use leases::{Leased, Shown};
use lock::Turn;
use persistence::Changes;
use revocation::Revocation;
use serving::{Made, Want};
pub use session::Held;
use session::Session;
pub use shutdown::Departure;
use sign_in_attempt::{Entry, Opening};
use single_flight::Flight;
use trusted_clouds::KnownClouds;

/// How long a sign-in that is over can still be asked about.
const REMEMBER_SIGN_IN: SignedDuration = SignedDuration::from_mins(5);

/// Why there is no token.
const NOBODY: &str = "nobody is signed in, or not for long enough";

/// The broker. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    clock: SharedClock,
    config: Config,
    outbound: Outbound,
    loopback: Loopback,
    used_codes: Arc<UsedCodes>,
    notices: Arc<dyn Notices>,
    known: KnownClouds,
    vault: Arc<Vault>,
    log: Arc<Log>,
    confirmations: confirm::Confirmations,
    changes: Changes,
    saves: Flight<(), ()>,
    started_at: Timestamp,
    runtime_directory: RuntimeDirectory,
    /// Why this process is to leave, once it is.
    departure: watch::Sender<Option<Departure>>,
    work: Work,
    turn: Turn,
    facade: Mutex<FacadeReport>,
    state: Mutex<State>,
    exchanges: Flight<(Identity, Scope), Minting>,
    /// The same for leases, by id.
    leased: Flight<(String, Scope), Made>,
    /// Credentials of leases in the making.
    confinements: Flight<String, ()>,
    /// Changes with what waits for a user at the facade.
    wants: watch::Sender<()>,
    /// Questions to Keystone whether a refused token is still good.
    doubts: Flight<(Identity, Secret), ()>,
    /// Whether the session could be renewed.
    renewals: Flight<Identity, bool>,
    starts: Flight<Identity, Arc<Entry>>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<Identity, Session>,
    /// Sessions whose own token Keystone refused: what they handed out is revoked at logout all the same.
    lapsed: HashMap<Identity, Session>,
    /// Sessions that were logged out, until what they gave is revoked or has expired.
    revocations: Vec<Arc<Revocation>>,
    /// Whether somebody sees to it that those are tried again.
    is_retrying: bool,
    /// A vault that can never be opened again, until the tokens in it have expired.
    lost: Option<Lost>,
    /// Leases by id.
    leases: HashMap<String, Lease>,
    /// Leases that are over, while what they had at Keystone is taken back.
    over: Vec<Arc<Lease>>,
    /// The last ones that ended.
    ended: VecDeque<Ended>,
    /// Ids of those whose cloud could not be asked.
    unreachable: HashSet<String>,
    /// Requests at the facade that wait for a user.
    wanted: Vec<Arc<Want>>,
    /// The user that each identity is bound to, from the first sign-in to the logout.
    pins: HashMap<Identity, User>,
    /// Labels of the clouds that used each identity's session, or waited for its sign-in; for as long as the pin.
    labels: HashMap<Identity, Vec<String>>,
    pending: HashMap<Identity, Arc<Entry>>,
    /// Sign-ins by id, with the time from which they may be forgotten.
    sign_ins: HashMap<String, (Arc<Entry>, Option<Timestamp>)>,
    /// When a sign-in that a program had opened last began or ended, or one timed out.
    last_prompts: HashMap<Identity, Timestamp>,
    lock: Option<LockReport>,
    /// How often it was to be locked.
    locks: u64,
    /// Whether the user came back to their screen while this process was leaving.
    is_welcome: bool,
    /// Wrong passphrases in a row, and when the last one was tried.
    tries: (u32, Timestamp),
    /// How many are opening the vault and have not taken in yet what is there.
    unsealing: u32,
    /// Leases that go on, or went on, while it is locked: what the vault says of them is out of date.
    through: HashSet<String>,
    /// When somebody last asked for something.
    used_at: Option<Timestamp>,
}

impl State {
    /// Whether nothing would be lost with it.
    fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.lapsed.is_empty()
            && self.revocations.is_empty()
            && self.leases.is_empty()
            && self.over.is_empty()
    }
}

/// What an exchange comes to.
#[derive(Clone)]
enum Minting {
    Token(Arc<Held>),
    /// The session gives no tokens any more.
    SignInNeeded,
}

/// What asking Keystone for a scope comes to: a token, what was filled in to get it, and the one it came from.
struct Rescoped {
    token: Token,
    assumed: Option<String>,
    from: Secret,
}

/// How a sign-in is asked for.
#[derive(Clone, Copy, Default)]
struct Ask {
    /// Another user than before may come.
    switch_user: bool,
    /// The user's browser is at the other end of an SSH session.
    remote: bool,
    /// By a program, not by the user: it counts.
    by_program: bool,
}

impl Ask {
    fn program(remote: bool) -> Self {
        Self { remote, by_program: true, ..Self::default() }
    }
}

/// What a caller gets who asks for a token.
#[derive(Debug)]
pub enum Served {
    /// A token.
    Token(Arc<Held>),
    /// A sign-in to wait for.
    SignIn(Box<SignIn>),
}

/// What `ksb login` gets.
#[derive(Debug)]
pub enum LoggedIn {
    /// The session lasts long enough already.
    Session(Box<api::Session>),
    /// A sign-in to wait for.
    SignIn(Box<SignIn>),
}

impl Broker {
    /// A broker that keeps in `vault` what outlives it, and beside it which clouds are known; sockets lie in
    /// `runtime_directory`, and `notices` reach the user.
    pub fn new(
        clock: SharedClock,
        config: Config,
        vault: Vault,
        runtime_directory: &Path,
        notices: Arc<dyn Notices>,
    ) -> Self {
        let work = Work::default();
        let runtime_directory = RuntimeDirectory::new(runtime_directory);
        let inner = Inner {
            started_at: clock.now(),
            outbound: Outbound::new(clock.clone()),
            clock,
            config,
            loopback: Loopback::new(runtime_directory.clone()),
            used_codes: Arc::default(),
            notices,
            known: KnownClouds::load(known_clouds_in(vault.folder())),
            log: Arc::new(Log::at(crate::audit::file_in(vault.folder()))),
            vault: Arc::new(vault),
            confirmations: confirm::Confirmations::default(),
            changes: Changes::default(),
            saves: Flight::from(&work),
            state: Mutex::default(),
            runtime_directory,
            facade: Mutex::new(FacadeReport {
                url: String::new(),
                problem: Some("there is no facade".into()),
            }),
            departure: watch::Sender::default(),
            turn: Turn::default(),
            exchanges: Flight::from(&work),
            leased: Flight::from(&work),
            confinements: Flight::from(&work),
            wants: watch::channel(()).0,
            doubts: Flight::from(&work),
            renewals: Flight::from(&work),
            starts: Flight::from(&work),
            work,
        };
        inner.recall_lock();
        let version = format!("version {}", env!("CARGO_PKG_VERSION"));
        inner.note(Who::Agent, What { detail: Some(version), ..What::done(Action::Start) });
        tokio::spawn(audit::keep(Arc::downgrade(&inner.log), inner.clock.clone()));
        Self { inner: Arc::new(inner) }
    }

    /// Keeps in another directory what lay beside the socket: the old one was removed.
    pub fn move_to(&self, runtime_directory: &Path) {
        self.inner.runtime_directory.change(runtime_directory);
        self.inner.remark();
    }

    /// Takes in what the vault has, unless it is locked. Returns when that is done, or when its key is long in coming: then it is taken in when
    /// it comes.
    pub async fn recall(&self) {
        if !self.inner.vault.is_sealed() || self.inner.check_lock().is_err() {
            return;
        }
        let inner = self.inner.clone();
        let unsealing = tokio::spawn(async move { inner.unseal(None).await });
        // What came of it is in the vault's report.
        tokio::time::timeout(persistence::PATIENCE, unsealing).await.ok();
    }

    /// Opens the vault, and the lock.
    pub async fn unlock_for(&self, request: UnlockRequest, peer: Peer) -> Result<VaultReport> {
        self.inner.log.meet(peer).await;
        let outcome = self.unlock(request.passphrase, Who::Peer(peer)).await;
        self.note(peer, Action::Vault, &outcome);
        outcome
    }

    /// Seals the vault with another key.
    pub async fn change_vault_key(&self, request: VaultKeyRequest, peer: Peer) -> Result<VaultReport> {
        self.inner.log.meet(peer).await;
        let outcome = self.inner.change_key(request.key, request.passphrase).await;
        self.note(peer, Action::Vault, &outcome);
        outcome
    }

    /// A token of a scope: the one that is held, a new one from the session, or a sign-in to wait for.
    pub async fn token(&self, request: &TokenRequest, peer: Peer) -> Result<Served> {
        self.inner.log.meet(peer).await;
        let outcome = self.serve(request, peer).await;
        self.inner.note_token(peer, request, &outcome);
        outcome
    }

    async fn serve(&self, request: &TokenRequest, peer: Peer) -> Result<Served> {
        let cloud = &request.cloud;
        let in_cloud = |error: Error| error.cloud(cloud.label());
        let identity = self.admit(cloud).map_err(in_cloud)?;
        if let Some(rejected) = &request.rejected {
            self.confirm(&identity, rejected).await.map_err(in_cloud)?;
        }
        let scope = &request.scope;
        let mut minting = match self.inner.held(cloud, &identity, scope, request.min_validity) {
            Some(held) => Minting::Token(held),
            None => {
                self.inner.obtain(cloud, &identity, scope, request.min_validity).await.map_err(in_cloud)?
            }
        };
        let unattended = cloud.sign_in.way == Way::Workload;
        if matches!(minting, Minting::SignInNeeded) && unattended {
            self.sign_in_unattended(cloud, &identity, false).await.map_err(in_cloud)?;
            minting =
                self.inner.obtain(cloud, &identity, scope, request.min_validity).await.map_err(in_cloud)?;
        }
        match minting {
            Minting::Token(held) => {
                self.inner.settle().await;
                if self.inner.config.requires_confirmation(cloud) {
                    let program = self.identify(peer).await;
                    let (identity, ends) = (&identity, held.token.expires_at);
                    let wish = Wish { program, cloud, identity, scope, lease: None, ends };
                    self.inner.confirm_use(wish, SignedDuration::MAX).await?;
                }
                Ok(Served::Token(held))
            }
            Minting::SignInNeeded if request.prompt && !unattended => {
                self.inner.check_vault(cloud)?;
                let program = self.identify(peer).await;
                self.inner.check_prompt(cloud, &identity, program.as_deref())?;
                let starting = self.pending_or_new(cloud, &identity, Ask::program(request.remote));
                let entry = starting.await.map_err(in_cloud)?;
                Ok(Served::SignIn(Box::new(entry.view(self.inner.clock.now()))))
            }
            Minting::SignInNeeded => {
                self.inner.check_vault(cloud)?;
                let why = self.inner.renewal_failure(&identity);
                let why = why.map_or(NOBODY.to_owned(), |why| format!("the session has ended: {why}"));
                Err(sign_in_needed(cloud, &why))
            }
        }
    }

    /// Signs in unless the session lasts long enough. Asked for by a user: no cool-down applies.
    pub async fn login(&self, request: &LoginRequest, peer: Peer) -> Result<LoggedIn> {
        self.inner.log.meet(peer).await;
        let outcome = self.log_in(request).await;
        self.inner.note_login(peer, request, &outcome);
        outcome
    }

    async fn log_in(&self, request: &LoginRequest) -> Result<LoggedIn> {
        let cloud = &request.cloud;
        let in_cloud = |error: Error| error.cloud(cloud.label());
        let identity = self.admit(cloud).map_err(in_cloud)?;
        let now = self.inner.clock.now();
        if request.renew {
            return self.renew_session(request, &identity).await.map_err(in_cloud);
        }
        if !request.switch_user && !self.inner.lives(cloud, &identity, request.min_validity) {
            // A failure is no reason to keep a user from signing in.
            if let Err(error) = self.inner.renew(&identity).await {
                tracing::info!(%error, "renewal failed");
            }
        }
        let unattended = cloud.sign_in.way == Way::Workload;
        if unattended && (request.switch_user || !self.inner.lives(cloud, &identity, request.min_validity)) {
            self.sign_in_unattended(cloud, &identity, request.switch_user).await.map_err(in_cloud)?;
        }
        let lifetime = request.lifetime.map(policy::lifetime);
        let mut lasts = false;
        if unattended || !request.switch_user {
            let mut state = lock_unpoisoned(&self.inner.state);
            if let Some(session) = state.sessions.get(&identity)
                && session.meets(cloud, now)
                && session.lives(now, if session.is_fresh(now) { 0 } else { request.min_validity })
                && (session.is_fresh(now) || !session.ends_soon(now))
            {
                lasts = true;
                if state.used_by(&identity, cloud.label()) {
                    self.inner.changes.note();
                }
            }
        }
        if lasts {
            if let Some(lifetime) = lifetime {
                self.inner.shorten(&identity, lifetime);
                self.inner.settle().await;
            }
            let state = lock_unpoisoned(&self.inner.state);
            if let Some(session) = state.sessions.get(&identity) {
                return Ok(LoggedIn::Session(Box::new(session.view(state.labels(&identity), now))));
            }
        }
        self.inner.check_vault(cloud)?;
        if !request.prompt {
            return Err(Error::new(Code::SignInNeeded, "nobody is signed in, or not for long enough")
                .cloud(cloud.label())
                .remedy(format!("ksb login {}", cloud.argument())));
        }
        let ask = Ask { switch_user: request.switch_user, remote: request.remote, by_program: false };
        let starting = self.pending_or_new(cloud, &identity, ask);
        let entry = starting.await.map_err(in_cloud)?;
        if let Some(lifetime) = lifetime {
            entry.limit(lifetime);
        }
        Ok(LoggedIn::SignIn(Box::new(entry.view(now))))
    }

    /// Another session for the same user: a federated token holds the groups of its sign-in (Keystone's `OS-FEDERATION`).
    async fn renew_session(&self, request: &LoginRequest, identity: &Identity) -> Result<LoggedIn> {
        let cloud = &request.cloud;
        let view = || {
            let state = lock_unpoisoned(&self.inner.state);
            let session = state.sessions.get(identity)?;
            Some(LoggedIn::Session(Box::new(session.view(state.labels(identity), self.inner.clock.now()))))
        };
        let nobody = || sign_in_needed(cloud, NOBODY);
        let session = view().ok_or_else(nobody)?;
        match cloud.sign_in.way {
            // Keystone looks at the groups of its own users whenever a token is made.
            Way::Password => return Ok(session),
            Way::Workload => {
                self.sign_in_unattended(cloud, identity, true).await?;
                return view().ok_or_else(nobody);
            }
            Way::Websso | Way::OidcCode | Way::OidcDevice => {}
        }
        match self.inner.renew(identity).await {
            Ok(true) => return view().ok_or_else(nobody),
            Ok(false) => {}
            // A user may sign in meanwhile; nobody else can do more.
            Err(error) if !request.prompt => return Err(error),
            Err(error) => tracing::info!(%error, "renewal failed"),
        }
        self.inner.check_vault(cloud)?;
        if !request.prompt {
            let why =
                "the session's tokens hold the groups of its sign-in, and only a new sign-in renews them";
            return Err(
                sign_in_needed(cloud, why).remedy(format!("in a terminal: ksb refresh {}", cloud.argument()))
            );
        }
        let ask = Ask { switch_user: false, remote: request.remote, by_program: false };
        let entry = self.pending_or_new(cloud, identity, ask).await?;
        Ok(LoggedIn::SignIn(Box::new(entry.view(self.inner.clock.now()))))
    }

    /// A sign-in, as soon as there is news after `seen`. A `waiter` is a caller at a terminal.
    pub async fn sign_in(
        &self,
        id: &str,
        seen: u64,
        patience: Duration,
        waiter: Option<&str>,
    ) -> Result<SignIn> {
        let entry = self.entry(id)?;
        let poll = waiter.map(|waiter| entry.waiters.poll(waiter, &self.inner.clock));
        entry.changed(seen, patience, &self.inner.clock).await;
        if let Some(poll) = poll {
            poll.answer();
        }
        Ok(entry.view(self.inner.clock.now()))
    }

    /// The same as its caller gets it who has just asked for the cloud by this label. One at a terminal opens the browser
    /// again where no other one waits: the tab may be closed.
    pub fn joined(&self, sign_in: SignIn, label: &str, waiter: Option<&str>) -> SignIn {
        let now = self.inner.clock.now();
        let mut joined = sign_in;
        if let (Some(waiter), Ok(entry)) = (waiter, self.entry(&joined.id)) {
            // A code may be typed on any device: no browser is opened for that, neither now nor at first.
            let is_ours_to_open = joined.user_code.is_none() && joined.tunnel.is_none();
            if is_ours_to_open && !joined.opener && !entry.waiters.has_others(waiter, now) {
                entry.reopen();
                joined = entry.view(now);
            }
            entry.waiters.enter(waiter, now);
        }
        SignIn { cloud: label.to_owned(), ..joined }
    }

    /// A caller at a terminal gives up. Without another one that waits, the sign-in ends; whether it does.
    pub fn leave(&self, id: &str, waiter: &str) -> Result<bool> {
        let entry = self.entry(id)?;
        entry.waiters.leave(waiter);
        let ends = !entry.waiters.has_others(waiter, self.inner.clock.now());
        if ends {
            entry.opening.cancel.notify_one();
        }
        Ok(ends)
    }

    /// The caller has opened the browser.
    pub fn opened(&self, id: &str) -> Result<()> {
        self.entry(id)?.opened();
        Ok(())
    }

    /// Calls a sign-in off.
    pub fn cancel(&self, id: &str) -> Result<()> {
        self.entry(id)?.opening.cancel.notify_one();
        Ok(())
    }

    /// Tokens from tabs that did not start here, for the user at the terminal.
    pub async fn offers(&self, id: &str) -> Result<Offers> {
        let offers = self.ask(id, Command::Offers).await?;
        Ok(Offers { offers })
    }

    /// A user brings the address at which a browser on another machine ended.
    pub async fn redirected(&self, id: &str, url: Secret) -> Result<()> {
        self.ask(id, |reply| Command::Redirected(url, reply)).await
    }

    /// The user at the terminal takes the token that shows `code`.
    pub async fn accept(&self, id: &str, code: String) -> Result<()> {
        self.ask(id, |reply| Command::Accept(code, reply)).await
    }

    /// The factors that the user typed at the terminal.
    pub async fn factors(&self, id: &str, typed: BTreeMap<String, Secret>) -> Result<()> {
        self.ask(id, |reply| Command::Factors(typed, reply)).await
    }

    async fn ask<T>(
        &self,
        id: &str,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let entry = self.entry(id)?;
        let (reply, answer) = oneshot::channel();
        let sent = entry.opening.commands.send(command(reply)).await;
        match (sent, answer.await) {
            (Ok(()), Ok(answer)) => answer,
            _ => Err(over(id)),
        }
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>> {
        let state = lock_unpoisoned(&self.inner.state);
        state.sign_ins.get(id).map(|(entry, _)| entry.clone()).ok_or_else(|| over(id))
    }

    /// Drops the scoped tokens of a cloud and those of its leases, so that new roles show.
    pub fn refresh(&self, request: &CloudRequest) -> Result<usize> {
        self.inner.check_lock()?;
        let identity = self.identity(&request.cloud)?;
        let mut state = lock_unpoisoned(&self.inner.state);
        state.leases.values_mut().filter(|lease| lease.identity == identity).for_each(Lease::forget_all);
        Ok(state.sessions.get_mut(&identity).map_or(0, Session::drop_scoped))
    }

    /// What the user may scope to. Asked of Keystone each time: roles change.
    pub async fn reach(&self, request: &CloudRequest) -> Result<ReachReply> {
        let cloud = &request.cloud;
        let identity = self.admit(cloud)?;
        let held = self.inner.held(cloud, &identity, &Scope::Unscoped, 0);
        let held = held.ok_or_else(|| sign_in_needed(cloud, NOBODY))?;
        let keystone = self.inner.keystone(cloud)?;
        let (projects, domains) = tokio::join!(keystone.projects(&held.token), keystone.domains(&held.token));
        Ok(ReachReply { projects: projects?, domains: domains? })
    }

    /// Takes the user's word for a cloud of the current directory.
    pub async fn trust(&self, request: &CloudRequest, peer: Peer) -> Result<()> {
        self.inner.log.meet(peer).await;
        let trust = self.inner.outbound.trust_of(&request.cloud);
        let outcome = trust.and_then(|trust| self.inner.known.add(&request.cloud, &trust));
        self.inner.note_trust(peer, &request.cloud, &outcome);
        outcome
    }

    /// Ends one session or all: revokes every token at Keystone and forgets, even offline.
    pub async fn logout(&self, request: &LogoutRequest, who: Who) -> Result<LogoutReply> {
        self.inner.check_lock()?;
        if let Who::Peer(peer) = who {
            self.inner.log.meet(peer).await;
        }
        let only = request.cloud.as_ref().map(|cloud| self.identity(cloud)).transpose()?;
        self.end_identities(only.as_ref(), who).await
    }

    /// Ends one, or all, of those who are signed in.
    async fn end_identities(&self, only: Option<&Identity>, who: Who) -> Result<LogoutReply> {
        let now = self.inner.clock.now();
        let (swept, revocations, entries, over) = {
            let mut state = lock_unpoisoned(&self.inner.state);
            let identities: Vec<Identity> = if let Some(identity) = only {
                vec![identity.clone()]
            } else {
                let State { sessions, lapsed, pending, pins, last_prompts, .. } = &*state;
                let signed_in = sessions.keys().chain(lapsed.keys()).chain(pins.keys());
                signed_in.chain(pending.keys()).chain(last_prompts.keys()).cloned().collect()
            };
            let mut ended = Vec::new();
            let mut entries = Vec::new();
            for identity in &identities {
                ended.extend(state.sessions.remove(identity).map(|session| (identity.clone(), session)));
                ended.extend(state.lapsed.remove(identity).map(|session| (identity.clone(), session)));
                entries.extend(state.pending.get(identity).cloned());
                state.pins.remove(identity);
                state.labels.remove(identity);
                state.last_prompts.remove(identity);
            }
            let over = self.inner.end_leases_of(&mut state, &ended, only);
            let own_token =
                |(_, session): &(_, Session)| Some((session.cloud.clone(), session.own_token(now)?.clone()));
            let swept: Vec<_> = ended.iter().filter_map(own_token).collect();
            let ended = ended.into_iter();
            let ended = ended.map(|(identity, session)| Arc::new(session.into_revocation(identity, now)));
            state.revocations.extend(ended);
            let is_meant = |left: &&Arc<Revocation>| only.is_none_or(|only| left.identity == *only);
            let revocations: Vec<_> = state.revocations.iter().filter(is_meant).cloned().collect();
            self.inner.changes.note();
            (swept, revocations, entries, over)
        };
        for entry in entries {
            entry.opening.cancel.notify_one();
        }
        let unanswered = LogoutReply {
            sessions: revocations.iter().map(|revocation| revocation.unanswered(now)).collect(),
            leases: over.iter().map(|(lease, _)| lease.unanswered(now)).collect(),
            incomplete: self.inner.incomplete(),
        };
        // While the session's own token lives: it deletes what nothing else can.
        // A caller that leaves meanwhile cuts nothing off.
        let inner = self.inner.clone();
        let ending = self.inner.work.spawn(async move {
            let leases = inner.clear_with(over).await;
            join_all(swept.iter().map(|(cloud, held)| inner.sweep(cloud, &held.token))).await;
            let sessions = inner.revoke_all(revocations).await;
            inner.note_logout(&who, &sessions);
            LogoutReply { sessions, leases, incomplete: inner.incomplete() }
        });
        tokio::select! {
            ended = ending => ended.map_err(|error| Error::new(Code::Internal, error.to_string())),
            () = self.inner.clock.sleep_until(now + policy::ENDING) => Ok(unanswered),
        }
    }

    /// Who is signed in where.
    pub fn status(&self) -> api::Status {
        let now = self.inner.clock.now();
        let LeasesReply { leases, facade, incomplete } = self.leases();
        let state = lock_unpoisoned(&self.inner.state);
        let view = |(identity, session): (_, &Session)| session.view(state.labels(identity), now);
        let mut sessions: Vec<_> = state.sessions.iter().map(view).collect();
        sessions.sort_by(|a, b| a.clouds.cmp(&b.clouds));
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            program: crate::platform::process::program(),
            started_at: self.inner.started_at,
            vault: self.inner.vault.report(),
            locked: state.lock.clone(),
            sessions,
            incomplete,
            unrevoked: state.unrevoked(now),
            sign_ins: state.pending.values().map(|entry| entry.glance(now)).collect(),
            facade,
            leases,
            notices: self.inner.warnings(),
        }
    }

    fn identity(&self, cloud: &Cloud) -> Result<Identity> {
        Ok(Identity::of(cloud, &self.inner.outbound.trust_of(cloud)?))
    }

    /// The identity of a cloud that may be signed in to, or asked for tokens.
    fn admit(&self, cloud: &Cloud) -> Result<Identity> {
        self.inner.check_lock()?;
        self.inner.used();
        let trust = self.inner.outbound.trust_of(cloud)?;
        self.inner.known.check(cloud, &trust)?;
        Ok(Identity::of(cloud, &trust))
    }

    /// A token that a service refused is not served again until Keystone has confirmed it. A service's
    /// 401 alone proves nothing: it never costs the user a new sign-in.
    async fn confirm(&self, identity: &Identity, rejected: &Secret) -> Result<()> {
        let Some(cloud) = self.inner.knows(identity, rejected) else { return Ok(()) };
        let (inner, id, whose) = (self.inner.clone(), rejected.clone(), identity.clone());
        let doubt = (identity.clone(), rejected.clone());
        self.inner
            .doubts
            .join(doubt, || async move {
                if let Verdict::Invalid = inner.keystone(&cloud)?.validate(&id).await? {
                    inner.forget(&whose, &id);
                }
                Ok(())
            })
            .await
    }

    /// The sign-in under way for this identity, or a new one.
    async fn pending_or_new(&self, cloud: &Cloud, identity: &Identity, ask: Ask) -> Result<Arc<Entry>> {
        let pending = {
            let mut state = lock_unpoisoned(&self.inner.state);
            state.used_by(identity, cloud.label());
            state.pending.get(identity).cloned()
        };
        match pending {
            Some(entry) if ask.switch_user => {
                entry.opening.cancel.notify_one();
                lock_unpoisoned(&self.inner.state).pending.remove(identity);
            }
            Some(entry) => return Ok(entry),
            None => {}
        }
        let (inner, cloud, key) = (self.inner.clone(), cloud.clone(), identity.clone());
        let whose = identity.clone();
        let starting =
            self.inner.starts.join(key, || async move { Box::pin(inner.start(cloud, whose, ask)).await });
        let started = starting.await;
        if started.is_err() {
            lock_unpoisoned(&self.inner.state).forget_labels(identity);
        }
        started
    }
}

impl Inner {
    /// Why there may be sessions and leases that this process does not know of.
    fn incomplete(&self) -> Option<Incomplete> {
        let state = lock_unpoisoned(&self.state);
        if state.lock.is_some() {
            return Some(lock::is_locked().into());
        }
        let lost = state.lost.as_ref().filter(|lost| lost.expires_at > self.clock.now());
        self.vault.unopened().map(Incomplete::from).or_else(|| lost.cloned().map(Incomplete::from))
    }

    /// Notices about the agent itself.
    fn warnings(&self) -> Vec<String> {
        let file = crate::audit::file_in(self.vault.folder());
        let incomplete =
            self.log.problem().map(|why| format!("the audit log {} is not complete: {why}", file.display()));
        self.config.overruled.iter().cloned().chain(incomplete).collect()
    }

    fn renewal_failure(&self, identity: &Identity) -> Option<String> {
        lock_unpoisoned(&self.state).sessions.get(identity)?.renewal_failure.clone()
    }

    fn keystone(&self, cloud: &Cloud) -> Result<Keystone> {
        Keystone::of(cloud, &self.outbound, self.clock.clone())
    }

    /// A token that lives long enough. An exchange that was under way may have been asked for less, or
    /// for more than there is: then this caller has one of its own.
    async fn obtain(
        self: &Arc<Self>,
        cloud: &Cloud,
        identity: &Identity,
        scope: &Scope,
        min_validity: u64,
    ) -> Result<Minting> {
        for _ in 0..2 {
            if !self.meets(cloud, identity) {
                break;
            }
            if self.held(cloud, identity, &Scope::Unscoped, min_validity).is_none()
                && !self.renew(identity).await?
            {
                break;
            }
            if let Minting::Token(held) = self.mint(cloud, identity, scope, min_validity).await?
                && self.is_enough(identity, &held, min_validity)
            {
                return Ok(Minting::Token(held));
            }
        }
        Ok(Minting::SignInNeeded)
    }

    async fn mint(
        self: &Arc<Self>,
        cloud: &Cloud,
        identity: &Identity,
        scope: &Scope,
        min_validity: u64,
    ) -> Result<Minting> {
        let key = (identity.clone(), scope.clone());
        let (inner, cloud, identity, scope) = (self.clone(), cloud.clone(), identity.clone(), scope.clone());
        self.exchanges
            .join(key, || async move { inner.exchange(&cloud, &identity, scope, min_validity).await })
            .await
    }

    /// The token that is held for a scope, if it may be served.
    fn held(
        &self,
        cloud: &Cloud,
        identity: &Identity,
        scope: &Scope,
        min_validity: u64,
    ) -> Option<Arc<Held>> {
        let now = self.clock.now();
        let mut state = lock_unpoisoned(&self.state);
        if state.sessions.contains_key(identity) && state.used_by(identity, cloud.label()) {
            self.changes.note();
        }
        let session = state.sessions.get(identity)?;
        if !session.meets(cloud, now) || session.has_ended(now) {
            return None;
        }
        let held = session.held(scope)?;
        session.is_enough(held, now, min_validity).then(|| held.clone())
    }

    /// Whether a token that was just made may be served to this caller.
    fn is_enough(&self, identity: &Identity, held: &Held, min_validity: u64) -> bool {
        let now = self.clock.now();
        let state = lock_unpoisoned(&self.state);
        state.sessions.get(identity).is_some_and(|session| session.is_enough(held, now, min_validity))
    }

    /// Makes a token of `scope` from the session, inside the flight of its key.
    async fn exchange(
        &self,
        cloud: &Cloud,
        identity: &Identity,
        scope: Scope,
        min_validity: u64,
    ) -> Result<Minting> {
        // Somebody else may have landed between our look and this flight.
        if let Some(held) = self.held(cloud, identity, &scope, min_validity) {
            return Ok(Minting::Token(held));
        }
        let rescoped = self.rescoped(cloud, identity, &scope, min_validity).await?;
        let Some(Rescoped { token, assumed, from }) = rescoped else { return Ok(Minting::SignInNeeded) };
        let held = Arc::new(Held::new(token, assumed)?);
        let orphan = {
            let mut state = lock_unpoisoned(&self.state);
            match state.sessions.get_mut(identity) {
                Some(session) if session.unscoped.token.id == from => {
                    session.insert(scope, held.clone(), self.clock.now());
                    self.changes.note();
                    false
                }
                _ => true,
            }
        };
        if orphan {
            // Logged out while Keystone answered: this token must not outlive the session.
            self.keystone(cloud)?.revoke(&held.token.id).await.ok();
            return Ok(Minting::SignInNeeded);
        }
        Ok(Minting::Token(held))
    }

    /// A token of `scope`, made from the session's own; `None` when that gives none any more.
    async fn rescoped(
        &self,
        cloud: &Cloud,
        identity: &Identity,
        scope: &Scope,
        min_validity: u64,
    ) -> Result<Option<Rescoped>> {
        let Some(unscoped) = self.held(cloud, identity, &Scope::Unscoped, min_validity) else {
            return Ok(None);
        };
        let keystone = self.keystone(cloud)?;
        let (asked, assumed) = complete(scope, &unscoped.token);
        match keystone.rescope(&unscoped.token, &asked).await {
            Ok(token) => Ok(Some(Rescoped { token, assumed, from: unscoped.token.id.clone() })),
            // Keystone answers 401 both to a scope it does not grant and to a dead token.
            Err(error) if error.code == Code::ScopeRefused => {
                match keystone.validate(&unscoped.token.id).await? {
                    Verdict::Valid(_) => Err(match assumed {
                        Some(assumed) => Error { detail: format!("{} ({assumed})", error.detail), ..error },
                        None => error,
                    }),
                    Verdict::Invalid => {
                        self.forget(identity, &unscoped.token.id);
                        Ok(None)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    fn lives(&self, cloud: &Cloud, identity: &Identity, min_validity: u64) -> bool {
        let now = self.clock.now();
        let state = lock_unpoisoned(&self.state);
        let session = state.sessions.get(identity);
        session.is_some_and(|session| session.meets(cloud, now) && session.lives(now, min_validity))
    }

    /// Whether there is a session that shows what this entry requires.
    fn meets(&self, cloud: &Cloud, identity: &Identity) -> bool {
        let now = self.clock.now();
        let state = lock_unpoisoned(&self.state);
        state.sessions.get(identity).is_some_and(|session| session.meets(cloud, now))
    }

    /// The cloud of the session that made `id`, if one did.
    fn knows(&self, identity: &Identity, id: &Secret) -> Option<Cloud> {
        let state = lock_unpoisoned(&self.state);
        let session = state.sessions.get(identity)?;
        session.minted(self.clock.now()).iter().any(|minted| minted.id == *id).then(|| session.cloud.clone())
    }

    /// Keystone does not honour `id` any more.
    fn forget(&self, identity: &Identity, id: &Secret) {
        let mut state = lock_unpoisoned(&self.state);
        let Some(session) = state.sessions.get_mut(identity) else { return };
        self.changes.note();
        // With a grant the session lives on: it can give itself another token.
        if session.unscoped.token.id == *id && session.grant.is_none() {
            if let Some(session) = state.sessions.remove(identity) {
                state.lapsed.insert(identity.clone(), session);
            }
        } else {
            session.forget(id);
        }
    }

    /// Who may be signed in already, and only has to open the vault, is not sent to the browser.
    fn check_vault(&self, cloud: &Cloud) -> Result<()> {
        self.vault.wants_passphrase().map_or(Ok(()), |sealed| {
            let why = format!("what is signed in lies in the vault, and {}", sealed.detail);
            Err(Error { detail: why, ..sealed }.cloud(cloud.label()))
        })
    }

    /// Starts a sign-in, inside the flight of its identity.
    async fn start(
        self: Arc<Self>,
        cloud: Cloud,
        identity: Identity,
        Ask { switch_user, remote, by_program }: Ask,
    ) -> Result<Arc<Entry>> {
        if let Some(entry) = lock_unpoisoned(&self.state).pending.get(&identity) {
            return Ok(entry.clone());
        }
        let keystone = self.keystone(&cloud)?;
        // An unreachable cloud opens no browser.
        keystone.discover().await?;
        let started_at = self.clock.now();
        let deadline = started_at + policy::patience(cloud.sign_in.timeout);
        let id = random_hex::<16>();
        let expected =
            if switch_user { None } else { lock_unpoisoned(&self.state).pins.get(&identity).cloned() };
        let task = signin::Task {
            id: id.clone(),
            cloud: cloud.clone(),
            keystone: keystone.clone(),
            clock: self.clock.clone(),
            // A browser that the user's own configuration names needs no other machine.
            remote: remote && self.config.browser(&cloud).is_none(),
            expected,
            started_at,
            deadline,
        };
        let starting = signin::start(task, &self.loopback, &self.outbound, &self.used_codes);
        let started = Box::pin(starting).await?;
        let entry = Arc::new(Entry::new(Opening {
            id: id.clone(),
            url: started.url,
            user_code: started.user_code,
            elsewhere: started.elsewhere,
            tunnel: started.tunnel,
            browser: self.config.browser(&cloud),
            private_window: switch_user,
            by_program,
            started_at,
            deadline,
            commands: started.commands,
            cancel: started.cancel,
            cloud,
        }));
        {
            let mut state = lock_unpoisoned(&self.state);
            let now = self.clock.now();
            state.sign_ins.retain(|_, (_, forget_at)| forget_at.is_none_or(|when| now < when));
            state.sign_ins.insert(id, (entry.clone(), None));
            state.pending.insert(identity.clone(), entry.clone());
        }
        self.note_sign_in_begun(&entry.opening.cloud);
        if by_program {
            self.note_prompt(&identity);
        }
        let mut progress = started.progress;
        entry.show(progress.borrow_and_update().clone());
        let shown = entry.clone();
        tokio::spawn(async move {
            while progress.changed().await.is_ok() {
                let now = progress.borrow_and_update().clone();
                shown.show(now);
            }
        });
        let (inner, ending) = (self, entry.clone());
        tokio::spawn(async move {
            let mut outcome = started.outcome.await.unwrap_or_else(|_| Err(over(&ending.opening.id)));
            let tab = outcome.as_mut().ok().and_then(|signed_in| signed_in.tab.take());
            inner.finish(&ending, &identity, outcome).await;
            tokio::join!(
                inner.clear_over(Some(&identity)),
                inner.keep(&identity, tab),
                inner.tell(&identity),
                inner.end_in_time(&identity),
                inner.clone().keep_renewed(identity.clone())
            );
        });
        Ok(entry)
    }

    /// Takes the token in, or counts the failure; then tells everybody who waits.
    async fn finish(self: &Arc<Self>, entry: &Arc<Entry>, identity: &Identity, outcome: Result<SignedIn>) {
        let now = self.clock.now();
        let who = outcome.as_ref().ok().map(|signed_in| signed_in.token.user.clone());
        let ended = outcome.and_then(|SignedIn { token, grant, evidence, .. }| {
            let remembered = self
                .outbound
                .trust_of(&entry.opening.cloud)
                .and_then(|trust| self.known.add(&entry.opening.cloud, &trust));
            if let Err(error) = remembered {
                tracing::warn!(%error, "the cloud could not be remembered");
            }
            let user = token.user.clone();
            let mut session =
                Session::new(entry.opening.cloud.clone(), Held::new(token, None)?, grant, evidence, now);
            session.ends_at = self.session_end(now, entry.lifetime());
            let mut state = lock_unpoisoned(&self.state);
            let State { sessions, lapsed, .. } = &mut *state;
            for mut earlier in [lapsed.remove(identity), sessions.remove(identity)].into_iter().flatten() {
                session.take_over(&earlier, now);
                if let Some(grant) = earlier.grant.take() {
                    // Nobody will use it again; if the identity provider does not answer, it ends there by itself.
                    let inner = self.clone();
                    self.work.spawn(async move { inner.end_grant(&earlier.cloud, &grant).await.ok() });
                }
            }
            state.pins.insert(identity.clone(), user);
            state.sessions.insert(identity.clone(), session);
            self.changes.note();
            Ok(())
        });
        self.settle().await;
        if ended.is_ok() {
            self.sweep_as(identity).await;
        }
        {
            let mut state = lock_unpoisoned(&self.state);
            let timed_out = ended.as_ref().is_err_and(|error| error.code == Code::SignInTimedOut);
            if entry.opening.by_program || timed_out {
                state.last_prompts.insert(identity.clone(), now);
            }
            // A `--switch-user` may have put a newer one in this one's place.
            if state.pending.get(identity).is_some_and(|pending| Arc::ptr_eq(pending, entry)) {
                state.pending.remove(identity);
            }
            state.forget_labels(identity);
            if let Some((_, forget_at)) = state.sign_ins.get_mut(&entry.opening.id) {
                *forget_at = Some(now + REMEMBER_SIGN_IN);
            }
        }
        match &ended {
            Ok(()) => tracing::info!(cloud = entry.opening.cloud.label(), "signed in"),
            Err(error) => {
                tracing::info!(cloud = entry.opening.cloud.label(), code = %error.code.name(), "sign-in ended");
            }
        }
        self.note_sign_in(&entry.opening.cloud, who.as_ref(), &ended);
        entry.end(ended);
    }
}

/// A project's name without a domain means the user's own domain; says so.
fn complete(scope: &Scope, unscoped: &Token) -> (Scope, Option<String>) {
    match scope {
        Scope::Project(ProjectRef { id: None, name: Some(name), domain: None }) => {
            let home = &unscoped.user.domain;
            let domain = DomainRef {
                id: home.id.clone(),
                name: if home.id.is_none() { home.name.clone() } else { None },
            };
            let assumed = format!("project {name} was looked for in your own domain, {home}");
            (
                Scope::Project(ProjectRef { id: None, name: Some(name.clone()), domain: Some(domain) }),
                Some(assumed),
            )
        }
        _ => (scope.clone(), None),
    }
}

/// The error of a request that cannot go on without the user.
fn sign_in_needed(cloud: &Cloud, why: &str) -> Error {
    Error::new(Code::SignInNeeded, why).cloud(cloud.label()).remedy(format!("ksb login {}", cloud.argument()))
}

fn over(id: &str) -> Error {
    Error::new(Code::UnknownSignIn, format!("there is no sign-in {id} (any more)")).remedy("ksb login")
}
