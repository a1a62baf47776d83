//! The one Chromium of this process (`tests/stack/shared-browser.mjs`), with a window for each sign-in. It ends when
//! its standard input does, and so with this process.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::front::stack;
use super::wait;
use crate::support::spawn;

struct Chromium {
    socket: PathBuf,
    _ends_with_it: ChildStdin,
}

/// The socket at which it takes sign-ins.
pub fn socket() -> &'static Path {
    static CHROMIUM: OnceLock<Chromium> = OnceLock::new();
    &CHROMIUM.get_or_init(start).socket
}

fn start() -> Chromium {
    let socket = Path::new(&stack("DIR")).join(format!("run/browser-{}.sock", std::process::id()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/shared-browser.mjs");
    let mut node = Command::new("node");
    node.arg(script).arg(&socket).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = spawn::raw(&mut node);
    let mut ready = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n", "the browser's server did not start");
    let ends_with_it = node.stdin.take().unwrap();
    std::thread::spawn(move || node.wait());
    Chromium { socket, _ends_with_it: ends_with_it }
}

/// Opens the address in a window of `user`, whose sign-ins `profile` keeps; the last page's state.
pub fn sign_in(url: &str, user: &str, profile: &Path) -> String {
    let stream = UnixStream::connect(socket()).unwrap();
    stream.set_read_timeout(Some(wait::LIMIT)).unwrap();
    let wanted = json!({"url": url, "user": user, "profile": profile, "milliseconds": 60_000});
    writeln!(&stream, "{wanted}").unwrap();
    for line in BufReader::new(stream).lines() {
        let said: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert!(said["broken"].is_null(), "{said}");
        if let Some(state) = said["end"]["state"].as_str() {
            assert_ne!(state, "stuck", "{said}");
            return state.to_owned();
        }
    }
    panic!("the browser hung up");
}
