//! `4h`, `90m`, `1d12h`, as people write durations in arguments and settings.

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// Parses a duration above zero; a day has 24 hours.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|_| "not a duration; write 4h, 90m or 1d12h".to_owned())?;
    let relative = SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(relative).map_err(|error| error.to_string())?;
    if duration <= SignedDuration::ZERO {
        return Err("must be longer than nothing".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_in_these_ways() {
        assert_eq!(parse("4h"), Ok(SignedDuration::from_hours(4)));
        assert_eq!(parse("90m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(parse("1d12h"), Ok(SignedDuration::from_hours(36)));
        for wrong in ["", "4", "-4h", "0s", "four hours"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
