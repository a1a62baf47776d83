//! A notification on the person's desktop: `org.freedesktop.Notifications`, version 1.2, on the session bus.
//!
//! Spoken with zbus alone, which the keyring needs as well. Without a bus, or without anybody who shows it, nothing
//! happens; the connection is not kept.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::timeout;
use zbus::proxy::SignalStream;
use zbus::zvariant::Value;
use zbus::{Connection, Proxy};

use crate::ports::Notices;

/// Somebody who starts the desktop's daemon at the first call may take a moment. Nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// As long as a sign-in waits for its person.
const PATIENCE: Duration = Duration::from_mins(5);
/// *Let the server decide how long.*
const DEFAULT_EXPIRY: i32 = -1;
/// *Never expires*: we close it ourselves.
const NO_EXPIRY: i32 = 0;

/// The desktop of the session that the agent was started in.
pub struct Desktop;

impl Notices for Desktop {
    fn tell(&self, title: String, text: String) -> BoxFuture<'static, ()> {
        Box::pin(within(TIMEOUT, async move {
            let bus = Connection::session().await?;
            notify(&notifications(&bus).await?, &title, &text, &[], DEFAULT_EXPIRY).await.map(drop)
        }))
    }

    fn ask(&self, title: String, text: String, url: String) -> BoxFuture<'static, ()> {
        Box::pin(within(PATIENCE, async move {
            let bus = Connection::session().await?;
            let desktop = notifications(&bus).await?;
            let mut clicks = desktop.receive_signal("ActionInvoked").await?;
            let shown = notify(&desktop, &title, &text, &["default", "Sign in"], DEFAULT_EXPIRY).await?;
            while let Some(click) = clicks.next().await {
                let (id, _action): (u32, String) = click.body().deserialize()?;
                if id == shown {
                    return open(&bus, &url).await;
                }
            }
            Ok(())
        }))
    }

    fn confirm(&self, title: String, text: String) -> BoxFuture<'static, Option<bool>> {
        Box::pin(async move {
            let answer = question(title, text).await;
            answer.inspect_err(|error| tracing::info!(%error, "nobody can be asked")).ok()
        })
    }
}

/// A question on the desktop: taken away when nobody waits for its answer any more.
struct Question {
    desktop: Proxy<'static>,
    id: u32,
    clicks: SignalStream<'static>,
    ends: SignalStream<'static>,
}

/// Shows the question until it is answered or taken away. Signals are those of the bus name's owner only: the bus itself
/// keeps other programs' out.
async fn question(title: String, text: String) -> zbus::Result<bool> {
    // What nobody waits for any more when the desktop answers is taken away then: only now its number is known.
    let showing = tokio::spawn(timeout(PATIENCE, async move { Question::show(&title, &text).await }));
    let late = |_| zbus::Error::from(io::Error::from(io::ErrorKind::TimedOut));
    let shown = timeout(TIMEOUT, showing).await.map_err(late)?;
    let mut question = shown.map_err(|error| zbus::Error::from(io::Error::from(error)))?.map_err(late)??;
    loop {
        tokio::select! {
            biased;
            Some(click) = question.clicks.next() => {
                let (id, action): (u32, String) = click.body().deserialize()?;
                // A click on the text itself is no answer.
                if id == question.id && action != "default" {
                    return Ok(action == "allow");
                }
            }
            Some(end) = question.ends.next() => {
                let (id, _why): (u32, u32) = end.body().deserialize()?;
                if id == question.id {
                    return Ok(false);
                }
            }
            else => return Ok(false),
        }
    }
}

impl Question {
    async fn show(title: &str, text: &str) -> zbus::Result<Self> {
        let bus = Connection::session().await?;
        let desktop = notifications(&bus).await?;
        let capabilities: Vec<String> = desktop.call("GetCapabilities", &()).await?;
        if !capabilities.iter().any(|each| each == "actions") {
            return Err(zbus::Error::Unsupported);
        }
        let clicks = desktop.receive_signal("ActionInvoked").await?;
        let ends = desktop.receive_signal("NotificationClosed").await?;
        let id = notify(&desktop, title, text, &["allow", "Allow", "deny", "Deny"], NO_EXPIRY).await?;
        Ok(Self { desktop, id, clicks, ends })
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let (desktop, id) = (self.desktop.clone(), self.id);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { desktop.call_noreply("CloseNotification", &id).await.ok() });
        }
    }
}

async fn within(patience: Duration, doing: impl Future<Output = zbus::Result<()>>) {
    match timeout(patience, doing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "no notification"),
        Err(_) => tracing::debug!("no notification: the desktop, or the person, does not answer"),
    }
}

async fn notifications(bus: &Connection) -> zbus::Result<Proxy<'static>> {
    const NAME: &str = "org.freedesktop.Notifications";
    Proxy::new(bus, NAME, "/org/freedesktop/Notifications", NAME).await
}

/// Shows it, and returns the number by which its signals can be told.
async fn notify(
    desktop: &Proxy<'_>,
    title: &str,
    text: &str,
    actions: &[&str],
    expiry: i32,
) -> zbus::Result<u32> {
    let hints = HashMap::from([("urgency", Value::U8(1)), ("category", Value::from("network"))]);
    let text = escaped(text);
    let message = ("keystone-broker", 0_u32, "dialog-password", title, &text, actions, hints, expiry);
    desktop.call("Notify", &message).await
}

/// The desktop opens an address (XDG Desktop Portal, OpenURI): the agent itself launches nothing.
async fn open(bus: &Connection, url: &str) -> zbus::Result<()> {
    const NAME: &str = "org.freedesktop.portal.Desktop";
    let portal =
        Proxy::new(bus, NAME, "/org/freedesktop/portal/desktop", "org.freedesktop.portal.OpenURI").await?;
    let options: HashMap<&str, Value<'_>> = HashMap::new();
    portal.call_method("OpenURI", &("", url, options)).await.map(drop)
}

/// The text, unlike the title, may be taken for markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
