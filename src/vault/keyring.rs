//! The desktop's keyring, which keeps a vault's key: asked by a short-lived process of our own program, the helper.
//!
//! The keyring's store blocks, on a runtime whose threads stay for as long as their process lives, and a locked keyring
//! asks the user to unlock it, so an answer may never come. Both end with the helper. It is asked over the socket that is
//! its standard input; the key is in no argument and in no environment, and so no other process sees it.

pub(super) mod helper;
mod message;

use crate::error::reason;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use zeroize::Zeroizing;

use super::key::{Key, NoKey};
use crate::platform::current_exe;
use crate::sync::lock_unpoisoned;
use message::{Action, LARGEST, Reply, Request};

/// What a keyring knows a vault's key by, besides [`super::key::SERVICE`].
pub(super) fn item_name(id: &str) -> String {
    format!("vault {id}")
}

/// Asks the keyring, one question at a time.
#[derive(Default)]
pub(super) struct Keyring {
    helper: Mutex<Option<Child>>,
}

impl Keyring {
    /// Stores a vault's key.
    pub(super) fn store(&self, id: &str, key: &Key, patience: Duration) -> Result<(), NoKey> {
        self.ask(&Request { action: Action::Store(key.clone()), id: id.to_owned() }, patience).map(drop)
    }

    /// The key that was stored.
    pub(super) fn read(&self, id: &str, patience: Duration) -> Result<Key, NoKey> {
        self.ask(&Request { action: Action::Read, id: id.to_owned() }, patience)?.ok_or(NoKey::Gone)
    }

    /// Deletes the key, if it is there.
    pub(super) fn delete(&self, id: &str, patience: Duration) -> Result<(), NoKey> {
        self.ask(&Request { action: Action::Delete, id: id.to_owned() }, patience).map(drop)
    }

    /// Ends the helper, whether it has answered or not.
    pub(super) fn stop(&self) {
        if let Some(mut helper) = lock_unpoisoned(&self.helper).take() {
            helper.kill().ok();
            helper.wait().ok();
        }
    }

    fn ask(&self, request: &Request, patience: Duration) -> Reply {
        let failed =
            |error: io::Error| NoKey::Unavailable(format!("the process that asks it: {}", reason(&error)));
        let socket = self.start().map_err(failed)?;
        let reply = exchange(&socket, request, patience);
        self.stop();
        match reply {
            Ok(reply) => reply,
            Err(Errno::AGAIN) => {
                let why = format!("it did not answer within {} s; is it locked?", patience.as_secs());
                Err(NoKey::Unavailable(why))
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Starts the helper, from the file that this process runs: another program may lie in its place by now.
    fn start(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Held until `stop` can see it: what hands over to the next process waits.
        let mut helper = lock_unpoisoned(&self.helper);
        let started = Command::new(current_exe::OWN)
            .arg0("ksb")
            .args(["agent", "--keyring-helper"])
            .env_clear()
            .envs(current_exe::environment_of_an_agent())
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        *helper = Some(started);
        Ok(ours)
    }
}

/// Sends the request and waits for the reply: `EAGAIN` when the time is over.
fn exchange(socket: &OwnedFd, request: &Request, patience: Duration) -> rustix::io::Result<Reply> {
    send(socket, &request.encode(), SendFlags::NOSIGNAL)?;
    set_socket_timeout(socket, Timeout::Recv, Some(patience))?;
    let mut bytes = Zeroizing::new([0; LARGEST]);
    let (length, _) = retry_on_intr(|| recv(socket, &mut bytes[..], RecvFlags::empty()))?;
    // Nothing at all: it has ended.
    message::decode_reply(&bytes[..length]).ok_or(Errno::PIPE)
}
