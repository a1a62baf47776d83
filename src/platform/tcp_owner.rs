//! Who is at the other end of a loopback TCP connection, and who holds a port, as Linux tells it.
//!
//! Any user of the machine reaches loopback TCP. The kernel knows whose socket the peer's is: it tells
//! the owner of one socket (sock_diag(7)), and `/proc/net/tcp` lists all of this network namespace.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, netlink, recv, send, socket_with,
};

/// The uid that owns the peer's socket of the connection `peer` → `local`; `None` when no living
/// socket of this network namespace is the other end.
pub fn uid_of(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    owner_of(local, peer).map(|(uid, _)| uid)
}

/// The inode of the peer's socket.
pub(super) fn inode_of(local: SocketAddr, peer: SocketAddr) -> Option<u64> {
    owner_of(local, peer).map(|(_, inode)| inode)
}

fn owner_of(local: SocketAddr, peer: SocketAddr) -> Option<(u32, u64)> {
    let (local, peer) = (canonical(local), canonical(peer));
    let (uid, inode) = match ask(local, peer) {
        Ok(owner) => owner?,
        // Sandboxes and old kernels have no sock_diag.
        Err(_) => listed(local, peer)?,
    };
    // A closed socket lingers without an inode and as uid 0: that is nobody, not root.
    (inode != 0).then_some((uid, inode))
}

/// Uid and inode of the socket `peer` → `local`, asked for by its addresses: to list all sockets takes the kernel
/// milliseconds, and a flood of connections would keep the agent from everything else.
fn ask(local: SocketAddr, peer: SocketAddr) -> rustix::io::Result<Option<(u32, u64)>> {
    const BY_FAMILY: u16 = 20;
    const ERROR: u16 = 2;
    const REMOTE_PORT: Range<usize> = 22..24;
    const UID: usize = 80;
    const INODE: usize = 84;
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&kernel, &question(BY_FAMILY, local, peer), SendFlags::empty())?;
    let mut answer = [0; 512];
    let (length, _) = recv(&kernel, &mut answer, RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let kind = answer.get(4..6).and_then(|kind| Some(u16::from_ne_bytes(kind.try_into().ok()?)));
    let owner = word(UID).zip(word(INODE)).map(|(uid, inode)| (uid, u64::from(inode)));
    // Without such a connection the kernel tells who listens at the peer's address: that is nobody's other end.
    let connected = answer.get(REMOTE_PORT) == Some(&local.port().to_be_bytes());
    let errno = word(16).map(u32::cast_signed).unwrap_or_default();
    match kind {
        Some(BY_FAMILY) if owner.is_some() => Ok(owner.filter(|_| connected)),
        Some(ERROR) if -errno == Errno::NOENT.raw_os_error() => Ok(None),
        _ => Err(Errno::PROTO),
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` for the TCP socket `peer` → `local`.
fn question(kind: u16, local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = 72;
    const REQUEST: u16 = 1;
    const ANY_STATE: u32 = u32::MAX;
    const NO_COOKIE: [u8; 8] = [0xff; 8];
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    let protocol = u8::try_from(ipproto::TCP.as_raw().get()).unwrap_or_default();
    let mut question = Vec::with_capacity(72);
    question.extend(LENGTH.to_ne_bytes());
    question.extend(kind.to_ne_bytes());
    question.extend(REQUEST.to_ne_bytes());
    question.extend([0; 8]);
    question.extend([family, protocol, 0, 0]);
    question.extend(ANY_STATE.to_ne_bytes());
    question.extend(peer.port().to_be_bytes());
    question.extend(local.port().to_be_bytes());
    question.extend(address_bytes(peer.ip()));
    question.extend(address_bytes(local.ip()));
    question.extend([0; 4]);
    question.extend(NO_COOKIE);
    question
}

fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Uid and inode of the socket `peer` → `local` by proc(5), for where the kernel cannot be asked.
pub fn listed(local: SocketAddr, peer: SocketAddr) -> Option<(u32, u64)> {
    rows().find(|row| row.local == peer && row.remote == local).map(|row| (row.uid, row.inode))
}

/// Who listens on a loopback port, in words for an error message.
pub fn holder_of(port: u16) -> Option<String> {
    let row = listener_at(port)?;
    let Some(pid) = holder_of_socket(row.inode, &[]) else {
        // Unless it has let go meanwhile.
        let still = listener_at(port).filter(|still| still.inode == row.inode);
        return still.map(|row| format!("a process of uid {}", row.uid));
    };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (process {pid})", name.trim()))
}

/// Whether a process of this user listens there: no other one is ours to end.
pub fn is_held_by_us(port: u16) -> bool {
    listener_at(port).is_some_and(|row| row.uid == rustix::process::getuid().as_raw())
}

fn listener_at(port: u16) -> Option<Row> {
    const LISTEN: u8 = 0x0a;
    rows().find(|row| {
        let ip = row.local.ip();
        row.state == LISTEN && row.local.port() == port && (ip.is_loopback() || ip.is_unspecified())
    })
}

struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

fn rows() -> impl Iterator<Item = Row> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"].into_iter().flat_map(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(parse_row).collect::<Vec<_>>()
    })
}

/// `sl local_address rem_address st tx:rx tr:tm->when retrnsmt uid timeout inode …` (proc(5)).
fn parse_row(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = parse_address(fields.next()?)?;
    let remote = parse_address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let mut rest = fields.skip(3);
    let uid = rest.next()?.parse().ok()?;
    let inode = rest.nth(1)?.parse().ok()?;
    Some(Row { local, remote, state, uid, inode })
}

/// Words of four bytes in the machine's own order, then the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let bytes: Vec<u8> = (0..address.len() / 8)
        .map(|word| u32::from_str_radix(address.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()?
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

/// A v6 socket that speaks v4 shows mapped addresses; compare them as v4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A process that holds the socket: one of the `likely`, or any.
pub(super) fn holder_of_socket(inode: u64, likely: &[u32]) -> Option<u32> {
    let link = format!("socket:[{inode}]");
    let holds = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors.is_ok_and(|mut descriptors| {
            descriptors.any(|fd| {
                let target = fd.and_then(|fd| fs::read_link(fd.path()));
                target.is_ok_and(|target| target.as_os_str() == link.as_str())
            })
        })
    };
    likely.iter().copied().find(holds).or_else(|| {
        let processes = fs::read_dir("/proc").ok()?.flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(holds)
    })
}

/// The loopback addresses to bind: both families, because `localhost` may be either.
pub const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_listens_where_a_connection_came_from_is_not_its_owner() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(uid_of(here.local_addr().unwrap(), there.local_addr().unwrap()), None);
    }

    #[test]
    fn names_the_process_that_holds_a_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder_of(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }
}
