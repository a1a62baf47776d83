//! An agent whose program is built anew, in the hands of a Go program alone: nobody runs `ksb`.

use std::time::Duration;

use serde_json::json;

use crate::real::front::Front;
use crate::real::program::run;
use crate::real::tofu::Workspace;
use crate::real::wait;
use crate::support::sandbox::{KSB, end_of};
use crate::support::spawn;
use crate::support::tool::Tool;

const WHO: &str = r#"
provider "openstack" {}
data "openstack_identity_auth_scope_v3" "who" {
  name = "who"
}
output "who" {
  value = data.openstack_identity_auth_scope_v3.who.user_name
}
"#;

#[test]
fn a_rebuild_of_the_same_version_takes_over_while_tofu_works() {
    let front = Front::free();
    let program = front.sandbox.path("program/ksb");
    std::fs::create_dir(front.sandbox.path("program")).unwrap();
    spawn::copy(KSB, &program);
    let mut ensure = front.sandbox.command(&program);
    end_of(spawn::start(ensure.args(["agent", "start"]))).ok();
    front.ksb(&["login"]).ok();
    let tool = Tool::of(&front.lease("demo", &json!({})));
    let workspace = Workspace::new(&front, "rebuilt", WHO);
    let plan = || {
        let mut tofu = workspace.tofu(&["plan", "-no-color", "-input=false"]);
        tofu.env_remove("OS_CLOUD")
            .env("OS_AUTH_URL", format!("http://{}/v3", tool.facade))
            .env("OS_APPLICATION_CREDENTIAL_ID", &tool.id)
            .env("OS_APPLICATION_CREDENTIAL_SECRET", &tool.secret);
        assert!(run(tofu).ok().stdout.contains(&front.user()));
    };
    let processes = || front.sandbox.agent_log().matches(" ready ").count();
    plan();
    assert_eq!(processes(), 1);
    let new = front.sandbox.path("program/new");
    spawn::copy(KSB, &new);
    std::fs::rename(new, &program).unwrap();
    wait::every(Duration::from_secs(1), wait::LIMIT, || {
        plan();
        (processes() == 2).then_some(())
    })
    .expect("the new program");
    plan();
    assert_eq!((front.browsers_opened(), front.counts().logins), (1, 1));
}
