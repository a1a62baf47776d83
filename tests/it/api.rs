//! The API: its document and its errors, and when it serves a token, asks for a user, or refuses.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::api::{Answer, request, scope};
use crate::support::browser::navigation;
use crate::support::http::{Request, Response};
use crate::support::keystone::{DISCOVERY, EXCHANGE, Fault, Keystone, REVOCATION, VALIDATION};
use crate::support::lab::Lab;
use crate::support::openapi;
use crate::support::world::World;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

// --- the document and the wire ---

/// `KSB_BLESS=1 cargo test openapi` writes it.
#[test]
fn docs_openapi_json_is_what_the_code_says() {
    let now = format!("{:#}\n", openapi::document());
    if std::env::var_os("KSB_BLESS").is_some() {
        fs::write(DOCUMENT, &now).unwrap();
    }
    let written = fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(written == now, "docs/openapi.json is out of date: KSB_BLESS=1 cargo test openapi");
}

#[test]
fn the_document_is_served_too() {
    let served = Lab::new().api().raw(&request("GET", "/v1/openapi.json", None));
    assert_eq!((served.status, &served.json()), (200, openapi::document()));
}

/// Answers to questions that no document describes.
#[track_caller]
fn assert_problem(response: &Response, code: &str) {
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response:?}");
    assert_eq!(response.header("ksb-version"), Some(env!("CARGO_PKG_VERSION")));
    let problem = response.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], response.status);
    assert_eq!(problem["type"], format!("urn:ksb:problem:{code}"));
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
}

#[test]
fn what_makes_no_sense_is_answered_with_a_problem() {
    let lab = Lab::new();
    let good = json!({"cloud": lab.cloud()});
    let post = |body: &str| Request::new("POST", "http://ksb/v1/tokens").body("application/json", body);
    let odd = [
        request("GET", "/", None),
        request("GET", "/v1/nothing", None),
        request("GET", "/v2/status", None),
        request("DELETE", "/v1/tokens", None),
        request("POST", "/v1/tokens", None),
        request("POST", "/v1/tokens", Some(&good)).set("Content-Type", "text/plain"),
        request("GET", "/v1/sign-ins/x?seen=many", None),
        post("{"),
        post("[]"),
        post("{}"),
        post(r#"{"cloud": {"auth_url": "nonsense", "protocol": "openid"}}"#),
        post(&json!({"cloud": lab.cloud(), "scope": "everything"}).to_string()),
        post(&json!({"cloud": lab.cloud(), "scope": {"project": {"name": 7}}}).to_string()),
        post(&json!({"cloud": lab.cloud(), "min_validity": -1}).to_string()),
    ];
    for request in odd {
        assert_problem(&lab.api().raw(&request), "invalid-request");
    }
    assert_eq!(lab.keystone.requests(), 0);
}

#[test]
fn a_request_has_64_kib_at_most() {
    let lab = Lab::new();
    let of_size = |size: usize| {
        let mut body = json!({"cloud": lab.cloud(), "more": ""});
        body["more"] = "x".repeat(size - body.to_string().len()).into();
        lab.api().raw(&request("POST", "/v1/tokens", Some(&body)))
    };
    // What is not known is not minded.
    assert_problem(&of_size(64 << 10), "sign-in-needed");
    let refused = of_size((64 << 10) + 1);
    assert_problem(&refused, "invalid-request");
    assert!(refused.json()["detail"].as_str().unwrap().contains("Too Large"), "{refused:?}");
}

#[test]
fn no_answer_repeats_a_secret_of_the_question() {
    let lab = Lab::new();
    let body = json!({"cloud": {"auth_url": 7}, "rejected": "gAAAA-canary"}).to_string();
    let refused = lab.api().raw(&Request::new("POST", "http://ksb/v1/tokens").body("application/json", body));
    assert!(!refused.body.contains("canary"), "{refused:?}");
}

#[test]
fn what_is_not_there_is_not_found() {
    let lab = Lab::new();
    let id = "0".repeat(32);
    let at = |path: &str| format!("/v1/sign-ins/{id}{path}");
    lab.api().get(&at("")).problem("unknown-sign-in");
    lab.api().delete(&at("")).problem("unknown-sign-in");
    lab.api().poke(&at("/opened")).problem("unknown-sign-in");
    lab.api().get(&at("/offers")).problem("unknown-sign-in");
    lab.api().post(&at("/accept"), &json!({"code": "ABCDEF"})).problem("unknown-sign-in");
}

#[test]
fn an_agent_that_is_told_to_stop_stops() {
    let lab = Lab::new();
    assert_eq!(lab.api().poke("/v1/stop").status, 204);
    drop(lab);
}

#[test]
fn status_says_who_where_and_until_when() {
    let lab = Lab::new();
    let empty = lab.api().status();
    assert_eq!((&empty["sessions"], &empty["sign_ins"]), (&json!([]), &json!([])));
    assert_eq!(empty["vault"]["state"], "memory");
    assert_eq!(empty["pid"], std::process::id());

    lab.signed_in("alice");
    lab.api().token(&lab.cloud(), &scope::project("demo"));
    let waiting = lab.api().login(&lab.cloud_with(|cloud| cloud["name"] = "unverified".into())).status;
    assert_eq!(waiting, 200, "another name is no other identity");
    let status = lab.api().status();
    let session = &status["sessions"][0];
    assert_eq!(session["clouds"], json!(["demo", "unverified"]));
    assert_eq!(
        (&session["user"]["name"], &session["user"]["domain"]["name"]),
        (&json!("alice"), &json!("lab"))
    );
    assert_eq!(session["expires_at"], "2026-03-29T01:59:57Z");
    assert_eq!(session["scopes"], json!([{"scope": "project demo", "expires_at": "2026-03-29T01:59:57Z"}]));
    for token in lab.keystone.all_tokens() {
        assert!(!status.to_string().contains(&token));
    }
}

#[test]
fn looking_at_a_sign_in_makes_nobody_the_opener() {
    let lab = Lab::new();
    let unprompted = lab.api().token_unprompted(&lab.cloud(), &scope::project("demo"));
    unprompted.problem("sign-in-needed");
    assert_eq!(lab.api().status()["sign_ins"], json!([]), "nor does a caller that may not prompt start one");
    let sign_in = lab.login();
    lab.clock.advance(6);
    assert_eq!(lab.api().status()["sign_ins"][0]["opener"], false);
    assert_eq!(lab.api().look(&sign_in.id)["opener"], true, "the next who waits is");
}

// --- when a token is good enough ---

/// Seconds before the end of its life at which a token of this life is served the last time, by a Keystone
/// whose clock is ahead of ours.
#[track_caller]
fn assert_served_until(lifetime: i64, threshold: i64, ahead: i64) {
    let lab = Lab::new();
    lab.keystone.skew(ahead);
    lab.keystone.lifetime(lifetime);
    lab.signed_in("alice");
    let token = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    // The test's clock stands a quarter of a second after Keystone's whole one.
    lab.clock.advance(lifetime - threshold - 1);
    let served = lab.api().token_unprompted(&lab.cloud(), &scope::project("demo"));
    assert_eq!(served.token_id(), token, "{} s before its end", threshold + 1);
    lab.clock.advance(1);
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).problem("sign-in-needed");
    lab.api().token(&lab.cloud(), &scope::project("demo")).sign_in();
    assert_eq!((lab.logins(), lab.exchanges()), (1, 1));
}

#[test]
fn a_token_is_served_until_130_seconds_before_its_end() {
    assert_served_until(3600, 130, 0);
}

#[test]
fn a_short_token_is_served_for_three_quarters_of_its_life() {
    assert_served_until(60, 15, 0);
}

#[test]
fn a_keystone_whose_clock_is_wrong_is_served_from_all_the_same() {
    for ahead in [7200, -7200, 20, -20] {
        assert_served_until(3600, 130, ahead);
    }
    let lab = Lab::new();
    lab.keystone.skew(7200);
    lab.signed_in("alice");
    let answer = lab.api().token(&lab.cloud(), &scope::project("demo")).json;
    assert_eq!(answer["expires_at"], lab.api().status()["sessions"][0]["expires_at"], "by our own clock");
    assert_eq!(answer["expires_at"], "2026-03-29T01:59:57Z");
    assert_eq!(answer["body"]["token"]["expires_at"], "2026-03-29T03:59:57.000000Z", "Keystone's own word");
}

#[test]
fn a_caller_may_ask_for_more_life() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let ask = |min_validity: u64| -> Answer {
        let question =
            json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "min_validity": min_validity});
        lab.api().post("/v1/tokens", &question)
    };
    // Right after a sign-in there is nothing longer to be had: no second one is asked for.
    let token = ask(7200).token_id();
    lab.clock.advance(61);
    ask(7200).problem("sign-in-needed");
    ask(u64::MAX).problem("sign-in-needed");
    ask(3600).problem("sign-in-needed");
    assert_eq!(ask(3500).token_id(), token);
    assert_eq!(ask(0).token_id(), token);
    assert_eq!((lab.logins(), lab.exchanges()), (1, 1));
}

#[test]
fn a_caller_who_asks_for_more_is_not_given_less_because_another_asked_first() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.clock.advance(3000);
    let held = lab.keystone.on(EXCHANGE, Fault::Waits);
    let question = |min_validity: u64| json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "min_validity": min_validity});
    std::thread::scope(|threads| {
        let modest = threads.spawn(|| lab.api().post("/v1/tokens", &question(0)));
        lab.keystone.wait_for(EXCHANGE, 1);
        let demanding = threads.spawn(|| lab.api().post("/v1/tokens", &question(3000)));
        // Its question has been read once a later one has been answered.
        lab.api().status();
        drop(held);
        modest.join().unwrap().token_id();
        demanding.join().unwrap().problem("sign-in-needed");
    });
}

#[test]
fn login_for_longer_than_the_session_lasts_signs_in_anew() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let login = |seconds: u64| {
        lab.api().post("/v1/sign-ins", &json!({"cloud": lab.cloud(), "min_validity": seconds}))
    };
    assert_eq!(login(0).status, 200);
    // A moment after the sign-in the session is the longest there is.
    assert_eq!(login(86_400).status, 200);
    lab.clock.advance(1800);
    assert_eq!(login(1700).status, 200);
    let again = login(3000).sign_in();
    assert_eq!(lab.browse(&again.url, "alice"), "done");
    assert_eq!(lab.api().over(&again.id)["state"], "done");
    let session = login(3000).json["session"].clone();
    assert_eq!(session["expires_at"], "2026-03-29T02:29:57Z");
}

#[test]
fn roles_and_projects_are_asked_for_each_time() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let reach = || lab.api().post("/v1/projects", &json!({"cloud": lab.cloud()})).json;
    assert_eq!(reach()["domains"], json!([]));
    lab.api().token(&lab.cloud(), &json!({"domain": {"name": "lab"}})).problem("scope-refused");
    lab.keystone.grant_domain("alice");
    assert_eq!(reach()["domains"][0]["name"], "lab");
    let answer = lab.api().token(&lab.cloud(), &json!({"domain": {"name": "lab"}}));
    assert_eq!(answer.json["body"]["token"]["domain"]["name"], "lab");
}

#[test]
fn keystones_body_comes_byte_for_byte() {
    let lab = Lab::new();
    lab.signed_in("alice");
    for scope in [scope::unscoped(), scope::project("demo")] {
        let answer = lab.api().token(&lab.cloud(), &scope);
        let body = lab.keystone.body_of(&answer.token_id());
        assert!(answer.text.contains(&format!("\"body\":{body}")), "{}\n{body}", answer.text);
    }
}

// --- who is asked to open the browser ---

#[test]
fn an_opener_that_does_not_report_is_replaced_after_five_seconds() {
    let lab = Lab::new();
    let first = lab.api().token(&lab.cloud(), &scope::project("demo")).sign_in();
    let second = lab.api().token(&lab.cloud(), &scope::project("demo")).sign_in();
    assert_eq!((first.opener, second.opener), (true, false));
    assert_eq!((&first.id, &first.url), (&second.id, &second.url));

    let path = format!("/v1/sign-ins/{}?seen={}&wait=20", second.id, second.json["revision"]);
    std::thread::scope(|threads| {
        let waits = threads.spawn(|| lab.api().get(&path).json["sign_in"].clone());
        lab.clock.advance(4);
        assert_eq!(lab.api().look(&first.id)["opener"], false);
        lab.clock.advance(1);
        assert_eq!(waits.join().unwrap()["opener"], true, "the one who waited all the while");
        assert_eq!(lab.api().look(&first.id)["opener"], false, "one at a time");
        assert_eq!(lab.api().poke(&format!("/v1/sign-ins/{}/opened", first.id)).status, 204);
        lab.clock.advance(100);
        assert_eq!(lab.api().look(&first.id)["opener"], false, "it is open");
    });
}

#[test]
fn a_browser_that_shows_the_start_page_needs_no_other_opener() {
    let lab = Lab::new();
    let sign_in = lab.login();
    navigation("GET", &sign_in.url).send();
    lab.api().wait(&sign_in.id, |now| now["revision"] != sign_in.json["revision"]);
    lab.clock.advance(100);
    assert_eq!(lab.api().look(&sign_in.id)["opener"], false);
}

#[test]
fn the_configured_browser_is_named() {
    let toml = "browser = \"firefox {url}\"\n[clouds.demo]\nbrowser = \"chromium --profile work\"\n";
    let lab = Lab::with_config(toml);
    assert_eq!(lab.login().json["browser"], "chromium --profile work");
    let other = lab.cloud_with(|cloud| {
        cloud["name"] = "other".into();
        cloud["identity_provider"] = "other-idp".into();
    });
    assert_eq!(lab.api().login(&other).sign_in().json["browser"], "firefox {url}");
}

#[test]
fn after_a_sign_in_that_nobody_finished_no_browser_opens_for_a_while() {
    let lab = Lab::new();
    let ask = || lab.api().token(&lab.cloud(), &scope::project("demo"));
    for _ in 0..3 {
        let waiting = ask().sign_in();
        lab.clock.advance(300);
        assert_eq!(lab.api().over(&waiting.id)["problem"]["code"], "sign-in-timed-out");
        let answer = ask();
        let problem = answer.problem("sign-in-cooling-down");
        assert_eq!((answer.status, &problem["remedy"]), (401, &json!("ksb login demo")));
        assert!(problem["detail"].as_str().unwrap().contains("another 60 s"), "{problem}");
        lab.clock.advance(59);
        ask().problem("sign-in-cooling-down");
        lab.clock.advance(1);
    }
    // A user who says `ksb login` is not held up, and once it works all is forgotten.
    let waiting = ask().sign_in();
    lab.clock.advance(300);
    lab.api().over(&waiting.id);
    ask().problem("sign-in-cooling-down");
    let login = lab.login();
    assert_eq!(ask().sign_in().id, login.id, "whoever comes now waits with her");
    assert_eq!(lab.browse(&login.url, "alice"), "done");
    lab.api().over(&login.id);
    lab.api().logout(&lab.cloud());
    ask().sign_in();
}

// --- a Keystone that is not well ---

#[test]
fn an_unreachable_keystone_opens_no_browser_and_starts_no_rest() {
    let lab = Lab::new();
    lab.keystone.go();
    for _ in 0..3 {
        let answer = lab.api().token(&lab.cloud(), &scope::project("demo"));
        let problem = answer.problem("keystone-unreachable");
        assert_eq!((answer.status, &problem["cloud"]), (503, &json!("demo")));
        assert!(problem["detail"].as_str().unwrap().contains("127.0.0.1"), "{problem}");
    }
    lab.api().login(&lab.cloud()).problem("keystone-unreachable");
    assert_eq!(lab.api().status()["sign_ins"], json!([]));
    lab.keystone.come_back();
    lab.signed_in("alice");
}

#[test]
fn what_answers_must_be_a_keystone() {
    let lab = Lab::new();
    let cases = [
        (Fault::Status(503), "keystone-error"),
        (Fault::Hangs, "keystone-unreachable"),
        (Fault::Status(404), "not-keystone"),
        (Fault::Says(200, "<html>Welcome to nginx!</html>".into()), "not-keystone"),
        (Fault::Says(200, r#"{"version": {"id": "v2.0"}}"#.into()), "not-keystone"),
        (Fault::Says(200, r#"{"versions": []}"#.into()), "not-keystone"),
        (Fault::Says(302, String::new()), "not-keystone"),
    ];
    for (fault, code) in cases {
        let _odd = lab.keystone.on(DISCOVERY, fault);
        let answer = lab.api().token(&lab.cloud(), &scope::project("demo"));
        assert_eq!(answer.problem(code)["cloud"], "demo");
    }
    lab.signed_in("alice");
}

#[test]
fn a_keystone_that_stumbles_costs_no_credential() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let ask = || lab.api().token(&lab.cloud(), &scope::project("demo"));
    let (good, bad) = (r#"{"token": {}}"#, "<html>");
    let faults = [
        (Fault::Status(500), "keystone-error"),
        (Fault::Status(503), "keystone-error"),
        (Fault::Hangs, "keystone-unreachable"),
        (Fault::Says(201, bad.into()), "not-keystone"),
        (Fault::Says(201, good.into()), "not-keystone"),
    ];
    for (fault, code) in faults {
        let _stumbles = lab.keystone.on(EXCHANGE, fault);
        assert_eq!(ask().problem(code)["cloud"], "demo");
    }
    // A refusal whose reason cannot be found out is no reason to sign in again.
    {
        let _refused = lab.keystone.on(EXCHANGE, Fault::Status(401));
        let _silent = lab.keystone.on(VALIDATION, Fault::Status(500));
        ask().problem("keystone-error");
    }
    lab.keystone.go();
    ask().problem("keystone-unreachable");
    lab.keystone.come_back();
    ask().token_id();
    assert_eq!(lab.logins(), 1);
}

#[test]
fn a_doubted_token_is_not_served_while_keystone_does_not_answer() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let demo = scope::project("demo");
    let token = lab.api().token(&lab.cloud(), &demo).token_id();
    {
        let _silent = lab.keystone.on(VALIDATION, Fault::Status(503));
        lab.api().token_instead_of(&token, &lab.cloud(), &demo).problem("keystone-error");
    }
    assert_eq!(lab.api().token_instead_of(&token, &lab.cloud(), &demo).token_id(), token);
    assert_eq!(lab.exchanges(), 1);
}

#[test]
fn many_who_doubt_one_token_ask_keystone_once() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let demo = scope::project("demo");
    let token = lab.api().token(&lab.cloud(), &demo).token_id();
    let before = lab.keystone.count(VALIDATION);
    let held = lab.keystone.on(VALIDATION, Fault::Waits);
    let doubt = json!({"cloud": lab.cloud(), "scope": demo, "rejected": token});
    let callers: Vec<_> = (0..20).map(|_| lab.api().ask("/v1/tokens", &doubt)).collect();
    lab.keystone.wait_for(VALIDATION, before + 1);
    // Whoever asked before has been heard when a later question is answered.
    lab.api().status();
    drop(held);
    for caller in callers {
        assert_eq!(Response::read(caller).unwrap().json()["token_id"], token);
    }
    assert_eq!(lab.keystone.count(VALIDATION), before + 1);
}

#[test]
fn an_exchange_that_is_under_way_is_joined_and_outlives_its_first_caller() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let held = lab.keystone.on(EXCHANGE, Fault::Waits);
    let question = json!({"cloud": lab.cloud(), "scope": scope::project("demo")});
    let ask = || lab.api().ask("/v1/tokens", &question);
    let first = ask();
    lab.keystone.wait_for(EXCHANGE, 1);
    let rest: Vec<_> = (0..20).map(|_| ask()).collect();
    drop(first);
    lab.api().status();
    drop(held);
    for caller in rest {
        assert_eq!(Response::read(caller).unwrap().status, 200);
    }
    assert_eq!(lab.keystone.count(EXCHANGE), 1);
}

#[test]
fn a_logout_during_an_exchange_leaves_no_token_behind() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let held = lab.keystone.on(EXCHANGE, Fault::Waits);
    std::thread::scope(|threads| {
        let caller = threads.spawn(|| lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")));
        lab.keystone.wait_for(EXCHANGE, 1);
        let revoked = lab.keystone.on(REVOCATION, Fault::Status(503));
        // Keystone keeps the unscoped token, so that the exchange succeeds after all.
        assert_eq!(lab.api().logout(&lab.cloud())[0]["not_revoked"].as_array().unwrap().len(), 1);
        drop(revoked);
        drop(held);
        caller.join().unwrap().problem("sign-in-needed");
    });
    let unscoped_lives = 1;
    let living = lab.keystone.all_tokens().iter().filter(|token| lab.keystone.accepts(token)).count();
    assert_eq!(living, unscoped_lives, "the token made meanwhile is revoked");
}

#[test]
fn a_logout_without_keystone_forgets_and_says_what_lives_on() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    lab.keystone.go();
    let ended = lab.api().logout(&lab.cloud());
    assert_eq!((&ended[0]["revoked"], ended[0]["not_revoked"].as_array().unwrap().len()), (&json!(0), 2));
    for left in ended[0]["not_revoked"].as_array().unwrap() {
        assert!(["unscoped", "project demo"].contains(&left["scope"].as_str().unwrap()), "{left}");
        assert_eq!(left["expires_at"], "2026-03-29T01:59:57Z");
        assert!(left["reason"].as_str().unwrap().contains("cannot be reached"), "{left}");
    }
    lab.keystone.come_back();
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).problem("sign-in-needed");
}

#[test]
fn a_logout_of_everything_ends_every_session() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let other = lab.cloud_with(|cloud| {
        cloud["identity_provider"] = "other-idp".into();
        cloud["logout_url"] = "https://idp.example/logout".into();
    });
    let second = lab.api().login(&other).sign_in();
    assert_eq!(lab.browse(&second.url, "alice"), "done");
    lab.api().over(&second.id);
    let ended = lab.api().post("/v1/logout", &json!({})).json["sessions"].clone();
    assert_eq!(ended.as_array().unwrap().len(), 2);
    let links: Vec<_> = ended.as_array().unwrap().iter().filter_map(|one| one.get("logout_url")).collect();
    assert_eq!(links, ["https://idp.example/logout"], "where the browser's own session ends");
    assert!(lab.keystone.all_tokens().iter().all(|token| !lab.keystone.accepts(token)));
}

// --- a clouds.yaml of the current directory ---

fn with(cloud: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut cloud = cloud.clone();
    cloud[name] = value.into();
    cloud
}

fn from_current_folder(lab: &Lab) -> Value {
    lab.cloud_with(|cloud| {
        cloud["source"] = json!({"file": "/home/alice/cloned/clouds.yaml", "current_folder": true});
    })
}

#[test]
fn a_cloud_of_the_current_folder_must_be_known_or_trusted() {
    let lab = Lab::new();
    let cloud = from_current_folder(&lab);
    for answer in [
        lab.api().token(&cloud, &scope::project("demo")),
        lab.api().login(&cloud),
        lab.api().post("/v1/projects", &json!({"cloud": cloud})),
    ] {
        let problem = answer.problem("cloud-not-trusted");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("/home/alice/cloned/clouds.yaml") && detail.contains("127.0.0.1"),
            "{detail}"
        );
        assert!(problem["remedy"].as_str().unwrap().contains("ksb trust demo"), "{problem}");
    }
    assert_eq!(lab.keystone.requests(), 0, "nothing was sent to a stranger's Keystone");

    assert_eq!(lab.api().post("/v1/trust", &json!({"cloud": cloud})).status, 204);
    lab.api().token(&cloud, &scope::project("demo")).sign_in();
    // Only this identity provider of this Keystone, and with the same trust in certificates.
    let others = [
        with(&cloud, "identity_provider", "other-idp"),
        with(&cloud, "tls", json!({"verify": false})),
        // A page of somebody else's, where the user would type a password.
        with(&cloud, "sign_in", lab.oidc()["sign_in"].clone()),
    ];
    for other in &others {
        lab.api().login(other).problem("cloud-not-trusted");
    }
    // It is remembered.
    let lab = lab.restart_agent();
    lab.api().token(&cloud, &scope::project("demo")).sign_in();
    for other in &others {
        lab.api().login(other).problem("cloud-not-trusted");
    }
}

#[test]
fn a_cloud_that_was_signed_in_to_is_known_from_then_on() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.api().token(&from_current_folder(&lab), &scope::project("demo")).token_id();
    let lab = lab.restart_agent();
    lab.api().token(&from_current_folder(&lab), &scope::project("demo")).sign_in();
}

#[test]
fn a_file_of_one_s_own_is_not_asked_about() {
    let lab = Lab::new();
    let cloud = lab.cloud_with(|cloud| {
        cloud["source"] =
            json!({"file": "/home/alice/.config/openstack/clouds.yaml", "current_folder": false});
    });
    lab.api().login(&cloud).sign_in();
}

// --- TLS settings and the identity ---

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_with_the_setting_that_helps() {
    let lab = Lab::new();
    let keystone = Keystone::start_on_tls(lab.clock.clone());
    let ca_file = lab.agent.folder().join("ca.pem");
    fs::write(&ca_file, keystone.certificate()).unwrap();
    let with_tls = |tls: Value| {
        lab.cloud_with(|cloud| {
            cloud["auth_url"] = keystone.url().into();
            cloud["tls"] = tls;
        })
    };
    let answer = lab.api().login(&with_tls(json!({})));
    let problem = answer.problem("keystone-tls");
    assert!(problem["remedy"].as_str().unwrap().contains("cacert"), "{problem}");
    assert_eq!(keystone.requests(), 0);
    // Nor does the wrong authority; the right one does, and so does looking away.
    let other = lab.agent.folder().join("other.pem");
    fs::write(&other, Keystone::start_on_tls(lab.clock.clone()).certificate()).unwrap();
    lab.api().login(&with_tls(json!({"ca_file": other}))).problem("keystone-tls");
    lab.api().login(&with_tls(json!({"ca_file": ca_file}))).sign_in();
    lab.api().login(&with_tls(json!({"verify": false}))).sign_in();
}

#[test]
fn an_unverified_cloud_shares_its_sign_in_with_no_other() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let unverified = lab.cloud_with(|cloud| cloud["tls"] = json!({"verify": false}));
    lab.api().token_unprompted(&unverified, &scope::project("demo")).problem("sign-in-needed");
    let other_name = lab.cloud_with(|cloud| {
        cloud["tls"] = json!({"verify": false});
        cloud["name"] = "other".into();
    });
    let one = lab.api().login(&unverified).sign_in();
    let other = lab.api().login(&other_name).sign_in();
    assert_ne!(one.id, other.id);
}

#[test]
fn a_ca_file_counts_by_what_it_holds_and_an_error_names_who_named_it() {
    let lab = Lab::new();
    let keystone = Keystone::start_on_tls(lab.clock.clone());
    let certificate = keystone.certificate();
    let named = |path: &Path, source: Option<&str>| {
        lab.cloud_with(|cloud| {
            cloud["auth_url"] = keystone.url().into();
            cloud["tls"] = json!({"ca_file": path});
            if let Some(source) = source {
                cloud["tls"]["sources"] = json!({"ca_file": source});
            }
        })
    };
    let file = |name: &str, text: &str| {
        let path = lab.agent.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let (junk, empty) = (file("junk.pem", "nothing"), lab.agent.folder().join("empty"));
    fs::create_dir(&empty).unwrap();
    for unusable in [Path::new("/nowhere/ca.pem"), &junk, &empty] {
        for source in ["REQUESTS_CA_BUNDLE", "`cacert` in /etc/openstack/clouds.yaml"] {
            let answer = lab.api().login(&named(unusable, Some(source)));
            let problem = answer.problem("invalid-config");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.starts_with(&format!("{source}: {}: ", unusable.display())), "{detail}");
            assert!(!detail.contains("os error"), "{detail}");
            assert_eq!(problem["remedy"], format!("correct {source}"));
        }
        // Nothing is read for a cloud that speaks no TLS.
        let plain = lab.cloud_with(|cloud| cloud["tls"] = json!({"ca_file": unusable}));
        lab.api().token(&plain, &scope::project("demo")).sign_in();
    }
    // As requests and OpenSSL have it: files of a directory by their hash, and no others.
    let directory = file("hashed/0a1b2c3d.0", certificate).parent().unwrap().to_owned();
    file("hashed/README", "no certificate");
    let (one, same) = (file("one.pem", certificate), file("same.pem", certificate));
    let id = |path: &Path, source: Option<&str>| lab.api().login(&named(path, source)).sign_in().id;
    let first = id(&one, None);
    assert_eq!(id(&same, Some("CURL_CA_BUNDLE")), first, "the same authority, named by another variable");
    assert_ne!(id(&directory, None), "");
    // The same path with another content is another identity.
    lab.clock.advance(1);
    file("same.pem", &format!("# renewed\n{certificate}"));
    assert_ne!(id(&same, None), first);
    assert_eq!(id(&one, None), first);
}

/// A file that changes right after it was looked at is not used under the digest of what it held before.
#[test]
fn the_certificates_that_were_judged_are_those_in_use() {
    let lab = Lab::new();
    let (good, other) =
        (Keystone::start_on_tls(lab.clock.clone()), Keystone::start_on_tls(lab.clock.clone()));
    let path = lab.agent.folder().join("ca.pem");
    let cloud = |keystone: &Keystone, verify: bool| {
        lab.cloud_with(|cloud| {
            cloud["auth_url"] = keystone.url().into();
            cloud["tls"] = json!({"ca_file": path, "verify": verify});
        })
    };
    fs::write(&path, other.certificate()).unwrap();
    // Looked at, and no client is made of it, as nothing is asked.
    lab.api().token_unprompted(&cloud(&good, true), &scope::project("demo")).problem("sign-in-needed");
    fs::write(&path, good.certificate()).unwrap();
    let changed = lab.api().login(&cloud(&good, true));
    assert!(changed.problem("invalid-config")["detail"].as_str().unwrap().contains("has just changed"));
    lab.api().login(&cloud(&good, true)).sign_in();
    lab.clock.advance(1);
    fs::write(&path, other.certificate()).unwrap();
    lab.api().login(&cloud(&good, true)).problem("keystone-tls");
}

#[test]
fn an_address_with_a_password_in_it_is_not_taken_and_not_shown() {
    let lab = Lab::new();
    let cloud = lab.cloud_with(|cloud| {
        cloud["auth_url"] = "https://alice:hunter2@keystone.example/v3".into();
        cloud["source"] = json!({"file": "/x/clouds.yaml", "current_folder": true});
    });
    let oidc = lab.cloud_with(|cloud| {
        let oidc = json!({"discovery_endpoint": "https://:hunter2@idp.example/x", "client_id": "cli"});
        cloud["sign_in"] = json!({"way": "oidc_code", "oidc": oidc});
    });
    for cloud in [cloud, oidc] {
        let asked = lab.api().token(&cloud, &scope::project("demo"));
        let trusted = lab.api().post("/v1/trust", &json!({"cloud": cloud}));
        for answer in [asked, trusted] {
            let detail = answer.problem("invalid-request")["detail"].to_string();
            assert!(detail.contains("an address holds a name or a password"), "{detail}");
            assert!(!answer.text.contains("hunter2"), "{}", answer.text);
        }
    }
}
