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

/// Prints its process id, each signal that it is given the name of, and each line, and ends with its input. A shell would run a trap only after the
/// next line where the signal came just before it began to read; and two signals in a row would be one to `sigwait`.
const PRINTS_SIGNALS: &str = r#"
import os, signal, sys, threading
heard, hears = os.pipe()
os.set_blocking(hears, False)
signal.set_wakeup_fd(hears)
for each in sys.argv[1:]:
    signal.signal(signal.Signals["SIG" + each], lambda *_: None)
def read_lines():
    for line in sys.stdin:
        print("got", line.strip(), flush=True)
    os._exit(9)
print("process", os.getpid(), flush=True)
threading.Thread(target=read_lines).start()
while True:
    print(signal.Signals(os.read(heard, 1)[0]).name[3:], flush=True)
"#;

/// Where that program lies.
fn prints_signals(desk: &Desk) -> String {
    let file = desk.sandbox.path("prints-signals.py");
    fs::write(&file, PRINTS_SIGNALS).unwrap();
    file.display().to_string()
}

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
        ksb.args(exec).args(["demo", "--", "/usr/bin/python3", &prints_signals(desk)]);
        ksb.args(SIGNALS.map(|(_, name)| name));
        ksb.stdin(std::process::Stdio::piped());
        let mut ksb = start(ksb.process_group(0));
        let lines = lines_of(ksb.stdout.take().unwrap());
        let first = lines.recv_timeout(PATIENCE).unwrap();
        let pid = first.strip_prefix("process ").unwrap().parse().unwrap();
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
    for exec in [&[][..], &["--ephemeral"]] {
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
    let script = prints_signals(&desk);
    for agent in ["", "--ephemeral"] {
        let run = format!("exec {agent} demo -- /usr/bin/python3 {script} INT");
        let mut terminal = Terminal::run(&desk, &run, &desk.sandbox.path("home"));
        terminal.until("process ");
        terminal.press('\x03');
        terminal.until("INT");
        terminal.types("on\r");
        let seen = terminal.until("got on");
        assert!(!seen.contains("INT"), "{seen}");
        terminal.press('\x04');
        assert_eq!(terminal.end(), Some(9));
    }
}

#[test]
fn a_command_is_stopped_and_goes_on_as_a_job_of_the_shell() {
    let desk = Desk::new();
    let script = prints_signals(&desk);
    for agent in ["", "--ephemeral"] {
        let shell = "bash --norc --noprofile -i";
        let mut terminal = Terminal::run_program(&desk, shell, &desk.sandbox.path("home"));
        terminal.types(&format!("{KSB} exec {agent} demo -- /usr/bin/python3 {script} CONT\r"));
        terminal.until("process ");
        terminal.types("one\r");
        terminal.until("got one");
        terminal.press('\x1a');
        terminal.until("Stopped");
        terminal.until("bash-");
        terminal.types("echo be''tween\r");
        terminal.until("between");
        terminal.types("fg\r");
        terminal.until("CONT");
        terminal.types("two\r");
        terminal.until("got two");
        terminal.press('\x04');
        terminal.until("bash-");
        terminal.types("exit\r");
        assert_eq!(terminal.end(), Some(9), "the command's status is the shell's last one");
    }
}
