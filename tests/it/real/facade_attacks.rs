//! Somebody else wants a token from the facade: pages in real browsers, other users of the machine, and requests that
//! are two. What Keystone was asked stands in its own log.

use std::path::Path;

use serde_json::json;

use super::front::{Front, stack};
use crate::support::api::scope;
use crate::support::sandbox::Outcome;
use crate::support::skip::{is_root, skip};
use crate::support::spawn;
use crate::support::stranger;
use crate::support::tool::{Tool, token};

/// Somebody is signed in, and a tool has a lease and a token.
fn leased() -> (Front, Tool, String) {
    let front = Front::free();
    front.ksb(&["login"]).ok();
    let tool = Tool::of(&front.lease("demo", &json!({})));
    let mine = tool.token();
    front.requests();
    (front, tool, mine)
}

#[test]
fn no_page_in_chromium_gets_anything_from_the_facade() {
    attack("chromium");
}

#[test]
fn no_page_in_firefox_gets_anything_from_the_facade() {
    attack("firefox");
}

/// Pages that know the secret, and a token that is held and would have to be asked of nobody.
fn attack(browser: &str) {
    let (front, tool, mine) = leased();
    // What a form can be made to send: a name, `=`, a value.
    let body = json!({"auth": {"identity": tool.credential()}, "x": "="}).to_string();
    let by_a_program = tool.request("POST", "/v3/auth/tokens").body("application/json", &*body);
    assert_eq!(token(&by_a_program.send()), mine, "a program is answered");
    front.requests();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/attacks/facade.mjs");
    let mut node = front.sandbox.command("node");
    node.arg(script)
        .env("NODE_EXTRA_CA_CERTS", stack("CA"))
        .env("KSB_ATTACK_BROWSER", browser)
        .env("KSB_FACADE_PORT", tool.facade.port().to_string())
        .env("KSB_FACADE_BODY", body)
        .env("KSB_FACADE_TOKEN", &mine);
    let outcome = Outcome::from(spawn::output(&mut node)).ok();
    println!("{}", outcome.stdout);
    assert!(!outcome.stdout.contains(&mine));
    let asked = front.requests();
    assert!(asked.is_empty(), "Keystone was asked: {asked:?}");
    assert_eq!(tool.token(), mine, "and nothing was revoked");
}

/// Whoever has the lease's secret and even a token of it, but is not us: the connection is closed without a word.
#[test]
fn another_user_of_the_machine_gets_nothing_from_the_facade() {
    if !is_root() {
        skip!("root, to be another user");
    }
    let (front, tool, mine) = leased();
    let port = tool.facade.port();
    let requests = [
        tool.request("GET", "/v3"),
        tool.auth(&tool.credential(), None),
        tool.auth(
            &json!({"methods": ["token"], "token": {"id": tool.handle}}),
            Some(&scope::project("demo")),
        ),
        tool.with(&mine, "GET", "/v3/auth/projects"),
    ];
    for there in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("[::ffff:127.0.0.1]:{port}")]
    {
        for request in &requests {
            let said = stranger::asks(&there, &request.bytes());
            assert_eq!(said, "", "{there}: a stranger was answered");
        }
    }
    let asked = front.requests();
    assert!(asked.is_empty(), "Keystone was asked: {asked:?}");
    for there in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("[::ffff:127.0.0.1]:{port}")]
    {
        for request in &requests {
            let said = stranger::we_ask(&there, &request.bytes());
            assert!(said.starts_with("HTTP/1.1 20"), "{there}: the same from ourselves: {said}");
        }
    }
}

/// What is meant to lead somewhere else with the tool's token, and tokens that were not given out here.
#[test]
fn nothing_leads_to_another_host_and_no_other_token_leads_to_keystone() {
    let (front, tool, mine) = leased();
    let persons = front.token(&[]);
    let admin = front.keystone.admin();
    front.requests();
    // Named otherwise, it is still Keystone alone that is asked, at the same address.
    for (name, value) in [
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Prefix", "/evil"),
        ("Forwarded", "host=evil.example;proto=http"),
        ("X-Original-URL", "/v3/users"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Auth-Token-2", &persons),
        ("Cookie", "a=b"),
        ("Authorization", "Basic YTpi"),
    ] {
        let answer = tool.with(&mine, "GET", "/v3/auth/projects").add(name, value).send();
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert!(!answer.body.contains("evil"), "{name}: {answer:?}");
    }
    let asked = front.requests();
    assert!(
        asked.iter().all(|asked| (&*asked.method, &*asked.path) == ("GET", "/v3/auth/projects")),
        "{asked:?}"
    );
    assert_eq!(asked.len(), 9);
    let target = |target: &str| tool.with(&mine, "GET", "/v3/auth/projects").target(target);
    let nowhere = [
        target("http://evil.example/v3/auth/projects"),
        target("//evil.example/v3/auth/projects"),
        target("/v3//evil.example/"),
        target("/v3/@evil.example/../../x"),
        target("/v3/..;/x"),
        target("/v3/x/../../y"),
        target("/v3/%2e%2e/x"),
        target("evil.example:443"),
        target("*"),
        tool.with(&mine, "GET", "/v3/auth/projects").set("Host", "evil.example"),
        tool.with(&mine, "GET", "/v3/auth/projects").add("Host", "evil.example"),
        tool.with(&mine, "CONNECT", "/").target("evil.example:443"),
        // Another's token, two tokens, none.
        tool.with(&persons, "GET", "/v3/auth/projects"),
        tool.with(&admin.token, "GET", "/v3/users"),
        tool.with(&mine, "GET", "/v3/auth/projects").add("X-Auth-Token", &persons),
        tool.with(&mine, "GET", "/v3/auth/tokens").add("X-Subject-Token", &persons),
        tool.with(&mine, "DELETE", "/v3/auth/tokens").add("X-Subject-Token", &persons),
        tool.with(&mine, "DELETE", "/v3/auth/tokens")
            .add("X-Subject-Token", &mine)
            .add("X-Subject-Token", &persons),
        tool.request("GET", "/v3/auth/projects"),
    ];
    for request in nowhere {
        let response = request.send();
        let text = String::from_utf8_lossy(&request.bytes()).lines().take(4).collect::<Vec<_>>().join(" | ");
        assert!([400, 401, 404, 421].contains(&response.status), "{text}: {response:?}");
        assert_eq!(response.header("x-subject-token"), None, "{text}");
    }
    let asked = front.requests();
    assert!(asked.is_empty(), "Keystone was asked: {asked:?}");
    assert!(front.keystone.accepts(&persons) && front.keystone.accepts(&mine));
}

/// Requests that are one to some and two to others. There is one parser here, and what goes out is a request of its own:
/// Keystone sees each at most once, with the token that it came with.
#[test]
fn a_smuggled_request_never_reaches_keystone() {
    let (front, tool, mine) = leased();
    let port = tool.facade.port();
    let smuggled = format!(
        "GET /v3/users HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Auth-Token: stolen\r\nConnection: close\r\n\r\n"
    );
    let head =
        format!("POST /v3/auth/projects HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Auth-Token: {mine}\r\n");
    let length = smuggled.len();
    let said = [
        // What follows the request is an own one: it has no token of a lease, so that it goes nowhere.
        format!("{head}Content-Length: 0\r\n\r\n{smuggled}"),
        // The body is a body, whatever it looks like.
        format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{smuggled}"),
        format!(
            "{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{length:x};a=\"b\r\n\"\r\n{smuggled}\r\n0\r\n\r\n"
        ),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{head}Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
        format!("{head}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{head}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{head}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
        format!("{head}Content-Length: 0, {length}\r\n\r\n{smuggled}"),
        format!("{head}Content-Length: +0\r\n\r\n{smuggled}"),
        format!("{head}X-Folded: a\r\n b: c\r\n\r\n{smuggled}"),
        format!("{}Content-Length: 0\n\n{smuggled}", head.replace("\r\n", "\n")),
        format!("{head}X-Bare: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{head}X-Null: a\0b\r\n\r\n{smuggled}"),
    ];
    for bytes in said {
        front.requests();
        let answers = stranger::we_ask(&format!("127.0.0.1:{port}"), bytes.as_bytes());
        let asked = front.requests();
        assert!(asked.len() <= 1, "{bytes:?}: {asked:?}");
        assert!(asked.iter().all(|asked| asked.path == "/v3/auth/projects"), "{bytes:?}: {asked:?}");
        let good = answers.matches("HTTP/1.1 2").count();
        assert_eq!(good, 0, "{bytes:?}: {answers}");
    }
    assert_eq!(tool.with(&mine, "GET", "/v3/auth/projects").send().status, 200);
}
