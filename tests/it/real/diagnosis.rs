//! What operators and entries get wrong, each misconfigured on the real stack, and what `ksb` says of it.

use std::sync::Arc;

use jiff::Timestamp;
use keystone_broker::platform::clock::SystemClock;
use keystone_broker::time::Clock;
use serde_json::{Value, json};

use super::elsewhere::{cloud, signs_in};
use super::front::{Front, stack};
use super::keystone::Keystone;
use crate::support::agent::Agent;
use crate::support::api::scope;
use crate::support::clock::MovedClock;
use crate::support::keystone::Keystone as Double;
use crate::support::proxy::Proxy;

const PATH: &str = "/v3/OS-FEDERATION/identity_providers/lab-idp/protocols/openid/auth";

#[test]
fn a_bearer_that_keystone_does_not_take_is_told_apart() {
    let front = Front::free();
    let agent = Agent::start(Arc::new(SystemClock));
    let wrong = |name: &str| stack(&format!("FRONT_{name}"));
    for (port, idp, client, why, wanted) in [
        (
            wrong("WEBSSO_ONLY"),
            "lab-idp",
            "cli",
            "serves browsers alone: WebSSO works there, a token does not",
            format!("take bearer tokens of client cli at {PATH}"),
        ),
        (
            wrong("UNPROTECTED"),
            "lab-idp",
            "cli",
            "nothing before Keystone looks at tokens there",
            format!("take bearer tokens of client cli at {PATH}"),
        ),
        (
            wrong("AUDIENCE"),
            "lab-idp",
            "unmapped",
            "its audience or another claim is not what the cloud wants; the token is for nobody, asked for by unmapped",
            format!(
                "take tokens of client unmapped at {PATH}, or to have the identity provider add the audience"
            ),
        ),
        (
            wrong("CLOSED"),
            "lab-idp",
            "cli",
            "the web server before Keystone answered 403",
            format!("take bearer tokens of client cli at {PATH}"),
        ),
        (
            wrong("NO_INTROSPECTION"),
            "lab-idp",
            "cli",
            "the cloud cannot verify it",
            format!("have tokens of {} verified at {PATH}, by its keys or by introspection", stack("ISSUER")),
        ),
        (
            wrong("INTROSPECTION_REFUSED"),
            "lab-idp",
            "cli",
            "asked the identity provider about it and got no yes",
            format!("set up token introspection for {PATH}"),
        ),
        (
            wrong("FOREIGN_ISSUER"),
            "lab-idp",
            "cli",
            "the cloud cannot verify it",
            format!("have tokens of {} verified", stack("ISSUER")),
        ),
        (
            front.port(),
            "moved-idp",
            "cli",
            "it does not know its issuer here: 403",
            format!("whether {} is among the remote ids of identity provider moved-idp", stack("ISSUER")),
        ),
        (
            front.port(),
            "strict-idp",
            "cli",
            "it is genuine, but no rule of Keystone's mapping fits the user: 401",
            "which claims the mapping behind".into(),
        ),
        (
            front.port(),
            "no-such-idp",
            "cli",
            "Could not find Identity Provider: no-such-idp",
            "correct identity_provider and protocol of the entry: ksb clouds show demo".into(),
        ),
    ] {
        let case = format!("{idp} at {port}, client {client}");
        let answer = signs_in(agent.api(), &cloud(&port, idp, client), &front.user());
        let problem = answer.problem("bearer-refused");
        let (detail, remedy) = (problem["detail"].as_str().unwrap(), problem["remedy"].as_str().unwrap());
        assert!(detail.contains(why), "{case}: {detail}");
        assert!(remedy.contains(&wanted), "{case}: {remedy}");
        assert_eq!(problem["cloud"], "demo", "{case}");
        let ways_out = ["sign_in: websso", "ksb clouds show demo"];
        assert!(ways_out.iter().any(|way| remedy.contains(way)), "{case}: {remedy}");
    }
    // None of it is true of the same people and clients where all is in order.
    assert_eq!(
        signs_in(agent.api(), &cloud(&wrong("AUDIENCE"), "lab-idp", "cli"), &front.user()).status,
        204
    );
}

#[test]
fn a_client_that_is_registered_otherwise_is_told_what_to_ask_for() {
    let front = Front::free();
    let agent = Agent::start(Arc::new(SystemClock));
    for (client, secret, method, why, wanted) in [
        (
            "basic",
            None,
            None,
            "unauthorized_client",
            "make client basic public (PKCE stands in for a secret)",
        ),
        ("basic", Some("wrong"), None, "unauthorized_client", "check client_secret"),
        (
            "post",
            Some(&*stack("CLIENT_SECRET_POST")),
            None,
            "unauthorized_client",
            "set token_endpoint_auth_method to client_secret_basic or client_secret_post",
        ),
    ] {
        let mut cloud = cloud(&front.port(), "lab-idp", client);
        cloud["sign_in"]["oidc"]["client_secret"] = json!(secret);
        cloud["sign_in"]["oidc"]["auth_method"] = json!(method.unwrap_or(Value::Null));
        let answer = signs_in(agent.api(), &cloud, &front.user());
        let problem = answer.problem("identity-provider-error");
        let (detail, remedy) = (problem["detail"].as_str().unwrap(), problem["remedy"].as_str().unwrap());
        assert!(detail.contains(why) && remedy.contains(wanted), "{client}: {problem}");
    }
    // On another device, which this client may not use.
    let mut device = cloud(&front.port(), "lab-idp", "unmapped");
    device["sign_in"]["way"] = "oidc_device".into();
    let answer = agent.api().login(&device);
    let problem = answer.problem("identity-provider-error");
    let wanted =
        "ask the operator to allow client unmapped the device authorization grant, or use sign_in: oidc_code";
    assert_eq!(problem["remedy"], wanted, "{problem}");
    // Scopes that nobody offers come back to the callback.
    let mut scopes = cloud(&front.port(), "lab-idp", "cli");
    scopes["sign_in"]["oidc"]["scope"] = "openid everything".into();
    let answer = signs_in(agent.api(), &scopes, &front.user());
    let problem = answer.problem("identity-provider-error");
    assert!(problem["detail"].as_str().unwrap().contains("invalid_scope"), "{problem}");
    assert!(problem["remedy"].as_str().unwrap().starts_with("correct openid_scope"), "{problem}");
}

#[test]
fn confidential_clients_show_their_secret_as_they_are_registered() {
    let front = Front::free();
    let agent = Agent::start(Arc::new(SystemClock));
    for (client, method) in
        [("basic", None), ("basic", Some("client_secret_basic")), ("post", Some("client_secret_post"))]
    {
        let mut cloud = cloud(&front.port(), "lab-idp", client);
        cloud["sign_in"]["oidc"]["client_secret"] =
            stack(&format!("CLIENT_SECRET_{}", client.to_uppercase())).into();
        if let Some(method) = method {
            cloud["sign_in"]["oidc"]["auth_method"] = method.into();
        }
        assert_eq!(signs_in(agent.api(), &cloud, &front.user()).status, 204, "{client}");
        // The secret is shown at each renewal and at the end, too.
        let held = agent.api().token_unprompted(&cloud, &scope::project("demo")).token_id();
        let keystone = Keystone::new(cloud["auth_url"].as_str().unwrap());
        let unscoped = agent.api().token_unprompted(&cloud, &scope::unscoped()).token_id();
        for token in [&held, &unscoped] {
            keystone.admin().revoke(token);
        }
        let next = agent.api().token_instead_of(&held, &cloud, &scope::project("demo")).token_id();
        assert!(keystone.accepts(&next), "{client}");
        let ended = agent.api().logout(&cloud);
        assert_eq!(ended[0]["not_revoked"], json!([]), "{client}");
    }
}

#[test]
fn a_wrong_clock_of_ours_is_measured() {
    let front = Front::free();
    let clock = MovedClock::new();
    let agent = Agent::start(clock.clone());
    clock.advance(7200);
    let demo = cloud(&front.port(), "lab-idp", "cli");
    let answer = signs_in(agent.api(), &demo, &front.user());
    let problem = answer.problem("identity-provider-error");
    let said = problem["detail"].as_str().unwrap();
    let seconds = said.strip_prefix("this computer's clock is ").and_then(|rest| rest.split(' ').next());
    let seconds: i64 =
        seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or_else(|| panic!("{problem}"));
    assert!((7190..=7210).contains(&seconds), "{said}");
    assert!(said.contains("ahead of the identity provider's"), "{said}");
    assert!(problem["remedy"].as_str().unwrap().contains("timedatectl"), "{problem}");

    // A little wrong, or behind, costs nothing: neither the ID token nor what Keystone gives.
    clock.advance(-7200 - 1800);
    assert_eq!(signs_in(agent.api(), &demo, &front.user()).status, 204);
    agent.api().token_unprompted(&demo, &scope::project("demo")).token_id();
    let session = agent.api().status()["sessions"][0].clone();
    let proved: Timestamp = session["evidence"]["auth_time"].as_str().unwrap().parse().unwrap();
    assert!(clock.now().duration_since(proved).as_secs().abs() < 60, "by our clock: {session}");
}

#[test]
fn a_certificate_of_the_identity_provider_that_nobody_vouches_for_is_named() {
    let front = Front::free();
    let agent = Agent::start(Arc::new(SystemClock));
    let stranger = Double::start_on_tls(Arc::new(SystemClock));
    let mut demo = cloud(&front.port(), "lab-idp", "cli");
    let endpoint = format!("{}/idp/.well-known/openid-configuration", stranger.url());
    demo["sign_in"]["oidc"]["discovery_endpoint"] = endpoint.into();
    let answer = agent.api().login(&demo);
    let problem = answer.problem("identity-provider-tls");
    let host = stranger.url().strip_prefix("https://").unwrap();
    assert!(
        problem["detail"].as_str().unwrap().starts_with(&format!("TLS with {host} failed: ")),
        "{problem}"
    );
    let remedy = "set cacert in the cloud's entry to the CA that signed this certificate too (a file may hold several)";
    assert_eq!(problem["remedy"], remedy);
}

#[test]
fn a_proxy_in_the_way_is_named() {
    let front = Front::free();
    let agent = Agent::start(Arc::new(SystemClock));
    let denied = Proxy::that_says("407 Proxy Authentication Required", "<h1>Who are you?</h1>");
    let forbids = Proxy::that_says("403 Forbidden", "<h1>Not in working hours</h1>");
    let portal = Proxy::that_says("200 OK", "<h1>Welcome to the hotel</h1>");
    let gone = {
        let proxy = Proxy::that_says("200 OK", "");
        (proxy.url(), proxy.address())
    };
    let plain = Double::start(Arc::new(SystemClock));
    for (proxy, address, plain_too, why, wanted) in [
        (
            denied.url(),
            denied.address(),
            true,
            "without a name and password",
            "https_proxy=http://NAME:PASSWORD@",
        ),
        (
            forbids.url(),
            forbids.address(),
            false,
            "does not connect to it",
            "ask the proxy's operator to allow",
        ),
        (gone.0, gone.1, true, "does not answer", "correct https_proxy, or go around it: no_proxy="),
        (portal.url(), portal.address(), false, "cannot be reached: through the proxy", "no_proxy="),
    ] {
        // Before Keystone, and before the identity provider alone.
        let mut keystone = cloud(&front.port(), "lab-idp", "cli");
        keystone["proxy"] = proxy.as_str().into();
        let mut provider = cloud(&front.port(), "lab-idp", "cli");
        provider["sign_in"]["oidc"]["proxy"] = proxy.as_str().into();
        let mut over_http = json!({"name": "demo", "auth_url": plain.url(), "protocol": "openid"});
        over_http["proxy"] = proxy.as_str().into();
        let clouds = [Some(keystone), Some(provider), Some(over_http).filter(|_| plain_too)];
        for cloud in clouds.into_iter().flatten() {
            let problem = agent.api().login(&cloud).json;
            let said = format!("{} {}", problem["detail"], problem["remedy"]);
            assert!(said.contains(why) && said.contains(wanted), "{said}");
            assert!(said.contains(&address) && !said.contains("canary"), "{said}");
        }
    }
    // Without TLS the proxy's own page comes back as if Keystone had sent it.
    let mut demo = json!({"name": "demo", "auth_url": plain.url(), "protocol": "openid"});
    demo["proxy"] = portal.url().into();
    let answer = agent.api().login(&demo);
    let said = answer.problem("not-keystone")["detail"].as_str().unwrap();
    assert!(said.contains(&format!("or the proxy {} answered in its place", portal.address())), "{said}");
}
