//! Locks with the screen and before sleep, as config.toml wishes.

use jiff::SignedDuration;
use tokio::sync::mpsc;

use crate::api::LockReason;
use crate::broker::Broker;
use crate::config::Lock;
use crate::platform::clock::SystemClock;
use crate::platform::logind::{self, Event};
use crate::time::Clock;

/// A bus that went may come back.
const REST: SignedDuration = SignedDuration::from_secs(60);

/// Heeds the seat for as long as the process lives. Without logind there is nothing to heed.
pub(super) async fn heed(broker: Broker, wish: Lock) {
    if !wish.on_screen_lock && !wish.on_sleep {
        return;
    }
    let (tell, mut events) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut was_there = false;
        loop {
            match logind::watch(&tell).await {
                Err(error) if !was_there => {
                    tracing::warn!(%error, "there is no logind: no lock with the screen, nor before sleep");
                    return;
                }
                ended => tracing::warn!(?ended, "logind is gone; it is looked for again in a minute"),
            }
            was_there = true;
            SystemClock.sleep_until(SystemClock.now() + REST).await;
        }
    });
    while let Some(event) = events.recv().await {
        let locked = match event {
            Event::ScreenLocked if wish.on_screen_lock => {
                broker.lock(LockReason::Screen, None).await.map(drop)
            }
            Event::Sleeps(delay) if wish.on_sleep => {
                let locked = broker.lock(LockReason::Sleep, None).await.map(drop);
                // Also where it was locked before: what leaves still knows everything.
                if broker.is_leaving() {
                    delay.until_the_next_process();
                }
                locked
            }
            Event::ScreenUnlocked => {
                broker.welcome().await;
                Ok(())
            }
            Event::ScreenLocked | Event::Sleeps(_) => Ok(()),
        };
        if let Err(error) = locked {
            tracing::warn!(%error, "cannot be locked");
        }
    }
}
