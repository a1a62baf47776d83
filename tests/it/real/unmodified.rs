//! Programs that know nothing of `ksb`, each doing something real in the cloud with what `ksb` hands them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::front::{Counts, Front, stack};
use super::program::{Program, run};
use super::tools::{SITE, venv};
use super::wait;
use super::workload;
use crate::support::sandbox::{KSB, Outcome};
use crate::support::spawn;

const SDK: &str = "\
import os, openstack
store, name = openstack.connect().object_store, os.environ['C']
store.create_container(name)
store.upload_object(name, 'file', data='hello of ' + name)
print(store.download_object('file', container=name).decode())
";

/// It adds `/v3` to the address by itself.
const LIBCLOUD: &str = "\
import os, libcloud.security
from libcloud.storage.providers import get_driver
from libcloud.storage.types import Provider
env = os.environ
libcloud.security.CA_CERTS_PATH = env['OS_CACERT']
driver = get_driver(Provider.OPENSTACK_SWIFT)(
    env['OS_APPLICATION_CREDENTIAL_ID'], env['OS_APPLICATION_CREDENTIAL_SECRET'], region=env['OS_REGION_NAME'],
    ex_force_auth_url=env['OS_AUTH_URL'].removesuffix('/v3'), ex_force_auth_version='3.x_appcred',
    ex_force_service_region=env['OS_REGION_NAME'], ex_force_service_name='swift',
    ex_force_service_type='object-store')
container = driver.create_container(env['C'])
container.upload_object('file', 'file')
print(b''.join(container.get_object('file').as_stream()).decode())
";

const KEYSTONECLIENT: &str = "\
import os
from keystoneauth1.identity.v3 import ApplicationCredential
from keystoneauth1.session import Session
from keystoneclient.v3.client import Client
env = os.environ
auth = ApplicationCredential(
    auth_url=env['OS_AUTH_URL'], application_credential_id=env['OS_APPLICATION_CREDENTIAL_ID'],
    application_credential_secret=env['OS_APPLICATION_CREDENTIAL_SECRET'])
keystone = Client(session=Session(auth=auth, verify=env['OS_CACERT']))
print(*sorted(project.name for project in keystone.auth.projects()))
";

/// Older than application credentials.
const FOG: &str = "\
require 'fog/openstack'
Excon.defaults[:ssl_ca_file] = ENV['OS_CACERT']
store = Fog::OpenStack::Storage.new(
  openstack_auth_url: ENV['OS_AUTH_URL'], openstack_username: ENV['OS_USERNAME'],
  openstack_api_key: ENV['OS_PASSWORD'], openstack_domain_name: ENV['OS_USER_DOMAIN_NAME'],
  openstack_project_id: ENV['OS_PROJECT_ID'], openstack_region: ENV['OS_REGION_NAME'])
store.directories.create(key: ENV['C']).files.create(key: 'file', body: 'hello of ' + ENV['C'])
puts store.directories.get(ENV['C']).files.get('file').body
";

const PLAYBOOK: &str = "\
- hosts: all
  gather_facts: false
  vars:
    ansible_connection: local
    ansible_python_interpreter: '{{ ansible_playbook_python }}'
    container: \"{{ lookup('env', 'C') }}\"
  tasks:
    - openstack.cloud.object_container: {cloud: demo, name: '{{ container }}'}
    - openstack.cloud.object: {cloud: demo, container: '{{ container }}', name: file, data: 'hello of {{ container }}'}
    - openstack.cloud.auth: {cloud: demo}
      register: signed_in
    - ansible.builtin.uri:
        url: \"{{ lookup('env', 'STORE') }}/v1/AUTH_{{ lookup('env', 'PROJECT') }}/{{ container }}/file\"
        headers: {X-Auth-Token: '{{ signed_in.auth_token }}'}
        ca_path: \"{{ lookup('env', 'OS_CACERT') }}\"
        return_content: true
      register: downloaded
    - ansible.builtin.debug: {msg: '{{ downloaded.content }}'}
";

const RESTIC: &str = "\
export RESTIC_PASSWORD=hush
restic() { command restic --cacert \"$OS_CACERT\" --repo \"swift:$C:/\" \"$@\"; }
restic init && restic backup file && restic check && restic restore latest --target restored
cat restored/file
";

const OPENSTACK: &str = "openstack container create $C && openstack object create $C file && \
                         openstack object save $C file --file -";
const SWIFT: &str = "swift upload $C file && swift list $C && swift download --output - $C file";
const RCLONE: &str = "export RCLONE_CONFIG_OF_TYPE=swift RCLONE_CONFIG_OF_ENV_AUTH=true RCLONE_CA_CERT=$OS_CACERT; \
                      rclone copy file of:$C && rclone cat of:$C/file";

/// What one program is to do, in a directory of its own with a `file`. It says `hello of` and its container's name.
struct Job<'s> {
    name: &'s str,
    exec: &'s [&'s str],
    script: &'s str,
    says: Option<&'s str>,
}

const fn job<'s>(name: &'s str, script: &'s str) -> Job<'s> {
    Job { name, exec: &[], script, says: None }
}

/// Whose programs are the unmodified ones, by name; and what is in the cloud by now goes in the end.
struct Bench {
    front: Front,
    /// What the names of the containers begin with.
    prefix: String,
}

impl Bench {
    fn new() -> Self {
        let mut front = Front::free();
        let bin = Path::new(&stack("PLAIN_PYTHON")).parent().unwrap().display().to_string();
        front.sandbox.set("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()));
        let prefix = format!("unmodified-{}-{}", front.user(), std::process::id());
        Self { front, prefix }
    }

    fn signed_in() -> Self {
        let bench = Self::new();
        bench.front.ksb(&["login"]).ok();
        bench
    }

    fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.front.sandbox.path(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), format!("hello of {}", self.container(name))).unwrap();
        folder
    }

    /// A command in a directory of its own, with the name of its container in `C`.
    fn in_folder(&self, mut command: Command, name: &str) -> Command {
        command.current_dir(self.folder(name)).env("C", self.container(name));
        command
    }

    /// `ksb exec … demo -- sh -c SCRIPT`
    fn exec(&self, name: &str, options: &[&str], script: &str) -> Command {
        let mut command = self.front.sandbox.ksb(&["exec"]);
        command.args(options).args(["demo", "--", "sh", "-ec", script]);
        self.in_folder(command, name)
    }

    /// `sh -c SCRIPT`, as a user has it.
    fn shell(&self, name: &str, script: &str) -> Command {
        let mut command = self.front.sandbox.command("sh");
        command.args(["-ec", script]);
        self.in_folder(command, name)
    }

    /// The EC2 credentials that Keystone knows of the user.
    fn ec2(&self, token: &str) -> usize {
        let user = self.front.keystone.look_at(token).unwrap()["user"]["id"].as_str().unwrap().to_owned();
        let path = format!("/users/{user}/credentials/OS-EC2");
        let answer = self.front.keystone.call(Method::GET, &path, &[("X-Auth-Token", token)], None);
        answer.json["credentials"].as_array().unwrap_or_else(|| panic!("{}", answer.json)).len()
    }

    fn leases(&self) -> Value {
        let list = self.front.ksb(&["lease", "list", "--json"]).ok().stdout;
        serde_json::from_str::<Value>(&list).unwrap()["leases"].take()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let script = "swift list --prefix \"$C\" | xargs --no-run-if-empty --max-args 1 swift delete";
        let mut command = self.front.sandbox.ksb(&["exec", "demo", "--", "sh", "-c", script]);
        spawn::output(command.env("C", &self.prefix));
    }
}

#[test]
fn every_client_does_its_work_by_exec_with_one_sign_in_and_a_token_each() {
    let mut bench = Bench::signed_in();
    let project = bench.front.keystone.look_at(&bench.front.token(&[])).unwrap()["project"]["id"].clone();
    let path = format!(
        "{}:{}",
        Path::new(&stack("PLAIN_PYTHON")).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let ansible_bin = venv("ansible").join("bin");
    bench.front.sandbox.set("PATH", format!("{path}:{}", ansible_bin.display()));
    bench.front.sandbox.set("PROJECT", project.as_str().unwrap());
    bench.front.sandbox.set("STORE", stack("SWIFT"));
    for (name, text) in [
        ("sdk.py", SDK),
        ("of_libcloud.py", LIBCLOUD),
        ("of_keystone.py", KEYSTONECLIENT),
        ("fog.rb", FOG),
        ("site.yaml", PLAYBOOK),
    ] {
        fs::write(bench.front.sandbox.path(name), text).unwrap();
    }
    fs::create_dir(bench.front.sandbox.path("site")).unwrap();
    fs::write(bench.front.sandbox.path("site/sitecustomize.py"), SITE).unwrap();
    let (v1, v2) = (stack("GOPHERCLOUD_V1"), stack("GOPHERCLOUD_V2"));
    let listed = format!("\"project\":{project}");
    let jobs = [
        job("openstack", OPENSTACK),
        Job { exec: &["--as", "token"], ..job("token", OPENSTACK) },
        job("sdk", "python ../sdk.py"),
        job("swift", SWIFT),
        job("rclone", RCLONE),
        job("restic", RESTIC),
        job("libcloud", "python ../of_libcloud.py"),
        Job { says: Some("demo production staging"), ..job("keystoneclient", "python ../of_keystone.py") },
        Job { says: Some(&listed), ..job("gophercloud-v1", &v1) },
        Job { says: Some(&listed), ..job("gophercloud-v2", &v2) },
        Job { exec: &["--as", "password"], ..job("fog", "ruby ../fog.rb") },
        job("ansible", "PYTHONPATH=$PWD/../site ansible-playbook --inventory localhost, ../site.yaml"),
    ];
    let before = bench.front.counts();
    // Not all at once: each of them is a heavy program.
    for some in jobs.chunks(4) {
        let outcomes = at_once(some.iter().map(|job| bench.exec(job.name, job.exec, job.script)));
        for (job, outcome) in some.iter().zip(outcomes) {
            let hello = format!("hello of {}", bench.container(job.name));
            let outcome = outcome.ok();
            assert!(outcome.stdout.contains(job.says.unwrap_or(&hello)), "{}: {outcome:?}", job.name);
        }
    }
    let exchanges = before.exchanges + jobs.len();
    assert_eq!(bench.front.counts(), Counts { browsers: 1, logins: 1, exchanges }, "one for each");
    assert_eq!(bench.leases(), Value::Array(vec![]));
}

#[test]
fn variables_from_ksb_env_serve_programs_that_read_no_clouds_yaml() {
    let bench = Bench::signed_in();
    let dotenv = bench.front.ksb(&["env", "demo", "--dotenv"]).ok().stdout;
    fs::write(bench.folder("dotenv").join(".env"), dotenv).unwrap();
    let eval = |name: &str, options: &str, script: &str| {
        let script = format!("eval \"$(\"$KSB\" env demo {options})\"\n{script}");
        bench.shell(name, &script)
    };
    // Such a file only ever adds.
    let by_file = format!(
        "unset OS_CLOUD; {} run --quiet --no-project --env-file .env -- sh -ec '{OPENSTACK}'",
        stack("UV")
    );
    let outcomes = at_once([
        eval("rclone", "--tool rclone", "rclone copy file demo:$C && rclone cat demo:$C/file"),
        eval("restic", "", RESTIC),
        eval("swift", "--tool swift", SWIFT),
        bench.shell("dotenv", &by_file),
    ]);
    for (name, outcome) in ["rclone", "restic", "swift", "dotenv"].into_iter().zip(outcomes) {
        let outcome = outcome.ok();
        assert!(
            outcome.stdout.contains(&format!("hello of {}", bench.container(name))),
            "{name}: {outcome:?}"
        );
    }
    assert_eq!(bench.leases().as_array().unwrap().len(), 4);
    bench.front.ksb(&["lease", "revoke", "--all"]).ok();
    let refused = run(bench.shell("dotenv", &by_file));
    assert!(refused.code != Some(0) && refused.stderr.contains("401"), "{refused:?}");
    assert_eq!((bench.front.browsers_opened(), bench.front.counts().logins), (1, 1));
}

/// Without a region: that is in the environment, too.
const STATE: &str = r#"
terraform {
  backend "s3" {
    bucket                      = "NAME"
    key                         = "demo.tfstate"
    use_path_style              = true
    skip_credentials_validation = true
    skip_metadata_api_check     = true
    skip_region_validation      = true
    skip_requesting_account_id  = true
    skip_s3_checksum            = true
  }
}
resource "terraform_data" "one" {
  input = "remembered"
}
"#;

#[test]
fn keys_for_s3_serve_aws_rclone_and_tofu_and_are_gone_afterwards() {
    let bench = Bench::signed_in();
    let token = bench.front.token(&[]);
    assert_eq!(bench.ec2(&token), 0);
    let aws = "aws s3 mb s3://$C && aws s3 cp --no-progress file s3://$C/file && aws s3 cp s3://$C/file -";
    let rclone = "s3() { rclone --ca-cert $AWS_CA_BUNDLE --s3-provider Other --s3-env-auth --s3-region $AWS_REGION \"$@\"; }; \
                  s3 copy file :s3:$C && s3 cat :s3:$C/file";
    let tofu = "aws s3 mb s3://$C; $KSB_STACK_TOFU init -input=false && \
                $KSB_STACK_TOFU apply -auto-approve -input=false && aws s3 cp s3://$C/demo.tfstate -; cat file";
    let state = STATE.replace("NAME", &bench.container("tofu"));
    fs::write(bench.folder("tofu").join("main.tf"), state).unwrap();
    let jobs = [("aws", aws), ("rclone", rclone), ("tofu", tofu)];
    let commands = jobs.map(|(name, script)| {
        let mut command = bench.exec(name, &["--s3"], script);
        // Swift's S3 takes the region that its operator gave it, and no other.
        command.env("AWS_REGION", stack("REGION")).env("TF_CLI_CONFIG_FILE", stack("TOFU_CONFIG"));
        command
    });
    for ((name, _), outcome) in jobs.into_iter().zip(at_once(commands)) {
        let outcome = outcome.ok();
        assert!(
            outcome.stdout.contains(&format!("hello of {}", bench.container(name))),
            "{name}: {outcome:?}"
        );
        assert!(
            name != "tofu" || outcome.stdout.contains("\"input\":{\"value\":\"remembered\""),
            "{outcome:?}"
        );
    }
    assert_eq!(bench.ec2(&token), 0);

    // The command outlives its `ksb`, its keys do not.
    let script = "aws s3 ls > listed; until [ -e over ]; do sleep 0.1; done; aws s3 ls && touch works";
    let mut killed = bench.exec("killed", &["--s3"], script);
    killed.env("AWS_REGION", stack("REGION"));
    let folder = bench.folder("killed");
    let killed = Program::start(killed);
    wait::until("the command to have used its keys", || {
        fs::read_to_string(folder.join("listed")).ok().filter(|listed| listed.contains(&bench.prefix))
    });
    assert_eq!(bench.ec2(&token), 1);
    killed.signal(Signal::KILL);
    wait::until("the keys to be gone", || (bench.ec2(&token) == 0).then_some(()));
    fs::write(folder.join("over"), "").unwrap();
    assert_eq!(killed.ends().code, Some(-9));
    assert!(!folder.join("works").exists());
    assert_eq!(bench.leases(), Value::Array(vec![]));
}

#[test]
fn without_the_agent_a_ci_job_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.front.sandbox.set("KSB_PROMPT", "never");
    bench.front.clouds(&[workload::entry(&bench.front, "demo", ", token_env: LAB_ID_TOKEN")]);
    bench.front.sandbox.set("LAB_ID_TOKEN", workload::bearer(&bench.front.user()));
    let script =
        format!("{OPENSTACK}; echo; openstack token issue -f value -c id; openstack container delete -r $C");
    let command = bench.exec("ci", &["--ephemeral"], &script);
    let here = bench.front.sandbox.path("");
    let before = files(&here);
    let outcome = run(command).ok();
    let hello = format!("hello of {}", bench.container("ci"));
    let token = outcome.stdout.split_once(&hello).unwrap_or_else(|| panic!("{outcome:?}")).1.trim();
    assert!(token.starts_with("gAAAA"), "{outcome:?}");
    assert!(!bench.front.keystone.accepts(token), "it is revoked");
    let asked = bench.front.all_requests();
    let ended = asked.iter().filter(|request| request.method == "DELETE" && request.status == 204).count();
    assert_eq!(ended, 2, "the session's token and the command's: {asked:#?}");
    assert_eq!((bench.front.counts().exchanges, bench.front.browsers_opened()), (1, 0));
    // `openstack` keeps a list of its own plugins.
    let left = files(&here).into_iter().filter(|file| !file.starts_with(here.join("home/.cache")));
    assert_eq!(left.collect::<BTreeSet<_>>(), before);
    assert!(bench.front.sandbox.agent_pid().is_none());
    assert_eq!(processes_in(&bench.front.sandbox.path("home")), [] as [PathBuf; 0]);
}

/// Runs them side by side. restic, for one, derives its keys in seconds of computing.
fn at_once(commands: impl IntoIterator<Item = Command>) -> Vec<Outcome> {
    let programs: Vec<_> = commands.into_iter().map(Program::start).collect();
    programs.into_iter().map(|program| program.ends_within(2 * wait::LIMIT)).collect()
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { BTreeSet::from([path]) }).collect()
}

/// Processes of this program that have such a home.
fn processes_in(home: &Path) -> Vec<PathBuf> {
    let home = format!("HOME={}\0", home.display());
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    all.filter(|process| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        fs::read_link(process.join("exe")).is_ok_and(|exe| exe == Path::new(KSB))
            && String::from_utf8_lossy(&environment).contains(&home)
    })
    .collect()
}
