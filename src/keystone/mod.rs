//! The Identity API v3 as a client: discovery, validation, scoping, what can be reached, revocation.

mod credentials;
mod federation;
mod password;
mod wire;

use std::time::Duration;

use axum::body::Bytes;
use axum::http;
use jiff::{SignedDuration, Unit};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use url::Url;

use crate::api::Reach;
use crate::error::{Code, Error, Result, Upstream};
use crate::http_client::{self, Answer, Client, Outbound, Peer};
use crate::model::{Cloud, Scope, Secret, Token, Way};
use crate::time::SharedClock;

pub use credentials::{Listed, NO_LIFETIME};
pub use password::{Proof, Receipt};

/// A rest that a caller does not notice; longer ones are its own to take.
const SHORT_REST: SignedDuration = SignedDuration::from_secs(5);
const SHORT_RESTS: u32 = 2;

/// A cloud's Keystone.
#[derive(Clone)]
pub struct Keystone {
    cloud: Cloud,
    client: Client,
    root: String,
    clock: SharedClock,
}

/// What Keystone's version document and its envelope say.
pub struct Met {
    /// The API's version, such as `v3.14`.
    pub version: String,
    /// How far its clock is before ours, if it says.
    pub ahead: Option<SignedDuration>,
    /// `x-openstack-request-id`.
    pub request_id: Option<String>,
}

/// What Keystone said of a token that was held up to it.
pub enum Verdict {
    /// It is good.
    Valid(Box<Token>),
    /// It is not (any more).
    Invalid,
}

impl Keystone {
    /// The Keystone of `cloud`; sends nothing yet.
    pub fn of(cloud: &Cloud, outbound: &Outbound, clock: SharedClock) -> Result<Self> {
        Ok(Self { client: outbound.client(cloud)?, root: cloud.keystone_root(), cloud: cloud.clone(), clock })
    }

    /// Asks for the version document. Fails when no Keystone v3 answers.
    pub async fn discover(&self) -> Result<Met> {
        let answer = self.send(self.request(Method::GET, "")).await?;
        if answer.status >= 500 {
            return Err(self.refusal(&answer, Code::KeystoneError));
        }
        let document = serde_json::from_str::<wire::VersionDocument>(&answer.body).ok();
        let document =
            document.filter(|document| answer.status == 200 && document.version.id.starts_with("v3"));
        let Some(document) = document else {
            let url = format!("{}/v3", self.root);
            let via = http_client::via(&self.cloud);
            let why = format!("{url} is not a Keystone v3 (HTTP {}){via}", answer.status);
            let mut remedy = format!("correct auth_url: ksb clouds show {}", self.cloud.argument());
            if self.cloud.proxy.is_some() {
                remedy = format!("{remedy}; or {}", http_client::around(Some(&self.cloud.auth_url)));
            }
            return Err(self.error(Code::NotKeystone, why).remedy(remedy));
        };
        Ok(Met {
            version: document.version.id,
            ahead: self.ahead(&answer),
            request_id: answer.header("x-openstack-request-id").map(str::to_owned),
        })
    }

    /// The address that starts a WebSSO sign-in. Keystone compares `origin` with its
    /// `trusted_dashboard` list byte for byte.
    pub fn websso_url(&self, origin: &str) -> Result<Url> {
        let protocol = &self.cloud.protocol;
        let mut url = match &self.cloud.identity_provider {
            Some(idp) => {
                self.url("auth/OS-FEDERATION/identity_providers", &[idp, "protocols", protocol, "websso"])
            }
            None => self.url("auth/OS-FEDERATION/websso", &[protocol]),
        }?;
        url.query_pairs_mut().append_pair("origin", origin);
        Ok(url)
    }

    /// Who takes a browser in at [`Self::websso_url`], in words. What Keystone itself would say there is known only after
    /// a sign-in.
    pub async fn websso_door(&self, origin: &str) -> Result<String> {
        // By this header mod_auth_openidc knows whom it can send to a page.
        let request = self.client.get(self.websso_url(origin)?).header("Accept", "text/html");
        let answer = self.send(request).await?;
        let goes_to = answer.header("location").and_then(|address| Url::parse(address).ok());
        match (answer.status, goes_to.as_ref().and_then(Url::host_str)) {
            (300..400, Some(host)) => Ok(format!("a browser is sent to {host}")),
            (200..400, _) => Ok("a browser is shown a page".into()),
            (404, _) => Err(self.refusal(&answer, Code::KeystoneError).remedy(format!(
                "correct identity_provider and protocol: ksb clouds show {}",
                self.cloud.argument()
            ))),
            (500.., _) => Err(self.refusal(&answer, Code::KeystoneError)),
            _ => {
                let address = self.websso_url(origin)?;
                Err(self.refusal(&answer, Code::KeystoneError).remedy(format!(
                    "ask the operator to have the web server send browsers to the identity provider at {}",
                    address.path()
                )))
            }
        }
    }

    /// `GET /v3/auth/tokens`: holds a token up to Keystone, in its own name.
    pub async fn validate(&self, id: &Secret) -> Result<Verdict> {
        let request = self.request(Method::GET, "/auth/tokens").header("X-Subject-Token", id.expose());
        let answer = self.send_patiently(authenticated(request, id)).await?;
        match answer.status {
            200 => Ok(Verdict::Valid(Box::new(self.token(id.clone(), answer)?))),
            401 | 404 if own_words(&answer).is_some() => Ok(Verdict::Invalid),
            _ => Err(self.refusal(&answer, Code::KeystoneError)),
        }
    }

    /// `POST /v3/auth/tokens` with the method `token`. Rescoping never extends a life, and a federated
    /// token is always rescoped from the unscoped one.
    pub async fn rescope(&self, from: &Token, scope: &Scope) -> Result<Token> {
        let body = json!({"auth": {
            "identity": {"methods": ["token"], "token": {"id": from.id.expose()}},
            "scope": scope,
        }});
        let request = self.request(Method::POST, "/auth/tokens").header("Content-Type", "application/json");
        let answer = self.send_patiently(request.body(body.to_string())).await?;
        match answer.status {
            201 => {
                let id = self.subject(&answer)?;
                self.token(id, answer)
            }
            // Keystone 30 crashes on a federated user's system scope (AttributeError), and the server before it may answer.
            500.. if matches!(scope, Scope::System { .. }) => {
                let refusal = self.refusal(&answer, Code::ScopeUnsupported);
                Err(Error { code: Code::ScopeUnsupported, upstream: None, ..refusal }
                    .remedy("system scope needs a local Keystone user; ask the operator for one"))
            }
            401 | 403 | 404 if own_words(&answer).is_some() => {
                let mut error = self.refusal(&answer, Code::ScopeRefused);
                error.detail = format!(
                    "no token for {scope}: {} has no role there, or it does not exist ({})",
                    from.user.name, error.detail
                );
                let cloud = self.cloud.argument();
                let remedy = format!("ksb projects {cloud}");
                // A federated token holds the groups of its sign-in.
                let is_federated = self.cloud.sign_in.way != Way::Password;
                let refresh = format!(
                    "; if your groups or roles have changed since you signed in: ksb refresh {cloud}"
                );
                Err(error.remedy(if is_federated { remedy + &refresh } else { remedy }))
            }
            _ => Err(self.refusal(&answer, Code::KeystoneError)),
        }
    }

    /// `GET /v3/auth/projects`.
    pub async fn projects(&self, token: &Token) -> Result<Vec<Reach>> {
        Ok(self.get_json::<wire::Projects>(token, "/auth/projects").await?.projects)
    }

    /// `GET /v3/auth/domains`.
    pub async fn domains(&self, token: &Token) -> Result<Vec<Reach>> {
        Ok(self.get_json::<wire::Domains>(token, "/auth/domains").await?.domains)
    }

    async fn get_json<T: serde::de::DeserializeOwned>(&self, token: &Token, path: &str) -> Result<T> {
        let answer = self.send(authenticated(self.request(Method::GET, path), &token.id)).await?;
        if answer.status != 200 {
            return Err(self.refusal(&answer, Code::KeystoneError));
        }
        serde_json::from_str(&answer.body)
            .map_err(|error| self.error(Code::NotKeystone, format!("GET /v3{path}: {error}")))
    }

    /// `DELETE /v3/auth/tokens`. A token that is not valid any more counts as revoked.
    pub async fn revoke(&self, id: &Secret) -> Result<()> {
        let request = self
            .request(Method::DELETE, "/auth/tokens")
            .header("X-Subject-Token", id.expose())
            .timeout(Duration::from_secs(10));
        let answer = self.send(authenticated(request, id)).await?;
        match answer.status {
            204 => Ok(()),
            401 | 404 if own_words(&answer).is_some() => Ok(()),
            _ => Err(self.refusal(&answer, Code::KeystoneError)),
        }
    }

    /// The address below which `/v3` lies.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Somebody else's request, and Keystone's answer as it streams.
    pub async fn pass_on(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<http::Response<reqwest::Body>> {
        let request = self.client.request(method, url).headers(headers).body(body);
        http_client::pass_on(&self.cloud, Peer::Keystone, request).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/v3{path}", self.root);
        self.client.request(method, url).header("Accept", "application/json")
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        http_client::send(&self.cloud, Peer::Keystone, request).await
    }

    /// The same for a request for a token: if Keystone is too busy and says for how long, and that is short, it is asked
    /// again then.
    async fn send_patiently(&self, request: RequestBuilder) -> Result<Answer> {
        for _ in 0..SHORT_RESTS {
            let Some(first) = request.try_clone() else { break };
            let answer = self.send(first).await?;
            let now = self.clock.now();
            match answer.retry_after(now) {
                Some(rest) if rest <= SHORT_REST => self.clock.sleep_until(now + rest).await,
                _ => return Ok(answer),
            }
        }
        self.send(request).await
    }

    /// `{auth_url}/v3/{path}/…`, with segments that come from the entry.
    fn url(&self, path: &str, segments: &[&str]) -> Result<Url> {
        let mut url = Url::parse(&format!("{}/v3/{path}", self.root))
            .map_err(|error| self.error(Code::InvalidConfig, format!("auth_url: {error}")))?;
        url.path_segments_mut()
            .map_err(|()| self.error(Code::InvalidConfig, "auth_url is not an http(s) address".into()))?
            .extend(segments);
        Ok(url)
    }

    fn subject(&self, answer: &Answer) -> Result<Secret> {
        answer.header("x-subject-token").map(Secret::new).ok_or_else(|| {
            let why = "the answer to a token request has no X-Subject-Token";
            self.error(Code::NotKeystone, why.into())
        })
    }

    /// Keystone's times are read against the `Date` of the answer that they came in (whole seconds,
    /// RFC 9110 section 6.6.1): where its clock is wrong, or ours, tokens are still served for as long as they live.
    fn token(&self, id: Secret, answer: Answer) -> Result<Token> {
        let ahead = self.ahead(&answer).unwrap_or_default();
        let request_id = answer.header("x-openstack-request-id").map(str::to_owned);
        wire::token(id, answer.body, ahead.round(Unit::Second).unwrap_or(ahead))
            .map(|token| Token { request_id, ..token })
            .map_err(|error| self.error(Code::NotKeystone, format!("the answer is not a token: {error}")))
    }

    fn ahead(&self, answer: &Answer) -> Option<SignedDuration> {
        Some(answer.date()?.duration_since(self.clock.now()))
    }

    fn error(&self, code: Code, detail: String) -> Error {
        Error::new(code, detail).cloud(self.cloud.label())
    }

    /// Keystone's refusal in its own words, with its request id; or that it is not Keystone's.
    fn refusal(&self, answer: &Answer, code: Code) -> Error {
        let Some(message) = own_words(answer) else { return self.not_keystone(answer) };
        let detail = format!("Keystone answered {}: {}", answer.status, message.trim().trim_end_matches('.'));
        let mut error = self.error(code, detail);
        error.request_id = answer.header("x-openstack-request-id").map(str::to_owned);
        if code == Code::KeystoneError {
            self.pass_through(answer, &mut error);
        }
        error
    }

    /// The failure that another server answered in Keystone's place, such as a balancer while Keystone is rolled out.
    fn not_keystone(&self, answer: &Answer) -> Error {
        let title = answer.title().map_or(String::new(), |title| format!(" ({title})"));
        let via = http_client::via(&self.cloud);
        let code = match answer.status {
            408 | 429 | 500.. => Code::KeystoneError,
            _ => Code::NotKeystone,
        };
        let detail =
            format!("{}/v3 answered {}{title}, and not as Keystone does{via}", self.root, answer.status);
        let mut error =
            self.error(code, detail).remedy("try again; if it stays so, ask the cloud's operator");
        self.pass_through(answer, &mut error);
        error
    }

    /// Hands on a status that a caller may understand, and when Keystone wants to be asked again.
    fn pass_through(&self, answer: &Answer, error: &mut Error) {
        if !matches!(answer.status, 400 | 408 | 429 | 500..) {
            return;
        }
        let rest = answer.retry_after(self.clock.now());
        let retry_after = rest.map(|rest| u32::try_from(rest.as_secs()).unwrap_or_default());
        error.upstream = Some(Upstream { status: answer.status, retry_after });
        if let Some(seconds) = retry_after {
            error.remedy = Some(format!("try again in {seconds} s"));
        }
    }
}

/// Keystone's own message to a refused request: its error document, with the status that it came with (Identity API v3,
/// "Errors"). Anything else may be a balancer's, a proxy's or a login page's answer.
fn own_words(answer: &Answer) -> Option<String> {
    let wire::Refusal { error } = serde_json::from_str(&answer.body).ok()?;
    (error.code == answer.status).then_some(error.message)
}

/// The header's value is marked sensitive: HTTP libraries then keep it out of their logs.
fn authenticated(request: RequestBuilder, id: &Secret) -> RequestBuilder {
    match reqwest::header::HeaderValue::from_str(id.expose()) {
        Ok(mut value) => {
            value.set_sensitive(true);
            request.header("X-Auth-Token", value)
        }
        // reqwest keeps the error and `send` returns it.
        Err(_) => request.header("X-Auth-Token", "\n"),
    }
}
