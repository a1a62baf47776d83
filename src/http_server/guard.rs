//! The guard: what a request must look like before a handler sees it.
//!
//! Fetch Metadata (W3C) is sent by every current browser to loopback addresses and cannot be set by
//! a page's script: a document navigation, a page's own fetch and a foreign page's request differ.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;

const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The names that a server goes by, and its answer to a request for another one.
#[derive(Clone)]
pub struct Hosts {
    /// `host:port`
    pub hosts: Vec<String>,
    /// With the status 421 (RFC 9110, section 15.5.20).
    pub refusal: fn() -> Response,
}

impl Hosts {
    /// One host of pages for browsers.
    pub fn of_pages(host: String) -> Self {
        Self { hosts: vec![host], refusal: || StatusCode::MISDIRECTED_REQUEST.into_response() }
    }
}

/// Refuses a request whose `Host` is not one of the hosts (DNS rebinding), or that speaks to a proxy
/// (absolute-form, CONNECT), before any routing.
pub async fn known_host(
    State(Hosts { hosts, refusal }): State<Hosts>,
    request: Request,
    next: Next,
) -> Response {
    let mut named = request.headers().get_all(header::HOST).iter();
    let known = match (named.next(), named.next()) {
        (Some(host), None) => {
            hosts.iter().any(|known| host.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
        }
        _ => false,
    };
    if !known || request.uri().authority().is_some() {
        return refusal();
    }
    next.run(request).await
}

/// A user's navigation of a whole tab: no frame, no fetch, no service worker's copy.
pub fn is_navigation(headers: &HeaderMap) -> bool {
    is(headers, "sec-fetch-dest", "document") && is(headers, "sec-fetch-mode", "navigate")
}

/// A fetch by a page of `origin` to its own origin.
pub fn is_own_fetch(headers: &HeaderMap, origin: &str) -> bool {
    is(headers, "sec-fetch-site", "same-origin")
        && is(headers, "sec-fetch-dest", "empty")
        && is(headers, "origin", origin)
        && is(headers, "content-type", "application/json")
}

/// Whether the header is there once, with exactly this value.
pub fn is(headers: &HeaderMap, name: &str, value: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.next().is_some_and(|found| found.as_bytes() == value.as_bytes()) && values.next().is_none()
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// Reads a body of at most `limit` bytes, as long as it keeps coming.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}
