//! A rate limiter before the real Keystone: it refuses some requests for tokens, and passes everything else on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use reqwest::{Certificate, Client};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::front::{Front, stack};

/// The limiter; it ends when it is dropped.
pub struct Limiter {
    address: SocketAddr,
    state: Arc<Limit>,
    _runtime: Runtime,
}

struct Limit {
    client: Client,
    /// Scheme, host and port of Keystone.
    upstream: String,
    /// How many requests for tokens are still refused.
    left: AtomicUsize,
}

impl Limiter {
    /// Before a front.
    pub fn before(front: &Front) -> Self {
        let ca = Certificate::from_pem(&std::fs::read(stack("CA")).unwrap()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(Limit {
            client: Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap(),
            upstream: front.auth_url().trim_end_matches("/v3").to_owned(),
            left: AtomicUsize::new(0),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(state.clone());
        runtime.spawn(async { axum::serve(listener, router).await });
        Self { address, state, _runtime: runtime }
    }

    /// Keystone's address for those who come this way.
    pub fn auth_url(&self) -> String {
        format!("http://{}/v3", self.address)
    }

    /// Refuses the next requests for tokens.
    pub fn refuse(&self, times: usize) {
        self.state.left.store(times, Ordering::SeqCst);
    }

    /// How many are still to be refused.
    pub fn left(&self) -> usize {
        self.state.left.load(Ordering::SeqCst)
    }
}

async fn answer(State(limit): State<Arc<Limit>>, request: Request) -> Response {
    let is_for_a_token = request.method() == Method::POST && request.uri().path() == "/v3/auth/tokens";
    let less = |left: usize| left.checked_sub(1);
    if is_for_a_token && limit.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "slow down").into_response();
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(header::HOST);
    let url = format!("{}{}", limit.upstream, parts.uri.path_and_query().unwrap());
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let sent =
        limit.client.request(parts.method, url).headers(parts.headers).body(body).send().await.unwrap();
    let (status, headers) = (sent.status(), sent.headers().clone());
    let mut response = (status, Body::from(sent.bytes().await.unwrap())).into_response();
    *response.headers_mut() = headers;
    response
}
