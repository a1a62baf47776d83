//! Who is at the other end of a connection.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use keystone_broker::platform::tcp_owner::{LOOPBACK, listed, uid_of};

use crate::support::lab::until;
use crate::support::skip::{has_ipv6, skip};

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

#[test]
fn the_owner_of_a_connection_is_found() {
    finds_the_owner_at(LOOPBACK[0]);
}

#[test]
fn the_owner_of_a_connection_is_found_in_ipv6() {
    if !has_ipv6() {
        skip!("IPv6 on loopback");
    }
    finds_the_owner_at(LOOPBACK[1]);
}

#[track_caller]
fn finds_the_owner_at(address: IpAddr) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, peer) = listener.accept().unwrap();
    let local = server.local_addr().unwrap();
    assert_eq!(uid_of(local, peer), Some(me()));
    // Both ways of asking say the same.
    assert_eq!(listed(local, peer).map(|(uid, _inode)| uid), Some(me()));
    drop(client);
    drop(server);
    // A child that another test is starting has it too, until it executes its program.
    until("its end is closed", || uid_of(local, peer).is_none());
}

#[test]
fn an_ipv6_socket_that_speaks_ipv4_has_an_owner_too() {
    if !has_ipv6() {
        skip!("IPv6 on loopback");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port)).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(uid_of(server.local_addr().unwrap(), peer), Some(me()));
}
