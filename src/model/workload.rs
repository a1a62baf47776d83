//! How a workload says who it is: a program that runs without a user.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use super::{Bearer, Secret, address};

/// Where a workload's token comes from. The agent starts no program and reads no environment of its callers: what only
/// the caller can know, it sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// A file that the agent reads for each sign-in, as whoever writes it renews it.
    File {
        /// Absolute.
        #[schema(value_type = String)]
        path: PathBuf,
    },
    /// A token that the caller has: of the entry (`access_token`) or of a variable of its environment.
    Token {
        /// Where the caller has it from, for messages.
        from: String,
        /// The token.
        token: Secret,
    },
    /// What a command prints. The caller runs it, and only when the agent asks for it (`bearer-needed`).
    Command {
        /// As the entry has it.
        command: String,
        /// Seconds that it may take.
        #[serde(default = "command_limit")]
        limit: u64,
        /// What it printed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Secret>,
    },
    /// The ID token that GitHub Actions gives a job.
    Github {
        /// `ACTIONS_ID_TOKEN_REQUEST_URL` of the job.
        #[schema(value_type = String, format = "uri")]
        url: Url,
        /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN` of the job.
        request_token: Secret,
        /// For whom the token is; GitHub's own choice is the repository's owner.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// The proxy that the caller's environment names for `url`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proxy: Option<String>,
    },
    /// OAuth's client credentials grant (RFC 6749 section 4.4): the client signs itself in.
    Client(ClientCredentials),
}

/// A client that signs itself in, in the option names of keystoneauth's `v3oidcclientcredentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientCredentials {
    /// Where tokens are given out (`access_token_endpoint`).
    #[serde(default, deserialize_with = "address::optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uri")]
    pub token_endpoint: Option<Url>,
    /// The provider's metadata, which name that address.
    #[serde(default, deserialize_with = "address::optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uri")]
    pub discovery_endpoint: Option<Url>,
    /// The client's name at the provider.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// Scopes to ask for (`openid_scope`), separated by spaces.
    #[serde(default = "super::openid_scope")]
    pub scope: String,
    /// Which of the provider's tokens Keystone takes.
    #[serde(default)]
    pub bearer: Bearer,
    /// The proxy that the caller's environment names for the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// What a command may take where the entry does not say.
pub fn command_limit() -> u64 {
    30
}

impl Workload {
    /// How messages call the source.
    pub fn source(&self) -> String {
        match self {
            Self::File { path } => path.display().to_string(),
            Self::Token { from, .. } => from.clone(),
            Self::Command { command, .. } => format!("the command `{command}`"),
            Self::Github { .. } => "GitHub Actions".into(),
            Self::Client(client) => format!("client {}", client.client_id),
        }
    }

    /// Whether the agent can fetch the next token without a caller.
    pub fn renews(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Github { .. } | Self::Client(_))
    }

    /// What tells this workload from another one of the same cloud.
    pub(super) fn tell_apart(&self, part: &mut impl FnMut(&str)) {
        match self {
            Self::File { path } => part(&path.to_string_lossy()),
            Self::Token { token, .. } => match subject(token) {
                // Its next token is another one and yet the same workload.
                Some(Claims { iss, sub }) => {
                    part(&iss);
                    part(&sub);
                }
                None => part(token.expose()),
            },
            Self::Command { command, .. } => part(command),
            // Each job has its own: the next one of the same runner may be anybody's.
            Self::Github { request_token, audience, .. } => {
                part(request_token.expose());
                part(audience.as_deref().unwrap_or(""));
            }
            Self::Client(client) => {
                let endpoint = client.token_endpoint.as_ref().or(client.discovery_endpoint.as_ref());
                part(endpoint.map_or("", Url::as_str));
                part(&client.client_id);
                part(&client.scope);
            }
        }
    }

    pub(super) fn forget_proof(&mut self) {
        match self {
            Self::File { .. } => {}
            Self::Token { token, .. } => *token = Secret::new(""),
            Self::Command { token, .. } => *token = None,
            Self::Github { request_token, .. } => *request_token = Secret::new(""),
            Self::Client(client) => client.client_secret = Secret::new(""),
        }
    }

    pub(super) fn carries_secret(&self) -> bool {
        !matches!(self, Self::File { .. } | Self::Command { token: None, .. })
    }
}

/// Whom a JWT speaks of (RFC 7519 section 4.1).
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
}

/// Not verified: it only tells sessions apart.
fn subject(token: &Secret) -> Option<Claims> {
    let mut parts = token.expose().split('.').skip(1);
    let claims = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
    parts.next()?;
    serde_json::from_slice(&claims).ok()
}

#[cfg(test)]
mod tests {
    use super::super::SignInOptions;

    #[test]
    fn a_session_keeps_nothing_of_what_it_was_proved_with() {
        for proof in [
            r#"{"workload": {"token": {"from": "$T", "token": "canary"}}}"#,
            r#"{"workload": {"command": {"command": "mint", "token": "canary"}}}"#,
            r#"{"workload": {"github": {"url": "https://gh.example/", "request_token": "canary"}}}"#,
            r#"{"workload": {"client": {"client_id": "ci", "client_secret": "canary"}}}"#,
            r#"{"password": {"user": {"id": "u"}, "password": "canary"}}"#,
        ] {
            let options: SignInOptions = serde_json::from_str(proof).unwrap();
            assert!(options.carries_secret(), "{proof}");
            assert!(!format!("{options:?}").contains("canary"), "{proof}");
            let kept = serde_json::to_string(&options.without_proof()).unwrap();
            assert!(!kept.contains("canary"), "{kept}");
        }
    }
}
