//! `confirm`: a user is asked before a program gets a token.

use std::thread;

use keystone_broker::api::TokenRequest;
use keystone_broker::audit;
use keystone_broker::platform::peer_program::Peer;
use serde_json::{Value, json};

use crate::support::api::{request, scope};
use crate::support::http::Response;
use crate::support::lab::{Lab, until};
use crate::support::notices::Answer;
use crate::support::stranger;
use crate::support::tool::{Tool, token};
use crate::support::world::World;

fn lab(answer: Answer) -> Lab {
    let lab = Lab::with_config("[hosts.\"127.0.0.1\"]\nconfirm = true\n");
    lab.signed_in("alice");
    lab.agent.will_answer(answer);
    lab
}

#[test]
fn a_program_that_is_allowed_is_asked_about_once_for_each_scope_and_token() {
    let lab = lab(Answer::Yes);
    let ask = |project: &str| lab.api().token(&lab.cloud(), &scope::project(project)).token_id();
    for _ in 0..3 {
        ask("demo");
    }
    let [(title, text)] = lab.agent.told().try_into().unwrap();
    let me = std::env::current_exe().unwrap();
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(title, format!("demo: may {} have a token?", name.trim()));
    let process = format!("(process {}, {}), started by ", std::process::id(), me.display());
    assert!(text.contains(&process) && text.ends_with(" asks for project demo."), "{text}");
    for secret in lab.keystone.all_tokens() {
        assert!(!text.contains(&secret));
    }
    ask("staging");
    assert_eq!(lab.agent.told().len(), 2, "another scope is another question");
    lab.clock.advance(3600);
    lab.signed_in("alice");
    ask("demo");
    assert_eq!(lab.agent.told().len(), 3, "the answer was for no longer than that token");
}

/// The cloud as a caller may call it: by another name, or by none as with `OS_AUTH_URL`.
fn called(lab: &Lab, name: Option<&str>) -> Value {
    lab.cloud_with(|cloud| cloud["name"] = name.into())
}

#[test]
fn no_other_name_for_a_cloud_leads_past_the_question() {
    let lab = lab(Answer::No);
    for name in [None, Some("other"), Some("demo")] {
        let cloud = called(&lab, name);
        lab.api().token(&cloud, &scope::project("demo")).problem("confirmation-refused");
        lab.clock.advance(60);
    }
    let cloud = called(&lab, None);
    let lease = json!({"cloud": cloud, "scope": scope::project("demo"), "name": "nameless"});
    let refused = Tool::of(&lab.api().post("/v1/leases", &lease)).ask();
    assert_eq!(refused.status, 401);
    let s3 = json!({"cloud": cloud, "scope": scope::project("demo"), "s3": true});
    lab.api().post("/v1/leases", &s3).problem("invalid-request");
    // Who signs in anew after the session's end is not asked less.
    lab.clock.advance(3600);
    let login = lab.api().login(&cloud).sign_in();
    assert_eq!(lab.browse(&login.url, "alice"), "done");
    lab.api().token(&cloud, &scope::project("demo")).problem("confirmation-refused");
}

#[test]
fn a_no_is_final_for_a_minute_and_no_token_is_told() {
    let lab = lab(Answer::No);
    let ask = || lab.api().token(&lab.cloud(), &scope::project("demo"));
    for _ in 0..3 {
        let answer = ask();
        let problem = answer.problem("confirmation-refused");
        assert_eq!((answer.status, &problem["cloud"]), (403, &json!("demo")));
        for secret in lab.keystone.all_tokens() {
            assert!(!answer.text.contains(&secret));
        }
    }
    assert_eq!(lab.agent.told().len(), 1, "who asks again and again does not wear the person down");
    lab.clock.advance(60);
    lab.agent.will_answer(Answer::Yes);
    ask().token_id();
    assert_eq!(lab.agent.told().len(), 2);
}

#[test]
fn without_a_desktop_or_an_answer_it_is_a_no() {
    let lab = lab(Answer::Nobody);
    let ask = || lab.api().token(&lab.cloud(), &scope::project("demo"));
    let problem = ask().problem("confirmation-refused").clone();
    assert!(problem["detail"].as_str().unwrap().contains("no desktop"), "{problem}");

    lab.agent.will_answer(Answer::Silence);
    thread::scope(|threads| {
        let asking = threads.spawn(ask);
        until("the question", || lab.agent.told().len() == 2);
        lab.clock.advance(60);
        let answer = asking.join().unwrap();
        let problem = answer.problem("confirmation-refused");
        assert!(problem["detail"].as_str().unwrap().contains("did not answer"), "{problem}");
    });
}

#[test]
fn many_requests_at_once_are_one_question() {
    let lab = lab(Answer::Yes);
    thread::scope(|threads| {
        for _ in 0..30 {
            threads.spawn(|| lab.api().token(&lab.cloud(), &scope::project("demo")).token_id());
        }
    });
    assert_eq!(lab.agent.told().len(), 1);
}

/// As of another namespace of processes.
#[test]
fn programs_that_are_not_known_are_asked_about_one_by_one() {
    let lab = lab(Answer::Silence);
    let (broker, runtime) = lab.agent.broker();
    let request = json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "prompt": false});
    let request: TokenRequest = serde_json::from_value(request).unwrap();
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (broker, request) = (broker.clone(), request.clone());
            runtime.spawn(async move { broker.token(&request, Peer::Unknown).await })
        })
        .collect();
    for allow in [true, false] {
        let path = format!("/v1/confirmations/{}", asked(&lab)["id"].as_str().unwrap());
        assert_eq!(lab.api().post(&path, &json!({"allow": allow})).status, 204);
    }
    let given = asking.into_iter().filter_map(|asking| runtime.block_on(asking).unwrap().ok()).count();
    assert_eq!(given, 1, "an Allow is for one of them");
    assert_eq!(lab.agent.told().len(), 2, "and a No for all");
}

#[test]
fn a_lease_may_ask_where_its_cloud_does_not() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.agent.will_answer(Answer::No);
    let make = |confirm: bool| {
        let asked = json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "name": format!("lease-{confirm}"), "confirm": confirm});
        Tool::of(&lab.api().post("/v1/leases", &asked))
    };
    make(false).token();
    assert!(lab.agent.told().is_empty());
    let tool = make(true);
    let leases = lab.api().get("/v1/leases").json["leases"].as_array().unwrap().clone();
    assert!(leases.iter().all(|lease| lease["confirm"] == (lease["name"] == "lease-true")));
    let refused = tool.ask();
    assert_eq!(refused.status, 401);
    let said = refused.json()["error"]["message"].to_string();
    assert!(said.contains("only for programs that you allow"), "{said}");
    let [(_, text)] = lab.agent.told().try_into().unwrap();
    assert!(text.contains(&format!("(process {}", std::process::id())), "{text}");
    assert!(text.ends_with("It holds the lease lease-true."), "{text}");
    lab.clock.advance(60);
    lab.agent.will_answer(Answer::Yes);
    assert!(lab.accepts(&token(&tool.ask())));
    let s3 = json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "confirm": true, "s3": true});
    lab.api().post("/v1/leases", &s3).problem("invalid-request");
}

#[test]
fn what_was_answered_is_in_the_audit_log() {
    let lab = lab(Answer::No);
    lab.api().token(&lab.cloud(), &scope::project("demo")).problem("confirmation-refused");
    lab.clock.advance(60);
    lab.agent.will_answer(Answer::Yes);
    lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    let log = audit::file_in(&lab.agent.folder().join("state"));
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &serde_json::Value| line["action"] == "confirm").collect()
    };
    until("two answers", || lines().len() == 2);
    let outcomes: Vec<_> = lines().iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!(outcomes, ["refused", "done"]);
    assert!(lines().iter().all(|line| line["program"]["pid"] == std::process::id()));
}

/// Waits for a question as `ksb confirm` does. The tests are the agent's own program.
fn asked(lab: &Lab) -> Value {
    let answer = lab.api().get("/v1/confirmations?wait=30");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

#[test]
fn where_no_desktop_asks_a_terminal_does_and_no_other_program_answers() {
    let lab = lab(Answer::Nobody);
    lab.api().token(&lab.cloud(), &scope::project("demo")).problem("confirmation-refused");
    assert_eq!(lab.api().get("/v1/confirmations").status, 204, "nothing is asked");

    for (project, allow) in [("demo", true), ("staging", false)] {
        thread::scope(|threads| {
            // Somebody looks before the program asks.
            lab.api().get("/v1/confirmations");
            let terminal = threads.spawn(|| asked(&lab));
            let asks = json!({"cloud": lab.cloud(), "scope": scope::project(project), "prompt": true});
            let program = lab.api().ask("/v1/tokens", &asks);
            let question = terminal.join().unwrap();
            assert!(question["text"].as_str().unwrap().ends_with(&format!(" asks for project {project}.")));
            let path = format!("/v1/confirmations/{}", question["id"].as_str().unwrap());
            // A script that answers for its user does not get far.
            let socket = lab.agent.folder().join("broker.sock");
            let forged =
                request("POST", &path, Some(&json!({"allow": true}))).set("Connection", "close").bytes();
            let said = stranger::we_ask(socket.to_str().unwrap(), &forged);
            assert!(said.contains("only `ksb confirm` answers"), "{said}");
            assert_eq!(lab.api().post(&path, &json!({"allow": allow})).status, 204);
            let answer = Response::read(program).unwrap().json();
            if allow {
                assert!(lab.accepts(answer["token_id"].as_str().unwrap()));
            } else {
                assert_eq!(answer["code"], "confirmation-refused");
            }
            lab.api().post(&path, &json!({"allow": true})).problem("invalid-request");
        });
    }
}
