//! The installed plugin finds the agent where `ksb` does.

use std::process::Command;

use super::front::stack;
use crate::support::machine::Machine;
use crate::support::sandbox::{Sandbox, end_of};
use crate::support::spawn;

const PLUGIN: &str = "from keystoneauth_broker import agent\n\
                      agent.ensure()\n\
                      print(agent.socket_path(), agent.call('GET', '/v1/status').body['pid'])";

#[test]
fn the_plugin_finds_and_starts_the_agent_where_ksb_does() {
    let mut sandbox = Sandbox::outside_tmp();
    let ksb = sandbox.path("ksb");
    sandbox.unset("XDG_RUNTIME_DIR").set("KSB", ksb);
    let missing = [("XDG_RUNTIME_DIR", "/run/user/99")];
    let other = [("XDG_RUNTIME_DIR", "/tmp/rt")];
    let usual = "/run/user/0";
    for (what, make, starts, asks) in [
        ("no runtime directory", "mkdir -m 700 /tmp/rt", &[][..], &missing[..]),
        ("one that is not there", "mkdir -m 700 /tmp/rt", &missing[..], &[][..]),
        ("one that came later", "mkdir -m 700 /tmp/rt", &missing[..], &other[..]),
        ("one of its own", "mkdir -m 700 /tmp/rt", &other[..], &other[..]),
        ("the usual one", "mkdir -p -m 700 /run/user/0", &[][..], &missing[..]),
    ] {
        let machine = Machine::start(&sandbox, make);
        let run = |mut command: Command, variables: &[(&str, &str)]| {
            end_of(spawn::start(command.envs(variables.iter().copied()))).ok().stdout
        };
        let python = |variables| {
            let mut python = machine.command(&stack("PYTHON"));
            python.args(["-c", PLUGIN]);
            run(python, variables)
        };
        let started = python(starts);
        assert_eq!(python(asks), started, "{what}");
        let (socket, pid) = started.trim().split_once(' ').unwrap();
        for variables in [starts, asks] {
            let status = run(machine.ksb(&["status"]), variables);
            let line = format!("(process {pid}), since");
            assert!(status.contains(&line) && status.contains(&format!(" at {socket}")), "{what}: {status}");
        }
        assert_eq!(socket.starts_with(usual), make.contains(usual), "{what}: {socket}");
    }
}
