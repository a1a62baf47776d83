//! The real clock: a timerfd on `CLOCK_REALTIME` that notices sleep and clock changes by itself.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::fd_limit;
use crate::time::Clock;

/// The system's wall clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, when: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while SystemClock.now() < when {
                // ECANCELED (the clock was set) and any other failure end the wait early; the loop
                // looks at the clock again. Without a timerfd there is nothing to wait with.
                if wait_once(when).await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        })
    }
}

async fn wait_once(when: Timestamp) -> std::io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let at = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: when.as_second(), tv_nsec: i64::from(when.subsec_nanosecond()) },
    };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &at)?;
    let timer = fd_limit::readable(timer)?;
    let _ready = timer.readable().await?;
    Ok(())
}
