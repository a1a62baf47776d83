//! Changes of the computer's addresses and routes: what could not be reached may be reachable now.

use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::fd_limit;

/// Returns when an address or a route has changed; never where the kernel does not tell.
pub async fn changed() {
    let told = async { fd_limit::readable(listen()?)?.readable().await.map(drop) };
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
