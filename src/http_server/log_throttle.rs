//! What anybody can have us say as often as they like is said once a minute: nobody rotates the agent's log.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_mins(1);

/// When something was said last, and how often it was not since.
#[derive(Default)]
pub(super) struct Seldom {
    said: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// How often it was left out, if it is time to say it again.
    pub(super) fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.duration_since(said) < PAUSE) {
            self.left_out += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_all_the_time_is_said_once_a_minute_with_its_number() {
        let (mut seldom, began) = (Seldom::default(), Instant::now());
        let said = (0..181_u64).map(|second| seldom.say(began + Duration::from_secs(second)));
        let said: Vec<_> = said.flatten().collect();
        assert_eq!(said, [0, 59, 59, 59]);
    }
}
