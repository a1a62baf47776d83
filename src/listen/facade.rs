//! The facade: a Keystone on loopback for whoever holds a lease.
//!
//! It answers what clients ask of an auth URL: discovery and tokens (Identity API v3). The tokens are the cloud's own, and
//! so is their catalog: everything else goes from the tool to the cloud. What is left of `/v3` is passed on (`proxy`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::auth_request::{AuthRequest, Proof, Unfit};
use super::proxy;
use crate::broker::{Broker, Shown};
use crate::error::{Code, Error};
use crate::http_server::accept::Caller;
use crate::http_server::guard;
use crate::model::{Scope, Secret, Token, random_hex};
use crate::platform::peer_program::Program;
use crate::sync::lock_unpoisoned;

/// An authentication request names a secret and a scope.
const MAX_BODY: usize = 64 << 10;
const SUBJECT: &str = "x-subject-token";
const AUTH: &str = "x-auth-token";

/// What the handlers need.
#[derive(Clone)]
pub(super) struct Facade {
    pub(super) broker: Broker,
    /// `http://127.0.0.1:PORT`, or the same of `[::1]`
    base: Arc<str>,
}

/// The tokens that were given out on a connection: whoever asks for one again there comes back from a refusal.
#[derive(Default, Clone)]
struct GivenHere(HashMap<(String, Option<Scope>), Secret>);

/// The program at the other end of a connection, or that it could not be known.
#[derive(Clone)]
struct Asking(Option<Arc<Program>>);

/// The facade of `broker`, listening on `address`.
pub fn router(broker: Broker, address: SocketAddr) -> Router {
    let port = address.port();
    let base: Arc<str> = format!("http://{address}").into();
    let hosts: Vec<_> =
        ["127.0.0.1", "localhost", "[::1]"].iter().map(|host| format!("{host}:{port}")).collect();
    Router::new()
        .route("/", get(versions))
        .route("/v3", get(version))
        .route("/v3/", get(version))
        .route("/v3/auth/tokens", post(authenticate).get(show).delete(give_back))
        .route("/v3/auth/tokens/", post(authenticate).get(show).delete(give_back))
        .route("/v3/{*rest}", any(proxy::pass_on))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is only the Identity API v3 here") })
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed here")
        })
        .layer(from_fn(programs_only))
        .layer(from_fn_with_state(guard::Hosts { hosts, refusal: elsewhere }, guard::known_host))
        .layer(from_fn(named))
        .with_state(Facade { broker, base })
}

fn elsewhere() -> Response {
    refusal(
        StatusCode::MISDIRECTED_REQUEST,
        "this is a Keystone on the loopback addresses of this computer only",
    )
}

/// No browser's page has any business here: browsers send `Origin` or Fetch Metadata with whatever a page makes them
/// send, also with what goes out without CORS. A preflight is answered by no permission.
async fn programs_only(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let by_a_page = headers.contains_key(header::ORIGIN)
        || headers.contains_key(header::REFERER)
        || headers.get("sec-fetch-site").is_some_and(|site| site != "none");
    if by_a_page || matches!(*request.method(), Method::OPTIONS | Method::TRACE | Method::CONNECT) {
        return refusal(StatusCode::FORBIDDEN, "this is for programs, not for pages of a browser");
    }
    next.run(request).await
}

/// Every answer can be found again, is kept by nobody, and is what it says it is.
async fn named(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed = [
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "X-Auth-Token"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    let name = HeaderName::from_static("x-openstack-request-id");
    if let Ok(id) = HeaderValue::from_str(&request_id()) {
        headers.entry(name).or_insert(id);
    }
    response
}

/// As Keystone makes them: `req-` and a UUID (RFC 9562, version 4).
fn request_id() -> String {
    let id = random_hex::<16>();
    format!("req-{}-{}-4{}-a{}-{}", &id[..8], &id[8..12], &id[13..16], &id[17..20], &id[20..])
}

fn entry(base: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{base}/v3/")}],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }],
    })
}

async fn versions(State(facade): State<Facade>) -> Response {
    let versions = json!({"versions": {"values": [entry(&facade.base)]}});
    (StatusCode::MULTIPLE_CHOICES, Json(versions)).into_response()
}

async fn version(State(facade): State<Facade>) -> Json<Value> {
    Json(json!({"version": entry(&facade.base)}))
}

/// `POST /v3/auth/tokens`
async fn authenticate(
    State(facade): State<Facade>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let kind =
        parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // RFC 9110, section 8.3.1: without regard to case.
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Ok(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"));
    }
    let body = match guard::read(body, MAX_BODY).await {
        Ok(body) => body,
        Err(status) => return Ok(refusal(status, "the body is too large, malformed, or does not come")),
    };
    let asked = match AuthRequest::read(&body) {
        Ok(asked) => asked,
        Err(Unfit::Malformed(why)) => return Ok(refusal(StatusCode::BAD_REQUEST, &why)),
        Err(Unfit::Method(methods)) => {
            let why = format!("the method {methods} is not for a lease: use its application credential");
            return Ok(refusal(StatusCode::UNAUTHORIZED, &why));
        }
    };
    let shown = match &asked.proof {
        Proof::Secret(id, secret) => Shown::Secret(id, secret),
        Proof::Token(token) if Broker::is_handle(token) => Shown::Handle(token),
        Proof::Token(token) => Shown::Token(token),
    };
    let lease = facade.whose(&shown)?;
    let key = (lease.clone(), asked.scope.clone());
    let given =
        lock_unpoisoned(&caller.memory).get::<GivenHere>().and_then(|given| given.0.get(&key).cloned());
    let patience = patience(&parts.headers);
    let program = facade.program_of(&caller).await;
    let token = facade.broker.lease_token(&lease, asked.scope, given.as_ref(), patience, program).await?;
    if !matches!(shown, Shown::Token(_)) && !facade.broker.record_use(&lease) {
        return Err(facade.stranger());
    }
    lock_unpoisoned(&caller.memory).get_or_insert_default::<GivenHere>().0.insert(key, token.id.clone());
    let without_catalog = parts.uri.query().is_some_and(|query| {
        url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "nocatalog")
    });
    Ok(token_response(StatusCode::CREATED, &token, without_catalog))
}

/// `GET` and `HEAD /v3/auth/tokens`: a lease's handle stands for its token; a real token is Keystone's to judge.
async fn show(
    State(facade): State<Facade>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Failure> {
    let Some(subject) = secret(request.headers(), SUBJECT).or_else(|| secret(request.headers(), AUTH)) else {
        return Err(facade.stranger());
    };
    if Broker::is_handle(&subject) {
        let lease = facade.whose(&Shown::Handle(&subject))?;
        let (patience, program) = (patience(request.headers()), facade.program_of(&caller).await);
        let token = facade.broker.lease_token(&lease, None, None, patience, program).await?;
        if !facade.broker.record_use(&lease) {
            return Err(facade.stranger());
        }
        return Ok(token_response(StatusCode::OK, &token, false));
    }
    facade.own_subject(request.headers())?;
    proxy::pass_on(State(facade), request).await
}

/// `DELETE /v3/auth/tokens`: revokes at Keystone, and is not given out again.
async fn give_back(State(facade): State<Facade>, request: Request) -> Result<Response, Failure> {
    let (lease, subject) = facade.own_subject(request.headers())?;
    let response = proxy::pass_on(State(facade.clone()), request).await?;
    facade.broker.lost(&lease, &subject);
    Ok(response)
}

impl Facade {
    /// The lease that asks and the token it asks about, which must be its own: others are not told apart from none.
    fn own_subject(&self, headers: &HeaderMap) -> Result<(String, Secret), Failure> {
        let (lease, _) = self.admit(headers)?;
        let subject = secret(headers, SUBJECT).filter(|subject| self.broker.is_of(&lease, subject));
        match subject {
            Some(subject) => Ok((lease, subject)),
            None => Err(Failure::from(refusal(StatusCode::NOT_FOUND, "this token was not issued here"))),
        }
    }

    /// The lease of whoever asks, and their token.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(String, Secret), Failure> {
        let token = secret(headers, AUTH).ok_or_else(|| self.stranger())?;
        let lease = self.whose(&Shown::Token(&token))?;
        Ok((lease, token))
    }

    /// The lease of whoever shows this. While the agent is locked nobody can be told from a stranger.
    fn whose(&self, shown: &Shown<'_>) -> Result<String, Failure> {
        self.broker.holder(shown).map_err(|error| match error.code {
            Code::Locked | Code::VaultUnavailable => Failure::from(error),
            _ => match self.broker.ended_lease(shown) {
                Some(ended) => {
                    self.unauthorized(&format!("{ended}: run your command again, or make another lease"))
                }
                None => self.stranger(),
            },
        })
    }

    /// The program that asks. It is looked up before it is answered, since it may end with that, and once for each
    /// connection.
    async fn program_of(&self, caller: &Caller) -> Option<Arc<Program>> {
        let known = lock_unpoisoned(&caller.memory).get::<Asking>().cloned();
        if let Some(Asking(program)) = known {
            return program;
        }
        let program = self.broker.identify(caller.peer).await;
        lock_unpoisoned(&caller.memory).insert(Asking(program.clone()));
        program
    }

    /// Keystone's own answer to somebody it does not know: whatever was wrong.
    pub(super) fn stranger(&self) -> Failure {
        self.unauthorized("no living lease has this credential: ksb lease list")
    }

    fn unauthorized(&self, why: &str) -> Failure {
        let mut response = refusal(StatusCode::UNAUTHORIZED, why);
        if let Ok(value) = HeaderValue::from_str(&format!("Keystone uri=\"{}/v3\"", self.base)) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response.into()
    }
}

/// The header, if it is there once.
pub(super) fn secret(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| Secret::new(value))
}

/// How long a client waits for its token: some give up soon, and a refusal in words is better than a cut connection.
fn patience(headers: &HeaderMap) -> SignedDuration {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent = agent.to_ascii_lowercase();
    let begins = |names: &[&str]| names.iter().any(|name| agent.starts_with(name));
    SignedDuration::from_secs(if begins(&["goswift", "rclone", "restic"]) {
        8
    } else if begins(&["reqwest", "openstack_sdk", "osc"]) {
        25
    } else {
        300
    })
}

fn token_response(status: StatusCode, token: &Token, without_catalog: bool) -> Response {
    let body =
        if without_catalog { bare(token) } else { Bytes::copy_from_slice(token.body.get().as_bytes()) };
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(mut id) = HeaderValue::from_str(token.id.expose()) {
        id.set_sensitive(true);
        headers.insert(SUBJECT, id);
    }
    response
}

/// Keystone's body without the catalog (`?nocatalog`).
fn bare(token: &Token) -> Bytes {
    let mut body: Value = serde_json::from_str(token.body.get()).unwrap_or_default();
    if let Some(token) = body.pointer_mut("/token").and_then(Value::as_object_mut) {
        token.shift_remove("catalog");
    }
    body.to_string().into()
}

/// An answer in Keystone's own shape instead of what was asked for.
pub(super) struct Failure(Box<Response>);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        *self.0
    }
}

impl From<Response> for Failure {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.code {
            _ if error.upstream.is_some() => {
                StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY)
            }
            Code::InvalidRequest | Code::InvalidConfig => StatusCode::BAD_REQUEST,
            Code::ScopeUnsupported | Code::CredentialsRefused => StatusCode::FORBIDDEN,
            Code::KeystoneUnreachable
            | Code::KeystoneTls
            | Code::IdentityProviderUnreachable
            | Code::IdentityProviderTls
            | Code::VaultUnavailable
            | Code::Locked => StatusCode::SERVICE_UNAVAILABLE,
            Code::KeystoneError | Code::NotKeystone | Code::IdentityProviderError => StatusCode::BAD_GATEWAY,
            Code::Internal | Code::Io => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::UNAUTHORIZED,
        };
        let id = error.request_id.as_ref().map_or(String::new(), |id| format!(" ({id})"));
        let remedy = error.remedy.as_ref().map_or(String::new(), |remedy| format!("; try: {remedy}"));
        let mut response = refusal(status, &format!("ksb: {error}{id}{remedy}"));
        let retry_after = error.upstream.and_then(|upstream| upstream.retry_after);
        response.headers_mut().extend(retry_after.map(|seconds| (header::RETRY_AFTER, seconds.into())));
        Self::from(response)
    }
}

/// Keystone's error document.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let document = json!({"error": {"code": status.as_u16(), "title": title, "message": message}});
    (status, Json(document)).into_response()
}
