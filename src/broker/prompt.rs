//! Which programs may have a browser opened, and how often: what a person asks for themselves (`ksb login`) is not held up.

use jiff::{SignedDuration, Timestamp};

use super::{Inner, policy};
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, Identity};
use crate::platform::program::Program;
use crate::sync::locked;

/// What the budget is counted over.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

impl Inner {
    /// Whether a sign-in may begin for this program. One that is under way is joined in any case.
    pub(super) fn check_prompt(
        &self,
        cloud: &Cloud,
        identity: &Identity,
        program: Option<&Program>,
    ) -> Result<()> {
        let now = self.clock.now();
        let state = locked(&self.state);
        for settings in state.names(cloud, identity).map(|name| self.config.prompting(name)) {
            if let Some(programs) = settings.programs
                && !program.is_some_and(|program| programs.iter().any(|meant| program.is_part_of(meant)))
            {
                let name = program.map_or("a program that is not known", |program| &program.name);
                let may = if programs.is_empty() { "no program".to_owned() } else { programs.join(", ") };
                let why = format!(
                    "nobody is signed in, and {name} may not open a browser (prompt.programs: {may})"
                );
                return Err(needed(Code::SignInNeeded, cloud, why));
            }
            if state.pending.contains_key(identity) {
                continue;
            }
            if let Some((failures, last)) = state.failures.get(identity) {
                let until = *last + policy::cool_down(*failures, settings.cool_down);
                if now < until {
                    let left = until.duration_since(now).as_secs();
                    let why = format!(
                        "the last sign-in was not finished; no browser is opened for another {left} s"
                    );
                    return Err(needed(Code::SignInCoolingDown, cloud, why));
                }
            }
            let begun = state.begun.get(identity).map_or(&[][..], Vec::as_slice);
            let budget = usize::try_from(settings.per_hour).unwrap_or(usize::MAX);
            let recent: Vec<_> = begun.iter().filter(|when| now < **when + HOUR).collect();
            if recent.len() >= budget {
                // With this one out of the hour there is room again.
                let next = recent.get(recent.len() - budget);
                let left = next.map_or(HOUR, |oldest| (**oldest + HOUR).duration_since(now)).as_secs();
                let why = format!(
                    "programs began {} sign-ins within an hour, no more are allowed (prompt.per_hour); no browser is \
                     opened for another {left} s",
                    recent.len()
                );
                return Err(needed(Code::SignInCoolingDown, cloud, why));
            }
        }
        Ok(())
    }

    /// A program had a sign-in begun.
    pub(super) fn count_prompt(&self, identity: &Identity, now: Timestamp) {
        let mut state = locked(&self.state);
        let begun = state.begun.entry(identity.clone()).or_default();
        begun.retain(|when| now < *when + HOUR);
        begun.push(now);
    }
}

fn needed(code: Code, cloud: &Cloud, why: String) -> Error {
    Error::new(code, why).cloud(cloud.label()).remedy(format!("ksb login {}", cloud.argument()))
}
