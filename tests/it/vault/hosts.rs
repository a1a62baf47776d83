//! The agent as a process on machines that are not like this one: with another machine-id, with a full disk.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};

use keystone_broker::model::hex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::real::wait;
use crate::support::browser::Browser;
use crate::support::desk::Desk;
use crate::support::machine::Machine;
use crate::support::sandbox::{KSB, Outcome, Sandbox, end_of};
use crate::support::spawn;

/// A machine with the same home. It ends as one that loses its power.
struct Host<'a> {
    desk: &'a Desk,
    socket: PathBuf,
    agent: Child,
    /// What it has logged since it was ready.
    logged: Arc<Mutex<Vec<String>>>,
}

impl<'a> Host<'a> {
    /// `script` may mount what nobody else sees, before the agent starts.
    fn start(desk: &'a Desk, name: &str, script: &str) -> Self {
        let folder = desk.sandbox.path(format!("run-{name}"));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let socket = folder.join("broker.sock");
        let mut command = desk.sandbox.command("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-ec", &format!("{script}\nexec {KSB} agent run")]);
        let mut agent = spawn::start(command.env("KSB_SOCK", &socket));
        let mut said = BufReader::new(agent.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("ready on")), "the agent ended at once");
        let logged = Arc::<Mutex<Vec<String>>>::default();
        let log = logged.clone();
        std::thread::spawn(move || said.for_each(|line| log.lock().unwrap().push(line.unwrap())));
        Self { desk, socket, agent, logged }
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let state = self.path(&self.desk.sandbox.path("home/.local/state"));
        let mut ksb = self.desk.sandbox.ksb(args);
        // No Python of this machine is asked for the plugin.
        ksb.env("KSB_SOCK", &self.socket).env("XDG_STATE_HOME", state).env("PATH", "/nowhere");
        end_of(spawn::start(&mut ksb))
    }

    fn sign_in(&self) {
        let ksb = spawn::start(self.desk.sandbox.ksb(&["login"]).env("KSB_SOCK", &self.socket));
        assert_eq!(Browser::of("alice").tab().sign_in(&self.desk.sandbox.opened()).state, "done");
        end_of(ksb).ok();
        // Both hosts are this one: the port is let go when the last page does not ask to keep it.
        let port = ("127.0.0.1", self.desk.port);
        wait::until("a free port", || TcpStream::connect(port).is_err().then_some(()));
    }

    /// A path as it is there.
    fn path(&self, path: &Path) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.agent.id())).join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
    }
}

/// A machine with a machine-id of its own, and no runtime directory, as in a batch job.
fn machine(desk: &Desk, id: char) -> Machine<'_> {
    let file = desk.sandbox.path(format!("machine-id-{id}"));
    fs::write(&file, format!("{}\n", String::from(id).repeat(32))).unwrap();
    Machine::start(&desk.sandbox, &format!("mount --bind {} /etc/machine-id", file.display()))
}

fn sign_in(desk: &Desk, machine: &Machine) {
    let ksb = spawn::start(&mut machine.ksb(&["login"]));
    assert_eq!(Browser::of("alice").tab().sign_in(&desk.sandbox.opened()).state, "done");
    end_of(ksb).ok();
    // Both machines have this one's network: the port is let go when the last page does not ask to keep it.
    let port = ("127.0.0.1", desk.port);
    wait::until("a free port", || TcpStream::connect(port).is_err().then_some(()));
}

/// Whether it gives a token without a user.
fn serves(machine: &Machine) -> bool {
    end_of(spawn::start(machine.ksb(&["token"]).env("KSB_PROMPT", "never"))).code == Some(0)
}

/// What lies in the state directory.
fn kept(desk: &Desk) -> Vec<PathBuf> {
    let entries = fs::read_dir(desk.sandbox.paths().state).unwrap();
    let mut kept: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    kept.sort();
    kept
}

#[test]
fn two_machines_with_one_home_keep_apart_what_each_signed_in() {
    let mut desk = Desk::in_sandbox(Sandbox::outside_tmp()).and_vault();
    desk.sandbox.set("XDG_RUNTIME_DIR", "/run/user/99");
    let [one, two] = ['1', '2'].map(|id| machine(&desk, id));
    sign_in(&desk, &one);
    assert!(serves(&one) && !serves(&two));
    sign_in(&desk, &two);
    assert!(serves(&one) && serves(&two), "both at once");
    assert_eq!(desk.keystone.logins(), 2);
    for machine in [&one, &two] {
        let status = machine.run(&["status"]).ok().stdout;
        assert!(status.contains("demo: alice") && status.contains("/tmp/keystone-broker-0"), "{status}");
    }
    // Nothing in the home belongs to both.
    let stems = |names: &[PathBuf]| {
        let stem = |path: &PathBuf| {
            path.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().0.to_owned()
        };
        names.iter().map(stem).collect::<Vec<_>>()
    };
    let of_machine = |id: char| {
        let id = Sha256::digest(format!("keystone-broker {}", String::from(id).repeat(32)));
        let name = hex(&id[..8]);
        kept(&desk).into_iter().filter(|path| path.to_str().unwrap().contains(&name)).collect::<Vec<_>>()
    };
    let (first, second) = (of_machine('1'), of_machine('2'));
    assert_eq!(stems(&first), stems(&second));
    assert_eq!(first.len() + second.len(), kept(&desk).len(), "{:?}", kept(&desk));

    // As after a loss of power.
    drop((one, two));
    let [one, two] = ['1', '2'].map(|id| machine(&desk, id));
    assert!(serves(&one) && serves(&two), "each has its own");
    assert_eq!(desk.keystone.logins(), 2);

    // A home that is copied, or a vault that is renamed, is not taken over.
    drop((one, two));
    let is_vault = |path: &PathBuf| path.to_str().unwrap().contains("/vault-") && path.extension().is_none();
    let vaults: Vec<_> = kept(&desk).into_iter().filter(is_vault).collect();
    for (owner, own) in ['1', '2'].map(|id| (id, of_machine(id))) {
        let is_own = |vault: &&PathBuf| own.contains(vault);
        let (to, from) =
            (vaults.iter().find(is_own).unwrap(), vaults.iter().find(|vault| !is_own(vault)).unwrap());
        let bytes = fs::read(to).unwrap();
        fs::copy(from, to).unwrap();
        let machine = machine(&desk, owner);
        machine.run(&["agent", "start"]).ok();
        let said = machine.run(&["status"]).ok().stdout;
        assert!(said.contains("it was made on another machine"), "{said}");
        fs::write(to, bytes).unwrap();
    }
}

#[test]
fn a_full_disk_is_said_and_costs_nobody_their_token() {
    let desk = Desk::with_vault();
    let state = desk.sandbox.paths().state;
    fs::create_dir_all(&state).unwrap();
    let mount = format!("mount -t tmpfs -o size=64k,mode=700 tmpfs {}", state.display());
    let host = Host::start(&desk, "small", &mount);
    host.sign_in();
    let up_to_date = || !host.run(&["status"]).ok().stdout.contains("NOT up to date: ");
    assert!(up_to_date());
    let filler = host.path(&state.join("filler"));
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 1024]).is_ok() {}
    drop(file);
    host.run(&["token"]).ok();
    assert!(!up_to_date());
    let doctor = || {
        let outcome = host.run(&["doctor", "--json"]);
        let found: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap();
        found.into_iter().find(|each| each["check"] == "vault").unwrap()
    };
    let [detail, remedy] = ["detail", "remedy"].map(|key| doctor()[key].as_str().unwrap().to_owned());
    assert_eq!(doctor()["finding"], "fail");
    assert!(
        detail.contains("No space left on device") && remedy.starts_with("make room"),
        "{detail}; {remedy}"
    );

    // The audit log's last page fills up as well: nobody waits for that, and it is said once.
    let incomplete = || host.run(&["status"]).ok().stdout.matches("is not complete: No space left").count();
    wait::until("a line that finds no room", || {
        host.run(&["token"]).ok();
        (incomplete() == 1).then_some(())
    });
    host.run(&["token"]).ok();
    let said = host.logged.lock().unwrap().join("\n");
    assert_eq!(said.matches("the audit log is not complete").count(), 1, "{said}");
    let log = || host.run(&["audit"]).ok().stdout;
    assert!(log().contains("token: demo, project demo, as alice, to ksb ("), "{}", log());

    fs::remove_file(filler).unwrap();
    host.run(&["token", "--project", "staging"]).ok();
    assert!(up_to_date());
    assert_eq!((doctor()["finding"].as_str(), incomplete()), (Some("ok"), 0));
    assert!(log().contains("before this one could not be written"), "{}", log());
}
