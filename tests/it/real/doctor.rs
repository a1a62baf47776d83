//! `ksb doctor` on the real stack: every fault that other tests make is named with what helps, and a healthy one is well.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;

use keystone_broker::platform::clock::SystemClock;
use serde_json::{Value, json};

use super::elsewhere::cloud;
use super::front::{Front, stack};
use super::vault::{Desktop, keep};
use crate::support::agent::Agent;
use crate::support::clock::MovedClock;
use crate::support::keystone::Keystone as Double;
use crate::support::openapi;
use crate::support::proxy::Proxy;
use crate::support::spawn;

fn findings(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn assert_names(findings: &[Value], check: &str, subject: &str, finding: &str, (why, helps): (&str, &str)) {
    let is_it =
        |each: &&Value| each["check"] == check && each["subject"].as_str().unwrap_or_default() == subject;
    let found = findings.iter().find(is_it).unwrap_or_else(|| panic!("no {check} {subject}: {findings:#?}"));
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    assert_eq!(text("finding"), finding, "{found}");
    assert!(text("detail").contains(why) && text("remedy").contains(helps), "{found}");
}

/// Only the Pythons of the stack.
fn with_its_pythons(front: &mut Front) {
    let tools = std::path::Path::new(&stack("PYTHON")).parent().unwrap().display().to_string();
    front.sandbox.set("PATH", format!("{tools}:/usr/bin:/bin"));
}

#[test]
fn a_healthy_cloud_is_well_and_a_report_names_nobody() {
    let mut front = Front::free();
    with_its_pythons(&mut front);
    let found = findings(&front.ksb(&["doctor", "--try", "--json"]).ok().stdout);
    let wrong: Vec<_> =
        found.iter().filter(|each| !["ok", "skipped"].contains(&each["finding"].as_str().unwrap())).collect();
    // Of a plugin beside another test's openstacksdk nothing is said here.
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    assert_eq!(wrong[0]["check"], "service-worker", "a browser alone knows");
    assert_names(&found, "trusted_dashboard", "demo", "ok", ("a sign-in came back to", ""));
    assert_names(&found, "plugin", &stack("PYTHON"), "ok", ("keystoneauth-broker", ""));
    assert_eq!(front.browsers_opened(), 1);

    let report = front.ksb(&["doctor", "--report"]).ok().stdout;
    assert!(report.contains("x-openstack-request-id: req-"), "{report}");
    assert!(report.contains("https://keystone.localhost:"), "{report}");
    let home = front.sandbox.path("home").display().to_string();
    assert!(!report.contains(&home) && !report.contains(&front.user()), "{report}");
    assert_eq!(front.browsers_opened(), 1, "a session that lives is proof enough");
}

/// An entry of clouds.yaml by the authorization code flow.
fn oidc(front: &Front, name: &str, port: &str, idp: &str, client: &str, more: &str) -> String {
    let options = format!(
        "discovery_endpoint: {}/.well-known/openid-configuration, client_id: {client}{more}",
        stack("ISSUER")
    );
    let entry = front.entry_at(&format!("https://keystone.localhost:{port}/v3"), name, "OPTIONS");
    let entry = entry
        .replace("lab-idp", idp)
        .replace(&format!("redirect_port: {}, OPTIONS", front.callback_port()), &options);
    assert!(!entry.contains("OPTIONS"), "{entry}");
    entry
}

#[test]
fn bearers_that_are_not_taken_are_told_apart() {
    let front = Front::free();
    let wrong = |name: &str| stack(&format!("FRONT_{name}"));
    let here = front.port();
    let cases = [
        (
            "websso-only",
            wrong("WEBSSO_ONLY"),
            "lab-idp",
            "cli",
            "serves browsers alone",
            "take bearer tokens of client cli",
        ),
        (
            "unprotected",
            wrong("UNPROTECTED"),
            "lab-idp",
            "cli",
            "nothing before Keystone looks at tokens",
            "take bearer tokens",
        ),
        (
            "audience",
            wrong("AUDIENCE"),
            "lab-idp",
            "unmapped",
            "its audience or another claim",
            "add the audience",
        ),
        ("closed", wrong("CLOSED"), "lab-idp", "cli", "answered 403", "take bearer tokens of client cli"),
        (
            "unverified",
            wrong("NO_INTROSPECTION"),
            "lab-idp",
            "cli",
            "cannot verify it",
            "by its keys or by introspection",
        ),
        (
            "refused",
            wrong("INTROSPECTION_REFUSED"),
            "lab-idp",
            "cli",
            "got no yes",
            "set up token introspection",
        ),
        ("foreign", wrong("FOREIGN_ISSUER"), "lab-idp", "cli", "cannot verify it", "have tokens of"),
        ("moved", here.clone(), "moved-idp", "cli", "does not know its issuer here", "among the remote ids"),
        (
            "strict",
            here.clone(),
            "strict-idp",
            "cli",
            "no rule of Keystone's mapping fits",
            "which claims the mapping",
        ),
        (
            "unknown",
            here.clone(),
            "no-such-idp",
            "cli",
            "Could not find Identity Provider",
            "ksb clouds show unknown",
        ),
    ];
    front.clouds(
        &cases.each_ref().map(|(name, port, idp, client, ..)| oidc(&front, name, port, idp, client, "")),
    );
    // What is seen without a sign-in.
    let outcome = front.ksb(&["doctor", "--json"]);
    assert_eq!((outcome.code, front.browsers_opened()), (Some(1), 0));
    let found = findings(&outcome.stdout);
    for (name, .., why, helps) in &cases {
        let (finding, said) = match *name {
            "websso-only" | "unprotected" | "closed" => ("fail", (*why, *helps)),
            _ => ("unknown", ("shows at a sign-in", "--try")),
        };
        assert_names(&found, "bearer", name, finding, said);
    }
    // The rest shows at one.
    let outcome = front.ksb(&["doctor", "--try", "--json"]);
    assert_eq!(outcome.code, Some(1));
    let found = findings(&outcome.stdout);
    for (name, .., why, helps) in &cases {
        assert_names(&found, "bearer", name, "fail", (why, helps));
    }
}

#[test]
fn clients_and_scopes_that_the_provider_does_not_take_are_told_apart() {
    let front = Front::free();
    let secret = stack("CLIENT_SECRET_POST");
    let cases = [
        ("secretless", "basic", String::new(), "unauthorized_client", "make client basic public"),
        ("wrong", "basic", ", client_secret: wrong".into(), "unauthorized_client", "check client_secret"),
        (
            "method",
            "post",
            format!(", client_secret: {secret}"),
            "unauthorized_client",
            "token_endpoint_auth_method",
        ),
        (
            "scopes",
            "cli",
            ", openid_scope: openid everything".into(),
            "invalid_scope",
            "correct openid_scope",
        ),
    ];
    let port = front.port();
    front.clouds(
        &cases.each_ref().map(|(name, client, more, ..)| oidc(&front, name, &port, "lab-idp", client, more)),
    );
    let outcome = front.ksb(&["doctor", "--try", "--json"]);
    assert_eq!(outcome.code, Some(1));
    assert!(!outcome.stdout.contains(&secret), "{outcome:?}");
    let found = findings(&outcome.stdout);
    for (name, _, _, why, helps) in cases {
        assert_names(&found, "sign-in", name, "fail", (why, helps));
    }
}

#[test]
fn a_callback_that_keystone_does_not_list_is_named() {
    let front = Front::free();
    let entry = front.entry_at(&front.auth_url(), "demo", "login_timeout: 15").replace(
        &format!("redirect_port: {}", front.callback_port()),
        // Nobody's but this test's.
        "redirect_port: 9999",
    );
    let _turn = super::front::Turn::wait("port-9999");
    front.clouds(&[entry]);
    let outcome = front.ksb(&["doctor", "--try", "--json"]);
    assert_eq!(outcome.code, Some(1));
    let helps = "trusted_dashboard = http://localhost:9999/auth/websso/";
    let found = findings(&outcome.stdout);
    assert_names(&found, "trusted_dashboard", "demo", "fail", ("nobody finished", helps));
    // The sign-in of an identity provider that Keystone does not know ends in the same way.
    let helps = "if it showed 404, correct identity_provider and protocol: ksb clouds show demo";
    assert_names(&found, "trusted_dashboard", "demo", "fail", ("nobody finished", helps));
}

fn probe(agent: &Agent, cloud: &Value) -> Vec<Value> {
    let answer = agent.api().post("/v1/probe", &json!({"cloud": cloud}));
    assert_eq!(answer.status, 200, "{}", answer.text);
    openapi::check_answer("POST", "/v1/probe", 200, Some("application/json"), &answer.text);
    answer.json["findings"].as_array().unwrap().clone()
}

#[test]
fn clocks_certificates_and_proxies_are_told_apart() {
    let front = Front::free();
    let clock = MovedClock::new();
    let agent = Agent::start(clock.clone());
    let demo = cloud(&front.port(), "lab-idp", "cli");
    assert_names(&probe(&agent, &demo), "clock", "demo", "ok", ("as Keystone has it", ""));
    clock.advance(7200);
    assert_names(
        &probe(&agent, &demo),
        "clock",
        "demo",
        "fail",
        ("s ahead of that of Keystone", "timedatectl"),
    );
    clock.advance(-7200);

    let mut stranger = demo.clone();
    stranger["tls"] = json!({});
    assert_names(&probe(&agent, &stranger), "tls", "demo", "fail", ("UnknownIssuer", "set cacert"));
    let mut unchecked = demo.clone();
    unchecked["tls"] = json!({"verify": false});
    assert_names(&probe(&agent, &unchecked), "tls", "demo", "warn", ("verify: false", "set cacert"));
    let mut missing = demo.clone();
    missing["tls"] = json!({"ca_file": "/nowhere/ca.pem"});
    let answer = agent.api().post("/v1/probe", &json!({"cloud": missing}));
    assert_eq!(
        answer.problem("invalid-config")["remedy"].as_str().unwrap().split(' ').next(),
        Some("correct")
    );

    let idp = Double::start_on_tls(Arc::new(SystemClock));
    let mut elsewhere = demo.clone();
    elsewhere["sign_in"]["oidc"]["discovery_endpoint"] =
        format!("{}/idp/.well-known/openid-configuration", idp.url()).into();
    let why = ("TLS with", "the CA that signed this certificate too");
    assert_names(&probe(&agent, &elsewhere), "identity-provider", "demo", "fail", why);

    let denied = Proxy::that_says("407 Proxy Authentication Required", "<h1>Who are you?</h1>");
    let forbids = Proxy::that_says("403 Forbidden", "<h1>Not in working hours</h1>");
    let portal = Proxy::that_says("200 OK", "<h1>Welcome to the hotel</h1>");
    let gone = Proxy::that_says("200 OK", "").url();
    for (proxy, why) in [
        (denied.url(), ("without a name and password", "https_proxy=http://NAME:PASSWORD@")),
        (forbids.url(), ("does not connect to it", "ask the proxy's operator")),
        (gone, ("does not answer", "no_proxy=")),
        (portal.url(), ("through the proxy", "no_proxy=")),
    ] {
        let mut behind = demo.clone();
        behind["proxy"] = proxy.as_str().into();
        let found = probe(&agent, &behind);
        assert_names(&found, "proxy", "demo", "fail", why);
        assert!(!json!(found).to_string().contains("canary"), "{found:?}");
    }
}

#[test]
fn what_this_machine_lacks_is_named() {
    let mut front = Front::free();
    keep(&front, "keyring");
    let mut desktop = Desktop::of(&mut front.sandbox);
    desktop.log_in(&front.sandbox);
    front.token(&[]);
    let vault = |front: &Front| findings(&front.ksb(&["doctor", "--json"]).stdout);
    assert_names(&vault(&front), "vault", "", "ok", ("the desktop's keyring", ""));
    // The agent still has it open. The keyring that the bus starts in the place of the old one is locked, and nobody is asked.
    desktop.log_out();
    assert_names(&vault(&front), "vault", "", "warn", ("open; its key", "log in to the desktop"));
    front.ksb(&["agent", "stop"]).ok();
    assert_names(&vault(&front), "vault", "", "fail", ("closed", "ksb unlock"));

    let squatter = spawn::undisturbed(|| TcpListener::bind(("127.0.0.1", front.callback_port())).unwrap());
    let port = front.callback_port().to_string();
    let holder = format!("(process {})", std::process::id());
    assert_names(&vault(&front), "callback-port", &port, "fail", (&holder, "end that program"));
    drop(squatter);
}

#[test]
fn a_plugin_that_takes_anothers_place_is_named() {
    let mut front = Front::free();
    with_its_pythons(&mut front);
    // As pip leaves the two: a distribution's metadata on the path are all that Python looks at.
    let packages = front.sandbox.path("packages");
    for (name, version, points) in [
        (
            "keystoneauth-websso",
            "0.2.5",
            "[keystoneauth1.plugin]\nv3websso = keystoneauth_websso.loading:OpenIDConnect\n",
        ),
        (
            "keystoneauth-broker",
            "0.0.1",
            "[keystoneauth1.plugin]\nv3broker = keystoneauth_broker.loader:Broker\n",
        ),
    ] {
        let folder = packages.join(format!("{}-{version}.dist-info", name.replace('-', "_")));
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("METADATA"),
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
        )
        .unwrap();
        fs::write(folder.join("entry_points.txt"), points).unwrap();
    }
    front.sandbox.set("PYTHONPATH", packages);
    let found = findings(&front.ksb(&["doctor", "--json"]).stdout);
    let python = stack("PYTHON");
    assert_names(
        &found,
        "plugin",
        &python,
        "warn",
        ("keystoneauth-broker 0.0.1: older", "--upgrade ./plugin-shim"),
    );
    let helps = "-m pip uninstall keystoneauth-websso";
    assert_names(
        &found,
        "shadowed-plugin",
        &python,
        "warn",
        ("v3websso is also what keystoneauth-websso", helps),
    );
}
