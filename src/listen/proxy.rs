//! What the facade does not answer itself: the rest of `/v3` is passed on to the cloud's Keystone.
//!
//! Only for tokens that a living lease was given, only to the Keystone that they are of, and without whatever else a
//! client may have sent along.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::Response;
use url::Url;

use super::facade::{Facade, Failure, refusal};
use crate::http_server::guard;

/// Keystone takes 112 KiB unless its operator says otherwise.
const MAX_BODY: usize = 1 << 20;
/// What a client's request may bring along.
const SENT: [&str; 5] =
    ["accept", "content-type", "openstack-api-version", "x-auth-token", "x-subject-token"];
/// What belongs to one connection (RFC 9110 section 7.6.1), what a browser would keep, and what lets its pages read.
const NOT_RETURNED: [HeaderName; 10] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::SET_COOKIE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Passes a request on, and the answer back.
pub(super) async fn pass_on(State(facade): State<Facade>, request: Request) -> Result<Response, Failure> {
    let (lease, token) = facade.admit(request.headers())?;
    let keystone = facade.broker.keystone_of(&lease)?;
    let (parts, body) = request.into_parts();
    let Some(url) = below(keystone.root(), &parts.uri) else {
        return Err(Failure::from(refusal(
            StatusCode::BAD_REQUEST,
            "the path leads out of the Identity API",
        )));
    };
    let headers: HeaderMap = parts
        .headers
        .iter()
        .filter(|(name, _)| SENT.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), sensitive(name, value)))
        .collect();
    // A question is small, and goes out whole or not at all; answers can be long, and stream.
    let body = guard::read(body, MAX_BODY).await;
    let body = body.map_err(|status| {
        Failure::from(refusal(status, "the body is too large, malformed, or does not come"))
    })?;
    let answer = keystone.pass_on(parts.method, url, headers, body).await?;
    match answer.status() {
        StatusCode::UNAUTHORIZED => facade.broker.lost(&lease, &token),
        // So Keystone also answers a token whose application credential was deleted.
        StatusCode::NOT_FOUND => facade.broker.doubt(&lease, &token),
        _ => {}
    }
    let (mut parts, body) = answer.into_parts();
    for name in of_the_connection(&parts.headers).into_iter().chain(NOT_RETURNED) {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// What the other side says is about its connection alone.
fn of_the_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let said = headers.get_all(header::CONNECTION).iter().filter_map(|said| said.to_str().ok());
    said.flat_map(|said| said.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

fn sensitive(name: &HeaderName, value: &axum::http::HeaderValue) -> axum::http::HeaderValue {
    let mut value = value.clone();
    value.set_sensitive(name.as_str().ends_with("-token"));
    value
}

/// The address below Keystone's root. A path with dot segments, written out or not, could lead to its neighbours: the
/// parser resolves them, and what is then not below the root is nothing of ours.
fn below(root: &str, uri: &Uri) -> Option<Url> {
    let prefix = Url::parse(&format!("{root}/v3/")).ok()?;
    let url = Url::parse(&format!("{root}{}", uri.path_and_query()?)).ok()?;
    let stays = url.origin() == prefix.origin() && url.path().starts_with(prefix.path());
    let plain = !url.path().contains("//") && url.path_segments()?.all(|segment| !is_dots(segment));
    (stays && plain && url.username().is_empty() && url.fragment().is_none()).then_some(url)
}

/// A segment that some server behind us may take for `.` or `..`.
fn is_dots(segment: &str) -> bool {
    let decoded = segment.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    // Some take what follows a semicolon for a parameter of the segment.
    decoded.replace('\\', "/").split('/').any(|part| matches!(part.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_identity_api() {
        let root = "https://cloud.example.org/identity";
        let below = |path: &str| below(root, &path.parse().ok()?).map(String::from);
        assert_eq!(below("/v3/projects?name=a%2Fb").unwrap(), format!("{root}/v3/projects?name=a%2Fb"));
        assert_eq!(below("/v3/users/a%2Fb").unwrap(), format!("{root}/v3/users/a%2Fb"));
        let leads_out = [
            "/v3/../admin",
            "/v3/%2e%2e/admin",
            "/v3/%2E./%2e./admin",
            "/v3/x/../../..//evil.example.org/",
            "/v3/..%2fadmin",
            "/v3/..;/admin",
            "/v3/x%5c..%5c..",
            "/v3//evil.example.org/",
            "/v2.0/tokens",
        ];
        for path in leads_out {
            assert_eq!(below(path), None, "{path}");
        }
    }
}
