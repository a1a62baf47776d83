//! What a refresh token of Keycloak is good for, and how long.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keystone_broker::platform::clock::SystemClock;
use serde_json::{Value, json};

use super::elsewhere::{self, cloud, signs_in};
use super::front::{Front, Log, stack};
use super::keystone::Keystone;
use super::wait;
use super::wiretap::Wiretap;
use crate::support::agent::Agent;
use crate::support::api::{Answer, scope};
use crate::support::sandbox::Sandbox;
use crate::support::spawn;

/// Somebody signed in with these scopes.
struct Person {
    agent: Agent,
    wiretap: Wiretap,
    cloud: Value,
}

impl Person {
    fn signs_in(front: &Front, scope: &str) -> Self {
        let mut cloud = cloud(&front.port(), "lab-idp", "cli");
        cloud["sign_in"]["oidc"]["scope"] = scope.into();
        let (person, answer) = Self::tries(cloud, &front.user());
        assert_eq!(answer.status, 204, "{}", answer.text);
        person
    }

    fn tries(mut cloud: Value, user: &str) -> (Self, Answer) {
        let (agent, wiretap) = (Agent::start(Arc::new(SystemClock)), Wiretap::start());
        cloud["sign_in"]["oidc"]["proxy"] = wiretap.url().into();
        let answer = signs_in(agent.api(), &cloud, user);
        (Self { agent, wiretap, cloud }, answer)
    }

    /// A claim of the access token that Keycloak gave.
    fn claim(&self, name: &str) -> Value {
        let given = self.wiretap.heard().iter().find_map(|heard| {
            let (_, answer) = heard.answer.clone()?;
            answer["access_token"].as_str().map(str::to_owned)
        });
        let claims = URL_SAFE_NO_PAD.decode(given.unwrap().split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice::<Value>(&claims).unwrap()[name].clone()
    }

    /// Keystone takes everything back, and a tool asks once more.
    fn asks_again(&self) -> Answer {
        let keystone = Keystone::new(self.cloud["auth_url"].as_str().unwrap());
        let api = self.agent.api();
        let held = api.token_unprompted(&self.cloud, &scope::project("demo"));
        if held.status != 200 {
            return held;
        }
        let held = held.token_id();
        let unscoped = api.token_unprompted(&self.cloud, &scope::unscoped()).token_id();
        for token in [&held, &unscoped] {
            keystone.admin().revoke(token);
        }
        let question = json!({"cloud": self.cloud, "scope": scope::project("demo"), "rejected": held});
        api.post("/v1/tokens", &question)
    }

    fn status(&self) -> (Value, String) {
        let mut ksb = Sandbox::new().ksb(&["status"]);
        let folder = self.agent.folder();
        let text = spawn::output(ksb.env("KSB_SOCK", folder.join("broker.sock")).current_dir(folder));
        let session = self.agent.api().status()["sessions"][0].clone();
        (session, String::from_utf8(text.stdout).unwrap())
    }
}

#[test]
fn offline_access_is_asked_for_only_where_the_entry_does_and_is_shown() {
    let front = Front::free();
    let usual = Person::signs_in(&front, "openid profile");
    let offline = Person::signs_in(&front, "openid profile offline_access");
    for (person, asked, words) in [
        (&usual, false, "renews itself for as long as the identity provider allows"),
        (
            &offline,
            true,
            "renews itself even when you are signed out at the identity provider (offline_access)",
        ),
    ] {
        assert_eq!(person.claim("scope").as_str().unwrap().contains("offline_access"), asked);
        let (session, text) = person.status();
        assert_eq!((&session["renews"], &session["offline_access"]), (&json!(true), &json!(asked)));
        assert!(text.contains(words), "{text}");
    }
    // Keycloak does not give it to everybody.
    let (_, refused) = Person::tries(offline.cloud.clone(), "bob");
    let problem = refused.problem("identity-provider-error");
    assert!(
        problem["remedy"].as_str().unwrap().starts_with("take offline_access out of openid_scope"),
        "{problem}"
    );

    // The user is signed out at Keycloak, by its administrator or by closing the browser there.
    for person in [&usual, &offline] {
        elsewhere::end_session(person.claim("sid").as_str().unwrap());
    }
    usual.asks_again().problem("sign-in-needed");
    assert_eq!(offline.asks_again().status, 200);
    assert_eq!(offline.agent.api().logout(&offline.cloud)[0]["not_revoked"], json!([]));
}

#[test]
fn logout_ends_the_grant_and_names_the_page_that_ends_the_browsers_session() {
    let front = Front::free();
    let person = Person::signs_in(&front, "openid profile");
    let ended = person.agent.api().logout(&person.cloud);
    assert_eq!(ended[0]["not_revoked"], json!([]));
    let revoked = person.wiretap.heard().pop().unwrap();
    assert!(revoked.path.ends_with("/revoke"), "{revoked:?}");
    assert_eq!(revoked.answer.as_ref().unwrap().0, 200);
    let refresh_token = revoked.field("token").unwrap();
    let form = [("grant_type", "refresh_token"), ("client_id", "cli"), ("refresh_token", refresh_token)];
    let (status, said) = elsewhere::token_endpoint(&stack("ISSUER"), &form);
    assert_eq!((status, &said["error"]), (400, &json!("invalid_grant")), "{said}");

    let page = ended[0]["logout_url"].as_str().unwrap();
    assert_eq!(page, format!("{}/protocol/openid-connect/logout?client_id=cli", stack("ISSUER")));
    assert!(elsewhere::page(page).contains("Do you want to log out?"));
}

#[test]
fn a_grant_that_ends_by_itself_asks_for_a_sign_in() {
    let _turn = Log::take(stack("ROTATING_FRONT").parse().unwrap());
    // Its sign-ins last five seconds at Keycloak, and for an hour at Keystone.
    let (person, answer) = Person::tries(cloud(&stack("ROTATING_FRONT"), "rotating-idp", "brief"), "user4");
    assert_eq!(answer.status, 204, "{}", answer.text);
    let over = wait::until("the end of the grant", || {
        Some(person.asks_again()).filter(|answer| answer.status != 200)
    });
    over.problem("sign-in-needed");
    assert_eq!(person.status().0["renews"], false);
}
