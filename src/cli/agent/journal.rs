//! The agent's own log on systemd's journal: a priority before each line (sd-daemon(3)), and neither time nor colours,
//! which the journal has itself.

use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether this is the stream that systemd named (systemd.exec(5), `JOURNAL_STREAM`). A program that was started with another
/// one may have inherited the variable.
pub(super) fn is_journal(stream: impl AsFd) -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(stream).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Lines for the journal.
pub(super) struct Lines(Format<Compact, ()>);

impl Lines {
    pub(super) fn new() -> Self {
        Self(Format::default().compact().without_time().with_level(false))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        // A line of its own would lose its priority, and could claim another.
        writeln!(writer, "<{priority}>{}", text.trim_end().replace('\n', " "))
    }
}
