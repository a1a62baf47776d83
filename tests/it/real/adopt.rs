//! Promise 9: a shared clouds.yaml that nobody may write moves to the broker, and back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::front::{Counts, Front, stack};

#[test]
fn a_shared_clouds_yaml_moves_to_the_broker_and_back() {
    let mut front = Front::free();
    let entry = |name: &str| front.entry(name, name).replace("v3broker", "v3websso");
    let shared = format!("# by the operators\nclouds:\n{}{}", entry("demo"), entry("staging"));
    let (folder, file) = (front.sandbox.path("shared"), front.sandbox.path("shared/clouds.yaml"));
    fs::create_dir(&folder).unwrap();
    fs::write(&file, &shared).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    front.sandbox.set("OS_CLIENT_CONFIG_FILE", &file);
    let tools = std::path::Path::new(&stack("PYTHON")).parent().unwrap().display().to_string();
    front.sandbox.set("PATH", format!("{tools}:/usr/bin:/bin"));
    fs::remove_file(front.sandbox.path("home/.config/openstack/clouds.yaml")).unwrap();
    let auth_type = || front.answer(&["configuration", "show", "-f", "value", "-c", "auth_type"]);

    let said = front.ksb(&["clouds", "adopt", "--all"]).ok();
    assert!(said.stdout.contains(&format!("{} is not touched", file.display())), "{said:?}");
    assert!(said.stdout.contains("Next: ksb login demo\nUndo: ksb clouds adopt --all --undo\n"), "{said:?}");
    assert!(said.stdout.contains("has the plugin"), "{said:?}");
    let issue =
        |cloud: &str| front.answer(&["--os-cloud", cloud, "token", "issue", "-f", "value", "-c", "id"]);
    let tokens = ["demo", "staging"].map(issue);
    for (token, project) in tokens.iter().zip(["demo", "staging"]) {
        assert_eq!(front.keystone.look_at(token).unwrap()["project"]["name"], project);
        assert_eq!(front.token(&[project]), *token, "`ksb` and `openstack` are one");
    }
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 2 }, "{:?}", front.all_requests());

    front.ksb(&["clouds", "adopt", "--all", "--undo"]).ok();
    assert_eq!(auth_type(), "v3websso");
    assert!(!front.sandbox.path("home/.config/openstack/secure.yaml").exists());
    assert_eq!(fs::read_to_string(&file).unwrap(), shared);
    // Such entries work with `ksb` as they stand.
    assert_eq!(front.token(&["staging"]), tokens[1]);
}

#[test]
fn an_entry_of_keystoneauths_own_code_flow_moves_to_the_broker_and_back() {
    let front = Front::free();
    // As keystoneauth's documentation has it: endpoints by discovery, the code pasted by hand.
    let entry = format!(
        "  demo:\n    auth_type: v3oidcauthcode\n    auth:\n      auth_url: {}\n      identity_provider: lab-idp\n      \
         protocol: openid\n      discovery_endpoint: {}/.well-known/openid-configuration\n      client_id: cli\n      \
         openid_scope: openid profile\n      redirect_uri: urn:ietf:wg:oauth:2.0:oob\n      project_name: demo\n      \
         project_domain_name: lab\n    cacert: {}\n",
        front.auth_url(),
        stack("ISSUER"),
        stack("CA"),
    );
    front.clouds(&[entry]);
    // It works with `ksb` as it stands; `openstack` is served from the same sign-in once it is moved.
    let token = front.token(&[]);
    assert_eq!(front.keystone.look_at(&token).unwrap()["user"]["name"], front.user());
    front.ksb(&["clouds", "adopt", "demo"]).ok();
    assert_eq!(front.answer(&["token", "issue", "-f", "value", "-c", "id"]), token);
    assert_eq!(front.browsers_opened(), 1);
    front.ksb(&["clouds", "adopt", "demo", "--undo"]).ok();
    let auth_type = front.answer(&["configuration", "show", "-f", "value", "-c", "auth_type"]);
    assert_eq!(auth_type, "v3oidcauthcode");
}
