//! *Keep me signed in while this tab is open*: the tab goes round again before the session ends, and nobody else does.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::api::scope;
use crate::support::browser::{Browser, Form, Tab, navigation, own_fetch};
use crate::support::kept::Held;
use crate::support::keystone::{DISCOVERY, Fault, LAB};
use crate::support::lab::{Lab, until};
use crate::support::world::World;

/// Tokens live an hour; the tab goes round with ten to eleven minutes left.
const SOFT: i64 = 3000;

/// Alice signs in; what her tab knows when it shows the last page.
#[track_caller]
fn signed_in(lab: &Lab, tab: &mut Tab<'_>) -> Value {
    let sign_in = lab.login();
    assert_eq!(tab.open(&sign_in.url).state, "confirm");
    let note = tab.note(&lab.callback());
    let shown = tab.answer(true);
    assert_eq!((&*shown.state, &shown.reply["keep"]), ("done", &json!("offered")));
    assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
    note
}

/// The same, and she ticks the box.
#[track_caller]
fn kept(lab: &Lab, tab: &mut Tab<'_>) -> Held {
    let note = signed_in(lab, tab);
    let offer = Held::open(&lab.callback(), &note, false);
    assert!(!is_kept(lab), "nothing is kept unasked");
    drop(offer);
    let held = Held::open(&lab.callback(), &note, true);
    until("the tab keeps it", || is_kept(lab));
    held
}

fn is_kept(lab: &Lab) -> bool {
    lab.api().status()["sessions"][0]["kept_by_tab"] == true
}

/// Where the broker sends the tab.
#[track_caller]
fn begin(lab: &Lab, held: &mut Held) -> String {
    let word = held.says();
    assert_eq!(word["state"], "go", "{word}");
    lab.at_callback(word["begin"].as_str().unwrap())
}

/// The tab goes round and is back, with a new secret.
#[track_caller]
fn goes_round(lab: &Lab, tab: &mut Tab<'_>, held: &mut Held) -> Held {
    let form = tab.go(&begin(lab, held)).unwrap();
    let note = tab.note(&lab.callback());
    tab.post(&form);
    let shown = tab.claim();
    assert_eq!((&*shown.state, &shown.reply["keep"]), ("done", &json!("kept")));
    Held::open(&lab.callback(), &note, true)
}

fn port_is_open(lab: &Lab) -> bool {
    TcpStream::connect(("127.0.0.1", lab.port)).is_ok()
}

fn unprompted(lab: &Lab) -> u16 {
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).status
}

#[test]
fn a_tab_that_stays_open_signs_in_again_before_each_end_and_asks_nobody() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let mut held = kept(&lab, &mut tab);
    let mut secrets = vec![];
    for round in 2..=4 {
        lab.clock.advance(SOFT);
        let form = tab.go(&begin(&lab, &mut held)).unwrap();
        let note = tab.note(&lab.callback());
        assert!(!secrets.contains(&note["secret"]), "each round has a secret of its own");
        secrets.push(note["secret"].clone());
        tab.post(&form);
        let shown = tab.claim();
        assert_eq!((&*shown.state, &shown.reply["keep"]), ("done", &json!("kept")), "nobody is asked");
        held = Held::open(&lab.callback(), &note, true);
        until("the tab keeps it", || is_kept(&lab));
        assert_eq!(lab.keystone.logins(), round);
        // Tools neither notice nor wait.
        assert_eq!(unprompted(&lab), 200);
    }
    assert_eq!(lab.api().status()["sign_ins"], json!([]));
}

#[test]
fn the_title_of_the_tab_says_what_it_is_about() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut held = kept(&lab, &mut browser.tab());
    lab.clock.advance(SOFT);
    let page = navigation("GET", &begin(&lab, &mut held)).send();
    assert!(page.body.contains("<title>Sign in again: demo "), "{}", page.body);
    for (name, value) in [("x-frame-options", "DENY"), ("cache-control", "no-store")] {
        assert_eq!(page.header(name), Some(value));
    }
}

#[test]
fn a_computer_that_slept_past_the_end_goes_round_when_it_wakes() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let mut held = kept(&lab, &mut tab);
    lab.clock.advance(8 * 3600);
    goes_round(&lab, &mut tab, &mut held);
    assert_eq!((unprompted(&lab), lab.keystone.logins()), (200, 2));
}

#[test]
fn a_page_that_did_not_hear_it_is_told_again() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let note = signed_in(&lab, &mut tab);
    let mut frozen = Held::open(&lab.callback(), &note, true);
    until("the tab keeps it", || is_kept(&lab));
    lab.clock.advance(SOFT);
    let first = begin(&lab, &mut frozen);
    let mut thawed = Held::open(&lab.callback(), &note, true);
    assert_eq!(begin(&lab, &mut thawed), first);
    assert_eq!(tab.sign_in(&first).state, "done");
}

#[test]
fn a_closed_tab_ends_it_and_nothing_else_follows() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let held = kept(&lab, &mut browser.tab());
    lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    assert!(is_kept(&lab) && port_is_open(&lab));
    drop(held);
    until("the tab is missed", || {
        lab.clock.advance(11);
        !is_kept(&lab) && !port_is_open(&lab)
    });
    assert_eq!(unprompted(&lab), 200, "the session lives on to its end");
    lab.clock.advance(3600);
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).problem("sign-in-needed");
    assert_eq!(lab.keystone.logins(), 1);
}

#[test]
fn who_does_not_want_it_gets_nothing_and_the_port_is_let_go() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let note = signed_in(&lab, &mut browser.tab());
    let mut offer = Held::open(&lab.callback(), &note, false);
    lab.clock.advance(60);
    assert_eq!(offer.says()["state"], "over");
    until("the port is free", || !port_is_open(&lab));
    lab.clock.advance(SOFT);
    assert_eq!((is_kept(&lab), lab.keystone.logins()), (false, 1));
}

#[test]
fn the_box_can_be_ticked_and_unticked() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let note = signed_in(&lab, &mut browser.tab());
    for keep in [true, false, true, false] {
        let _held = Held::open(&lab.callback(), &note, keep);
        until("the box counts", || is_kept(&lab) == keep);
    }
}

#[test]
fn another_users_token_is_refused_and_nobody_is_asked_about_it() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let mut held = kept(&lab, &mut tab);
    lab.clock.advance(SOFT);
    let begin = begin(&lab, &mut held);
    let form = tab.go(&begin).unwrap();
    // The identity provider's session is somebody else's by now.
    tab.post(&Form::of(&lab.callback(), &lab.keystone.issue("mallory", LAB)));
    assert_eq!(tab.claim().state, "wrong-user");
    // Another browser of this user's has the link.
    let other = Browser::of("mallory");
    let mut other = other.tab();
    let foreign = other.go(&begin).unwrap();
    other.post(&foreign);
    assert_eq!(other.claim().state, "wrong-user");
    assert_eq!(lab.api().status()["sessions"][0]["user"]["name"], "alice");
    tab.post(&form);
    assert_eq!(tab.claim().state, "done");
    assert_eq!(lab.api().status()["sessions"][0]["user"]["name"], "alice");
}

#[test]
fn no_other_page_can_ask_for_it_or_use_it() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let note = signed_in(&lab, &mut tab);
    let _held = Held::open(&lab.callback(), &note, true);
    until("it is kept", || is_kept(&lab));
    let keep = lab.at_callback("/keep");
    let body = |id: &Value, secret: &Value| json!({"claim": "", "id": id, "secret": secret, "keep": false});
    let wrong = [(&note["id"], &json!("0".repeat(64))), (&json!("0".repeat(32)), &note["secret"])];
    for (id, secret) in wrong {
        assert_eq!(own_fetch(&keep, &body(id, secret)).send().body.trim(), "{\"state\":\"over\"}");
    }
    let right = own_fetch(&keep, &body(&note["id"], &note["secret"]));
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Content-Type", "text/plain"),
    ] {
        assert_eq!(right.clone().set(name, value).send().status, 403, "{name}: {value}");
    }
    // Between two rounds nothing is waited for: what comes is not even kept.
    let mut attacker = browser.tab();
    assert_eq!(
        attacker.post(&Form::of(&lab.callback(), &lab.keystone.issue("mallory", LAB))).state,
        "expired"
    );
    assert_eq!(tab.note(&lab.callback()), json!({}), "a page loaded later in the tab finds no secret");
    assert!(is_kept(&lab));
}

#[test]
fn a_foreign_tabs_token_during_a_round_is_dropped() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let mut held = kept(&lab, &mut tab);
    lab.clock.advance(SOFT);
    let form = tab.go(&begin(&lab, &mut held)).unwrap();
    let mut attacker = browser.tab();
    attacker.post(&Form::of(&lab.callback(), &lab.keystone.issue("mallory", LAB)));
    assert_eq!(attacker.claim().state, "unproven");
    tab.post(&form);
    assert_eq!(tab.claim().state, "done");
}

#[test]
fn an_unreachable_cloud_sends_no_tab_anywhere() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let mut held = kept(&lab, &mut tab);
    let before = lab.keystone.count(DISCOVERY);
    let gone = lab.keystone.on(DISCOVERY, Fault::Hangs);
    lab.clock.advance(SOFT);
    lab.keystone.wait_for(DISCOVERY, before + 1);
    drop(gone);
    until("it is tried again", || {
        lab.clock.advance(60);
        lab.keystone.count(DISCOVERY) > before + 1
    });
    goes_round(&lab, &mut tab, &mut held);
    assert_eq!(lab.keystone.logins(), 2);
}

#[test]
fn logout_lets_the_tab_go() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut held = kept(&lab, &mut browser.tab());
    lab.api().logout(&lab.cloud());
    assert_eq!(held.says()["state"], "over");
    until("the port is free", || !port_is_open(&lab));
}

#[test]
fn an_identity_provider_that_asks_leaves_everything_as_it_is_without_the_tab() {
    let lab = Lab::new();
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let mut held = kept(&lab, &mut tab);
    lab.clock.advance(SOFT);
    // The tab is at the identity provider's page, where nobody is.
    let begin = begin(&lab, &mut held);
    assert_eq!(unprompted(&lab), 200, "served to the end");
    lab.clock.advance(3600 - SOFT);
    assert_eq!(held.says()["state"], "over");
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).problem("sign-in-needed");
    assert!(lab.api().token(&lab.cloud(), &scope::project("demo")).sign_in().opener, "as without the tab");
    // Who comes back to the tab now is told.
    assert_eq!(tab.go(&begin).unwrap_err().state, "expired");
}

#[test]
fn a_sign_in_that_renews_itself_offers_no_tab() {
    let lab = Lab::new();
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    let shown = Browser::of("alice").tab().sign_in(&sign_in.url);
    assert_eq!((&*shown.state, &shown.reply["keep"]), ("done", &Value::Null));
}
