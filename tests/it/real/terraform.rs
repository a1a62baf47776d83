//! Terraform's provider, unmodified, by `ksb exec`: plan, apply and destroy of what users may manage.

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use super::front::{Counts, Front, stack};
use super::limiter::Limiter;
use super::program::Program;
use super::tofu::{APPLY, DESTROY, Workspace};
use super::{wait, workload};
use crate::support::tool::Tool;

/// Objects, application credentials and EC2 credentials, 32 at once.
const MUCH: &str = r#"
provider "openstack" {
  cloud = "demo"
}
resource "openstack_objectstorage_container_v1" "all" {
  name = "NAME"
}
resource "openstack_objectstorage_object_v1" "one" {
  count          = 24
  container_name = openstack_objectstorage_container_v1.all.name
  name           = "object-${count.index}"
  content        = "content of ${count.index}"
}
resource "openstack_identity_application_credential_v3" "one" {
  count = 8
  name  = "NAME-${count.index}"
}
resource "openstack_identity_ec2_credential_v3" "one" {
  count = 4
}
data "openstack_identity_auth_scope_v3" "mine" {
  name = "mine"
}
output "project" {
  value = data.openstack_identity_auth_scope_v3.mine.project_name
}
"#;

#[test]
fn one_sign_in_serves_plan_apply_and_destroy_in_parallel() {
    let front = Front::free();
    let workspace = Workspace::new(&front, "much", &MUCH.replace("NAME", &format!("much-{}", front.user())));
    let plan = workspace.run(&["demo"], &["plan", "-no-color", "-input=false"]).ok();
    assert!(plan.stdout.contains("Plan: 37 to add"), "{}", plan.stdout);
    let applied = workspace.run(&["demo"], &APPLY).ok();
    assert!(
        applied.stdout.contains("37 added") && applied.stdout.contains("project = \"demo\""),
        "{}",
        applied.stdout
    );
    let again = workspace.run(&["demo"], &["plan", "-no-color", "-input=false", "-detailed-exitcode"]).ok();
    assert!(again.stdout.contains("No changes"), "{}", again.stdout);
    workspace.run(&["demo"], &DESTROY).ok();
    // One token for each command, and one browser for all of them.
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 4 }, "{:#?}", front.requests());
    let leases = || front.ksb(&["lease", "list"]).ok().stdout;
    wait::until("their leases to be gone", || (!leases().contains("demo")).then_some(()));
}

#[test]
fn two_clouds_in_one_apply_each_have_their_own_lease() {
    let front = Front::free();
    front.clouds(&[front.entry("demo", "demo"), front.entry("staging", "staging")]);
    let two = |name: &str| {
        format!(
            r#"
provider "openstack" {{
  alias = "{name}"
  cloud = "{name}"
}}
data "openstack_identity_auth_scope_v3" "{name}" {{
  provider = openstack.{name}
  name     = "{name}"
}}
output "{name}" {{
  value = data.openstack_identity_auth_scope_v3.{name}.project_name
}}
"#
        )
    };
    let workspace = Workspace::new(&front, "two", &[two("demo"), two("staging")].concat());
    let applied = workspace.run(&["demo", "staging"], &APPLY).ok();
    for line in ["demo = \"demo\"", "staging = \"staging\""] {
        assert!(applied.stdout.contains(line), "{}", applied.stdout);
    }
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 2 });
}

/// The container waits for nobody, the objects for a file.
const REVOKED: &str = r#"
provider "openstack" {
  cloud = "demo"
}
resource "openstack_objectstorage_container_v1" "all" {
  name = "NAME"
}
resource "terraform_data" "wait" {
  depends_on = [openstack_objectstorage_container_v1.all]
  provisioner "local-exec" {
    command = "touch waits; until [ -e go ]; do sleep 0.1; done"
  }
}
resource "openstack_objectstorage_object_v1" "one" {
  depends_on     = [terraform_data.wait]
  count          = 24
  container_name = openstack_objectstorage_container_v1.all.name
  name           = "object-${count.index}"
  content        = "content of ${count.index}"
}
"#;

#[test]
fn a_token_that_is_revoked_in_the_middle_of_an_apply_costs_one_exchange_for_all_workers() {
    let front = Front::free();
    // Where the object store asks Keystone about each token.
    let uncached = front.entry("demo", "demo").replace("RegionOne", &stack("UNCACHED_REGION"));
    front.clouds(&[uncached]);
    let workspace =
        Workspace::new(&front, "revoked", &REVOKED.replace("NAME", &format!("revoked-{}", front.user())));
    let apply = Program::start(workspace.with_leases(&["demo"], &APPLY));
    wait::until("the apply to be half done", || workspace.path("waits").exists().then_some(()));
    let token = tool(&front).token();
    let before = front.counts();
    assert_eq!(before.exchanges, 1, "it is the token that tofu has");
    // We have just had Keystone stand by it, which the facade believes for five seconds on any new connection.
    wait::every(Duration::from_secs(1), Duration::from_secs(6), || None::<()>);
    front.keystone.admin().revoke(&token);
    fs::write(workspace.path("go"), "").unwrap();
    let applied = apply.ends().ok();
    assert!(applied.stdout.contains("26 added"), "{}", applied.stdout);
    assert_eq!(front.counts(), Counts { exchanges: 2, ..before });
    workspace.run(&["demo"], &DESTROY).ok();
}

const MINE: &str = r#"
data "openstack_identity_auth_scope_v3" "mine" {
  name = "mine"
}
"#;

const WAITS: &str = r#"
resource "terraform_data" "wait" {
  provisioner "local-exec" {
    command = "touch waits; until [ -e go ]; do sleep 0.1; done"
  }
}
"#;

#[test]
fn an_apply_that_is_cancelled_is_interrupted_once() {
    let front = Front::free();
    let workspace = Workspace::new(&front, "cancelled", WAITS);
    for exec in [&["demo"][..], &["--ephemeral", "demo"]] {
        for signal in [Signal::INT, Signal::TERM] {
            for send in [kill_process, kill_process_group] {
                let mut apply = workspace.with_leases(exec, &APPLY);
                apply.process_group(0);
                let apply = Program::start(apply);
                wait::until("the apply to be under way", || workspace.path("waits").exists().then_some(()));
                send(Pid::from_raw(apply.pid().cast_signed()).unwrap(), signal).unwrap();
                let cancelled = apply.ends();
                let said = format!("{}{}", cancelled.stdout, cancelled.stderr);
                assert!(said.contains("Gracefully shutting down"), "{exec:?} {signal:?}: {said}");
                assert!(!said.contains("Two interrupts"), "{exec:?} {signal:?}: {said}");
                fs::remove_file(workspace.path("waits")).unwrap();
            }
        }
    }
}

/// The provider waits as it would for Keystone itself.
#[test]
fn a_keystone_that_has_had_enough_is_waited_for_by_the_provider() {
    let mut front = Front::free();
    let limiter = Limiter::before(&front);
    let scope = "sign_in: workload, token_env: LAB_ID_TOKEN, project_name: demo, project_domain_name: lab";
    front.clouds(&[front.entry_at(&limiter.auth_url(), "demo", scope)]);
    front.sandbox.set("LAB_ID_TOKEN", workload::bearer(&front.user()));
    front.ksb(&["login"]).ok();
    let workspace = Workspace::new(&front, "limited", "");
    for (retries, refusals, is_applied) in [(3, 2, true), (0, 8, false)] {
        let provider =
            format!("provider \"openstack\" {{\n  cloud = \"demo\"\n  max_retries = {retries}\n}}\n");
        workspace.write(&format!("{provider}{MINE}"));
        front.ksb(&["refresh"]).ok();
        limiter.refuse(refusals);
        let applied = workspace.run(&["demo"], &APPLY);
        let said = format!("{}{}", applied.stdout, applied.stderr);
        assert_eq!(applied.code == Some(0), is_applied, "{retries}: {said}");
        assert!(limiter.left() < refusals, "it was asked");
        assert!(is_applied || said.contains("429"), "{said}");
    }
}

/// Who has the lease of the `ksb exec` that runs now: any process of the user's could read that.
fn tool(front: &Front) -> Tool {
    let beside = front.sandbox.paths().socket.parent().unwrap().to_owned();
    let folders = fs::read_dir(beside).unwrap().map(|entry| entry.unwrap().path());
    let folder =
        folders.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("exec-"));
    let text = fs::read_to_string(folder.unwrap().join("clouds.yaml")).unwrap();
    let json: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let auth = &json["clouds"]["demo"]["auth"];
    let word = |name: &str| auth[name].as_str().unwrap().to_owned();
    Tool {
        id: word("application_credential_id"),
        secret: word("application_credential_secret"),
        handle: String::new(),
        facade: word("auth_url").strip_prefix("http://").unwrap().replace("/v3", "").parse().unwrap(),
    }
}

#[test]
fn a_confined_lease_applies_what_its_project_allows_and_keystone_refuses_the_rest() {
    let front = Front::free();
    let objects = MUCH.split("resource \"openstack_identity_application").next().unwrap();
    // Others may have left some: tests that were killed, for one.
    let credentials = || front.answer(&["application", "credential", "list", "-f", "value", "-c", "Name"]);
    let before = credentials();
    let name = format!("confined-{}", front.user());
    let workspace = Workspace::new(&front, "confined", &objects.replace("NAME", &name));
    let exec = ["demo", "--confined"];
    workspace.run(&exec, &APPLY).ok();
    workspace.run(&exec, &DESTROY).ok();
    workspace.write(
        "provider \"openstack\" {\n  cloud = \"demo\"\n}\n\
         resource \"openstack_identity_application_credential_v3\" \"one\" {\n  name = \"more\"\n}\n",
    );
    let refused = workspace.run(&exec, &APPLY);
    assert!(
        refused.code != Some(0) && refused.stderr.contains("403"),
        "{}{}",
        refused.stdout,
        refused.stderr
    );
    // A Keystone that is slow is not waited for by the command that ends.
    wait::until("nothing of ours to be left", || (credentials() == before).then_some(()));
}

/// Terraform itself, which comes from no package registry.
#[test]
#[ignore = "needs `terraform` on the PATH, which no registry has: by hand"]
fn a_terraform_on_the_path_is_as_good() {
    let paths = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&paths).map(|path| path.join("terraform")).find(|file| file.exists());
    let terraform = found.expect("terraform on the PATH");
    let front = Front::free();
    let data = "data \"openstack_identity_auth_scope_v3\" \"mine\" {\n  name = \"mine\"\n}\n";
    let configuration = format!("provider \"openstack\" {{\n  cloud = \"demo\"\n}}\n{data}");
    let own = Workspace::for_program(terraform.to_str().unwrap(), &front, "own", &configuration);
    own.run(&["demo"], &APPLY).ok();
}
