//! Signals under `ksb exec`: the command gets each of them once, however it is sent, as it would without `ksb`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::sync::mpsc::Receiver;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::cli::Terminal;
use crate::exec::lines_of;
use crate::support::desk::Desk;
use crate::support::http::PATIENCE;
use crate::support::sandbox::{KSB, end_of};
use crate::support::spawn::start;

const SIGNALS: [(Signal, &str); 6] = [
    (Signal::INT, "INT"),
    (Signal::QUIT, "QUIT"),
    (Signal::HUP, "HUP"),
    (Signal::USR1, "USR1"),
    (Signal::USR2, "USR2"),
    (Signal::TERM, "TERM"),
];

/// Prints each signal, and ends with its input.
const PRINTS_SIGNALS: &str = "for each in INT QUIT HUP USR1 USR2 TERM; do trap \"echo $each\" $each; done; \
    echo $$; while :; do read line || exit 9; echo $line; done";

/// How a signal is sent.
#[derive(Debug, Clone, Copy)]
enum To {
    /// `kill PID`
    Process,
    /// As `timeout` and CI runners do it.
    Group,
    /// One by one to all that are in it, as systemd does it.
    ControlGroup,
}

/// A command that prints the signals that it gets, and the lines that it reads.
struct Command {
    ksb: Child,
    lines: Receiver<String>,
    pid: Pid,
}

impl Command {
    fn under(desk: &Desk, exec: &[&str]) -> Self {
        let mut ksb = desk.sandbox.ksb(&["exec"]);
        ksb.args(exec).args(["demo", "--", "bash", "-c", PRINTS_SIGNALS]).stdin(std::process::Stdio::piped());
        let mut ksb = start(ksb.process_group(0));
        let lines = lines_of(ksb.stdout.take().unwrap());
        let pid = lines.recv_timeout(PATIENCE).unwrap().parse().unwrap();
        Self { ksb, lines, pid: Pid::from_raw(pid).unwrap() }
    }

    fn send(&self, signal: Signal, to: To) {
        let ksb = Pid::from_child(&self.ksb);
        match to {
            To::Process => kill_process(ksb, signal).unwrap(),
            To::Group => kill_process_group(ksb, signal).unwrap(),
            To::ControlGroup => {
                // On a busy machine this may take longer than ksb waits for the others' turn.
                kill_process(ksb, Signal::STOP).unwrap();
                kill_process(ksb, signal).unwrap();
                for child in children_of(ksb) {
                    kill_process(child, signal).unwrap();
                }
                kill_process(ksb, Signal::CONT).unwrap();
            }
        }
    }

    #[track_caller]
    fn says(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }
}

fn children_of(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap()).unwrap()).collect()
}

#[test]
fn a_command_gets_each_signal_once_however_it_is_sent() {
    let desk = Desk::new();
    for exec in [&[][..], &["--no-agent"]] {
        let mut command = Command::under(&desk, exec);
        let is_ksb = command.pid == Pid::from_child(&command.ksb);
        assert_eq!(is_ksb, exec.is_empty(), "ksb becomes the command");
        for (signal, name) in SIGNALS {
            for to in [To::Process, To::Group, To::ControlGroup] {
                command.send(signal, to);
                assert_eq!(command.says(), name, "{exec:?} {to:?}");
                // Signals are passed on in the order that they were sent in: a second one would come before this.
                let (mark, mark_name) = if signal == Signal::USR1 { SIGNALS[4] } else { SIGNALS[3] };
                command.send(mark, To::Process);
                assert_eq!(command.says(), mark_name, "{exec:?} {to:?}: {name} came twice");
            }
        }
        drop(command.ksb.stdin.take());
        assert_eq!(end_of(command.ksb).code, Some(9));
    }
}

#[test]
fn a_key_at_the_terminal_reaches_a_command_once_and_it_decides() {
    let desk = Desk::new();
    let script = r#"trap "n=\$((n+1))" INT; echo READY; while ! read line; do :; done; echo "$n signal; $line"; exit 7"#;
    for agent in ["", "--no-agent"] {
        let run = format!("exec {agent} demo -- sh -c '{script}'");
        let mut terminal = Terminal::run(&desk, &run, &desk.sandbox.path("home"));
        terminal.until("READY");
        terminal.press('\x03');
        for key in "on\r".chars() {
            terminal.press(key);
        }
        terminal.until("1 signal; on");
        assert_eq!(terminal.end(), Some(7));
    }
}

#[test]
fn a_command_is_stopped_and_goes_on_as_a_job_of_the_shell() {
    let desk = Desk::new();
    let script = "trap 'echo goes on' CONT; echo starts; while read line; do echo got $line; done";
    fs::write(desk.sandbox.path("home/job"), script).unwrap();
    for agent in ["", "--no-agent"] {
        let shell = "bash --norc --noprofile -i";
        let mut terminal = Terminal::run_program(&desk, shell, &desk.sandbox.path("home"));
        terminal.types(&format!("{KSB} exec {agent} demo -- bash job\r"));
        terminal.until("starts");
        terminal.types("one\r");
        terminal.until("got one");
        terminal.press('\x1a');
        terminal.until("Stopped");
        terminal.types("echo be''tween\r");
        terminal.until("between");
        terminal.types("fg\r");
        terminal.until("goes on");
        terminal.types("two\r");
        terminal.until("got two");
        terminal.press('\x04');
        terminal.until("bash-");
        terminal.types("exit\r");
        assert_eq!(terminal.end(), Some(0));
    }
}
