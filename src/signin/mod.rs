//! The ways to sign in. Each ends in a Keystone token.

mod browser_flow;
mod client_credentials;
mod door;
mod keep;
pub mod loopback;
mod oidc_code;
mod oidc_device;
pub mod password;
mod start_page;
mod websso;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, OnceCell, mpsc, oneshot, watch};
use url::Url;

use crate::api::{Ask, Offer};
use crate::error::{Code, Error, Result};
use crate::http_client::Outbound;
use crate::keystone::Keystone;
use crate::model::{Cloud, Evidence, Secret, Token, User, Way};
use crate::oidc::{Granted, Provider};
use crate::time::SharedClock;

pub use crate::oidc::Refreshed;
pub use keep::Tab;

/// What a sign-in is to achieve.
pub struct Task {
    /// The sign-in's id.
    pub id: String,
    /// The cloud.
    pub cloud: Cloud,
    /// Its Keystone.
    pub keystone: Keystone,
    /// Time.
    pub clock: SharedClock,
    /// Whether the user's browser is at the other end of an SSH session.
    pub remote: bool,
    /// The pinned user; anyone else is refused. Without one the user is asked.
    pub expected: Option<User>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it is given up.
    pub deadline: Timestamp,
}

/// A sign-in under way.
pub struct Started {
    /// The address to open in a browser; empty where none is.
    pub url: String,
    /// The code that the page there shows or asks for, where it can be opened on any device.
    pub user_code: Option<String>,
    /// Where a browser on another machine can go instead, if the user then brings back where it ended.
    pub elsewhere: Option<String>,
    /// The `ssh` command, but for this machine's name, that lets a browser on another machine open `url`.
    pub tunnel: Option<String>,
    /// How far it is.
    pub progress: watch::Receiver<Progress>,
    /// What the user at the terminal says meanwhile.
    pub commands: mpsc::Sender<Command>,
    /// Calls it off.
    pub cancel: Arc<Notify>,
    /// How it ends.
    pub outcome: oneshot::Receiver<Result<SignedIn>>,
}

/// What a sign-in gave.
pub struct SignedIn {
    /// Keystone's unscoped token.
    pub token: Token,
    /// What renews it without the user, where the way has that.
    pub grant: Option<Grant>,
    /// How the user proved who they are, as far as the identity provider tells.
    pub evidence: Option<Evidence>,
    /// The tab that may keep it going, where nothing else can.
    pub tab: Option<Tab>,
}

impl SignedIn {
    fn without_grant(token: Token) -> Self {
        Self { token, grant: None, evidence: None, tab: None }
    }
}

impl Started {
    /// One that goes on by itself. Its page, if it has one, is somebody else's.
    fn going_on<W>(
        url: String,
        user_code: Option<String>,
        first: Progress,
        work: impl FnOnce(watch::Sender<Progress>, mpsc::Receiver<Command>, Arc<Notify>) -> W,
    ) -> Self
    where
        W: Future<Output = Result<SignedIn>> + Send + 'static,
    {
        let (tell, progress) = watch::channel(first);
        let (commands, heard) = mpsc::channel(4);
        let (end, outcome) = oneshot::channel();
        let cancel = Arc::new(Notify::new());
        let work = work(tell, heard, cancel.clone());
        tokio::spawn(async move {
            let _broker_is_gone = end.send(work.await);
        });
        Self { url, user_code, elsewhere: None, tunnel: None, progress, commands, cancel, outcome }
    }

    /// One that needed nobody.
    fn over(signed_in: SignedIn) -> Self {
        let (end, outcome) = oneshot::channel();
        drop(end.send(Ok(signed_in)));
        Self {
            url: String::new(),
            user_code: None,
            elsewhere: None,
            tunnel: None,
            progress: watch::channel(Progress::default()).1,
            commands: mpsc::channel(1).0,
            cancel: Arc::default(),
            outcome,
        }
    }
}

impl Task {
    /// A failure that another attempt may mend.
    fn again(&self, code: Code, why: String) -> Error {
        Error::new(code, why).cloud(self.cloud.label()).remedy(format!("ksb login {}", self.cloud.argument()))
    }

    fn refused(&self, why: &str) -> Error {
        self.again(Code::TokenRefused, format!("not used: {why}"))
    }

    fn cancelled(&self) -> Error {
        self.again(Code::SignInCancelled, "the sign-in was called off".into())
    }

    /// Gives back a token that is not the pinned user's.
    async fn check_user(&self, token: &Token) -> Result<()> {
        let Some(expected) = self.expected.as_ref().filter(|expected| expected.id != token.user.id) else {
            return Ok(());
        };
        self.keystone.revoke(&token.id).await.ok();
        let why = format!("that was {}, not {}", token.user.name, expected.name);
        Err(Error::new(Code::TokenRefused, why)
            .cloud(self.cloud.label())
            .remedy(format!("ksb login {} --switch-user", self.cloud.argument())))
    }

    /// What the identity provider granted, as a token of Keystone's.
    async fn redeem(&self, provider: &Provider, granted: Granted) -> Result<SignedIn> {
        self.check(granted.evidence.as_ref())?;
        let token = self.keystone.federated(&granted.bearer).await?;
        let grant = granted.refresh_token.map(|token| Grant::new(provider.clone(), token));
        Ok(SignedIn { token, grant, evidence: granted.evidence, tab: None })
    }

    /// Refuses a sign-in that does not show what the cloud's entry requires.
    fn check(&self, evidence: Option<&Evidence>) -> Result<()> {
        match self.cloud.missing(evidence, self.clock.now()) {
            None => Ok(()),
            Some(why) => Err(Error::new(Code::TokenRefused, format!("not used: {why}"))
                .cloud(self.cloud.label())
                .remedy("sign in at the identity provider as the entry requires, or correct the entry")),
        }
    }
}

/// A refresh token and the provider that honours it.
#[derive(Clone)]
pub struct Grant {
    /// Rotated by many providers: each may count only once (RFC 9700 section 4.14).
    pub refresh_token: Secret,
    /// Found anew by an agent that has the token from its vault.
    provider: Arc<OnceCell<Provider>>,
}

impl Grant {
    fn new(provider: Provider, refresh_token: Secret) -> Self {
        Self { refresh_token, provider: Arc::new(OnceCell::from(provider)) }
    }

    /// One whose refresh token comes from the vault.
    pub fn stored(refresh_token: Secret) -> Self {
        Self { refresh_token, provider: Arc::default() }
    }

    /// The same grant with the token that came in the place of the last one.
    #[must_use]
    pub fn rotated(&self, refresh_token: Secret) -> Self {
        Self { refresh_token, provider: self.provider.clone() }
    }

    /// The page that ends the browser's own session at the identity provider, as far as that was asked for anything.
    pub fn end_session_url(&self) -> Option<Url> {
        self.provider.get()?.end_session_url()
    }

    /// The identity provider.
    pub async fn provider(
        &self,
        cloud: &Cloud,
        outbound: &Outbound,
        clock: &SharedClock,
    ) -> Result<&Provider> {
        self.provider.get_or_try_init(|| provider(cloud, outbound, clock.clone())).await
    }
}

/// How far a sign-in is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// A browser has shown the start page, whoever opened it.
    pub opened: bool,
    /// The page asks the user whether to use a user.
    pub confirming: bool,
    /// What the user should know, oldest first.
    pub notices: Vec<String>,
    /// Tokens that wait for a word in the terminal.
    pub offers: u32,
    /// Why what came last could not be used.
    pub refused: Option<Error>,
    /// What the user at the terminal is asked for.
    pub asks: Vec<Ask>,
}

/// What the user at the terminal says.
pub enum Command {
    /// Which tokens arrived from tabs that did not start here?
    Offers(oneshot::Sender<Result<Vec<Offer>>>),
    /// A browser on another machine ended at this address.
    Redirected(Secret, oneshot::Sender<Result<()>>),
    /// Use the one that shows this code.
    Accept(String, oneshot::Sender<Result<()>>),
    /// What the user typed, by the name of what was asked for.
    Factors(BTreeMap<String, Secret>, oneshot::Sender<Result<()>>),
}

impl Command {
    /// Answers what this way to sign in has no use for.
    fn makes_no_sense_here(self, task: &Task, why: &str) {
        let refused = || task.again(Code::InvalidRequest, why.to_owned());
        match self {
            Self::Offers(reply) => drop(reply.send(Ok(Vec::new()))),
            Self::Redirected(_, reply) | Self::Factors(_, reply) => drop(reply.send(Err(refused()))),
            Self::Accept(code, reply) => {
                let why = format!("no token with the code {code} waits");
                drop(reply.send(Err(task.again(Code::UnknownSignIn, why))));
            }
        }
    }
}

/// Starts a sign-in: when this returns, its URL can be opened.
pub async fn start(
    task: Task,
    loopback: &loopback::Loopback,
    outbound: &Outbound,
    codes: &Arc<password::UsedCodes>,
) -> Result<Started> {
    match task.cloud.sign_in.way {
        Way::Workload => workload::start(task, outbound).await,
        Way::Password => password::start(task, codes.clone()).await,
        Way::Websso => websso::start(task, loopback).await,
        way @ (Way::OidcCode | Way::OidcDevice) => {
            let provider = provider(&task.cloud, outbound, task.clock.clone()).await?;
            match way {
                Way::OidcDevice => oidc_device::start(task, provider).await,
                _ => oidc_code::start(task, provider, loopback).await,
            }
        }
    }
}

/// Reads the identity provider's metadata and keys. How far its clock is before ours, where its answers say.
pub async fn look(cloud: &Cloud, outbound: &Outbound, clock: SharedClock) -> Result<Option<SignedDuration>> {
    Ok(provider(cloud, outbound, clock).await?.ahead())
}

async fn provider(cloud: &Cloud, outbound: &Outbound, clock: SharedClock) -> Result<Provider> {
    let client = cloud.sign_in.oidc.as_ref().ok_or_else(|| {
        Error::new(Code::InvalidConfig, "this way to sign in needs discovery_endpoint and client_id")
            .cloud(cloud.label())
    })?;
    Provider::discover(cloud, client, outbound, clock).await
}
