//! Who is at the other end of a loopback TCP connection, and who holds a port, as Linux tells it.
//!
//! Any user of the machine reaches loopback TCP. The kernel knows whose socket the peer's is:
//! `/proc/net/tcp` lists every socket of this network namespace with its owner.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The uid that owns the peer's socket of the connection `peer` → `local`; `None` when no living
/// socket of this network namespace is the other end.
pub fn uid_of(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let (local, peer) = (canonical(local), canonical(peer));
    // A closed socket lingers without an inode and as uid 0: that is nobody, not root.
    rows().find(|row| row.local == peer && row.remote == local && row.inode != 0).map(|row| row.uid)
}

/// Who listens on a loopback port, in words for an error message.
pub fn holder_of(port: u16) -> Option<String> {
    const LISTEN: u8 = 0x0a;
    let row = rows().find(|row| {
        let ip = row.local.ip();
        row.state == LISTEN && row.local.port() == port && (ip.is_loopback() || ip.is_unspecified())
    })?;
    let process = process_with_socket(row.inode);
    Some(process.unwrap_or_else(|| format!("a process of uid {}", row.uid)))
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

fn process_with_socket(inode: u64) -> Option<String> {
    let link = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        descriptors
            .find(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link.as_str()))?;
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(format!("{} (process {pid})", name.trim()))
    })
}

/// The loopback addresses to bind: both families, because `localhost` may be either.
pub const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn finds_the_owner_of_a_connection_in_both_families() {
        for address in LOOPBACK {
            let Ok(listener) = TcpListener::bind((address, 0)) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let me = rustix::process::getuid().as_raw();
            assert_eq!(uid_of(server.local_addr().unwrap(), peer), Some(me));
            drop(client);
        }
    }

    #[test]
    fn names_the_process_that_holds_a_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder_of(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }
}
