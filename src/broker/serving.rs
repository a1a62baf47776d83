//! What the facade asks for in the name of a lease: tokens, and whose a token is.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::confirm::Wish;
use super::lease::Answer;
use super::lock::is_locked;
use super::policy::{self, Rests};
use super::revocation::is_unreachable;
use super::sign_in_attempt::Entry;
use super::{Broker, Inner, sign_in_needed};
use crate::api::SignIn;
use crate::error::{Code, Error, Result};
use crate::keystone::{Keystone, Verdict};
use crate::model::{Cloud, Identity, Scope, Secret, Token};
use crate::platform::peer_program::Program;
use crate::sync::lock_unpoisoned;

/// A request at the facade that waits for a user.
pub(super) struct Want {
    /// The process that its lease ends with, and that opens the browser.
    opener: Option<u32>,
    entry: Arc<Entry>,
}

/// What serving a lease needs to know of it.
struct Terms {
    /// Whether the user is asked before a program gets its token.
    confirm: bool,
    name: String,
    cloud: Cloud,
    identity: Identity,
    scope: Scope,
    reach: Reach,
    prompt: bool,
    remote: bool,
    opener: Option<u32>,
}

/// Where a lease's tokens come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The user's session.
    Whole,
    /// A restricted credential, while the user is signed in.
    Confined,
    /// A restricted credential.
    Unattended,
}

/// What an attempt to make a token for a lease comes to.
#[derive(Clone)]
pub(super) enum Made {
    Token(Arc<Token>),
    SignInNeeded,
}

impl Broker {
    /// A token for the holder of a lease. `refused` is the one that they had on the same connection: they come back from a
    /// refusal, and are never given it again. Waits at most so long for a user, or for Keystone.
    pub async fn lease_token(
        &self,
        id: &str,
        scope: Option<Scope>,
        refused: Option<&Secret>,
        patience: SignedDuration,
        program: Option<Arc<Program>>,
    ) -> Result<Arc<Token>> {
        let terms = self.inner.terms(id, scope)?;
        if terms.reach != Reach::Unattended {
            self.inner.used();
        }
        let Terms { cloud, identity, scope, name, confirm, .. } = &terms;
        let deadline = self.inner.clock.now() + patience;
        let waiting = self.waited(id, &terms, refused, patience, program.as_deref());
        let mut outcome = waiting.await.map_err(|error| error.cloud(cloud.label()));
        if let (true, Ok(token)) = (*confirm, &outcome) {
            let (program, lease, ends) = (program.clone(), Some(&**name), token.expires_at);
            let left = deadline.duration_since(self.inner.clock.now());
            let wish = Wish { program, cloud, identity, scope, lease, ends };
            outcome = self.inner.confirm_use(wish, left).await.and(outcome);
        }
        self.inner.note_lease_token(program, name, cloud, scope, &outcome);
        let token = outcome?;
        self.inner.settle().await;
        Ok(token)
    }

    async fn waited(
        &self,
        id: &str,
        terms: &Terms,
        refused: Option<&Secret>,
        patience: SignedDuration,
        program: Option<&Program>,
    ) -> Result<Arc<Token>> {
        let clock = &self.inner.clock;
        let started = clock.now();
        let deadline = started + patience;
        let mut rests = Rests::SHORT;
        loop {
            match self.make(id, terms, refused).await {
                Ok(Made::Token(token)) => return Ok(token),
                Ok(Made::SignInNeeded) => self.wait_for_person(id, terms, deadline, program).await?,
                Err(error) if error.code == Code::KeystoneUnreachable => {
                    let next = rests.after(clock.now());
                    if next >= deadline.min(started + policy::UNREACHABLE) {
                        return Err(error);
                    }
                    clock.sleep_until(next).await;
                    rests.begin(clock.now());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The token that is held, or a new one, in one flight for all who hold the lease.
    async fn make(&self, id: &str, terms: &Terms, refused: Option<&Secret>) -> Result<Made> {
        if let Some(held) = self.inner.held_for(id, terms, refused).await? {
            return Ok(Made::Token(held));
        }
        if terms.reach == Reach::Unattended {
            return self.make_once(id, terms).await;
        }
        // The second time the session was found to be dead at Keystone, and may renew itself.
        for _ in 0..2 {
            if !self.can_give(terms).await? {
                break;
            }
            match self.make_once(id, terms).await? {
                Made::SignInNeeded => {}
                made @ Made::Token(_) => return Ok(made),
            }
        }
        Ok(Made::SignInNeeded)
    }

    async fn make_once(&self, id: &str, terms: &Terms) -> Result<Made> {
        let key = (id.to_owned(), terms.scope.clone());
        let (inner, id) = (self.inner.clone(), id.to_owned());
        let (cloud, identity, scope) = (terms.cloud.clone(), terms.identity.clone(), terms.scope.clone());
        let confined = terms.reach != Reach::Whole;
        self.inner
            .leased
            .join(key, || async move {
                let work = inner.mint_for(&id, &cloud, &identity, scope, confined);
                Box::pin(work).await
            })
            .await
    }

    /// Whether the user's session gives tokens, renewed if need be.
    async fn can_give(&self, terms: &Terms) -> Result<bool> {
        let Terms { cloud, identity, .. } = terms;
        let lives = self.inner.held(cloud, identity, &Scope::Unscoped, 0).is_some();
        Ok(lives || self.inner.meets(cloud, identity) && self.inner.renew(identity).await?)
    }

    /// Returns when somebody has signed in.
    async fn wait_for_person(
        &self,
        id: &str,
        terms: &Terms,
        deadline: Timestamp,
        program: Option<&Program>,
    ) -> Result<()> {
        let Terms { cloud, identity, .. } = terms;
        if terms.reach == Reach::Unattended {
            let why =
                "the credentials of this lease have ended, and nobody is signed in who could renew them";
            return Err(sign_in_needed(cloud, why));
        }
        let Some(entry) = self.begin(cloud, identity, terms.prompt, terms.remote, program).await? else {
            return Ok(());
        };
        let want = Arc::new(Want { opener: terms.opener, entry: entry.clone() });
        let _waits = Waiting::begin(&self.inner, want);
        if terms.opener.is_none() {
            self.inner.call(&entry, id);
        }
        tokio::select! {
            ended = entry.over() => ended,
            () = self.inner.clock.sleep_until(deadline) => {
                Err(sign_in_needed(cloud, "a sign-in waits for you in the browser"))
            }
        }
    }

    /// A sign-in that a request waits for by a lease of this process, as soon as there is one.
    pub async fn wanted(&self, process: u32, patience: Duration) -> Option<SignIn> {
        let mut news = self.inner.wants.subscribe();
        let found = async {
            loop {
                let wanted = self.inner.wanted_of(process);
                if let Some(entry) = wanted {
                    return Some(entry.view(self.inner.clock.now()));
                }
                news.changed().await.ok()?;
            }
        };
        tokio::time::timeout(patience, found).await.ok().flatten()
    }

    /// The Keystone of a lease's cloud.
    pub fn keystone_of(&self, id: &str) -> Result<Keystone> {
        self.inner.keystone(&self.inner.terms(id, None)?.cloud)
    }

    /// Whether the token was made for this lease.
    pub fn is_of(&self, id: &str, token: &Secret) -> bool {
        let now = self.inner.clock.now();
        lock_unpoisoned(&self.inner.state).leases.get(id).is_some_and(|lease| lease.made(token, now))
    }

    /// Something speaks against a lease's token: Keystone is asked before it is given out again.
    pub fn doubt(&self, id: &str, token: &Secret) {
        if let Some(lease) = lock_unpoisoned(&self.inner.state).leases.get_mut(id) {
            lease.confirmed(token, Timestamp::MIN);
        }
    }

    /// Keystone refused a lease's token, or its holder gave it back.
    pub fn lost(&self, id: &str, token: &Secret) {
        self.inner.with_lease(id, |lease| lease.forget(token));
    }

    /// The holder of a lease showed its secret and gets a token. False when the lease has ended meanwhile.
    pub fn record_use(&self, id: &str) -> bool {
        let now = self.inner.clock.now();
        lock_unpoisoned(&self.inner.state).leases.get_mut(id).map(|lease| lease.used(now)).is_some()
    }
}

/// A want, for as long as somebody waits.
struct Waiting<'i> {
    inner: &'i Inner,
    want: Arc<Want>,
}

impl<'i> Waiting<'i> {
    fn begin(inner: &'i Inner, want: Arc<Want>) -> Self {
        lock_unpoisoned(&inner.state).wanted.push(want.clone());
        inner.wants.send_replace(());
        Self { inner, want }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock_unpoisoned(&self.inner.state).wanted.retain(|want| !Arc::ptr_eq(want, &self.want));
    }
}

impl Inner {
    fn wanted_of(&self, process: u32) -> Option<Arc<Entry>> {
        let state = lock_unpoisoned(&self.state);
        let mut wanted = state.wanted.iter().filter(|want| want.opener == Some(process));
        wanted.find(|want| !want.entry.is_over()).map(|want| want.entry.clone())
    }

    fn terms(&self, id: &str, asked: Option<Scope>) -> Result<Terms> {
        let state = lock_unpoisoned(&self.state);
        let lease = state
            .leases
            .get(id)
            .ok_or_else(|| Error::new(Code::UnknownLease, "the lease has ended").remedy("ksb lease list"))?;
        if state.lock.is_some() && !lease.unattended {
            return Err(is_locked());
        }
        let scope = lease.reaches(asked).ok_or_else(|| {
            let project = lease.view().scope;
            Error::new(Code::ScopeRefused, format!("the lease {} is confined to {project}", lease.name))
                .cloud(lease.cloud.label())
                .remedy("leave out the scope, or ask for a lease of the other one: ksb lease create --help")
        })?;
        Ok(Terms {
            confirm: lease.confirm || self.config.requires_confirmation(&lease.cloud),
            name: lease.name.clone(),
            scope,
            cloud: lease.cloud.clone(),
            identity: lease.identity.clone(),
            reach: match (&lease.confined, lease.unattended) {
                (None, _) => Reach::Whole,
                (Some(_), false) => Reach::Confined,
                (Some(_), true) => Reach::Unattended,
            },
            prompt: lease.prompt,
            remote: lease.remote,
            opener: lease.process.as_ref().map(|process| process.pid),
        })
    }

    /// The token that is held for a lease, if its holder may have it. One that Keystone has not stood by for a while is held
    /// up to it first: whoever comes again may come from a refusal.
    async fn held_for(
        self: &Arc<Self>,
        id: &str,
        terms: &Terms,
        refused: Option<&Secret>,
    ) -> Result<Option<Arc<Token>>> {
        let doubtful = match self.answer_for(id, terms, refused) {
            Answer::Token(token) => return Ok(Some(token)),
            Answer::Nothing => return Ok(None),
            Answer::Doubtful(token) => token,
        };
        let keystone = self.keystone(&terms.cloud)?;
        let (inner, lease, token) = (self.clone(), id.to_owned(), doubtful.id.clone());
        let asked = self.doubts.join((terms.identity.clone(), token.clone()), || async move {
            match keystone.validate(&token).await? {
                Verdict::Valid(_) => {
                    let now = inner.clock.now();
                    if let Some(lease) = lock_unpoisoned(&inner.state).leases.get_mut(&lease) {
                        lease.confirmed(&token, now);
                    }
                }
                Verdict::Invalid => drop(inner.with_lease(&lease, |lease| lease.forget(&token))),
            }
            Ok(())
        });
        match asked.await {
            Ok(()) => Ok(match self.answer_for(id, terms, refused) {
                Answer::Token(token) | Answer::Doubtful(token) => Some(token),
                Answer::Nothing => None,
            }),
            // Nothing speaks against it.
            Err(error) if is_unreachable(&error) => Ok(Some(doubtful)),
            Err(error) => Err(error),
        }
    }

    fn answer_for(&self, id: &str, terms: &Terms, refused: Option<&Secret>) -> Answer {
        let now = self.clock.now();
        let state = lock_unpoisoned(&self.state);
        let session = state.sessions.get(&terms.identity).filter(|_| terms.reach == Reach::Whole);
        let newer = session.and_then(|session| session.own_token(now)).map(|held| held.token.expires_at);
        let Some(lease) = state.leases.get(id) else { return Answer::Nothing };
        lease.answer(&terms.scope, refused, newer, now)
    }

    /// Makes a token for a lease, inside the flight of its key.
    async fn mint_for(
        self: Arc<Self>,
        id: &str,
        cloud: &Cloud,
        identity: &Identity,
        scope: Scope,
        confined: bool,
    ) -> Result<Made> {
        let token = if confined {
            match self.confined_token(id).await? {
                Some(token) => token,
                None => return Ok(Made::SignInNeeded),
            }
        } else {
            match self.rescoped(cloud, identity, &scope, 0).await? {
                Some(rescoped) => rescoped.token,
                None => return Ok(Made::SignInNeeded),
            }
        };
        let token = Arc::new(token);
        let now = self.clock.now();
        let made_for = {
            let state = lock_unpoisoned(&self.state);
            state.leases.get(id).and_then(|lease| lease.belongs_to_other_than(&token.user).cloned())
        };
        if let Some(made_for) = made_for {
            // What one user's tool began, another's identity must not go on with unasked.
            self.keystone(cloud)?.revoke(&token.id).await.ok();
            let why = format!("the lease is {}'s, and {} is signed in", made_for.name, token.user.name);
            return Err(Error::new(Code::TokenRefused, why)
                .remedy(format!("make another lease, or ksb login {} --switch-user", cloud.argument())));
        }
        if self.with_lease(id, |lease| lease.insert(scope, token.clone(), now)).is_none() {
            // Revoked while Keystone answered: this token must not outlive the lease.
            self.keystone(cloud)?.revoke(&token.id).await.ok();
            return Err(Error::new(Code::UnknownLease, "the lease has ended").remedy("ksb lease list"));
        }
        Ok(Made::Token(token))
    }

    /// A token by the lease's credentials, new ones if they are gone and the user is there.
    async fn confined_token(self: &Arc<Self>, id: &str) -> Result<Option<Token>> {
        for _ in 0..2 {
            if let Some(token) = self.mint_confined(id).await? {
                return Ok(Some(token));
            }
            self.retire(id).await;
            match self.confine(id).await {
                Err(error) if error.code == Code::SignInNeeded => return Ok(None),
                outcome => outcome?,
            }
        }
        Ok(None)
    }
}
