//! Promise 8: two accounts of one user, and two users of one machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::front::{Counts, Front, stack};
use super::program::{Program, run};
use crate::support::sandbox::KSB;
use crate::support::skip::{is_root, skip};
use crate::support::spawn;

#[test]
fn two_accounts_on_one_cloud_are_signed_in_at_once() {
    let front = Front::free();
    let options = "project_name: demo, project_domain_name: lab, username: home";
    let home = front.entry_at(&front.auth_url(), "home", options);
    front.clouds(&[front.entry("demo", "demo"), home]);
    let sign_in = |account: &str, user: &str| {
        let mut command = front.sandbox.ksb(&["token", "demo", "--account", account]);
        command.env("KSB_BROWSER_USER", user).env("KSB_BROWSER_PROFILE", front.sandbox.path(account));
        Program::start(command)
    };
    let users = [front.user(), "bob".to_owned()];
    // Both at the same time, on one callback port.
    let programs = [sign_in("work", &users[0]), sign_in("home", &users[1])];
    let tokens = programs.map(|program| program.ends().ok().stdout.trim().to_owned());
    let user_of = |token: &str| front.keystone.look_at(token).unwrap()["user"]["name"].clone();
    for (token, user) in tokens.iter().zip(&users) {
        assert_eq!(user_of(token), user.as_str());
    }
    assert_eq!(front.counts(), Counts { browsers: 2, logins: 2, exchanges: 2 });

    // The label stands as `username` in an entry, as v3websso has it.
    assert_eq!(front.token(&["home"]), tokens[1]);
    let issue = ["--os-cloud", "home", "token", "issue", "-f", "value", "-c", "id"];
    assert_eq!(front.answer(&issue), tokens[1]);
    let staging = front.token(&["demo", "--account", "work", "--project", "staging"]);
    assert_eq!(user_of(&staging), users[0].as_str());
    let solo = front.token(&["home", "--project", "solo"]);
    assert_eq!(user_of(&solo), "bob");
    let status: Value = serde_json::from_str(&front.ksb(&["status", "--json"]).ok().stdout).unwrap();
    let mut signed_in: Vec<_> = status["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| (session["account"].as_str().unwrap(), session["user"]["name"].as_str().unwrap()))
        .collect();
    signed_in.sort_unstable();
    assert_eq!(signed_in, [("home", "bob"), ("work", users[0].as_str())]);
    assert_eq!(front.counts(), Counts { browsers: 2, logins: 2, exchanges: 4 });

    // The one goes, the other stays.
    front.ksb(&["logout", "home"]).ok();
    assert!(!front.keystone.accepts(&tokens[1]) && !front.keystone.accepts(&solo));
    assert_eq!(front.token(&["demo", "--account", "work"]), tokens[0]);
    assert!(front.keystone.accepts(&tokens[0]));
}

#[test]
fn two_users_of_one_machine_keep_apart() {
    let (one, two) = (Front::free(), Front::free());
    // Both sign in at the same time, each by an agent and a callback port of their own.
    let programs = [one.start(&["token"]), two.start(&["token"])];
    let tokens = programs.map(|program| program.ends().ok().stdout.trim().to_owned());
    for (front, token) in [&one, &two].iter().zip(&tokens) {
        assert_eq!(front.keystone.look_at(token).unwrap()["user"]["name"], front.user());
        assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 1 });
    }
}

#[test]
fn another_user_gets_nothing_from_the_pages_the_socket_and_ksb() {
    if !is_root() {
        skip!("root, to be another user");
    }
    let one = Front::free();
    let stranger = Stranger::new(&one);

    // A sign-in that waits for its user; the stranger has read its address in a list of processes.
    let waiting = Program::start({
        let mut command = one.sandbox.ksb(&["token", "--account", "second"]);
        command.env("BROWSER", "true");
        command
    });
    let url = waiting.says("sign in: ").split("sign in: ").nth(1).unwrap().to_owned();
    let fetch = "import sys, urllib.request as u\n\
                 headers = {'Sec-Fetch-Dest': 'document', 'Sec-Fetch-Mode': 'navigate'}\n\
                 print(u.urlopen(u.Request(sys.argv[1], headers=headers)).read().decode())";
    let python = "/usr/bin/python3";
    let mut owner = one.sandbox.command(python);
    owner.args(["-c", fetch, &url]);
    let begin = format!("http://localhost:{}/begin/", one.callback_port());
    let page = run(owner).ok().stdout;
    let (_, rest) = page.split_once(&begin).expect("the owner gets the page");
    let id = rest.split(|letter: char| !letter.is_ascii_hexdigit()).next().unwrap();
    for url in [&url, &(begin + id)] {
        let refused = run(stranger.command(python, &["-c", fetch, url]));
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert_eq!(refused.stdout, "", "{refused:?}");
    }

    // Even with every file mode wide open, the agent serves its own user only, and `ksb` asks its own only.
    let socket = one.sandbox.paths().socket;
    for folder in socket.ancestors().take_while(|path| path.starts_with(one.sandbox.path(""))) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let ask = "import socket, sys\n\
               s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
               s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: ksb\\r\\nConnection: close\\r\\n\\r\\n')\n\
               print(s.makefile().read())";
    let socket = socket.to_str().unwrap();
    let mut owner = one.sandbox.command(python);
    owner.args(["-c", ask, socket]);
    assert!(run(owner).ok().stdout.contains("started_at"));
    let refused = run(stranger.command(python, &["-c", ask, socket]));
    assert!(!refused.stdout.contains("200 OK") && !refused.stdout.contains("sessions"), "{refused:?}");
    let mut ksb = stranger.ksb(&["token", "demo"]);
    ksb.env("KSB_SOCK", socket);
    let refused = run(ksb);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("another user"), "{refused:?}");

    // The stranger's own agent is another one; a callback port that is taken is named as such.
    let refused = run(stranger.ksb(&["token", "demo"]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let taken = format!(
        "port {}, where Keystone sends the sign-in, is held by a process of uid 0",
        one.callback_port()
    );
    assert!(refused.stderr.contains(&taken), "{refused:?}");
    assert!(run(stranger.ksb(&["status"])).ok().stdout.contains("Nobody is signed in"));
}

/// Another user of this machine, with a home of their own and the same clouds.yaml.
struct Stranger {
    home: tempfile::TempDir,
}

const NOBODY: u32 = 65534;

impl Stranger {
    fn new(front: &Front) -> Self {
        let home = tempfile::Builder::new().prefix("ksb").tempdir().unwrap();
        let config = home.path().join(".config/openstack");
        fs::create_dir_all(&config).unwrap();
        // What is in the first user's home cannot be read from here.
        spawn::copy(KSB, home.path().join("ksb"));
        fs::copy(stack("CA"), home.path().join("ca.pem")).unwrap();
        let ca = home.path().join("ca.pem");
        let clouds = front.entry("demo", "demo").replace(&stack("CA"), ca.to_str().unwrap());
        fs::write(config.join("clouds.yaml"), format!("clouds:\n{clouds}")).unwrap();
        fs::create_dir(home.path().join("run")).unwrap();
        for path in walk(home.path()) {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self { home }
    }

    fn ksb(&self, args: &[&str]) -> Command {
        self.command(self.home.path().join("ksb").to_str().unwrap(), args)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let nobody = NOBODY.to_string();
        command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups", "--", program]).args(args);
        let (home, run) = (self.home.path(), self.home.path().join("run"));
        command.env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", run).env("PATH", "/usr/bin:/bin");
        command.env("KSB_PROMPT", "always").current_dir(home);
        command
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        spawn::output(&mut self.ksb(&["agent", "stop"]));
    }
}

/// The directory and all that lies in it.
fn walk(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    if path.is_dir() {
        all.extend(fs::read_dir(path).unwrap().flat_map(|entry| walk(&entry.unwrap().path())));
    }
    all
}
