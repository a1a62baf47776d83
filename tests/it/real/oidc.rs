//! The authorization code flow at Keycloak, Keystone's bearer exchange, and renewal without the user.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::elsewhere::signed_in_elsewhere;
use super::front::{Front, stack};
use super::keystone::AGENT;
use super::program::{Program, run};
use super::terminal::Terminal;
use crate::support::api::{Api, scope};
use crate::support::sandbox::KSB;

const BEARER: &str = "/v3/OS-FEDERATION/identity_providers/lab-idp/protocols/openid/auth";

fn entry(front: &Front, name: &str, options: &str) -> String {
    let client = format!(
        "discovery_endpoint: {}/.well-known/openid-configuration, client_id: cli, project_name: demo, \
         project_domain_name: lab{options}",
        stack("ISSUER")
    );
    front.entry_at(&front.auth_url(), name, &client)
}

/// Bearer exchanges that Keystone was asked for.
fn exchanges(front: &Front) -> usize {
    let all = front.all_requests();
    all.iter().filter(|request| request.path.contains(BEARER) && request.agent != AGENT).count()
}

#[test]
fn a_passkey_at_the_identity_provider_signs_in_once_and_renewal_needs_nobody() {
    let front = Front::take(0, "alice").in_chromium();
    front.clouds(&[entry(&front, "demo", "")]);
    let issue = ["token", "issue", "-f", "value", "-c", "id"];
    let first = front.answer(&issue);
    let token = front.keystone.look_at(&first).unwrap();
    assert_eq!((&token["user"]["name"], &token["project"]["name"]), (&json!("alice"), &json!("demo")));
    assert_eq!(front.token(&[]), first, "`openstack` and `ksb` are one");
    assert_eq!((front.browsers_opened(), exchanges(&front), front.counts().logins), (1, 1, 0));
    let status = front.ksb(&["status"]).ok().stdout;
    assert!(status.contains("renews itself for as long as the identity provider allows"), "{status}");

    // Three times Keystone takes everything back: nobody is asked, and each time it costs one refresh.
    let api = Api::new(front.sandbox.paths().socket);
    let shown: Value = serde_json::from_str(&front.ksb(&["clouds", "show", "--json"]).ok().stdout).unwrap();
    let mut held = first;
    for round in 2..=4 {
        let unscoped = front.token(&["--unscoped"]);
        let admin = front.keystone.admin();
        admin.revoke(&held);
        admin.revoke(&unscoped);
        let next = api.token_instead_of(&held, &shown["cloud"], &scope::project("demo")).token_id();
        assert!(front.keystone.accepts(&next));
        assert_ne!(next, held);
        assert_eq!(front.answer(&issue), next);
        assert_eq!((front.browsers_opened(), exchanges(&front)), (1, round), "{:?}", front.all_requests());
        held = next;
    }

    let said = front.ksb(&["logout"]).ok().stdout;
    assert!(!said.contains("NOT revoked"), "{said}");
    assert!(!front.keystone.accepts(&held));
}

#[test]
fn a_password_and_a_code_from_an_app_sign_in() {
    let mut front = Front::free().in_chromium();
    front.sandbox.set("KSB_BROWSER_USER", "tessa");
    front.clouds(&[entry(&front, "demo", "")]);
    let token = front.keystone.look_at(&front.token(&[])).unwrap();
    assert_eq!(token["user"]["name"], "tessa");
    assert_eq!((front.browsers_opened(), exchanges(&front)), (1, 1));
}

#[test]
fn a_terminal_without_a_browser_is_approved_elsewhere() {
    let front = Front::free().in_chromium();
    front.clouds(&[entry(&front, "demo", ", sign_in: oidc_device")]);
    let mut command = front.sandbox.ksb(&["login"]);
    command.env_remove("BROWSER");
    let waiting = Program::start(command);
    let said = waiting.says("Approve only what you started yourself");
    assert!(said.contains("for client cli"), "{said}");
    let address = waiting.says("demo: sign in: ");
    let address = address.split("sign in: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    assert!(address.contains("/device?user_code="), "{address}");
    // The user's telephone.
    let mut telephone = front.sandbox.command(stack("BROWSER"));
    telephone.arg(&address);
    run(telephone).ok();
    let outcome = waiting.ends().ok();
    assert!(outcome.stdout.contains(&format!("signed in as {} (lab)", front.user())), "{outcome:?}");
    front.ksb_with(&[("KSB_PROMPT", "never")], &["token"]).ok();
    assert_eq!(exchanges(&front), 1);
}

#[test]
fn the_address_at_which_another_machines_browser_ended_is_pasted_into_the_terminal() {
    let front = Front::free();
    front.clouds(&[entry(&front, "demo", "")]);
    let mut terminal = Terminal::start(&front.sandbox, &format!("{KSB} login"), &[]);
    terminal.shows("p: a browser on another machine");
    terminal.types("p");
    let said = terminal.shows("Paste the address");
    let address = said.lines().map(str::trim).find(|line| line.starts_with(&stack("ISSUER"))).unwrap();
    let ended = signed_in_elsewhere(address, &front.user());
    terminal.types(&format!("{ended}\n"));
    terminal.shows(&format!("signed in as {} (lab)", front.user()));
    let (said, status) = terminal.ends();
    assert!(!said.contains("code="), "what was pasted is not shown: {said}");
    assert_eq!(status, Some(0), "{said}");
    assert_eq!((front.browsers_opened(), exchanges(&front)), (0, 1));
}

#[test]
fn the_id_token_and_a_registered_callback_work_as_well() {
    let front = Front::free();
    let port = front.callback_port();
    let callback =
        format!(", redirect_uri: 'http://localhost:{port}/back/here', access_token_type: id_token");
    front.clouds(&[entry(&front, "demo", &callback)]);
    let token = front.keystone.look_at(&front.token(&[])).unwrap();
    assert_eq!(token["user"]["name"], front.user());
    assert_eq!((front.browsers_opened(), exchanges(&front)), (1, 1));
}

#[test]
fn what_only_the_identity_providers_page_says_is_explained_in_the_terminal() {
    let mut front = Front::free();
    let unknown = entry(&front, "demo", "").replace("client_id: cli", "client_id: nobody");
    let elsewhere =
        entry(&front, "elsewhere", "").replace(".well-known/openid-configuration", "nothing/here");
    let nowhere = entry(&front, "nowhere", "").replace("realms/lab", "realms/none");
    front.clouds(&[unknown, elsewhere, nowhere]);
    for (cloud, why) in [
        ("elsewhere", "discovery_endpoint does not end in /.well-known/openid-configuration"),
        ("nowhere", "the identity provider answered: its metadata: HTTP 404"),
    ] {
        let refused = front.ksb(&["token", cloud]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
        assert!(refused.stderr.contains(&format!("ksb clouds show {cloud}")), "{refused:?}");
    }
    assert_eq!(front.browsers_opened(), 0);

    front.sandbox.set("KSB_BROWSER_TIMEOUT", "100");
    let fixed = format!("http://localhost:{}/back", front.callback_port());
    let elsewhere = entry(&front, "fixed", &format!(", redirect_uri: '{fixed}'"));
    let unregistered = elsewhere.replace("client_id: cli", "client_id: unmapped");
    let any_port =
        entry(&front, "demo", "").replace(&format!("redirect_port: {}, ", front.callback_port()), "");
    front.clouds(&[any_port.replace("client_id: cli", "client_id: nobody"), unregistered]);
    for (cloud, register) in [
        ("demo", "register http://127.0.0.1/callback (with any port) for client nobody".to_owned()),
        ("fixed", format!("register {fixed} (exactly) for client unmapped")),
    ] {
        let waiting = front.start(&["login", cloud]);
        let said = waiting.says(&format!("{cloud}: still waiting"));
        assert!(said.contains(&register) && said.contains("correct client_id"), "{said}");
        waiting.signal(Signal::INT);
        assert_eq!(waiting.ends().code, Some(130));
    }
}
