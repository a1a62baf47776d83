//! HTTP/1.1 by hand, so that a test can say things that no client library would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use url::{Host, Url};

/// No answer of a test's takes this long, on however busy a machine: whoever waits longer hangs.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A request, as it will stand on the wire.
#[derive(Clone)]
pub struct Request {
    method: String,
    url: Url,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// With a proper `Host`; the connection ends with the answer.
    pub fn new(method: &str, url: &str) -> Self {
        let url = Url::parse(url).unwrap();
        let query = url.query().map_or(String::new(), |query| format!("?{query}"));
        let host = url.authority().to_owned();
        Self {
            method: method.into(),
            target: format!("{}{query}", url.path()),
            headers: vec![("Host".into(), host), ("Connection".into(), "close".into())],
            url,
            body: Vec::new(),
        }
    }

    /// Sets a header in place of the one that is there.
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).add(name, value)
    }

    /// Adds a header to those that are there.
    pub fn add(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Takes a header away.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// What stands in the request line instead of the path.
    pub fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    /// A body of this type.
    pub fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.set("Content-Type", kind).set("Content-Length", &length)
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// Sends it over loopback TCP and reads the answer.
    pub fn try_send(&self) -> io::Result<Response> {
        let mut stream = connect(&self.url)?;
        stream.write_all(&self.bytes())?;
        Response::read(stream)
    }

    /// The same for tests that expect an answer.
    #[track_caller]
    pub fn send(&self) -> Response {
        self.try_send().unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.url))
    }
}

/// A connection to a loopback URL's port.
pub fn connect(url: &Url) -> io::Result<TcpStream> {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        _ => std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let stream = TcpStream::connect(SocketAddr::new(ip, url.port_or_known_default().unwrap()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl Response {
    /// Reads until the other side closes.
    pub fn read(mut stream: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let end = bytes
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .ok_or_else(|| io::Error::other("no answer"))?;
        let body = bytes.split_off(end + 4);
        let head = String::from_utf8(bytes).map_err(io::Error::other)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let mut response = Self {
            status: status.ok_or_else(|| io::Error::other("no status"))?,
            headers: headers.map(|(name, value)| (name.into(), value.into())).collect(),
            body: String::new(),
        };
        let body = match response.header("transfer-encoding") {
            None => body,
            Some("chunked") => unchunked(&body).ok_or_else(|| io::Error::other("cut off"))?,
            Some(other) => panic!("{other} is not understood here"),
        };
        response.body = String::from_utf8(body).map_err(io::Error::other)?;
        Ok(response)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A body that came in pieces, if it came to its end.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|end| end == b"\r\n")?;
        let length = usize::from_str_radix(str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend(rest.get(line + 2..line + 2 + length)?);
        rest = rest.get(line + 2 + length + 2..)?;
    }
}
