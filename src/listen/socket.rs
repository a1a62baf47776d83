//! The broker's API on its unix socket: HTTP to operations and back. `docs/openapi.json` describes it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{
    AcceptRequest, AnswerRequest, CloudRequest, DiscoverReply, DiscoverRequest, FactorsRequest, LeaseReply,
    LeaseRequest, LeasesReply, LeaveReply, LockReason, LockReply, LockRequest, LoginRequest, LogoutReply,
    LogoutRequest, Offers, ProbeReply, Problem, Question as Confirmation, ReachReply, RedirectedRequest,
    RefreshReply, RevokeReply, SessionReply, SignIn, SignInReply, Status, TokenReply, TokenRequest,
    UnlockRequest, VERSION_HEADER, VaultKeyRequest, VaultReport, WAITER_HEADER,
};
use crate::audit::Who;
use crate::broker::{Broker, Leased, LoggedIn, Served};
use crate::error::{Code, Error};
use crate::http_server::accept::{Caller, Parting};
use crate::http_server::guard;
use crate::model::Cloud;
use crate::sync::lock_unpoisoned;

/// A request names a cloud and a scope; nothing larger makes sense.
const MAX_BODY: usize = 64 << 10;
/// The longest that one long poll is held.
const MAX_WAIT: u64 = 60;
/// Questions that are remembered parsed: more than anybody has clouds and scopes.
const MAX_PARSED: usize = 64;

/// What the handlers need.
#[derive(Clone)]
struct Agent {
    broker: Broker,
    parsed: Arc<Parsed>,
}

/// Token requests by their bytes. Tools ask the same thing again and again, and reading it is most of
/// what answering costs (`make bench`).
type Parsed = Mutex<HashMap<Bytes, Arc<TokenRequest>>>;

#[derive(OpenApi)]
#[openapi(info(
    title = "keystone-broker",
    description = "The API of `ksb agent` on its unix socket. Only the socket's owner may connect.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

fn parts() -> (Router<Agent>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tokens))
        .routes(routes!(login))
        .routes(routes!(sign_in, cancel))
        .routes(routes!(leave))
        .routes(routes!(opened))
        .routes(routes!(offers))
        .routes(routes!(accept))
        .routes(routes!(redirected))
        .routes(routes!(factors))
        .routes(routes!(refresh))
        .routes(routes!(projects))
        .routes(routes!(probe))
        .routes(routes!(discover))
        .routes(routes!(leases, lease))
        .routes(routes!(wanted))
        .routes(routes!(revoke))
        .routes(routes!(question))
        .routes(routes!(answer))
        .routes(routes!(trust))
        .routes(routes!(logout))
        .routes(routes!(status))
        .routes(routes!(unlock))
        .routes(routes!(vault_key))
        .routes(routes!(lock))
        .routes(routes!(handover))
        .routes(routes!(stop))
        .split_for_parts()
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    parts().1
}

/// The API of `broker`.
pub fn router(broker: Broker) -> Router {
    let (router, document) = parts();
    // As text it takes a fraction of the memory that the document does.
    let document = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    router
        .route("/v1/openapi.json", axum::routing::get(move || async move { json_bytes(document) }))
        .fallback(|| async { Failure(Error::new(Code::InvalidRequest, "no such operation")) })
        .method_not_allowed_fallback(|| async {
            Failure(Error::new(Code::InvalidRequest, "no such operation"))
        })
        .layer(from_fn(buffer_body))
        .with_state(Agent { broker, parsed: Arc::default() })
}

/// Reads each request whole before a handler runs, and tells each answer's reader this program's version.
///
/// The body is read even where no handler looks at it: a connection on which an answer overtakes the request ends, and
/// a slow client would then get a broken pipe.
async fn buffer_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let mut response = match guard::read(body, MAX_BODY).await {
        Ok(body) => next.run(Request::from_parts(head, body.into())).await,
        Err(why) => {
            let why = why.canonical_reason().unwrap_or_default();
            Failure(Error::new(Code::InvalidRequest, format!("the request's body: {why}"))).into_response()
        }
    };
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    response.headers_mut().insert(HeaderName::from_static(VERSION_HEADER), version);
    response
}

/// A failure as a problem document (RFC 9457).
struct Failure(Error);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = Problem::from(self.0);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = problem.retry_after.map(HeaderValue::from);
        let mut response = (status, Json(problem)).into_response();
        response.headers_mut().extend(retry_after.map(|seconds| (header::RETRY_AFTER, seconds)));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        // The rejection's text quotes field names and positions, never values.
        Self(Error::new(Code::InvalidRequest, rejection.body_text()))
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        Self(Error::new(Code::InvalidRequest, rejection.body_text()))
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self(Error::new(Code::InvalidRequest, rejection.body_text()))
    }
}

/// A JSON body whose defects are answered as problems.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Failure))]
struct Input<T>(T);

/// A query string whose defects are answered as problems.
#[derive(FromRequestParts)]
#[from_request(via(Query), rejection(Failure))]
struct Asked<T>(T);

/// The body of a token request, parsed once.
struct Question(Arc<TokenRequest>);

impl FromRequest<Agent> for Question {
    type Rejection = Failure;

    async fn from_request(request: Request, agent: &Agent) -> Result<Self, Failure> {
        if request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
            let Input(asked) = Input::from_request(request, agent).await?;
            return Ok(Self(Arc::new(asked)));
        }
        let body = Bytes::from_request(request, agent).await?;
        if let Some(known) = lock_unpoisoned(&agent.parsed).get(&body) {
            return Ok(Self(known.clone()));
        }
        let Json(asked) = Json::<TokenRequest>::from_bytes(&body)?;
        let asked = Arc::new(asked);
        // Secrets are not kept in bytes that nobody wipes.
        if asked.rejected.is_none() && !asked.cloud.sign_in.carries_secret() {
            let mut parsed = lock_unpoisoned(&agent.parsed);
            if parsed.len() == MAX_PARSED {
                parsed.clear();
            }
            parsed.insert(body, asked.clone());
        }
        Ok(Self(asked))
    }
}

/// The id that a caller at a terminal chose for itself, by which its requests are known while it waits for a sign-in.
struct Waiter(Option<String>);

impl<S: Sync> FromRequestParts<S> for Waiter {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let id = parts.headers.get(WAITER_HEADER).and_then(|id| id.to_str().ok());
        let is_id =
            |id: &&str| id.len() <= 64 && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        Ok(Self(id.filter(is_id).map(str::to_owned)))
    }
}

impl Agent {
    /// `202`: a user is needed.
    fn joined(&self, sign_in: SignIn, cloud: &Cloud, Waiter(waiter): &Waiter) -> Response {
        let sign_in = self.broker.joined(sign_in, cloud.label(), waiter.as_deref());
        (StatusCode::ACCEPTED, Json(SignInReply { sign_in })).into_response()
    }
}

/// A token of a scope, or the sign-in that must come first.
#[utoipa::path(post, path = "/v1/tokens", request_body = TokenRequest, responses(
    (status = 200, body = TokenReply),
    (status = 202, body = SignInReply, description = "A sign-in is needed: wait for the sign-in, then ask again."),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn tokens(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    waiter: Waiter,
    Question(request): Question,
) -> Result<Response, Failure> {
    Ok(match agent.broker.token(&request, caller.peer).await? {
        Served::Token(held) => json_bytes(held.reply()),
        Served::SignIn(sign_in) => agent.joined(*sign_in, &request.cloud, &waiter),
    })
}

fn json_bytes(json: Bytes) -> Response {
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Signs in, unless a session lasts long enough.
#[utoipa::path(post, path = "/v1/sign-ins", request_body = LoginRequest, responses(
    (status = 200, body = SessionReply),
    (status = 202, body = SignInReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn login(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    waiter: Waiter,
    Input(request): Input<LoginRequest>,
) -> Result<Response, Failure> {
    Ok(match agent.broker.login(&request, caller.peer).await? {
        LoggedIn::Session(session) => Json(SessionReply { session: *session }).into_response(),
        LoggedIn::SignIn(sign_in) => agent.joined(*sign_in, &request.cloud, &waiter),
    })
}

/// How a long poll waits.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Poll {
    /// The revision that the caller has seen.
    #[serde(default)]
    seen: u64,
    /// Seconds to wait for a newer one; 60 at most, 0 answers at once.
    #[serde(default)]
    wait: u64,
}

/// A sign-in, as soon as there is news.
#[utoipa::path(get, path = "/v1/sign-ins/{id}", params(("id" = String, Path), Poll), responses(
    (status = 200, body = SignInReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn sign_in(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    Waiter(waiter): Waiter,
    Asked(poll): Asked<Poll>,
) -> Result<Json<SignInReply>, Failure> {
    let patience = Duration::from_secs(poll.wait.min(MAX_WAIT));
    let sign_in = agent.broker.sign_in(&id, poll.seen, patience, waiter.as_deref()).await?;
    Ok(Json(SignInReply { sign_in }))
}

/// Calls a sign-in off.
#[utoipa::path(delete, path = "/v1/sign-ins/{id}", params(("id" = String, Path)), responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn cancel(State(agent): State<Agent>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    agent.broker.cancel(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller does not wait any longer. If no other one at a terminal waits (`Ksb-Waiter`), the sign-in ends.
#[utoipa::path(post, path = "/v1/sign-ins/{id}/leave", params(("id" = String, Path)), responses(
    (status = 200, body = LeaveReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn leave(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    Waiter(waiter): Waiter,
) -> Result<Json<LeaveReply>, Failure> {
    let ended = waiter.map_or(Ok(false), |waiter| agent.broker.leave(&id, &waiter))?;
    Ok(Json(LeaveReply { ended }))
}

/// The opener says that it opened the browser.
#[utoipa::path(post, path = "/v1/sign-ins/{id}/opened", params(("id" = String, Path)), responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn opened(State(agent): State<Agent>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    agent.broker.opened(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tokens from tabs that did not start here. Asked for only by a user at a terminal.
#[utoipa::path(get, path = "/v1/sign-ins/{id}/offers", params(("id" = String, Path)), responses(
    (status = 200, body = Offers),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn offers(State(agent): State<Agent>, Path(id): Path<String>) -> Result<Json<Offers>, Failure> {
    Ok(Json(agent.broker.offers(&id).await?))
}

/// Takes one of the offers.
#[utoipa::path(post, path = "/v1/sign-ins/{id}/accept", params(("id" = String, Path)),
    request_body = AcceptRequest, responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn accept(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    Input(request): Input<AcceptRequest>,
) -> Result<StatusCode, Failure> {
    agent.broker.accept(&id, request.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes what a browser on another machine brought.
#[utoipa::path(post, path = "/v1/sign-ins/{id}/redirected", params(("id" = String, Path)),
    request_body = RedirectedRequest, responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn redirected(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    Input(request): Input<RedirectedRequest>,
) -> Result<StatusCode, Failure> {
    agent.broker.redirected(&id, request.url).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes what the user typed at the terminal. `factor-refused`: it is not the one, ask again.
#[utoipa::path(post, path = "/v1/sign-ins/{id}/factors", params(("id" = String, Path)),
    request_body = FactorsRequest, responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn factors(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    Input(request): Input<FactorsRequest>,
) -> Result<StatusCode, Failure> {
    agent.broker.factors(&id, request.factors).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Drops the scoped tokens of a cloud, so that new roles show.
#[utoipa::path(post, path = "/v1/refresh", request_body = CloudRequest, responses(
    (status = 200, body = RefreshReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn refresh(
    State(agent): State<Agent>,
    Input(request): Input<CloudRequest>,
) -> Result<Json<RefreshReply>, Failure> {
    let dropped = agent.broker.refresh(&request)?;
    Ok(Json(RefreshReply { dropped: u32::try_from(dropped).unwrap_or(u32::MAX) }))
}

/// What the user may scope to.
#[utoipa::path(post, path = "/v1/projects", request_body = CloudRequest, responses(
    (status = 200, body = ReachReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn projects(
    State(agent): State<Agent>,
    Input(request): Input<CloudRequest>,
) -> Result<Json<ReachReply>, Failure> {
    Ok(Json(agent.broker.reach(&request).await?))
}

/// What can be found of a cloud without signing in: clock, names, TLS, proxy, discovery, the doors of the sign-in.
#[utoipa::path(post, path = "/v1/probe", request_body = CloudRequest, responses(
    (status = 200, body = ProbeReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn probe(
    State(agent): State<Agent>,
    Input(request): Input<CloudRequest>,
) -> Result<Json<ProbeReply>, Failure> {
    Ok(Json(agent.broker.probe(&request).await?))
}

/// What the address of a dashboard or a Keystone tells of a cloud.
#[utoipa::path(post, path = "/v1/discover", request_body = DiscoverRequest, responses(
    (status = 200, body = DiscoverReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn discover(
    State(agent): State<Agent>,
    Input(request): Input<DiscoverRequest>,
) -> Result<Json<DiscoverReply>, Failure> {
    Ok(Json(agent.broker.discover(&request).await?))
}

/// The user trusts a cloud of the current directory.
#[utoipa::path(post, path = "/v1/trust", request_body = CloudRequest, responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn trust(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    Input(request): Input<CloudRequest>,
) -> Result<StatusCode, Failure> {
    agent.broker.trust(&request, caller.peer).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes every token and forgets.
#[utoipa::path(post, path = "/v1/logout", request_body = LogoutRequest, responses(
    (status = 200, body = LogoutReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn logout(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    Input(request): Input<LogoutRequest>,
) -> Result<Json<LogoutReply>, Failure> {
    Ok(Json(agent.broker.logout(&request, Who::Peer(caller.peer)).await?))
}

/// Makes a local application credential, valid only at the facade.
#[utoipa::path(post, path = "/v1/leases", request_body = LeaseRequest, responses(
    (status = 201, body = LeaseReply),
    (status = 202, body = SignInReply, description = "A sign-in is needed: wait for the sign-in, then ask again."),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn lease(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    waiter: Waiter,
    Input(request): Input<LeaseRequest>,
) -> Result<Response, Failure> {
    Ok(match agent.broker.lease(&request, caller.peer).await? {
        Leased::Lease(reply) => (StatusCode::CREATED, Json(*reply)).into_response(),
        Leased::SignIn(sign_in) => agent.joined(*sign_in, &request.cloud, &waiter),
    })
}

/// The living leases.
#[utoipa::path(get, path = "/v1/leases", responses(
    (status = 200, body = LeasesReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn leases(State(agent): State<Agent>) -> Json<LeasesReply> {
    Json(agent.broker.leases())
}

/// Ends a lease, by id or name, and takes back what it had at Keystone.
#[utoipa::path(delete, path = "/v1/leases/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = RevokeReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn revoke(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<RevokeReply>, Failure> {
    Ok(Json(agent.broker.revoke(&id, caller.peer).await?))
}

/// How long somebody waits for news.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Patience {
    /// Seconds to wait; 60 at most, 0 answers at once.
    #[serde(default)]
    wait: u64,
}

impl Patience {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.wait.min(MAX_WAIT))
    }
}

/// The process of a lease, and the time to wait.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Seconds to wait; 60 at most, 0 answers at once.
    #[serde(default)]
    wait: u64,
    /// The process that the lease ends with; the calling one when absent.
    process: Option<u32>,
}

/// A sign-in that a request at the facade waits for, by a lease that ends with a process.
#[utoipa::path(get, path = "/v1/leases/sign-in", params(Wanted), responses(
    (status = 200, body = SignInReply),
    (status = 204, description = "There was none in that time."),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn wanted(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    Extension(parting): Extension<Parting>,
    Asked(asked): Asked<Wanted>,
) -> Response {
    let process = asked.process.or(caller.peer.pid()).unwrap_or_default();
    let wanted = agent.broker.wanted(process, Duration::from_secs(asked.wait.min(MAX_WAIT)));
    match news(wanted, parting).await {
        Some(sign_in) => Json(SignInReply { sign_in }).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// What somebody waits for, unless the agent leaves: it would have to wait for them.
async fn news<T>(news: impl Future<Output = Option<T>>, mut parting: Parting) -> Option<T> {
    tokio::select! {
        biased;
        news = news => news,
        () = parting.begins() => None,
    }
}

/// The question whether a program may have a token, as soon as one is open: for a user at a terminal.
#[utoipa::path(get, path = "/v1/confirmations", params(Patience), responses(
    (status = 200, body = Confirmation),
    (status = 204, description = "There was none in that time."),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn question(
    State(agent): State<Agent>,
    Extension(parting): Extension<Parting>,
    Asked(asked): Asked<Patience>,
) -> Response {
    match news(agent.broker.question(asked.patience()), parting).await {
        Some(question) => Json(question).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// The user's answer, from `ksb confirm` and no other program.
#[utoipa::path(post, path = "/v1/confirmations/{id}", params(("id" = String, Path)),
    request_body = AnswerRequest, responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn answer(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Input(AnswerRequest { allow }): Input<AnswerRequest>,
) -> Result<StatusCode, Failure> {
    agent.broker.answer(&id, allow, caller.peer).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who is signed in where.
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, body = Status),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn status(State(agent): State<Agent>) -> Json<Status> {
    Json(agent.broker.status())
}

/// Opens the vault, and the lock.
#[utoipa::path(post, path = "/v1/unlock", request_body = UnlockRequest, responses(
    (status = 200, body = VaultReport),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn unlock(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    Input(request): Input<UnlockRequest>,
) -> Result<Json<VaultReport>, Failure> {
    Ok(Json(agent.broker.unlock_for(request, caller.peer).await?))
}

/// Seals the vault with another key.
#[utoipa::path(post, path = "/v1/vault/key", request_body = VaultKeyRequest, responses(
    (status = 200, body = VaultReport),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn vault_key(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    Input(request): Input<VaultKeyRequest>,
) -> Result<Json<VaultReport>, Failure> {
    Ok(Json(agent.broker.change_vault_key(request, caller.peer).await?))
}

/// Locks: nothing is given out, and the process that knew what is signed in is no more. Without a vault, a logout.
#[utoipa::path(post, path = "/v1/lock", request_body = LockRequest, responses(
    (status = 200, body = LockReply),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn lock(
    State(agent): State<Agent>,
    Extension(caller): Extension<Caller>,
    Input(LockRequest {}): Input<LockRequest>,
) -> Result<Json<LockReply>, Failure> {
    Ok(Json(agent.broker.lock(LockReason::Person, Some(caller.peer)).await?))
}

/// Has the program that was installed over the agent's own take over; nobody is signed out by it.
#[utoipa::path(post, path = "/v1/handover", responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn handover(State(agent): State<Agent>) -> Result<StatusCode, Failure> {
    agent.broker.hand_over().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the agent; what is kept in memory only is forgotten.
#[utoipa::path(post, path = "/v1/stop", responses(
    (status = 204),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn stop(State(agent): State<Agent>) -> StatusCode {
    agent.broker.stop();
    StatusCode::NO_CONTENT
}
