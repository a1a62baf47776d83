//! The facade against the double: what tools ask of a Keystone, and what nobody else gets.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::api::{Answer, scope};
use crate::support::http::{Request, Response, connect};
use crate::support::keystone::{EXCHANGE, Fault, VALIDATION};
use crate::support::lab::{Lab, until};
use crate::support::tool::{Tool, token};
use crate::support::world::World;

/// A lease of the cloud for its project demo, with whatever else it is to be.
#[track_caller]
fn lease_with(lab: &Lab, more: &Value) -> Answer {
    let mut request = json!({"cloud": lab.cloud(), "scope": scope::project("demo")});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    lab.api().post("/v1/leases", &request)
}

#[track_caller]
fn tool(lab: &Lab) -> Tool {
    Tool::of(&lease_with(lab, &json!({})))
}

/// Alice is signed in, and a tool has a lease.
fn signed_in() -> (Lab, Tool) {
    let lab = Lab::new();
    lab.signed_in("alice");
    let tool = tool(&lab);
    (lab, tool)
}

#[track_caller]
fn refusal(response: &Response, status: u16) -> String {
    assert_eq!(response.status, status, "{response:?}");
    let error = &response.json()["error"];
    assert_eq!(error["code"], status, "{error}");
    assert!(error["title"].is_string(), "{error}");
    error["message"].as_str().unwrap().to_owned()
}

// --- what tools ask ---

#[test]
fn discovery_names_the_facade_itself_and_asks_nobody_who_they_are() {
    let (lab, tool) = signed_in();
    let requests = lab.keystone.requests();
    let own = format!("http://{}/v3/", tool.facade);
    let root = tool.request("GET", "/").send();
    assert_eq!(root.status, 300);
    assert_eq!(root.header("vary"), Some("X-Auth-Token"));
    let entry = root.json()["versions"]["values"][0].clone();
    assert_eq!((&entry["id"], &entry["status"]), (&json!("v3.14"), &json!("stable")));
    assert_eq!(entry["links"][0]["href"], own);
    for path in ["/v3", "/v3/"] {
        let version = tool.request("GET", path).send();
        assert_eq!((version.status, &version.json()["version"]), (200, &entry));
    }
    assert_eq!(lab.keystone.requests(), requests, "the cloud is not asked");
}

#[test]
fn an_application_credential_a_password_and_a_handle_are_the_same_lease() {
    let (lab, tool) = signed_in();
    let first = tool.ask();
    let id = token(&first);
    assert!(lab.keystone.accepts(&id), "it is the cloud's own token");
    assert_eq!(first.body, lab.keystone.body_of(&id), "and Keystone's body, byte for byte");
    assert!(first.header("x-openstack-request-id").unwrap().starts_with("req-"));
    let domain = json!({"name": "Default"});
    let user = |key: &str| json!({key: tool.id, "password": tool.secret, "domain": domain});
    let others = [
        json!({"methods": ["application_credential"],
               "application_credential": {"id": tool.id, "secret": tool.secret, "user": {}}}),
        json!({"methods": ["application_credential"],
               "application_credential": {"name": tool.id, "secret": tool.secret, "user": {"name": "x", "domain": domain}}}),
        json!({"methods": ["password"], "password": {"user": user("name")}}),
        json!({"methods": ["password"], "password": {"user": user("id")}}),
        json!({"methods": ["token"], "token": {"id": tool.handle}}),
    ];
    let exchanges = lab.keystone.exchanges();
    for identity in others {
        let response = tool.auth(&identity, None).send();
        assert_eq!((token(&response), &response.body), (id.clone(), &first.body), "{identity}");
    }
    let shown = tool.with(&tool.handle, "GET", "/v3/auth/tokens").add("X-Subject-Token", &tool.handle).send();
    assert_eq!(
        (shown.status, shown.header("x-subject-token")),
        (200, Some(&*id)),
        "gophercloud's pass-through"
    );
    assert_eq!(lab.keystone.exchanges(), exchanges, "one token serves all");
}

#[test]
fn every_scope_can_be_asked_for_also_beside_an_application_credential() {
    let (lab, tool) = signed_in();
    let name = |scope: &Value| tool.ask_for(scope).json()["token"]["project"]["name"].clone();
    assert_eq!(name(&scope::project("demo")), "demo");
    assert_eq!(name(&scope::project("staging")), "staging");
    assert_eq!(
        name(&json!({"project": {"name": "staging"}})),
        "staging",
        "a name alone is of one's own domain"
    );
    let id = tool.ask().json()["token"]["project"]["id"].clone();
    assert_eq!(name(&json!({"project": {"id": id}})), "demo");
    let unscoped = tool.ask_for(&json!("unscoped"));
    assert_eq!(unscoped.json()["token"].get("project"), None);
    let own = lab.api().token(&lab.cloud(), &scope::unscoped()).token_id();
    assert_ne!(token(&unscoped), own, "the session's own token is not given away");
    let refused = refusal(&tool.ask_for(&scope::project("nothing")), 401);
    assert!(
        refused.contains("no token for project nothing") && refused.contains("ksb projects demo"),
        "{refused}"
    );
}

#[test]
fn without_its_catalog_a_token_is_as_it_was() {
    let (_lab, tool) = signed_in();
    let whole = tool.ask();
    let body = json!({"auth": {"identity": tool.credential()}}).to_string();
    let bare = tool.request("POST", "/v3/auth/tokens?nocatalog").body("application/json", body).send();
    assert_eq!(token(&bare), token(&whole));
    let mut expected = whole.json();
    assert!(expected["token"].as_object_mut().unwrap().remove("catalog").is_some());
    assert_eq!(bare.json(), expected);
}

#[test]
fn a_token_of_the_lease_is_rescoped_and_another_is_nobodys() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let again = json!({"methods": ["token"], "token": {"id": mine}});
    let staging = tool.auth(&again, Some(&scope::project("staging"))).send();
    assert_eq!(staging.json()["token"]["project"]["name"], "staging");
    let persons = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    let foreign = json!({"methods": ["token"], "token": {"id": persons}});
    refusal(&tool.auth(&foreign, None).send(), 401);
}

#[test]
fn what_is_left_of_the_identity_api_is_keystones_own_answer() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let projects = tool.with(&mine, "GET", "/v3/auth/projects").send();
    assert_eq!((projects.status, projects.json()["projects"].as_array().unwrap().len()), (200, 3));
    let validated = tool.with(&mine, "GET", "/v3/auth/tokens").add("X-Subject-Token", &mine).send();
    assert_eq!((validated.status, &validated.body), (200, &lab.keystone.body_of(&mine)));
    let missing = tool.with(&mine, "GET", "/v3/nothing").send();
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("<title>404"), "as Keystone says it: {}", missing.body);
}

#[test]
fn a_token_that_is_given_back_is_revoked_and_not_given_out_again() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let back = tool.with(&mine, "DELETE", "/v3/auth/tokens").add("X-Subject-Token", &mine).send();
    assert_eq!(back.status, 204);
    assert!(!lab.keystone.accepts(&mine));
    let next = tool.token();
    assert!(lab.keystone.accepts(&next), "and the session lives");
}

/// Neither what proves a lease nor what a client sends along besides.
#[test]
fn what_is_local_never_reaches_the_cloud() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let with_password =
        json!({"methods": ["password"], "password": {"user": {"name": tool.id, "password": tool.secret}}});
    token(&tool.auth(&with_password, Some(&scope::project("staging"))).send());
    let asked = tool
        .with(&mine, "GET", "/v3/auth/projects")
        .add("Cookie", "session=of-another-port")
        .add("Authorization", "Basic bWluZQ==")
        .add("X-Forwarded-Host", "evil.example.org")
        .add("Proxy-Authorization", "Basic bWluZQ==");
    assert_eq!(asked.send().status, 200);
    let both = tool.with(&tool.handle, "GET", "/v3/auth/tokens").add("X-Subject-Token", &tool.handle);
    assert_eq!(both.send().status, 200);
    tool.with(&mine, "GET", "/v3/auth/tokens").add("X-Subject-Token", &tool.handle).send();
    tool.with(&mine, "DELETE", "/v3/auth/tokens").add("X-Subject-Token", &tool.handle).send();
    assert!(lab.keystone.heard(&mine), "it hears its own token");
    for local in [&*tool.secret, &*tool.id, &*tool.handle, "of-another-port", "bWluZQ", "evil.example.org"] {
        assert!(!lab.keystone.heard(local), "{local}");
    }
}

// --- who gets nothing ---

#[test]
fn whoever_has_no_living_lease_hears_the_same_whatever_is_wrong() {
    let (lab, tool) = signed_in();
    let persons = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    let revoked = Tool::of(&lease_with(&lab, &json!({"name": "old"})));
    assert_eq!(lab.api().delete("/v1/leases/old").status, 200);
    let over = Tool::of(&lease_with(&lab, &json!({"ttl": 5})));
    let other = self::tool(&lab);
    lab.clock.advance(6);
    let wrong = |change: &dyn Fn(&mut Tool)| {
        let mut tool = tool.clone();
        change(&mut tool);
        tool.ask()
    };
    let answers = [
        wrong(&|tool| tool.secret = other.secret.clone()),
        wrong(&|tool| tool.secret.truncate(63)),
        wrong(&|tool| tool.secret.clear()),
        wrong(&|tool| tool.id = "0".repeat(32)),
        tool.with(&persons, "GET", "/v3/auth/projects").send(),
        tool.with(&tool.handle, "GET", "/v3/auth/projects").send(),
        tool.with("gAAAAAB-made-up", "GET", "/v3/auth/projects").send(),
        tool.request("GET", "/v3/auth/projects").send(),
        tool.auth(&json!({"methods": ["token"], "token": {"id": format!("{}x", tool.handle)}}), None).send(),
    ];
    let expected = refusal(&answers[0], 401);
    for ended in [revoked.ask(), over.ask()] {
        assert!(refusal(&ended, 401).contains(" ended at "), "its own holder is told");
    }
    for answer in &answers {
        assert_eq!(refusal(answer, 401), expected);
        let asks = format!("Keystone uri=\"http://{}/v3\"", tool.facade);
        assert_eq!(answer.header("www-authenticate"), Some(&*asks));
        assert_eq!(answer.header("x-subject-token"), None);
    }
    token(&tool.ask());
}

#[test]
fn methods_that_are_no_leases_are_refused_and_their_secrets_not_quoted() {
    let (_lab, tool) = signed_in();
    for identity in [
        json!({"methods": ["password", "totp"], "password": {"user": {"id": tool.id, "password": tool.secret}}}),
        json!({"methods": ["openid"], "openid": {"token": "hush"}}),
    ] {
        let why = refusal(&tool.auth(&identity, None).send(), 401);
        assert!(!why.contains("hush") && !why.contains(&tool.secret), "{why}");
    }
    let post = |body: &str| tool.request("POST", "/v3/auth/tokens").body("application/json", body).send();
    for body in ["", "{", "[]", r#"{"auth": "hush"}"#, r#"{"auth": {"identity": {"methods": ["token"]}}}"#] {
        assert!(!refusal(&post(body), 400).contains("hush"));
    }
    refusal(&tool.request("POST", "/v2.0/tokens").body("application/json", "{}").send(), 404);
    refusal(&tool.request("GET", "/v2.0").send(), 404);
}

/// As of a play that goes on in the background (Ansible's `async`) when the `ksb exec` around it has ended.
#[test]
fn the_holder_of_a_lease_that_has_ended_is_told_which_and_when() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let name = lab.api().get("/v1/leases").json["leases"][0]["name"].as_str().unwrap().to_owned();
    lab.api().delete(&format!("/v1/leases/{}", tool.id));
    let told = format!("the lease {name} ended at 2026-");
    let by_handle = json!({"methods": ["token"], "token": {"id": tool.handle}});
    let by_name = json!({"methods": ["application_credential"], "application_credential":
        {"name": name, "user": {"name": "alice", "domain": {"name": "lab"}}, "secret": tool.secret}});
    for answer in [
        tool.ask(),
        tool.auth(&by_handle, None).send(),
        tool.auth(&by_name, None).send(),
        tool.with(&mine, "GET", "/v3/auth/projects").send(),
    ] {
        let message = refusal(&answer, 401);
        assert!(message.starts_with(&told), "{message}");
    }
    // To nobody else: neither id nor name is a secret.
    let stranger = Tool { secret: "0".repeat(64), ..tool };
    assert!(!refusal(&stranger.ask(), 401).contains(&name));
}

/// What a page could have a browser send, what a stranger's name for us leads to, and what is no request.
#[test]
fn pages_proxies_and_smugglers_are_turned_away_before_anything_else() {
    let (lab, tool) = signed_in();
    let requests = lab.keystone.requests();
    let auth = || tool.auth(&tool.credential(), None);
    let port = tool.facade.port();
    let turned_away: Vec<(u16, Request)> = vec![
        (421, auth().set("Host", "evil.example.org")),
        (421, auth().set("Host", &format!("evil.example.org:{port}"))),
        (421, auth().set("Host", "127.0.0.1")),
        (421, auth().add("Host", "evil.example.org")),
        (421, auth().target("http://evil.example.org/v3/auth/tokens")),
        (421, tool.request("CONNECT", "/").target("keystone.example.org:443")),
        (403, auth().add("Origin", "null")),
        (403, auth().add("Origin", &format!("http://{}", tool.facade))),
        (403, auth().add("Referer", "https://evil.example.org/")),
        (403, auth().add("Sec-Fetch-Site", "cross-site")),
        (403, auth().add("Sec-Fetch-Site", "same-origin")),
        (
            403,
            tool.request("GET", "/v3").add("Sec-Fetch-Site", "cross-site").add("Sec-Fetch-Mode", "no-cors"),
        ),
        (403, tool.request("OPTIONS", "/v3/auth/tokens").add("Access-Control-Request-Method", "POST")),
        (403, tool.request("TRACE", "/v3")),
        (400, auth().add("Transfer-Encoding", "chunked")),
        (415, auth().set("Content-Type", "text/plain")),
        (415, auth().set("Content-Type", "application/x-www-form-urlencoded")),
        (413, tool.request("POST", "/v3/auth/tokens").body("application/json", vec![b' '; 70_000])),
    ];
    for (status, request) in turned_away {
        let text = String::from_utf8_lossy(&request.bytes()).lines().take(6).collect::<Vec<_>>().join(" | ");
        let response = request.send();
        assert_eq!(response.status, status, "{text}");
        refusal(&response, status);
        for name in ["access-control-allow-origin", "x-subject-token", "access-control-allow-methods"] {
            assert_eq!(response.header(name), None, "{text}");
        }
    }
    for host in [format!("localhost:{port}"), format!("[::1]:{port}")] {
        token(&auth().set("Host", &host).send());
    }
    for kind in ["APPLICATION/JSON", "Application/Json; Charset=UTF-8", " application/json ;charset=utf-8"] {
        token(&auth().set("Content-Type", kind).send());
    }
    assert_eq!(lab.keystone.requests(), requests + 1, "one exchange for the two that are good");
}

#[test]
fn a_path_that_leads_out_of_the_identity_api_goes_nowhere() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let requests = lab.keystone.requests();
    for path in
        ["/v3/../idp/token", "/v3/%2e%2e/idp/token", "/v3/auth/..%2f..%2fidp", "/v3//evil.example.org/x"]
    {
        let response = tool.with(&mine, "GET", "/v3").target(path).send();
        assert!([400, 404].contains(&response.status), "{path}: {response:?}");
    }
    assert_eq!(lab.keystone.requests(), requests);
}

#[test]
fn a_slow_client_holds_up_nobody() {
    let (_lab, tool) = signed_in();
    let bytes = tool.auth(&tool.credential(), None).bytes();
    let mut slow = connect(&format!("http://{}", tool.facade).parse().unwrap()).unwrap();
    slow.write_all(&bytes[..bytes.len() - 1]).unwrap();
    token(&tool.ask());
    slow.write_all(&bytes[bytes.len() - 1..]).unwrap();
    token(&Response::read(slow).unwrap());
}

/// A port that nobody has business at; says whether somebody came.
fn elsewhere() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/v3/auth/tokens", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
fn where_keystone_sends_somebody_else_no_token_follows() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let (nobody, url) = elsewhere();
    for status in [301, 302, 303, 307, 308] {
        for asked in ["GET /v3/auth/projects", EXCHANGE, VALIDATION] {
            let _rule = lab.keystone.on(asked, Fault::Heads(status, vec![("Location", url.clone())]));
            let answer = match asked {
                EXCHANGE => tool.ask_for(&scope::project("staging")),
                VALIDATION => tool.with(&mine, "GET", "/v3/auth/tokens").add("X-Subject-Token", &mine).send(),
                _ => tool.with(&mine, "GET", "/v3/auth/projects").send(),
            };
            // What passes by is Keystone's own answer; what the facade wanted itself is none.
            assert_eq!(answer.status, if asked == EXCHANGE { 502 } else { status }, "{asked}: {answer:?}");
            assert_eq!(answer.header("x-subject-token"), None);
        }
    }
    let came = nobody.accept().map(|_| "somebody came").map_err(|error| error.kind());
    assert_eq!(came, Err(ErrorKind::WouldBlock));
    assert!(lab.keystone.accepts(&mine));
}

#[test]
fn what_keystone_says_of_its_own_connection_is_not_passed_on() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let hostile = [
        ("Set-Cookie", "session=stolen; Path=/"),
        ("Connection", "X-Secret"),
        ("X-Secret", "of one connection"),
        ("Keep-Alive", "timeout=9999"),
        ("Upgrade", "h2c"),
        ("Trailer", "X-Subject-Token"),
        ("Proxy-Authenticate", "Basic realm=x"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Credentials", "true"),
    ];
    let kept = [("X-Openstack-Request-Id", "req-1"), ("Vary", "X-Auth-Token"), ("Retry-After", "7")];
    let headers = hostile.iter().chain(&kept).map(|(name, value)| (*name, (*value).to_owned())).collect();
    let _rule = lab.keystone.on("GET /v3/auth/projects", Fault::Heads(200, headers));
    let answer = tool.with(&mine, "GET", "/v3/auth/projects").send();
    assert_eq!(answer.status, 200);
    for (name, value) in hostile {
        assert_ne!(answer.header(name), Some(value), "{answer:?}");
    }
    for (name, value) in kept {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
}

/// What comes on one connection one after the other is judged one by the other.
#[test]
fn a_request_behind_another_has_nothing_of_its_token() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let (requests, asked) = (lab.keystone.requests(), "GET /v3/auth/projects");
    let first = tool.with(&mine, "GET", "/v3/auth/projects").set("Connection", "keep-alive");
    let second = tool.request("DELETE", "/v3/auth/tokens").add("X-Subject-Token", &mine);
    let mut stream = connect(&format!("http://{}", tool.facade).parse().unwrap()).unwrap();
    stream.write_all(&[first.bytes(), second.bytes()].concat()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let statuses: Vec<_> = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "401"], "{said}");
    assert_eq!((lab.keystone.requests(), lab.keystone.count(asked)), (requests + 1, 1));
    assert!(lab.keystone.accepts(&mine));
}

#[test]
fn what_is_too_large_or_never_ends_is_cut_off() {
    let (lab, tool) = signed_in();
    let mine = tool.token();
    let requests = lab.keystone.requests();
    let many =
        (0..100).fold(tool.request("GET", "/v3"), |request, number| request.add(&format!("X-{number}"), "a"));
    let long = tool.request("GET", "/v3").add("X-Long", &"a".repeat(2 << 20));
    let path = tool.request("GET", "/v3").target(&format!("/v3/{}", "a".repeat(70_000)));
    let through = tool.with(&mine, "POST", "/v3/projects").body("application/json", vec![b' '; 2 << 20]);
    for (request, statuses) in [(many, &[431][..]), (long, &[431]), (path, &[414]), (through, &[413])] {
        // Whoever is cut off while they still talk may be told of nothing but that.
        if let Ok(response) = request.try_send() {
            assert!(statuses.contains(&response.status), "{}", response.status);
        }
    }
    // A body in pieces, without an end.
    let head = tool.request("POST", "/v3/auth/tokens").add("Transfer-Encoding", "chunked");
    let mut stream = connect(&format!("http://{}", tool.facade).parse().unwrap()).unwrap();
    stream.write_all(&head.add("Content-Type", "application/json").bytes()).unwrap();
    let piece = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let pieces = (0..1000).take_while(|_| stream.write_all(piece.as_bytes()).is_ok()).count();
    assert!(pieces < 1000 || Response::read(stream).is_ok_and(|response| response.status == 413), "{pieces}");
    assert_eq!(lab.keystone.requests(), requests);
    token(&tool.ask());
}

// --- freshness ---

#[test]
fn many_processes_share_a_token_and_keystone_is_not_asked() {
    let (lab, tool) = signed_in();
    let first = tool.token();
    let requests = lab.keystone.requests();
    for _ in 0..20 {
        assert_eq!(tool.token(), first);
    }
    assert_eq!(lab.keystone.requests(), requests);
}

#[test]
fn whoever_asks_again_on_the_same_connection_was_refused_and_gets_another() {
    let (lab, tool) = signed_in();
    let mut connection = tool.connect();
    let first = token(&connection.ask());
    let second = token(&connection.ask());
    assert_ne!(first, second, "a client with a good token does not come back");
    assert!(lab.keystone.accepts(&second));
    assert_eq!(tool.token(), second, "everybody gets the newer one");
}

#[test]
fn of_many_who_were_refused_with_the_same_token_one_pays() {
    let (lab, tool) = signed_in();
    let mut connections: Vec<_> = (0..16).map(|_| tool.connect()).collect();
    let first = token(&connections[0].ask());
    for connection in &mut connections[1..] {
        assert_eq!(token(&connection.ask()), first);
    }
    lab.keystone.revoke(&first);
    let exchanges = lab.keystone.count(EXCHANGE);
    let again: Vec<_> = std::thread::scope(|threads| {
        let asking: Vec<_> = connections
            .iter_mut()
            .map(|connection| threads.spawn(move || token(&connection.ask())))
            .collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(again.iter().all(|token| *token == again[0] && *token != first), "{again:?}");
    assert_eq!(lab.keystone.count(EXCHANGE), exchanges + 1);
}

#[test]
fn a_token_that_keystone_revoked_is_not_given_to_the_next_process() {
    let (lab, tool) = signed_in();
    let first = tool.token();
    lab.clock.advance(6);
    assert_eq!(tool.token(), first, "Keystone stands by it");
    lab.keystone.revoke(&first);
    lab.clock.advance(6);
    let second = tool.token();
    assert!(second != first && lab.keystone.accepts(&second));
}

#[test]
fn a_refusal_that_passes_by_is_remembered() {
    let (lab, tool) = signed_in();
    let first = tool.token();
    lab.keystone.revoke(&first);
    assert_eq!(tool.with(&first, "GET", "/v3/auth/projects").send().status, 401);
    let validations = lab.keystone.count(VALIDATION);
    assert_ne!(tool.token(), first);
    assert_eq!(lab.keystone.count(VALIDATION), validations, "without asking Keystone what it just said");
}

#[test]
fn a_token_near_its_end_is_replaced_once_the_session_has_a_longer_one() {
    let lab = Lab::new();
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    lab.api().over(&sign_in.id);
    let request = json!({"cloud": lab.oidc(), "scope": scope::project("demo")});
    let tool = Tool::of(&lab.api().post("/v1/leases", &request));
    let first = tool.token();
    let renewed = lab.keystone.count(crate::support::keystone::FEDERATED) + 1;
    // Past the soft threshold, with its spread, and before the hard one.
    lab.clock.advance(3600 - 500);
    until("the session is renewed", || lab.keystone.answered(crate::support::keystone::FEDERATED) == renewed);
    until("the new one is served", || tool.token() != first);
}

// --- a user is needed ---

#[test]
fn who_may_not_prompt_is_told_what_helps_at_once() {
    let lab = Lab::new();
    let tool = tool(&lab);
    let why = refusal(&tool.ask(), 401);
    assert!(why.starts_with("ksb: demo: nobody is signed in") && why.contains("ksb login demo"), "{why}");
    assert_eq!(lab.api().status()["sign_ins"], json!([]), "and no sign-in is begun");
}

#[test]
fn a_tool_waits_for_its_person_who_is_called_on_the_desktop() {
    let lab = Lab::new();
    let tool = Tool::of(&lease_with(&lab, &json!({"prompt": true, "name": "backup"})));
    let asking = std::thread::spawn({
        let tool = tool.clone();
        move || tool.ask()
    });
    until("the person is called", || !lab.agent.told().is_empty());
    let (title, text) = lab.agent.told().remove(0);
    assert!(title.starts_with("demo: sign in"), "{title}");
    let url = text.rsplit(' ').next().unwrap();
    assert!(text.contains("backup") && text.contains("ksb login demo"), "{text}");
    assert_eq!(lab.browse(url, "alice"), "done");
    token(&asking.join().unwrap());
    assert_eq!(lab.agent.told().len(), 1);
}

#[test]
fn an_impatient_client_is_answered_before_it_leaves() {
    for (agent, patience) in
        [("rclone/v1.75", 8), ("restic/0.14", 8), ("openstack_sdk/0.9", 25), ("python", 300)]
    {
        let lab = Lab::new();
        let tool = Tool::of(&lease_with(&lab, &json!({"prompt": true})));
        let request = tool.auth(&tool.credential(), None).add("User-Agent", agent);
        let asking = std::thread::spawn(move || request.send());
        until("the person is called", || !lab.agent.told().is_empty());
        lab.clock.advance(patience - 1);
        assert!(!asking.is_finished(), "{agent}");
        lab.clock.advance(1);
        let why = refusal(&asking.join().unwrap(), 401);
        assert!(why.contains("ksb login demo"), "{agent}: {why}");
    }
}

#[test]
fn an_unreachable_cloud_is_tried_again_while_the_tool_waits() {
    let (lab, tool) = signed_in();
    let rule = lab.keystone.on(EXCHANGE, Fault::Hangs);
    let asking = std::thread::spawn(move || tool.ask());
    until("it was tried three times", || {
        lab.clock.jump(60);
        lab.keystone.count(EXCHANGE) >= 3
    });
    drop(rule);
    until("it is answered", || {
        lab.clock.jump(60);
        asking.is_finished()
    });
    token(&asking.join().unwrap());
}

#[test]
fn a_cloud_that_stays_away_is_said_to_be_unreachable() {
    let (lab, tool) = signed_in();
    let _rule = lab.keystone.on(EXCHANGE, Fault::Hangs);
    let asking = std::thread::spawn(move || tool.ask());
    until("it is given up", || {
        lab.clock.jump(120);
        asking.is_finished()
    });
    let why = refusal(&asking.join().unwrap(), 503);
    assert!(why.contains("demo: "), "{why}");
    let tries = lab.keystone.count(EXCHANGE);
    assert!((6..=8).contains(&tries), "1, 2, 4, 8, 16, 32 s lie between them, not {tries} tries");
}

#[test]
fn keystones_own_trouble_is_passed_on() {
    let (lab, tool) = signed_in();
    let rule = lab.keystone.on(EXCHANGE, Fault::Status(500));
    let why = refusal(&tool.ask(), 500);
    assert!(why.contains("Keystone answered 500"), "{why}");
    drop(rule);
    token(&tool.ask());
}
