//! Signing in against everybody who wants to be somebody else: the start page, the callback's port,
//! the tab binding, and the user's word (design.md, "WebSSO, without login CSRF", steps 0 to 5).

use std::io::Write;
use std::net::TcpListener;

use serde_json::{Value, json};
use url::Url;

use crate::support::api::{SignIn, scope};
use crate::support::browser::{Browser, Form, data, navigation, origin_of, own_fetch, state};
use crate::support::http::{Request, Response, connect};
use crate::support::keystone::{Fault, LAB, VALIDATION};
use crate::support::lab::{Lab, until};
use crate::support::skip::{has_ipv6, is_root, skip};
use crate::support::spawn;
use crate::support::stranger;
use crate::support::world::World;

/// Whoever signed in can use projects, as this user.
#[track_caller]
fn assert_signed_in(lab: &Lab, sign_in: &SignIn, person: &str) {
    let over = lab.api().over(&sign_in.id);
    assert_eq!(over["state"], "done", "{over:#}");
    assert_eq!(lab.api().status()["sessions"][0]["user"]["name"], person);
}

#[track_caller]
fn assert_still_waiting(lab: &Lab, sign_in: &SignIn) {
    assert_eq!(lab.api().look(&sign_in.id)["state"], "waiting");
    assert_eq!(lab.api().status()["sessions"], json!([]));
}

/// The addresses that the start page goes to.
fn start_page(sign_in: &SignIn) -> Value {
    data(&navigation("GET", &sign_in.url).send().body)
}

// --- whose token, whose tab ---

#[test]
fn a_token_posted_by_another_tab_is_refused_and_the_real_one_completes() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let form = tab.go(&sign_in.url).unwrap();

    let stolen = lab.keystone.issue("mallory", LAB);
    let mut attacker = browser.tab();
    assert_eq!(attacker.post(&Form::of(&lab.callback(), &stolen)).state, "checking");
    assert_eq!(attacker.claim().state, "unproven");
    assert_still_waiting(&lab, &sign_in);

    tab.post(&form);
    let asked = tab.claim();
    assert_eq!((&*asked.state, &asked.reply["user"]), ("confirm", &json!("alice")));
    assert_eq!(tab.answer(true).state, "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

#[test]
fn a_page_loaded_later_in_the_same_tab_is_shown_to_the_person_before_it_counts() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    tab.go(&sign_in.url).unwrap();
    tab.post(&Form::of(&lab.callback(), &lab.keystone.issue("mallory", LAB)));
    let asked = tab.claim();
    let shown = |name: &str| asked.reply[name].as_str().unwrap().to_owned();
    assert_eq!((&*asked.state, &*shown("user"), &*shown("cloud")), ("confirm", "mallory", "demo"));
    assert_eq!((&*shown("identity_provider"), &*shown("user_domain")), ("lab-idp", "lab"));
    assert_eq!(lab.api().wait(&sign_in.id, |now| now["state"] == "confirming")["opener"], false);

    assert_eq!(tab.answer(false).state, "declined");
    let declined = lab.api().wait(&sign_in.id, |now| now["state"] == "waiting");
    assert!(declined["notices"][0].as_str().unwrap().contains("mallory was declined"), "{declined:#}");
    assert_eq!(tab.answer(true).state, "expired", "what was declined cannot be accepted any more");
    assert_eq!(tab.sign_in(&sign_in.url).state, "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

#[test]
fn a_claim_without_the_tabs_secret_is_never_taken() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let form = tab.go(&sign_in.url).unwrap();
    let page = tab.post(&form);
    let secret = tab.note(&lab.callback())["secret"].clone();
    let claim = &page.reply["claim"];
    let ask = |body: Value| own_fetch(&lab.at_callback("/claim"), &body).send().json()["state"].clone();

    for body in [
        json!({"claim": claim}),
        json!({"claim": claim, "id": sign_in.id}),
        json!({"claim": claim, "id": sign_in.id, "secret": ""}),
        json!({"claim": claim, "id": sign_in.id, "secret": "0".repeat(64)}),
        json!({"claim": claim, "id": "0".repeat(32), "secret": secret}),
        json!({"claim": claim, "secret": secret}),
    ] {
        assert_eq!(ask(body.clone()), "unproven", "{body}");
    }
    // An answer counts for nothing without the proof either, nor before the question.
    let answer = json!({"claim": claim, "accept": true});
    assert_eq!(own_fetch(&lab.at_callback("/answer"), &answer).send().json()["state"], "expired");
    assert_eq!(tab.answer(true).state, "expired");
    assert_still_waiting(&lab, &sign_in);
    // All of that has not used the claim up.
    assert_eq!(tab.claim().state, "confirm");
    assert_eq!(tab.answer(true).state, "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

#[test]
fn a_claim_counts_once() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    assert_eq!(tab.open(&sign_in.url).state, "confirm");
    assert_eq!(tab.claim().state, "expired", "replayed with the right secret");
    let unknown = json!({"claim": "0".repeat(32)});
    assert_eq!(own_fetch(&lab.at_callback("/claim"), &unknown).send().json()["state"], "expired");
    assert_eq!(tab.answer(true).state, "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

#[test]
fn two_clouds_share_one_port_and_keep_their_tokens_apart() {
    let lab = Lab::new();
    let (demo, other) =
        (lab.cloud(), lab.cloud_with(|cloud| cloud["identity_provider"] = "other-idp".into()));
    let (at_demo, at_other) = (lab.api().login(&demo).sign_in(), lab.api().login(&other).sign_in());
    let browser = Browser::of("alice");
    let (mut tab, mut other_tab) = (browser.tab(), browser.tab());
    let form = tab.go(&at_demo.url).unwrap();
    let other_form = other_tab.go(&at_other.url).unwrap();

    // The secret of one sign-in does not open the other.
    let page = tab.post(&form);
    let stolen = json!({
        "claim": page.reply["claim"], "id": at_demo.id, "secret": other_tab.note(&lab.callback())["secret"],
    });
    assert_eq!(own_fetch(&lab.at_callback("/claim"), &stolen).send().json()["state"], "unproven");
    // A token of the other identity provider does not pass, even in the right tab.
    other_tab.post(&Form::of(&lab.callback(), &lab.keystone.issue("mallory", LAB)));
    let refused = other_tab.claim();
    assert_eq!(refused.state, "refused");
    assert!(refused.reply["message"].as_str().unwrap().contains("lab-idp"), "{refused:?}");

    // Nobody is offered a token that may belong to the other cloud.
    for sign_in in [&at_demo, &at_other] {
        assert_eq!(lab.api().get(&format!("/v1/sign-ins/{}/offers", sign_in.id)).json["offers"], json!([]));
    }
    // Both finish, in any order.
    other_tab.post(&other_form);
    assert_eq!(other_tab.claim().state, "confirm");
    assert_eq!(tab.claim().state, "confirm");
    assert_eq!(tab.answer(true).state, "done");
    assert_eq!(lab.api().over(&at_demo.id)["state"], "done");
    assert_eq!(other_tab.answer(true).state, "done");
    assert_eq!(lab.api().over(&at_other.id)["state"], "done");
    for cloud in [demo, other] {
        assert_eq!(lab.api().token(&cloud, &scope::project("demo")).status, 200);
    }
}

#[test]
fn the_address_opened_in_two_browsers_gives_each_a_secret_of_its_own() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browsers = [Browser::of("alice"), Browser::of("alice")];
    let (mut first, mut second) = (browsers[0].tab(), browsers[1].tab());
    let form = first.go(&sign_in.url).unwrap();
    second.go(&sign_in.url).unwrap();
    let secret = |note: Value| note["secret"].as_str().unwrap().to_owned();
    let (one, other) = (secret(first.note(&lab.callback())), secret(second.note(&lab.at_callback(""))));
    assert_ne!(one, other);
    assert_eq!((one.len(), other.len()), (64, 64), "256 bits");
    first.post(&form);
    assert_eq!(first.claim().state, "confirm");
    assert_eq!(first.answer(true).state, "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

#[test]
fn the_address_opened_twice_in_one_browser_counts_in_the_last_tab() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let (mut first, mut second) = (browser.tab(), browser.tab());
    let form = first.go(&sign_in.url).unwrap();
    let later = second.go(&sign_in.url).unwrap();
    // The second start page had the callback's origin cleaned, the first tab's secret with it.
    first.post(&form);
    assert_eq!(first.claim().state, "unproven");
    second.post(&later);
    assert_eq!(second.claim().state, "confirm");
    assert_eq!(second.answer(true).state, "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

// --- which token ---

#[test]
fn a_token_from_before_the_start_is_refused() {
    for skew in [0, 90, -90] {
        let lab = Lab::new();
        lab.keystone.skew(skew);
        let old = lab.keystone.issue("alice", LAB);
        lab.clock.advance(5);
        assert_refused(&lab, &old, "older than this sign-in");
    }
}

#[test]
fn a_token_that_was_made_from_another_is_refused() {
    let lab = Lab::new();
    let token = lab.keystone.issue("alice", LAB);
    assert_refused(&lab, &lab.keystone.rescope(&token, &scope::unscoped()), "browser sign-in");
}

#[test]
fn a_token_of_another_identity_provider_or_protocol_is_refused() {
    let lab = Lab::new();
    assert_refused(&lab, &lab.keystone.issue("alice", ("other-idp", "openid")), "other-idp");
    let lab = Lab::new();
    assert_refused(&lab, &lab.keystone.issue("alice", ("lab-idp", "saml2")), "browser sign-in");
}

#[test]
fn a_token_that_keystone_does_not_know_is_refused() {
    let lab = Lab::new();
    let revoked = lab.keystone.issue("alice", LAB);
    lab.keystone.revoke(&revoked);
    assert_refused(&lab, &revoked, "does not know");
    let lab = Lab::new();
    assert_refused(&lab, "gAAAA-nobodys", "does not know");
}

/// The right tab brings this token: refused, said on the page and in the terminal, and not the end.
#[track_caller]
fn assert_refused(lab: &Lab, token: &str, why: &str) {
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let form = tab.go(&sign_in.url).unwrap_or_else(|shown| panic!("{shown:?}"));
    tab.post(&Form::of(&lab.callback(), token));
    let refused = tab.claim();
    assert_eq!(refused.state, "refused", "{refused:?}");
    assert!(refused.reply["message"].as_str().unwrap().contains(why), "{refused:?}");
    let notices = lab.api().wait(&sign_in.id, |now| now["notices"] != json!([]))["notices"].clone();
    assert!(notices[0].as_str().unwrap().contains(why), "{notices}");
    assert_still_waiting(lab, &sign_in);
    tab.post(&form);
    assert_eq!(tab.claim().state, "confirm");
    assert_eq!(tab.answer(true).state, "done");
    assert_signed_in(lab, &sign_in, "alice");
}

#[test]
fn a_keystone_whose_clock_is_wrong_still_signs_people_in() {
    for skew in [-90, 90, 1000] {
        let lab = Lab::new();
        lab.keystone.skew(skew);
        lab.signed_in("alice");
    }
}

#[test]
fn two_tokens_in_one_sign_in_do_not_kill_it() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let (alice, bob) = (Browser::of("alice"), Browser::of("bob"));
    let (mut first, mut second) = (alice.tab(), bob.tab());
    assert_eq!(first.open(&sign_in.url).state, "confirm");
    assert_eq!(second.open(&sign_in.url).state, "confirm");
    assert_eq!(first.answer(false).state, "declined");
    assert_eq!(lab.api().look(&sign_in.id)["state"], "confirming", "one question is still open");
    assert_eq!(second.answer(true).state, "done");
    assert_signed_in(&lab, &sign_in, "bob");
}

#[test]
fn a_keystone_that_fails_at_the_last_step_is_asked_again_later() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    for fault in [Fault::Status(503), Fault::Hangs, Fault::Says(200, "<html>".into())] {
        let _broken = lab.keystone.on(VALIDATION, fault);
        let failed = tab.open(&sign_in.url);
        assert_eq!(failed.state, "failed");
        assert!(failed.reply["message"].is_string(), "{failed:?}");
    }
    assert_still_waiting(&lab, &sign_in);
    assert_eq!(tab.sign_in(&sign_in.url).state, "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

// --- what a request must look like ---

#[test]
fn only_its_own_host_is_answered_to() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let begin = start_page(&sign_in)["begin"].as_str().unwrap().to_owned();
    for url in [&sign_in.url, &begin] {
        let parsed = Url::parse(url).unwrap();
        let (port, path) = (parsed.port().unwrap(), parsed.path());
        let request = navigation("GET", url);
        assert_eq!(request.send().status, 200);
        let strange = [
            request.clone().set("Host", "evil.example"),
            request.clone().set("Host", &format!("evil.example:{port}")),
            request.clone().set("Host", "localhost"),
            request.clone().set("Host", &format!("127.0.0.1:{port}")),
            request.clone().set("Host", &format!("0.0.0.0:{port}")),
            request.clone().set("Host", ""),
            request.clone().add("Host", parsed.authority()),
            request.clone().without("Host"),
            request.clone().target(&format!("http://{}{path}", parsed.authority())),
            request.clone().target(&format!("http://evil.example{path}")),
            navigation("CONNECT", url).target(parsed.authority()),
        ];
        for request in strange {
            let text = String::from_utf8(request.bytes()).unwrap();
            match request.try_send() {
                Ok(answer) => assert_eq!((answer.status, &*answer.body), (421, ""), "{text}"),
                Err(error) => assert!(text.starts_with("CONNECT"), "{error}: {text}"),
            }
        }
    }
}

#[test]
fn only_a_whole_tab_may_open_the_pages() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let begin = start_page(&sign_in)["begin"].as_str().unwrap().to_owned();
    let post = Form::of(&lab.callback(), &lab.keystone.issue("alice", LAB)).request();
    for (request, refusal) in
        [(navigation("GET", &sign_in.url), 410), (navigation("GET", &begin), 403), (post, 403)]
    {
        let odd = [
            request.clone().without("Sec-Fetch-Dest").without("Sec-Fetch-Mode").without("Sec-Fetch-Site"),
            request.clone().without("Sec-Fetch-Dest"),
            request.clone().without("Sec-Fetch-Mode"),
            request.clone().set("Sec-Fetch-Dest", "iframe"),
            request.clone().set("Sec-Fetch-Dest", "Document"),
            request.clone().set("Sec-Fetch-Dest", "serviceworker"),
            request.clone().set("Sec-Fetch-Dest", "empty").set("Sec-Fetch-Mode", "no-cors"),
            request.clone().set("Sec-Fetch-Mode", "cors"),
            request.clone().add("Sec-Fetch-Dest", "iframe"),
        ];
        for request in odd {
            let answer = request.send();
            assert_eq!(answer.status, refusal, "{}", String::from_utf8(request.bytes()).unwrap());
            assert_eq!(data(&answer.body), Value::Null, "a refusal gives nothing away");
        }
    }
    let nothing = lab.api().get(&format!("/v1/sign-ins/{}/offers", sign_in.id)).json["offers"].clone();
    assert_eq!(nothing, json!([]), "no token was kept");
    assert_still_waiting(&lab, &sign_in);
}

#[test]
fn only_keystones_origin_or_none_may_post_a_token() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let token = lab.keystone.issue("alice", LAB);
    let form = Form::of(&lab.callback(), &token);
    for origin in ["https://evil.example", "http://localhost:1", "http://127.0.0.1", "", "NULL"] {
        assert_eq!(form.request().set("Origin", origin).send().status, 403, "{origin}");
    }
    assert_eq!(form.request().add("Origin", "null").send().status, 403, "two of them");
    assert_eq!(form.request().without("Origin").send().status, 200);
    assert_eq!(form.request().set("Origin", lab.keystone.url()).send().status, 200);
    assert_eq!(form.request().send().status, 200);
    assert_still_waiting(&lab, &sign_in);
}

#[test]
fn only_the_callbacks_own_page_may_claim() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let form = tab.go(&sign_in.url).unwrap();
    let page = tab.post(&form);
    let note = tab.note(&lab.callback());
    let proof =
        json!({"claim": page.reply["claim"], "id": note["id"], "secret": note["secret"], "accept": true});
    for path in ["/claim", "/answer"] {
        let request = own_fetch(&lab.at_callback(path), &proof);
        let odd = [
            request.clone().set("Origin", "https://evil.example"),
            request.clone().set("Origin", "null"),
            request.clone().without("Origin"),
            request.clone().set("Origin", &format!("http://127.0.0.1:{}", lab.port)),
            request.clone().set("Sec-Fetch-Site", "cross-site"),
            request.clone().set("Sec-Fetch-Site", "same-site"),
            request.clone().set("Sec-Fetch-Site", "none"),
            request.clone().without("Sec-Fetch-Site"),
            request.clone().set("Sec-Fetch-Dest", "document"),
            request.clone().set("Content-Type", "text/plain"),
            request.clone().set("Content-Type", "application/x-www-form-urlencoded"),
        ];
        for request in odd {
            let answer = request.send();
            assert_eq!(
                (answer.status, &*answer.body),
                (403, ""),
                "{}",
                String::from_utf8(request.bytes()).unwrap()
            );
        }
        let junk = own_fetch(&lab.at_callback(path), &json!({})).body("application/json", "{\"claim\":");
        assert_eq!(junk.send().status, 400);
    }
    // Another origin's script asks first, and is not told that it may.
    let preflight = Request::new("OPTIONS", &lab.at_callback("/claim"))
        .add("Origin", "https://evil.example")
        .add("Access-Control-Request-Method", "POST")
        .send();
    assert_eq!(preflight.header("Access-Control-Allow-Origin"), None);
    assert_ne!(preflight.status, 200);
    assert_eq!(tab.claim().state, "confirm");
}

#[test]
fn junk_at_the_callback_is_refused_and_does_no_harm() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let form = |body: &[u8]| {
        Form::of(&lab.callback(), "x").request().body("application/x-www-form-urlencoded", body)
    };
    let large = format!("token={}", "a".repeat(64 << 10));
    let junk = [
        (form(b""), 403),
        (form(b"token="), 403),
        (form(b"token=a&token=b"), 403),
        (form(b"token=a%0d%0aX-Evil:%201"), 403),
        (form(b"token=%00"), 403),
        (form(b"tok\xff\xfe=a"), 403),
        (form(b"other=gAAAA"), 403),
        (form(large.as_bytes()), 413),
        (form(b"token=a").set("Content-Type", "application/json"), 403),
        (form(b"token=a").set("Content-Type", "multipart/form-data; boundary=x"), 403),
        (form(b"token=a").without("Content-Type"), 403),
        (navigation("GET", &lab.callback()), 404),
        (navigation("PUT", &lab.callback()), 404),
        (navigation("GET", &lab.at_callback("/")), 404),
        (navigation("GET", &lab.at_callback("/auth/websso")), 404),
        (navigation("GET", &lab.at_callback("/auth/websso/?token=gAAAA")), 404),
        (navigation("GET", &lab.at_callback("/begin/")), 404),
        (navigation("GET", &lab.at_callback("/begin/0000")), 410),
        (navigation("GET", &lab.at_callback("/begin/%ff")), 400),
        (navigation("POST", &lab.at_callback("/stop")), 404),
    ];
    for (request, status) in junk {
        let text = String::from_utf8_lossy(&request.bytes()).chars().take(600).collect::<String>();
        let answer = request.send();
        assert_eq!(answer.status, status, "{text}");
    }
    // What is not even HTTP.
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/9\r\n\r\n", b"\r\n\r\n\0"]
    {
        let mut stream = connect(&Url::parse(&lab.callback()).unwrap()).unwrap();
        stream.write_all(bytes).unwrap();
    }
    let headers =
        (0..100).fold(navigation("GET", &lab.callback()), |request, n| request.add(&format!("X-{n}"), "1"));
    assert_eq!(headers.send().status, 431);
    assert_still_waiting(&lab, &sign_in);
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

#[test]
fn idle_slow_and_half_open_connections_delay_nobody() {
    let lab = Lab::new();
    allow_many_files();
    let sign_in = lab.login();
    let callback = Url::parse(&lab.callback()).unwrap();
    let half = [
        String::new(),
        "POST /auth/websso/ HTTP/1.1\r\n".into(),
        format!("POST /auth/websso/ HTTP/1.1\r\nHost: localhost:{}\r\nSec-Fetch-De", lab.port),
    ];
    let slow = Form::of(&lab.callback(), "gAAAA").request().set("Content-Length", "5000").bytes();
    // More than a browser has at once (256).
    let speculative = (0..400).map(|number| {
        let mut stream = connect(&callback).unwrap();
        let bytes = if number % 4 == 3 { &slow[..] } else { half[number % 4].as_bytes() };
        stream.write_all(bytes).unwrap();
        stream
    });
    let start = Url::parse(&sign_in.url).unwrap();
    let connections: Vec<_> = speculative.chain((0..20).map(|_| connect(&start).unwrap())).collect();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    assert_signed_in(&lab, &sign_in, "alice");
    drop(connections);
}

/// Both ends of hundreds of connections are in this process.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[test]
fn every_page_is_closed_to_the_rest_of_the_web() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let begin = start_page(&sign_in)["begin"].as_str().unwrap().to_owned();
    let pages = [
        navigation("GET", &sign_in.url),
        navigation("GET", &begin),
        Form::of(&lab.callback(), "gAAAA").request(),
        navigation("GET", &sign_in.url).without("Sec-Fetch-Dest"),
        navigation("GET", &lab.at_callback("/nothing")),
        navigation("GET", &lab.at_callback("/begin/0000")),
        navigation("GET", &lab.at_callback("/signing-in")),
        Form::of(&lab.callback(), "").request(),
    ];
    for request in pages {
        let page = request.send();
        let has = |name: &str, value: &str| assert_eq!(page.header(name), Some(value), "{page:?}");
        has("Cache-Control", "no-store");
        has("Referrer-Policy", "no-referrer");
        has("X-Content-Type-Options", "nosniff");
        has("X-Frame-Options", "DENY");
        has("Content-Type", "text/html; charset=utf-8");
        let policy = page.header("Content-Security-Policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for header in ["Set-Cookie", "Access-Control-Allow-Origin", "Server", "Location"] {
            assert_eq!(page.header(header), None, "{page:?}");
        }
        let cut_off = page.header("Cross-Origin-Opener-Policy").is_some();
        assert_eq!(cut_off, data(&page.body).get("begin").is_some(), "the start page alone: {page:?}");
        assert_ne!(state(&page.body), "", "a page says what it is");
    }
    let reply = own_fetch(&lab.at_callback("/claim"), &json!({"claim": ""})).send();
    assert_eq!(reply.header("Cache-Control"), Some("no-store"));
    assert_eq!(reply.header("Access-Control-Allow-Origin"), None);
}

#[test]
fn what_an_earlier_owner_of_the_port_left_is_cleared_while_nobody_else_signs_in() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let clean = |sign_in: &SignIn| {
        let page = start_page(sign_in);
        Request::new("GET", page["clean"].as_str().unwrap()).add("Sec-Fetch-Mode", "no-cors").send()
    };
    assert_eq!(clean(&sign_in).header("Clear-Site-Data"), Some("\"storage\""));
    let begin = start_page(&sign_in)["begin"].as_str().unwrap().to_owned();
    assert!(begin.starts_with(&lab.at_callback("/begin/")));
    assert_ne!(origin_of(&sign_in.url), origin_of(&begin), "what is cleaned is not where the tab is");
    let stranger = Request::new("GET", &lab.at_callback("/clean/0000")).send();
    assert_eq!(stranger.header("Clear-Site-Data"), None);
    let cache = format!("{}/cache", start_page(&sign_in)["clean"].as_str().unwrap());
    assert_eq!(Request::new("GET", &cache).send().header("Clear-Site-Data"), Some("\"cache\""));

    let other = lab.cloud_with(|cloud| cloud["identity_provider"] = "other-idp".into());
    let second = lab.api().login(&other).sign_in();
    assert_eq!(clean(&sign_in).header("Clear-Site-Data"), Some("\"storage\""), "the other has no tab yet");
    let browser = Browser::of("alice");
    browser.tab().go(&second.url).unwrap();
    assert_eq!(clean(&sign_in).header("Clear-Site-Data"), None, "it would cost the other tab its secret");
    assert_eq!(clean(&second).header("Clear-Site-Data"), Some("\"storage\""));
}

#[test]
fn another_user_of_the_machine_gets_nothing_from_any_port() {
    if !is_root() {
        skip!("root, to be another user");
    }
    let lab = Lab::new();
    let sign_in = lab.login();
    let begin = start_page(&sign_in)["begin"].as_str().unwrap().to_owned();
    for url in [&sign_in.url, &begin] {
        let request = navigation("GET", url).bytes();
        let there = format!("127.0.0.1:{}", Url::parse(url).unwrap().port().unwrap());
        assert_eq!(stranger::asks(&there, &request), "", "a stranger was answered");
        assert!(stranger::we_ask(&there, &request).starts_with("HTTP/1.1 200"), "the same from ourselves");
    }
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
}

// --- the port ---

#[test]
fn a_port_that_somebody_holds_is_named_with_its_holder_and_nobody_is_sent_there() {
    for address in ["127.0.0.1", "0.0.0.0"] {
        names_who_holds_the_port_at(address);
    }
}

#[test]
fn a_port_that_somebody_holds_in_ipv6_alone_is_named_as_well() {
    if !has_ipv6() {
        skip!("IPv6 on loopback");
    }
    names_who_holds_the_port_at("::1");
}

#[track_caller]
fn names_who_holds_the_port_at(address: &str) {
    let lab = Lab::new();
    let squatter = spawn::undisturbed(|| TcpListener::bind((address, lab.port)).unwrap());
    let answer = lab.api().login(&lab.cloud());
    let problem = answer.problem("port-busy");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&lab.port.to_string()), "{detail}");
    assert!(detail.contains(&format!("process {}", std::process::id())), "{detail}");
    assert_eq!(problem["cloud"], "demo");
    assert!(problem["remedy"].is_string());
    // It is not the user who failed: the next attempt is free to work.
    drop(squatter);
    lab.signed_in("alice");
}

#[test]
fn the_ports_are_open_only_while_somebody_signs_in() {
    let lab = Lab::new();
    let callback = Url::parse(&lab.callback()).unwrap();
    assert!(connect(&callback).is_err());
    let sign_in = lab.signed_in("alice");
    let start = Url::parse(&sign_in.url).unwrap();
    until("the start page is closed", || connect(&start).is_err());
    // The last page may ask to keep the user signed in; this one does not.
    until("the callback is closed", || {
        lab.clock.advance(3);
        connect(&callback).is_err()
    });
}

#[test]
fn localhost_may_be_either_address_family() {
    if !has_ipv6() {
        skip!("IPv6 on loopback");
    }
    let lab = Lab::new();
    let sign_in = lab.login();
    let begin = start_page(&sign_in)["begin"].as_str().unwrap().to_owned();
    let over_ipv6 = begin.replace("localhost", "[::1]");
    let page = navigation("GET", &over_ipv6).set("Host", &format!("localhost:{}", lab.port)).send();
    assert_eq!(page.status, 200);
}

#[test]
fn a_callback_on_another_machine_is_refused() {
    let lab = Lab::new();
    let cloud = lab.cloud_with(|cloud| cloud["sign_in"]["redirect_host"] = "dashboard.example.org".into());
    let answer = lab.api().login(&cloud);
    let detail = answer.problem("invalid-config")["detail"].as_str().unwrap();
    assert!(detail.contains("dashboard.example.org"), "{detail}");
}

// --- time, and the end ---

#[test]
fn junk_does_not_extend_the_deadline() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    assert_eq!(tab.open(&sign_in.url).state, "confirm");
    for _ in 0..3 {
        lab.clock.advance(99);
        Form::of(&lab.callback(), "gAAAA").request().send();
        let mut junk = browser.tab();
        junk.post(&Form::of(&lab.callback(), "gAAAA"));
        assert_eq!(junk.claim().state, "unproven");
        start_page(&sign_in);
        assert_eq!(lab.api().look(&sign_in.id)["state"], "confirming");
    }
    lab.clock.advance(3);
    let over = lab.api().over(&sign_in.id);
    assert_eq!(over["problem"]["code"], "sign-in-timed-out");
    let detail = over["problem"]["detail"].as_str().unwrap();
    assert!(detail.contains("300 seconds"), "{detail}");
    assert_eq!(over["problem"]["remedy"], "ksb login demo");
    assert_eq!(over["opener"], false);
    let url = Url::parse(&sign_in.url).unwrap();
    until("nothing listens for it", || connect(&url).is_err());
}

#[test]
fn a_cloud_may_set_the_time_that_a_person_has() {
    let lab = Lab::new();
    let cloud = lab.cloud_with(|cloud| cloud["sign_in"]["timeout"] = 10.into());
    let sign_in = lab.api().login(&cloud).sign_in();
    lab.clock.advance(10);
    assert_eq!(lab.api().over(&sign_in.id)["problem"]["code"], "sign-in-timed-out");
    // No number makes the agent stumble.
    for timeout in [0, 1 << 40, i64::MAX as u64, u64::MAX] {
        let lab = Lab::new();
        let cloud = lab.cloud_with(|cloud| cloud["sign_in"]["timeout"] = timeout.into());
        let answer = lab.api().login(&cloud);
        assert_ne!(answer.status, 500, "{timeout}: {}", answer.text);
    }
}

#[test]
fn a_sign_in_can_be_called_off() {
    let lab = Lab::new();
    let sign_in = lab.login();
    assert_eq!(lab.api().delete(&format!("/v1/sign-ins/{}", sign_in.id)).status, 204);
    let over = lab.api().over(&sign_in.id);
    assert_eq!(over["problem"]["code"], "sign-in-cancelled");
    let next = lab.signed_in("alice");
    assert_ne!(next.id, sign_in.id);
    assert_eq!(lab.api().over(&sign_in.id)["state"], "failed", "and stays so");
    lab.clock.advance(301);
    lab.api().login(&lab.cloud_with(|cloud| cloud["identity_provider"] = "other-idp".into()));
    lab.api().get(&format!("/v1/sign-ins/{}", sign_in.id)).problem("unknown-sign-in");
}

#[test]
fn logging_out_ends_the_sign_in_that_waits() {
    let lab = Lab::new();
    let sign_in = lab.login();
    lab.api().logout(&lab.cloud());
    assert_eq!(lab.api().over(&sign_in.id)["problem"]["code"], "sign-in-cancelled");
}

#[test]
fn after_a_while_the_terminal_says_what_keystones_own_error_pages_mean() {
    let lab = Lab::new();
    let sign_in = lab.login();
    lab.clock.advance(19);
    assert_eq!(lab.api().look(&sign_in.id)["notices"], json!([]));
    lab.clock.advance(1);
    let notices = lab.api().wait(&sign_in.id, |now| now["notices"] != json!([]))["notices"].clone();
    let notice = notices[0].as_str().unwrap();
    assert!(notice.contains(&format!("trusted_dashboard = {}", lab.callback())), "{notice}");
    assert!(notice.contains("401"), "{notice}");
}

#[test]
fn keystone_refuses_a_callback_that_it_does_not_trust() {
    let lab = Lab::new();
    let port = crate::support::port::free();
    let cloud = lab.cloud_with(|cloud| cloud["sign_in"]["redirect_port"] = port.into());
    let sign_in = lab.api().login(&cloud).sign_in();
    let shown = Browser::of("alice").tab().go(&sign_in.url).unwrap_err();
    assert_eq!(shown.state, "", "that is Keystone's own page, which we cannot see");
    assert_eq!(lab.keystone.logins(), 0);
    assert_still_waiting(&lab, &sign_in);
}

// --- the terminal ---

#[test]
fn a_token_from_another_browser_may_be_taken_in_the_terminal() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let (offers, accept) =
        (format!("/v1/sign-ins/{}/offers", sign_in.id), format!("/v1/sign-ins/{}/accept", sign_in.id));
    let browser = Browser::of("alice");
    let form = browser.tab().go(&sign_in.url).unwrap();
    let mut elsewhere = browser.tab();
    elsewhere.post(&form);
    let shown = elsewhere.claim();
    assert_eq!(shown.state, "unproven");
    let code = shown.reply["code"].as_str().unwrap();
    lab.api().wait(&sign_in.id, |now| now["offers"] == 1);
    assert_still_waiting(&lab, &sign_in);

    let offered = lab.api().get(&offers).json["offers"].clone();
    assert_eq!(offered.as_array().unwrap().len(), 1);
    assert_eq!((&offered[0]["code"], &offered[0]["user"]["name"]), (&json!(code), &json!("alice")));
    assert_eq!(offered[0]["identity_provider"], "lab-idp");
    lab.api().post(&accept, &json!({"code": "WRONG2"})).problem("unknown-sign-in");
    assert_still_waiting(&lab, &sign_in);
    assert_eq!(lab.api().post(&accept, &json!({"code": code})).status, 204);
    assert_signed_in(&lab, &sign_in, "alice");
}

#[test]
fn a_browser_without_javascript_may_be_taken_in_the_terminal() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let form = browser.tab().go(&sign_in.url).unwrap();
    let page = form.request().send();
    let code = data(&page.body)["code"].as_str().unwrap().to_owned();
    assert!(page.body.split("<noscript>").nth(1).unwrap().contains(&code), "the page shows it");
    let accept = format!("/v1/sign-ins/{}/accept", sign_in.id);
    assert_eq!(lab.api().post(&accept, &json!({"code": code})).status, 204);
    assert_signed_in(&lab, &sign_in, "alice");
}

#[test]
fn the_terminal_offers_only_what_could_be_taken() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.keystone.revoke(&lab.api().token(&lab.cloud(), &scope::unscoped()).token_id());
    let old = lab.keystone.issue("alice", LAB);
    lab.clock.advance(5);
    let unscoped = lab.api().token(&lab.cloud(), &scope::unscoped()).token_id();
    let sign_in = lab.api().token_instead_of(&unscoped, &lab.cloud(), &scope::unscoped()).sign_in();
    let mallory = lab.keystone.issue("mallory", LAB);
    for token in [&old, &mallory, "gAAAA-nobodys"] {
        Form::of(&lab.callback(), token).request().send();
    }
    let offered = lab.api().get(&format!("/v1/sign-ins/{}/offers", sign_in.id)).json["offers"].clone();
    assert_eq!(offered.as_array().unwrap().len(), 1, "{offered:#}");
    assert_eq!(offered[0]["user"]["name"], "mallory", "the person sees who it would be");
    // And the pin holds here too.
    let accept = format!("/v1/sign-ins/{}/accept", sign_in.id);
    let answer = lab.api().post(&accept, &json!({"code": offered[0]["code"]}));
    let detail = answer.problem("token-refused")["detail"].as_str().unwrap();
    assert!(detail.contains("mallory") && detail.contains("alice"), "{detail}");
    assert_eq!(lab.api().look(&sign_in.id)["state"], "waiting");
}

#[test]
fn a_flood_of_junk_costs_at_most_another_try() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let form = tab.go(&sign_in.url).unwrap();
    tab.post(&form);
    let junk: Vec<_> = (0..64).map(|number| format!("gAAAA-junk-{number}")).collect();
    for token in &junk {
        Form::of(&lab.callback(), token).request().send();
    }
    assert_eq!(tab.claim().state, "expired", "what waits is bounded");
    assert_eq!(tab.sign_in(&sign_in.url).state, "done");
    assert_signed_in(&lab, &sign_in, "alice");
}

/// What a page's script is told never holds a token.
#[test]
fn no_page_and_no_reply_holds_a_token() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let form = tab.go(&sign_in.url).unwrap();
    let page: Response = form.request().send();
    tab.post(&form);
    let replies = [tab.claim().reply.to_string(), tab.answer(true).reply.to_string(), page.body];
    for token in lab.keystone.all_tokens() {
        assert!(replies.iter().all(|reply| !reply.contains(&token)));
    }
    assert!(!sign_in.url.contains(&sign_in.id), "the address is good for the start page only");
}
