//! The contents of the vault: what outlives the agent's process.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Format;
use super::cloud::{StoredCloud, StoredProject, StoredScope, StoredUser};
use crate::model::{Evidence, Secret, Token};

/// The SHA-256 that sessions are kept by.
pub type StoredIdentity = [u8; 32];

/// All of it. JSON's keys are strings only, so that maps are lists of pairs.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VaultContents {
    /// The format's version.
    pub version: u32,
    /// Sessions that give tokens.
    pub sessions: Vec<(StoredIdentity, StoredSession)>,
    /// Sessions that Keystone honours no more.
    #[serde(alias = "lapsed")]
    pub revoked_sessions: Vec<(StoredIdentity, StoredSession)>,
    /// What is left to revoke of sessions that were logged out.
    pub revocations: Vec<StoredRevocation>,
    /// A vault before this one that cannot be opened.
    #[serde(alias = "lost")]
    pub lost_vault: Option<StoredLostVault>,
    /// Leases that give tokens.
    pub leases: Vec<StoredLease>,
    /// Leases that have ended, and left credentials to delete.
    #[serde(alias = "over")]
    pub ended_leases: Vec<StoredLease>,
    /// The user that each identity belongs to.
    #[serde(alias = "pins")]
    pub pinned_users: Vec<(StoredIdentity, StoredUser)>,
    /// The names of the entries that used a session.
    #[serde(alias = "labels")]
    pub cloud_names: Vec<(StoredIdentity, Vec<String>)>,
    /// When a program last had a sign-in opened.
    #[serde(alias = "begun")]
    pub last_prompts: Vec<(StoredIdentity, LastPrompt)>,
}

/// When a program last had a sign-in opened.
#[derive(Serialize, Deserialize)]
#[serde(from = "Prompts")]
pub struct LastPrompt(pub Timestamp);

/// Version 0 had all of the last hour.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompts {
    V0(Vec<Timestamp>),
    V1(Timestamp),
}

impl From<Prompts> for LastPrompt {
    fn from(read: Prompts) -> Self {
        Self(match read {
            Prompts::V0(all) => all.last().copied().unwrap_or_default(),
            Prompts::V1(last) => last,
        })
    }
}

impl Format for VaultContents {
    const VERSION: u32 = 1;
}

/// A session, without its scoped tokens.
#[derive(Serialize, Deserialize)]
pub struct StoredSession {
    /// Of the entry that it was made for.
    pub cloud: StoredCloud,
    /// The token that every scoped one is made from.
    pub unscoped: StoredToken,
    /// Keystone honours it no more.
    #[serde(alias = "dead")]
    pub token_revoked: bool,
    /// What renews it.
    #[serde(alias = "grant")]
    pub refresh_grant: Option<StoredRefreshGrant>,
    /// What the identity provider says of the sign-in.
    #[serde(alias = "evidence")]
    pub auth_context: Option<StoredAuthContext>,
    /// When the user signed in.
    pub signed_in_at: Timestamp,
    /// When the unscoped token was made.
    #[serde(alias = "made_at")]
    pub issued_at: Timestamp,
    /// When it is to be logged out.
    pub ends_at: Option<Timestamp>,
    /// Every token that was made from it.
    #[serde(alias = "minted")]
    pub issued_tokens: Vec<StoredIssuedToken>,
}

/// A [`Token`].
#[derive(Serialize, Deserialize)]
pub struct StoredToken {
    id: Secret,
    body: Box<RawValue>,
    expires_at: Timestamp,
    issued_at: Timestamp,
    user: StoredUser,
    methods: Vec<String>,
    federation: Option<(String, String)>,
    request_id: Option<String>,
}

/// A refresh token.
#[derive(Serialize, Deserialize)]
pub struct StoredRefreshGrant {
    /// As the provider gave it.
    pub refresh_token: Secret,
}

/// [`Evidence`].
#[derive(Serialize, Deserialize)]
pub struct StoredAuthContext {
    acr: Option<String>,
    #[serde(default)]
    amr: Vec<String>,
    auth_time: Option<Timestamp>,
}

/// A token that is to be revoked some day.
#[derive(Serialize, Deserialize)]
pub struct StoredIssuedToken {
    /// Its id.
    pub id: Secret,
    /// Its scope in words.
    pub scope: String,
    /// When it expires by itself.
    pub expires_at: Timestamp,
}

/// What is left of a session that was logged out.
#[derive(Serialize, Deserialize)]
pub struct StoredRevocation {
    /// The session's identity.
    pub identity: StoredIdentity,
    /// The session's cloud.
    pub cloud: StoredCloud,
    /// The session's user.
    pub user: StoredUser,
    /// Scoped tokens first.
    pub tokens: Vec<StoredIssuedToken>,
    /// The refresh token, unless it is revoked.
    #[serde(alias = "grant")]
    pub refresh_grant: Option<StoredRefreshGrant>,
}

/// A vault that can never be opened again.
#[derive(Serialize, Deserialize)]
pub struct StoredLostVault {
    /// Why.
    pub reason: String,
    /// When the last token in it expires.
    pub expires_at: Timestamp,
}

/// A lease, without the bodies of its tokens.
#[derive(Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the request")]
pub struct StoredLease {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// SHA-256 of its secret.
    #[serde(alias = "digest")]
    pub secret_digest: [u8; 32],
    /// Of the entry that it was made for.
    pub cloud: StoredCloud,
    /// Of the session that it uses.
    pub identity: StoredIdentity,
    /// Of its tokens.
    pub scope: StoredScope,
    /// Whether a sign-in may be opened for it.
    pub prompt: bool,
    /// Whether the browser is on another machine.
    pub remote: bool,
    /// The process that it ends with.
    pub process: Option<StoredProcess>,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it ends.
    pub ends_at: Option<Timestamp>,
    /// When it last gave a token.
    #[serde(alias = "used_at")]
    pub last_used_at: Option<Timestamp>,
    /// The owner of its tokens.
    pub user: Option<StoredUser>,
    /// Whether it goes on without the session.
    pub unattended: bool,
    /// Whether the user is asked before a program gets a token by it.
    #[serde(default)]
    pub confirm: bool,
    /// The project that it is confined to.
    pub confined: Option<StoredConfinement>,
    /// The access key of its EC2 credential.
    pub ec2: Option<String>,
    /// What its maker was told.
    pub notices: Vec<String>,
    /// Every token that was made for it.
    #[serde(alias = "minted")]
    pub issued_tokens: Vec<StoredIssuedToken>,
}

/// A process, told from a later one with the same number.
#[derive(Serialize, Deserialize)]
pub struct StoredProcess {
    /// Its id.
    pub pid: u32,
    /// When it began, in clock ticks after the boot.
    pub started: u64,
    /// The boot's id.
    pub boot: String,
}

/// A project, and the credentials that confine a lease to it.
#[derive(Serialize, Deserialize)]
pub struct StoredConfinement {
    /// The project.
    pub project: StoredProject,
    /// Unless they are deleted, or not made yet.
    pub credentials: Option<StoredCredentials>,
}

/// Two application credentials of Keystone's.
#[derive(Serialize, Deserialize)]
pub struct StoredCredentials {
    /// Their owner.
    pub user_id: String,
    /// What their names begin with.
    pub name: String,
    /// The secret of the restricted one.
    #[serde(alias = "worker")]
    pub restricted_secret: Secret,
    /// The secret of the unrestricted one, which deletes both.
    #[serde(alias = "reaper")]
    pub unrestricted_secret: Secret,
    /// When they expire.
    pub ends_at: Timestamp,
}

impl From<&Token> for StoredToken {
    fn from(token: &Token) -> Self {
        let Token { id, body, expires_at, issued_at, user, methods, federation, request_id } = token.clone();
        let user = user.into();
        Self { id, body, expires_at, issued_at, user, methods, federation, request_id }
    }
}

impl From<StoredToken> for Token {
    fn from(stored: StoredToken) -> Self {
        let StoredToken { id, body, expires_at, issued_at, user, methods, federation, request_id } = stored;
        let user = user.into();
        Self { id, body, expires_at, issued_at, user, methods, federation, request_id }
    }
}

impl From<Evidence> for StoredAuthContext {
    fn from(Evidence { acr, amr, auth_time }: Evidence) -> Self {
        Self { acr, amr, auth_time }
    }
}

impl From<StoredAuthContext> for Evidence {
    fn from(StoredAuthContext { acr, amr, auth_time }: StoredAuthContext) -> Self {
        Self { acr, amr, auth_time }
    }
}
