//! HTTPS to clouds: one client for each (TLS trust, proxy), which follows no redirect.
//!
//! The agent uses no proxy variable and no CA file of its own environment: a client that lives in
//! the user's shell has sent what holds there.

mod errors;
mod tls_files;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use axum::http;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
pub use reqwest::Client;
use reqwest::{Certificate, Identity as ClientIdentity, Proxy, RequestBuilder, redirect};
use sha2::{Digest, Sha256};

use self::tls_files::Named;
use crate::error::{Code, Error, Result, reason};
use crate::model::{Cloud, page_words};
use crate::sync::lock_unpoisoned;
use crate::time::SharedClock;

pub use errors::{around, proxy_of};

/// Keystone answers in a second or not at all; a catalog of a large cloud is far below this.
const TIMEOUT: Duration = Duration::from_mins(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 16 << 20;

/// What a cloud's TLS files hold: equal contents under different paths are the same trust.
pub type TrustDigest = [u8; 32];

/// A TLS file is looked at again after this long: not for each token that is served.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// The HTTP clients, made when first needed.
pub struct Outbound {
    clock: SharedClock,
    clients: Mutex<HashMap<Route, Client>>,
    files: Mutex<HashMap<PathBuf, Seen>>,
}

/// TLS trust, whether it is checked, and the proxy.
type Route = (TrustDigest, bool, Option<String>);

/// A TLS file as it was found.
struct Seen {
    looked_at: Timestamp,
    /// When the file changes, so does one of these.
    stamp: Option<(u64, u64, i64, i64)>,
    digest: [u8; 32],
}

/// An answer read to its end.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Response headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// A header's value, when it is there and readable.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The server's clock (`Date`, RFC 9110 section 6.6.1).
    pub fn date(&self) -> Option<Timestamp> {
        rfc2822::parse(self.header("date")?).ok().map(|date| date.timestamp())
    }

    /// How long a server that is busy wants to be left alone (`Retry-After`, RFC 9110 section 10.2.3).
    pub fn retry_after(&self, now: Timestamp) -> Option<SignedDuration> {
        let value = self.header("retry-after").filter(|_| matches!(self.status, 429 | 503))?.trim();
        if let Ok(seconds) = value.parse::<u32>() {
            return Some(SignedDuration::from_secs(seconds.into()));
        }
        let then = rfc2822::parse(value).ok()?.timestamp();
        Some(then.duration_since(self.date().unwrap_or(now)))
    }

    /// The title of a page, or the first words of a text, to name an answer that was not asked for.
    pub fn title(&self) -> Option<String> {
        let lower = self.body.to_ascii_lowercase();
        let of_page = lower.find("<title").and_then(|at| {
            let begin = at + lower[at..].find('>')? + 1;
            self.body.get(begin..begin + lower[begin..].find('<')?)
        });
        let is_page = lower.trim_start().starts_with('<');
        let words = page_words(of_page.unwrap_or(if is_page { "" } else { &self.body }));
        Some(words).filter(|words| !words.is_empty())
    }
}

impl Outbound {
    /// No client yet.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, clients: Mutex::default(), files: Mutex::default() }
    }

    /// Digest of the files that decide whom we trust and who we are.
    pub fn trust_of(&self, cloud: &Cloud) -> Result<TrustDigest> {
        let [ca, cert, key] =
            tls_files::named(cloud).map(|file| file.map(|file| self.digest(&file)).transpose());
        Ok(tls_files::trust([ca?, cert?, key?]))
    }

    fn digest(&self, file: &Named<'_>) -> Result<[u8; 32]> {
        let now = self.clock.now();
        let mut files = lock_unpoisoned(&self.files);
        if let Some(seen) = files.get(file.path)
            && now.duration_since(seen.looked_at).abs() < LOOK_AGAIN
        {
            return Ok(seen.digest);
        }
        let stamp = file.stamp()?;
        let digest = match files.get(file.path) {
            Some(seen) if stamp.is_some() && seen.stamp == stamp => seen.digest,
            _ => Sha256::digest(file.read()?).into(),
        };
        files.insert(file.path.to_owned(), Seen { looked_at: now, stamp, digest });
        Ok(digest)
    }

    /// The client for `cloud`.
    pub fn client(&self, cloud: &Cloud) -> Result<Client> {
        let judged = self.trust_of(cloud)?;
        let route = (judged, cloud.tls.verify, cloud.proxy.clone());
        if let Some(client) = lock_unpoisoned(&self.clients).get(&route) {
            return Ok(client.clone());
        }
        let [ca, cert, key] = tls_files::named(cloud).map(|file| file.map(|file| file.read()).transpose());
        let contents = [ca?, cert?, key?];
        let digest = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| Sha256::digest(bytes).into());
        let read = tls_files::trust([digest(&contents[0]), digest(&contents[1]), digest(&contents[2])]);
        if read != judged {
            // The session was chosen by the digest of the file's earlier content.
            lock_unpoisoned(&self.files).clear();
            return Err(bad_tls(cloud, "a file of its TLS settings has just changed".into())
                .remedy("run your command again"));
        }
        let client = build(cloud, &contents)?;
        lock_unpoisoned(&self.clients).insert(route, client.clone());
        Ok(client)
    }
}

fn build(cloud: &Cloud, [ca, cert, key]: &[Option<Vec<u8>>; 3]) -> Result<Client> {
    let [ca_file, cert_file, _] = tls_files::named(cloud);
    let bad = |file: &Option<Named<'_>>, why: &str| match file {
        Some(file) => file.unreadable(why).cloud(cloud.label()),
        None => bad_tls(cloud, why.to_owned()),
    };
    // The second and later calls find the provider installed, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("keystone-broker/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        // A connection that died unseen, as in a sleep or in another network, would take a request with it; and what
        // changes something must not be sent twice for that (RFC 9110 section 9.2.2).
        .pool_max_idle_per_host(0)
        .no_proxy();
    if let Some(proxy) = &cloud.proxy {
        let proxy = Proxy::all(proxy)
            .map_err(|_| bad_tls(cloud, format!("proxy {}: not an address", proxy_of(cloud))))?;
        builder = builder.proxy(proxy);
    }
    if !cloud.tls.verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else if let Some(pem) = ca {
        let certificates =
            Certificate::from_pem_bundle(pem).map_err(|error| bad(&ca_file, &error.to_string()))?;
        if certificates.is_empty() {
            return Err(bad(&ca_file, "holds no certificate"));
        }
        builder = builder.tls_certs_only(certificates);
    }
    if let Some(pem) = cert {
        let pem = [pem, b"\n".as_slice(), key.as_deref().unwrap_or_default()].concat();
        let identity = ClientIdentity::from_pem(&pem)
            .map_err(|error| bad(&cert_file, &format!("no client certificate: {error}")))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| bad_tls(cloud, errors::cause(&error)))
}

fn bad_tls(cloud: &Cloud, detail: String) -> Error {
    Error::new(Code::InvalidConfig, detail)
        .cloud(cloud.label())
        .remedy(format!("ksb clouds show {}", cloud.argument()))
}

/// The addresses of a name.
pub async fn addresses(host: &str, port: u16, patience: Duration) -> Result<Vec<IpAddr>, String> {
    match tokio::time::timeout(patience, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => {
            let mut found: Vec<_> = found.map(|address| address.ip()).collect();
            found.dedup();
            Ok(found)
        }
        Ok(Err(error)) => Err(reason(&error)),
        Err(_) => Err(format!("no name server answered within {} s", patience.as_secs())),
    }
}

/// Words for an answer that may be the proxy's own.
pub fn via(cloud: &Cloud) -> String {
    match cloud.proxy {
        Some(_) => format!(", or the proxy {} answered in its place", proxy_of(cloud)),
        None => String::new(),
    }
}

/// Whom a request goes to; errors are named after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The cloud's Keystone.
    Keystone,
    /// Its identity provider.
    IdentityProvider,
    /// Whoever has the address that a user gave.
    Dashboard,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Keystone => "Keystone",
            Self::IdentityProvider => "the identity provider",
            Self::Dashboard => "the server",
        }
    }

    /// Unreachable, not trusted, and everything else.
    fn codes(self) -> (Code, Code, Code) {
        match self {
            Self::Dashboard => (Code::KeystoneUnreachable, Code::KeystoneTls, Code::NotKeystone),
            Self::Keystone => (Code::KeystoneUnreachable, Code::KeystoneTls, Code::KeystoneError),
            Self::IdentityProvider => {
                (Code::IdentityProviderUnreachable, Code::IdentityProviderTls, Code::IdentityProviderError)
            }
        }
    }
}

/// Sends a request whose answer is somebody else's to read.
pub async fn pass_on(
    cloud: &Cloud,
    peer: Peer,
    request: RequestBuilder,
) -> Result<http::Response<reqwest::Body>> {
    let response = request.send().await.map_err(|error| errors::of(cloud, peer, &error))?;
    Ok(response.into())
}

/// Sends a request and reads the whole answer.
pub async fn send(cloud: &Cloud, peer: Peer, request: RequestBuilder) -> Result<Answer> {
    let failure = |error: reqwest::Error| errors::of(cloud, peer, &error);
    let mut response = request.send().await.map_err(failure)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    if status == 407 {
        return Err(errors::proxy_wants_a_name(cloud, peer));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > MAX_BODY {
            let why = format!("the answer of {} is larger than 16 MiB", peer.name());
            return Err(Error::new(peer.codes().2, why).cloud(cloud.label()));
        }
        body.extend_from_slice(&chunk);
    }
    let body = String::from_utf8(body).map_err(|_| {
        let code =
            if peer == Peer::IdentityProvider { Code::IdentityProviderError } else { Code::NotKeystone };
        Error::new(code, format!("the answer of {} is not text", peer.name())).cloud(cloud.label())
    })?;
    Ok(Answer { status, headers, body })
}
