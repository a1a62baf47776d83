//! The request that a last page holds open for *Keep me signed in while this tab is open*.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use url::Url;

use super::browser::{origin_of, own_fetch};
use super::http::connect;

/// The open request; a tab that is closed drops it.
pub struct Held {
    answer: BufReader<TcpStream>,
}

impl Held {
    /// The page of a tab with this note, at the callback's origin.
    #[track_caller]
    pub fn open(callback: &str, note: &Value, keep: bool) -> Self {
        let url = format!("{}/keep", origin_of(callback));
        let body = json!({"claim": "", "id": note["id"], "secret": note["secret"], "keep": keep});
        let mut stream = connect(&Url::parse(&url).unwrap()).unwrap();
        stream.write_all(&own_fetch(&url, &body).bytes()).unwrap();
        let mut answer = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(answer.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_lowercase().contains("cache-control: no-store"), "{head}");
        let mut page = Self { answer };
        assert_eq!(page.says()["state"], "here");
        page
    }

    /// The next word of the broker's, which there must be.
    #[track_caller]
    pub fn says(&mut self) -> Value {
        self.hears().unwrap()
    }

    /// The next word of the broker's; nothing when it has gone.
    pub fn hears(&mut self) -> Option<Value> {
        let mut size = String::new();
        self.answer.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.answer.read_exact(&mut chunk).ok()?;
        serde_json::from_slice(&chunk[..size]).ok()
    }
}
