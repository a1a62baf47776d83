//! A day in the life of an agent, with tokens that live for minutes: it renews, asks nobody whom it need not, and grows by
//! nothing. `cargo test --test it -- soak:: --nocapture` prints the figures of docs/soak.md.
//!
//! The agent is this binary again, in a process of its own whose clock the test moves, so that what is measured is its
//! memory and not that of the cloud's double.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jiff::Timestamp;
use keystone_broker::time::Clock;
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::api::{Answer, Api, scope};
use crate::support::browser::{Browser, Tab};
use crate::support::clock::ManualClock;
use crate::support::kept::Held;
use crate::support::keystone::{Fault, Keystone, TOKEN_ENDPOINT};
use crate::support::lab::until;
use crate::support::tool::{Tool, token};
use crate::support::{port, spawn};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// What a sign-in's token lives, and everything that is made from it.
const LIFE: i64 = 20 * MINUTE;
const STEP: i64 = 4 * MINUTE;
const PASSPHRASE: &str = "correct horse";
/// Tells the child that it is one.
const CHILD: &str = "KSB_TEST_SOAK";

#[test]
#[ignore = "the agent of the test below"]
fn agent() {
    env::var_os(CHILD).expect("only the test below starts this");
    let clock = ManualClock::new();
    let mut agent = Agent::with_config(clock.clone(), "vault = \"passphrase\"\n");
    let file = agent.folder().join("passphrase");
    println!("\nin {}", agent.folder().display());
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        match order.split_once(' ') {
            Some(("advance", seconds)) => clock.advance(seconds.parse().unwrap()),
            // The next agent has the vault's key, or has not.
            Some(("restart", "open")) => {
                fs::write(&file, PASSPHRASE).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
                agent = agent.restart(clock.clone());
            }
            Some(("restart", "closed")) => {
                fs::remove_file(&file).unwrap();
                agent = agent.restart(clock.clone());
            }
            _ => {}
        }
        println!("tasks {}", agent.tasks());
    }
}

/// The agent's process, and what it is asked.
struct Day {
    child: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
    folder: PathBuf,
    api: Api,
    clock: Arc<ManualClock>,
    /// Seconds since the beginning.
    at: i64,
    served: usize,
    /// The cloud whose session a tab keeps going.
    kept: Option<Value>,
    /// Whether that tab is on its way round.
    is_away: Arc<AtomicBool>,
}

/// What an agent takes, at one time.
#[derive(Debug, Clone, Copy)]
struct Size {
    resident_kib: usize,
    descriptors: usize,
    tasks: usize,
    vault: u64,
    status: usize,
}

impl Day {
    fn begin() -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "soak::agent", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(CHILD, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = spawn::raw(&mut command);
        let (orders, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut said = BufReader::new(said);
        let folder = PathBuf::from(answer(&mut said, "in "));
        let api = Api::new(folder.join("broker.sock"));
        let (clock, is_away) = (ManualClock::new(), Arc::default());
        Self { child, orders, said, folder, api, clock, at: 0, served: 0, kept: None, is_away }
    }

    /// Gives the agent's process an order; how many tasks it has.
    fn order(&mut self, order: &str) -> usize {
        writeln!(self.orders, "{order}").unwrap();
        answer(&mut self.said, "tasks ").parse().unwrap()
    }

    fn advance(&mut self, seconds: i64) {
        self.at += seconds;
        self.clock.advance(seconds);
        self.order(&format!("advance {seconds}"));
        self.settle();
    }

    /// A tab is back from its round before time goes on: a browser is faster than the hours pass here.
    fn settle(&self) {
        if let Some(name) = &self.kept {
            until("the tab is back", || {
                let session = self.session(name);
                let is_renewed = session["kept_by_tab"] == true && self.left(&session) > LIFE / 2;
                // Its page still has to say that it is there, which the broker waits seconds of its clock for.
                is_renewed && !self.is_away.load(Ordering::SeqCst)
            });
        }
    }

    /// The session of a cloud.
    fn session(&self, name: &Value) -> Value {
        let status = self.api.status();
        let sessions = status["sessions"].as_array().unwrap();
        let found = sessions.iter().find(|session| session["clouds"].as_array().unwrap().contains(name));
        found.unwrap().clone()
    }

    /// Seconds until it ends.
    fn left(&self, session: &Value) -> i64 {
        let ends: Timestamp = session["expires_at"].as_str().unwrap().parse().unwrap();
        ends.duration_since(self.clock.now()).as_secs()
    }

    fn hour(&self) -> i64 {
        self.at / HOUR
    }

    /// A program that no user started gets a token.
    #[track_caller]
    fn serves(&mut self, cloud: &Value, project: &str) -> String {
        self.served += 1;
        let answer = self.api.token_unprompted(cloud, &scope::project(project));
        assert_eq!(answer.status, 200, "minute {}: {}", self.at / MINUTE, answer.text);
        answer.token_id()
    }

    fn lease(&self, cloud: &Value, more: &Value) -> Answer {
        let mut request = json!({"cloud": cloud, "scope": scope::project("demo")});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.api.post("/v1/leases", &request)
    }

    fn size(&mut self) -> Size {
        let pid = self.child.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Size {
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            tasks: self.order("count"),
            vault: fs::metadata(self.folder.join("state/vault-lab")).unwrap().len(),
            status: self.api.get("/v1/status").text.len(),
        }
    }
}

impl Drop for Day {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

fn answer(said: &mut impl BufRead, begins: &str) -> String {
    let mut line = String::new();
    while said.read_line(&mut line).unwrap() > 0 {
        if let Some(rest) = line.trim_end().strip_prefix(begins) {
            return rest.to_owned();
        }
        line.clear();
    }
    panic!("the agent's process has ended");
}

/// A cloud of this Keystone, signed in to in its window.
fn websso(name: &str, keystone: &Keystone) -> Value {
    let port = port::free();
    keystone.trust(&format!("http://localhost:{port}/auth/websso/"));
    json!({
        "name": name, "auth_url": format!("{}/v3", keystone.url()), "identity_provider": "lab-idp",
        "protocol": "openid", "sign_in": {"redirect_port": port},
    })
}

/// The same at the identity provider, which gives a refresh token.
fn oidc(name: &str, keystone: &Keystone) -> Value {
    let mut cloud = websso(name, keystone);
    cloud["sign_in"] = json!({
        "way": "oidc_code", "redirect_host": "127.0.0.1", "redirect_port": 0,
        "oidc": {
            "discovery_endpoint": format!("{}/idp/.well-known/openid-configuration", keystone.url()),
            "client_id": "cli",
        },
    });
    cloud
}

/// A user signs in, in a tab that shows the last page in the end.
#[track_caller]
fn sign_in(api: &Api, tab: &mut Tab<'_>, answer: &Answer) {
    let sign_in = answer.sign_in();
    assert_eq!(tab.sign_in(&sign_in.url).state, "done");
    assert_eq!(api.over(&sign_in.id)["state"], "done");
}

/// A tab that was left open, with the box ticked: goes round whenever it is told to.
fn lives(mut held: Held, tab: &mut Tab<'_>, callback: &str, rounds: &AtomicUsize, is_away: &AtomicBool) {
    while let Some(word) = held.hears() {
        assert_eq!(word["state"], "go", "{word}");
        is_away.store(true, Ordering::SeqCst);
        let begin = callback.replace("/auth/websso/", word["begin"].as_str().unwrap());
        let Ok(form) = tab.go(&begin) else { return };
        let note = tab.note(callback);
        tab.post(&form);
        assert_eq!(tab.claim().state, "done");
        held = Held::open(callback, &note, true);
        rounds.fetch_add(1, Ordering::SeqCst);
        is_away.store(false, Ordering::SeqCst);
    }
}

/// Something that is away for a while.
struct Outage {
    from: i64,
    minutes: i64,
    what: What,
}

impl Outage {
    fn is_on(&self, at: i64) -> bool {
        (self.from..self.from + self.minutes * MINUTE).contains(&at)
    }
}

/// How long the next one is, if its time has come.
fn due(coming: &mut Vec<(i64, i64)>, at: i64) -> Option<i64> {
    coming.first().is_some_and(|(from, _)| at >= *from).then(|| coming.remove(0).1)
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    IdentityProvider,
    Keystone,
}

const OUTAGES: [Outage; 4] = [
    Outage { from: 6 * HOUR, minutes: 4, what: What::IdentityProvider },
    Outage { from: 8 * HOUR, minutes: 40, what: What::IdentityProvider },
    Outage { from: 10 * HOUR, minutes: 4, what: What::Keystone },
    Outage { from: 12 * HOUR, minutes: 40, what: What::Keystone },
];
/// The computer sleeps: when, and for how long.
const SLEEPS: [(i64, i64); 2] = [(14 * HOUR, 3 * HOUR), (20 * HOUR, 45 * MINUTE)];
/// The user locks it, and the passphrase is with them: when, and for how long.
const LOCKS: [(i64, i64); 2] = [(19 * HOUR, 40 * MINUTE), (22 * HOUR, HOUR)];
/// Nobody asks for anything then.
const QUIET: [i64; 2] = [5, 18];

#[test]
fn a_day_of_renewals_sleep_and_outages_asks_nobody_and_leaves_nothing() {
    let mut day = Day::begin();
    let (steady, shaky) = (Keystone::start(day.clock.clone()), Keystone::start(day.clock.clone()));
    for keystone in [&steady, &shaky] {
        keystone.lifetime(LIFE);
    }
    day.order("restart open");
    let browser = Browser::of("alice");
    let (direct, far) = (oidc("direct", &steady), oidc("far", &shaky));
    for cloud in [&direct, &far] {
        sign_in(&day.api, &mut browser.tab(), &day.api.login(cloud));
    }
    let file = day.folder.join("token");
    fs::write(&file, steady.bearer("alice")).unwrap();
    let mut job = websso("job", &steady);
    job["sign_in"] = json!({"way": "workload", "workload": {"file": {"path": file}}});
    day.serves(&job, "demo");

    without_the_vaults_key(&mut day, &direct);
    let expected = [day.serves(&direct, "demo"), day.serves(&far, "demo")];
    assert!(steady.accepts(&expected[0]) && shaky.accepts(&expected[1]));

    // Two clouds that nothing renews but a tab, and nothing at all.
    let (kept, mut plain) = (websso("kept", &steady), websso("plain", &steady));
    plain["account"] = json!("bob");
    let others = Browser::of("bob");
    let tools = [
        day.lease(&direct, &json!({"name": "whole"})),
        day.lease(&direct, &json!({"name": "confined", "confined": true})),
        day.lease(&far, &json!({"name": "alone", "unattended": true, "ttl": 30 * HOUR})),
    ];
    let tools = tools.map(|made| Tool::of(&made));

    let (rounds, mut prompts, mut sizes) = (AtomicUsize::new(0), 0, Vec::new());
    let callback = format!("http://localhost:{}/auth/websso/", kept["sign_in"]["redirect_port"]);
    std::thread::scope(|threads| {
        let mut tab = browser.tab();
        let first = day.api.login(&kept).sign_in();
        assert_eq!(tab.open(&first.url).state, "confirm");
        let note = tab.note(&callback);
        assert_eq!(tab.answer(true).state, "done");
        day.api.over(&first.id);
        let (callback, rounds) = (&callback, &rounds);
        let held = Held::open(callback, &note, true);
        day.kept = Some(kept["name"].clone());
        day.settle();
        let is_away = day.is_away.clone();
        threads.spawn(move || lives(held, &mut tab, callback, rounds, &is_away));

        let mut next = day.hour() + 1;
        let (mut sleeps, mut locks) = (SLEEPS.to_vec(), LOCKS.to_vec());
        while day.at < 24 * HOUR {
            if let Some(long) = due(&mut locks, day.at) {
                locked(&mut day, long, [&direct, &far, &job], &tools);
            }
            if let Some(long) = due(&mut sleeps, day.at) {
                day.advance(long);
            }
            day.advance(STEP);
            if let Some(outage) = OUTAGES.iter().find(|outage| outage.is_on(day.at)) {
                go_through(&mut day, outage, &shaky, &far);
            }
            let now = day.hour();
            fs::write(&file, steady.bearer("alice")).unwrap();
            if QUIET.contains(&now) {
                // Renewed all the same, ahead of the end.
                for cloud in [&direct, &far] {
                    until("it is renewed", || day.left(&day.session(&cloud["name"])) > LIFE / 4);
                }
                continue;
            }
            everybody_asks(&mut day, [&direct, &far, &job], &tools);
            if now < next {
                continue;
            }
            next = now + 1;
            a_person_is_asked(&mut day, &plain, &others);
            prompts += 1;
            let size = day.size();
            println!(
                "| {now} | {:.1} | {} | {} | {} | {} |",
                mib(size.resident_kib),
                size.descriptors,
                size.tasks,
                size.vault,
                day.served
            );
            sizes.push((now, size));
        }
        drop(day);
    });

    assert_eq!(
        steady.logins() + shaky.logins(),
        1 + rounds.load(Ordering::SeqCst) + prompts,
        "no extra prompt"
    );
    assert!(!steady.saw_reuse() && !shaky.saw_reuse());
    assert_eq!((steady.grants(), shaky.grants()), (1, 1));
    for keystone in [&steady, &shaky] {
        assert_eq!(keystone.credentials().len(), 2, "what confines one lease: {:?}", keystone.credentials());
    }
    let early = sizes.iter().find(|(hour, _)| *hour >= 4).unwrap().1;
    let late = sizes.last().unwrap().1;
    assert!(late.resident_kib < early.resident_kib + (1 << 10), "{early:?} {late:?}");
    assert!(late.descriptors <= early.descriptors + 8 && late.tasks <= early.tasks + 8, "{early:?} {late:?}");
    assert!(late.vault < early.vault * 5 / 4 && late.status < early.status * 5 / 4, "{early:?} {late:?}");
}

/// An agent that starts while the vault's key is away sends nobody to the browser, and has everything when it comes.
fn without_the_vaults_key(day: &mut Day, cloud: &Value) {
    day.order("restart closed");
    for _ in 0..10 {
        day.advance(STEP);
        day.api.token(cloud, &scope::project("demo")).problem("vault-sealed");
    }
    let opened = day.api.post("/v1/unlock", &json!({"passphrase": PASSPHRASE}));
    assert_eq!(opened.status, 200, "{}", opened.text);
}

/// A locked agent gives nothing and renews nothing; when it is unlocked everybody is served as before, by nobody's sign-in.
fn locked(day: &mut Day, long: i64, clouds: [&Value; 3], tools: &[Tool]) {
    // The tab's connection ends with the process whose memory is forgotten.
    day.kept = None;
    day.api.post("/v1/lock", &json!({}));
    until("the next process", || day.api.status()["sessions"] == json!([]));
    for _ in 0..long / STEP {
        day.advance(STEP);
        for cloud in clouds {
            day.api.token_unprompted(cloud, &scope::project("demo")).problem("locked");
        }
        // The last one is unattended.
        let (unattended, others) = tools.split_last().unwrap();
        assert!(others.iter().all(|tool| tool.ask().status == 503));
        assert_eq!(unattended.ask().status, 201);
        day.api.post("/v1/unlock", &json!({})).problem("vault-sealed");
    }
    let opened = day.api.post("/v1/unlock", &json!({"passphrase": PASSPHRASE}));
    assert_eq!(opened.status, 200, "{}", opened.text);
    everybody_asks(day, clouds, tools);
}

/// Programs and tools that no user started, each in its way.
fn everybody_asks(day: &mut Day, [direct, far, job]: [&Value; 3], tools: &[Tool]) {
    for cloud in [direct, far, job] {
        day.serves(cloud, "demo");
    }
    let refused = day.serves(direct, "staging");
    day.api.token_instead_of(&refused, direct, &scope::project("staging")).token_id();
    for tool in tools {
        token(&tool.ask());
    }
    if day.at % (5 * STEP) == 0 {
        // Leases that come and go.
        let made = Tool::of(&day.lease(direct, &json!({"confined": day.at % (10 * STEP) == 0, "ttl": 600})));
        token(&made.ask());
        day.api.delete(&format!("/v1/leases/{}", made.id));
    }
}

/// Three programs of a user want a token that only a sign-in gives: one of them opens a tab.
fn a_person_is_asked(day: &mut Day, cloud: &Value, browser: &Browser) {
    let asked: Vec<_> = (0..3).map(|_| day.api.token(cloud, &scope::project("demo"))).collect();
    let ids: Vec<_> = asked.iter().map(|asked| asked.sign_in().id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one sign-in for all");
    sign_in(&day.api, &mut browser.tab(), &asked[0]);
    day.serves(cloud, "demo");
    assert_eq!(day.api.status()["sign_ins"], json!([]), "nobody is asked who need not be");
}

/// Nobody is sent to a browser because something is away; while the token lives nobody notices.
fn go_through(day: &mut Day, outage: &Outage, shaky: &Keystone, far: &Value) {
    let gone = match outage.what {
        What::IdentityProvider => Some(shaky.on(TOKEN_ENDPOINT, Fault::Status(503))),
        What::Keystone => {
            // What it cannot take back just now is taken back when it can be.
            let made = day.lease(far, &json!({"confined": true}));
            shaky.go();
            let ended = day.api.delete(&format!("/v1/leases/{}", Tool::of(&made).id));
            assert_ne!(ended.json["not_revoked"], json!([]), "{}", ended.text);
            None
        }
    };
    for minute in (0..outage.minutes).step_by(4) {
        let answer = day.api.token(far, &scope::project("demo"));
        let away = ["identity-provider-error", "identity-provider-unreachable", "keystone-unreachable"];
        let is_said = away.iter().any(|code| answer.json["code"] == *code);
        assert!(answer.status == 200 || is_said, "{}", answer.text);
        assert!(answer.status == 200 || minute >= 4, "a short outage is nobody's business: {}", answer.text);
        day.advance(STEP);
    }
    drop(gone);
    if outage.what == What::Keystone {
        shaky.come_back();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mib(kib: usize) -> f64 {
    kib as f64 / 1024.0
}
