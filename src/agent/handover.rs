//! How a process hands over to a fresh one in its place: by execve(2), so that nothing of its memory is left but what it
//! packed.
//!
//! The process id stays, and with it what a service manager knows. The sockets stay bound, so whoever connects meanwhile
//! waits in the kernel's queue. They go by SCM_RIGHTS (unix(7)) over the standard input, which makes them descriptors that
//! somebody owns: numbers in the environment would be anybody's word.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::stdio::{dup2_stdin, stdin};
use zeroize::Zeroizing;

use super::sockets::{ApiSocket, Sockets};
use crate::broker::Departure;
use crate::error::{Code, Error, Result, reason};
use crate::platform::current_exe;

/// Lock, memory, the API's socket, the facade's on both loopback addresses.
const MOST: usize = 5;

/// What one process leaves to the next.
pub(super) struct Estate {
    pub(super) sockets: Sockets,
    /// What the broker packed, if there was one before.
    pub(super) packed: Option<Zeroizing<Vec<u8>>>,
}

/// Makes room. Returns only if that fails.
pub(super) fn leave(estate: &Estate, departure: Departure) -> Error {
    if departure == Departure::Upgrade {
        let newer = current_exe::path();
        // Half installed, for another machine, on a disk that runs nothing: then nothing is lost but the upgrade.
        tracing::error!(error = reason(&execute(&newer, estate)), program = %newer.display(), "it could not take over");
    }
    let error = execute(current_exe::OWN.as_ref(), estate);
    Error::io(format_args!("{} could not take over", current_exe::OWN), &error)
}

fn execute(program: &Path, estate: &Estate) -> io::Error {
    let ours = match give(estate) {
        Ok(ours) => ours,
        Err(error) => return error,
    };
    Command::new(program)
        .arg0("ksb")
        .args(["agent", "--handed"])
        .env_clear()
        .envs(current_exe::environment_of_an_agent().filter(|(name, _)| name != "LISTEN_FDS"))
        .stdin(Stdio::from(ours))
        .exec()
}

fn give(estate: &Estate) -> io::Result<OwnedFd> {
    let Sockets { api: ApiSocket { lock, listener, is_ours, .. }, facade } = &estate.sockets;
    let mut memory = File::from(memfd_create("ksb", MemfdFlags::CLOEXEC)?);
    memory.write_all(estate.packed.as_ref().map_or(&[], |packed| &packed[..]))?;
    memory.rewind()?;
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![lock.as_fd(), memory.as_fd(), listener.as_fd()];
    descriptors.extend(facade.iter().flatten().map(AsFd::as_fd));
    let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&ours, &[IoSlice::new(&[u8::from(*is_ours)])], &mut message, SendFlags::empty())?;
    Ok(theirs)
}

/// Takes what the process before us left.
pub(super) fn take() -> Result<Estate> {
    let not_by_hand = |why: &str| {
        Error::new(Code::InvalidRequest, format!("nothing was handed over: {why}")).remedy("ksb agent run")
    };
    let (mut descriptors, is_ours) = receive().map_err(|error| not_by_hand(&reason(&error)))?;
    let mut next = || descriptors.next().ok_or_else(|| not_by_hand("descriptors are missing"));
    let (lock, memory, listener) = (File::from(next()?), next()?, next()?.into());
    let facade: Vec<_> = descriptors.map(Into::into).collect();
    let mut packed = Zeroizing::new(Vec::new());
    File::from(memory).read_to_end(&mut packed).map_err(|error| not_by_hand(&reason(&error)))?;
    // Without a facade of its own the process before us had a reason, which may be over.
    let facade = if facade.is_empty() { Err("there was none".to_owned()) } else { Ok(facade) };
    let api = ApiSocket::new(lock, listener, is_ours);
    Ok(Estate { sockets: Sockets { api, facade }, packed: Some(packed) })
}

fn receive() -> io::Result<(std::vec::IntoIter<OwnedFd>, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stdin(), &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(given) = part {
            descriptors.extend(given);
        }
    }
    dup2_stdin(rustix::fs::open("/dev/null", OFlags::RDONLY, rustix::fs::Mode::empty())?)?;
    Ok((descriptors.into_iter(), byte == [1]))
}
