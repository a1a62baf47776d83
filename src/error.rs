//! What can go wrong: a closed set of codes, each with a detail and the command that helps.
//!
//! An `Error` is turned into text only in `listen/` (RFC 9457 problem documents) and `cli/`.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Shorthand of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Stable names of failures. Part of the API: a code may be added, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The request makes no sense to the broker.
    InvalidRequest,
    /// clouds.yaml, secure.yaml, config.toml or the environment cannot be used as they stand.
    InvalidConfig,
    /// No entry of that name.
    UnknownCloud,
    /// The entry comes from the current directory and names a cloud never used before.
    CloudNotTrusted,
    /// Nobody is signed in and this caller may not prompt.
    SignInNeeded,
    /// The caller has to bring the token of a workload: the agent runs no command.
    BearerNeeded,
    /// The last sign-in failed or was refused a moment ago; only an explicit `ksb login` tries again.
    SignInCoolingDown,
    /// The user did not finish in time.
    SignInTimedOut,
    /// The sign-in was called off.
    SignInCancelled,
    /// The callback's port is held by someone else.
    PortBusy,
    /// No such sign-in (any more).
    UnknownSignIn,
    /// The token that the browser brought is not one we asked for.
    TokenRefused,
    /// A password or code that a user typed is not the one, or was used before.
    FactorRefused,
    /// Keystone does not give this user that scope.
    ScopeRefused,
    /// Keystone cannot do this for such a user.
    ScopeUnsupported,
    /// Keystone cannot be reached.
    KeystoneUnreachable,
    /// Keystone's certificate, or ours, was not accepted.
    KeystoneTls,
    /// Keystone answered with an error of its own.
    KeystoneError,
    /// What answers at the auth URL is not a Keystone v3.
    NotKeystone,
    /// The identity provider cannot be reached.
    IdentityProviderUnreachable,
    /// The identity provider's certificate was not accepted.
    IdentityProviderTls,
    /// The identity provider answered with an error, or with something that cannot be used.
    IdentityProviderError,
    /// Keystone does not take the identity provider's token.
    BearerRefused,
    /// The vault wants its passphrase.
    VaultSealed,
    /// The vault's key cannot be had just now.
    VaultUnavailable,
    /// There can be no vault, or the one that there is is not for us.
    VaultUnusable,
    /// The settings of this machine, or the user's own, forbid it.
    NotAllowed,
    /// The user did not allow this program to have it, or could not be asked.
    ConfirmationRefused,
    /// No such lease (any more).
    UnknownLease,
    /// The cloud does not let this user make the credentials that a lease needs.
    CredentialsRefused,
    /// The facade's port is not ours.
    FacadeUnavailable,
    /// The peer is another user of this machine.
    ForeignPeer,
    /// The agent is locked.
    Locked,
    /// The agent makes room for a fresh one: ask again.
    AgentLeaving,
    /// There is no newer program to hand over to, or not now, or this process is not the agent's own.
    HandoverRefused,
    /// No agent answers, and none could be started.
    AgentUnavailable,
    /// A local file or socket failed.
    Io,
    /// A defect of ours.
    Internal,
}

impl Code {
    /// The HTTP status the API answers with.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::InvalidConfig => 400,
            Self::SignInNeeded | Self::BearerNeeded | Self::SignInCoolingDown => 401,
            Self::CloudNotTrusted
            | Self::ForeignPeer
            | Self::ScopeRefused
            | Self::BearerRefused
            | Self::CredentialsRefused
            | Self::ConfirmationRefused
            | Self::NotAllowed
            | Self::FactorRefused
            | Self::TokenRefused
            | Self::SignInCancelled => 403,
            Self::UnknownCloud | Self::UnknownLease | Self::UnknownSignIn => 404,
            Self::SignInTimedOut => 408,
            Self::PortBusy | Self::VaultUnusable | Self::HandoverRefused => 409,
            Self::VaultSealed | Self::Locked => 423,
            Self::ScopeUnsupported => 422,
            Self::Internal | Self::Io => 500,
            Self::KeystoneTls
            | Self::KeystoneError
            | Self::NotKeystone
            | Self::IdentityProviderTls
            | Self::IdentityProviderError => 502,
            Self::KeystoneUnreachable
            | Self::IdentityProviderUnreachable
            | Self::AgentLeaving
            | Self::AgentUnavailable
            | Self::FacadeUnavailable
            | Self::VaultUnavailable => 503,
        }
    }

    /// The code's name on the wire.
    pub fn name(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// The words of the operating system's error, without its number.
pub fn reason(error: &(impl fmt::Display + ?Sized)) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A failure: what, for which cloud, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Which of the known failures.
    pub code: Code,
    /// What failed, in a sentence without secrets.
    pub detail: String,
    /// The command or request that helps, where there is one.
    pub remedy: Option<String>,
    /// The cloud's label.
    pub cloud: Option<String>,
    /// Keystone's `x-openstack-request-id`, for the operator's grep.
    pub request_id: Option<String>,
    /// The answer of a server that cannot do it now, or not so.
    pub upstream: Option<Upstream>,
}

/// The status of a server's answer, which a caller may understand better than we do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    /// HTTP status: 400, 408, 429 or 5xx.
    pub status: u16,
    /// Seconds (`Retry-After`, RFC 9110 section 10.2.3).
    pub retry_after: Option<u32>,
}

impl Error {
    /// A failure with its detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), remedy: None, cloud: None, request_id: None, upstream: None }
    }

    /// An error of the operating system: what failed, and why.
    pub fn io(what: impl fmt::Display, error: &impl fmt::Display) -> Self {
        Self::new(Code::Io, format!("{what}: {}", reason(error)))
    }

    /// The HTTP status that stands for it: the server's own, where that says more than ours.
    pub fn status(&self) -> u16 {
        self.upstream.map_or(self.code.status(), |upstream| upstream.status)
    }

    /// Adds what helps.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Names the cloud, unless an inner layer already did.
    #[must_use]
    pub fn cloud(mut self, label: &str) -> Self {
        self.cloud.get_or_insert_with(|| label.to_owned());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cloud) = &self.cloud {
            write!(f, "{cloud}: ")?;
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}
