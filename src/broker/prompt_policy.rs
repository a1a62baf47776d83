//! Which programs may have a browser opened, and how often: what a user asks for themselves (`ksb login`) is not held up.

use super::Inner;
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, Identity};
use crate::platform::peer_program::Program;
use crate::sync::lock_unpoisoned;

impl Inner {
    /// Whether a sign-in may begin for this program. One that is under way is joined in any case.
    pub(super) fn check_prompt(
        &self,
        cloud: &Cloud,
        identity: &Identity,
        program: Option<&Program>,
    ) -> Result<()> {
        let settings = self.config.prompting(cloud);
        if let Some(programs) = settings.programs
            && !program.is_some_and(|program| programs.iter().any(|meant| program.is_part_of(meant)))
        {
            let name = program.map_or("a program that is not known", |program| &program.name);
            let may = if programs.is_empty() { "no program".to_owned() } else { programs.join(", ") };
            let why =
                format!("nobody is signed in, and {name} may not open a browser (prompt.programs: {may})");
            return Err(needed(Code::SignInNeeded, cloud, why));
        }
        let (now, state) = (self.clock.now(), lock_unpoisoned(&self.state));
        let last = state.last_prompts.get(identity).filter(|_| !state.pending.contains_key(identity));
        let left = last.map(|last| (*last + settings.cool_down).duration_since(now).as_secs());
        if let Some(left) = left.filter(|left| *left > 0) {
            let why = format!(
                "a sign-in was opened a moment ago; no browser is opened for another {left} s (prompt.cool_down)"
            );
            return Err(needed(Code::SignInCoolingDown, cloud, why));
        }
        Ok(())
    }

    /// A sign-in that a program had opened begins or ends.
    pub(super) fn note_prompt(&self, identity: &Identity) {
        let now = self.clock.now();
        lock_unpoisoned(&self.state).last_prompts.insert(identity.clone(), now);
    }
}

fn needed(code: Code, cloud: &Cloud, why: String) -> Error {
    Error::new(code, why).cloud(cloud.label()).remedy(format!("ksb login {}", cloud.argument()))
}
