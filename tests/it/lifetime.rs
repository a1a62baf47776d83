//! Sessions and leases with a lifetime: over is over, also across a restart, and what the system says is the most.

use std::fs;

use jiff::Timestamp;
use keystone_broker::audit;
use keystone_broker::time::Clock;
use serde_json::{Value, json};

use crate::support::api::{SignIn, scope};
use crate::support::browser::Browser;
use crate::support::lab::{Lab, until};
use crate::support::tool::Tool;
use crate::support::world::World;

fn login(lab: &Lab, cloud: &Value, lifetime: u64) -> crate::support::api::Answer {
    lab.api().post("/v1/sign-ins", &json!({"cloud": cloud, "lifetime": lifetime}))
}

/// Somebody signs in for no longer than this.
fn signed_in(lab: &Lab, cloud: &Value, lifetime: u64) -> SignIn {
    let sign_in = login(lab, cloud, lifetime).sign_in();
    assert_eq!(Browser::of("alice").tab().sign_in(&sign_in.url).state, "done");
    lab.api().over(&sign_in.id);
    sign_in
}

fn sessions(lab: &Lab) -> Vec<Value> {
    lab.api().status()["sessions"].as_array().unwrap().clone()
}

fn ends(lab: &Lab) -> i64 {
    let end: Timestamp = sessions(lab)[0]["ends_at"].as_str().unwrap().parse().unwrap();
    end.duration_since(lab.clock.now()).as_secs()
}

#[test]
fn a_session_is_logged_out_at_its_end_however_long_it_could_go_on() {
    let lab = Lab::new();
    let cloud = lab.oidc();
    signed_in(&lab, &cloud, 1800);
    let token = lab.api().token(&cloud, &scope::project("demo")).token_id();
    assert_eq!((ends(&lab), lab.agent.told()), (1800, vec![]));
    lab.clock.advance(900 + 300);
    until("the notification", || lab.agent.told().len() == 1);
    assert_eq!(lab.agent.told()[0].0, "demo: your sign-in ends in 10 min");
    assert_eq!(sessions(&lab)[0]["ends_soon"], true);
    assert!(lab.accepts(&token));
    lab.clock.advance(600);
    // At once, whoever asks first; then everything is revoked, the grant too.
    lab.api().token_unprompted(&cloud, &scope::project("demo")).problem("sign-in-needed");
    until("the logout", || sessions(&lab).is_empty());
    until("the revocations", || lab.keystone.all_tokens().iter().all(|token| !lab.accepts(token)));
    let log = || fs::read_to_string(audit::file_in(&lab.agent.folder().join("state"))).unwrap();
    until("its line", || log().contains("\"action\":\"logout\""));
    let line = log().lines().find(|line| line.contains("\"logout\"")).unwrap().to_owned();
    assert!(!line.contains("\"program\""), "nobody asked for it: {line}");
    assert_eq!(lab.agent.told().len(), 1);
}

#[test]
fn who_is_signed_in_may_shorten_it_and_not_go_beyond_the_settings() {
    let lab = Lab::with_config("[session]\nlifetime = \"50min\"\n");
    lab.signed_in("alice");
    assert_eq!(ends(&lab), 3000);
    lab.clock.advance(600);
    assert_eq!(
        login(&lab, &lab.cloud(), 1200).json["session"]["ends_at"],
        (lab.clock.now() + jiff::SignedDuration::from_secs(1200)).to_string()
    );
    assert_eq!(ends(&lab), 1200);
    login(&lab, &lab.cloud(), 7200);
    assert_eq!(ends(&lab), 2400, "50 minutes after the sign-in");
    // The end that was set before is not this one's.
    lab.clock.advance(1300);
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).token_id();
    assert_eq!(ends(&lab), 1100);
    lab.clock.advance(1100);
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).problem("sign-in-needed");
}

#[test]
fn asked_to_last_longer_than_its_lifetime_it_says_when_it_ends() {
    let lab = Lab::with_config("[session]\nlifetime = \"30min\"\n");
    lab.signed_in("alice");
    let session = lab.api().post("/v1/sign-ins", &json!({"cloud": lab.cloud(), "min_validity": 3000}));
    assert_eq!(session.status, 200, "a moment after the sign-in nothing longer can be had");
    assert_eq!(session.json["session"]["expires_at"], session.json["session"]["ends_at"]);
    lab.clock.advance(120);
    let session = lab.api().post("/v1/sign-ins", &json!({"cloud": lab.cloud(), "min_validity": 3000}));
    assert_eq!(session.status, 202);
}

#[test]
fn a_lifetime_survives_a_restart_and_a_stricter_setting_shortens_it() {
    let config = "vault = \"passphrase\"\n";
    let lab = Lab::with_config(config);
    fs::write(lab.agent.folder().join("passphrase"), "correct horse").unwrap();
    fs::set_permissions(
        lab.agent.folder().join("passphrase"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let lab = lab.restart_agent();
    signed_in(&lab, &lab.oidc(), 2400);
    let lab = lab.restart_agent();
    assert_eq!(ends(&lab), 2400);
    lab.agent.write_config(&format!("{config}[session]\nlifetime = \"20min\"\n"));
    let lab = lab.restart_agent();
    assert_eq!(ends(&lab), 1200);
    lab.clock.advance(1199);
    let lab = lab.restart_agent();
    let token = lab.api().token_unprompted(&lab.oidc(), &scope::project("demo")).token_id();
    lab.clock.advance(1);
    until("the logout", || sessions(&lab).is_empty() && !lab.accepts(&token));
}

#[test]
fn a_lease_lives_no_longer_than_the_settings_let_it() {
    let lab = Lab::with_config("[lease]\nlifetime = \"1h\"\n");
    lab.signed_in("alice");
    let make = |ttl: Option<u64>| {
        let asked = json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "ttl": ttl});
        lab.api().post("/v1/leases", &asked)
    };
    let lives = |made: &Value| {
        let end: Timestamp = made["lease"]["expires_at"].as_str().unwrap().parse().unwrap();
        end.duration_since(lab.clock.now()).as_secs()
    };
    let short = make(Some(60)).json;
    assert_eq!((lives(&short), &short["lease"]["notices"]), (60, &json!(null)));
    for ttl in [None, Some(7200)] {
        let long = make(ttl);
        let notice = long.json["lease"]["notices"][0].as_str().unwrap().to_owned();
        let file = lab.agent.folder().join("config.toml");
        assert_eq!(notice, format!("lease.lifetime in {} ends it sooner than asked", file.display()));
        assert_eq!(lives(&long.json), 3600);
    }
    let tool = Tool::of(&make(None));
    tool.token();
    lab.clock.advance(3600);
    assert_eq!(tool.ask().status, 401);
}

#[test]
fn where_the_system_forbids_it_no_lease_goes_on_without_its_person() {
    let lab = Lab::with_config("[lease]\nunattended = true\n");
    fs::write(lab.agent.folder().join("system.toml"), "[lease]\nunattended = false\n").unwrap();
    let lab = lab.restart_agent();
    lab.signed_in("alice");
    let asked = json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "unattended": true, "ttl": 60});
    let answer = lab.api().post("/v1/leases", &asked);
    let problem = answer.problem("not-allowed");
    let file = lab.agent.folder().join("system.toml");
    let why = format!("{} has `unattended = false`: no lease goes on without you", file.display());
    assert_eq!((answer.status, &problem["detail"]), (403, &json!(why)));
    assert_eq!(problem["remedy"], "leave out --unattended, and stay signed in: ksb login demo");
    assert_eq!(lab.api().get("/v1/leases").json["leases"], json!([]));
}
