//! A browser that does what Chromium does with the broker's pages, without their scripts: follows
//! redirects and forms, keeps cookies per host and `sessionStorage` per tab and origin, and sends the
//! Fetch Metadata and `Origin` headers that belong to each step.
//!
//! An attacker takes the same requests apart: [`navigation`] and [`own_fetch`] hand them out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use url::Url;

use super::http::{Request, Response};

/// A browser of one user, with one profile.
pub struct Browser {
    person: String,
    profile: Mutex<Profile>,
}

#[derive(Default)]
struct Profile {
    /// `name=value` by host and port.
    cookies: HashMap<String, String>,
    /// `sessionStorage['ksb']` by tab and origin.
    storage: HashMap<(usize, String), String>,
    tabs: usize,
}

/// A tab, and what it shows.
pub struct Tab<'b> {
    browser: &'b Browser,
    number: usize,
    /// The claim of the callback page that it shows.
    claim: Option<String>,
    callback: Option<String>,
}

/// Keystone's form, about to be posted.
#[derive(Debug, Clone)]
pub struct Form {
    pub action: String,
    pub token: String,
    /// `Origin` of the post: `null`, because Keystone's page has `Referrer-Policy: no-referrer`.
    pub origin: String,
}

/// What a page says in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The body's `data-ksb-state`.
    pub state: String,
    /// The broker's reply to the page's script; before there is one, what the page itself holds.
    pub reply: Value,
}

impl Browser {
    /// A fresh profile. `person` is who signs in at the identity provider when asked.
    pub fn of(person: &str) -> Self {
        Self { person: person.into(), profile: Mutex::default() }
    }

    /// A new tab.
    pub fn tab(&self) -> Tab<'_> {
        let mut profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        profile.tabs += 1;
        Tab { browser: self, number: profile.tabs, claim: None, callback: None }
    }

    /// Follows redirects and signs in, up to an address of a computer that nobody answers at here: its callback.
    pub fn ends_at(&self, url: &str) -> String {
        let (tab, mut url) = (self.tab(), url.to_owned());
        for _ in 0..10 {
            if url.contains("code=") {
                return url;
            }
            let response = self.fetch(&url, navigation("GET", &url).set("Sec-Fetch-Site", "none"));
            url = match response.header("Location") {
                Some(next) => next.into(),
                None => tab.at_the_identity_provider(&url),
            };
        }
        panic!("{url} leads round in a circle");
    }

    fn profile<T>(&self, look: impl FnOnce(&mut Profile) -> T) -> T {
        look(&mut self.profile.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a request with this host's cookies and keeps those that come back.
    fn fetch(&self, url: &str, request: Request) -> Response {
        let host = Url::parse(url).unwrap().authority().to_owned();
        let request = match self.profile(|profile| profile.cookies.get(&host).cloned()) {
            Some(cookie) => request.set("Cookie", &cookie),
            None => request,
        };
        let response = request.send();
        self.profile(|profile| {
            if let Some(cookie) = response.header("Set-Cookie") {
                profile.cookies.insert(host, cookie.split(';').next().unwrap().into());
            }
            if response.header("Clear-Site-Data") == Some("\"storage\"") {
                profile.storage.retain(|(_, origin), _| *origin != origin_of(url));
            }
        });
        response
    }
}

impl Tab<'_> {
    /// Opens a sign-in's address and goes where the pages lead; says yes when a page asks.
    pub fn sign_in(&mut self, url: &str) -> Shown {
        let shown = self.open(url);
        if shown.state == "confirm" { self.answer(true) } else { shown }
    }

    /// Opens a sign-in's address and goes where the pages lead, until one asks or has said its word.
    pub fn open(&mut self, url: &str) -> Shown {
        let shown = match self.go(url) {
            Ok(form) => self.post(&form),
            Err(shown) => shown,
        };
        if shown.state == "checking" { self.claim() } else { shown }
    }

    /// Goes as far as Keystone's form, which it does not post; or shows where the way ended.
    pub fn go(&mut self, url: &str) -> Result<Form, Shown> {
        let (mut url, mut site) = (url.to_owned(), "none");
        for _ in 0..10 {
            let response = self.browser.fetch(&url, navigation("GET", &url).set("Sec-Fetch-Site", site));
            site = "cross-site";
            if let Some(next) = response.header("Location").filter(|_| response.status == 302) {
                url = next.into();
            } else if response.body.contains("id=\"sso\"") {
                return Ok(Form::read(&response.body));
            } else if response.body.contains("name=username") {
                url = self.at_the_identity_provider(&url);
            } else {
                url = self.run(&url, &response)?;
            }
        }
        panic!("{url} leads round in a circle");
    }

    /// What the scripts of the start page and of the first page at the callback's origin do.
    fn run(&mut self, url: &str, page: &Response) -> Result<String, Shown> {
        let data = data(&page.body);
        let field = |name: &str| data[name].as_str().map(str::to_owned);
        if let (Some(clean), Some(begin)) = (field("clean"), field("begin")) {
            for url in [format!("{clean}/cache"), clean] {
                self.browser.fetch(&url, fetch("GET", &url, "same-site", "no-cors"));
            }
            return Ok(begin);
        }
        if let Some(claim) = field("claim") {
            // An identity provider sent us back, and the page took its answer out of the address.
            (self.claim, self.callback) = (Some(claim), Some(url.into()));
        }
        let Some(websso) = field("websso") else {
            return Err(Shown { state: state(&page.body), reply: data });
        };
        let note = json!({"id": data["id"], "secret": data["secret"]}).to_string();
        self.browser.profile(|profile| profile.storage.insert((self.number, origin_of(url)), note));
        Ok(websso)
    }

    fn at_the_identity_provider(&self, url: &str) -> String {
        let form = format!("username={}", self.browser.person);
        let post = navigation("POST", url).body("application/x-www-form-urlencoded", form);
        let answer = self.browser.fetch(url, post.set("Sec-Fetch-Site", "same-origin"));
        answer.header("Location").unwrap_or_else(|| panic!("{answer:?}")).into()
    }

    /// Posts Keystone's form (or anybody's) and shows the page that answers.
    pub fn post(&mut self, form: &Form) -> Shown {
        let response = self.browser.fetch(&form.action, form.request());
        let page = data(&response.body);
        self.claim = page["claim"].as_str().map(str::to_owned);
        self.callback = Some(form.action.clone());
        assert!(!response.body.contains(&form.token), "the page holds the token: {}", response.body);
        Shown { state: state(&response.body), reply: page }
    }

    /// What the callback page's script does first: proves that this is the tab it began in.
    pub fn claim(&mut self) -> Shown {
        self.say("/claim", &json!({}))
    }

    /// The user answers *Use alice?*
    pub fn answer(&mut self, accept: bool) -> Shown {
        self.say("/answer", &json!({"accept": accept}))
    }

    /// The address at which the callback's page was reached.
    pub fn callback(&self) -> &str {
        self.callback.as_deref().unwrap()
    }

    /// The note that the first page left in this tab for the origin of a URL.
    pub fn note(&self, url: &str) -> Value {
        let key = (self.number, origin_of(url));
        let note = self.browser.profile(|profile| profile.storage.get(&key).cloned());
        note.map_or(json!({}), |note| serde_json::from_str(&note).unwrap())
    }

    fn say(&mut self, path: &str, extra: &Value) -> Shown {
        let origin = origin_of(self.callback.as_ref().unwrap());
        let mut body = json!({"claim": self.claim});
        for more in [&self.note(&origin), extra] {
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        let reply = own_fetch(&format!("{origin}{path}"), &body).send().json();
        let state = reply["state"].as_str().unwrap().to_owned();
        if state == "done" {
            self.browser.profile(|profile| profile.storage.remove(&(self.number, origin)));
        }
        Shown { state, reply }
    }
}

impl Form {
    /// Somebody else's page with the same form.
    pub fn of(action: &str, token: &str) -> Self {
        Self { action: action.into(), token: token.into(), origin: "null".into() }
    }

    fn read(html: &str) -> Self {
        let between = |from: &str| html.split(from).nth(1).unwrap().split('"').next().unwrap().to_owned();
        Self::of(&between("action=\""), &between("value=\""))
    }

    /// The post as the browser sends it.
    pub fn request(&self) -> Request {
        let body =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("token", &self.token).finish();
        navigation("POST", &self.action)
            .body("application/x-www-form-urlencoded", body)
            .set("Sec-Fetch-Site", "cross-site")
            .set("Origin", &self.origin)
    }
}

/// A navigation of a whole tab, as after a click in another program.
pub fn navigation(method: &str, url: &str) -> Request {
    Request::new(method, url)
        .add("Sec-Fetch-Site", "none")
        .add("Sec-Fetch-Mode", "navigate")
        .add("Sec-Fetch-User", "?1")
        .add("Sec-Fetch-Dest", "document")
        .add("Upgrade-Insecure-Requests", "1")
        .add("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
}

/// `fetch()` with JSON by a page to its own origin.
pub fn own_fetch(url: &str, body: &Value) -> Request {
    fetch("POST", url, "same-origin", "cors")
        .add("Origin", &origin_of(url))
        .body("application/json", body.to_string())
}

fn fetch(method: &str, url: &str, site: &str, mode: &str) -> Request {
    Request::new(method, url)
        .add("Sec-Fetch-Site", site)
        .add("Sec-Fetch-Mode", mode)
        .add("Sec-Fetch-Dest", "empty")
        .add("Accept", "*/*")
}

/// The origin of a URL, as browsers write it.
pub fn origin_of(url: &str) -> String {
    Url::parse(url).unwrap().origin().ascii_serialization()
}

/// What a page's script is given.
pub fn data(html: &str) -> Value {
    let block = html.split("id=\"ksb-data\">").nth(1).and_then(|rest| rest.split("</script>").next());
    block.map_or(Value::Null, |json| serde_json::from_str(json).unwrap())
}

/// What a page's body says of itself.
pub fn state(html: &str) -> String {
    let state = html.split("data-ksb-state=\"").nth(1).and_then(|rest| rest.split('"').next());
    state.unwrap_or_default().into()
}
