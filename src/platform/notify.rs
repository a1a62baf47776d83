//! A notification on the user's desktop: `org.freedesktop.Notifications`, version 1.2, on the session bus.
//!
//! Without a bus, or without a program that shows it, nothing happens; the connection is not kept.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::timeout;
use zbus::Connection;
use zbus::zvariant::{OwnedObjectPath, Value};

use crate::notifier::Notices;

/// Somebody who starts the desktop's daemon at the first call may take a moment. Nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// As long as a sign-in waits for its user.
const PATIENCE: Duration = Duration::from_mins(5);
/// *Let the server decide how long.*
const DEFAULT_EXPIRY: i32 = -1;
/// *Never expires*: we close it ourselves.
const NO_EXPIRY: i32 = 0;

#[zbus::proxy(
    interface = "org.freedesktop.Notifications",
    default_service = "org.freedesktop.Notifications",
    default_path = "/org/freedesktop/Notifications",
    gen_blocking = false
)]
trait Notifications {
    fn get_capabilities(&self) -> zbus::Result<Vec<String>>;

    #[expect(clippy::too_many_arguments, reason = "as the specification has it")]
    fn notify(
        &self,
        app_name: &str,
        replaces_id: u32,
        app_icon: &str,
        summary: &str,
        body: &str,
        actions: &[&str],
        hints: HashMap<&str, Value<'_>>,
        expire_timeout: i32,
    ) -> zbus::Result<u32>;

    #[zbus(no_reply)]
    fn close_notification(&self, id: u32) -> zbus::Result<()>;

    #[zbus(signal)]
    fn action_invoked(&self, id: u32, action_key: &str) -> zbus::Result<()>;

    #[zbus(signal)]
    fn notification_closed(&self, id: u32, reason: u32) -> zbus::Result<()>;
}

/// XDG Desktop Portal.
#[zbus::proxy(
    interface = "org.freedesktop.portal.OpenURI",
    default_service = "org.freedesktop.portal.Desktop",
    default_path = "/org/freedesktop/portal/desktop",
    gen_blocking = false
)]
trait OpenUri {
    #[zbus(name = "OpenURI")]
    fn open_uri(
        &self,
        parent_window: &str,
        uri: &str,
        options: HashMap<&str, Value<'_>>,
    ) -> zbus::Result<OwnedObjectPath>;
}

/// The desktop of the session that the agent was started in.
pub struct Desktop;

impl Notices for Desktop {
    fn tell(&self, title: String, text: String) -> BoxFuture<'static, ()> {
        Box::pin(within(TIMEOUT, async move {
            let bus = Connection::session().await?;
            let desktop = NotificationsProxy::new(&bus).await?;
            notify(&desktop, &title, &text, &[], DEFAULT_EXPIRY).await.map(drop)
        }))
    }

    fn ask(&self, title: String, text: String, url: String) -> BoxFuture<'static, ()> {
        Box::pin(within(PATIENCE, async move {
            let bus = Connection::session().await?;
            let desktop = NotificationsProxy::new(&bus).await?;
            let mut clicks = desktop.receive_action_invoked().await?;
            let shown = notify(&desktop, &title, &text, &["default", "Sign in"], DEFAULT_EXPIRY).await?;
            while let Some(click) = clicks.next().await {
                if click.args()?.id == shown {
                    // The desktop opens it: the agent itself starts no browser.
                    let portal = OpenUriProxy::new(&bus).await?;
                    return portal.open_uri("", &url, HashMap::new()).await.map(drop);
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
    desktop: NotificationsProxy<'static>,
    id: u32,
    clicks: ActionInvokedStream,
    ends: NotificationClosedStream,
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
                let click = click.args()?;
                // A click on the text itself is no answer.
                if click.id == question.id && click.action_key != "default" {
                    return Ok(click.action_key == "allow");
                }
            }
            Some(end) = question.ends.next() => {
                if end.args()?.id == question.id {
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
        let desktop = NotificationsProxy::new(&bus).await?;
        if !desktop.get_capabilities().await?.iter().any(|each| each == "actions") {
            return Err(zbus::Error::Unsupported);
        }
        let clicks = desktop.receive_action_invoked().await?;
        let ends = desktop.receive_notification_closed().await?;
        let id = notify(&desktop, title, text, &["allow", "Allow", "deny", "Deny"], NO_EXPIRY).await?;
        Ok(Self { desktop, id, clicks, ends })
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let (desktop, id) = (self.desktop.clone(), self.id);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { desktop.close_notification(id).await.ok() });
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

/// Shows it, and returns the number by which its signals can be told.
async fn notify(
    desktop: &NotificationsProxy<'_>,
    title: &str,
    text: &str,
    actions: &[&str],
    expiry: i32,
) -> zbus::Result<u32> {
    let hints = HashMap::from([("urgency", Value::U8(1)), ("category", Value::from("network"))]);
    let (app, icon) = ("keystone-broker", "dialog-password");
    desktop.notify(app, 0, icon, title, &escaped(text), actions, hints, expiry).await
}

/// The text, unlike the title, may be taken for markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
