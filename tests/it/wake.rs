//! After sleep, what was connected before is not used again: the first request does not wait for the dead.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use keystone_broker::model::Cloud;
use keystone_broker::outbound::{Outbound, Peer, send};
use reqwest::Method;
use serde_json::json;

use crate::support::clock::ManualClock;

/// A server that answers what comes on a connection until that is dead: then it says nothing any more, and does not end
/// it either. Returns its address, and the number of the connection of each answer.
fn server() -> (String, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (answered, answers) = channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let answered = answered.clone();
            thread::spawn(move || serve(&stream.unwrap(), number, &answered));
        }
    });
    (url, answers)
}

/// Two requests are the most that one connection carries.
fn serve(mut stream: &TcpStream, number: usize, answered: &Sender<usize>) {
    let mut lines = BufReader::new(stream).lines();
    for _ in 0..2 {
        if lines.by_ref().find(|line| line.as_ref().is_ok_and(String::is_empty)).is_none() {
            return;
        }
        answered.send(number).ok();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    }
    lines.for_each(drop);
}

#[tokio::test]
async fn the_first_request_after_sleep_uses_a_connection_of_its_own() {
    let clock = ManualClock::new();
    let (url, answers) = server();
    let cloud: Cloud =
        serde_json::from_value(json!({"name": "demo", "auth_url": url, "protocol": "openid"})).unwrap();
    let outbound = Outbound::new(clock.clone());
    // Whoever holds a client for long, as a grant does, has the same one.
    let client = outbound.client(&cloud).unwrap();
    let ask = || async { send(&cloud, Peer::Keystone, client.request(Method::GET, &url)).await.unwrap() };
    ask().await;
    ask().await;
    assert_eq!(
        (answers.recv().unwrap(), answers.recv().unwrap()),
        (0, 0),
        "awake, a connection is used again"
    );
    clock.advance(8 * 3600);
    let late = std::time::Duration::from_secs(20);
    tokio::time::timeout(late, ask()).await.expect("an answer at once");
    assert_eq!(answers.recv().unwrap(), 1);
}
