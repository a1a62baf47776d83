//! A user of Keystone's own whose rules demand a password and a one-time code.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::{Value, json};

use super::front::{Counts, Front, stack};
use super::terminal::Terminal;
use super::wait;
use crate::support::sandbox::KSB;

/// The user that belongs to a front: a one-time code counts once.
struct User {
    name: String,
    password: String,
    secret: Vec<u8>,
}

impl User {
    fn of(front: &Front) -> Self {
        let name = format!("mfa{}", front.number);
        let password = stack(&format!("PASSWORD_{}", name.to_uppercase()));
        let secret = base32(&stack(&format!("TOTP_{}", name.to_uppercase())));
        Self { name, password, secret }
    }

    fn entry(&self, front: &Front, auth_type: &str, options: &str) -> String {
        format!(
            "  demo:\n    auth_type: {auth_type}\n    auth: {{auth_url: '{}', username: {}, user_domain_name: Default, \
             project_name: demo, project_domain_name: lab{options}}}\n    cacert: {}\n",
            front.auth_url(),
            self.name,
            stack("CA"),
        )
    }

    /// The code of the half minute that is so far from this one (RFC 6238).
    fn code(&self, step: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.secret);
        let mac = hmac::sign(&key, &step.to_be_bytes());
        let start = usize::from(mac.as_ref()[19] & 15);
        let number = u32::from_be_bytes(mac.as_ref()[start..start + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }
}

#[expect(clippy::disallowed_methods, reason = "a telephone has the time of day")]
fn half_minute() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30
}

fn base32(text: &str) -> Vec<u8> {
    let bits = text.bytes().filter(|byte| *byte != b'=').flat_map(|byte| {
        let value = if byte.is_ascii_uppercase() { byte - b'A' } else { byte - b'2' + 26 };
        (0..5).rev().map(move |bit| value >> bit & 1)
    });
    let bits: Vec<_> = bits.collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect()
}

fn question(user: &User, what: &str) -> String {
    format!("ksb: demo: {what} of {} (Default): ", user.name)
}

/// A code that was not sent before: the next one, if need be.
fn fresh_code(user: &User, last: &mut u64) -> String {
    let step = wait::at_most(wait::LIMIT, || Some(half_minute()).filter(|step| step > last)).unwrap();
    *last = step;
    user.code(step)
}

#[test]
fn a_password_and_a_code_are_asked_for_once_on_the_terminal() {
    let mut front = Front::free();
    front.sandbox.set("KSB_LOG", "trace");
    let user = User::of(&front);
    front.clouds(&[user.entry(&front, "v3broker", ", sign_in: password")]);
    let mut last = 0;
    let mut terminal = Terminal::start(&front.sandbox, &format!("{KSB} login"), &[]);
    terminal.shows(&question(&user, "Password"));
    terminal.types("hunter2\n");
    let refused = format!("Keystone does not take the password of {} (Default)", user.name);
    terminal.shows(&refused);
    terminal.shows(&question(&user, "Password"));
    terminal.types(&format!("{}\n", user.password));
    terminal.shows(&question(&user, "One-time code"));
    // Of another day.
    terminal.types(&format!("{}\n", user.code(1)));
    terminal.shows("Keystone does not take the one-time code of");
    terminal.shows(&question(&user, "One-time code"));
    let code = fresh_code(&user, &mut last);
    terminal.types(&format!("{code}\n"));
    terminal.shows(&format!("demo: signed in as {} (Default)", user.name));
    let (screen, status) = terminal.ends();
    assert_eq!(status, Some(0), "{screen}");
    for secret in ["hunter2", &user.password, &code] {
        assert!(!screen.contains(secret), "what is typed is not shown: {screen}");
    }

    // Ten commands, of which nobody is asked anything: `ksb`, and the `openstack` that knows nothing of all this.
    let token = front.token(&[]);
    let seen = front.keystone.look_at(&token).unwrap();
    assert_eq!((&seen["user"]["name"], &seen["project"]["name"]), (&json!(user.name), &json!("demo")));
    assert!(["password", "totp"].iter().all(|method| seen["methods"].to_string().contains(method)), "{seen}");
    let issue = ["token", "issue", "-f", "value", "-c", "id"];
    for _ in 0..5 {
        assert_eq!(front.ksb_with(&[("KSB_PROMPT", "never")], &["token"]).ok().stdout.trim(), token);
        assert_eq!(front.answer(&issue), token);
    }
    let posts = |status: u16| {
        let all = front.all_requests();
        let is = |path: &str| path.contains("/v3/auth/tokens");
        all.iter()
            .filter(|request| request.method == "POST" && is(&request.path) && request.status == status)
            .count()
    };
    // A wrong password, the receipt, a wrong code; the token, and the one of the project.
    assert_eq!((posts(401), posts(201)), (3, 2), "{:?}", front.all_requests());
    assert_eq!((front.browsers_opened(), front.counts().logins), (0, 0));
    let status = front.ksb(&["status"]).ok().stdout;
    assert!(status.contains(&format!("demo: {} (Default) by Keystone itself until", user.name)), "{status}");
    let log = front.sandbox.agent_log();
    for secret in ["hunter2", &user.password, &token, "gAAAA"] {
        assert!(!log.contains(secret), "at its most verbose the agent tells a secret: {log}");
    }
    // Six digits may be part of some other number there.
    assert!(!log.contains(&format!("\"{code}\"")) && log.contains("TRACE"), "{log}");

    // Keystone would take the same code again.
    front.ksb(&["logout"]).ok();
    assert!(!front.keystone.accepts(&token));
    let mut terminal = Terminal::start(&front.sandbox, &format!("{KSB} login"), &[]);
    terminal.shows(&question(&user, "Password"));
    terminal.types(&format!("{}\n", user.password));
    terminal.shows(&question(&user, "One-time code"));
    terminal.types(&format!("{code}\n"));
    terminal.shows("this one-time code was used before: wait for the next one");
    terminal.shows(&question(&user, "One-time code"));
    assert_eq!(posts(401), 4, "it was not sent");
    terminal.types("\x03");
    let (rest, status) = terminal.ends();
    assert_eq!(status, Some(130), "{rest}");
    let status: Value = serde_json::from_str(&front.ksb(&["status", "--json"]).ok().stdout).unwrap();
    assert_eq!(status["sign_ins"], json!([]), "Ctrl-C at the question calls it off");
}

#[test]
fn keystoneauths_entries_for_two_factors_work_as_they_stand() {
    let front = Front::free();
    let user = User::of(&front);
    let mut last = half_minute();
    // The password is in the file (or in secure.yaml): only the code is asked for.
    let password = format!(", password: '{}'", user.password);
    let several = user.entry(&front, "v3multifactor", &password) + "    auth_methods: [v3password, v3totp]\n";
    front.clouds(&[several]);
    let shown = front.ksb(&["clouds", "show", "--json"]).ok().stdout;
    assert!(!shown.contains(&user.password) && shown.contains("••••"), "{shown}");
    let needed = front.ksb_with(&[("KSB_PROMPT", "never")], &["token"]);
    assert_eq!(needed.code, Some(75), "{needed:?}");
    let mut terminal = Terminal::start(&front.sandbox, &format!("{KSB} token"), &[]);
    terminal.shows(&question(&user, "One-time code"));
    let code = fresh_code(&user, &mut last);
    terminal.types(&format!("{code}\n"));
    let (screen, status) = terminal.ends();
    assert_eq!(status, Some(0), "{screen}");
    let token = front.token(&[]);
    assert!(screen.contains(&token) && !screen.contains("Password"), "{screen}");
    front.ksb(&["logout"]).ok();

    // A code first, the password then: as Keystone's rules ask for it.
    front.clouds(&[user.entry(&front, "v3totp", ", passcode: '123456'")]);
    let mut terminal = Terminal::start(&front.sandbox, &format!("{KSB} token"), &[]);
    terminal.shows(&question(&user, "One-time code"));
    terminal.types(&format!("{}\n", fresh_code(&user, &mut last)));
    terminal.shows(&question(&user, "Password"));
    terminal.types(&format!("{}\n", user.password));
    let (screen, status) = terminal.ends();
    assert_eq!(status, Some(0), "{screen}");
    assert!(screen.contains(&front.token(&[])));
}

#[test]
fn openstack_itself_asks_on_its_terminal() {
    let front = Front::free();
    let user = User::of(&front);
    let mut last = half_minute();
    front.clouds(&[user.entry(&front, "v3broker", ", sign_in: password")]);
    let command = front.openstack(&["token", "issue", "-f", "value", "-c", "id"]);
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut terminal = Terminal::start(&front.sandbox, &line, &[("KSB", KSB)]);
    terminal.shows(&question(&user, "Password"));
    terminal.types(&format!("{}\n", user.password));
    terminal.shows(&question(&user, "One-time code"));
    terminal.types(&format!("{}\n", fresh_code(&user, &mut last)));
    let (screen, status) = terminal.ends();
    assert_eq!(status, Some(0), "{screen}");
    assert!(screen.contains(&front.token(&[])), "{screen}");
    assert!(!screen.contains(&user.password), "{screen}");

    // Without a terminal: one line, and the command that helps.
    front.ksb(&["logout"]).ok();
    let mut alone = front.openstack(&["token", "issue"]);
    alone.env("KSB_PROMPT", "never");
    let refused = super::program::run(alone);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("ksb login demo"), "{refused:?}");
    assert_eq!(front.counts(), Counts { browsers: 0, logins: 0, exchanges: 2 });
}
