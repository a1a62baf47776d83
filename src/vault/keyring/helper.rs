//! The helper's half: it does one thing at the Secret Service, answers, and ends.

use std::os::fd::BorrowedFd;
use std::thread;

use keyring_core::Error as KeyringError;
use keyring_core::api::CredentialStoreApi;
use rustix::net::sockopt::socket_type;
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send};
use rustix::stdio::stdin;
use zbus_secret_service_keyring_store::Store;
use zeroize::Zeroizing;

use super::super::key::{Key, NoKey, SERVICE};
use super::item_name;
use super::message::{Action, LARGEST, Reply, Request, encode_reply};
use crate::error::{Code, Error, Result};
use crate::platform::hardening;

/// Asks the keyring what the agent wants to know. Blocks.
pub fn run() -> Result<()> {
    // Before there is a key in this process.
    hardening::process();
    let agent = stdin();
    let request = receive(agent).ok_or_else(|| {
        let why = "only the agent starts its keyring helper, with a socket for its standard input";
        Error::new(Code::InvalidRequest, why).remedy("ksb vault")
    })?;
    thread::spawn(move || {
        // The agent says no more: it has ended, or does not wait any longer.
        recv(agent, &mut [0], RecvFlags::empty()).ok();
        std::process::exit(1);
    });
    // The store blocks on a runtime of its own, and this thread may have one already.
    let asking = thread::spawn(move || ask(request));
    let reply = asking.join().map_err(|_| Error::new(Code::Internal, "the keyring's store panicked"))?;
    send(agent, &encode_reply(&reply), SendFlags::NOSIGNAL)
        .map_err(|error| Error::io("the agent", &error))?;
    Ok(())
}

/// Nothing where the standard input is no socket of an agent's.
fn receive(agent: BorrowedFd<'_>) -> Option<Request> {
    if socket_type(agent) != Ok(SocketType::SEQPACKET) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; LARGEST]);
    let (length, _) = recv(agent, &mut bytes[..], RecvFlags::empty()).ok()?;
    Request::decode(&bytes[..length])
}

fn ask(request: Request) -> Reply {
    let store = Store::new().map_err(|error| {
        tracing::debug!(%error, "no Secret Service");
        NoKey::Unavailable("there is none in this session".into())
    })?;
    let entry = store.build(SERVICE, &item_name(&request.id), None).map_err(no_key)?;
    match request.action {
        Action::Store(key) => entry.set_secret(key.bytes()).map_err(no_key).map(|()| None),
        Action::Read => {
            let bytes = Zeroizing::new(entry.get_secret().map_err(no_key)?);
            Key::of(&bytes).ok_or(NoKey::Gone).map(Some)
        }
        Action::Delete => entry.delete_credential().map_err(no_key).map(|()| None),
    }
}

fn no_key(error: KeyringError) -> NoKey {
    match error {
        KeyringError::NoEntry => NoKey::Gone,
        KeyringError::NoStorageAccess(_) => NoKey::Unavailable("it is locked".into()),
        other => NoKey::Unavailable(innermost(&other)),
    }
}

/// What is at the bottom of an error: the layers above it only say that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
