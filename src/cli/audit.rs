//! `ksb audit`: the audit log for people, also while no agent runs.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use crate::audit::{self, Action, Entry, Outcome};
use crate::cli::output::outln;
use crate::error::{Error, Result};
use crate::platform::paths::{Paths, make_private};
use crate::platform::peer_program::Program;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Wait for what happens next
    #[arg(long, short)]
    follow: bool,
    /// Only what concerns this cloud
    #[arg(long = "os-cloud", value_name = "CLOUD")]
    cloud: Option<String>,
    /// Print the lines as they are in the file (docs/audit-log.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let paths = Paths::from_env()?;
    make_private(&paths.state)?;
    let file = audit::file_in(&paths.state);
    let mut out = io::stdout().lock();
    let mut said = 0_u64;
    let told = audit::read(&file, args.follow, |line, entry| {
        if args.cloud.as_ref().is_some_and(|cloud| entry.what.cloud.as_ref() != Some(cloud)) {
            return Ok(());
        }
        said += 1;
        if args.json {
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{}", words(entry))?;
        }
        out.flush()
    });
    match told {
        Ok(()) if said == 0 && !args.json => outln!("Nothing is in the log: {}", file.display()),
        // Whoever read it has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Error::io(file.display(), &error));
        }
        _ => {}
    }
    Ok(())
}

/// `Mon 23 Nov 07:45:12  token: demo, project demo, as alice, to openstack (1234, /usr/bin/python3.12) < bash < tmux, req-…`
fn words(entry: &Entry) -> String {
    let what = &entry.what;
    let when = entry.time.to_zoned(TimeZone::system()).strftime("%a %-d %b %H:%M:%S").to_string();
    let how = match (what.outcome, what.code) {
        (Outcome::Done, _) => String::new(),
        (Outcome::Waits, _) => " waits for a sign-in".to_owned(),
        (Outcome::Refused, None) => " REFUSED".to_owned(),
        (Outcome::Refused, Some(code)) => format!(" REFUSED ({})", code.name()),
    };
    let facts = [
        what.cloud.clone(),
        what.scope.clone(),
        what.user.as_ref().map(|user| format!("as {user}")),
        what.lease.as_ref().map(|lease| format!("by lease {lease}")),
        what.detail.clone(),
        entry.program.as_ref().map(|program| by(what.action, program)),
        again(entry),
        what.request_id.clone(),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    let colon = if facts.is_empty() { "" } else { ": " };
    let line = format!("{when}  {}{how}{colon}{}", verb(what.action), facts.join(", "));
    // Names may hold anything, also what a terminal obeys.
    line.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Start => "agent started",
        Action::Stop => "agent ended",
        Action::Token => "token",
        Action::Login => "login",
        Action::SignIn => "sign-in",
        Action::Renewal => "renewal",
        Action::Logout => "logout",
        Action::Lease => "lease made",
        Action::LeaseEnd => "lease ended",
        Action::Confirm => "confirmation",
        Action::Vault => "vault opened",
        Action::Lock => "lock",
        Action::Unlock => "unlock",
        Action::Trust => "trust",
        Action::Lost => "LINES LOST",
    }
}

/// `to openstack (1234, /usr/bin/python3.12) < bash < tmux`; `by` it where it is given nothing.
fn by(action: Action, program: &Program) -> String {
    let executable =
        program.executable.as_ref().map_or(String::new(), |path| format!(", {}", path.display()));
    let how = match action {
        Action::Token | Action::Login | Action::SignIn | Action::Lease | Action::Confirm => "to",
        _ => "by",
    };
    let own = format!("{how} {} ({}{executable})", program.name, program.pid);
    let line: Vec<_> = std::iter::once(&own).chain(&program.parents).map(String::as_str).collect();
    line.join(" < ")
}

fn again(entry: &Entry) -> Option<String> {
    let last = entry.last?.to_zoned(TimeZone::system());
    Some(format!("{} times until {}", entry.repeats, last.strftime("%H:%M:%S")))
}
