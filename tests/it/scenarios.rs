//! What the broker promises of a cloud, whichever it is: each function runs in a world of its own,
//! here in the doubles' and, from `real/`, in the real stack's.

use std::thread;

use serde_json::{Value, json};

use crate::support::api::{Answer, SignIn, scope};
use crate::support::http::Response;
use crate::support::world::World;

/// Makes a test of each scenario, in the world that the expression makes.
macro_rules! tests_in {
    ($world:expr) => {
        $crate::scenarios::tests_in! { $world =>
            one_sign_in_serves_several_projects
            fifty_cold_callers_share_one_sign_in_and_one_exchange_for_each_scope
            a_caller_that_dies_takes_nobody_along
            a_revoked_token_is_replaced_with_one_exchange
            a_revoked_session_asks_for_one_sign_in
            a_service_that_refuses_a_good_token_costs_nothing
            logout_revokes_every_token_handed_out
            logout_revokes_what_earlier_sign_ins_gave_too
            refresh_makes_new_scoped_tokens_from_the_same_sign_in
            tokens_come_byte_for_byte_with_what_keystone_says_of_them
            projects_are_found_by_id_and_by_name_and_domain
            a_project_name_alone_is_looked_for_at_home_and_that_is_said
            an_unscoped_token_is_the_sign_in_s_own
            a_scope_that_keystone_does_not_grant_is_named_and_asks_nobody
            a_system_scope_has_an_error_of_its_own
            all_shapes_of_an_auth_url_are_one_identity
            a_keystone_below_a_path_works
            keystone_may_find_the_identity_provider_by_itself
            users_of_keystone_s_own_sign_in_as_well
            what_can_be_reached_is_listed
            another_user_than_before_is_refused_and_the_right_one_still_gets_in
            switching_the_user_takes_a_private_window_and_pins_the_new_one
            two_accounts_on_one_cloud_are_apart
        }
    };
    ($world:expr => $($scenario:ident)*) => {
        $(
            #[test]
            fn $scenario() {
                $crate::scenarios::$scenario(&$world);
            }
        )*
    };
}
pub(crate) use tests_in;

mod in_the_lab {
    use crate::support::lab::Lab;

    super::tests_in!(Lab::new());
}

/// The first user signs in, from the first request to the last page.
#[track_caller]
fn sign_in(world: &impl World, cloud: &Value) -> SignIn {
    let sign_in = world.api().login(cloud).sign_in();
    finish(world, &sign_in, world.people()[0]);
    sign_in
}

#[track_caller]
fn finish(world: &impl World, sign_in: &SignIn, person: &str) {
    assert_eq!(world.browse(&sign_in.url, person), "done");
    let over = world.api().over(&sign_in.id);
    assert_eq!(over["state"], "done", "{over:#}");
}

fn with(cloud: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut cloud = cloud.clone();
    cloud[name] = value.into();
    cloud
}

fn user_of(answer: &Answer) -> &str {
    answer.json["body"]["token"]["user"]["name"].as_str().unwrap()
}

pub fn one_sign_in_serves_several_projects(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    let waiting = api.token(&cloud, &scope::project("demo")).sign_in();
    finish(world, &waiting, world.people()[0]);

    let mut seen = Vec::new();
    for round in 0..3 {
        for name in ["demo", "staging", "production"] {
            let answer = api.token(&cloud, &scope::project(name));
            let token = answer.token_id();
            assert_eq!(answer.json["body"]["token"]["project"]["name"], name);
            assert!(world.accepts(&token));
            assert_eq!(seen.contains(&token), round > 0, "{name} in round {round}");
            seen.push(token);
        }
    }
    assert_eq!((world.logins(), world.exchanges()), (1, 3));
}

pub fn fifty_cold_callers_share_one_sign_in_and_one_exchange_for_each_scope(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    let projects = ["demo", "staging"];
    let ask = |number: usize| api.token(&cloud, &scope::project(projects[number % 2]));
    let waiting = at_once(50, |number| ask(number).sign_in());
    assert!(waiting.iter().all(|sign_in| sign_in.id == waiting[0].id), "more than one sign-in");
    assert_eq!(waiting.iter().filter(|sign_in| sign_in.opener).count(), 1, "exactly one opens the browser");

    finish(world, &waiting[0], world.people()[0]);
    let tokens = at_once(50, |number| {
        api.over(&waiting[number].id);
        ask(number).token_id()
    });
    for (number, token) in tokens.iter().enumerate() {
        assert_eq!(*token, tokens[number % 2], "one token for each scope");
    }
    assert_eq!((world.logins(), world.exchanges()), (1, 2));
}

/// Calls a function from many threads at the same time.
fn at_once<T: Send>(times: usize, call: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|threads| {
        let call = &call;
        let running: Vec<_> = (0..times).map(|number| threads.spawn(move || call(number))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

pub fn a_caller_that_dies_takes_nobody_along(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    let question = json!({"cloud": cloud, "scope": scope::project("demo"), "prompt": true});
    let ask = || api.ask("/v1/tokens", &question);
    // The first caller of a sign-in leaves while the agent looks for the cloud.
    let first = ask();
    let second = ask();
    drop(first);
    let answer = Response::read(second).unwrap().json();
    let id = answer["sign_in"]["id"].as_str().unwrap().to_owned();
    assert_eq!(world.browse(answer["sign_in"]["url"].as_str().unwrap(), world.people()[0]), "done");
    assert_eq!(api.over(&id)["state"], "done");
    // The first caller of an exchange leaves while Keystone makes the token.
    let first = ask();
    let second = ask();
    drop(first);
    let answer = Response::read(second).unwrap().json();
    assert!(world.accepts(answer["token_id"].as_str().unwrap()));
    assert_eq!((world.logins(), world.exchanges()), (1, 1));
}

pub fn a_revoked_token_is_replaced_with_one_exchange(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let demo = scope::project("demo");
    let revoked = api.token(&cloud, &demo).token_id();
    world.revoke(&revoked);

    let tokens = at_once(10, |_| api.token_instead_of(&revoked, &cloud, &demo).token_id());
    assert!(tokens.iter().all(|token| *token == tokens[0] && world.accepts(token)));
    assert_ne!(tokens[0], revoked);
    assert_eq!(api.token(&cloud, &demo).token_id(), tokens[0]);
    assert_eq!((world.logins(), world.exchanges()), (1, 2));
}

pub fn a_revoked_session_asks_for_one_sign_in(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    world.revoke(&api.token(&cloud, &scope::unscoped()).token_id());

    // Whoever may not prompt is told at once; the rest wait for the same sign-in.
    api.token_unprompted(&cloud, &scope::project("demo")).problem("sign-in-needed");
    let waiting = at_once(5, |_| api.token(&cloud, &scope::project("demo")).sign_in());
    assert!(waiting.iter().all(|sign_in| sign_in.id == waiting[0].id));
    finish(world, &waiting[0], world.people()[0]);
    assert!(world.accepts(&api.token(&cloud, &scope::project("demo")).token_id()));
    assert_eq!(world.logins(), 2);
}

pub fn a_service_that_refuses_a_good_token_costs_nothing(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let demo = scope::project("demo");
    let token = api.token(&cloud, &demo).token_id();
    for _ in 0..3 {
        assert_eq!(api.token_instead_of(&token, &cloud, &demo).token_id(), token);
    }
    // Nor does a token that the broker never gave.
    assert_eq!(api.token_instead_of("gAAAA-not-ours", &cloud, &demo).token_id(), token);
    assert_eq!((world.logins(), world.exchanges()), (1, 1));
}

pub fn logout_revokes_every_token_handed_out(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let mut tokens: Vec<_> = ["demo", "staging", "production"]
        .map(|name| api.token(&cloud, &scope::project(name)).token_id())
        .into();
    tokens.push(api.token(&cloud, &scope::unscoped()).token_id());
    // A token that was dropped is still somebody's.
    api.post("/v1/refresh", &json!({"cloud": cloud}));
    tokens.push(api.token(&cloud, &scope::project("demo")).token_id());

    let ended = api.logout(&cloud);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["revoked"], 5, "{ended:#?}");
    assert_eq!(ended[0]["not_revoked"], json!([]));
    assert_eq!(ended[0]["user"]["name"], world.people()[0]);
    for token in &tokens {
        assert!(!world.accepts(token), "a token outlives the logout");
    }
    api.token_unprompted(&cloud, &scope::unscoped()).problem("sign-in-needed");
    assert_eq!(api.status()["sessions"], json!([]));
    assert_eq!(api.logout(&cloud), Vec::<Value>::new(), "nobody is left to sign out");
}

pub fn logout_revokes_what_earlier_sign_ins_gave_too(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let earlier = api.token(&cloud, &scope::project("demo")).token_id();
    let unscoped = api.token(&cloud, &scope::unscoped()).token_id();
    // The session is gone, but what was made from it lives on at Keystone.
    world.revoke(&unscoped);
    let again = api.token_instead_of(&unscoped, &cloud, &scope::unscoped()).sign_in();
    finish(world, &again, world.people()[0]);
    let later = api.token(&cloud, &scope::project("demo")).token_id();
    // And another one takes its place while it is good.
    let switch = json!({"cloud": cloud, "switch_user": true});
    finish(world, &api.post("/v1/sign-ins", &switch).sign_in(), world.people()[1]);
    let others = api.token(&cloud, &scope::project("demo")).token_id();

    api.logout(&cloud);
    for token in [earlier, later, others] {
        assert!(!world.accepts(&token), "a token outlives the logout");
    }
}

pub fn refresh_makes_new_scoped_tokens_from_the_same_sign_in(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let before = ["demo", "staging"].map(|name| api.token(&cloud, &scope::project(name)).token_id());
    let unscoped = api.token(&cloud, &scope::unscoped()).token_id();

    let answer = api.post("/v1/refresh", &json!({"cloud": cloud}));
    assert_eq!(answer.json["dropped"], 2);
    let after = ["demo", "staging"].map(|name| api.token(&cloud, &scope::project(name)).token_id());
    assert!(before.iter().all(|token| !after.contains(token)));
    assert_eq!(api.token(&cloud, &scope::unscoped()).token_id(), unscoped);
    assert_eq!((world.logins(), world.exchanges()), (1, 4));
}

pub fn tokens_come_byte_for_byte_with_what_keystone_says_of_them(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let answer = api.token(&cloud, &scope::project("demo"));
    // Python writes a space after a colon, serde does not.
    assert!(answer.text.contains(r#""body":{"token": {"methods": ["#), "{}", answer.text);
    let body = &answer.json["body"]["token"];
    assert!(body["catalog"].as_array().is_some_and(|catalog| !catalog.is_empty()));
    let end = |time: &Value| time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(end(&answer.json["expires_at"]), end(&body["expires_at"]));
}

pub fn projects_are_found_by_id_and_by_name_and_domain(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let projects = api.post("/v1/projects", &json!({"cloud": cloud})).json["projects"].clone();
    let demo = projects.as_array().unwrap().iter().find(|project| project["name"] == "demo").unwrap();

    for wanted in [
        json!({"project": {"id": demo["id"]}}),
        json!({"project": {"name": "demo", "domain": {"id": demo["domain_id"]}}}),
        json!({"project": {"name": "demo", "domain": {"name": "lab"}}}),
    ] {
        let answer = api.token(&cloud, &wanted);
        assert!(world.accepts(&answer.token_id()));
        assert_eq!(answer.json["body"]["token"]["project"]["id"], demo["id"], "{wanted}");
        assert_eq!(answer.json.get("assumed"), None, "nothing was left open: {wanted}");
    }
}

pub fn a_project_name_alone_is_looked_for_at_home_and_that_is_said(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let alone = json!({"project": {"name": "demo"}});
    for _ in 0..2 {
        let answer = api.token(&cloud, &alone);
        assert_eq!(answer.json["body"]["token"]["project"]["name"], "demo");
        let assumed = answer.json["assumed"].as_str().expect("the assumption is said, each time");
        assert!(assumed.contains("demo") && assumed.contains("lab"), "{assumed}");
    }
    let elsewhere = api.token(&cloud, &json!({"project": {"name": "nowhere"}}));
    let detail = elsewhere.problem("scope-refused")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("your own domain, lab"), "{detail}");
}

pub fn an_unscoped_token_is_the_sign_in_s_own(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let answer = api.token(&cloud, &scope::unscoped());
    assert!(world.accepts(&answer.token_id()));
    assert_eq!(answer.json["body"]["token"]["methods"], json!(["openid"]));
    assert_eq!(api.token(&cloud, &scope::unscoped()).token_id(), answer.token_id());
    assert_eq!(world.exchanges(), 0);
}

pub fn a_scope_that_keystone_does_not_grant_is_named_and_asks_nobody(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    for refused in [
        json!({"project": {"id": "0123456789abcdef0123456789abcdef"}}),
        scope::project("solo"),
        json!({"domain": {"name": "lab"}}),
        json!({"OS-TRUST:trust": {"id": "0123456789abcdef0123456789abcdef"}}),
    ] {
        let answer = api.token(&cloud, &refused);
        let problem = answer.problem("scope-refused");
        assert_eq!(problem["cloud"], "demo");
        let remedy = problem["remedy"].as_str().unwrap();
        assert!(
            remedy.starts_with("ksb projects demo; ") && remedy.ends_with(": ksb refresh demo"),
            "{remedy}"
        );
        let request_id = problem["request_id"].as_str().expect("for the operator's grep");
        assert!(request_id.starts_with("req-"), "{request_id}");
    }
    assert_eq!((world.logins(), world.exchanges()), (1, 0));
    assert_eq!(api.status()["sessions"].as_array().unwrap().len(), 1, "the session is as good as before");
}

pub fn a_system_scope_has_an_error_of_its_own(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let answer = api.token(&cloud, &json!({"system": {"all": true}}));
    let remedy = answer.problem("scope-unsupported")["remedy"].as_str().unwrap();
    assert!(remedy.contains("local Keystone user"), "{remedy}");
    // Keystone recovers from its crash, and so do we.
    assert!(world.accepts(&api.token(&cloud, &scope::project("demo")).token_id()));
}

pub fn all_shapes_of_an_auth_url_are_one_identity(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    sign_in(world, &cloud);
    let token = api.token(&cloud, &scope::project("demo")).token_id();
    for auth_url in world.auth_urls() {
        // The region and the project make no other identity either.
        let same = with(&with(&cloud, "auth_url", auth_url.clone()), "region", "RegionTwo");
        let answer = api.token_unprompted(&with(&same, "name", "other-name"), &scope::project("demo"));
        assert_eq!(answer.token_id(), token, "{auth_url}");
    }
    let sessions = api.status()["sessions"].clone();
    assert_eq!(sessions[0]["clouds"], json!(["demo", "other-name"]));
    for other in [with(&cloud, "protocol", "saml2"), with(&cloud, "identity_provider", "other-idp")] {
        api.token_unprompted(&other, &scope::project("demo")).problem("sign-in-needed");
    }
}

pub fn a_keystone_below_a_path_works(world: &impl World) {
    let (api, cloud) = (world.api(), with(&world.cloud(), "auth_url", world.auth_url_with_path()));
    sign_in(world, &cloud);
    assert!(world.accepts(&api.token(&cloud, &scope::project("demo")).token_id()));
    api.token_unprompted(&world.cloud(), &scope::project("demo")).problem("sign-in-needed");
}

pub fn keystone_may_find_the_identity_provider_by_itself(world: &impl World) {
    let mut cloud = world.cloud();
    cloud.as_object_mut().unwrap().remove("identity_provider");
    sign_in(world, &cloud);
    let answer = world.api().token(&cloud, &scope::project("demo"));
    assert_eq!(user_of(&answer), world.people()[0]);
    let federation = &answer.json["body"]["token"]["user"]["OS-FEDERATION"];
    assert_eq!(federation["identity_provider"]["id"], "lab-idp");
}

pub fn users_of_keystone_s_own_sign_in_as_well(world: &impl World) {
    let (api, cloud) = (world.api(), with(&world.cloud(), "identity_provider", "local-idp"));
    let waiting = api.login(&cloud).sign_in();
    // Of the lab's people Keystone itself knows the second one for sure.
    finish(world, &waiting, world.people()[1]);
    let answer = api.token(&cloud, &scope::project("demo"));
    let user = &answer.json["body"]["token"]["user"];
    assert_eq!((&user["domain"]["name"], user.get("OS-FEDERATION")), (&json!("Default"), None));
    api.token(&cloud, &json!({"system": {"all": true}})).problem("scope-refused");
}

pub fn what_can_be_reached_is_listed(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    let question = json!({"cloud": cloud});
    let remedy = api.post("/v1/projects", &question).problem("sign-in-needed")["remedy"].clone();
    assert_eq!(remedy, "ksb login demo");
    sign_in(world, &cloud);
    let answer = api.post("/v1/projects", &question);
    let mut names: Vec<_> =
        answer.json["projects"].as_array().unwrap().iter().map(|project| project["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["demo", "production", "staging"]);
    assert_eq!(answer.json["domains"], json!([]));
}

pub fn another_user_than_before_is_refused_and_the_right_one_still_gets_in(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    let [first, second] = world.people();
    sign_in(world, &cloud);
    world.revoke(&api.token(&cloud, &scope::unscoped()).token_id());

    let again = api.token(&cloud, &scope::project("demo")).sign_in();
    assert_eq!(world.browse(&again.url, second), "wrong-user");
    let waiting = api.wait(&again.id, |sign_in| sign_in["notices"] != json!([]));
    assert_eq!(waiting["state"], "waiting");
    let notice = waiting["notices"][0].as_str().unwrap();
    assert!(notice.contains(first) && notice.contains(second), "{notice}");
    assert!(notice.contains("ksb login demo --switch-user"), "{notice}");
    // The user who is expected is not asked whether it is she.
    finish(world, &again, first);
    assert_eq!(user_of(&api.token(&cloud, &scope::project("demo"))), first);
}

pub fn switching_the_user_takes_a_private_window_and_pins_the_new_one(world: &impl World) {
    let (api, cloud) = (world.api(), world.cloud());
    let [first, second] = world.people();
    sign_in(world, &cloud);
    assert_eq!(user_of(&api.token(&cloud, &scope::project("demo"))), first);

    let switch = api.post("/v1/sign-ins", &json!({"cloud": cloud, "switch_user": true})).sign_in();
    assert_eq!(switch.json["private_window"], true);
    finish(world, &switch, second);
    assert_eq!(user_of(&api.token(&cloud, &scope::project("demo"))), second);
    assert_eq!(api.status()["sessions"].as_array().unwrap().len(), 1);

    world.revoke(&api.token(&cloud, &scope::unscoped()).token_id());
    let unscoped = scope::unscoped();
    api.post("/v1/refresh", &json!({"cloud": cloud}));
    api.token_unprompted(&cloud, &scope::project("demo")).problem("sign-in-needed");
    let again = api.token(&cloud, &unscoped).sign_in();
    assert_eq!(again.json["private_window"], false);
    assert_eq!(world.browse(&again.url, first), "wrong-user");
}

pub fn two_accounts_on_one_cloud_are_apart(world: &impl World) {
    let api = world.api();
    let [first, second] = world.people();
    let (work, own) = (with(&world.cloud(), "account", "work"), with(&world.cloud(), "account", "own"));
    finish(world, &api.login(&work).sign_in(), first);
    finish(world, &api.login(&own).sign_in(), second);
    let demo = scope::project("demo");
    assert_eq!(user_of(&api.token(&work, &demo)), first);
    assert_eq!(user_of(&api.token(&own, &demo)), second);

    let sessions = api.status()["sessions"].clone();
    let mut accounts: Vec<_> =
        sessions.as_array().unwrap().iter().map(|session| &session["account"]).collect();
    accounts.sort_by_key(ToString::to_string);
    assert_eq!(accounts, ["own", "work"]);
    api.logout(&work);
    assert_eq!(user_of(&api.token(&own, &demo)), second);
    api.token_unprompted(&work, &demo).problem("sign-in-needed");
}
