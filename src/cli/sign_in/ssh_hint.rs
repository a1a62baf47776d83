//! What a user calls this machine who is at the other end of an SSH session: the end of `ssh -N -L …`.

use std::{env, fs};

use crate::platform::browser::ssh_connection;

/// The last words of the `ssh` command, and which of them is only a guess: behind a gateway or by an alias of
/// `~/.ssh/config` the machine has another name there.
pub(in crate::cli) fn this_machine() -> (String, String) {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let hostname = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let user = set("USER").or_else(|| set("LOGNAME")).map_or(String::new(), |user| format!("{user}@"));
    let (address, port) =
        ssh_connection().as_deref().and_then(server).unwrap_or_else(|| (hostname(), String::new()));
    let guess = format!("{user}{address}");
    (format!("{port}{guess}"), guess)
}

/// `client-address client-port server-address server-port` (ssh(1)): the server's address, and the option for its port.
fn server(connection: &str) -> Option<(String, String)> {
    let mut words = connection.split(' ').skip(2);
    let (address, port) = (words.next()?, words.next()?);
    let option = if port == "22" { String::new() } else { format!("-p {port} ") };
    Some((address.to_owned(), option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_end_of_the_connection_is_what_to_connect_to() {
        let end = |text: &str| server(text);
        assert_eq!(end("198.51.100.7 50022 192.0.2.1 22"), Some(("192.0.2.1".into(), String::new())));
        assert_eq!(
            end("fe80::1%eth0 50022 2001:db8::1 2222"),
            Some(("2001:db8::1".into(), "-p 2222 ".into()))
        );
        assert_eq!(end("nonsense"), None);
    }
}
