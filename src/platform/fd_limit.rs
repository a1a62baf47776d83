//! The descriptors of a process: how many it may have open, and which of them others inherit.

use std::os::fd::OwnedFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// As many as the system allows: the usual soft limit of 1024 is there for programs that use select(2), and less than all
/// listeners together may need.
pub fn all() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of descriptors stays as it is");
    }
}

/// Tells when a descriptor of ours can be read.
pub fn readable(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "deprecated for descriptors that are not owned; this one is, and `register` is unsafe"
    )]
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// Marks all but the standard ones close-on-exec. Those that we open are; those that we inherited may not be.
pub fn close_on_exec() {
    close_fds::set_fds_cloexec(3, &[]);
}
