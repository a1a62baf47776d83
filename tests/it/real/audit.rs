//! The audit log names the real programs, and the requests that Keystone's own log has.

use std::fs;

use serde_json::{Value, json};

use super::front::Front;
use super::tofu::Workspace;
use super::wait;
use crate::support::sandbox::KSB;

fn lines(front: &Front) -> Vec<Value> {
    let text = front.ksb(&["audit", "--json"]).ok().stdout;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first line of a token that a program of this name was given.
#[track_caller]
fn given(front: &Front, name: &str) -> Value {
    let all = lines(front);
    let is_it = |line: &&Value| {
        line["action"] == "token" && line["outcome"] == "done" && line["program"]["name"] == name
    };
    all.iter().find(is_it).unwrap_or_else(|| panic!("no token for {name}: {all:#?}")).clone()
}

fn parents(line: &Value) -> Vec<&str> {
    line["program"]["parents"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn openstack_curl_and_tofu_are_named_with_the_requests_that_made_their_tokens() {
    let front = Front::free();
    front.answer(&["token", "issue", "-f", "value", "-c", "project_id"]);
    let curl = "curl --silent --fail --json \"{\\\"auth\\\": {\\\"identity\\\": {\\\"methods\\\": [\\\"application_credential\\\"], \
                \\\"application_credential\\\": {\\\"id\\\": \\\"$OS_APPLICATION_CREDENTIAL_ID\\\", \
                \\\"secret\\\": \\\"$OS_APPLICATION_CREDENTIAL_SECRET\\\"}}}}\" $OS_AUTH_URL/auth/tokens; exit $?";
    front.ksb(&["exec", "demo", "--", "sh", "-c", curl]).ok();
    let scope = "data \"openstack_identity_auth_scope_v3\" \"me\" { name = \"me\" }\n";
    let workspace =
        Workspace::new(&front, "audit", &format!("provider \"openstack\" {{ cloud = \"demo\" }}\n{scope}"));
    workspace.run(&["demo"], &["plan", "-no-color", "-input=false"]).ok();

    let openstack = given(&front, "openstack");
    let interpreter = openstack["program"]["executable"].as_str().unwrap();
    assert!(interpreter.contains("/python3"), "{interpreter}");
    assert_eq!((&openstack["lease"], &openstack["user"]), (&json!(null), &json!(front.user())));
    let curl = given(&front, "curl");
    assert!(curl["program"]["executable"].as_str().unwrap().ends_with("/curl"), "{curl}");
    assert_eq!(parents(&curl)[0], "sh", "ksb has become it");
    let provider = given(&front, "terraform-provi");
    assert!(provider["program"]["executable"].as_str().unwrap().contains("terraform-provider-openstack"));
    assert_eq!(parents(&provider)[0], "tofu");

    let at_keystone = front.all_requests();
    for line in [&openstack, &curl, &provider] {
        assert_eq!(line["cloud"], "demo");
        let id = line["request_id"].as_str().unwrap();
        let request = at_keystone.iter().find(|request| request.id == id).unwrap();
        assert_eq!((&*request.method, request.status), ("POST", 201), "{request:?}");
        assert!(request.path.ends_with("/v3/auth/tokens"), "{request:?}");
    }
    // Each of the two has a lease of its own, made by `ksb` and ended with it.
    for line in [&curl, &provider] {
        let of_it = |action: &str| -> Value {
            // A slow Keystone is not waited for by the command that ends: the agent goes on.
            wait::until(action, || {
                let mut all = lines(&front).into_iter();
                all.find(|other| other["action"] == action && other["lease"] == line["lease"])
            })
        };
        assert_eq!(of_it("lease")["program"]["executable"], fs::canonicalize(KSB).unwrap().to_str().unwrap());
        assert_eq!(of_it("lease-end")["outcome"], "done");
    }
    let shown = front.ksb(&["audit"]).ok().stdout;
    assert!(
        shown.contains(&format!("as {}, by lease {}", front.user(), curl["lease"].as_str().unwrap())),
        "{shown}"
    );
}
