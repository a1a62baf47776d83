//! Findings for a user, and for a ticket.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Unit;

use crate::api::{Finding, Found};
use crate::cli::output::{outln, printable};
use crate::clouds::Environment;

fn word(found: Found) -> &'static str {
    match found {
        Found::Ok => "ok",
        Found::Warn => "warn",
        Found::Fail => "FAIL",
        Found::Unknown => "unknown",
        Found::Skipped => "skipped",
    }
}

/// One line each, and below it what helps.
pub(super) fn lines(findings: &[Finding]) {
    for finding in findings {
        outln!("{}", line(finding));
        if let Some(remedy) = finding.remedy.as_ref().filter(|_| finding.finding != Found::Ok) {
            outln!("         try: {}", printable(remedy));
        }
    }
    outln!("{}", summary(findings));
}

fn line(finding: &Finding) -> String {
    let subject = match finding.subject.as_str() {
        "" => String::new(),
        subject => format!(" {}", printable(subject)),
    };
    let id = finding.request_id.as_ref().filter(|_| finding.finding != Found::Ok);
    let id = id.map_or(String::new(), |id| format!(" ({})", printable(id)));
    format!("{:<8} {}{subject}: {}{id}", word(finding.finding), finding.check, printable(&finding.detail))
}

fn summary(findings: &[Finding]) -> String {
    let count = |found| findings.iter().filter(|finding| finding.finding == found).count();
    let of = |found, what: &str| match count(found) {
        0 => None,
        many => Some(format!("{many} {what}")),
    };
    let bad: Vec<_> = [
        of(Found::Fail, "failed"),
        of(Found::Warn, "to be looked at"),
        of(Found::Unknown, "cannot be known from here"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let is_empty =
        findings.iter().any(|finding| finding.check == "entry" && finding.finding == Found::Skipped);
    let bad = match (bad.is_empty(), is_empty) {
        (false, _) => bad.join(", "),
        (true, false) => "all is well".to_owned(),
        (true, true) => "nothing is wrong, and no cloud is set up yet: ksb setup ADDRESS".to_owned(),
    };
    format!("{} checks: {bad}", findings.len())
}

/// For a ticket: no names of people and their directories.
pub(super) fn report(findings: &[Finding], agent: Option<&str>, env: &Environment) {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("?").trim_matches('"');
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut lines = vec![
        "ksb doctor --report. Host names of clouds are left in, because the operator needs them; names of users,".into(),
        "home directories and tokens are not in it. Times are UTC.\n".into(),
        format!("ksb      {}", env!("CARGO_PKG_VERSION")),
        format!("agent    {}", agent.unwrap_or("none runs")),
        format!("system   {os}, Linux {kernel}"),
        format!("systemd  {}\n", systemd().unwrap_or_else(|| "none".into())),
    ];
    for finding in findings {
        let at = finding.at.round(Unit::Second).unwrap_or(finding.at);
        lines.push(format!("{at} {}", line(finding)));
        let more = match finding.finding {
            Found::Ok => finding.request_id.as_ref().map(|id| format!("x-openstack-request-id: {id}")),
            _ => finding.remedy.as_ref().map(|remedy| format!("try: {remedy}")),
        };
        lines.extend(more.map(|more| format!("{:21}{}", "", printable(&more))));
    }
    lines.push(summary(findings));
    outln!("{}", without_person(&lines.join("\n"), env));
}

/// `systemd 257 (…)`, of a machine that it runs.
fn systemd() -> Option<String> {
    // sd_booted(3).
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let asked =
        Command::new("systemctl").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let said = String::from_utf8(asked.ok()?.stdout).ok()?;
    said.lines().next().map(str::to_owned)
}

/// Home becomes `~`, and the user's name, where it is not part of a longer one, `USER`.
fn without_person(text: &str, env: &Environment) -> String {
    let home = env.home.display().to_string();
    let mut text =
        if home.len() > 1 { text.replace(home.trim_end_matches('/'), "~") } else { text.to_owned() };
    for name in ["USER", "LOGNAME", "SUDO_USER"].iter().filter_map(|name| env.get(name)) {
        // root is nobody in particular, and what files belong to.
        if !["", "root"].contains(&name) {
            text = without_name(&text, name);
        }
    }
    text
}

fn without_name(text: &str, name: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (at, found) in text.match_indices(name) {
        let (before, after) = (&text[..at], &text[at + found.len()..]);
        if !before.ends_with(in_name) && !after.starts_with(in_name) {
            out.push_str(&text[from..at]);
            out.push_str("USER");
            from = at + found.len();
        }
    }
    out.push_str(&text[from..]);
    out
}

fn in_name(char: char) -> bool {
    char.is_alphanumeric() || "_-".contains(char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_no_person_and_no_home() {
        let mut env = Environment { home: "/home/alice".into(), ..Environment::default() };
        env.vars.insert("USER".into(), "alice".into());
        let text = "/home/alice/.config/x belongs to alice; /var/lib/systemd/linger/alice; malice";
        let said = without_person(text, &env);
        assert_eq!(said, "~/.config/x belongs to USER; /var/lib/systemd/linger/USER; malice");
        for name in ["first.last", "CORP\\first", "first@corp.example"] {
            env.vars.insert("USER".into(), name.into());
            let said = without_person(&format!("{name}, /run/{name}. {name}s"), &env);
            assert_eq!(said, format!("USER, /run/USER. {name}s"));
        }
    }
}
