//! Promise 8: the SDK, Ansible, and programs on the oldest and the newest keystoneauth1.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::front::{Counts, Front, stack};
use super::program::{run, run_all};

const PLAYBOOK: &str = "\
- hosts: all
  gather_facts: false
  vars: {ansible_connection: local, ansible_python_interpreter: '{{ ansible_playbook_python }}'}
  tasks:
    - openstack.cloud.auth: {cloud: '{{ cloud }}'}
      register: signed_in
";

const SDK: &str = "\
import openstack
for cloud in 'demo', 'staging':
    connection = openstack.connect(cloud=cloud)
    projects = connection.identity.user_projects(connection.current_user_id)
    print(connection.current_project.name, *sorted(project.name for project in projects))
";

/// What any program does that uses keystoneauth1 and nothing else of OpenStack.
const KEYSTONEAUTH: &str = "\
import sys
from keystoneauth1 import loading, session
auth_url, port, ca, project = sys.argv[1:]
auth = loading.get_plugin_loader('v3broker').load_from_options(
    auth_url=auth_url, identity_provider='lab-idp', protocol='openid', redirect_port=port,
    project_name=project, project_domain_name='lab')
keystone = session.Session(auth=auth, verify=ca)
projects = keystone.get('/auth/projects', endpoint_filter={'service_type': 'identity', 'version': (3, 0)})
print(keystone.get_token(), len(projects.json()['projects']))
";

/// The collection openstack.cloud 2.5.0 reads `openstack.version`, which openstacksdk 4.22 does not import any more.
pub const SITE: &str = "\
import contextlib
with contextlib.suppress(ImportError):
    import openstack.version
";

#[test]
fn ansible_with_twenty_forks_the_sdk_and_every_keystoneauth_share_one_sign_in() {
    let mut front = Front::free();
    front.clouds(&["demo", "staging"].map(|project| front.entry(project, project)));
    // As if the plugin were installed in each environment: those are shared, and pip takes longer than the test.
    let plugin = front.sandbox.path("plugin");
    install(&plugin);
    front.sandbox.set("PYTHONPATH", &plugin);

    // Cold: twenty processes at once ask, and none of them is where the user is.
    let host = |number| format!("host{number} cloud={}\n", if number < 10 { "demo" } else { "staging" });
    fs::write(front.sandbox.path("hosts"), (0..20).map(host).collect::<Vec<_>>().concat()).unwrap();
    fs::write(front.sandbox.path("playbook.yaml"), PLAYBOOK).unwrap();
    let mut ansible = front.sandbox.command(venv("ansible").join("bin/ansible-playbook"));
    ansible.args(["--forks", "20", "--inventory", "../hosts", "../playbook.yaml"]);
    ansible.env("ANSIBLE_STDOUT_CALLBACK", "ansible.posix.json").env("ANSIBLE_DEPRECATION_WARNINGS", "false");
    let played: Value = serde_json::from_str(&run(ansible).ok().stdout).unwrap();
    let answers = played["plays"][0]["tasks"][0]["hosts"].as_object().unwrap();
    let (demo, staging) = (front.token(&["demo"]), front.token(&["staging"]));
    assert_eq!(answers.len(), 20, "{played:#}");
    for (host, answer) in answers {
        let number: u8 = host.trim_start_matches("host").parse().unwrap();
        assert_eq!(answer["auth_token"], if number < 10 { demo.as_str() } else { &staging }, "{host}");
    }
    let counts = Counts { browsers: 1, logins: 1, exchanges: 2 };
    assert_eq!(front.counts(), counts, "{:?}", front.all_requests());

    let keystoneauth = |python: PathBuf| {
        let mut command = front.sandbox.command(python);
        let (auth_url, port) = (front.auth_url(), front.callback_port().to_string());
        command.args(["-c", KEYSTONEAUTH, &auth_url, &port, &stack("CA"), "demo"]);
        command
    };
    let newest = PathBuf::from(stack("PYTHON"));
    let mut sdk = front.sandbox.command(&newest);
    sdk.args(["-c", SDK]);
    let [sdk, oldest, newest]: [_; 3] =
        run_all([sdk, keystoneauth(venv("oldest").join("bin/python")), keystoneauth(newest)])
            .try_into()
            .unwrap();
    assert_eq!(sdk.ok().stdout, "demo demo production staging\nstaging demo production staging\n");
    for program in [oldest, newest] {
        assert_eq!(program.ok().stdout, format!("{demo} 3\n"));
    }
    assert_eq!(front.counts(), counts, "{:?}", front.all_requests());
}

#[test]
fn an_entry_that_ksb_wrote_serves_openstack_and_ansible_without_the_plugin() {
    let mut front = Front::free();
    front.clouds(&[front.entry("demo", "demo")]);
    front.ksb(&["login"]).ok();
    let file = front.sandbox.path("home/.config/openstack/clouds.yaml");
    let before = fs::read(&file).unwrap();
    front.ksb(&["clouds", "add"]).ok();
    front.sandbox.set("OS_CLOUD", "demo-ksb");

    // Through the facade for the token, then to the cloud itself: with the certificate of the first entry.
    let openstack = |args: &[&str]| {
        let mut openstack =
            front.sandbox.command(Path::new(&stack("PLAIN_PYTHON")).with_file_name("openstack"));
        openstack.args(args);
        run(openstack)
    };
    let token = openstack(&["token", "issue", "-f", "value", "-c", "id"]).ok().stdout;
    assert_eq!(front.keystone.look_at(token.trim()).unwrap()["project"]["name"], "demo");
    let projects = openstack(&["project", "list", "--my-projects", "-f", "value", "-c", "Name"]).ok().stdout;
    assert!(projects.lines().any(|project| project == "staging"), "{projects}");

    fs::write(front.sandbox.path("hosts"), "host cloud=demo-ksb\n").unwrap();
    fs::write(front.sandbox.path("playbook.yaml"), PLAYBOOK).unwrap();
    fs::create_dir(front.sandbox.path("site")).unwrap();
    fs::write(front.sandbox.path("site/sitecustomize.py"), SITE).unwrap();
    let mut ansible = front.sandbox.command(venv("ansible").join("bin/ansible-playbook"));
    ansible
        .args(["--inventory", "../hosts", "../playbook.yaml"])
        .env("PYTHONPATH", front.sandbox.path("site"));
    ansible.env("ANSIBLE_STDOUT_CALLBACK", "ansible.posix.json").env("ANSIBLE_DEPRECATION_WARNINGS", "false");
    let played: Value = serde_json::from_str(&run(ansible).ok().stdout).unwrap();
    let given = played["plays"][0]["tasks"][0]["hosts"]["host"]["auth_token"].as_str().unwrap();
    assert_eq!(front.keystone.look_at(given).unwrap()["project"]["name"], "demo");
    assert_eq!((front.browsers_opened(), front.counts().logins), (1, 1), "{:?}", front.all_requests());

    front.ksb(&["clouds", "remove", "demo-ksb"]).ok();
    assert_eq!(fs::read(&file).unwrap(), before);
    assert!(front.keystone.look_at(token.trim()).is_none(), "its tokens are revoked");
    assert_ne!(openstack(&["token", "issue"]).code, Some(0));
}

/// The stack's Python environment of that name, made if need be.
pub fn venv(name: &str) -> PathBuf {
    let mut tool = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/stack"));
    tool.args(["venv", name]);
    run(tool).ok().stdout.trim().into()
}

/// Puts the plugin that lies beside `openstack` into a directory for `PYTHONPATH`, its entry point included.
fn install(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let mut python = Command::new(stack("PYTHON"));
    python.args(["-c", "import keystoneauth_broker as it; print(it.__path__[0])"]);
    let package = PathBuf::from(run(python).ok().stdout.trim());
    for entry in fs::read_dir(package.parent().unwrap()).unwrap() {
        let name = entry.unwrap().file_name();
        if name.to_str().unwrap().starts_with("keystoneauth_broker") {
            symlink(package.with_file_name(&name), folder.join(name)).unwrap();
        }
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), 2, "the package and its metadata");
    fs::write(folder.join("sitecustomize.py"), SITE).unwrap();
}

/// A Makefile under `ksb exec` has `openstack` for the exec's cloud and, by name, for the user's others.
#[test]
fn openstack_within_an_exec_has_the_other_clouds_too() {
    let front = Front::free();
    front.clouds(&[front.entry("demo", "demo"), front.entry("staging", "staging")]);
    let openstack = PathBuf::from(stack("PYTHON")).with_file_name("openstack");
    let script = format!(
        "for cloud in demo staging; do {} --os-cloud $cloud token issue -f value -c project_id; done; \
         {0} token issue -f value -c project_id",
        openstack.display()
    );
    let within = front.ksb(&["exec", "demo", "--", "sh", "-ec", &script]).ok();
    let projects: Vec<_> = within.stdout.lines().collect();
    let id = |name| front.keystone.admin().find("projects", name);
    assert_eq!(projects, [id("demo"), id("staging"), id("demo")], "{within:?}");
    assert!(!within.stderr.contains("OS_"), "{within:?}");
    assert_eq!(front.counts().logins, 1);
}
