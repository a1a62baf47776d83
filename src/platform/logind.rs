//! What happens at the user's seat: the screen is locked, the computer goes to sleep. By `org.freedesktop.login1` on
//! the system bus (org.freedesktop.login1(5)).

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use zbus::fdo::PropertiesChanged;
use zbus::message::Type;
use zbus::proxy::CacheProperties;
use zbus::zvariant::{self, ObjectPath, OwnedFd, OwnedObjectPath};
use zbus::{Connection, MatchRule, Message, MessageStream};

const NAME: &str = "org.freedesktop.login1";
const SESSIONS: &str = "/org/freedesktop/login1/session";
const SESSION: &str = "org.freedesktop.login1.Session";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1",
    gen_blocking = false
)]
trait Manager {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    fn list_sessions(&self) -> zbus::Result<Vec<ListedSession>>;

    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.login1.Session",
    default_service = "org.freedesktop.login1",
    gen_blocking = false
)]
trait Session {
    #[zbus(property)]
    fn user(&self) -> zbus::Result<SessionUser>;

    #[zbus(property)]
    fn locked_hint(&self) -> zbus::Result<bool>;

    #[zbus(signal)]
    fn lock(&self) -> zbus::Result<()>;

    #[zbus(signal)]
    fn unlock(&self) -> zbus::Result<()>;
}

/// An entry of `ListSessions`.
#[derive(Deserialize, zvariant::Type)]
#[expect(dead_code, reason = "D-Bus structures have all of their fields")]
struct ListedSession {
    id: String,
    uid: u32,
    user: String,
    seat: String,
    path: OwnedObjectPath,
}

/// The property `User`.
#[derive(zvariant::OwnedValue)]
struct SessionUser {
    uid: u32,
    path: OwnedObjectPath,
}

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
    let manager = ManagerProxy::new(&bus).await?;
    let mut sleeps = manager.receive_prepare_for_sleep().await?;
    let mut sessions = signals_of_sessions(&bus).await?;
    let mut delay = inhibit(&manager).await;
    // What happened while nobody listened.
    if is_locked(&bus, &manager).await && events.send(Event::ScreenLocked).await.is_err() {
        return Ok(());
    }
    loop {
        let event = tokio::select! {
            Some(sleep) = sleeps.next() => {
                if sleep.args()?.start {
                    Event::Sleeps(Delay(delay.take()))
                } else {
                    delay = inhibit(&manager).await;
                    continue;
                }
            }
            Some(signal) = sessions.next() => {
                let signal = signal?;
                match is_lock(&signal) {
                    Some(is_lock) if is_ours(&bus, &signal).await => {
                        if is_lock { Event::ScreenLocked } else { Event::ScreenUnlocked }
                    }
                    _ => continue,
                }
            }
            else => return Ok(()),
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

/// Of all sessions, also of those that begin later.
async fn signals_of_sessions(bus: &Connection) -> zbus::Result<stream::SelectAll<MessageStream>> {
    let rule = || MatchRule::builder().msg_type(Type::Signal).sender(NAME)?.path_namespace(SESSIONS);
    let rules = [
        rule()?.interface(SESSION)?.member("Lock")?.build(),
        rule()?.interface(SESSION)?.member("Unlock")?.build(),
        rule()?.interface(PROPERTIES)?.member("PropertiesChanged")?.build(),
    ];
    let mut signals = stream::SelectAll::new();
    for rule in rules {
        signals.push(MessageStream::for_match_rule(rule, bus, None).await?);
    }
    Ok(signals)
}

/// Without one the computer may sleep before everything is forgotten.
async fn inhibit(manager: &ManagerProxy<'_>) -> Option<OwnedFd> {
    let taken = manager.inhibit("sleep", "keystone-broker", "forgets what is signed in", "delay").await;
    taken.inspect_err(|error| tracing::info!(%error, "sleep cannot be delayed")).ok()
}

/// Whether the signal says that the screen is locked. `Lock` asks the desktop to do so; `LockedHint` says that it did.
fn is_lock(signal: &Message) -> Option<bool> {
    if Lock::from_message(signal.clone()).is_some() {
        return Some(true);
    }
    if Unlock::from_message(signal.clone()).is_some() {
        return Some(false);
    }
    let change = PropertiesChanged::from_message(signal.clone())?;
    let change = change.args().ok()?;
    change.changed_properties.get("LockedHint").and_then(|hint| bool::try_from(hint).ok())
}

/// Whether the signal comes from a session of our user's.
async fn is_ours(bus: &Connection, signal: &Message) -> bool {
    let header = signal.header();
    let Some(path) = header.path() else { return false };
    let user = async { session(bus, path.to_owned()).await?.user().await };
    user.await.is_ok_and(|user| user.uid == own_uid())
}

/// Whether the screen of a session of our user's is locked.
async fn is_locked(bus: &Connection, manager: &ManagerProxy<'_>) -> bool {
    let Ok(sessions) = manager.list_sessions().await else { return false };
    for listed in sessions.into_iter().filter(|listed| listed.uid == own_uid()) {
        let hint = async { session(bus, listed.path.into()).await?.locked_hint().await };
        if hint.await.is_ok_and(|is_locked| is_locked) {
            return true;
        }
    }
    false
}

/// A property is asked for once: nothing is to be kept up to date.
async fn session<'a>(bus: &Connection, path: ObjectPath<'a>) -> zbus::Result<SessionProxy<'a>> {
    SessionProxy::builder(bus).path(path)?.cache_properties(CacheProperties::No).build().await
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}
