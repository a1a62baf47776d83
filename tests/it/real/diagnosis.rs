//! What operators and entries get wrong, each misconfigured on the real stack, and what `ksb` says of it.

use std::sync::Arc;

use keystone_broker::platform::clock::SystemClock;

use super::elsewhere::{cloud, signs_in};
use super::front::stack;
use crate::support::agent::Agent;

const PATH: &str = "/v3/OS-FEDERATION/identity_providers/lab-idp/protocols/openid/auth";

#[test]
fn a_bearer_that_keystone_does_not_take_is_told_apart() {
    let agent = Agent::start(Arc::new(SystemClock));
    let front = |name: &str| stack(&format!("FRONT_{name}"));
    for (port, idp, client, why, wanted) in [
        (
            front("WEBSSO_ONLY"),
            "lab-idp",
            "cli",
            "serves browsers alone: WebSSO works there, a token does not",
            format!("take bearer tokens of client cli at {PATH}"),
        ),
        (
            front("UNPROTECTED"),
            "lab-idp",
            "cli",
            "nothing before Keystone looks at tokens there",
            format!("take bearer tokens of client cli at {PATH}"),
        ),
        (
            front("AUDIENCE"),
            "lab-idp",
            "unmapped",
            "its audience or another claim is not what the cloud wants; the token is for nobody, asked for by unmapped",
            format!(
                "take tokens of client unmapped at {PATH}, or to have the identity provider add the audience"
            ),
        ),
        (
            front("CLOSED"),
            "lab-idp",
            "cli",
            "the web server before Keystone answered 403",
            format!("take bearer tokens of client cli at {PATH}"),
        ),
        (
            front("NO_INTROSPECTION"),
            "lab-idp",
            "cli",
            "the cloud cannot verify it",
            format!("have tokens of {} verified at {PATH}, by its keys or by introspection", stack("ISSUER")),
        ),
        (
            front("INTROSPECTION_REFUSED"),
            "lab-idp",
            "cli",
            "asked the identity provider about it and got no yes",
            format!("set up token introspection for {PATH}"),
        ),
        (
            front("FOREIGN_ISSUER"),
            "lab-idp",
            "cli",
            "the cloud cannot verify it",
            format!("have tokens of {} verified", stack("ISSUER")),
        ),
        (
            "5000".into(),
            "moved-idp",
            "cli",
            "it does not know its issuer here: 403",
            format!("whether {} is among the remote ids of identity provider moved-idp", stack("ISSUER")),
        ),
        (
            "5000".into(),
            "strict-idp",
            "cli",
            "it is genuine, but no rule of Keystone's mapping fits the person: 401",
            "which claims the mapping behind".into(),
        ),
        (
            "5000".into(),
            "no-such-idp",
            "cli",
            "Could not find Identity Provider: no-such-idp",
            "correct identity_provider and protocol of the entry: ksb cloud show demo".into(),
        ),
    ] {
        let case = format!("{idp} at {port}, client {client}");
        let answer = signs_in(agent.api(), &cloud(&port, idp, client), "user0");
        let problem = answer.problem("bearer-refused");
        let (detail, remedy) = (problem["detail"].as_str().unwrap(), problem["remedy"].as_str().unwrap());
        assert!(detail.contains(why), "{case}: {detail}");
        assert!(remedy.contains(&wanted), "{case}: {remedy}");
        assert_eq!(problem["cloud"], "demo", "{case}");
        let ways_out = ["sign_in: websso", "ksb cloud show demo"];
        assert!(ways_out.iter().any(|way| remedy.contains(way)), "{case}: {remedy}");
    }
    // None of it is true of the same people and clients where all is in order.
    assert_eq!(signs_in(agent.api(), &cloud(&front("AUDIENCE"), "lab-idp", "cli"), "user0").status, 204);
}
