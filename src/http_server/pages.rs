//! The pages a browser sees during a sign-in: self-contained, nothing from elsewhere, no cookie, no token.
//!
//! Every page is shown by a template of `pages/`, with a nonce of its own and a content security policy that lets
//! nothing else in. What a script needs to know is given to it as a block of JSON, never as code.

use askama::Template;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::Url;

/// What a sign-in is for, as the first page tells it.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The cloud's label.
    pub cloud: &'a str,
    /// Keystone's host.
    pub keystone: &'a str,
    /// The identity provider's name, where the entry names one.
    pub identity_provider: Option<&'a str>,
}

/// The page behind the link that the user opens, on an origin nobody else can have prepared
/// (`http://localhost:<ephemeral>/start/<id>`): has the callback's origin cleaned, then goes there.
pub fn start(cloud: &About<'_>, clean_url: &str, begin_url: &str) -> Response {
    let About { cloud, keystone, identity_provider } = *cloud;
    let nonce = nonce();
    let data = script_json(&json!({ "clean": clean_url, "begin": begin_url }));
    let page =
        Start { nonce: &nonce, data, cloud, keystone, identity_provider, begin_url: web_url(begin_url) };
    let mut response = respond(StatusCode::OK, &nonce, &origin(clean_url), &page);
    // Whoever opened this tab loses hold of it before it gets its secret: a page that an earlier owner of the
    // callback's port left open has the callback's origin and could read it there.
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    response.headers_mut().insert(opener, HeaderValue::from_static("same-origin"));
    response
}

/// The first page on the callback's origin (`/begin/<id>`): leaves the secret in the tab and goes on to Keystone.
/// `again` is the cloud that this tab was signed in to before.
pub fn begin(id: &str, secret: &str, websso_url: &str, again: Option<&str>) -> Response {
    let nonce = nonce();
    let parsed = Url::parse(websso_url).ok();
    let keystone = parsed.as_ref().and_then(Url::host_str).unwrap_or("Keystone");
    let websso_url = web_url(websso_url);
    let data = script_json(&json!({ "id": id, "secret": secret, "websso": websso_url }));
    respond(StatusCode::OK, &nonce, "'none'", &Begin { nonce: &nonce, data, keystone, websso_url, again })
}

/// The answer to Keystone's form POST (`/auth/websso/`). It holds no token: the token waits under `claim` until the
/// page's script has proved, with the secret in the tab, that the sign-in began here. `code` is what the terminal
/// shows too, for a user whose browser cannot prove it.
pub fn callback(claim: &str, code: &str) -> Response {
    let nonce = nonce();
    let data = script_json(&json!({ "claim": claim, "code": code }));
    respond(StatusCode::OK, &nonce, "'self'", &Callback { nonce: &nonce, data, code })
}

/// A page that only says something: an expired link, a refused request. `state` is what the body's
/// `data-ksb-state` says. In `text` and `remedy` a command may stand in backticks.
pub fn notice(status: StatusCode, state: &str, title: &str, text: &str, remedy: Option<&str>) -> Response {
    let nonce = nonce();
    let (text, remedy) = (pieces(text), remedy.map(pieces).unwrap_or_default());
    let page = Notice { nonce: &nonce, state, title, text, remedy, bad: !status.is_success() };
    respond(status, &nonce, "'none'", &page)
}

#[derive(Template)]
#[template(path = "start.html")]
struct Start<'a> {
    nonce: &'a str,
    data: String,
    cloud: &'a str,
    keystone: &'a str,
    identity_provider: Option<&'a str>,
    begin_url: &'a str,
}

#[derive(Template)]
#[template(path = "begin.html")]
struct Begin<'a> {
    nonce: &'a str,
    data: String,
    keystone: &'a str,
    websso_url: &'a str,
    again: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "callback.html")]
struct Callback<'a> {
    nonce: &'a str,
    data: String,
    code: &'a str,
}

#[derive(Template)]
#[template(path = "notice.html")]
struct Notice<'a> {
    nonce: &'a str,
    state: &'a str,
    title: &'a str,
    text: Vec<Piece<'a>>,
    remedy: Vec<Piece<'a>>,
    bad: bool,
}

/// Part of a text: plain, or a command.
#[derive(Debug, PartialEq, Eq)]
struct Piece<'a> {
    code: bool,
    text: &'a str,
}

/// Splits a text at its backticks; a remedy that is nothing but a `ksb` command needs none. `fill` in `shared.js`
/// does the same.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let prose = |word: &str| word.ends_with(['.', ',', ':', ';']);
    if text.starts_with("ksb ") && !text.contains('`') && !text.split_whitespace().any(prose) {
        return vec![Piece { code: true, text }];
    }
    text.split('`').enumerate().map(|(index, text)| Piece { code: index % 2 == 1, text }).collect()
}

/// A value as JSON that is safe between `<script>` and `</script>`: what could end the element, open a comment or be
/// taken for a line end is escaped, which only ever occurs inside JSON's strings.
fn script_json(value: &Value) -> String {
    let json = value.to_string();
    let mut safe = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            other => safe.push(other),
        }
    }
    safe
}

/// The URL itself when a browser may be sent there, else nothing: never `javascript:` or `data:`.
fn web_url(url: &str) -> &str {
    match Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => url,
        _ => "",
    }
}

/// A URL's origin as a source of the policy; `'none'` for what would not be one.
fn origin(url: &str) -> String {
    let plain = |origin: &String| {
        origin.starts_with("http")
            && origin.chars().all(|c| c.is_ascii_alphanumeric() || ":/.-[]".contains(c))
    };
    Url::parse(url)
        .ok()
        .map(|url| url.origin().ascii_serialization())
        .filter(plain)
        .unwrap_or_else(|| "'none'".to_owned())
}

/// 128 random bits for one response. Empty when the system has none to give: `respond` then shows no page.
fn nonce() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_or_else(|_| String::new(), |()| URL_SAFE_NO_PAD.encode(bytes))
}

/// Renders a page and puts the headers on. There is no Cross-Origin-Opener-Policy among them: once the tab has its
/// secret, that would move it to another browsing context group and could cut it off from its sessionStorage.
fn respond(status: StatusCode, nonce: &str, connect: &str, page: &impl Template) -> Response {
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src {connect}; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let (Ok(html), Ok(policy), false) = (page.render(), HeaderValue::try_from(policy), nonce.is_empty())
    else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "keystone-broker could not make this page.\n")
            .into_response();
    };
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (status, fixed, [(header::CONTENT_SECURITY_POLICY, policy)], html).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</script><img src=x onerror=alert(1)> \" ' & <!-- \u{2028}\u{2029} \u{202e}ü☃";

    fn all() -> Vec<Response> {
        let about = About { cloud: HOSTILE, keystone: HOSTILE, identity_provider: Some(HOSTILE) };
        vec![
            start(&about, "http://localhost:9990/clean/abc", "http://localhost:9990/begin/abc"),
            begin(HOSTILE, HOSTILE, "https://keystone.example.org/v3/auth?origin=<script>", Some(HOSTILE)),
            callback(HOSTILE, HOSTILE),
            notice(StatusCode::GONE, HOSTILE, HOSTILE, HOSTILE, Some(HOSTILE)),
        ]
    }

    fn policy(response: &Response) -> String {
        response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned()
    }

    fn nonce_of(response: &Response) -> String {
        policy(response).split("script-src 'nonce-").nth(1).expect("a nonce")[..22].to_owned()
    }

    async fn text(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    /// What a page's script would read.
    fn data(html: &str) -> Value {
        let start = html.split("id=\"ksb-data\">").nth(1).expect("data");
        serde_json::from_str(start.split("</script>").next().expect("its end")).expect("JSON")
    }

    #[test]
    fn every_page_carries_the_headers() {
        for response in all() {
            let has = |name: &str, value: &str| assert_eq!(response.headers()[name], value, "{name}");
            has("content-type", "text/html; charset=utf-8");
            has("cache-control", "no-store");
            has("referrer-policy", "no-referrer");
            has("x-content-type-options", "nosniff");
            has("x-frame-options", "DENY");
            has("cross-origin-resource-policy", "same-origin");
            let policy = policy(&response);
            for part in
                ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
            {
                assert!(policy.contains(part), "{policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
        }
    }

    #[test]
    fn only_the_start_page_lets_go_of_its_opener() {
        let lets_go = |page: &Response| page.headers().contains_key("cross-origin-opener-policy");
        assert_eq!(all().iter().map(lets_go).collect::<Vec<_>>(), [true, false, false, false]);
    }

    #[test]
    fn each_page_may_reach_only_what_it_needs() {
        let connect: Vec<_> = all()
            .iter()
            .map(|page| {
                policy(page).split("connect-src ").nth(1).and_then(|p| p.split(';').next()).map(str::to_owned)
            })
            .collect();
        let wanted = ["http://localhost:9990", "'none'", "'self'", "'none'"];
        assert_eq!(connect, wanted.map(|source| Some(source.to_owned())));
    }

    #[test]
    fn an_origin_cannot_widen_the_policy() {
        assert_eq!(origin("http://localhost:9990/clean?x=;script-src *"), "http://localhost:9990");
        assert_eq!(origin("http://a;script-src/"), "'none'");
        assert_eq!(origin("data:text/html,x"), "'none'");
        assert_eq!(origin("nonsense"), "'none'");
    }

    #[test]
    fn a_nonce_is_used_once() {
        let nonces: std::collections::HashSet<_> = all().iter().chain(&all()).map(nonce_of).collect();
        assert_eq!(nonces.len(), 8);
    }

    #[tokio::test]
    async fn hostile_text_stays_text() {
        for response in all() {
            let nonce = nonce_of(&response);
            let html = text(response).await;
            assert!(!html.contains("<img"), "{html}");
            assert!(!html.contains("<!-- "), "{html}");
            for tag in html.split("<script").skip(1) {
                let head = tag.split('>').next().unwrap_or_default();
                let ours = format!(" nonce=\"{nonce}\"");
                assert!(head == ours || head == " type=\"application/json\" id=\"ksb-data\"", "{head}");
            }
            assert_eq!(html.matches("<script").count(), html.matches("</script>").count());
            // Only askama and `script_json` put values in: nothing is left that a policy would have to stop.
            assert!(!html.contains("javascript:") && !html.contains(" style=") && !html.contains(" onclick"));
        }
    }

    #[tokio::test]
    async fn scripts_read_back_what_was_given() {
        let html = text(callback(HOSTILE, "K7MX")).await;
        assert_eq!(data(&html), json!({ "claim": HOSTILE, "code": "K7MX" }));
        let html = text(begin("id", HOSTILE, "https://keystone.example.org/v3?a=b&c=d", None)).await;
        let wanted =
            json!({ "id": "id", "secret": HOSTILE, "websso": "https://keystone.example.org/v3?a=b&c=d" });
        assert_eq!(data(&html), wanted);
    }

    #[test]
    fn json_for_scripts_has_nothing_that_html_knows() {
        let safe = script_json(&json!({ HOSTILE: [HOSTILE, null, 1, "\\u003c"] }));
        assert!(!safe.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{safe}");
        let back: Value = serde_json::from_str(&safe).expect("still JSON");
        assert_eq!(back, json!({ HOSTILE: [HOSTILE, null, 1, "\\u003c"] }));
    }

    #[tokio::test]
    async fn a_browser_is_sent_to_the_web_only() {
        let html = text(begin("id", "secret", "javascript:alert(1)", None)).await;
        assert!(!html.contains("javascript:"), "{html}");
        assert_eq!(data(&html)["websso"], "");
    }

    #[tokio::test]
    async fn states_are_in_the_body() {
        let about = About { cloud: "demo", keystone: "keystone.example.org", identity_provider: None };
        let page = start(&about, "http://localhost:9990/clean", "http://localhost:9990/begin/x");
        assert!(text(page).await.contains("<body data-ksb-state=\"starting\">"));
        assert!(
            text(begin("a", "b", "https://k/", None)).await.contains("<body data-ksb-state=\"starting\">")
        );
        let html = text(callback("a", "K7MX")).await;
        assert!(html.contains("<body data-ksb-state=\"checking\">"));
        let known = [
            "checking",
            "confirm",
            "done",
            "wrong-user",
            "unproven",
            "refused",
            "expired",
            "failed",
            "declined",
        ];
        for state in known {
            assert_eq!(html.matches(&format!("<section data-state=\"{state}\"")).count(), 1, "{state}");
        }
        let page = notice(StatusCode::GONE, "expired", "Over", "Too late.", Some("ksb login demo"));
        assert_eq!(page.status(), StatusCode::GONE);
        let html = text(page).await;
        assert!(
            html.contains("<body data-ksb-state=\"expired\">")
                && html.contains("<code>ksb login demo</code>")
        );
    }

    #[test]
    fn commands_are_told_from_prose() {
        let plain = |text| Piece { code: false, text };
        let code = |text| Piece { code: true, text };
        assert_eq!(pieces("ksb login my.cloud"), [code("ksb login my.cloud")]);
        assert_eq!(pieces("ksb is gone. Start it."), [plain("ksb is gone. Start it.")]);
        assert_eq!(
            pieces("Run `ksb agent stop`, then wait"),
            [plain("Run "), code("ksb agent stop"), plain(", then wait")]
        );
    }
}
