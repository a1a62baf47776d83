//! What programs that know nothing of `ksb` read in the files that it writes, at a double for the cloud.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::front::stack;
use crate::adopt;
use crate::clouds_file::{self, write};
use crate::exec::{HOSTILE, under_a_hostile_name};
use crate::support::sandbox::Outcome;
use crate::support::spawn;

/// What a program prints that ends well.
#[track_caller]
fn output(command: &mut Command) -> String {
    let outcome: Outcome = spawn::output(command).into();
    outcome.ok().stdout
}

/// What openstacksdk and `openstack` make of the entry, and what they get by it, with no plugin.
#[test]
fn python_uses_the_entry_without_the_plugin() {
    let python = stack("PLAIN_PYTHON");
    let person = clouds_file::Person::new();
    person.desk.run_and_sign_in(&["login"], "alice").ok();
    person.ksb(&["clouds", "add"]).ok();
    let script = "import json, openstack\n\
                  config = openstack.config.OpenStackConfig().get_one('demo-ksb')\n\
                  session = config.get_session()\n\
                  print(json.dumps([config.config['auth_type'], sorted(config.config['auth']), \
                  session.get_token(), session.get_project_id(), type(session.auth).__module__]))";
    let sdk = || {
        let mut command = person.desk.sandbox.command(&python);
        command.args(["-c", script]);
        command
    };
    let said: Value = serde_json::from_str(&output(&mut sdk())).unwrap();
    assert_eq!(said[0], "v3applicationcredential");
    assert_eq!(said[1], json!(["application_credential_id", "application_credential_secret", "auth_url"]));
    assert!(person.desk.keystone.accepts(said[2].as_str().unwrap()), "{said}");
    assert!(said[4].as_str().unwrap().starts_with("keystoneauth1."), "{said}");

    let openstack = Path::new(&python).with_file_name("openstack");
    let mut command = person.desk.sandbox.command(openstack);
    let token = output(command.args(["--os-cloud", "demo-ksb", "token", "issue", "-f", "value", "-c", "id"]));
    assert!(person.desk.keystone.accepts(token.trim()), "{token}");

    person.ksb(&["clouds", "remove", "demo-ksb"]).ok();
    assert!(!spawn::output(&mut sdk()).status.success());
}

/// OpenTofu with the provider for OpenStack: two entries of the file in one run.
#[test]
fn tofu_uses_two_entries_in_one_run() {
    let mut person = clouds_file::Person::new();
    person.desk.run_and_sign_in(&["login"], "alice").ok();
    person.ksb(&["clouds", "add", "--each-project"]).ok();
    // The provider asks the system for its home, not HOME; but it also looks where it runs.
    let folder = person.clouds.parent().unwrap();
    let provider = |alias: &str, project: &str| {
        format!(
            "provider \"openstack\" {{\n  alias = \"{alias}\"\n  cloud = \"demo-ksb-{project}\"\n}}\n\
             data \"openstack_identity_auth_scope_v3\" \"{alias}\" {{\n  provider = openstack.{alias}\n  name = \"{alias}\"\n}}\n\
             output \"{alias}\" {{\n  value = data.openstack_identity_auth_scope_v3.{alias}.project_name\n}}\n"
        )
    };
    let text = "terraform {\n  required_providers {\n    openstack = { source = \"terraform-provider-openstack/openstack\" }\n  }\n}\n"
        .to_owned()
        + &provider("one", "demo")
        + &provider("two", "staging");
    write(&folder.join("main.tf"), &text);
    person.desk.sandbox.set("TF_CLI_CONFIG_FILE", stack("TOFU_CONFIG"));
    let run = |args: &[&str]| {
        let mut command = person.desk.sandbox.command(stack("TOFU"));
        output(command.current_dir(folder).args(args))
    };
    run(&["init", "-no-color"]);
    run(&["apply", "-no-color", "-auto-approve"]);
    let said: Value = serde_json::from_str(&run(&["output", "-json"])).unwrap();
    assert_eq!([&said["one"]["value"], &said["two"]["value"]], ["demo", "staging"]);
}

/// What openstacksdk itself makes of the two files.
#[test]
fn the_sdk_lays_secure_yaml_over_clouds_yaml() {
    let python = stack("PYTHON");
    for secure in [None, Some("clouds:\r\n  demo:   # mine\r\n    auth:\r\n      username: alice\r\n")] {
        let person = secure.map_or_else(adopt::Person::new, adopt::Person::with_secure);
        let entry = |name: &str| -> Value {
            let script = "import json, sys, openstack.config as c\n\
                          print(json.dumps(c.OpenStackConfig().get_one(sys.argv[1], validate=False).config))";
            let output = spawn::output(person.sandbox.command(&python).args(["-c", script, name]));
            serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
        };
        let before = entry("demo");
        assert_eq!(before["auth_type"], "v3websso");
        person.ksb(&["clouds", "adopt", "demo"]).ok();
        let mut after = entry("demo");
        assert_eq!(after["auth_type"], "v3broker");
        after["auth_type"] = "v3websso".into();
        assert_eq!(after, before, "nothing but the auth_type is another");
        assert_eq!(entry("second")["auth_type"], "v3websso");
        person.ksb(&["clouds", "adopt", "demo", "--undo"]).ok();
        assert_eq!(entry("demo"), before);
    }
}

#[test]
fn pyyaml_reads_the_hostile_names_and_values_of_a_commands_own_clouds_yaml() {
    let (desk, running) = under_a_hostile_name();
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let mut python = desk.sandbox.command(stack("PLAIN_PYTHON"));
    let said: Value =
        serde_json::from_str(&output(python.args(["-c", script]).arg(running.clouds()))).unwrap();
    let names: Vec<_> = said["clouds"].as_object().unwrap().keys().collect();
    assert_eq!(names, [HOSTILE]);
    let entry = &said["clouds"][HOSTILE];
    assert_eq!(entry["compute_api_version"], format!("{HOSTILE}\0"));
    assert_eq!(entry["auth"]["auth_url"], running.get("OS_AUTH_URL"));
    running.end().ok();
}
