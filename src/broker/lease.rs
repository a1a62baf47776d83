//! A lease: a local application credential, and the tokens that were made for whoever holds it.

mod stored;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::task::AbortHandle;

use super::policy;
use super::revocation::UNANSWERED;
use super::session::{Minted, Session};
use crate::api;
use crate::model::{Cloud, DomainRef, Identity, ProjectRef, Scope, Secret, Token, User};
use crate::platform::process::Process;

/// What stands for a secret at rest: it is random, so a plain digest tells nothing of it.
pub(super) type SecretDigest = [u8; 32];

/// A lease. The vault keeps all but its tokens' bodies.
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its maker's")]
pub(super) struct Lease {
    pub(super) id: String,
    pub(super) name: String,
    digest: SecretDigest,
    pub(super) cloud: Cloud,
    pub(super) identity: Identity,
    /// What its tokens are for when the holder names no scope.
    pub(super) scope: Scope,
    /// A user made it, so that a sign-in may be begun for it.
    pub(super) prompt: bool,
    pub(super) remote: bool,
    /// The process that it ends with.
    pub(super) process: Option<Process>,
    pub(super) made_at: Timestamp,
    pub(super) ends_at: Option<Timestamp>,
    used_at: Option<Timestamp>,
    /// Whose tokens it gives: the first one's owner.
    user: Option<User>,
    /// Goes on without the user's session, and while the agent is locked.
    pub(super) unattended: bool,
    /// The user is asked before a program gets a token by it.
    pub(super) confirm: bool,
    pub(super) confined: Option<Confined>,
    /// The access key of the EC2 credential that was made for it.
    pub(super) ec2: Option<String>,
    notices: Vec<String>,
    tokens: HashMap<Scope, Handed>,
    pub(super) minted: Vec<Minted>,
    /// What waits for its end.
    pub(super) watch: Option<Watch>,
}

/// A token as it is held for a lease.
struct Handed {
    token: Arc<Token>,
    /// When Keystone last stood by it.
    good_at: Timestamp,
}

/// The one project that a lease reaches, and the real credentials that see to it.
#[derive(Clone)]
pub(super) struct Confined {
    pub(super) project: ProjectRef,
    pub(super) credentials: Option<Credentials>,
}

impl Confined {
    fn to(scope: &Scope) -> Self {
        let project =
            if let Scope::Project(project) = scope { project.clone() } else { ProjectRef::default() };
        Self { project, credentials: None }
    }
}

/// Two application credentials of one user for one project, made for one lease.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) user_id: String,
    /// Their names but for the ending.
    pub(super) name: String,
    /// Of the restricted one, which tokens are made from.
    pub(super) worker: Secret,
    /// Of the unrestricted one, which deletes both and is given to nobody.
    pub(super) reaper: Secret,
    /// When they are to be gone.
    pub(super) ends_at: Timestamp,
}

impl Credentials {
    pub(super) fn worker_name(&self) -> String {
        format!("{}-worker", self.name)
    }

    pub(super) fn reaper_name(&self) -> String {
        format!("{}-reaper", self.name)
    }
}

/// A lease that has ended, as far as its holder is told of it.
pub(super) struct Ended {
    id: String,
    name: String,
    digest: SecretDigest,
    tokens: Vec<SecretDigest>,
    process: Option<u32>,
    at: Timestamp,
}

impl Ended {
    pub(super) fn new(lease: &Lease, at: Timestamp) -> Self {
        Self {
            id: lease.id.clone(),
            name: lease.name.clone(),
            digest: lease.digest,
            tokens: lease.minted.iter().map(|minted| digest(&minted.id)).collect(),
            process: lease.process.as_ref().map(|process| process.pid),
            at,
        }
    }

    /// Whether this id (or name) and secret were its own.
    pub(super) fn had(&self, id: &str, secret: &SecretDigest) -> bool {
        (self.id == id || self.name == id) && bool::from(self.digest.ct_eq(secret))
    }

    /// Whether the token was made for it.
    pub(super) fn made(&self, token: &SecretDigest) -> bool {
        self.tokens.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(token)).into()
    }

    /// One sentence for its holder.
    pub(super) fn tell(&self) -> String {
        let when = self.at.strftime("%Y-%m-%d %H:%M:%S UTC");
        let with = self.process.map_or(String::new(), |pid| format!(", which was for process {pid},"));
        format!("the lease {}{with} ended at {when}", self.name)
    }
}

/// A task that ends with what it watches.
pub(super) struct Watch(pub(super) AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a lease has for a holder who asks.
pub(super) enum Answer {
    /// This.
    Token(Arc<Token>),
    /// This, if Keystone still stands by it.
    Doubtful(Arc<Token>),
    /// Nothing: one is to be made.
    Nothing,
}

impl Lease {
    pub(super) fn new(
        id: String,
        secret: &Secret,
        request: &api::LeaseRequest,
        identity: Identity,
        process: Option<Process>,
        now: Timestamp,
    ) -> Self {
        let cloud = request.cloud.clone();
        let name = request.name.clone().unwrap_or_else(|| format!("{}-{}", cloud.label(), &id[..6]));
        Self {
            id,
            name,
            digest: digest(secret),
            cloud: Cloud { sign_in: cloud.sign_in.without_proof(), ..cloud },
            identity,
            scope: request.scope.clone(),
            prompt: request.prompt,
            remote: request.remote,
            process,
            made_at: now,
            ends_at: None,
            used_at: None,
            user: None,
            unattended: request.unattended,
            confirm: request.confirm,
            confined: request.confined.then(|| Confined::to(&request.scope)),
            ec2: None,
            notices: Vec::new(),
            tokens: HashMap::new(),
            minted: Vec::new(),
            watch: None,
        }
    }

    /// What is left of a lease whose tokens are to be revoked while it lives on.
    pub(super) fn take_minted(&mut self) -> Vec<Minted> {
        self.tokens.clear();
        std::mem::take(&mut self.minted)
    }

    /// Takes its credentials out, as a lease that is over.
    pub(super) fn without_credentials(&mut self) -> Option<Self> {
        let confined = self.confined.as_mut()?;
        let credentials = Some(confined.credentials.take()?);
        Some(Self {
            id: self.id.clone(),
            name: self.name.clone(),
            digest: self.digest,
            cloud: self.cloud.clone(),
            identity: self.identity.clone(),
            scope: self.scope.clone(),
            prompt: false,
            remote: false,
            process: None,
            made_at: self.made_at,
            ends_at: self.ends_at,
            used_at: self.used_at,
            user: None,
            unattended: self.unattended,
            confirm: self.confirm,
            confined: Some(Confined { project: confined.project.clone(), credentials }),
            ec2: None,
            notices: Vec::new(),
            tokens: HashMap::new(),
            minted: self.take_minted(),
            watch: None,
        })
    }

    /// Whether this is its secret. Takes as long whatever is wrong.
    pub(super) fn admits(&self, digest: &SecretDigest) -> bool {
        self.digest.ct_eq(digest).into()
    }

    /// Its holder was given a token for the secret.
    pub(super) fn used(&mut self, now: Timestamp) {
        self.used_at = Some(now);
    }

    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|ends_at| ends_at <= now)
    }

    /// Says it whenever the lease is shown.
    pub(super) fn notice(&mut self, text: String) {
        if !self.notices.contains(&text) {
            self.notices.push(text);
        }
    }

    /// The scope that is meant; `None` when the lease does not reach it.
    pub(super) fn reaches(&self, asked: Option<Scope>) -> Option<Scope> {
        let Some(confined) = &self.confined else { return Some(asked.unwrap_or_else(|| self.scope.clone())) };
        let own = Scope::Project(confined.project.clone());
        match asked {
            None => Some(own),
            Some(Scope::Project(asked)) => is_meant(&asked, &confined.project).then_some(own),
            Some(_) => None,
        }
    }

    /// The token of a scope. `refused` is the one that its holder comes back from: it is not given to them again, whatever
    /// Keystone says. `newer` is the end of a token that could be made instead.
    pub(super) fn answer(
        &self,
        scope: &Scope,
        refused: Option<&Secret>,
        newer: Option<Timestamp>,
        now: Timestamp,
    ) -> Answer {
        let Some(Handed { token, good_at }) = self.tokens.get(scope) else { return Answer::Nothing };
        let is_over = !policy::serves(token, now, 0) || refused == Some(&token.id);
        let has_better = policy::renewal(token) <= now && newer.is_some_and(|newer| newer > token.expires_at);
        if is_over || has_better {
            Answer::Nothing
        } else if now.duration_since(*good_at) > policy::CONFIRMED {
            Answer::Doubtful(token.clone())
        } else {
            Answer::Token(token.clone())
        }
    }

    /// Whether its tokens are somebody else's.
    pub(super) fn belongs_to_other_than(&self, user: &User) -> Option<&User> {
        self.user.as_ref().filter(|own| own.id != user.id)
    }

    pub(super) fn insert(&mut self, scope: Scope, token: Arc<Token>, now: Timestamp) {
        self.user.get_or_insert_with(|| token.user.clone());
        self.minted.retain(|minted| minted.expires_at > now);
        self.minted.push(Minted::of(&scope, &token));
        self.tokens.insert(scope, Handed { token, good_at: now });
    }

    /// Keystone stands by it.
    pub(super) fn confirmed(&mut self, id: &Secret, now: Timestamp) {
        if let Some(handed) = self.tokens.values_mut().find(|handed| handed.token.id == *id) {
            handed.good_at = now;
        }
    }

    /// Does not give this token to anybody again; it is still revoked at the end.
    pub(super) fn forget(&mut self, id: &Secret) {
        self.tokens.retain(|_, handed| handed.token.id != *id);
    }

    /// The same for all of them.
    pub(super) fn forget_all(&mut self) {
        self.tokens.clear();
    }

    /// Whether the token was made for this lease, and may live.
    pub(super) fn made(&self, id: &Secret, now: Timestamp) -> bool {
        let id = id.expose().as_bytes();
        let living = self.minted.iter().filter(|minted| minted.expires_at > now);
        let found =
            living.fold(Choice::from(0), |found, minted| found | minted.id.expose().as_bytes().ct_eq(id));
        found.into()
    }

    /// Whether Keystone has nothing (any more) that must be taken back.
    pub(super) fn leaves_nothing(&self, now: Timestamp) -> bool {
        let credentials = self.confined.as_ref().and_then(|confined| confined.credentials.as_ref());
        self.ec2.is_none()
            && credentials.is_none_or(|credentials| credentials.ends_at + policy::CREDENTIAL_MARGIN <= now)
            && self.minted.iter().all(|minted| minted.expires_at <= now)
    }

    /// What it still has at Keystone now that it is over.
    pub(super) fn unrevoked(&self, now: Timestamp) -> api::Unrevoked {
        let left = |scope: &str, expires_at| api::NotRevoked {
            scope: scope.to_owned(),
            expires_at,
            reason: "it is deleted at your next sign-in, if not sooner".to_owned(),
            is_final: false,
        };
        let credentials = self.confined.as_ref().and_then(|confined| confined.credentials.as_ref());
        let credentials = credentials.map(|credentials| {
            left("the application credential's", Some(credentials.ends_at + policy::CREDENTIAL_MARGIN))
        });
        let ec2 = self.ec2.iter().map(|_| left("the EC2 credential's", None));
        let tokens = self.minted.iter().filter(|minted| minted.expires_at > now);
        let tokens = tokens.map(|minted| left(&minted.scope, Some(minted.expires_at)));
        api::Unrevoked {
            cloud: self.cloud.label().to_owned(),
            user: None,
            lease: Some(self.name.clone()),
            not_revoked: credentials.into_iter().chain(ec2).chain(tokens).collect(),
        }
    }

    /// How its end is reported while Keystone has not answered yet.
    pub(super) fn unanswered(&self, now: Timestamp) -> api::RevokeReply {
        let mut not_revoked = self.unrevoked(now).not_revoked;
        for left in &mut not_revoked {
            UNANSWERED.clone_into(&mut left.reason);
        }
        api::RevokeReply { lease: self.view(), revoked: 0, deleted: 0, not_revoked }
    }

    /// When it ends by itself.
    fn expires_at(&self) -> Option<Timestamp> {
        let confined = self.confined.as_ref().filter(|_| self.unattended);
        let credentials = confined.and_then(|confined| confined.credentials.as_ref());
        self.ends_at.into_iter().chain(credentials.map(|credentials| credentials.ends_at)).min()
    }

    /// Beside its `session`, if there is one.
    pub(super) fn view_with(&self, session: Option<&Session>, now: Timestamp) -> api::Lease {
        let view = self.view();
        let ends_at = session.filter(|_| !self.unattended).and_then(|session| session.last_end(now));
        let is_sooner = |ends: &Timestamp| view.expires_at.is_none_or(|expires| *ends < expires);
        api::Lease { session_expires_at: ends_at.filter(is_sooner), ..view }
    }

    pub(super) fn view(&self) -> api::Lease {
        let scope = match &self.confined {
            Some(confined) => Scope::Project(confined.project.clone()),
            None => self.scope.clone(),
        };
        let project_id = match &scope {
            Scope::Project(project) => project.id.clone(),
            _ => None,
        };
        api::Lease {
            id: self.id.clone(),
            name: self.name.clone(),
            cloud: self.cloud.label().to_owned(),
            scope: scope.to_string(),
            project_id,
            confined: self.confined.is_some(),
            unattended: self.unattended,
            confirm: self.confirm,
            process: self.process.as_ref().map(|process| process.pid),
            made_at: self.made_at,
            expires_at: self.expires_at(),
            session_expires_at: None,
            used_at: self.used_at,
            notices: self.notices.clone(),
        }
    }
}

/// What is kept of a secret.
pub(super) fn digest(secret: &Secret) -> SecretDigest {
    Sha256::digest(secret.expose()).into()
}

/// Whether a project that somebody names is this one.
fn is_meant(asked: &ProjectRef, project: &ProjectRef) -> bool {
    match (&asked.id, &asked.name) {
        (Some(id), _) => project.id.as_ref() == Some(id),
        (None, Some(name)) => {
            project.name.as_ref() == Some(name)
                && asked.domain.as_ref().is_none_or(|asked| {
                    let own = project.domain.clone().unwrap_or_default();
                    let DomainRef { id, name } = asked;
                    if id.is_some() { *id == own.id } else { *name == own.name }
                })
        }
        (None, None) => false,
    }
}
