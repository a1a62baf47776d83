//! Leases: made, listed, ended; whatever they have at Keystone is taken back.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::oneshot;

use super::lease::{self, Ended, Lease, Watch};
use super::lock::is_locked;
use super::policy;
use super::revocation;
use super::session::Session;
use super::sign_in_attempt::Entry;
use super::{Ask, Broker, Inner, Minting, NOBODY, State, sign_in_needed};
use crate::api::{
    self, FacadeReport, LeaseReply, LeaseRequest, LeasesReply, NotRevoked, RevokeReply, SignIn,
};
use crate::audit::Who;
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, Identity, Scope, Secret, Token, random_hex};
use crate::platform::files;
use crate::platform::peer_program::{Peer, Program};
use crate::platform::process::Process;
use crate::sync::lock_unpoisoned;

/// The prefix of a lease's handle, by which a user recognises it.
const HANDLE: &str = "ksb-";

/// How many leases that have ended are remembered.
const ENDED: usize = 256;

/// What somebody gets who asks for a lease.
#[derive(Debug)]
pub enum Leased {
    /// The lease.
    Lease(Box<LeaseReply>),
    /// A sign-in that must come first.
    SignIn(Box<SignIn>),
}

/// How a lease's holder shows who they are.
pub enum Shown<'a> {
    /// Id (or name) and secret.
    Secret(&'a str, &'a Secret),
    /// Both in one.
    Handle(&'a Secret),
    /// A token that was made for the lease.
    Token(&'a Secret),
}

/// What became of what a lease had at Keystone.
#[derive(Default)]
pub(super) struct Cleared {
    pub(super) revoked: u32,
    pub(super) deleted: u32,
    pub(super) not_revoked: Vec<NotRevoked>,
}

impl Broker {
    /// Says where leases are good, or why they are not.
    pub fn facade(&self, report: FacadeReport) {
        *lock_unpoisoned(&self.inner.facade) = report;
    }

    /// Makes a lease for whoever asks. One that leaves meanwhile cuts nothing off; a lease that nobody took is ended.
    pub async fn lease(&self, request: &LeaseRequest, peer: Peer) -> Result<Leased> {
        self.inner.log.meet(peer).await;
        let (give, given) = oneshot::channel();
        let (broker, asked) = (self.clone(), request.clone());
        self.inner.work.spawn(async move {
            let made = Box::pin(broker.make_lease(asked.clone(), peer)).await;
            let made = made.map_err(|error| error.cloud(asked.cloud.label()));
            broker.inner.note_lease(peer, &asked, &made);
            let id = match &made {
                Ok(Leased::Lease(reply)) => Some(reply.lease.id.clone()),
                _ => None,
            };
            let (take, taken) = oneshot::channel::<()>();
            give.send((made, take)).ok();
            if let Some(id) = id
                && taken.await.is_err()
                && let Some(ended) = broker.inner.end_lease(&id).await
            {
                broker.inner.note_lease_end(Who::Agent, &ended.lease);
            }
        });
        let (made, take) = given.await.map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        take.send(()).ok();
        made
    }

    async fn make_lease(&self, mut request: LeaseRequest, peer: Peer) -> Result<Leased> {
        let inner = &self.inner;
        let facade = lock_unpoisoned(&inner.facade).clone();
        if let Some(problem) = facade.problem {
            return Err(Error::new(Code::FacadeUnavailable, format!("no lease is of use: {problem}"))
                .remedy("set facade_port in config.toml to a free port, then: ksb agent stop"));
        }
        let identity = self.admit(&request.cloud)?;
        let process = if request.for_caller { Some(process(peer.pid())?) } else { None };
        if request.unattended {
            inner.check_unattended(&request.cloud)?;
        }
        request.confined |= request.unattended;
        if (request.confined || request.s3) && !matches!(request.scope, Scope::Project(_)) {
            return Err(Error::new(
                Code::InvalidRequest,
                "such a lease is for one project, and none is named",
            )
            .remedy("--project NAME"));
        }
        if request.s3 && (request.confirm || inner.config.requires_confirmation(&request.cloud)) {
            let why = "nobody can be asked when an EC2 credential is used";
            return Err(
                Error::new(Code::InvalidRequest, why).remedy("leave out --s3, or --confirm and `confirm`")
            );
        }
        if request.s3 && request.confined {
            let why =
                "an EC2 credential is not confined: whoever holds it acts with all roles of the project";
            return Err(Error::new(Code::InvalidRequest, why).remedy("leave out --s3, or --confined"));
        }
        if request.confined || request.s3 {
            let (cloud, scope) = (&request.cloud, &request.scope);
            if let Minting::SignInNeeded = inner.obtain(cloud, &identity, scope, 0).await? {
                let program = self.identify(peer).await;
                let begun = self.begin(cloud, &identity, request.prompt, request.remote, program.as_deref());
                return match begun.await? {
                    Some(entry) => Ok(Leased::SignIn(Box::new(entry.view(inner.clock.now())))),
                    None => Box::pin(self.make_lease(request, peer)).await,
                };
            }
        }
        let (id, secret) = (random_hex::<16>(), Secret::random());
        let (now, ttl) = (inner.clock.now(), request.ttl);
        let mut lease = Lease::new(id.clone(), &secret, &request, identity, process, now);
        let (ends_at, notice) = inner.lease_end(now, ttl);
        lease.ends_at = ends_at;
        if let Some(notice) = notice {
            lease.notice(notice);
        }
        {
            let mut state = lock_unpoisoned(&inner.state);
            if request.name.is_some() && state.leases.values().any(|other| other.name == lease.name) {
                return Err(Error::new(
                    Code::InvalidRequest,
                    format!("there is a lease {} already", lease.name),
                )
                .remedy(format!("ksb lease revoke {}", lease.name)));
            }
            state.leases.insert(id.clone(), lease);
        }
        let s3 = match inner.furnish(&id, &request).await {
            Ok(s3) => s3,
            Err(error) => {
                inner.end_lease(&id).await;
                return Err(error);
            }
        };
        inner.watch(&id);
        inner.changes.note();
        inner.settle().await;
        let lease =
            lock_unpoisoned(&inner.state).view_lease(&id, inner.clock.now()).ok_or_else(|| unknown(&id))?;
        tracing::info!(cloud = lease.cloud, name = lease.name, confined = lease.confined, "lease made");
        let handle = Secret::new(format!("{HANDLE}{id}-{}", secret.expose()));
        Ok(Leased::Lease(Box::new(LeaseReply { lease, secret, handle, auth_url: facade.url, s3 })))
    }

    /// Begins a sign-in for somebody who may prompt, or joins the one under way; `None` when none was needed.
    pub(super) async fn begin(
        &self,
        cloud: &Cloud,
        identity: &Identity,
        prompt: bool,
        remote: bool,
        program: Option<&Program>,
    ) -> Result<Option<Arc<Entry>>> {
        if cloud.sign_in.way == crate::model::Way::Workload {
            self.sign_in_unattended(cloud, identity, false).await?;
            return Ok(None);
        }
        self.inner.check_vault(cloud)?;
        if !prompt {
            return Err(sign_in_needed(cloud, NOBODY));
        }
        self.inner.check_prompt(cloud, identity, program)?;
        self.pending_or_new(cloud, identity, Ask::program(remote)).await.map(Some)
    }

    /// The living leases, the oldest first.
    pub fn leases(&self) -> LeasesReply {
        let now = self.inner.clock.now();
        let mut leases: Vec<_> = {
            let state = lock_unpoisoned(&self.inner.state);
            state.leases.keys().filter_map(|id| state.view_lease(id, now)).collect()
        };
        leases.sort_by(|a, b| (a.made_at, &a.id).cmp(&(b.made_at, &b.id)));
        LeasesReply {
            leases,
            incomplete: self.inner.incomplete(),
            facade: lock_unpoisoned(&self.inner.facade).clone(),
        }
    }

    /// Ends a lease, by id or name.
    pub async fn revoke(&self, which: &str, peer: Peer) -> Result<RevokeReply> {
        self.inner.log.meet(peer).await;
        let id = {
            let state = lock_unpoisoned(&self.inner.state);
            let mut named = state.leases.values().filter(|lease| lease.name == which);
            let id = if state.leases.contains_key(which) { Some(which) } else { None };
            match (id, named.next(), named.next()) {
                (Some(id), ..) => id.to_owned(),
                (None, Some(lease), None) => lease.id.clone(),
                (None, Some(_), Some(_)) => {
                    return Err(Error::new(
                        Code::InvalidRequest,
                        format!("several leases are named {which}"),
                    )
                    .remedy("name its id: ksb lease list"));
                }
                _ => return Err(unknown(which)),
            }
        };
        // A caller that leaves meanwhile cuts nothing off.
        let now = self.inner.clock.now();
        let unanswered =
            lock_unpoisoned(&self.inner.state).leases.get(&id).map(|lease| lease.unanswered(now));
        let inner = self.inner.clone();
        let ending = self.inner.work.spawn(async move { inner.end_lease(&id).await });
        let ended = tokio::select! {
            ended = ending => ended.ok().flatten(),
            () = self.inner.clock.sleep_until(now + policy::ENDING) => unanswered,
        };
        let ended = ended.ok_or_else(|| unknown(which))?;
        self.inner.note_lease_end(Who::Peer(peer), &ended.lease);
        Ok(ended)
    }

    /// The lease whose holder this is.
    pub fn holder(&self, shown: &Shown<'_>) -> Result<String> {
        let state = lock_unpoisoned(&self.inner.state);
        let now = self.inner.clock.now();
        let found = match shown {
            Shown::Token(token) => state.leases.values().find(|lease| lease.made(token, now)),
            Shown::Secret(id, secret) => by_secret(&state, id, secret),
            Shown::Handle(handle) => {
                let (id, secret) = parts_of(handle);
                by_secret(&state, id, &secret)
            }
        };
        let lease = found.filter(|lease| !lease.has_ended(now));
        lease.map(|lease| lease.id.clone()).ok_or_else(|| {
            let error = match (&state.lock, self.inner.vault.unopened()) {
                (Some(_), _) => is_locked(),
                // It may be in there.
                (None, Some(why)) => Error { code: Code::VaultUnavailable, ..why },
                (None, None) => unknown("with this secret"),
            };
            self.inner.note_stranger(&error);
            error
        })
    }

    /// A sentence for the holder of a lease that has ended, if this was one.
    pub fn ended_lease(&self, shown: &Shown<'_>) -> Option<String> {
        let state = lock_unpoisoned(&self.inner.state);
        let mut ended = state.ended.iter();
        let found = match shown {
            Shown::Token(token) => {
                let token = lease::digest(token);
                ended.find(|lease| lease.made(&token))
            }
            Shown::Secret(id, secret) => {
                let secret = lease::digest(secret);
                ended.find(|lease| lease.had(id, &secret))
            }
            Shown::Handle(handle) => {
                let (id, secret) = parts_of(handle);
                let secret = lease::digest(&secret);
                ended.find(|lease| lease.had(id, &secret))
            }
        };
        found.map(Ended::tell)
    }

    /// Whether a token that is no handle could be one.
    pub fn is_handle(token: &Secret) -> bool {
        token.expose().starts_with(HANDLE)
    }
}

/// A lease of this id or name, with this secret. What is wrong cannot be told from the time that it takes: whatever is
/// shown is hashed once and held against every lease, whose digests are all as long, and nothing ends the search. A name
/// of another length ends its own comparison early; neither names nor ids are secret.
fn by_secret<'s>(state: &'s State, id: &str, secret: &Secret) -> Option<&'s Lease> {
    let digest = lease::digest(secret);
    state.leases.values().fold(None, |found, lease| {
        let is_named = lease.id.as_bytes().ct_eq(id.as_bytes()) | lease.name.as_bytes().ct_eq(id.as_bytes());
        let is_theirs = is_named & Choice::from(u8::from(lease.admits(&digest)));
        if bool::from(is_theirs) { Some(lease) } else { found }
    })
}

/// Id and secret of a handle.
fn parts_of(handle: &Secret) -> (&str, Secret) {
    let parts = handle.expose().strip_prefix(HANDLE).and_then(|rest| rest.split_once('-'));
    let (id, secret) = parts.unwrap_or_default();
    (id, Secret::new(secret))
}

fn process(caller: Option<u32>) -> Result<Process> {
    caller.and_then(Process::of).ok_or_else(|| {
        Error::new(Code::InvalidRequest, "the process that the lease is to end with is not known")
    })
}

fn unknown(which: &str) -> Error {
    Error::new(Code::UnknownLease, format!("there is no lease {which} (any more)")).remedy("ksb lease list")
}

impl State {
    fn remember_end(&mut self, lease: &Lease, now: Timestamp) {
        if self.ended.len() == ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended::new(lease, now));
    }
}

impl Inner {
    /// Makes what a new lease needs at Keystone.
    async fn furnish(self: &Arc<Self>, id: &str, request: &LeaseRequest) -> Result<Option<api::S3Key>> {
        if request.confined {
            match self.confine(id).await {
                Err(error) if error.code == Code::CredentialsRefused && !request.unattended => {
                    if !request.whole_identity {
                        let detail = format!(
                            "{}; without one, whoever holds the lease has your whole identity there",
                            error.detail
                        );
                        let remedy = error.remedy.as_deref().unwrap_or("ask the operator");
                        let remedy = format!("{remedy}; or accept that: --whole-identity");
                        return Err(Error { detail, ..error }.remedy(remedy));
                    }
                    self.with_lease(id, |lease| {
                        lease.confined = None;
                        lease.notice(format!("not confined: {}", error.detail));
                    });
                }
                outcome => outcome?,
            }
        }
        if request.s3 { self.make_s3(id).await.map(Some) } else { Ok(None) }
    }

    pub(super) fn with_lease<T>(&self, id: &str, change: impl FnOnce(&mut Lease) -> T) -> Option<T> {
        let changed = lock_unpoisoned(&self.state).leases.get_mut(id).map(change);
        self.changes.note();
        changed
    }

    /// Sees to it that the lease ends with its process or its time, and its credentials before theirs.
    pub(super) fn watch(self: &Arc<Self>, id: &str) {
        let mut state = lock_unpoisoned(&self.state);
        let Some(lease) = state.leases.get_mut(id) else { return };
        let process = lease.process.clone();
        let ends_at = lease.ends_at;
        let credentials = lease.confined.as_ref().and_then(|confined| confined.credentials.as_ref());
        let credentials_end = credentials.map(|credentials| credentials.ends_at);
        let (inner, id) = (self.clone(), id.to_owned());
        let task = tokio::spawn(async move {
            let with_process = async {
                match &process {
                    Some(process) => process.ended().await,
                    None => std::future::pending().await,
                }
            };
            let lease_ends = tokio::select! {
                () = with_process => true,
                () = inner.at(ends_at) => true,
                () = inner.at(credentials_end) => false,
            };
            // What follows changes the lease, and with it this watch: it must not be part of it.
            let work = inner.work.clone();
            work.spawn(async move {
                if lease_ends {
                    if let Some(ended) = inner.end_lease(&id).await {
                        inner.note_lease_end(Who::Agent, &ended.lease);
                    }
                } else {
                    inner.credentials_end(&id).await;
                }
            });
        });
        lease.watch = Some(Watch(task.abort_handle()));
    }

    async fn at(&self, when: Option<Timestamp>) {
        match when {
            Some(when) => self.clock.sleep_until(when).await,
            None => std::future::pending().await,
        }
    }

    /// Ends a lease: from now on it is refused; then what it had at Keystone is taken back.
    pub(super) async fn end_lease(self: &Arc<Self>, id: &str) -> Option<RevokeReply> {
        let (lease, by) = {
            let mut state = lock_unpoisoned(&self.state);
            let lease = Arc::new(state.leases.remove(id)?);
            let by = state.token_of(&lease.identity, self.clock.now());
            state.over.push(lease.clone());
            state.remember_end(&lease, self.clock.now());
            self.changes.note();
            (lease, by)
        };
        self.remark();
        tracing::info!(cloud = lease.cloud.label(), name = lease.name, "lease ended");
        self.clear_with(vec![(lease, by)]).await.pop()
    }

    /// Ends the leases of the sessions that `ended` are, or of all.
    pub(super) fn end_leases_of(
        &self,
        state: &mut State,
        ended: &[(Identity, Session)],
        only: Option<&Identity>,
    ) -> Vec<(Arc<Lease>, Option<Arc<Token>>)> {
        let now = self.clock.now();
        let by = |identity: &Identity| {
            let session = ended.iter().find(|(whose, _)| whose == identity).map(|(_, session)| session);
            session?.own_token(now).map(|held| Arc::new(held.token.clone()))
        };
        let is_meant = |lease: &Lease| only.is_none_or(|only| lease.identity == *only);
        let gone: Vec<_> = state.leases.extract_if(|_, lease| is_meant(lease)).collect();
        for (_, lease) in gone {
            state.remember_end(&lease, now);
            state.over.push(Arc::new(lease));
        }
        let over = state.over.iter().filter(|lease| is_meant(lease));
        over.map(|lease| (lease.clone(), by(&lease.identity))).collect()
    }

    /// Takes back what these leases have at Keystone.
    pub(super) async fn clear_with(
        self: &Arc<Self>,
        over: Vec<(Arc<Lease>, Option<Arc<Token>>)>,
    ) -> Vec<RevokeReply> {
        if over.is_empty() {
            return Vec::new();
        }
        self.settle().await;
        let cleared = join_all(over.iter().map(|(lease, by)| self.clear(lease, by.as_deref()))).await;
        self.settle().await;
        self.retry_revocations();
        let replies = over.iter().zip(cleared).map(|((lease, _), cleared)| {
            if let Some(process) = &lease.process {
                files::remove_left_by(&self.runtime_directory.path(), process.pid);
            }
            let Cleared { revoked, deleted, not_revoked } = cleared;
            RevokeReply { lease: lease.view(), revoked, deleted, not_revoked }
        });
        replies.collect()
    }

    /// Takes back what a lease that is over has at Keystone, in its own name or by the user's token. What cannot be
    /// taken back now is tried again at the next start, sign-in, renewal and logout, until it has ended by itself.
    pub(super) async fn clear(self: &Arc<Self>, lease: &Arc<Lease>, by: Option<&Token>) -> Cleared {
        let mut cleared = Cleared::default();
        let keystone = match self.keystone(&lease.cloud) {
            Ok(keystone) => keystone,
            Err(error) => {
                let (scope, expires_at, reason) = ("every".to_owned(), None, error.detail);
                cleared.not_revoked.push(NotRevoked { scope, expires_at, reason, is_final: false });
                return cleared;
            }
        };
        let now = self.clock.now();
        let mut is_unreachable = false;
        let mut still = |what: &str, expires_at: Option<Timestamp>, error: Error| {
            is_unreachable |= revocation::is_unreachable(&error);
            NotRevoked { scope: what.to_owned(), expires_at, reason: error.detail, is_final: false }
        };
        if let Some(access) = &lease.ec2 {
            let outcome = match by {
                Some(by) => keystone.delete_ec2(by, access).await,
                None => Err(Error::new(Code::SignInNeeded, "deleting it needs a sign-in")),
            };
            match outcome {
                Ok(()) => cleared.deleted += 1,
                Err(error) => cleared.not_revoked.push(still("the EC2 credential's", None, error)),
            }
        }
        let credentials = lease.confined.as_ref().and_then(|confined| confined.credentials.as_ref());
        if let Some(credentials) = credentials {
            match self.reap(&keystone, credentials, by).await {
                Ok(deleted) => cleared.deleted += deleted,
                Err(error) => {
                    let ends_at = Some(credentials.ends_at + policy::CREDENTIAL_MARGIN);
                    cleared.not_revoked.push(still("the application credential's", ends_at, error));
                }
            }
        }
        let minted: Vec<_> = lease.minted.iter().filter(|minted| minted.expires_at > now).collect();
        let revocations = join_all(minted.iter().map(|minted| keystone.revoke(&minted.id))).await;
        for (minted, outcome) in minted.iter().zip(revocations) {
            match outcome {
                Ok(()) => cleared.revoked += 1,
                Err(error) => {
                    cleared.not_revoked.push(still(&minted.scope, Some(minted.expires_at), error));
                }
            }
        }
        let mut state = lock_unpoisoned(&self.state);
        if cleared.not_revoked.is_empty() || lease.leaves_nothing(now) {
            state.over.retain(|other| !Arc::ptr_eq(other, lease));
            self.changes.note();
        }
        if is_unreachable {
            state.unreachable.insert(lease.id.clone());
        } else {
            state.unreachable.remove(&lease.id);
        }
        cleared
    }

    /// Tries again what an earlier end of these leases left, now that there may be a token to do it by.
    pub(super) async fn clear_over(self: &Arc<Self>, identity: Option<&Identity>) {
        let over: Vec<_> = {
            let state = lock_unpoisoned(&self.state);
            let theirs = |lease: &&Arc<Lease>| identity.is_none_or(|identity| lease.identity == *identity);
            let now = self.clock.now();
            let over = state.over.iter().filter(theirs);
            over.map(|lease| (lease.clone(), state.token_of(&lease.identity, now))).collect()
        };
        self.clear_with(over).await;
    }
}

impl State {
    fn view_lease(&self, id: &str, now: Timestamp) -> Option<api::Lease> {
        let lease = self.leases.get(id)?;
        Some(lease.view_with(self.sessions.get(&lease.identity), now))
    }

    /// The token by which the user's own doings at Keystone are undone.
    pub(super) fn token_of(&self, identity: &Identity, now: Timestamp) -> Option<Arc<Token>> {
        let session = self.sessions.get(identity)?;
        session.own_token(now).map(|held| Arc::new(held.token.clone()))
    }
}
