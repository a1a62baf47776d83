//! Each request to a cloud has a connection of its own: one that died unseen, as in a sleep, takes none with it, and
//! nothing is sent twice.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use keystone_broker::error::Code;
use keystone_broker::http_client::{Outbound, Peer, send};
use keystone_broker::model::Cloud;
use reqwest::Method;
use serde_json::json;

use crate::support::clock::ManualClock;

/// A server that keeps connections open, and answers so many requests on each. Returns its address, and the number of
/// the connection of each request.
fn server(answers: usize) -> (String, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (heard, requests) = channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let heard = heard.clone();
            thread::spawn(move || serve(&stream.unwrap(), number, answers, &heard));
        }
    });
    (url, requests)
}

fn serve(mut stream: &TcpStream, number: usize, answers: usize, heard: &Sender<usize>) {
    let mut lines = BufReader::new(stream).lines();
    for request in 0.. {
        if lines.by_ref().find(|line| line.as_ref().is_ok_and(String::is_empty)).is_none() {
            return;
        }
        heard.send(number).ok();
        if request == answers {
            return;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    }
}

fn cloud(url: &str) -> Cloud {
    serde_json::from_value(json!({"name": "demo", "auth_url": url, "protocol": "openid"})).unwrap()
}

#[tokio::test]
async fn no_connection_is_kept_for_another_request() {
    let (url, requests) = server(9);
    let outbound = Outbound::new(ManualClock::new());
    let cloud = cloud(&url);
    // What holds a client for long, as a grant does, has the same one.
    let client = outbound.client(&cloud).unwrap();
    for number in 0..3 {
        send(&cloud, Peer::Keystone, client.request(Method::GET, &url)).await.unwrap();
        assert_eq!(requests.recv().unwrap(), number);
    }
}

/// A refresh token that arrives twice is a theft to its provider; a credential that is made twice stays behind.
#[tokio::test]
async fn a_request_whose_connection_dies_is_not_sent_again() {
    let (url, requests) = server(0);
    let outbound = Outbound::new(ManualClock::new());
    let cloud = cloud(&url);
    let client = outbound.client(&cloud).unwrap();
    for method in [Method::POST, Method::DELETE, Method::PATCH, Method::PUT] {
        let request = client.request(method.clone(), &url).body("x");
        let error = send(&cloud, Peer::IdentityProvider, request).await.unwrap_err();
        assert_eq!(error.code, Code::IdentityProviderUnreachable, "{method}: {error}");
    }
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3], "each came once");
}
