//! A session that does not renew itself says so ahead of its end.

use keystone_broker::time::Clock;
use serde_json::{Value, json};

use crate::support::api::scope;
use crate::support::browser::Browser;
use crate::support::kept::Held;
use crate::support::keystone::TOKEN_ENDPOINT;
use crate::support::lab::{Lab, until};
use crate::support::world::World;

/// With ten to eleven minutes of the hour left.
const SOFT: i64 = 3000;

fn session(lab: &Lab) -> Value {
    lab.api().status()["sessions"][0].clone()
}

#[test]
fn a_person_is_told_once_and_ahead_of_the_end() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let token = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    assert_eq!((lab.agent.told(), &session(&lab)["ends_soon"]), (vec![], &json!(false)));
    lab.clock.advance(SOFT);
    until("the notification", || !lab.agent.told().is_empty());
    let [(title, text)] = lab.agent.told().try_into().unwrap();
    assert_eq!((&*title, &*text), ("demo: your sign-in ends in 9 min", "Sign in again: ksb login demo"));
    assert_eq!(session(&lab)["ends_soon"], true);
    for secret in lab.keystone.all_tokens() {
        assert!(!title.contains(&secret) && !text.contains(&secret));
    }
    // Nothing else changes: tools go on with what there is.
    assert_eq!(lab.api().token(&lab.cloud(), &scope::project("demo")).token_id(), token);
    lab.clock.advance(400);
    lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    assert_eq!(lab.agent.told().len(), 1);
}

#[test]
fn who_follows_the_advice_gets_a_new_sign_in() {
    let lab = Lab::new();
    lab.signed_in("alice");
    assert_eq!(lab.api().login(&lab.cloud()).status, 200, "an hour lies ahead");
    lab.clock.advance(SOFT);
    lab.signed_in("alice");
    assert_eq!((lab.keystone.logins(), &session(&lab)["ends_soon"]), (2, &json!(false)));
    // The new one tells for itself.
    until("the first notification", || !lab.agent.told().is_empty());
    lab.clock.advance(SOFT);
    until("the second notification", || lab.agent.told().len() == 2);
}

#[test]
fn who_signed_out_is_told_nothing() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.api().logout(&lab.cloud());
    lab.clock.advance(3700);
    lab.signed_in("alice");
    assert_eq!(lab.agent.told(), []);
}

#[test]
fn a_computer_that_slept_through_the_end_is_told_nothing() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.clock.advance(8 * 3600);
    lab.signed_in("alice");
    assert_eq!(lab.agent.told(), []);
}

#[test]
fn a_session_that_renews_itself_has_nothing_to_tell_until_it_cannot() {
    let lab = Lab::new();
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    assert_eq!(Browser::of("alice").tab().sign_in(&sign_in.url).state, "done");
    lab.api().over(&sign_in.id);
    let before = lab.keystone.count(TOKEN_ENDPOINT);
    lab.clock.advance(SOFT);
    lab.keystone.wait_for(TOKEN_ENDPOINT, before + 1);
    until("the renewal", || {
        let ends = session(&lab)["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        ends.duration_since(lab.clock.now()).as_secs() > 3000
    });
    assert_eq!(lab.agent.told(), []);
    // The identity provider ends the grant.
    lab.keystone.end_grants();
    lab.clock.advance(SOFT);
    until("the grant's end", || session(&lab)["renews"] == false);
    lab.clock.advance(500);
    until("the notification", || lab.agent.told().len() == 1);
}

#[test]
fn a_tab_that_keeps_it_has_until_the_hard_end() {
    let lab = Lab::new();
    let sign_in = lab.login();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    assert_eq!(tab.open(&sign_in.url).state, "confirm");
    let note = tab.note(&lab.callback());
    assert_eq!(tab.answer(true).state, "done");
    let mut held = Held::open(&lab.callback(), &note, true);
    until("the tab keeps it", || session(&lab)["kept_by_tab"] == true);
    lab.clock.advance(SOFT);
    assert_eq!(held.says()["state"], "go");
    assert_eq!((lab.agent.told(), &session(&lab)["ends_soon"]), (vec![], &json!(false)));
    // The identity provider asks, and nobody is there.
    lab.clock.advance(480);
    until("the notification", || lab.agent.told().len() == 1);
}
