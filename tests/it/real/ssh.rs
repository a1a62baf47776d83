//! A user whose browser is on another machine: a real sshd, the printed `ssh` line as it stands, real WebSSO.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::front::{Counts, Front, stack};
use super::program::{Program, run};
use super::wait;
use crate::support::port;
use crate::support::skip::{is_root, skip};
use crate::support::spawn;
use crate::support::tunnel::forwards;

/// An sshd of the test's on loopback, with a key of its own; ends when dropped.
struct Sshd {
    port: u16,
    client: PathBuf,
    _running: Program,
}

impl Sshd {
    fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        for key in ["host", "person"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            run(keygen).ok();
        }
        let (port, here) = (port::free(), folder.display());
        let (server, client) = (folder.join("sshd_config"), folder.join("ssh_config"));
        let settings = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {here}/host\nAuthorizedKeysFile {here}/person.pub\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
        );
        fs::write(&server, settings).unwrap();
        let settings = format!(
            "IdentityFile {here}/person\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking no\n\
             UserKnownHostsFile /dev/null\nExitOnForwardFailure yes\nLogLevel ERROR\n"
        );
        fs::write(&client, settings).unwrap();
        if is_root() {
            // Where root's sshd locks its unprivileged part in; Debian's service makes it.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(&server);
        let running = Program::start(sshd);
        running.says("Server listening");
        Self { port, client, _running: running }
    }

    /// The line that `ksb` printed, run by the user; only the key and the server's key are the test's.
    fn run(&self, line: &str) -> Program {
        let mut shell = Command::new("sh");
        let ssh = format!("ssh -F '{}' ", self.client.display());
        shell.args(["-c", &format!("exec {}", line.replacen("ssh ", &ssh, 1))]);
        Program::start(shell)
    }
}

#[test]
fn a_browser_at_the_other_end_of_ssh_signs_in_through_the_printed_line() {
    let mut front = Front::free();
    let sshd = Sshd::start(&front.sandbox.path("ssh"));
    let user = String::from_utf8(spawn::output(Command::new("id").arg("-un")).stdout).unwrap();
    let user = user.trim();
    front.sandbox.set("SSH_CONNECTION", format!("127.0.0.1 50022 127.0.0.1 {}", sshd.port));
    front.sandbox.set("USER", user);
    // The session has no browser: neither `ksb` nor `openstack` opens one.
    let without_browser = |mut command: Command| {
        command.env_remove("BROWSER");
        Program::start(command)
    };
    let login = without_browser(front.sandbox.ksb(&["login"]));
    let guess = login.says("run this on the computer in front of you");
    assert!(guess.contains(&format!("{user}@127.0.0.1 is a guess")), "{guess}");
    let line = login.says("ssh -N ");
    let url = login.says("sign in: ").split("sign in: ").nth(1).unwrap().to_owned();
    let mut openstack = front.openstack(&["token", "issue", "-f", "value", "-c", "id"]);
    // The plugin as it stands in this checkout, installed or not.
    openstack.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/plugin-shim"));
    let openstack = without_browser(openstack);
    assert!(openstack.says("ssh -N ").ends_with(&line), "the tools say the same");

    let words = line.strip_suffix(&format!(" -p {} {user}@127.0.0.1", sshd.port)).unwrap();
    let [callback, start] = forwards(words).try_into().unwrap();
    assert_eq!(callback.port, front.callback_port());
    let reached = |port| TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
    assert_eq!((reached(callback.port), reached(start.port)), (None, None), "no port of the server is used");
    let ssh = sshd.run(&line);
    for port in [callback.port, start.port] {
        wait::until("ssh's port", || reached(port));
    }

    // The browser on the other machine.
    let mut browser = front.sandbox.command(stack("BROWSER"));
    browser.arg(&url);
    run(browser).ok();
    let said = login.ends().ok();
    assert!(said.stdout.contains(&format!("signed in as {} (lab)", front.user())), "{said:?}");
    let token = openstack.ends().ok().stdout;
    assert_eq!(front.keystone.look_at(token.trim()).unwrap()["user"]["name"], front.user());
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 1 });
    drop(ssh);
}

/// Another user of the server, even with every mode wide open.
#[test]
fn another_user_of_the_server_gets_nothing_from_the_sockets_of_a_sign_in() {
    if !is_root() {
        skip!("root, to be another user");
    }
    let mut front = Front::free();
    front.sandbox.set("SSH_CONNECTION", "127.0.0.1 50022 127.0.0.1 2222");
    let mut command = front.sandbox.ksb(&["login"]);
    command.env_remove("BROWSER");
    let waiting = Program::start(command);
    let line = waiting.says("ssh -N ");
    let sockets = forwards(line.split(" -p ").next().unwrap());
    let url = waiting.says("sign in: ").split("sign in: ").nth(1).unwrap().to_owned();
    let home = front.sandbox.path("");
    for path in sockets[1].socket.ancestors().take_while(|path| path.starts_with(&home)) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let ask = "import socket, sys, urllib.parse as p\n\
               url = p.urlsplit(sys.argv[2])\n\
               s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
               s.sendall(f'GET {url.path} HTTP/1.1\\r\\nHost: {url.netloc}\\r\\nSec-Fetch-Dest: document\\r\\n\
               Sec-Fetch-Mode: navigate\\r\\nConnection: close\\r\\n\\r\\n'.encode())\n\
               print(s.makefile().read())";
    let as_user = |user: &str| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            user,
            "--regid",
            user,
            "--clear-groups",
            "--",
            "/usr/bin/python3",
            "-c",
            ask,
        ]);
        command.arg(&sockets[1].socket).arg(&url);
        run(command).stdout
    };
    assert!(as_user("0").contains("Starting your"), "{}", as_user("0"));
    assert_eq!(as_user("65534").trim(), "");
}
