//! Whether connections that were made before may be dead: the computer slept meanwhile, or its addresses or routes are
//! others. Nobody watches for that: it is looked up when a connection is about to be used.

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::descriptors;
use crate::ports::SharedClock;
use crate::sync::locked;

/// The wall clock goes on while the computer sleeps, and the monotonic one does not. Far above what sets a clock right
/// by the way, far below what a connection survives.
const SLEEP: SignedDuration = SignedDuration::from_secs(5);

/// What is known of the network that connections were made in.
pub struct Network {
    clock: SharedClock,
    seen: Mutex<Seen>,
    /// The kernel's word on addresses and routes, kept there until we look.
    changes: Option<OwnedFd>,
}

struct Seen {
    era: u64,
    wall: Timestamp,
    awake: Instant,
}

impl Network {
    /// The network as it is now.
    pub fn new(clock: SharedClock) -> Self {
        let changes =
            listen().inspect_err(|error| tracing::debug!(%error, "network changes are not seen")).ok();
        Self::told_by(clock, changes)
    }

    fn told_by(clock: SharedClock, changes: Option<OwnedFd>) -> Self {
        let seen = Seen { era: 0, wall: clock.now(), awake: Instant::now() };
        Self { clock, seen: Mutex::new(seen), changes }
    }

    /// A number that is another one when connections of before may be dead.
    pub fn era(&self) -> u64 {
        let changed = self.changes.as_ref().is_some_and(has_changed);
        let mut seen = locked(&self.seen);
        let (wall, awake) = (self.clock.now(), Instant::now());
        let passed = SignedDuration::try_from(awake.duration_since(seen.awake)).unwrap_or_default();
        let slept = (wall.duration_since(seen.wall) - passed).abs() > SLEEP;
        *seen = Seen { era: seen.era + u64::from(slept || changed), wall, awake };
        seen.era
    }
}

/// Returns when an address or a route has changed; never where the kernel does not tell.
pub async fn changed() {
    let told = async { descriptors::readable(listen()?)?.readable().await.map(drop) };
    if told.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// rtnetlink(7), the groups of `linux/rtnetlink.h`.
fn listen() -> rustix::io::Result<OwnedFd> {
    const IPV4_ADDRESSES: u32 = 0x10;
    const IPV4_ROUTES: u32 = 0x40;
    const IPV6_ADDRESSES: u32 = 0x100;
    const IPV6_ROUTES: u32 = 0x400;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is protocol 0.
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let groups = IPV4_ADDRESSES | IPV4_ROUTES | IPV6_ADDRESSES | IPV6_ROUTES;
    bind(&kernel, &SocketAddrNetlink::new(0, groups))?;
    Ok(kernel)
}

/// Takes away all that is there. What found no room was a change too.
fn has_changed(kernel: &OwnedFd) -> bool {
    let mut changed = false;
    loop {
        match recv(kernel, &mut [0; 64], RecvFlags::DONTWAIT) {
            Ok(_) | Err(Errno::NOBUFS) => changed = true,
            Err(Errno::INTR) => {}
            Err(_) => return changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustix::net::{SendFlags, send, socketpair};

    use super::*;
    use crate::platform::clock::SystemClock;

    #[test]
    fn an_era_ends_with_the_kernels_word() {
        let (kernel, ours) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
        let network = Network::told_by(Arc::new(SystemClock), Some(ours));
        assert_eq!((network.era(), network.era()), (0, 0));
        for _ in 0..3 {
            send(&kernel, b"RTM_NEWROUTE", SendFlags::empty()).unwrap();
        }
        assert_eq!((network.era(), network.era()), (1, 1), "all that came since the last look is one change");
    }

    #[test]
    fn the_kernel_lets_us_listen() {
        assert!(listen().is_ok_and(|kernel| !has_changed(&kernel)));
    }
}
