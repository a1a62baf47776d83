//! The callback port and the tab binding.
//!
//! Keystone must be given a fixed `origin`, so nothing of ours rides along with the token it posts
//! to `http://localhost:9990/auth/websso/`, and a foreign page can post there just as well. What
//! tells the two apart is the *tab*: a page of the callback's origin puts a secret into
//! `sessionStorage` before the tab goes to Keystone, and the page that answers Keystone's POST proves
//! with it that it is in the same tab. The POST itself gives the token to nobody: it waits under a
//! claim.

use std::collections::{HashMap, VecDeque};
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, Weak};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{mpsc, oneshot};
use url::Url;

use super::door::{Door, Forward, OwnSocket, listen};
use super::keep::{self, Keeper, Tab};
use super::start_page::StartPort;
use crate::error::{Code, Error, Result};
use crate::http_server::accept::{Askers, Server, serve};
use crate::http_server::guard::{self, Hosts};
use crate::http_server::pages;
use crate::model::{Cloud, Secret, random_hex};
use crate::oidc::AuthorizationResponse;
use crate::platform::paths::RuntimeDirectory;
use crate::platform::tcp_owner::{holder_of, is_held_by_us};
use crate::sync::lock_unpoisoned;

/// The path that operators list in `trusted_dashboard`.
pub const WEBSSO_PATH: &str = "/auth/websso/";
/// The port that most of them list.
const DEFAULT_PORT: u16 = 9990;
/// Far above any real token, far below anything that hurts.
const MAX_BODY: usize = 64 << 10;
/// Tokens that wait for a proof; beyond this the oldest is dropped.
const MAX_PARKED: usize = 64;
/// Tabs that keep a connection open. Browsers have six for an address, and a sign-in needs some.
const MAX_KEEPERS: usize = 3;
/// Tabs that one sign-in may be opened in.
const MAX_TABS: usize = 16;

/// What a cloud's operator has to list in `trusted_dashboard`.
pub fn websso_callback(cloud: &Cloud) -> String {
    let options = &cloud.sign_in;
    format!("http://{}:{}{WEBSSO_PATH}", options.redirect_host, options.redirect_port)
}

/// The callback ports in use; sign-ins of several clouds share one.
pub struct Loopback {
    /// Where sockets lie.
    directory: RuntimeDirectory,
    /// The start page's port on the other side of an SSH session: the same for as long as the agent lives, so that one
    /// `ssh -N -L` serves every sign-in of a day.
    start_port: u16,
    ports: tokio::sync::Mutex<HashMap<(String, u16, Door), Weak<CallbackPort>>>,
    start: Mutex<Weak<StartPort>>,
}

impl Loopback {
    /// Nothing is open yet. Sockets will lie in `directory`.
    pub fn new(directory: RuntimeDirectory) -> Self {
        // Below the ports that systems give out by themselves, and none that a page could have been prepared at.
        let random = u16::from_str_radix(&random_hex::<2>(), 16).unwrap_or_default();
        let start_port = 20_000 + random % 12_000;
        Self { directory, start_port, ports: tokio::sync::Mutex::default(), start: Mutex::default() }
    }

    /// The listener for `http://host:port`, bound before anyone is sent there.
    pub async fn open(&self, host: &str, port: u16, door: Door) -> Result<Arc<CallbackPort>> {
        let mut ports = self.ports.lock().await;
        let key = (host.to_owned(), port, door);
        if let Some(open) = ports.get(&key).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let open = match door {
            Door::Ports => CallbackPort::bind(host, port)?,
            Door::Sockets => CallbackPort::bind_socket(host, port, &self.directory.path())?,
        };
        // Any free port is each sign-in's own.
        if port > 0 {
            ports.insert(key, Arc::downgrade(&open));
        }
        Ok(open)
    }

    /// Where start pages are shown: by a port that is one sign-in's own, or by the one socket.
    pub(super) fn start(&self, host: &str, door: Door) -> Result<Arc<StartPort>> {
        if door == Door::Ports {
            return StartPort::on_any_port(host);
        }
        let mut start = lock_unpoisoned(&self.start);
        if let Some(open) = start.upgrade() {
            return Ok(open);
        }
        let open = StartPort::on_socket(&self.directory.path().join("start.sock"), self.start_port)?;
        *start = Arc::downgrade(&open);
        Ok(open)
    }
}

/// A bound callback port and what waits behind it.
pub struct CallbackPort {
    origin: String,
    state: Arc<Mutex<Waiting>>,
    socket: Option<(u16, OwnSocket)>,
    _servers: Vec<Server>,
}

#[derive(Default)]
struct Waiting {
    attempts: HashMap<String, Attempt>,
    /// Tabs whose sign-in is done and that may keep it going, by the sign-in's id.
    keepers: HashMap<String, Keeper>,
    parked: VecDeque<Parked>,
}

/// A sign-in that waits for its tab to come back.
struct Attempt {
    address: Url,
    tabs: VecDeque<TabPrint>,
    mail: mpsc::Sender<Mail>,
    /// The cloud that a tab was signed in to before, if it only goes round again.
    again: Option<String>,
}

/// SHA-256 of a tab's secret.
pub(super) type TabPrint = [u8; 32];

/// What Keystone, an identity provider or somebody else sent here.
struct Parked {
    claim: String,
    code: String,
    brought: Brought,
}

/// What a tab brings back.
pub enum Brought {
    /// A Keystone token, in WebSSO's form.
    Token(Secret),
    /// An OpenID provider's answer, in the address.
    Response(Box<AuthorizationResponse>),
}

/// What a proven page says, and where the answer for the page goes.
pub struct Mail {
    /// Names the token.
    pub claim: String,
    /// The tab that proved itself; `None` when none did.
    pub(super) tab: Option<TabPrint>,
    /// What the page says.
    pub word: Word,
    /// The answer for the page.
    pub reply: oneshot::Sender<PageReply>,
}

/// What a proven page says.
pub enum Word {
    /// This came back to the tab that the sign-in began in.
    Brought(Brought),
    /// The user's answer to *Use alice?*
    Answer(bool),
    /// A token came to a tab that is not ours; it may be offered in the terminal.
    Unproven,
}

/// A token that may be offered in the terminal.
pub struct Unclaimed {
    /// The code that its page shows.
    pub code: String,
    /// The token.
    pub token: Secret,
}

/// What a page shows next; `state` is one of the page's own.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(missing_docs, reason = "the fields are the page's own vocabulary: see http/pages/callback.html")]
pub struct PageReply {
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keystone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether this tab may keep the user signed in: `offered`, or `kept` already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<&'static str>,
}

impl PageReply {
    /// A reply that is only a state.
    pub fn state(state: &'static str) -> Self {
        Self { state, ..Self::default() }
    }
}

/// A sign-in's place on the port; given up when dropped.
pub struct Seat {
    port: Arc<CallbackPort>,
    id: String,
}

impl CallbackPort {
    fn bind(host: &str, port: u16) -> Result<Arc<Self>> {
        local(host)?;
        let (listeners, port) = listen(host, port).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => busy(port),
            _ => Error::io(format_args!("port {port} of this computer"), &error),
        })?;
        let (origin, state, router) = origin_of(host, port);
        let servers =
            listeners.into_iter().map(|listener| serve(listener, Askers::Browsers, router.clone())).collect();
        Ok(Arc::new(Self { origin, state, socket: None, _servers: servers }))
    }

    /// The same behind a socket: `host` and `port` are what the browser at the other end of `ssh -L` sees.
    fn bind_socket(host: &str, port: u16, folder: &FilePath) -> Result<Arc<Self>> {
        local(host)?;
        let name =
            if port == DEFAULT_PORT { "callback.sock".into() } else { format!("callback-{port}.sock") };
        let (listener, socket) = OwnSocket::bind(&folder.join(name))?;
        let (origin, state, router) = origin_of(host, port);
        let server = serve(listener, Askers::Browsers, router);
        Ok(Arc::new(Self { origin, state, socket: Some((port, socket)), _servers: vec![server] }))
    }

    /// What `ssh` must forward for a browser on another machine.
    pub(super) fn forward(&self) -> Option<Forward<'_>> {
        self.socket.as_ref().map(|(port, socket)| Forward { port: *port, socket })
    }

    /// The value of Keystone's `origin` parameter.
    pub fn websso_callback(&self) -> String {
        self.url(WEBSSO_PATH)
    }

    /// The address of a path on this port.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Lets the sign-in `id` take part; its tabs go to `address`.
    pub fn seat(
        self: &Arc<Self>,
        id: &str,
        address: Url,
        mail: mpsc::Sender<Mail>,
        again: Option<String>,
    ) -> Seat {
        let attempt = Attempt { address, tabs: VecDeque::new(), mail, again };
        lock_unpoisoned(&self.state).attempts.insert(id.to_owned(), attempt);
        Seat { port: self.clone(), id: id.to_owned() }
    }
}

impl CallbackPort {
    /// The tab of the sign-in `id` keeps nothing going any more.
    pub(super) fn end_keeping(&self, id: &str) {
        lock_unpoisoned(&self.state).keepers.remove(id);
    }
}

impl Seat {
    /// The address that removes what an earlier owner of the port left in the browser.
    pub fn clean_url(&self) -> String {
        format!("{}/clean/{}", self.port.origin, self.id)
    }

    /// The address that binds a tab.
    pub fn begin_url(&self) -> String {
        format!("{}/begin/{}", self.port.origin, self.id)
    }

    /// Lets the tab go on when the sign-in is done, unless too many do.
    pub(super) fn keep(&self, tab: TabPrint) -> Option<Tab> {
        let mut waiting = lock_unpoisoned(&self.port.state);
        if waiting.keepers.len() >= MAX_KEEPERS {
            return None;
        }
        let (keeper, tab) = Tab::new(self.port.clone(), self.id.clone(), tab);
        waiting.keepers.insert(self.id.clone(), keeper);
        Some(tab)
    }

    /// The tokens that nobody has proven. None while another sign-in waits on this port: a token
    /// must not be shown to a Keystone that it may not belong to.
    pub fn unclaimed(&self) -> Vec<Unclaimed> {
        let waiting = lock_unpoisoned(&self.port.state);
        if waiting.attempts.len() > 1 {
            return Vec::new();
        }
        let parked = waiting.parked.iter();
        // An authorization code is bound to our own request by `state` and PKCE: only its tab can have it.
        parked
            .filter_map(|parked| match &parked.brought {
                Brought::Token(token) => Some(Unclaimed { code: parked.code.clone(), token: token.clone() }),
                Brought::Response(_) => None,
            })
            .collect()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut waiting = lock_unpoisoned(&self.port.state);
        waiting.attempts.remove(&self.id);
        if waiting.attempts.is_empty() {
            waiting.parked.clear();
        }
    }
}

fn local(host: &str) -> Result<()> {
    if matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
        return Ok(());
    }
    let why = format!("redirect_host {host} is not this computer: the token would cross a network");
    Err(Error::new(Code::InvalidConfig, why).remedy("set redirect_host to localhost"))
}

/// What is served at an origin, and what waits there.
fn origin_of(host: &str, port: u16) -> (String, Arc<Mutex<Waiting>>, Router) {
    let (host, state) = (format!("{host}:{port}"), Arc::new(Mutex::new(Waiting::default())));
    let origin = format!("http://{host}");
    let router = routes(Shared { origin: origin.clone(), waiting: state.clone() }, host);
    (origin, state, router)
}

fn busy(port: u16) -> Error {
    let holder = holder_of(port).unwrap_or_else(|| "another program".into());
    Error::new(
        Code::PortBusy,
        format!(
            "port {port}, where Keystone sends the sign-in, is held by {holder}; it would receive your token"
        ),
    )
    .remedy(format!(
        "{}ask for another redirect_port than {port} in trusted_dashboard",
        if is_held_by_us(port) { "end that program, or " } else { "" }
    ))
}

#[derive(Clone)]
struct Shared {
    origin: String,
    waiting: Arc<Mutex<Waiting>>,
}

fn routes(shared: Shared, host: String) -> Router {
    Router::new()
        .route("/clean/{id}", get(clean))
        .route("/clean/{id}/cache", get(clean_cache))
        .route("/begin/{id}", get(begin))
        .route(WEBSSO_PATH, post(callback))
        .route("/claim", post(claim))
        .route("/answer", post(answer))
        .route("/keep", post(keep))
        .route("/signing-in", get(reloaded))
        .fallback(redirected)
        .method_not_allowed_fallback(nothing_here)
        .layer(middleware::from_fn_with_state(Hosts::of_pages(host), guard::known_host))
        .with_state(shared)
}

async fn nothing_here() -> Response {
    pages::notice(
        StatusCode::NOT_FOUND,
        "refused",
        "Nothing here",
        "This address is used only while ksb signs you in to a cloud.",
        None,
    )
}

/// The callback's page gives itself this address, so that a reload does not post the token again.
async fn reloaded() -> Response {
    pages::notice(
        StatusCode::OK,
        "reloaded",
        "This page was reloaded",
        "Its part of the sign-in is over. Go back to the terminal; it says how to go on.",
        None,
    )
}

/// A service worker of an earlier owner of this port would see Keystone's POST. `Clear-Site-Data`
/// removes it, and with it the secrets of other sign-ins' tabs: so only when there are none.
async fn clean(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let alone = {
        let waiting = lock_unpoisoned(&shared.waiting);
        let mut others = waiting.attempts.iter().filter(|(other, _)| **other != id);
        waiting.attempts.contains_key(&id) && others.all(|(_, attempt)| attempt.tabs.is_empty())
    };
    let no_store = (header::CACHE_CONTROL, "no-store");
    if alone {
        (
            StatusCode::NO_CONTENT,
            [no_store, (header::HeaderName::from_static("clear-site-data"), "\"storage\"")],
        )
            .into_response()
    } else {
        (StatusCode::NO_CONTENT, [no_store]).into_response()
    }
}

/// A page of an earlier owner that the browser keeps in its cache has this origin: in our tab it could
/// read the secret, prove with it whatever it likes and answer for the user.
async fn clean_cache() -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("clear-site-data"), "\"cache\""),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Gives the tab its secret and sends it to Keystone. Each tab gets its own.
async fn begin(
    State(shared): State<Shared>,
    method: Method,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if method != Method::GET || !guard::is_navigation(&headers) {
        return refused("Open this address in a browser tab.");
    }
    let secret = Secret::random();
    let target = {
        let mut waiting = lock_unpoisoned(&shared.waiting);
        waiting.attempts.get_mut(&id).map(|attempt| {
            attempt.tabs.push_back(fingerprint(secret.expose()));
            if attempt.tabs.len() > MAX_TABS {
                attempt.tabs.pop_front();
            }
            (attempt.address.clone(), attempt.again.clone())
        })
    };
    match target {
        Some((url, again)) => pages::begin(&id, secret.expose(), url.as_str(), again.as_deref()),
        None => expired(),
    }
}

/// Keystone's form POST, or anybody's.
async fn callback(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !guard::is_navigation(&parts.headers) || !shared.may_post_here(&parts.headers) {
        return refused("Only Keystone's own sign-in page may send a token here.");
    }
    let form = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    });
    if !form {
        return refused("This is not what Keystone sends.");
    }
    let token = match guard::read(body, MAX_BODY).await {
        Ok(bytes) => token_in(&bytes),
        Err(status) => return pages::notice(status, "refused", "Refused", "The request is too large.", None),
    };
    match token {
        Some(token) => shared.park(Brought::Token(token)),
        None => refused("There is no token in this request."),
    }
}

/// An identity provider's redirect (RFC 6749 section 4.1.2), or anybody's. The path is what the operator registered,
/// so any will do; the page takes code and state out of the address bar at once.
async fn redirected(State(shared): State<Shared>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let answer = Url::parse(&shared.origin).and_then(|origin| origin.join(&uri.to_string())).ok();
    match answer.as_ref().and_then(response_in) {
        Some(answer) if method == Method::GET => {
            if guard::is_navigation(&headers) {
                shared.park(Brought::Response(Box::new(answer)))
            } else {
                refused("Only a browser's tab may bring an answer here.")
            }
        }
        _ => nothing_here().await,
    }
}

/// The answer of an identity provider in an address's query, if there is one.
pub fn response_in(url: &Url) -> Option<AuthorizationResponse> {
    let uri = url.as_str().parse().ok()?;
    let Query(answer) = Query::<AuthorizationResponse>::try_from_uri(&uri).ok()?;
    (answer.code.is_some() || answer.error.is_some()).then_some(answer)
}

impl Shared {
    /// Keeps what came until its page has proven whose it is.
    fn park(&self, brought: Brought) -> Response {
        let (claim, code) = (random_hex::<16>(), short_code());
        let mut waiting = lock_unpoisoned(&self.waiting);
        if waiting.attempts.is_empty() {
            return expired();
        }
        if waiting.parked.len() == MAX_PARKED {
            waiting.parked.pop_front();
        }
        waiting.parked.push_back(Parked { claim: claim.clone(), code: code.clone(), brought });
        pages::callback(&claim, &code)
    }

    /// On https → http browsers send `Origin: null`, for Keystone and attackers alike; a real origin
    /// must be that of a Keystone that is waited for.
    fn may_post_here(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next().map(|origin| origin.to_str().unwrap_or_default()), origins.next()) {
            (None | Some("null"), None) => true,
            (Some(origin), None) => lock_unpoisoned(&self.waiting)
                .attempts
                .values()
                .any(|attempt| attempt.address.origin().ascii_serialization() == origin),
            (_, Some(_)) => false,
        }
    }
}

/// The one plausible token in what Keystone posts, if there is one.
pub fn token_in(form: &[u8]) -> Option<Secret> {
    let mut tokens =
        url::form_urlencoded::parse(form).filter(|(name, _)| name == "token").map(|(_, value)| value);
    let token = tokens.next()?;
    // What cannot be a header's value cannot be a token either.
    let plausible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    (plausible && tokens.next().is_none()).then(|| Secret::new(token))
}

#[derive(Deserialize)]
struct Proof {
    claim: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    secret: String,
    #[serde(default)]
    accept: bool,
    #[serde(default)]
    keep: bool,
}

/// The page that answered Keystone's POST proves that it is in our tab.
async fn claim(State(shared): State<Shared>, request: Request) -> Response {
    let proof = match shared.proof(request).await {
        Ok(proof) => proof,
        Err(refusal) => return refusal,
    };
    let (mail, word, reply) = {
        let mut waiting = lock_unpoisoned(&shared.waiting);
        let Some(place) = waiting.parked.iter().position(|parked| parked.claim == proof.claim) else {
            return page_reply(PageReply::state("expired"));
        };
        if let Some((tab, mail)) = waiting.proven(&proof) {
            // Taken out: a claim counts once.
            let Some(parked) = waiting.parked.remove(place) else {
                return page_reply(PageReply::state("expired"));
            };
            (Some((Some(tab), mail)), Word::Brought(parked.brought), None)
        } else {
            let code = waiting.parked.get(place).map(|parked| parked.code.clone());
            let only = waiting.attempts.values().next().filter(|_| waiting.attempts.len() == 1);
            (
                only.map(|attempt| (None, attempt.mail.clone())),
                Word::Unproven,
                Some(PageReply { code, ..PageReply::state("unproven") }),
            )
        }
    };
    let answer = deliver(mail, proof.claim, word).await;
    page_reply(reply.unwrap_or(answer))
}

/// The user's answer on a proven page.
async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let proof = match shared.proof(request).await {
        Ok(proof) => proof,
        Err(refusal) => return refusal,
    };
    let mail = lock_unpoisoned(&shared.waiting).proven(&proof).map(|(tab, mail)| (Some(tab), mail));
    page_reply(deliver(mail, proof.claim, Word::Answer(proof.accept)).await)
}

impl Shared {
    async fn proof(&self, request: Request<Body>) -> Result<Proof, Response> {
        let (parts, body) = request.into_parts();
        if !guard::is_own_fetch(&parts.headers, &self.origin) {
            return Err(StatusCode::FORBIDDEN.into_response());
        }
        let bytes = guard::read(body, MAX_BODY).await.map_err(IntoResponse::into_response)?;
        serde_json::from_slice(&bytes).map_err(|_| StatusCode::BAD_REQUEST.into_response())
    }
}

impl Waiting {
    /// Where to deliver what a page says, if it holds the secret of a tab that a sign-in began in.
    fn proven(&self, proof: &Proof) -> Option<(TabPrint, mpsc::Sender<Mail>)> {
        let attempt = self.attempts.get(&proof.id)?;
        let shown = fingerprint(&proof.secret);
        let ours = attempt.tabs.iter().any(|tab| bool::from(tab.ct_eq(&shown)));
        ours.then(|| (shown, attempt.mail.clone()))
    }
}

/// The last page of a sign-in, for as long as its tab is open: tells the broker so, and is told when to go round again.
/// Only the tab that proved the sign-in has the secret, and it is in no storage any more.
async fn keep(State(shared): State<Shared>, request: Request) -> Response {
    let proof = match shared.proof(request).await {
        Ok(proof) => proof,
        Err(refusal) => return refusal,
    };
    let keeper = lock_unpoisoned(&shared.waiting).keepers.get(&proof.id).cloned();
    let ours = keeper.filter(|keeper| bool::from(keeper.tab.ct_eq(&fingerprint(&proof.secret))));
    match ours {
        Some(keeper) => keeper.visit(proof.keep).await,
        None => keep::over(),
    }
}

async fn deliver(to: Option<(Option<TabPrint>, mpsc::Sender<Mail>)>, claim: String, word: Word) -> PageReply {
    let expired = PageReply::state("expired");
    let Some((tab, mail)) = to else { return expired };
    let (reply, answer) = oneshot::channel();
    if mail.send(Mail { claim, tab, word, reply }).await.is_err() {
        return expired;
    }
    answer.await.unwrap_or(expired)
}

fn page_reply(reply: PageReply) -> Response {
    ([(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], axum::Json(reply))
        .into_response()
}

fn refused(text: &str) -> Response {
    pages::notice(StatusCode::FORBIDDEN, "refused", "Refused", text, None)
}

pub(super) fn expired() -> Response {
    pages::notice(
        StatusCode::GONE,
        "expired",
        "This sign-in is over",
        "It was completed, called off, or took too long. Run your command again.",
        Some("ksb login"),
    )
}

fn fingerprint(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Six characters that nobody mistakes for one another: enough to tell two pages apart by eye.
fn short_code() -> String {
    const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
    let random = random_hex::<6>();
    let digits = random.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    digits
        .filter_map(|pair| u8::from_str_radix(pair, 16).ok())
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_one_plausible_token_or_none() {
        assert_eq!(token_in(b"token=gAAA_-").map(|token| token.expose().to_owned()), Some("gAAA_-".into()));
        for junk in [&b""[..], b"token=", b"token=a&token=b", b"token=a%0d%0ab", b"\xff\xfe", b"other=1"] {
            assert!(token_in(junk).is_none(), "{junk:?}");
        }
    }

    #[test]
    fn codes_are_six_unmistakable_characters() {
        let code = short_code();
        assert_eq!(code.len(), 6);
        assert!(!code.contains(['0', 'O', '1', 'I']));
    }
}
