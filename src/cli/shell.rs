//! Variables as text that a shell evaluates or a file keeps.

use std::fmt::Write;

use clap::ValueEnum;

use super::lease_env::Changes;
use crate::error::{Code, Error, Result};

/// What reads the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A shell evaluates it.
    Shell(Shell),
    /// A `.env` file of programs and containers keeps it.
    Dotenv,
}

/// A shell.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// POSIX shells, and direnv: eval "$(ksb env)"
    Sh,
    /// eval "$(ksb env)"
    Bash,
    /// eval "$(ksb env)"
    Zsh,
    /// ksb env --shell fish | source
    Fish,
}

/// The text, one change a line.
pub(super) fn text(format: Format, changes: &Changes) -> Result<String> {
    let mut text = String::new();
    let gone = changes.gone().collect::<Vec<_>>().join(" ");
    match format {
        _ if gone.is_empty() => {}
        Format::Shell(Shell::Fish) => _ = writeln!(text, "set -e {gone}"),
        Format::Shell(_) => _ = writeln!(text, "unset {gone}"),
        // It only ever adds to an environment.
        Format::Dotenv => {}
    }
    for (name, value) in changes.set() {
        match format {
            Format::Shell(Shell::Fish) => _ = writeln!(text, "set -gx {name} {}", fish(name, value)?),
            Format::Shell(_) => {
                let value = shlex::try_quote(value).map_err(|_| unfit(name, "a shell's variable"))?;
                _ = writeln!(text, "export {name}={value}");
            }
            Format::Dotenv => _ = writeln!(text, "{name}={}", dotenv(name, value)?),
        }
    }
    Ok(text)
}

/// fish(1), "Quotes": between single quotes only `\'` and `\\` mean anything else than themselves.
fn fish(name: &str, value: &str) -> Result<String> {
    if value.contains('\0') {
        return Err(unfit(name, "a shell's variable"));
    }
    Ok(format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")))
}

/// The readers of such files disagree on quotes, escapes and `$`: `docker run --env-file` takes all of them as they stand.
/// What every one of them reads the same is written, quoted only where spaces or `#` leave no choice; the rest is refused.
fn dotenv(name: &str, value: &str) -> Result<String> {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_-./:@%+,=~".contains(char);
    let quotable = |char: char| !char.is_control() && !"'\\$`\"".contains(char);
    if value.chars().all(plain) {
        Ok(value.to_owned())
    } else if value.chars().all(quotable) {
        Ok(format!("'{value}'"))
    } else {
        Err(unfit(name, "a .env file").remedy("ksb env --shell sh"))
    }
}

fn unfit(name: &str, what: &str) -> Error {
    Error::new(Code::InvalidConfig, format!("the value of {name} has characters that {what} cannot hold"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const HOSTILE: [&str; 10] = [
        "",
        "plain",
        "it's",
        "\"double\"",
        "$(touch pwned) `touch pwned` ${HOME}",
        "back\\slash\\",
        "two\nlines; touch pwned",
        "tab\tand # no comment",
        "!history ^caret *glob* ~",
        "Région-Ünïcödé",
    ];

    fn changes(value: &str) -> Changes {
        let mut changes = Changes::default();
        changes.remove("OS_CLOUD");
        changes.insert("OS_REGION_NAME", value);
        changes
    }

    #[test]
    fn a_real_shell_reads_back_what_was_written() {
        for shell in ["sh", "bash"] {
            for value in HOSTILE {
                let script = format!(
                    "OS_CLOUD=before\n{}printf '%s|%s' \"$OS_REGION_NAME\" \"${{OS_CLOUD-gone}}\"",
                    text(Format::Shell(Shell::Sh), &changes(value)).unwrap()
                );
                let output = Command::new(shell).args(["-c", &script]).output().unwrap();
                assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{value}|gone"), "{shell}");
                assert!(output.stderr.is_empty(), "{shell}: {value}: {:?}", output.stderr);
            }
        }
    }

    #[test]
    fn what_no_variable_holds_is_refused() {
        for format in [Format::Shell(Shell::Sh), Format::Shell(Shell::Fish), Format::Dotenv] {
            assert!(text(format, &changes("a\0b")).is_err());
        }
    }

    #[test]
    fn fish_knows_two_escapes_between_single_quotes() {
        let text = |value| text(Format::Shell(Shell::Fish), &changes(value)).unwrap();
        assert_eq!(text("it's"), "set -e OS_CLOUD\nset -gx OS_REGION_NAME 'it\\'s'\n");
        assert_eq!(text("$(a) \\"), "set -e OS_CLOUD\nset -gx OS_REGION_NAME '$(a) \\\\'\n");
    }

    #[test]
    fn a_file_has_only_what_every_reader_of_such_files_takes_alike() {
        let text = |value| text(Format::Dotenv, &changes(value));
        assert_eq!(text("http://127.0.0.1:8/v3").unwrap(), "OS_REGION_NAME=http://127.0.0.1:8/v3\n");
        assert_eq!(text("two words # here").unwrap(), "OS_REGION_NAME='two words # here'\n");
        for refused in ["it's", "two\nlines", "$HOME", "a\\b", "\"a\""] {
            let error = text(refused).unwrap_err();
            assert!(error.detail.contains("OS_REGION_NAME") && !error.detail.contains(refused), "{error}");
        }
    }
}
