//! Programs without a user: a token, and nobody is asked anything.

use std::fs;

use serde_json::{Value, json};

use crate::support::api::{Answer, scope};
use crate::support::keystone::{EXCHANGE, FEDERATED, TOKEN_ENDPOINT};
use crate::support::lab::Lab;
use crate::support::skip::{is_root, skip};
use crate::support::world::World;

fn from(lab: &Lab, workload: &Value) -> Value {
    lab.cloud_with(|cloud| cloud["sign_in"] = json!({"way": "workload", "workload": workload}))
}

/// As a program that no user started.
fn token(lab: &Lab, cloud: &Value) -> Answer {
    lab.api().token_unprompted(cloud, &scope::project("demo"))
}

fn user(lab: &Lab) -> Value {
    lab.api().status()["sessions"][0]["user"]["name"].clone()
}

#[test]
fn a_file_is_read_again_for_each_sign_in_and_nobody_is_asked() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let cloud = from(&lab, &json!({"file": {"path": file}}));
    fs::write(&file, format!("{}\n", lab.keystone.bearer("alice"))).unwrap();
    let first = token(&lab, &cloud).token_id();
    assert_eq!(token(&lab, &cloud).token_id(), first);
    assert_eq!((user(&lab), lab.keystone.count(FEDERATED)), (json!("alice"), 1));
    assert_eq!(lab.api().status()["sessions"][0]["renews"], true);

    // Whoever writes the file renews the session.
    fs::write(&file, lab.keystone.bearer("alice")).unwrap();
    lab.clock.advance(3600);
    assert_ne!(token(&lab, &cloud).token_id(), first);
    assert_eq!(lab.keystone.count(FEDERATED), 2);

    lab.clock.advance(3600);
    fs::write(&file, "over.and.out").unwrap();
    let refused = token(&lab, &cloud);
    let problem = refused.problem("bearer-refused");
    assert!(problem["remedy"].as_str().unwrap().contains(file.to_str().unwrap()), "{problem}");
    fs::write(&file, lab.keystone.bearer("bob")).unwrap();
    let refused = token(&lab, &cloud);
    let problem = refused.problem("token-refused");
    assert_eq!(problem["detail"], "that was bob, not alice");
    assert_eq!(problem["remedy"], "ksb login demo --switch-user");
    let switched = lab.api().post("/v1/sign-ins", &json!({"cloud": cloud, "switch_user": true}));
    assert_eq!(switched.json["session"]["user"]["name"], "bob", "{}", switched.text);
    lab.clock.advance(3600);
    for (text, why) in [("", "is not a token"), ("two words", "is not a token")] {
        fs::write(&file, text).unwrap();
        let refused = token(&lab, &cloud);
        assert!(refused.problem("invalid-config")["detail"].as_str().unwrap().contains(why));
    }
    fs::remove_file(&file).unwrap();
    token(&lab, &cloud).problem("invalid-config");
    assert_eq!(lab.api().status()["sign_ins"], json!([]));
}

#[test]
fn a_file_of_another_user_is_not_believed() {
    if !is_root() {
        skip!("root, to make a file of another user");
    }
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, lab.keystone.bearer("alice")).unwrap();
    std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
    let refused = token(&lab, &from(&lab, &json!({"file": {"path": file}})));
    let detail = refused.problem("invalid-config")["detail"].as_str().unwrap();
    assert!(detail.contains("belongs to uid 65534"), "{detail}");
    assert_eq!(lab.keystone.count(FEDERATED), 0);
}

#[test]
fn many_callers_cost_one_sign_in() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, lab.keystone.bearer("alice")).unwrap();
    let cloud = from(&lab, &json!({"file": {"path": file}}));
    std::thread::scope(|threads| {
        let callers: Vec<_> = (0..50).map(|_| threads.spawn(|| token(&lab, &cloud).token_id())).collect();
        let tokens: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        assert!(tokens.iter().all(|token| *token == tokens[0]));
    });
    assert_eq!((lab.keystone.count(FEDERATED), lab.keystone.count(EXCHANGE)), (1, 1));
}

#[test]
fn who_a_token_speaks_of_decides_whose_session_it_is() {
    let lab = Lab::new();
    let mine = |token: &str| from(&lab, &json!({"token": {"from": "$TOKEN", "token": token}}));
    let (alice, bob) = (lab.keystone.bearer("alice"), lab.keystone.bearer("bob"));
    let first = token(&lab, &mine(&alice)).token_id();
    // Another shell, the same variable, another user.
    let second = token(&lab, &mine(&bob)).token_id();
    assert_ne!(first, second);
    assert_eq!(lab.keystone.count(FEDERATED), 2);
    assert_eq!(token(&lab, &mine(&alice)).token_id(), first);
    assert_eq!(lab.api().status()["sessions"].as_array().unwrap().len(), 2);
}

#[test]
fn the_agent_runs_no_command_but_asks_for_what_it_prints() {
    let lab = Lab::new();
    let bearer = lab.keystone.bearer("alice");
    let without = from(&lab, &json!({"command": {"command": "mint --for keystone"}}));
    let with = from(&lab, &json!({"command": {"command": "mint --for keystone", "token": bearer}}));
    let needed = token(&lab, &without);
    let detail = needed.problem("bearer-needed")["detail"].as_str().unwrap();
    assert!(detail.contains("`mint --for keystone`"), "{detail}");
    let first = token(&lab, &with).token_id();
    // While the session lives the command need not run.
    assert_eq!(token(&lab, &without).token_id(), first);
    assert_eq!(lab.api().status()["sessions"][0]["renews"], false);
    lab.clock.advance(3600);
    token(&lab, &without).problem("bearer-needed");
}

#[test]
fn a_client_signs_itself_in_at_the_token_endpoint_or_where_the_metadata_say() {
    let idp = |lab: &Lab, path: &str| format!("{}/idp/{path}", lab.keystone.url());
    for (name, path) in
        [("discovery_endpoint", ".well-known/openid-configuration"), ("token_endpoint", "token")]
    {
        let lab = Lab::new();
        let client = |secret: &str| {
            let mut client = json!({"client_id": "ci", "client_secret": secret});
            client[name] = idp(&lab, path).into();
            from(&lab, &json!({"client": client}))
        };
        let refused = token(&lab, &client("wrong"));
        let detail = refused.problem("identity-provider-error")["detail"].as_str().unwrap();
        assert!(detail.contains("unauthorized_client") && detail.contains("client ci"), "{detail}");
        token(&lab, &client("canary: ci secret")).token_id();
        assert_eq!((user(&lab), lab.keystone.count(TOKEN_ENDPOINT)), (json!("service-account-ci"), 2));
        lab.clock.advance(3600);
        token(&lab, &client("canary: ci secret")).token_id();
        assert_eq!(lab.keystone.count(TOKEN_ENDPOINT), 3);
    }
}

#[test]
fn a_strangers_file_does_not_choose_where_a_known_clients_secret_goes() {
    let lab = Lab::new();
    let client = |endpoint: &str| {
        let client =
            json!({"client_id": "ci", "client_secret": "canary: ci secret", "token_endpoint": endpoint});
        from(&lab, &json!({"client": client}))
    };
    token(&lab, &client(&format!("{}/idp/token", lab.keystone.url()))).token_id();
    let mut strangers = client("https://harvest.example/token");
    strangers["source"] = json!({"file": "/repo/clouds.yaml", "current_folder": true});
    token(&lab, &strangers).problem("cloud-not-trusted");
}

#[test]
fn github_gives_a_job_its_id_token() {
    let lab = Lab::new();
    let job = |request_token: &str| {
        let url = format!("{}/idp/actions?api-version=2.0", lab.keystone.url());
        from(&lab, &json!({"github": {"url": url, "request_token": request_token, "audience": "keystone"}}))
    };
    token(&lab, &job("canary: of this job")).token_id();
    assert_eq!(user(&lab), "alice");
    let refused = token(&lab, &job("of another job"));
    let problem = refused.problem("identity-provider-error");
    assert!(problem["remedy"].as_str().unwrap().contains("id-token: write"), "{problem}");
}
