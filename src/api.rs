//! The types of the broker's own HTTP API, shared by client and server.
//!
//! HTTP/1.1 and JSON on a unix socket. Times are RFC 3339 in UTC by this machine's clock, durations whole seconds. Every
//! reply carries `Ksb-Version`. Failures are `Problem` documents (RFC 9457).

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::error::{Code, Error, Upstream};
use crate::model::{Cloud, Evidence, Factor, Scope, Secret, User};

/// The header that names the agent's version in every reply.
pub const VERSION_HEADER: &str = "ksb-version";

/// The header in which a caller at a terminal sends an id of its own, up to 64 hexadecimal digits, with each request. While
/// it waits for a sign-in, nobody else is asked to open the browser again.
pub const WAITER_HEADER: &str = "ksb-waiter";

/// `POST /v1/tokens`: asks for a token of a scope.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenRequest {
    /// The cloud, resolved by the client.
    pub cloud: Cloud,
    /// The scope; unscoped when absent.
    #[serde(default)]
    pub scope: Scope,
    /// Seconds that the token must live at least. The broker's own threshold applies in any case.
    /// Right after a sign-in the answer may be shorter: nothing longer can be had then.
    #[serde(default)]
    pub min_validity: u64,
    /// Id of a token that a service refused. Keystone is asked about it before it is served again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Secret>,
    /// Whether a user started the caller, so that a browser may be opened.
    #[serde(default)]
    pub prompt: bool,
    /// Whether that user's browser is at the other end of an SSH session: see `tunnel` of the sign-in.
    #[serde(default)]
    pub remote: bool,
}

/// `200` of `POST /v1/tokens`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenReply {
    /// What goes into `X-Auth-Token`.
    pub token_id: Secret,
    /// When it ends by this machine's clock; `body` has it by Keystone's.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// What the broker filled in because the request left it open, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed: Option<String>,
    /// Keystone's `{"token": {…}}`, byte for byte.
    #[schema(value_type = Object)]
    pub body: Box<RawValue>,
}

/// `202` of `POST /v1/tokens` and `POST /v1/sign-ins`: a user is needed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SignInReply {
    /// The sign-in to wait for with `GET /v1/sign-ins/{id}`.
    pub sign_in: SignIn,
}

/// A sign-in as a caller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SignIn {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// The cloud's label.
    pub cloud: String,
    /// How far it is.
    pub state: SignInState,
    /// Grows with every change; give it back as `seen` to wait for the next one.
    pub revision: u64,
    /// The address that a user opens, in a browser on this machine unless there is a `user_code`. None where the
    /// terminal asks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// The prompts for the user on the terminal, without echo, while `state` = `asking`. The answers go to
    /// `POST …/factors`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Ask>,
    /// The code that the page at `url` shows or asks for. With it, `url` may be opened on any device (RFC 8628).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_code: Option<String>,
    /// The identity provider's own address, for a browser on another machine. It ends at an address that nobody answers
    /// there; a user gives that to `POST …/redirected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
    /// The `ssh` command, but for this machine's name, that a user runs on the machine with the browser: `url` can be
    /// opened there while it runs, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// True for exactly one caller at a time: open `url`, or ask for what `asks` names, and say so with `POST …/opened`.
    pub opener: bool,
    /// The configured command that opens it, `{url}` standing for the address; else the system's browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<String>,
    /// Whether `url` should be opened in a private window (`--switch-user`).
    #[serde(default)]
    pub private_window: bool,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When the broker gives up.
    #[schema(value_type = String, format = DateTime)]
    pub deadline: Timestamp,
    /// Callers at terminals that wait for it.
    #[serde(default)]
    pub waiters: u32,
    /// Notices for the user meanwhile, oldest first, each a sentence.
    #[serde(default)]
    pub notices: Vec<String>,
    /// Tokens that arrived from a tab that did not start here and wait for the user's word.
    #[serde(default)]
    pub offers: u32,
    /// Why what the browser brought last could not be used: a fault of the set-up, not of a stranger. The sign-in goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Problem>,
    /// Why it failed, with `state` = `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// `200` of `POST /v1/sign-ins/{id}/leave`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct LeaveReply {
    /// Whether the sign-in ends, because no other caller at a terminal waits for it.
    pub ended: bool,
}

/// Something that a user is asked for on the terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ask {
    /// Its name in the answer.
    pub factor: Factor,
    /// What to ask, such as `Password of alice (Default)`.
    pub text: String,
}

/// `POST /v1/sign-ins/{id}/factors`: what the user typed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FactorsRequest {
    /// By the name of what was asked for.
    pub factors: BTreeMap<String, Secret>,
}

/// How far a sign-in is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignInState {
    /// The browser has not come back yet.
    Waiting,
    /// The page asks the user whether to use this user.
    Confirming,
    /// The user has to type what `asks` names.
    Asking,
    /// Signed in: ask for the token again.
    Done,
    /// Over, without a session; see `problem`.
    Failed,
}

fn yes() -> bool {
    true
}

/// `POST /v1/sign-ins`: what `ksb login` asks.
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of the caller's")]
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LoginRequest {
    /// The cloud, resolved by the client.
    pub cloud: Cloud,
    /// Seconds the session must last at least; a shorter one is replaced by a new sign-in.
    #[serde(default)]
    pub min_validity: u64,
    /// Seconds after which the session is to be logged out, however long it could go on. The settings may say sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u64>,
    /// Accept, and pin, another user than before.
    #[serde(default)]
    pub switch_user: bool,
    /// Renew the session of who is signed in, however long it lasts: its tokens hold the groups of its sign-in.
    #[serde(default)]
    pub renew: bool,
    /// Whether a user started the caller, so that a sign-in may be begun.
    #[serde(default = "yes")]
    pub prompt: bool,
    /// Whether the user's browser is at the other end of an SSH session: see `tunnel` of the sign-in.
    #[serde(default)]
    pub remote: bool,
}

/// `200` of `POST /v1/sign-ins`: a session that lasts long enough is there already.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionReply {
    /// The session.
    pub session: Session,
}

/// `GET /v1/sign-ins/{id}/offers`: tokens that wait for the user's word in the terminal.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Offers {
    /// Newest last.
    pub offers: Vec<Offer>,
}

/// A token from a tab that did not start at the broker: another browser, or one without JavaScript.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Offer {
    /// The code that the page shows too; a user compares.
    pub code: String,
    /// Whose token it is, says Keystone.
    pub user: User,
    /// The identity provider that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
}

/// `POST /v1/sign-ins/{id}/redirected`: where a browser on another machine ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RedirectedRequest {
    /// The whole address, with code and state.
    pub url: Secret,
}

/// `POST /v1/sign-ins/{id}/accept`: the user's word for an [`Offer`].
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AcceptRequest {
    /// The offer's code.
    pub code: String,
}

/// A cloud alone: the body of `refresh`, `projects` and `trust`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CloudRequest {
    /// The cloud, resolved by the client.
    pub cloud: Cloud,
}

/// `POST /v1/refresh`: how many scoped tokens were dropped.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RefreshReply {
    /// Tokens dropped; the next request mints anew.
    pub dropped: u32,
}

/// `200` of `POST /v1/projects`: what the user may scope to, asked of Keystone just now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReachReply {
    /// `GET /v3/auth/projects`.
    pub projects: Vec<Reach>,
    /// `GET /v3/auth/domains`.
    pub domains: Vec<Reach>,
}

/// A project or domain that can be scoped to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reach {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// A project's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_id: Option<String>,
}

/// `200` of `POST /v1/probe`: what was found of a cloud without signing in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProbeReply {
    /// In the order in which they build upon each other.
    pub findings: Vec<Finding>,
}

/// What one check came to. `ksb doctor --json` prints these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The check's name, such as `clock`.
    pub check: String,
    /// What it looked at: a cloud's label, a file, a Python; empty for the machine as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// How it ended.
    pub finding: Found,
    /// What was found, in a sentence without secrets.
    pub detail: String,
    /// The command that helps, or what to ask the operator for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The server's `x-openstack-request-id`, for the operator's grep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// When it was found.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// As it should be.
    Ok,
    /// It works, and could do harm or stop working.
    Warn,
    /// It does not work.
    Fail,
    /// This cannot be known from here, or not yet.
    Unknown,
    /// Not looked at: it does not apply, or what it needs has failed.
    Skipped,
}

/// `POST /v1/discover`: what an address tells of a cloud.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DiscoverRequest {
    /// The TLS and proxy settings, with any address of the cloud for `auth_url`: its dashboard's or Keystone's.
    pub cloud: Cloud,
    /// Whether `http` will do for other computers than this one.
    #[serde(default)]
    pub plain_http: bool,
}

/// `200` of `POST /v1/discover`. A stranger may have said all of it: a user decides.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DiscoverReply {
    /// The ways to sign in that were found; one at least.
    pub choices: Vec<Choice>,
    /// Addresses on other hosts that redirects or documents led to.
    pub redirects: Vec<String>,
}

/// A way to sign in, as a dashboard names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Choice {
    /// What the page calls it.
    pub label: String,
    /// Keystone's address.
    pub auth_url: String,
    /// Keystone's identity provider, where one is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
    /// The federation protocol, where one is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The region, where one is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl Choice {
    /// Whether both lead to the same sign-in, whatever they are called.
    pub fn is_same(&self, other: &Self) -> bool {
        let what = |choice: &Self| {
            (choice.auth_url.clone(), choice.identity_provider.clone(), choice.protocol.clone())
        };
        what(self) == what(other)
    }
}

/// `POST /v1/logout`: one cloud, or everything.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LogoutRequest {
    /// The cloud; absent means every session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<Cloud>,
}

/// What a logout did.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct LogoutReply {
    /// One for each session that ended.
    pub sessions: Vec<LoggedOut>,
    /// The leases that ended with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<RevokeReply>,
    /// Why there may be more to log out, if there may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Incomplete>,
}

/// Why a list may lack something: the vault that lies on the disk is not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Incomplete {
    /// Why, in a sentence.
    pub reason: String,
    /// The command that helps, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// When the last token in a vault that can never be opened again has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

impl From<Error> for Incomplete {
    fn from(error: Error) -> Self {
        Self { reason: error.detail, remedy: error.remedy, expires_at: None }
    }
}

/// A session that ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LoggedOut {
    /// The cloud's label.
    pub cloud: String,
    /// Who was signed in.
    pub user: User,
    /// Tokens that Keystone has revoked.
    pub revoked: u32,
    /// Tokens that it has not, and until when they live.
    pub not_revoked: Vec<NotRevoked>,
    /// Page that ends the browser's own session, where the cloud names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logout_url: Option<String>,
}

/// What a logout, or the end of a lease, has left at a cloud. The agent tries again to revoke it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Unrevoked {
    /// The cloud's label.
    pub cloud: String,
    /// The user who was signed in, where it is a session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// The lease's name, where it is a lease's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// What the cloud still honours, and until when.
    pub not_revoked: Vec<NotRevoked>,
}

/// A token that outlives its logout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NotRevoked {
    /// Its scope.
    pub scope: String,
    /// When it ends by itself, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Why it was not revoked.
    pub reason: String,
    /// Whether the server will go on refusing, so that the agent does not try again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The file that it runs, as the kernel names it: ` (deleted)` at its end once that was replaced or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Where sessions are kept.
    pub vault: VaultReport,
    /// Since when and why it is locked, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<LockReport>,
    /// Who is signed in where.
    pub sessions: Vec<Session>,
    /// Why `sessions` and `leases` may lack some, if they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Incomplete>,
    /// What was logged out or ended and is still good at a cloud.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrevoked: Vec<Unrevoked>,
    /// Sign-ins under way.
    pub sign_ins: Vec<SignIn>,
    /// Where leases are good.
    pub facade: FacadeReport,
    /// The living leases, the oldest first.
    pub leases: Vec<Lease>,
    /// Notices about the agent, each a sentence: a setting that is not in force, for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// `200` of `GET /v1/confirmations`: whether a program may have a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Question {
    /// Names it in the answer.
    pub id: String,
    /// The cloud and the program.
    pub title: String,
    /// The program's process and executable, what started it, the scope, the lease.
    pub text: String,
}

/// `POST /v1/confirmations/{id}`: the user's answer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct AnswerRequest {
    /// Whether the program may have it.
    pub allow: bool,
}

/// `POST /v1/lock`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LockRequest {}

/// `200` of `POST /v1/lock`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LockReply {
    /// The lock.
    pub lock: LockReport,
    /// What was logged out, because there is no vault that it could be sealed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged_out: Option<LogoutReply>,
    /// Leases that pause.
    pub paused: u32,
    /// Unattended leases, which go on.
    pub through: u32,
    /// Whether a fresh process, which knows nothing, is about to take this one's place; not where one that was locked
    /// already knows nothing.
    #[serde(default)]
    pub restarts: bool,
}

/// Since when, and why, the agent is locked.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LockReport {
    /// When it was locked.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Who or what locked it.
    pub reason: LockReason,
}

/// Who or what locked the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LockReason {
    /// A user: `ksb lock`. Only `ksb unlock` opens it.
    Person,
    /// Nobody asked for anything for as long as config.toml says.
    Idle,
    /// The screen was locked; unlocking it unlocks the agent too, unless its vault wants a passphrase.
    Screen,
    /// The computer went to sleep.
    Sleep,
}

impl fmt::Display for LockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Person => "by you",
            Self::Idle => "because nothing was asked for",
            Self::Screen => "with the screen",
            Self::Sleep => "before the computer slept",
        })
    }
}

/// Where sessions are kept, and why there.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VaultReport {
    /// Whether what is signed in outlives the agent.
    pub state: VaultState,
    /// Who keeps the key, of an open vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyKind>,
    /// Where the vault lies, or would.
    pub file: String,
    /// Why it is no better than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The command that helps, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Why the last change is not in it: a full disk, for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Whether what is signed in outlives the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VaultState {
    /// It will: the first sign-in makes the vault.
    New,
    /// It does.
    Open,
    /// Not yet: there is a vault, and its key cannot be had.
    Sealed,
    /// It does not.
    Memory,
}

/// Who keeps a vault's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// The desktop's keyring, by the Secret Service of freedesktop.org.
    Keyring,
    /// The kernel's keyring of this user (user-keyring(7)): until the reboot.
    Kernel,
    /// A user's memory, or a file they named.
    Passphrase,
}

/// `POST /v1/unlock`: opens the vault, and the lock.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct UnlockRequest {
    /// The passphrase that the vault is sealed with, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// `POST /v1/vault/key`: seals the vault with another key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VaultKeyRequest {
    /// The key store.
    pub key: KeyKind,
    /// The passphrase, for `passphrase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// Who is signed in where.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own on the wire")]
pub struct Session {
    /// Labels of the clouds that have used it, in order of first use.
    pub clouds: Vec<String>,
    /// Keystone's address.
    pub auth_url: String,
    /// The identity provider, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
    /// The federation protocol; none of Keystone's own users.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The account label, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Who.
    pub user: User,
    /// When the user signed in.
    #[schema(value_type = String, format = DateTime)]
    pub signed_in_at: Timestamp,
    /// Until when tokens can be had without another sign-in; with `renews`, when the next renewal is due at the latest.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// When it is logged out, however long it could go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ends_at: Option<Timestamp>,
    /// Whether the session is renewed without the user, for as long as the identity provider allows.
    #[serde(default)]
    pub renews: bool,
    /// Why the last renewal failed: the identity provider's name and words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_failure: Option<String>,
    /// Whether that goes on after the user's own session at the identity provider has ended (`offline_access`).
    #[serde(default)]
    pub offline_access: bool,
    /// Whether a browser tab keeps it going for as long as it is open.
    #[serde(default)]
    pub kept_by_tab: bool,
    /// Whether it ends soon and nothing renews it: time to sign in again.
    #[serde(default)]
    pub ends_soon: bool,
    /// How the user proved who they are, as far as the identity provider tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Scopes that have a token now.
    pub scopes: Vec<CachedScope>,
    /// Whether Keystone's certificate is checked.
    pub tls_verified: bool,
}

/// A token that is held, without its id.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CachedScope {
    /// The scope in words.
    pub scope: String,
    /// When its token ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// `POST /v1/leases`: a local application credential, valid only at the facade.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own on the wire")]
pub struct LeaseRequest {
    /// The cloud, resolved by the client.
    pub cloud: Cloud,
    /// What its tokens are for when a tool names no scope, and the only thing where the lease is confined.
    #[serde(default)]
    pub scope: Scope,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Seconds that it lives; until it is revoked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// Whether it ends with the process that asks.
    #[serde(default)]
    pub for_caller: bool,
    /// Whether its tokens come from a restricted application credential of one project, so that Keystone itself keeps
    /// their holder from other projects and from making credentials.
    #[serde(default)]
    pub confined: bool,
    /// Whether its holder may have the whole identity where the cloud refuses such credentials.
    #[serde(default)]
    pub whole_identity: bool,
    /// Whether it goes on after the user's session has ended, and while the agent is locked. Always confined.
    #[serde(default)]
    pub unattended: bool,
    /// Whether the user is asked before a program gets a token by it.
    #[serde(default)]
    pub confirm: bool,
    /// Whether it comes with an EC2 credential of its project, for S3.
    #[serde(default)]
    pub s3: bool,
    /// Whether a user started the caller, so that a sign-in may be begun for the lease's tokens.
    #[serde(default)]
    pub prompt: bool,
    /// Whether that user's browser is at the other end of an SSH session.
    #[serde(default)]
    pub remote: bool,
}

/// `201` of `POST /v1/leases`. The secrets are shown this once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeaseReply {
    /// The lease; its id is the application credential's.
    pub lease: Lease,
    /// The application credential's secret.
    pub secret: Secret,
    /// The same as one string, for tools that take a token only.
    pub handle: Secret,
    /// The facade's address: what tools take for Keystone's.
    pub auth_url: String,
    /// The EC2 credential that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Key>,
}

/// An EC2 credential and where it is good.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct S3Key {
    /// The access key.
    pub access: String,
    /// The secret key.
    pub secret: Secret,
    /// The catalog's S3 endpoint, or the root of its object store's.
    pub endpoint: String,
}

/// A lease, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The cloud's label.
    pub cloud: String,
    /// The scope in words.
    pub scope: String,
    /// The scope's project at Keystone, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Whether its tokens reach one project only.
    pub confined: bool,
    /// Whether it goes on without the user's session, and while the agent is locked.
    pub unattended: bool,
    /// Whether the user is asked before a program gets a token by it.
    #[serde(default)]
    pub confirm: bool,
    /// The process that it ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub made_at: Timestamp,
    /// When it ends by itself; of an unattended one no later than the cloud lets its credentials live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When the session ends that its tokens come from, if that is sooner and nothing renews it: tools then wait for a
    /// sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub session_expires_at: Option<Timestamp>,
    /// When a tool last had a token by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub used_at: Option<Timestamp>,
    /// Notices about it, each a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// `GET /v1/leases`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeasesReply {
    /// The oldest first.
    pub leases: Vec<Lease>,
    /// Why there may be more, if there may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Incomplete>,
    /// Where they are good.
    pub facade: FacadeReport,
}

/// The Keystone on loopback.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FacadeReport {
    /// Its address.
    pub url: String,
    /// Why it does not answer, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `DELETE /v1/leases/{id}`: what became of what the lease had.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevokeReply {
    /// The lease that was.
    pub lease: Lease,
    /// Tokens that Keystone has revoked.
    pub revoked: u32,
    /// Credentials that Keystone has deleted.
    pub deleted: u32,
    /// What Keystone still honours, and until when.
    pub not_revoked: Vec<NotRevoked>,
}

/// A failure (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:ksb:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: Code,
    /// What failed.
    pub detail: String,
    /// The command that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The cloud's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
    /// Keystone's request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Seconds after which the server wants to be asked again; so does the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self {
            kind: format!("urn:ksb:problem:{}", error.code.name()),
            status: error.status(),
            retry_after: error.upstream.and_then(|upstream| upstream.retry_after),
            code: error.code,
            detail: error.detail,
            remedy: error.remedy,
            cloud: error.cloud,
            request_id: error.request_id,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let upstream = Upstream { status: problem.status, retry_after: problem.retry_after };
        Self {
            upstream: (problem.status != problem.code.status()).then_some(upstream),
            code: problem.code,
            detail: problem.detail,
            remedy: problem.remedy,
            cloud: problem.cloud,
            request_id: problem.request_id,
        }
    }
}
