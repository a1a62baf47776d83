//! A dashboard's web server: Horizon's login form as its templates write it (`horizon/templates/auth/_login_form.html`,
//! `openstack_auth.forms`), or whatever else a page may be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::spawn;

const TOKEN: &str = "Zm9ybS10b2tlbg";

/// What was asked: method, path with query, headers in lower case, body.
pub struct Asked {
    pub method: String,
    pub path: String,
    headers: String,
    body: String,
}

/// Status, headers, body.
pub type Says = (u16, Vec<(&'static str, String)>, String);

/// The server; nobody listens any more when it is dropped.
pub struct Dashboard {
    address: SocketAddr,
    gone: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
}

pub fn page(body: impl Into<String>) -> Says {
    (200, vec![("Content-Type", "text/html; charset=utf-8".into())], body.into())
}

pub fn redirect(to: impl Into<String>) -> Says {
    (302, vec![("Location", to.into())], String::new())
}

pub fn missing() -> Says {
    (404, Vec::new(), "<h1>Not Found</h1>".into())
}

impl Dashboard {
    /// One that answers by itself.
    pub fn that_says(answer: impl Fn(&Asked) -> Says + Send + 'static) -> Self {
        let listener = spawn::undisturbed(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, gone) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (ended, log) = (gone.clone(), asked.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                // A client that leaves in the middle is no fault of the test's.
                let mut client = client.unwrap();
                let Some(question) = read(&client) else { continue };
                log.lock().unwrap().push(format!("{} {}", question.method, question.path));
                let (status, headers, body) = answer(&question);
                let headers: Vec<_> =
                    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let headers = headers.concat();
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                client.write_all(head.as_bytes()).and_then(|()| client.write_all(body.as_bytes())).ok();
            }
        });
        Self { address, gone, asked }
    }

    /// Horizon, with these ways to sign in (value, text, and where Keystone's redirect leads).
    pub fn horizon(ways: &[(&str, &str, String)]) -> Self {
        let ways: Vec<_> =
            ways.iter().map(|(way, text, to)| ((*way).to_owned(), (*text).to_owned(), to.clone())).collect();
        Self::that_says(move |asked| {
            match (&*asked.method, asked.path.split('?').next().unwrap_or_default()) {
                ("GET", "/") => redirect("/auth/login/?next=/"),
                ("GET", "/auth/login/") => {
                    let (status, mut headers, body) = page(form(&ways));
                    headers.push(("Set-Cookie", format!("csrftoken={TOKEN}; Path=/; SameSite=Lax")));
                    (status, headers, body)
                }
                // Django's CSRF check, then `openstack_auth.views.login`.
                ("POST", "/auth/login/") if !asked.is_genuine() => {
                    (403, Vec::new(), "CSRF verification failed".into())
                }
                ("POST", "/auth/login/") => {
                    let chosen =
                        ways.iter().find(|(way, ..)| asked.body.contains(&format!("auth_type={way}&")));
                    chosen.map_or_else(|| page(form(&ways)), |(.., to)| redirect(to.clone()))
                }
                _ => missing(),
            }
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Methods and paths, in their order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Asked {
    fn is_genuine(&self) -> bool {
        self.headers.contains(&format!("cookie: csrftoken={}", TOKEN.to_lowercase()))
            && self.headers.contains("referer: http://")
            && self.body.contains(&format!("csrfmiddlewaretoken={TOKEN}"))
            && self.body.contains("region=default")
    }
}

fn form(ways: &[(String, String, String)]) -> String {
    let option =
        |(way, text, _): &(String, String, String)| format!("<option value=\"{way}\">{text}</option>\n");
    let options: String = ways.iter().map(option).collect();
    format!(
        "<!DOCTYPE html><html><head><script>var a = '<select name=\"auth_type\">';</script></head><body>\n\
         <form id=\"\" class=\"ng-pristine\" method=\"POST\" action=\"/auth/login/\" autocomplete=\"off\">\n\
         <input type='hidden' name='csrfmiddlewaretoken' value='{TOKEN}' />\n\
         <select name=\"auth_type\" class=\"form-control\" id=\"id_auth_type\">\n\
         <option value=\"credentials\" selected>Keystone Credentials</option>\n{options}</select>\n\
         <input type=\"text\" name=\"username\" autofocus=\"autofocus\" id=\"id_username\">\n\
         <input type=\"password\" name=\"password\" id=\"id_password\">\n\
         <input type=\"hidden\" name=\"region\" value=\"default\" id=\"id_region\">\n\
         <button id=\"loginBtn\" type=\"submit\"><span>Sign In</span></button></form></body></html>"
    )
}

fn read(client: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = String::new();
    while reader.read_line(&mut headers).ok()? > 2 {}
    let headers = headers.to_lowercase();
    let length =
        headers.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
    }
}
