//! `ksb setup` in a terminal, from nothing but an address: ends with a sign-in in Chromium, and the unmodified `openstack` works.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::front::{Front, stack};
use super::terminal::Terminal;
use crate::support::sandbox::KSB;
use crate::support::spawn;

fn start(front: &Front, address: &str) -> Terminal {
    let (port, ca) = (front.callback_port(), stack("CA"));
    let line = format!("{KSB} setup {address} --cacert {ca} --redirect-port {port}");
    Terminal::start(&front.sandbox, &line, &[("BROWSER", &stack("BROWSER"))])
}

/// The user trusts it, signs in, chooses a project, and has it written. What the screen showed, and the project.
fn goes_on(mut terminal: Terminal) -> String {
    terminal.shows("Trust this Keystone, and sign in there? [y/N] ");
    terminal.types("y\r");
    terminal.shows("Name of the entry [");
    terminal.types("new\n");
    terminal.shows("signed in as ");
    let listed = terminal.shows("Which one [1]: ");
    let line = listed
        .lines()
        .find(|line| line.trim_end().ends_with("  staging"))
        .unwrap_or_else(|| panic!("{listed}"));
    let number = line.split_whitespace().next().unwrap().to_owned();
    terminal.types(&format!("{number}\n"));
    terminal.shows("Write it? [y/N] ");
    terminal.types("y\r");
    let (screen, code) = terminal.ends();
    assert_eq!(code, Some(0), "{screen}");
    screen
}

fn works(front: &Front, before: &str) {
    let file = front.sandbox.path("home/.config/openstack/clouds.yaml");
    let after = fs::read_to_string(file).unwrap();
    let others: String =
        after.split_inclusive('\n').filter(|line| !line.trim_end().ends_with("# ksb setup")).collect();
    assert_eq!(others, before);
    let token = front.answer(&["--os-cloud", "new", "token", "issue", "-f", "value", "-c", "id"]);
    let token = front.keystone.look_at(&token).unwrap();
    assert_eq!(
        (&token["user"]["name"], &token["project"]["name"]),
        (&front.user().into(), &"staging".into())
    );
    assert_eq!(front.browsers_opened(), 1, "the sign-in that tried it is the one that counts");
}

fn clouds(front: &Front) -> String {
    fs::read_to_string(front.sandbox.path("home/.config/openstack/clouds.yaml")).unwrap()
}

#[test]
fn from_an_auth_url() {
    let front = Front::free();
    let before = clouds(&front);
    let mut terminal = start(&front, &front.auth_url());
    terminal.shows("Federation protocol [openid]: ");
    terminal.types("\n");
    terminal.shows("Identity provider, by Keystone's name for it");
    terminal.types("lab-idx\x7fp\n");
    let screen = goes_on(terminal);
    assert!(screen.contains("identity provider  lab-idp"), "{screen}");
    works(&front, &before);
}

/// A real Horizon before this front's Keystone; it ends with its input.
struct Horizon {
    child: Child,
    port: u16,
}

impl Horizon {
    fn before(front: &Front) -> Self {
        let mut horizon = front.sandbox.command(stack("HORIZON_PYTHON"));
        horizon.args(["-W", "ignore", &stack("HORIZON")]).env("KSB_HORIZON_KEYSTONE", front.auth_url());
        horizon.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn::raw(&mut horizon);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self {
            port: line.trim().parse().unwrap_or_else(|_| panic!("Horizon does not start: {line:?}")),
            child,
        }
    }
}

impl Drop for Horizon {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

#[test]
fn from_the_address_of_a_real_horizon() {
    let front = Front::free();
    let horizon = Horizon::before(&front);
    let before = clouds(&front);
    let mut terminal = start(&front, &format!("http://127.0.0.1:{}/", horizon.port));
    let offered = terminal.shows("Which one [1]: ");
    let keystone = front.auth_url();
    let lab = format!("1  The Lab: identity provider lab-idp, protocol openid, Keystone at {keystone}");
    let saml = format!("2  SAML: protocol saml2, Keystone at {keystone}");
    assert!(offered.contains(&lab) && offered.contains(&saml), "{offered}");
    terminal.types("1\n");
    let screen = goes_on(terminal);
    assert!(screen.contains("it names a Keystone on another host"), "{screen}");
    works(&front, &before);
}
