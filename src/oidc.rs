//! The identity provider as an OpenID Connect client sees it: discovery, authorization request, tokens, revocation.
//!
//! The protocol is openidconnect's work; what is ours is whom it may talk to (`outbound`) and what is said of a failure.

mod error_remedies;
mod id_token;
mod response_hints;

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod,
    CoreDeviceAuthorizationResponse, CoreErrorResponseType, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
    CoreRevocableToken, CoreSubjectIdentifierType, CoreTokenResponse,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthType, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    DeviceAuthorizationUrl, DeviceCodeErrorResponse, DeviceCodeErrorResponseType, DiscoveryError,
    EndSessionUrl, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl,
    LogoutRequest, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata,
    RedirectUrl, RefreshToken, RequestTokenError, RevocationUrl, Scope, StandardErrorResponse,
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use url::Url;

use self::response_hints::Heard;
use crate::error::{Code, Error, Result};
use crate::http_client::{self, Answer, Client, Outbound, Peer};
use crate::model::{AuthMethod, Bearer, Cloud, Evidence, OidcClient, Secret, random_hex};
use crate::time::SharedClock;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// How slowly a provider in trouble is asked about a device at most.
const LONGEST_DEVICE_PAUSE: Duration = Duration::from_mins(1);

/// An OpenID provider and our client there.
#[derive(Clone)]
pub struct Provider {
    /// The cloud, by the provider's proxy.
    at: Cloud,
    http: Client,
    client: OidcClient,
    metadata: Metadata,
    clock: SharedClock,
    heard: Heard,
}

/// An authorization request and what its answer is checked with.
pub struct Authorization {
    /// Where the browser is sent.
    pub url: Url,
    redirect_uri: String,
    state: Secret,
    nonce: Nonce,
    verifier: Secret,
}

/// What the provider sent back with the browser (RFC 6749 section 4.1.2, RFC 9207).
#[derive(Deserialize)]
pub struct AuthorizationResponse {
    /// The authorization code.
    pub code: Option<Secret>,
    /// Our own value again.
    pub state: Option<Secret>,
    /// Who answers.
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
    /// The same for people.
    pub error_description: Option<String>,
}

/// A device authorization that waits for its user (RFC 8628 section 3.2).
pub struct Device {
    /// Where the user approves; holds the code where the provider has such an address.
    pub url: String,
    /// What the page there shows or asks for.
    pub user_code: String,
    details: CoreDeviceAuthorizationResponse,
    verifier: Secret,
}

/// The outcome of a refresh.
pub enum Refreshed {
    /// New tokens.
    Granted(Box<Granted>),
    /// The provider does not honour it any more, and says so in these words.
    Ended(Error),
}

/// What the token endpoint gave.
pub struct Granted {
    /// The token that Keystone takes.
    pub bearer: Secret,
    /// What renews it, where there is one.
    pub refresh_token: Option<Secret>,
    /// What the ID token says of the sign-in, where there is one.
    pub evidence: Option<Evidence>,
}

/// What the metadata says beyond OpenID Connect Discovery.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct More {
    /// RFC 8414.
    revocation_endpoint: Option<RevocationUrl>,
    /// OpenID Connect RP-Initiated Logout 1.0, section 2.1.
    end_session_endpoint: Option<EndSessionUrl>,
    /// RFC 8628 section 4.
    device_authorization_endpoint: Option<DeviceAuthorizationUrl>,
    /// RFC 9207.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

type Configured = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

type TokenError = RequestTokenError<Error, StandardErrorResponse<CoreErrorResponseType>>;

impl Authorization {
    /// Where the browser comes back to.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }
}

impl Provider {
    /// Reads the provider's metadata and keys.
    pub async fn discover(
        cloud: &Cloud,
        client: &OidcClient,
        outbound: &Outbound,
        clock: SharedClock,
    ) -> Result<Self> {
        let at = Cloud { proxy: client.proxy.clone(), ..cloud.clone() };
        let http = outbound.client(&at)?;
        let issuer = client.discovery_endpoint.as_str().strip_suffix(WELL_KNOWN).ok_or_else(|| {
            let why = format!("discovery_endpoint does not end in {WELL_KNOWN}");
            Error::new(Code::InvalidConfig, why)
                .cloud(cloud.label())
                .remedy(format!("correct it: ksb clouds show {}", cloud.argument()))
        })?;
        let issuer = IssuerUrl::new(issuer.to_owned())
            .map_err(|error| Error::new(Code::InvalidConfig, format!("discovery_endpoint: {error}")))?;
        let heard = Heard::default();
        let http_for = caller(&at, &http, &heard, &clock);
        let not_metadata = |why: String| {
            let error = failed(&at, format!("its metadata: {why}{}", http_client::via(&at)));
            match at.proxy {
                Some(_) => error.remedy(http_client::around(Some(&client.discovery_endpoint))),
                None => error,
            }
        };
        let metadata = Metadata::discover_async(issuer, &http_for).await.map_err(|error| match error {
            DiscoveryError::Request(error) => error,
            DiscoveryError::Response(status, ..) => not_metadata(format!("HTTP {}", status.as_u16())),
            other => not_metadata(other.to_string()),
        })?;
        Ok(Self { http, client: client.clone(), metadata, clock, heard, at })
    }

    /// How far its clock is before ours, where its answers say.
    pub fn ahead(&self) -> Option<SignedDuration> {
        self.heard.ahead(None, self.clock.now())
    }

    /// A request for a code that comes back to `redirect_uri`, with PKCE (RFC 7636), `state` and `nonce`.
    pub fn authorization(&self, redirect_uri: String) -> Result<Authorization> {
        let client = self.configured().set_redirect_uri(self.redirect(&redirect_uri)?);
        let (verifier, challenge) = pkce();
        let (state, nonce) = (Secret::random(), Nonce::new(random_hex::<32>()));
        let (csrf, once) = (CsrfToken::new(state.expose().to_owned()), nonce.clone());
        let mut request = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, || csrf, || once)
            .set_pkce_challenge(challenge)
            .add_scopes(self.scopes());
        if let Some(age) = self.client.require.max_auth_age {
            request = request.set_max_age(Duration::from_secs(age));
        }
        for (name, value) in &self.client.extra {
            request = request.add_extra_param(name, value);
        }
        let (url, ..) = request.url();
        Ok(Authorization { url, redirect_uri, state, nonce, verifier })
    }

    /// Takes the browser's answer apart and exchanges the code (RFC 6749 section 4.1.3). The ID token is verified
    /// (OpenID Connect Core 1.0, section 3.1.3.7).
    pub async fn exchange(&self, sent: &Authorization, answer: AuthorizationResponse) -> Result<Granted> {
        let same = |state: Secret| state.expose().as_bytes().ct_eq(sent.state.expose().as_bytes()).into();
        let ours = answer.state.is_some_and(same);
        if !ours {
            return Err(self.refused("it does not answer this sign-in"));
        }
        let issuer = self.metadata.issuer().as_str();
        let must_say = self.metadata.additional_metadata().authorization_response_iss_parameter_supported;
        match answer.iss.as_deref() {
            Some(iss) if iss != issuer => return Err(self.refused(&format!("it comes from {iss}"))),
            None if must_say => {
                return Err(self.refused("it does not say which identity provider it comes from"));
            }
            _ => {}
        }
        if let Some(error) = answer.error {
            return Err(self.refusal(&error, answer.error_description.as_deref()));
        }
        let code = answer.code.ok_or_else(|| self.refused("there is no code in it"))?;
        let client = self.configured().set_redirect_uri(self.redirect(&sent.redirect_uri)?);
        let request = client
            .exchange_code(AuthorizationCode::new(code.expose().to_owned()))
            .map_err(|_| failed(&self.at, "its metadata names no token endpoint"))?
            .set_pkce_verifier(PkceCodeVerifier::new(sent.verifier.expose().to_owned()));
        let response =
            request.request_async(&self.caller()).await.map_err(|error| self.token_error(error))?;
        self.granted(&response, Some(&sent.nonce))
    }

    /// Asks for a code that a user approves on any device, with PKCE for those who take it there too.
    pub async fn device(&self) -> Result<Device> {
        let url = self.metadata.additional_metadata().device_authorization_endpoint.clone();
        let url = url.ok_or_else(|| {
            failed(&self.at, "its metadata names no device authorization endpoint")
                .remedy("use sign_in: oidc_code, or ask the operator for the device authorization grant")
        })?;
        let client = self.configured().set_device_authorization_url(url);
        let (verifier, challenge) = pkce();
        let mut request = client
            .exchange_device_code()
            .add_extra_param("code_challenge", challenge.as_str().to_owned())
            .add_extra_param("code_challenge_method", "S256");
        for scope in self.scopes() {
            request = request.add_scope(scope);
        }
        let details: CoreDeviceAuthorizationResponse =
            request.request_async(&self.caller()).await.map_err(|error| self.token_error(error))?;
        let complete = details.verification_uri_complete().map(|url| url.secret().to_owned());
        Ok(Device {
            url: complete.unwrap_or_else(|| details.verification_uri().to_string()),
            user_code: details.user_code().secret().to_owned(),
            details,
            verifier,
        })
    }

    /// Asks again and again, as slowly as the provider wants, until the user has answered (RFC 8628 section 3.5).
    pub async fn approved(
        &self,
        device: &Device,
        pause: impl Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync,
    ) -> Result<Granted> {
        let client = self.configured();
        let clock = self.clock.clone();
        let response = client
            .exchange_device_access_token(&device.details)
            .map_err(|_| failed(&self.at, "its metadata names no token endpoint"))?
            .add_extra_param("code_verifier", device.verifier.expose().to_owned())
            .set_time_fn(move || date_time(&clock))
            .set_max_backoff_interval(LONGEST_DEVICE_PAUSE)
            .request_async(&self.caller(), pause, None)
            .await
            .map_err(|error| self.device_error(error))?;
        self.granted(&response, None)
    }

    fn device_error(&self, error: RequestTokenError<Error, DeviceCodeErrorResponse>) -> Error {
        let again = |code, why: &str| {
            let remedy = format!("ksb login {}", self.at.argument());
            Error::new(code, why).cloud(self.at.label()).remedy(remedy)
        };
        match error {
            RequestTokenError::Request(error) => error,
            RequestTokenError::ServerResponse(said) => match said.error() {
                DeviceCodeErrorResponseType::AccessDenied => {
                    again(Code::SignInCancelled, "the sign-in was declined at the identity provider")
                }
                DeviceCodeErrorResponseType::ExpiredToken => {
                    again(Code::SignInTimedOut, "the code was not approved in time")
                }
                other => self.refusal(other.as_ref(), said.error_description().map(String::as_str)),
            },
            other => failed(&self.at, format!("its token endpoint: {other}")),
        }
    }

    /// New tokens for a refresh token (RFC 6749 section 6).
    pub async fn refresh(&self, token: &Secret) -> Result<Refreshed> {
        if let Some(rest) = self.heard.rest(self.clock.now()) {
            return Err(busy(
                &self.at,
                &format!("it asked to be left alone for another {} s", rest.as_secs()),
            ));
        }
        let refresh_token = RefreshToken::new(token.expose().to_owned());
        let client = self.configured();
        let request = client
            .exchange_refresh_token(&refresh_token)
            .map_err(|_| failed(&self.at, "its metadata names no token endpoint"))?;
        match request.request_async(&self.caller()).await {
            Ok(response) => self.granted(&response, None).map(Box::new).map(Refreshed::Granted),
            Err(RequestTokenError::ServerResponse(said))
                if matches!(said.error(), CoreErrorResponseType::InvalidGrant) =>
            {
                Ok(Refreshed::Ended(
                    self.refusal("invalid_grant", said.error_description().map(String::as_str)),
                ))
            }
            Err(error) => Err(self.token_error(error)),
        }
    }

    /// Ends a refresh token, where the provider can (RFC 7009).
    pub async fn revoke(&self, token: &Secret) -> Result<()> {
        let url = self.metadata.additional_metadata().revocation_endpoint.clone();
        let url = url.ok_or_else(|| failed(&self.at, "its metadata names no revocation endpoint"))?;
        let client = self.configured().set_revocation_url(url);
        let token = CoreRevocableToken::RefreshToken(RefreshToken::new(token.expose().to_owned()));
        let request = client.revoke_token(token).map_err(|error| failed(&self.at, error.to_string()))?;
        request.request_async(&self.caller()).await.map_err(|error| match error {
            RequestTokenError::Request(error) => error,
            other => failed(&self.at, format!("revocation: {other}")),
        })
    }

    /// The page that ends the browser's own session (OpenID Connect RP-Initiated Logout 1.0). The ID token would spare
    /// the user a question there, but an address is seen in process lists and histories, and some Keystones take ID tokens.
    pub fn end_session_url(&self) -> Option<Url> {
        let endpoint = self.metadata.additional_metadata().end_session_endpoint.clone()?;
        let client = ClientId::new(self.client.client_id.clone());
        Some(LogoutRequest::from(endpoint).set_client_id(client).http_get_url())
    }

    fn granted(&self, response: &CoreTokenResponse, nonce: Option<&Nonce>) -> Result<Granted> {
        let id_token = response.extra_fields().id_token();
        if nonce.is_some() && id_token.is_none() {
            return Err(failed(&self.at, "it sent no ID token (is `openid` among the scopes?)"));
        }
        let evidence = id_token.map(|id_token| self.evidence(response, id_token, nonce)).transpose()?;
        let bearer = match (self.client.bearer, id_token) {
            (Bearer::AccessToken, _) => response.access_token().secret().to_owned(),
            (Bearer::IdToken, Some(id_token)) => id_token.to_string(),
            (Bearer::IdToken, None) => {
                return Err(failed(&self.at, "it sent no ID token, which Keystone is to take"));
            }
        };
        let refresh_token = response.refresh_token().map(|token| Secret::new(token.secret()));
        Ok(Granted { bearer: Secret::new(bearer), refresh_token, evidence })
    }

    fn configured(&self) -> Configured {
        let secret = self.client.client_secret.as_ref();
        let client = CoreClient::from_provider_metadata(
            self.metadata.clone(),
            ClientId::new(self.client.client_id.clone()),
            secret.map(|secret| ClientSecret::new(secret.expose().to_owned())),
        );
        match self.client.auth_method {
            Some(AuthMethod::ClientSecretBasic) => return client,
            Some(AuthMethod::ClientSecretPost) => return client.set_auth_type(AuthType::RequestBody),
            None => {}
        }
        // Basic is what a provider that says nothing takes (OpenID Connect Discovery 1.0, section 3).
        let takes = |method| {
            let methods = self.metadata.token_endpoint_auth_methods_supported();
            methods.is_none_or(|methods| methods.contains(&method))
        };
        if takes(CoreClientAuthMethod::ClientSecretBasic) || !takes(CoreClientAuthMethod::ClientSecretPost) {
            client
        } else {
            client.set_auth_type(AuthType::RequestBody)
        }
    }

    fn scopes(&self) -> impl Iterator<Item = Scope> {
        // `openid` is there already.
        let words = self.client.scope.split_ascii_whitespace().filter(|word| *word != "openid");
        words.map(|word| Scope::new(word.to_owned()))
    }

    fn redirect(&self, uri: &str) -> Result<RedirectUrl> {
        RedirectUrl::new(uri.to_owned()).map_err(|error| {
            Error::new(Code::InvalidConfig, format!("redirect_uri: {error}")).cloud(self.at.label())
        })
    }

    fn caller(&self) -> impl Fn(HttpRequest) -> BoxFuture<'static, Result<HttpResponse>> + use<> {
        caller(&self.at, &self.http, &self.heard, &self.clock)
    }

    fn token_error(&self, error: TokenError) -> Error {
        match error {
            RequestTokenError::Request(error) => error,
            RequestTokenError::ServerResponse(said) => {
                self.refusal(said.error().as_ref(), said.error_description().map(String::as_str))
            }
            other => failed(&self.at, format!("its token endpoint: {other}")),
        }
    }

    /// An OAuth error, with what helps against it.
    fn refusal(&self, code: &str, description: Option<&str>) -> Error {
        let words = description.map_or(String::new(), |why| format!(" ({why})"));
        failed(&self.at, format!("{code}{words}")).remedy(error_remedies::remedy(
            &self.at,
            code,
            description.unwrap_or_default(),
        ))
    }

    fn refused(&self, why: &str) -> Error {
        Error::new(Code::TokenRefused, format!("not used: {why}"))
            .cloud(self.at.label())
            .remedy(format!("ksb login {}", self.at.argument()))
    }
}

/// A code verifier and its challenge. RFC 7636's limits are 43 to 128 characters; 64 hexadecimal ones are 256 bits.
fn pkce() -> (Secret, PkceCodeChallenge) {
    let verifier = Secret::random();
    let ours = PkceCodeVerifier::new(verifier.expose().to_owned());
    (verifier, PkceCodeChallenge::from_code_verifier_sha256(&ours))
}

fn date_time(clock: &SharedClock) -> DateTime<Utc> {
    DateTime::from_timestamp(clock.now().as_second(), 0).unwrap_or_default()
}

/// What the identity provider said, or failed to say.
fn failed(cloud: &Cloud, why: impl std::fmt::Display) -> Error {
    Error::new(Code::IdentityProviderError, format!("the identity provider answered: {why}"))
        .cloud(cloud.label())
        .remedy(format!("ksb clouds show {}", cloud.argument()))
}

/// It cannot answer now; it may later.
fn busy(cloud: &Cloud, why: &str) -> Error {
    Error::new(Code::IdentityProviderError, format!("the identity provider is in trouble: {why}"))
        .cloud(cloud.label())
        .remedy(format!("try again later: ksb login {}", cloud.argument()))
}

/// The HTTP client that openidconnect is given.
fn caller(
    cloud: &Cloud,
    http: &Client,
    heard: &Heard,
    clock: &SharedClock,
) -> impl Fn(HttpRequest) -> BoxFuture<'static, Result<HttpResponse>> + use<> {
    let (cloud, http, heard, clock) = (cloud.clone(), http.clone(), heard.clone(), clock.clone());
    move |request| {
        let (cloud, http, heard, clock) = (cloud.clone(), http.clone(), heard.clone(), clock.clone());
        Box::pin(async move {
            let answer = call(&cloud, &http, request).await?;
            heard.note(&answer, clock.now());
            response(&cloud, answer)
        })
    }
}

async fn call(cloud: &Cloud, http: &Client, request: HttpRequest) -> Result<Answer> {
    let request = reqwest::Request::try_from(request)
        .map_err(|error| failed(cloud, format!("a request that cannot be sent: {error}")))?;
    let builder = reqwest::RequestBuilder::from_parts(http.clone(), request);
    http_client::send(cloud, Peer::IdentityProvider, builder).await
}

/// The answer as openidconnect wants it. Trouble is no answer: whoever asked may ask again.
fn response(cloud: &Cloud, answer: Answer) -> Result<HttpResponse> {
    if answer.status == 429 || answer.status >= 500 {
        return Err(busy(cloud, &format!("HTTP {}", answer.status)));
    }
    let mut response = HttpResponse::new(answer.body.into_bytes());
    *response.status_mut() = axum::http::StatusCode::from_u16(answer.status).unwrap_or_default();
    *response.headers_mut() = answer.headers;
    Ok(response)
}
