//! Waiting for a sign-in: shows the URL, opens the browser when asked to, passes notices on.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;

use crate::api::{AcceptRequest, LeaveReply, Offers, RedirectedRequest, SignIn, SignInReply, SignInState};
use crate::cli::output::errln;
use crate::cli::say;
use crate::cli::sign_in::factor_prompt::Answered;
use crate::cli::sign_in::{browser, factor_prompt, interactive, ssh_hint};
use crate::cli::terminal::Keys;
use crate::client::Client;
use crate::error::{Code, Error, Result};
use crate::platform::browser::BrowserLocation;

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAME: Duration = Duration::from_millis(120);
/// Seconds that one long poll is held.
const POLL: u64 = 25;

/// Returns when the sign-in is done; fails as it failed. Ctrl-C ends it, unless another command at a terminal waits. A user who came for
/// nothing else (`in_person`) is asked for a password here, even if another terminal was asked before and left.
pub(in crate::cli) async fn until_done(client: &Client, sign_in: SignIn, in_person: bool) -> Result<()> {
    let label = sign_in.cloud.clone();
    Box::pin(watch(client, sign_in, in_person)).await.map_err(|error| match error.code {
        // Between two of our questions the agent died, and the second one started another.
        Code::UnknownSignIn => {
            let gone = "the agent is gone: another one answers, and does not know this sign-in";
            Error::new(Code::AgentUnavailable, gone).cloud(&label).remedy("run your command again")
        }
        _ => error,
    })
}

async fn watch(client: &Client, mut sign_in: SignIn, in_person: bool) -> Result<()> {
    let mut screen = Screen::new();
    let mut keys = Keys::open();
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|error| Error::io("signals", &error))?;
    screen.announce(&sign_in, "");
    let mut asks = in_person;
    loop {
        screen.notices(&sign_in);
        match sign_in.state {
            SignInState::Done => return Ok(()),
            SignInState::Failed => {
                let error = reason(&mut sign_in);
                return Err(Error { cloud: error.cloud.map(|_| sign_in.cloud), ..error });
            }
            SignInState::Asking if asks || sign_in.opener => {
                let terminal = keys.as_mut().ok_or_else(|| no_terminal(&sign_in))?;
                if let Answered::Interrupted =
                    factor_prompt::ask(client, &sign_in, terminal, &mut interrupt).await?
                {
                    drop(keys);
                    interrupted(&mut screen, &sign_in, "the sign-in was called off");
                }
                asks = true;
            }
            SignInState::Waiting if sign_in.opener => open(client, &sign_in, &mut screen).await?,
            SignInState::Waiting | SignInState::Confirming | SignInState::Asking => {}
        }
        let seen = sign_in.clone();
        let poll = news(client, &seen);
        tokio::pin!(poll);
        let next = loop {
            screen.spin(&sign_in, keys.is_some());
            tokio::select! {
                next = &mut poll => break next?,
                _ = interrupt.recv() => {
                    drop(keys);
                    let why = if leave(client, &sign_in).await {
                        "the sign-in was called off"
                    } else {
                        "not waiting any longer; another command waits for the sign-in"
                    };
                    interrupted(&mut screen, &sign_in, why);
                }
                key = next_key(&mut keys) => {
                    if let Some(keys) = &mut keys {
                        screen.clear();
                        match key {
                            Some(b'o' | b'O') if can_be_opened(&sign_in) => open(client, &sign_in, &mut screen).await?,
                            Some(b'c' | b'C') => offer(client, &sign_in, keys).await?,
                            Some(b'p' | b'P') if sign_in.elsewhere.is_some() => paste(client, &sign_in, keys).await?,
                            _ => {}
                        }
                    }
                }
                _tick = tokio::time::timeout(FRAME, std::future::pending::<()>()) => {}
            }
        };
        // Whoever began it may call the cloud by another name.
        sign_in = SignIn { cloud: sign_in.cloud, ..next };
    }
}

/// Whether a browser beside us can do it.
fn can_be_opened(sign_in: &SignIn) -> bool {
    sign_in.state == SignInState::Waiting && !sign_in.url.is_empty() && sign_in.tunnel.is_none()
}

/// Tells the agent that we do not wait any longer; whether the sign-in ends by that.
async fn leave(client: &Client, sign_in: &SignIn) -> bool {
    let left = client.post(&format!("/v1/sign-ins/{}/leave", sign_in.id), &json!({})).await;
    left.is_ok_and(|reply| reply.json::<LeaveReply>().is_ok_and(|reply| reply.ended))
}

/// The sign-in as soon as something about it is new, or as it was.
pub(in crate::cli) async fn news(client: &Client, sign_in: &SignIn) -> Result<SignIn> {
    let path = format!("/v1/sign-ins/{}?seen={}&wait={POLL}", sign_in.id, sign_in.revision);
    Ok(client.get(&path).await?.json::<SignInReply>()?.sign_in)
}

/// Why it failed.
pub(in crate::cli) fn reason(sign_in: &mut SignIn) -> Error {
    let fallback = || Error::new(Code::Internal, "the sign-in failed without saying why");
    sign_in.problem.take().map_or_else(fallback, Error::from)
}

fn no_terminal(sign_in: &SignIn) -> Error {
    let asked: Vec<_> = sign_in.asks.iter().map(|ask| ask.text.as_str()).collect();
    let why = format!("{} must be typed, and there is no terminal to ask on", asked.join(", "));
    Error::new(Code::SignInNeeded, why)
        .cloud(&sign_in.cloud)
        .remedy(format!("in a terminal: ksb login {}", sign_in.cloud))
}

/// Ends as a program does that was interrupted. The terminal must be as it was by then.
fn interrupted(screen: &mut Screen, sign_in: &SignIn, why: &str) -> ! {
    screen.clear();
    errln!("ksb: {}: {why}", sign_in.cloud);
    std::process::exit(130);
}

async fn next_key(keys: &mut Option<Keys>) -> Option<u8> {
    match keys {
        Some(keys) => match keys.next().await {
            Some(key) => Some(key),
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// We are the one who opens the browser. Without one we do not say that we did: another caller may have one.
pub(in crate::cli) async fn open(client: &Client, sign_in: &SignIn, screen: &mut Screen) -> Result<()> {
    let location = interactive::browser_location(sign_in.browser.is_some());
    screen.advise(sign_in, location);
    if !location.can_be_opened() {
        return Ok(());
    }
    let shown = sign_in.clone();
    // A browser that is named by BROWSER may run in the foreground: that must not stop the wait.
    let opening = tokio::task::spawn_blocking(move || browser::open(&shown));
    client.post(&format!("/v1/sign-ins/{}/opened", sign_in.id), &json!({})).await?;
    if let Ok(Ok(Err(why))) = tokio::time::timeout(Duration::from_secs(1), opening).await {
        screen.line(&format!("ksb: {}: {why}", sign_in.cloud));
    }
    Ok(())
}

/// The user pressed `p`: a browser on another machine does the sign-in, and its last address comes back by hand.
async fn paste(client: &Client, sign_in: &SignIn, keys: &mut Keys) -> Result<()> {
    let label = &sign_in.cloud;
    let address = sign_in.elsewhere.as_deref().unwrap_or_default();
    errln!(
        "ksb: {label}: open this in a browser on any machine, sign in, and wait for a page that cannot be shown:\n{address}"
    );
    let url = keys.line("Paste the address of that page (it is not shown), then press Enter").await;
    let path = format!("/v1/sign-ins/{}/redirected", sign_in.id);
    match client.post(&path, &RedirectedRequest { url }).await {
        Ok(_) => Ok(()),
        // The sign-in goes on: the next try may be better.
        Err(error) if matches!(error.code, Code::InvalidRequest | Code::TokenRefused) => {
            errln!("ksb: {label}: {}", error.detail);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The user pressed `c`: shows the tokens from tabs that did not start here, one after the other.
async fn offer(client: &Client, sign_in: &SignIn, keys: &mut Keys) -> Result<()> {
    let offers: Offers = client.get(&format!("/v1/sign-ins/{}/offers", sign_in.id)).await?.json()?;
    if offers.offers.is_empty() {
        errln!("ksb: {}: no page in another browser waits for your word", sign_in.cloud);
    }
    for offer in offers.offers {
        let idp = offer.identity_provider.as_deref().map_or(String::new(), |idp| format!(" at {idp}"));
        let question = format!(
            "Does your page show the code {}, and do you want to be {}{idp} for {}?",
            offer.code,
            say::user(&offer.user),
            sign_in.cloud
        );
        if keys.confirm(&question).await {
            client
                .post(&format!("/v1/sign-ins/{}/accept", sign_in.id), &AcceptRequest { code: offer.code })
                .await?;
            return Ok(());
        }
    }
    Ok(())
}

/// What is shown on standard error: a spinner on a terminal, plain lines elsewhere.
pub(in crate::cli) struct Screen {
    live: bool,
    frame: usize,
    said: usize,
    has_advised: bool,
    spinning: bool,
}

impl Screen {
    pub(in crate::cli) fn new() -> Self {
        Self { live: std::io::stderr().is_terminal(), frame: 0, said: 0, has_advised: false, spinning: false }
    }

    /// Where to sign in, and in brackets who waits for it.
    pub(in crate::cli) fn announce(&mut self, sign_in: &SignIn, who: &str) {
        let SignIn { cloud, url, .. } = sign_in;
        match &sign_in.tunnel {
            _ if url.is_empty() => return,
            None => self.line(&format!("ksb: {cloud}: sign in: {url}{who}")),
            Some(tunnel) => {
                let (machine, guessed) = ssh_hint::this_machine();
                self.line(&format!(
                    "ksb: {cloud}: run this on the computer in front of you, and let it run ({guessed} is a guess: \
                     write what you connect to this one by):\n{tunnel} {machine}"
                ));
                self.line(&format!("ksb: {cloud}: then open this there, and sign in: {url}{who}"));
                if interactive::browser_location(false) == BrowserLocation::WebTerminal {
                    self.advise(sign_in, BrowserLocation::WebTerminal);
                }
            }
        }
        if sign_in.user_code.is_some() && self.live {
            self.qr_code(&sign_in.url);
        }
    }

    /// For the phone in one's hand. An address that is too long for a code is still there to be typed.
    fn qr_code(&mut self, url: &str) {
        if let Ok(code) = QrCode::with_error_correction_level(url, EcLevel::L) {
            // Light modules are what a terminal with a dark background must draw.
            let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
            self.line(&code.render::<Dense1x2>().dark_color(dark).light_color(light).build());
        }
    }

    pub(in crate::cli) fn notices(&mut self, sign_in: &SignIn) {
        for notice in sign_in.notices.get(self.said..).unwrap_or_default() {
            self.line(&format!("ksb: {}: {notice}", sign_in.cloud));
        }
        self.said = sign_in.notices.len();
    }

    /// Says once what the user should know of where the browser is.
    fn advise(&mut self, sign_in: &SignIn, location: BrowserLocation) {
        let is_local = sign_in.user_code.is_none();
        if let Some(advice) = location.advice(is_local).filter(|_| !self.has_advised) {
            self.has_advised = true;
            self.line(&format!("ksb: {}: {advice}", sign_in.cloud));
        }
    }

    pub(in crate::cli) fn line(&mut self, text: &str) {
        self.clear();
        errln!("{text}");
    }

    fn spin(&mut self, sign_in: &SignIn, keys: bool) {
        if !self.live {
            return;
        }
        let waited = say::now().duration_since(sign_in.started_at).as_secs();
        let doing = match sign_in.state {
            SignInState::Confirming => "answer the question on the page",
            SignInState::Asking => "waiting for what is typed",
            _ if sign_in.user_code.is_some() => "waiting for your approval",
            _ => "waiting for the browser",
        };
        let hints = [
            (can_be_opened(sign_in), " · o: open the browser again"),
            (
                sign_in.elsewhere.is_some() && sign_in.user_code.is_none(),
                " · p: a browser on another machine",
            ),
            (sign_in.offers > 0, " · c: signed in with another browser"),
        ];
        let hint: String =
            hints.iter().filter(|(is_good, _)| keys && *is_good).map(|(_, hint)| *hint).collect();
        let frame = SPINNER[self.frame % SPINNER.len()];
        eprint!("\r\x1b[2K{frame} {}: {doing} · {waited} s{hint}", sign_in.cloud);
        std::io::stderr().flush().ok();
        self.frame += 1;
        self.spinning = true;
    }

    fn clear(&mut self) {
        if self.spinning {
            eprint!("\r\x1b[2K");
            self.spinning = false;
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}
