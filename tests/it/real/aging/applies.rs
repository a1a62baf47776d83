//! Programs that run for longer than a token lives, three times over: tokens for a minute, work for more than three.

use std::time::Duration;

use crate::real::front::{Front, Log, stack};
use crate::real::program::Program;
use crate::real::tofu::{APPLY, DESTROY, Workspace};
use crate::support::sandbox::Outcome;

/// One object after the other, with more than a token's life between them.
const SLOW: &str = r#"
provider "openstack" {
PROVIDER
}
resource "openstack_objectstorage_container_v1" "all" {
  name = "NAME"
}
resource "terraform_data" "first" {
  depends_on = [openstack_objectstorage_container_v1.all]
  provisioner "local-exec" {
    command = "sleep 62"
  }
}
resource "openstack_objectstorage_object_v1" "first" {
  depends_on     = [terraform_data.first]
  container_name = openstack_objectstorage_container_v1.all.name
  name           = "first"
  content        = "after a minute"
}
"#;

/// The same again after another minute, and another.
const SLOWER: &str = r#"
resource "terraform_data" "second" {
  depends_on = [openstack_objectstorage_object_v1.first]
  provisioner "local-exec" {
    command = "sleep 62"
  }
}
resource "openstack_objectstorage_object_v1" "second" {
  depends_on     = [terraform_data.second]
  count          = 8
  container_name = openstack_objectstorage_container_v1.all.name
  name           = "second-${count.index}"
  content        = "after two"
}
resource "terraform_data" "third" {
  depends_on = [openstack_objectstorage_object_v1.second]
  provisioner "local-exec" {
    command = "sleep 62"
  }
}
resource "openstack_objectstorage_object_v1" "third" {
  depends_on     = [terraform_data.third]
  container_name = openstack_objectstorage_container_v1.all.name
  name           = "third"
  content        = "after three"
}
"#;

const LIMIT: Duration = Duration::from_secs(400);

/// All at once, because they mostly wait: an apply with a session that renews itself, one with a lease that needs none,
/// programs on both gophercloud, and the control: the same apply with a token alone.
#[test]
fn applies_and_programs_outlive_three_tokens_and_nobody_is_asked() {
    let front = Front::free();
    let log = Log::short();
    let demo = "project_name: demo, project_domain_name: lab";
    let oidc = format!(
        "discovery_endpoint: {}/.well-known/openid-configuration, client_id: cli, {demo}",
        stack("ISSUER")
    );
    front.clouds(&[front.entry_at(&log.url, "renewed", &oidc), front.entry_at(&log.url, "websso", demo)]);
    let workspace = |name: &str, provider: &str, configuration: &str| {
        let own = format!("{name}-{}", front.user());
        Workspace::new(&front, name, &configuration.replace("NAME", &own).replace("PROVIDER", provider))
    };
    let slow = [SLOW, SLOWER].concat();
    let renewed = workspace("renewed", "  cloud = \"renewed\"", &slow);
    let unattended = workspace("unattended", "  cloud = \"websso\"", &slow);
    let control = workspace("control", "", SLOW);

    front.token(&["renewed"]);
    front.browsers.ended();
    let token = front.token(&["websso"]);
    front.browsers.ended();
    let alone = ["websso", "--unattended", "10m"];
    let applies = [
        Program::start(renewed.with_leases(&["renewed"], &APPLY)),
        Program::start(unattended.with_leases(&alone, &APPLY)),
    ];
    let programs: Vec<_> = [("renewed", "GOPHERCLOUD_V1", None), ("websso", "GOPHERCLOUD_V2", Some("10m"))]
        .into_iter()
        .map(|(cloud, program, unattended)| {
            let mut command = front.sandbox.ksb(&["exec", cloud]);
            command.args(unattended.iter().flat_map(|time| ["--unattended", time])).arg("--");
            command.arg(stack(program)).args(["--every", "10s", "--for", "190s", "--workers", "2"]);
            Program::start(command)
        })
        .collect();
    let mut with_token = control.tofu(&APPLY);
    with_token.env_remove("OS_CLOUD").envs([
        ("OS_AUTH_URL", log.url.as_str()),
        ("OS_TOKEN", &token),
        ("OS_PROJECT_NAME", "demo"),
        ("OS_PROJECT_DOMAIN_NAME", "lab"),
        ("OS_REGION_NAME", "RegionOne"),
        ("OS_CACERT", &stack("CA")),
    ]);
    let refused = Program::start(with_token).ends_within(LIMIT);
    assert_ne!(refused.code, Some(0), "{}", refused.stdout);
    assert!(refused.stderr.contains("401"), "{}", refused.stderr);

    let said = |outcome: Outcome| {
        let outcome = outcome.ok();
        assert!(!outcome.stderr.contains("sign in"), "{}", outcome.stderr);
        outcome.stdout
    };
    for apply in applies {
        let stdout = said(apply.ends_within(LIMIT));
        assert!(stdout.contains("14 added"), "{stdout}");
    }
    for program in programs {
        let stdout = said(program.ends_within(LIMIT));
        assert!(stdout.contains("\"rounds\":"), "{stdout}");
    }
    assert_eq!(front.browsers_opened(), 2, "one for each cloud, before all of it");
    renewed.run(&["renewed"], &DESTROY).ok();
}
