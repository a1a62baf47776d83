//! A notification on the person's desktop: `org.freedesktop.Notifications`, version 1.2, on the session bus.
//!
//! Spoken with zbus alone, which the keyring needs as well. Without a bus, or without anybody who shows it, nothing
//! happens; the connection is not kept.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use zbus::Connection;
use zbus::zvariant::Value;

use crate::ports::Notices;

/// Somebody who starts the desktop's daemon at the first call may take a moment. Nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// *Let the server decide how long.*
const DEFAULT_EXPIRY: i32 = -1;

/// The desktop of the session that the agent was started in.
pub struct Desktop;

impl Notices for Desktop {
    fn tell(&self, title: String, text: String) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            match tokio::time::timeout(TIMEOUT, notify(&title, &escaped(&text))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "no notification"),
                Err(_) => tracing::debug!("no notification: the desktop does not answer"),
            }
        })
    }
}

async fn notify(title: &str, text: &str) -> zbus::Result<()> {
    const NAME: &str = "org.freedesktop.Notifications";
    let hints = HashMap::from([("urgency", Value::U8(1)), ("category", Value::from("network"))]);
    let actions: [&str; 0] = [];
    let message =
        ("keystone-broker", 0_u32, "dialog-password", title, text, &actions[..], hints, DEFAULT_EXPIRY);
    let bus = Connection::session().await?;
    bus.call_method(Some(NAME), "/org/freedesktop/Notifications", Some(NAME), "Notify", &message).await?;
    Ok(())
}

/// The text, unlike the title, may be taken for markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
