//! Renewal at a Keycloak that rotates refresh tokens: each counts once, and one that comes twice ends them all.

use std::sync::Arc;

use serde_json::{Value, json};

use super::elsewhere::{self, cloud, signs_in};
use super::front::{Log, stack};
use super::wait;
use super::wiretap::{Trouble, Wiretap};
use crate::support::agent::Agent;
use crate::support::api::{Api, scope};
use crate::support::clock::MovedClock;

const BEARER: &str = "/v3/OS-FEDERATION/identity_providers/rotating-idp/protocols/openid/auth";

/// Somebody who is signed in, and whose every word with Keycloak is heard.
struct Person {
    clock: Arc<MovedClock>,
    agent: Agent,
    wiretap: Wiretap,
    log: Log,
    cloud: Value,
}

impl Person {
    fn signs_in(user: &str) -> Self {
        let (clock, wiretap) = (MovedClock::new(), Wiretap::start());
        let log = Log::take(stack("ROTATING_FRONT").parse().unwrap());
        let mut cloud = cloud(&stack("ROTATING_FRONT"), "rotating-idp", "native");
        cloud["sign_in"]["oidc"]["proxy"] = wiretap.url().into();
        let agent = Agent::start(clock.clone());
        let answer = signs_in(agent.api(), &cloud, user);
        assert_eq!(answer.status, 204, "{}", answer.text);
        Self { clock, agent, wiretap, log, cloud }
    }

    fn api(&self) -> &Api {
        self.agent.api()
    }

    fn token(&self) -> String {
        self.api().token_unprompted(&self.cloud, &scope::project("demo")).token_id()
    }

    /// No refresh token came twice, but where Keycloak never saw it.
    fn none_came_twice(&self) -> bool {
        let heard = self.wiretap.heard();
        let answered = heard.iter().filter(|heard| heard.answer.is_some());
        let mut tokens: Vec<_> = answered.filter_map(|heard| heard.field("refresh_token")).collect();
        let all = tokens.len();
        tokens.sort_unstable();
        tokens.dedup();
        tokens.len() == all
    }
}

#[test]
fn two_hundred_callers_at_expiry_cost_one_refresh_and_one_exchange() {
    let person = Person::signs_in("user1");
    let mut held = person.token();
    for round in 1..=3 {
        person.log.requests();
        person.clock.advance(3590);
        let (api, cloud) = (person.api(), &person.cloud);
        let ask = || api.token_unprompted(cloud, &scope::project("demo")).token_id();
        let tokens: Vec<_> = std::thread::scope(|threads| {
            let callers: Vec<_> = (0..200).map(|_| threads.spawn(ask)).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert!(tokens.iter().all(|token| *token == tokens[0] && *token != held), "{tokens:?}");
        assert_eq!(person.wiretap.refreshes().len(), round, "one refresh");
        let requests = person.log.requests();
        let bearers = requests.iter().filter(|request| request.path == BEARER).count();
        let exchanges = requests.iter().filter(|request| request.is_exchange()).count();
        assert_eq!((bearers, exchanges), (1, 1), "{requests:?}");
        held = tokens[0].clone();
    }
    assert!(person.none_came_twice());
    assert_eq!(person.api().status()["sessions"][0]["renews"], true);

    // Logout ends it at Keycloak too: the newest token is worth nothing, to nobody.
    let newest = person.wiretap.heard().iter().rev().find_map(|heard| {
        let (_, answer) = heard.answer.as_ref()?;
        answer["refresh_token"].as_str().map(str::to_owned)
    });
    assert_eq!(person.api().logout(&person.cloud)[0]["not_revoked"], json!([]));
    let revoked = person.wiretap.heard().pop().unwrap();
    assert!(revoked.path.ends_with("/revoke"), "{revoked:?}");
    let refused = elsewhere::token_endpoint(
        &stack("ROTATING_ISSUER"),
        &[("grant_type", "refresh_token"), ("client_id", "native"), ("refresh_token", &newest.unwrap())],
    );
    assert_eq!((refused.0, &refused.1["error"]), (400, &json!("invalid_grant")));
}

#[test]
fn an_identity_provider_in_trouble_is_left_alone_as_it_asks_and_signs_nobody_out() {
    let person = Person::signs_in("user2");
    let held = person.token();
    // The renewal is due with ten minutes left, or a little more.
    person.wiretap.trouble(Some(Trouble::Says(500, None)));
    person.clock.advance(3600 - 600);
    person.wiretap.wait_for_refreshes(1);
    assert_eq!(person.token(), held);

    // A minute or so later once more: come back in a minute and a half.
    person.wiretap.trouble(Some(Trouble::Says(429, Some("90"))));
    wait::until("another refresh", || {
        person.clock.advance(5);
        (person.wiretap.refreshes().len() == 2).then_some(())
    });
    let longer = json!({"cloud": person.cloud, "scope": scope::project("demo"), "min_validity": 3000});
    let left_alone = || {
        let answer = person.api().post("/v1/tokens", &longer);
        answer.text.contains("it asked to be left alone for another").then_some(answer)
    };
    wait::until("the agent's word", left_alone).problem("identity-provider-error");
    person.clock.advance(60);
    assert!(left_alone().is_some(), "also for those who want a fresh one");
    assert_eq!(person.token(), held);
    assert_eq!(person.wiretap.refreshes().len(), 2, "nobody asks before the time");

    // Slowly now: whoever comes meanwhile is served what is good.
    person.wiretap.trouble(Some(Trouble::Waits));
    person.clock.advance(61);
    person.wiretap.wait_for_refreshes(3);
    assert_eq!(person.token(), held);
    person.wiretap.trouble(None);
    wait::until("the renewal", || {
        let ends: jiff::Timestamp =
            person.api().status()["sessions"][0]["expires_at"].as_str()?.parse().ok()?;
        (ends.duration_since(keystone_broker::time::Clock::now(&*person.clock)).as_secs() > 3000)
            .then_some(())
    });
    person.clock.advance(600);
    assert_ne!(person.token(), held);
    assert_eq!(person.wiretap.refreshes().len(), 3);
    assert!(person.none_came_twice());
}
