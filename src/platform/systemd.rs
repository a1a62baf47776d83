//! The user's service manager: systemd's user instance, where there is one.

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use directories::BaseDirs;

/// What the units are called.
pub const SERVICE: &str = "keystone-broker.service";
/// The unit that is enabled: it starts the service when somebody connects.
pub const SOCKET: &str = "keystone-broker.socket";

const SERVICE_UNIT: &str = include_str!("../../packaging/systemd/keystone-broker.service");
const SOCKET_UNIT: &str = include_str!("../../packaging/systemd/keystone-broker.socket");
const AUTOSTART: &str = include_str!("../../packaging/systemd/keystone-broker.desktop");

/// Whether the user has an instance that answers.
pub fn is_there() -> bool {
    // "degraded" is an answer too, with a status of its own.
    systemctl(&["show", "--property=Version"]).is_ok_and(|output| output.status.success())
}

/// Runs `systemctl --user`.
pub fn systemctl(args: &[&str]) -> io::Result<Output> {
    Command::new("systemctl").arg("--user").args(args).stdin(Stdio::null()).output()
}

/// The units with their texts, for a program and a port of the facade. A port of 0 is left to the agent.
pub fn units(program: &Path, port: u16) -> [(&'static str, String); 2] {
    let mut facade = String::new();
    if port != 0 {
        facade = format!("ListenStream=127.0.0.1:{port}\n");
        // Both addresses, so that no stranger takes the other; where the machine has both.
        if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            facade = format!("{facade}ListenStream=[::1]:{port}\nBindIPv6Only=ipv6-only\n");
        }
    }
    [
        (SERVICE, SERVICE_UNIT.replace("@ksb@", &quoted(program))),
        (SOCKET, SOCKET_UNIT.replace("@facade@\n", &facade)),
    ]
}

/// A word of `ExecStart=` (systemd.service(5), "Command lines"; specifiers are doubled).
fn quoted(program: &Path) -> String {
    let text = program.display().to_string().replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('$', "$$"))
}

/// What a desktop without systemd starts at the login (Desktop Application Autostart Specification).
pub fn autostart(program: &Path) -> String {
    // Desktop Entry Specification, "The Exec key".
    let text = program.display().to_string();
    let quoted: String = text
        .chars()
        .flat_map(|char| ['\\'].into_iter().filter(move |_| "\"`$\\".contains(char)).chain([char]))
        .collect();
    AUTOSTART.replace("@ksb@", &format!("\"{}\"", quoted.replace('\\', "\\\\").replace('%', "%%")))
}

/// Where a user's units lie, and the autostart file.
pub fn places() -> Option<(PathBuf, PathBuf)> {
    let config = BaseDirs::new()?.config_dir().to_owned();
    Some((config.join("systemd/user"), config.join("autostart/keystone-broker.desktop")))
}

/// Whether the user's services live on after their last session (loginctl(1), enable-linger); nothing where there is no
/// logind.
pub fn lingers() -> Option<bool> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let uid = rustix::process::getuid().as_raw().to_string();
    let name = fs::read_to_string("/etc/passwd").ok().and_then(|users| {
        let mut users = users.lines().map(|user| user.split(':').collect::<Vec<_>>());
        users.find(|user| user.get(2) == Some(&uid.as_str())).map(|user| user[0].to_owned())
    });
    let name = name.or_else(|| std::env::var("USER").ok())?;
    Some(Path::new("/var/lib/systemd/linger").join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_keep_their_names_in_units_and_desktop_files() {
        let program = Path::new("/opt/my \"100%\" $HOME/ksb");
        let [(_, service), (_, socket)] = units(program, 0);
        assert!(service.contains("ExecStart=\"/opt/my \\\"100%%\\\" $$HOME/ksb\" agent run\n"), "{service}");
        assert!(!socket.contains("127.0.0.1"), "{socket}");
        let exec = autostart(program);
        assert!(exec.contains("Exec=\"/opt/my \\\\\"100%%\\\\\" \\\\$HOME/ksb\" agent start\n"), "{exec}");
    }

    #[test]
    fn a_port_is_held_on_loopback_only() {
        let [_, (_, socket)] = units(Path::new("/usr/bin/ksb"), 21_000);
        let listens = socket.lines().filter_map(|line| line.strip_prefix("ListenStream="));
        for address in listens.filter(|address| address.contains("21000")) {
            assert!(["127.0.0.1:21000", "[::1]:21000"].contains(&address), "{socket}");
        }
        assert!(socket.contains("ListenStream=127.0.0.1:21000\n"), "{socket}");
    }
}
