//! WebSSO for a user whose browser is at the other end of an SSH session: sockets of one's own instead of ports.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::support::api::{Api, SignIn};
use crate::support::browser::{Browser, navigation};
use crate::support::desk::Desk;
use crate::support::http::Response;
use crate::support::keystone::LAB;
use crate::support::lab::Lab;
use crate::support::sandbox::{KSB, within};
use crate::support::spawn;
use crate::support::tunnel::{Tunnel, forwards};
use crate::support::world::World;

/// `ksb login` in an SSH session.
#[track_caller]
fn login(api: &Api, cloud: &Value) -> SignIn {
    api.post("/v1/sign-ins", &json!({"cloud": cloud, "remote": true})).sign_in()
}

fn tunnel_of(sign_in: &SignIn) -> String {
    sign_in.json["tunnel"].as_str().unwrap().into()
}

/// The same by way of the default port, which the agent then does not touch.
fn lab_at_9990() -> (Lab, Value) {
    let lab = Lab::new();
    lab.keystone.trust("http://localhost:9990/auth/websso/");
    let cloud = lab.cloud_with(|cloud| cloud["sign_in"]["redirect_port"] = 9990.into());
    (lab, cloud)
}

#[test]
fn the_browser_of_another_machine_comes_in_by_sockets_and_signs_in() {
    let lab = Lab::new();
    let sign_in = login(lab.api(), &lab.cloud());
    assert!(!sign_in.opener, "no browser of this machine can open it");
    let tunnel = Tunnel::open(&tunnel_of(&sign_in));
    assert_eq!(Browser::of("alice").tab().sign_in(&sign_in.url).state, "done");
    assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
    assert_eq!(lab.api().status()["sessions"][0]["user"]["name"], "alice");
    drop(tunnel);
}

/// `ksb login` at a terminal with these variables and this parent says all that.
#[track_caller]
fn login_says(what: &str, variables: &[(&str, &str)], parent: &str, expected: &'static [&str]) {
    let desk = Desk::new();
    let bin = desk.sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    let tmux = "#!/bin/sh\necho DISPLAY=:0\necho 'SSH_CONNECTION=198.51.100.7 50022 192.0.2.1 2222'\n";
    fs::write(bin.join("tmux"), tmux).unwrap();
    fs::set_permissions(bin.join("tmux"), fs::Permissions::from_mode(0o755)).unwrap();
    let shell = bin.join(parent);
    spawn::copy("/bin/sh", &shell);
    let mut command = desk.sandbox.command(&shell);
    // The shell stays: it has something to do afterwards.
    command.args(["-c", &format!("'{KSB}' login; true")]).env_remove("BROWSER").env("USER", "alice");
    let path = std::env::join_paths([&*bin, "/usr/bin".as_ref(), "/bin".as_ref()]).unwrap();
    command.env("PATH", path).envs(variables.iter().copied()).process_group(0);
    let mut ksb = spawn::start(&mut command);
    let mut lines = BufReader::new(ksb.stderr.take().unwrap()).lines().map(Result::unwrap);
    let what = what.to_owned();
    within(move || {
        let mut said = String::new();
        while !expected.iter().all(|part| said.contains(part)) {
            let line = lines.next().unwrap_or_else(|| panic!("{what}: {expected:?}: {said}"));
            said = format!("{said}{line}\n");
        }
        let has_tunnel = expected.contains(&TUNNEL);
        assert_eq!((said.contains(TUNNEL), said.contains(HERE)), (has_tunnel, !has_tunnel), "{what}: {said}");
    });
    kill_process_group(Pid::from_child(&ksb), Signal::KILL).unwrap();
    ksb.wait().unwrap();
}

const TUNNEL: &str = "\nssh -N -L ";
const HERE: &str = "ksb: demo: sign in: http://localhost:";

#[test]
fn a_login_says_how_a_browser_gets_here_from_where_it_is() {
    let ssh = ("SSH_CONNECTION", "198.51.100.7 50022 192.0.2.1 2222");
    login_says("ssh", &[ssh], "sh", &[TUNNEL, "-p 2222 alice@192.0.2.1"]);
    let pane = &[("TMUX", "/tmp/tmux-0/default,7,0"), ("DISPLAY", ":0")];
    login_says("a tmux pane that was attached by ssh", pane, "sh", &[TUNNEL, "-p 2222 alice@192.0.2.1"]);
    login_says("sudo in an ssh session", &[], "sshd", &[TUNNEL, " alice@"]);
    login_says(
        "JupyterHub",
        &[("JUPYTERHUB_USER", "alice")],
        "sh",
        &[TUNNEL, "this terminal is in a browser"],
    );
    login_says("ttyd", &[], "ttyd", &[TUNNEL, "this terminal is in a browser", "sign_in: oidc_device"]);
    let editor = &[("BROWSER", "/nowhere/helpers/browser.sh"), ssh];
    login_says("VS Code by ssh", editor, "sh", &[HERE, "your editor opens the browser"]);
    login_says("WSL", &[("WSL_INTEROP", "/run/WSL/8_interop")], "sh", &[HERE, "Windows opens the browser"]);
    login_says("nothing", &[], "sh", &[HERE, "no browser is known here"]);
}

#[test]
fn the_sockets_are_ones_own_and_no_port_is_touched() {
    let (lab, cloud) = lab_at_9990();
    let sign_in = login(lab.api(), &cloud);
    let [callback, start] = forwards(&tunnel_of(&sign_in)).try_into().unwrap();
    assert_eq!((callback.port, &callback.socket), (9990, &lab.agent.folder().join("callback.sock")));
    assert_eq!(start.socket, lab.agent.folder().join("start.sock"));
    assert!(sign_in.url.starts_with(&format!("http://localhost:{}/start/", start.port)), "{}", sign_in.url);
    for forward in [&callback, &start] {
        let meta = fs::metadata(&forward.socket).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }
    let nobody = TcpStream::connect(("127.0.0.1", start.port)).map_err(|error| error.kind());
    assert_eq!(nobody.err(), Some(io::ErrorKind::ConnectionRefused));

    lab.api().delete(&format!("/v1/sign-ins/{}", sign_in.id));
    lab.api().over(&sign_in.id);
    assert!(!callback.socket.exists() && !start.socket.exists(), "nothing is left behind");
}

#[test]
fn two_users_of_one_server_never_meet_on_a_port() {
    let lab = Lab::new();
    // Another user of the server holds the port that both their clouds name.
    let _other = TcpListener::bind(("127.0.0.1", lab.port)).unwrap();
    lab.api().login(&lab.cloud()).problem("port-busy");
    assert_eq!(login(lab.api(), &lab.cloud()).json["state"], "waiting");
}

#[test]
fn sign_ins_of_one_port_share_the_sockets_and_the_tunnel() {
    let lab = Lab::new();
    let other = lab.cloud_with(|cloud| cloud["identity_provider"] = "other-idp".into());
    let (one, two) = (login(lab.api(), &lab.cloud()), login(lab.api(), &other));
    assert_eq!(tunnel_of(&one), tunnel_of(&two));
    let _tunnel = Tunnel::open(&tunnel_of(&one));
    let browser = Browser::of("alice");
    for sign_in in [&one, &two] {
        assert_eq!(browser.tab().sign_in(&sign_in.url).state, "done");
        assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
    }
    // The same command serves the next sign-in of the day.
    lab.clock.advance(3600);
    assert_eq!(tunnel_of(&login(lab.api(), &lab.cloud())), tunnel_of(&one));
}

#[test]
fn what_is_refused_at_a_port_is_refused_at_a_socket() {
    let lab = Lab::new();
    let sign_in = login(lab.api(), &lab.cloud());
    let _tunnel = Tunnel::open(&tunnel_of(&sign_in));
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let form = tab.go(&sign_in.url).unwrap();
    for url in [&sign_in.url, &lab.at_callback("/begin/x")] {
        let rebound = navigation("GET", url).set("Host", "evil.example");
        assert_eq!(rebound.send().status, 421, "{url}");
    }
    // A token that another tab brings.
    let stolen = crate::support::browser::Form::of(&lab.callback(), &lab.keystone.issue("mallory", LAB));
    let mut attacker = browser.tab();
    attacker.post(&stolen);
    assert_eq!(attacker.claim().state, "unproven");
    let foreign: Response = form.request().set("Origin", "https://evil.example").send();
    assert_eq!(foreign.status, 403);
    assert_eq!(lab.api().look(&sign_in.id)["state"], "waiting");
}

#[test]
fn a_socket_that_a_dead_agent_left_is_replaced_and_a_living_ones_is_not() {
    let (lab, cloud) = lab_at_9990();
    let path = lab.agent.folder().join("callback.sock");
    let living = UnixListener::bind(&path).unwrap();
    let refused = lab.api().post("/v1/sign-ins", &json!({"cloud": cloud, "remote": true}));
    assert!(refused.problem("port-busy")["detail"].as_str().unwrap().contains("callback.sock"));
    drop(living);
    assert!(path.exists());
    assert_eq!(login(lab.api(), &cloud).json["state"], "waiting");
}

#[test]
fn a_browser_that_the_person_configured_needs_no_other_machine() {
    let lab = Lab::with_config("browser = \"some-browser\"\n");
    let sign_in = login(lab.api(), &lab.cloud());
    assert_eq!((&sign_in.json["tunnel"], sign_in.opener), (&Value::Null, true));
}
