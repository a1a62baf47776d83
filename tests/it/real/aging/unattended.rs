//! A lease that goes on when its user's session has ended, at a Keystone whose tokens live for a minute.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::real::front::{Front, Log};
use crate::real::leases::{is_refused_scope, rescoped, straight};
use crate::real::wait;
use crate::support::api::scope;
use crate::support::tool::Tool;

#[test]
fn an_unattended_lease_outlives_the_session_and_leaves_nothing() {
    let front = Front::free();
    let log = Log::short();
    front.clouds(&[front.entry_at(&log.url, "demo", "project_name: demo, project_domain_name: lab")]);
    front.ksb(&["login"]).ok();
    let persons = front.token(&["--unscoped"]);
    let ordinary = Tool::of(&front.lease("demo", &json!({"ttl": 3600})));
    let made = front.lease("demo", &json!({"unattended": true, "ttl": 3600}));
    assert_eq!(made.json["lease"]["unattended"], true, "{}", made.text);
    let tool = Tool::of(&made);
    let (control, first) = (ordinary.token(), tool.token());
    let user = front.keystone.look_at(&first).unwrap()["user"]["id"].as_str().unwrap().to_owned();

    let pause = Duration::from_secs(2);
    let over = |token: &str| {
        wait::every(pause, wait::LIMIT, || (!front.keystone.accepts(token)).then_some(())).expect("its end");
    };
    over(&persons);
    over(&control);
    over(&first);
    assert_eq!(ordinary.ask().status, 401, "the session has ended, and nobody is there");
    // Three tokens in a row, each of them used up, and nobody is asked.
    let mut tokens = vec![first];
    for _ in 0..2 {
        let next = tool.token();
        assert!(!tokens.contains(&next) && front.keystone.accepts(&next));
        assert_eq!(tool.with(&next, "GET", "/v3/auth/projects").send().status, 200);
        if tokens.len() < 2 {
            over(&next);
        }
        tokens.push(next);
    }
    let last = tokens.last().unwrap();
    assert_eq!((front.browsers_opened(), log.counts().logins), (1, 1));

    // It is confined: no other project, no other credential, and none is deleted by its holder.
    let path = format!("/users/{user}/application_credentials");
    let everlasting = json!({"application_credential": {"name": "ksb-test-stolen", "unrestricted": true}});
    assert!(is_refused_scope(&rescoped(&front, last, &scope::project("staging"))));
    assert_eq!(straight(&front, last, Method::POST, &path, Some(&everlasting)).status, 403);
    let listed = front.keystone.admin().call(Method::GET, &path).json;
    let listed = listed["application_credentials"].as_array().unwrap();
    let own: Vec<_> =
        listed.iter().filter(|each| each["name"].as_str().unwrap().contains(&tool.id)).collect();
    assert_eq!(own.len(), 2, "{listed:?}");
    for each in own {
        let one = format!("{path}/{}", each["id"].as_str().unwrap());
        assert_eq!(straight(&front, last, Method::DELETE, &one, None).status, 403);
    }

    // Nobody is signed in, and yet both go, and the token with them.
    let ended = front.api().delete(&format!("/v1/leases/{}", tool.id)).json;
    assert_eq!((&ended["deleted"], &ended["not_revoked"]), (&json!(2), &json!([])), "{ended}");
    assert!(!front.keystone.accepts(last), "dead at once");
    let left = front.keystone.admin().call(Method::GET, &path).json.to_string();
    assert!(!left.contains(&tool.id), "{left}");
    assert_eq!(tool.ask().status, 401);
}
