//! What happens at the person's seat: the screen is locked, the computer goes to sleep. By `org.freedesktop.login1` on
//! the system bus (org.freedesktop.login1(5)).

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use zbus::message::Type;
use zbus::names::MemberName;
use zbus::zvariant::{OwnedFd, OwnedObjectPath};
use zbus::{Connection, MatchRule, Message, MessageStream, Proxy};

const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const SESSIONS: &str = "/org/freedesktop/login1/session";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "org.freedesktop.login1.Session";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// What happened at the seat.
#[derive(Debug)]
pub enum Event {
    /// The screen of a session of ours was locked, or is to be.
    ScreenLocked,
    /// It was unlocked.
    ScreenUnlocked,
    /// The computer sleeps as soon as this is dropped, or after some seconds.
    Sleeps(Delay),
}

/// Holds the computer awake for a moment: logind's *delay* inhibitor.
#[derive(Debug)]
pub struct Delay(#[expect(dead_code, reason = "it is held, and never read")] Option<OwnedFd>);

impl Delay {
    /// Lets the computer sleep when this process's memory is gone: execve(2) closes what is open.
    pub fn until_the_next_process(self) {
        std::mem::forget(self);
    }
}

/// Tells what happens until the bus or the listener goes. Returns why it ended; the first connection may fail at once.
pub async fn watch(events: &mpsc::Sender<Event>) -> zbus::Result<()> {
    let bus = Connection::system().await?;
    let manager = Proxy::new(&bus, NAME, PATH, MANAGER).await?;
    let rule = || MatchRule::builder().msg_type(Type::Signal).sender(NAME);
    let rules = [
        rule()?.path(PATH)?.interface(MANAGER)?.member("PrepareForSleep")?.build(),
        rule()?.path_namespace(SESSIONS)?.interface(SESSION)?.member("Lock")?.build(),
        rule()?.path_namespace(SESSIONS)?.interface(SESSION)?.member("Unlock")?.build(),
        rule()?.path_namespace(SESSIONS)?.interface(PROPERTIES)?.member("PropertiesChanged")?.build(),
    ];
    let mut signals = stream::SelectAll::new();
    for rule in rules {
        signals.push(MessageStream::for_match_rule(rule, &bus, None).await?);
    }
    let mut delay = inhibit(&manager).await;
    // What happened while nobody listened.
    if is_locked(&bus, &manager).await && events.send(Event::ScreenLocked).await.is_err() {
        return Ok(());
    }
    while let Some(signal) = signals.next().await {
        let signal = signal?;
        let event = match signal.header().member().map(MemberName::as_str) {
            Some("PrepareForSleep") if signal.body().deserialize()? => Event::Sleeps(Delay(delay.take())),
            Some("PrepareForSleep") => {
                delay = inhibit(&manager).await;
                continue;
            }
            member => match screen(member, &signal) {
                Some(is_locked) if is_ours(&bus, &signal).await => {
                    if is_locked {
                        Event::ScreenLocked
                    } else {
                        Event::ScreenUnlocked
                    }
                }
                _ => continue,
            },
        };
        if events.send(event).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Without one the computer may sleep before everything is forgotten.
async fn inhibit(manager: &Proxy<'_>) -> Option<OwnedFd> {
    let what = ("sleep", "keystone-broker", "forgets what is signed in", "delay");
    let taken = manager.call("Inhibit", &what).await;
    taken.inspect_err(|error| tracing::info!(%error, "sleep cannot be delayed")).ok()
}

/// Whether the signal says that the screen is locked. `Lock` asks the desktop to do so; `LockedHint` says that it did.
fn screen(member: Option<&str>, signal: &Message) -> Option<bool> {
    use std::collections::HashMap;
    use zbus::zvariant::Value;
    match member? {
        "Lock" => Some(true),
        "Unlock" => Some(false),
        _ => {
            let body = signal.body();
            let (_, changed, _): (&str, HashMap<&str, Value<'_>>, Vec<&str>) = body.deserialize().ok()?;
            changed.get("LockedHint").and_then(|hint| bool::try_from(hint).ok())
        }
    }
}

/// Whether the signal comes from a session of our user's.
async fn is_ours(bus: &Connection, signal: &Message) -> bool {
    let header = signal.header();
    let Some(path) = header.path() else { return false };
    let user = async {
        let session = Proxy::new(bus, NAME, path.to_owned(), SESSION).await?;
        session.get_property::<(u32, OwnedObjectPath)>("User").await
    };
    user.await.is_ok_and(|(uid, _)| uid == own_uid())
}

/// Whether the screen of a session of our user's is locked.
async fn is_locked(bus: &Connection, manager: &Proxy<'_>) -> bool {
    type Listed = (String, u32, String, String, OwnedObjectPath);
    let Ok(sessions) = manager.call::<_, _, Vec<Listed>>("ListSessions", &()).await else { return false };
    for (.., path) in sessions.into_iter().filter(|(_, uid, ..)| *uid == own_uid()) {
        let hint = async {
            let session = Proxy::new(bus, NAME, path, SESSION).await?;
            session.get_property::<bool>("LockedHint").await
        };
        if hint.await.is_ok_and(|is_locked| is_locked) {
            return true;
        }
    }
    false
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}
