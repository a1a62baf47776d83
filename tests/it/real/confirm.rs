//! `confirm` with the real `openstack`, the real Keystone, a real D-Bus daemon, and a desktop of the test's on it.

#![allow(clippy::used_underscore_binding, reason = "zbus's macro passes on what we do not look at")]

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::process::Signal;
use tokio::sync::Semaphore;
use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedValue;

use super::bus::Bus;
use super::front::Front;
use super::program::{Program, run};
use super::terminal::Terminal;
use super::wait;
use crate::support::desk::Desk;
use crate::support::sandbox::{KSB, end_of};

const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
const THIS: u32 = 7;

/// What its user does with a question.
#[derive(Clone, Copy)]
enum Does {
    Click(&'static str),
    Dismiss,
    Nothing,
    /// The program that shows it says so when it may.
    Dawdle(&'static Semaphore),
    /// The program that shows it does not even answer.
    Hang,
}

struct Desktop {
    does: Does,
    shown: Sender<String>,
    closed: Sender<u32>,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Desktop {
    async fn get_capabilities(&self) -> Vec<String> {
        if let Does::Hang = self.does {
            std::future::pending::<()>().await;
        }
        vec!["body".into(), "actions".into()]
    }

    #[allow(
        clippy::too_many_arguments,
        clippy::needless_pass_by_value,
        reason = "as the specification has it"
    )]
    async fn notify(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        _app: String,
        _replaces: u32,
        _icon: String,
        title: String,
        text: String,
        actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        expires: i32,
    ) -> u32 {
        assert_eq!((actions, expires), (["allow", "Allow", "deny", "Deny"].map(str::to_owned).to_vec(), 0));
        // Somebody allows what another program asks, and clicks on this one's text: neither is an answer.
        Self::action_invoked(&emitter, THIS + 1, "allow").await.unwrap();
        Self::action_invoked(&emitter, THIS, "default").await.unwrap();
        match self.does {
            Does::Click(action) => Self::action_invoked(&emitter, THIS, action).await.unwrap(),
            Does::Dismiss => Self::notification_closed(&emitter, THIS, 2).await.unwrap(),
            Does::Nothing | Does::Dawdle(_) | Does::Hang => {}
        }
        self.shown.send(format!("{title}\n{text}")).ok();
        if let Does::Dawdle(may) = self.does {
            may.acquire().await.unwrap().forget();
        }
        THIS
    }

    fn close_notification(&self, id: u32) {
        self.closed.send(id).ok();
    }

    #[zbus(signal)]
    async fn action_invoked(emitter: &SignalEmitter<'_>, id: u32, action: &str) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn notification_closed(emitter: &SignalEmitter<'_>, id: u32, why: u32) -> zbus::Result<()>;
}

/// A desktop on this bus, what it shows, and what is taken away again.
fn desktop(bus: &Bus, does: Does) -> (Connection, Receiver<String>, Receiver<u32>) {
    let ((shown, show), (closed, close)) = (channel(), channel());
    let builder = Builder::address(&*bus.address).unwrap().name(NAME).unwrap();
    let connection = builder.serve_at(PATH, Desktop { does, shown, closed }).unwrap().build().unwrap();
    (connection, show, close)
}

/// Somebody is signed in at a cloud that asks.
fn signed_in(bus: &Bus) -> Front {
    let mut front = Front::free();
    front.sandbox.set("DBUS_SESSION_BUS_ADDRESS", &bus.address);
    let config = front.sandbox.paths().config;
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("confirm = true\n{settings}")).unwrap();
    front.ksb(&["login"]).ok();
    front
}

#[test]
fn the_real_openstack_runs_when_its_person_allows_it_and_is_asked_about_by_name() {
    let bus = Bus::start();
    let (_desktop, shown, closed) = desktop(&bus, Does::Click("allow"));
    let front = signed_in(&bus);
    front.answer(&["token", "issue", "-f", "value", "-c", "project_id"]);
    let text = shown.recv_timeout(wait::LIMIT).unwrap();
    assert!(text.starts_with("demo: may openstack have a token?\nopenstack (process "), "{text}");
    assert!(text.contains("/python3") && text.contains(" asks for project demo"), "{text}");
    assert_eq!(closed.recv_timeout(wait::LIMIT), Ok(THIS));

    // Another run is another process; what holds a lease is asked about by its own name.
    let curl = "curl --silent --fail --output /dev/null --json \"{\\\"auth\\\": {\\\"identity\\\": {\\\"methods\\\": \
                [\\\"application_credential\\\"], \\\"application_credential\\\": {\\\"id\\\": \
                \\\"$OS_APPLICATION_CREDENTIAL_ID\\\", \\\"secret\\\": \\\"$OS_APPLICATION_CREDENTIAL_SECRET\\\"}}}}\" \
                $OS_AUTH_URL/auth/tokens; exit $?";
    front.ksb(&["exec", "demo", "--", "sh", "-c", curl]).ok();
    let text = shown.recv_timeout(wait::LIMIT).unwrap();
    assert!(text.starts_with("demo: may curl have a token?\n"), "{text}");
    assert!(text.contains("started by sh, ") && text.contains("It holds the lease "), "{text}");
}

#[test]
fn the_real_openstack_is_refused_when_its_person_says_no_or_takes_the_question_away() {
    for does in [Does::Click("deny"), Does::Dismiss] {
        let bus = Bus::start();
        let (_desktop, shown, _closed) = desktop(&bus, does);
        let front = signed_in(&bus);
        let refused = run(front.openstack(&["token", "issue"]));
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.stderr.contains("demo: demo is only for programs that you allow"),
            "{}",
            refused.stderr
        );
        shown.recv_timeout(wait::LIMIT).unwrap();
        let log = front.ksb(&["audit"]).ok().stdout;
        assert!(log.contains("confirmation REFUSED (confirmation-refused): demo"), "{log}");
    }
}

#[test]
fn no_other_program_on_the_bus_can_answer_in_the_persons_place() {
    let bus = Bus::start();
    let (_desktop, shown, _closed) = desktop(&bus, Does::Nothing);
    let front = signed_in(&bus);
    let asking = front.start(&["token"]);
    shown.recv_timeout(wait::LIMIT).unwrap();
    let stranger = Builder::address(&*bus.address).unwrap().build().unwrap();
    for _ in 0..50 {
        stranger.emit_signal(None::<&str>, PATH, NAME, "ActionInvoked", &(THIS, "allow")).unwrap();
    }
    // The bus has passed them on to whoever listens to strangers when it answers the next call.
    stranger
        .call_method(Some("org.freedesktop.DBus"), "/", Some("org.freedesktop.DBus"), "GetId", &())
        .unwrap();
    front.api().status();
    let log = front.ksb(&["audit"]).ok().stdout;
    assert!(!log.contains("confirmation"), "nobody has answered: {log}");
    asking.signal(Signal::INT);
    asking.ends();
}

#[test]
fn without_anybody_who_shows_questions_a_program_is_refused_at_once() {
    let bus = Bus::start();
    let front = signed_in(&bus);
    let refused = front.ksb(&["token"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("there is no desktop, and no `ksb confirm`, where you could be asked"),
        "{}",
        refused.stderr
    );
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
}

#[test]
fn a_desktop_that_hangs_is_as_good_as_none() {
    let bus = Bus::start();
    let (_desktop, _shown, _closed) = desktop(&bus, Does::Hang);
    let front = signed_in(&bus);
    let refused = front.ksb(&["token"]);
    assert!(refused.stderr.contains("there is no desktop"), "{}", refused.stderr);
}

#[test]
fn what_is_answered_at_a_terminal_is_taken_off_the_desktop() {
    static MAY: Semaphore = Semaphore::const_new(0);
    for does in [Does::Nothing, Does::Dawdle(&MAY)] {
        let bus = Bus::start();
        let (_desktop, shown, closed) = desktop(&bus, does);
        let front = signed_in(&bus);
        let mut terminal = Terminal::start(&front.sandbox, &format!("{KSB} confirm"), &[]);
        terminal.shows("asks here before a program gets a token");
        let program = front.start(&["token"]);
        shown.recv_timeout(wait::LIMIT).unwrap();
        terminal.shows("Allow? [y/N]");
        terminal.types("y\r");
        assert_eq!(program.ends().code, Some(0));
        // Also where the desktop's number for it comes later than the answer.
        if let Does::Dawdle(may) = does {
            may.add_permits(1);
        }
        assert_eq!(closed.recv_timeout(wait::LIMIT), Ok(THIS));
    }
}

#[test]
fn at_another_terminal_the_person_is_asked_where_there_is_no_desktop() {
    let bus = Bus::start();
    let front = signed_in(&bus);
    let mut terminal = Terminal::start(&front.sandbox, &format!("{KSB} confirm"), &[]);
    terminal.shows("asks here before a program gets a token");
    for (answer, works) in [("y\r", true), ("n\r", false)] {
        let program = Program::start(front.openstack(&["token", "issue"]));
        let question = terminal.shows("Allow? [y/N]");
        assert!(question.contains("demo: may openstack have a token?"), "{question}");
        assert!(question.contains(&format!("openstack (process {}", program.pid())), "{question}");
        terminal.types(answer);
        let outcome = program.ends();
        assert_eq!(outcome.code == Some(0), works, "{}", outcome.stderr);
    }
}

#[test]
fn who_asks_at_a_terminal_goes_with_it_and_with_the_agent() {
    let desk = Desk::new();
    // As a shell does it that was started by nohup(1).
    let asking = || {
        let command = format!("trap '' HUP; echo process=$$,; exec {KSB} confirm");
        let mut terminal = Terminal::start(&desk.sandbox, &command, &[]);
        let shown = terminal.shows("Ctrl-C ends it");
        let pid = shown.split("process=").nth(1).unwrap().split(',').next().unwrap().to_owned();
        (terminal, fs::canonicalize("/proc").unwrap().join(pid).join("cmdline"))
    };
    let (terminal, _) = asking();
    desk.run(&["agent", "stop"]).ok();
    let (screen, status) = terminal.ends();
    assert_eq!(status, Some(1), "{screen}");
    assert!(
        UnixStream::connect(desk.sandbox.paths().socket).is_err(),
        "it starts none in its place: {screen}"
    );

    let (terminal, itself) = asking();
    drop(terminal);
    wait::until("its end", || fs::read(&itself).unwrap_or_default().is_empty().then_some(()));
}

#[test]
fn what_was_typed_before_a_question_is_no_answer_to_it() {
    let desk = Desk::new();
    fs::write(desk.sandbox.paths().config, "vault = \"memory\"\nfacade_port = 0\nconfirm = true\n").unwrap();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let mut terminal = Terminal::start(&desk.sandbox, &format!("{KSB} confirm"), &[]);
    terminal.shows("asks here before a program gets a token");
    let first = desk.sandbox.start(&["token"]);
    terminal.shows("Allow? [y/N]");
    terminal.types(&"y\r".repeat(20));
    end_of(first).ok();
    let second = desk.sandbox.start(&["token"]);
    terminal.shows("Allow? [y/N]");
    terminal.types("n\r");
    let refused = end_of(second);
    assert!(refused.stderr.contains("you said no"), "{refused:?}");
}
