//! A Keystone 30 and its identity provider, in this process: answers as the real ones were seen to
//! (`tests/stack/`), by a clock of the test's, and can be slow, wrong, rude or gone.
//!
//! Who lives here is in `keystone/identity.rs`; the stack has the same people and projects.

mod credentials;
mod factors;
mod identity;
mod provider;
mod server;
mod tls;

use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;
use keystone_broker::time::SharedClock;
use serde_json::Value;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use self::credentials::Policy;
pub use self::factors::PASSWORD;
use self::identity::Identity;
pub use self::provider::Lie;
use self::server::Server;
use super::http::PATIENCE;

/// The double. Ends when dropped.
pub struct Keystone {
    shared: Arc<Shared>,
    server: Server,
    url: String,
    certificate: Option<String>,
}

struct Shared {
    clock: SharedClock,
    state: Mutex<State>,
    /// A request was logged.
    logged: Condvar,
}

struct State {
    identity: Identity,
    /// Keystone's clock is this far ahead of the test's.
    skew: SignedDuration,
    log: Vec<Logged>,
    rules: Vec<(u64, Request, Fault)>,
    last_rule: u64,
    /// Everything that anybody said, but for the methods.
    heard: String,
    hold: Hold,
}

/// A request of the agent's that is never answered.
#[derive(Default)]
enum Hold {
    #[default]
    None,
    /// The next but so many.
    Coming(usize, When),
    /// This one.
    Held(Request),
}

/// When a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before anything is done.
    Before,
    /// When it is done, and the answer is not sent.
    Done,
}

/// A request that came in.
#[derive(Debug, Clone)]
struct Logged {
    /// `POST /v3/auth/tokens`
    request: Request,
    /// `None` while it is not answered.
    status: Option<u16>,
}

/// Method and path, without the query.
type Request = String;

/// What happens to a request instead of its proper answer.
#[derive(Clone)]
pub enum Fault {
    /// Keystone's own error document with this status.
    Status(u16),
    /// Anything, as `text/html` or `application/json`, with the headers of a token's answer.
    Says(u16, String),
    /// An empty answer with these headers.
    Heads(u16, Vec<(&'static str, String)>),
    /// The connection ends without an answer.
    Hangs,
    /// No answer until the rule is gone; then the proper one.
    Waits,
    #[doc(hidden)]
    WaitsFor(watch::Receiver<()>),
}

/// A fault in force, until it is dropped.
pub struct Rule<'k> {
    keystone: &'k Keystone,
    id: u64,
    _release: watch::Sender<()>,
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        self.keystone.state().rules.retain(|(id, _, _)| *id != self.id);
    }
}

/// What token requests are called in the log.
pub const EXCHANGE: &str = "POST /v3/auth/tokens";
/// What validations are called in the log.
pub const VALIDATION: &str = "GET /v3/auth/tokens";
/// What revocations are called in the log.
pub const REVOCATION: &str = "DELETE /v3/auth/tokens";
/// What requests to the identity provider's token endpoint are called in the log.
pub const TOKEN_ENDPOINT: &str = "POST /idp/token";
/// What Keystone's bearer exchange is called in the log.
pub const FEDERATED: &str = "POST /v3/OS-FEDERATION/identity_providers/lab-idp/protocols/openid/auth";
/// What the look at the version document is called in the log.
pub const DISCOVERY: &str = "GET /v3";
/// Identity provider and protocol of the lab's cloud.
pub const LAB: (&str, &str) = ("lab-idp", "openid");

impl Keystone {
    /// Starts one on a port of its own, by this clock.
    pub fn start(clock: SharedClock) -> Self {
        Self::start_on(clock, "http", None, None)
    }

    /// The same on TLS, with a certificate that nobody has signed but itself.
    pub fn start_on_tls(clock: SharedClock) -> Self {
        let (certificate, acceptor) = tls::self_signed();
        Self::start_on(clock, "https", Some(certificate), Some(acceptor))
    }

    fn start_on(
        clock: SharedClock,
        scheme: &str,
        certificate: Option<String>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let port = super::port::free();
        let url = format!("{scheme}://127.0.0.1:{port}");
        let state = State {
            identity: Identity::new(url.clone()),
            skew: SignedDuration::ZERO,
            log: Vec::new(),
            rules: Vec::new(),
            last_rule: 0,
            heard: String::new(),
            hold: Hold::None,
        };
        let shared = Arc::new(Shared { clock, state: Mutex::new(state), logged: Condvar::new() });
        let server = Server::start(port, tls, shared.clone());
        Self { shared, server, url, certificate }
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        self.certificate.as_deref().unwrap()
    }

    /// Its root, without `/v3`.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Where the identity provider departs from the truth.
    pub fn lies(&self, lie: Option<Lie>) {
        self.state().identity.provider.lie = lie;
    }

    /// What the user answers on another device: an error's name, or yes as this user.
    pub fn decide(&self, says: Option<&'static str>, user: &str) {
        self.state().identity.provider.decide(says, user);
    }

    /// The identity provider ends every grant.
    pub fn end_grants(&self) {
        self.state().identity.provider.end_all();
    }

    /// The identity provider takes every grant for this user's.
    pub fn hand_grants_to(&self, user: &str) {
        self.state().identity.provider.hand_over_to(user);
    }

    /// An access token of the identity provider, for those who do not use a browser.
    pub fn bearer(&self, user: &str) -> String {
        self.state().identity.provider.bearer(user)
    }

    /// The code that the telephone of Keystone's own user shows.
    pub fn shows(&self, code: &str) {
        self.state().identity.factors.code = code.into();
    }

    /// What Keystone's own user has to show.
    pub fn asks_for(&self, rule: &[&'static str]) {
        self.state().identity.factors.rule = rule.into();
    }

    /// Methods and what was shown by them, right or wrong.
    pub fn tried(&self) -> Vec<(String, String)> {
        self.state().identity.factors.tried.clone()
    }

    /// Refresh tokens that would be honoured.
    pub fn grants(&self) -> usize {
        self.state().identity.provider.living()
    }

    /// The only one of them.
    pub fn refresh_token(&self) -> String {
        self.state().identity.provider.refresh_token().to_owned()
    }

    /// Whether a refresh token came twice.
    pub fn saw_reuse(&self) -> bool {
        self.state().identity.provider.reused
    }

    /// Codes and tokens of the identity provider.
    pub fn secrets(&self) -> Vec<String> {
        self.state().identity.provider.secrets()
    }

    /// Adds a line to `trusted_dashboard`.
    pub fn trust(&self, callback: &str) {
        self.state().identity.trusted_dashboard.insert(callback.into());
    }

    /// Seconds that a federated sign-in's token lives from now on.
    pub fn lifetime(&self, seconds: i64) {
        self.state().identity.lifetime = SignedDuration::from_secs(seconds);
    }

    /// Sets Keystone's clock this many seconds ahead.
    pub fn skew(&self, seconds: i64) {
        self.state().skew = SignedDuration::from_secs(seconds);
    }

    /// Gives a user a role on the domain `lab`.
    pub fn grant_domain(&self, user: &str) {
        self.state().identity.domain_admins.insert(user.into());
    }

    /// Puts a user into a group that has a role on this project, and has it from the next sign-in on.
    pub fn join_group_of(&self, user: &str, project: &'static str) {
        self.state().identity.groups.entry(user.into()).or_default().push(project);
    }

    /// A token as a sign-in at (identity provider, protocol) gives it, for those who do not use a browser.
    pub fn issue(&self, user: &str, (idp, protocol): (&str, &str)) -> String {
        let mut state = self.state();
        let now = self.shared.clock.now() + state.skew;
        state.identity.sign_in(now, user, idp, protocol).unwrap()
    }

    /// A token made from another one.
    pub fn rescope(&self, token: &str, scope: &Value) -> String {
        let mut state = self.state();
        let now = self.shared.clock.now() + state.skew;
        state.identity.rescope(now, token, scope).unwrap().0
    }

    /// Revokes a token, as an administrator would.
    pub fn revoke(&self, token: &str) {
        assert!(self.state().identity.revoke(token), "no such token");
    }

    /// Whether it is a token, and good.
    pub fn accepts(&self, token: &str) -> bool {
        let state = self.state();
        state.identity.is_valid(self.shared.clock.now() + state.skew, token)
    }

    /// Keystone's answer to a validation of the token, byte for byte.
    pub fn body_of(&self, token: &str) -> String {
        self.state().identity.body_of(token)
    }

    /// Every token id that was ever given out.
    pub fn all_tokens(&self) -> Vec<String> {
        self.state().identity.all_tokens()
    }

    /// What the cloud thinks of application credentials.
    pub fn credentials_are(&self, policy: Policy) {
        self.state().identity.credentials.policy = policy;
    }

    /// Seconds that a sign-in's membership of its groups lasts (`authorization_ttl`).
    pub fn membership(&self, seconds: i64) {
        self.state().identity.credentials.membership = Some(SignedDuration::from_secs(seconds));
    }

    /// Names of the application credentials that there are.
    pub fn credentials(&self) -> Vec<String> {
        self.state().identity.credentials.names()
    }

    /// Ids of the EC2 credentials that there are.
    pub fn ec2(&self) -> Vec<String> {
        self.state().identity.credentials.ec2()
    }

    /// The owner of the token deletes all of theirs.
    pub fn delete_credentials(&self, token: &str) {
        self.state().identity.delete_credentials(token);
    }

    /// An application credential of the token's owner that somebody else made.
    pub fn add_credential(&self, token: &str, name: &str) {
        let now = self.shared.clock.now();
        self.state().identity.add_credential(token, name, now);
    }

    /// Puts a fault in force for a method and path such as [`EXCHANGE`].
    pub fn on(&self, request: &str, fault: Fault) -> Rule<'_> {
        let (release, gate) = watch::channel(());
        let fault = if matches!(fault, Fault::Waits) { Fault::WaitsFor(gate) } else { fault };
        let mut state = self.state();
        state.last_rule += 1;
        let id = state.last_rule;
        state.rules.push((id, request.into(), fault));
        drop(state);
        Rule { keystone: self, id, _release: release }
    }

    /// Never answers the agent's next request but `after`. Requests of browsers do not count.
    pub fn hold(&self, after: usize, when: When) {
        self.state().hold = Hold::Coming(after, when);
    }

    /// The request that is held, once it has come.
    pub fn held(&self) -> Option<Request> {
        match &self.state().hold {
            Hold::Held(request) => Some(request.clone()),
            _ => None,
        }
    }

    /// Answers again.
    pub fn let_go(&self) {
        self.state().hold = Hold::None;
    }

    /// Nobody listens on its port any more.
    pub fn go(&self) {
        self.server.listen(false);
    }

    /// It is back.
    pub fn come_back(&self) {
        self.server.listen(true);
    }

    /// Whether anybody ever sent it this, in whatever part of a request.
    pub fn heard(&self, text: &str) -> bool {
        self.state().heard.contains(text)
    }

    /// How many requests of this kind have come in.
    pub fn count(&self, request: &str) -> usize {
        self.state().count(request)
    }

    /// How many of this kind have been answered.
    pub fn answered(&self, request: &str) -> usize {
        let state = self.state();
        state.log.iter().filter(|logged| logged.request == request && logged.status.is_some()).count()
    }

    /// How many sign-ins were completed.
    pub fn logins(&self) -> usize {
        self.state().count_answers("/websso", 200)
    }

    /// How many tokens were made from others.
    pub fn exchanges(&self) -> usize {
        self.state().count_answers(EXCHANGE, 201)
    }

    /// How many requests have come in at all.
    pub fn requests(&self) -> usize {
        self.state().log.len()
    }

    /// Returns when this many requests of a kind have come in, answered or not.
    #[track_caller]
    pub fn wait_for(&self, request: &str, times: usize) {
        let few = |state: &mut State| state.count(request) < times;
        let waited = self.shared.logged.wait_timeout_while(self.state(), PATIENCE, few);
        let (state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timed_out.timed_out(), "{request} came {} times, not {times}", state.count(request));
    }
}

impl Shared {
    fn hear(&self, ask: &identity::Ask) {
        let mut state = self.state();
        let _ = writeln!(state.heard, "{}?{}", ask.path, ask.query);
        for (name, value) in &ask.headers {
            let _ = writeln!(state.heard, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        state.heard.push_str(&String::from_utf8_lossy(&ask.body));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&self, request: &str) -> usize {
        self.log.iter().filter(|logged| logged.request == request).count()
    }

    fn count_answers(&self, part: &str, status: u16) -> usize {
        let fits = |logged: &&Logged| logged.request.contains(part) && logged.status == Some(status);
        self.log.iter().filter(fits).count()
    }
}
