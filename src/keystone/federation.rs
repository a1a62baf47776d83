//! Keystone's bearer exchange, and what its refusals mean.
//!
//! Most clouds let people sign in through WebSSO; that the exchange works as well takes an operator who set up a second
//! location. So a refusal says which part is missing and what to ask for. What tells the cases apart was seen at
//! Apache 2.4 with mod_auth_openidc 2.4 before Keystone 30 (`tests/it/real/diagnosis.rs`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use super::{Keystone, own_words, wire};
use crate::error::{Code, Error, Result};
use crate::http_client::Answer;
use crate::model::{Secret, Token};

impl Keystone {
    /// `POST …/identity_providers/{idp}/protocols/{protocol}/auth`: an unscoped token for a token of the identity
    /// provider (OS-FEDERATION, "Request an unscoped OS-FEDERATION token").
    pub async fn federated(&self, bearer: &Secret) -> Result<Token> {
        let url = self.bearer_url()?;
        let answer = self.show(&url, bearer).await?;
        match answer.status {
            201 => {
                let id = self.subject(&answer)?;
                self.token(id, answer)
            }
            // Keystone knows no such identity provider or protocol, and says which.
            404 if own_words(&answer).is_some() => {
                let remedy = "correct identity_provider and protocol of the entry: ksb clouds show";
                Err(self
                    .refusal(&answer, Code::BearerRefused)
                    .remedy(format!("{remedy} {}", self.cloud.argument())))
            }
            404 | 408 | 429 | 500.. => Err(self.refusal(&answer, Code::KeystoneError)),
            _ => Err(self.diagnosed(&url, &answer, bearer).await),
        }
    }

    /// Whether anybody looks at tokens at the address of the exchange: what is shown there is none. Whether this cloud's
    /// are taken, a sign-in alone tells.
    pub async fn bearer_door(&self) -> Result<()> {
        let (url, none) = (self.bearer_url()?, Secret::new("ksb-doctor"));
        let answer = self.show(&url, &none).await?;
        if answer.status >= 500 {
            return Err(self.refusal(&answer, Code::KeystoneError));
        }
        match (Speaker::of(&answer), self.asked_by_nobody(&url).await) {
            (Speaker::Module(_), _) | (Speaker::Nobody, Some(Speaker::Module(_))) => Ok(()),
            (Speaker::Keystone(_), first) if !matches!(first, Some(Speaker::Keystone(_))) => Ok(()),
            _ => Err(self.diagnosed(&url, &answer, &none).await),
        }
    }

    fn bearer_url(&self) -> Result<Url> {
        let Some(idp) = &self.cloud.identity_provider else {
            let why = "this way to sign in needs the name that Keystone has for the identity provider";
            return Err(self
                .error(Code::InvalidConfig, why.into())
                .remedy("add `identity_provider` under `auth`"));
        };
        self.url("OS-FEDERATION/identity_providers", &[idp, "protocols", &self.cloud.protocol, "auth"])
    }

    async fn show(&self, url: &Url, bearer: &Secret) -> Result<Answer> {
        let request = self.client.request(Method::POST, url.clone()).header("Accept", "application/json");
        self.send(request.bearer_auth(bearer.expose())).await
    }

    /// What a refusal means, and what to ask the operator for.
    async fn diagnosed(&self, url: &Url, answer: &Answer, bearer: &Secret) -> Error {
        let (path, client, token) = (url.path(), self.cloud.client_id(), Described::of(bearer));
        let speaker = Speaker::of(answer);
        // The same question without a token: whoever answers it, stands before the one who refused.
        let first = match speaker {
            Speaker::Keystone(_) | Speaker::Nobody => self.asked_by_nobody(url).await,
            Speaker::Module(_) | Speaker::Redirect => None,
        };
        let open = format!("ask the operator to take bearer tokens of client {client} at {path}");
        let (why, wanted) = match (speaker, first) {
            // "Incoming identity provider identifier not included among the accepted identifiers": Keystone says so with
            // `insecure_debug` alone.
            (Speaker::Keystone(said), _) if answer.status == 403 => (
                format!("it does not know its issuer here: {said}"),
                format!(
                    "ask the operator whether {} is among the remote ids of identity provider {}",
                    token.issuer(),
                    self.cloud.identity_provider.as_deref().unwrap_or("?"),
                ),
            ),
            (Speaker::Keystone(said), Some(Speaker::Keystone(_))) => {
                (format!("nothing before Keystone looks at tokens there: {said}"), open)
            }
            (Speaker::Keystone(said), _) if answer.status != 401 => {
                (said, "give the operator Keystone's request id".to_owned())
            }
            (Speaker::Keystone(said), _) => (
                format!("it is genuine, but no rule of Keystone's mapping fits the user: {said}"),
                format!(
                    "ask the operator which claims the mapping behind {path} needs, and whether tokens of client \
                     {client} have them"
                ),
            ),
            (Speaker::Module(said), _) if said.contains("introspect") => (
                format!("the cloud asked the identity provider about it and got no yes: {said}"),
                format!(
                    "ask the operator to set up token introspection for {path} (endpoint, client, secret), and whether \
                     tokens of client {client} can be introspected"
                ),
            ),
            (Speaker::Module(said), _) if said.contains("invalid_token") => (
                format!("the cloud cannot verify it: {said}"),
                format!(
                    "ask the operator to have tokens of {} verified at {path}, by its keys or by introspection",
                    token.issuer(),
                ),
            ),
            (Speaker::Redirect, _) | (Speaker::Nobody, Some(Speaker::Redirect)) => {
                ("its address serves browsers alone: WebSSO works there, a token does not".into(), open)
            }
            (Speaker::Module(_), _) | (Speaker::Nobody, Some(Speaker::Module(_))) => (
                format!("its audience or another claim is not what the cloud wants; {token}"),
                format!(
                    "ask the operator to take tokens of client {client} at {path}, or to have the identity provider add \
                     the audience that is wanted there"
                ),
            ),
            (Speaker::Nobody, _) => {
                (format!("the web server before Keystone answered {}", answer.status), open)
            }
        };
        let why = format!("Keystone does not take the identity provider's token: {why}");
        let mut error = self.error(Code::BearerRefused, why);
        error.request_id = answer.header("x-openstack-request-id").map(str::to_owned);
        error.remedy(format!("{wanted}; until then: sign_in: websso"))
    }

    /// Who answers at the address when a browser comes without any token.
    async fn asked_by_nobody(&self, url: &Url) -> Option<Speaker> {
        // By this header mod_auth_openidc knows whom it can send to a page.
        let request = self.client.request(Method::GET, url.clone()).header("Accept", "text/html");
        self.send(request).await.ok().map(|answer| Speaker::of(&answer))
    }
}

/// Who speaks in an answer that is no token.
enum Speaker {
    /// Keystone itself, in these words.
    Keystone(String),
    /// Whoever checks bearer tokens before it (RFC 6750 section 3), in these words.
    Module(String),
    /// Somebody who wants to see a browser at the identity provider.
    Redirect,
    /// Nobody in particular.
    Nobody,
}

impl Speaker {
    fn of(answer: &Answer) -> Self {
        if let Ok(refusal) = serde_json::from_str::<wire::Refusal>(&answer.body) {
            let said = refusal.error.message.trim().trim_end_matches('.').to_owned();
            return Self::Keystone(format!("{} {said}", answer.status));
        }
        match answer.header("www-authenticate").and_then(|said| said.strip_prefix("Bearer ")) {
            Some(said) => Self::Module(said.to_owned()),
            None if (300..400).contains(&answer.status) => Self::Redirect,
            None => Self::Nobody,
        }
    }
}

/// What a JWT says of itself (RFC 9068). An access token need not be one; none of this is believed, only shown.
#[derive(Default, Deserialize)]
struct Described {
    iss: Option<String>,
    aud: Option<Audience>,
    azp: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Described {
    fn of(bearer: &Secret) -> Self {
        let claims = bearer.expose().split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default()
    }

    fn issuer(&self) -> &str {
        self.iss.as_deref().unwrap_or("the identity provider")
    }
}

impl std::fmt::Display for Described {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let audience = match &self.aud {
            Some(Audience::One(one)) => one.clone(),
            Some(Audience::Many(many)) => many.join(", "),
            None => "nobody".to_owned(),
        };
        write!(f, "the token is for {audience}")?;
        match &self.azp {
            Some(party) => write!(f, ", asked for by {party}"),
            None => Ok(()),
        }
    }
}
