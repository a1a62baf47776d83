//! Variables as text that a shell evaluates or a file keeps.

use std::fmt::Write;

use clap::ValueEnum;

use super::environment::Changes;
use crate::error::{Code, Error, Result};

/// Who reads the text.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// sh, bash, zsh: eval "$(ksb env)"
    Sh,
    /// fish: ksb env --shell fish | source
    Fish,
    /// A .env file for programs and containers: NAME=value
    Dotenv,
    /// An .envrc for direnv
    Direnv,
}

/// The text, one change a line.
pub(super) fn text(shell: Shell, changes: &Changes) -> Result<String> {
    let mut text = String::new();
    let gone = changes.gone().collect::<Vec<_>>().join(" ");
    match shell {
        _ if gone.is_empty() => {}
        Shell::Sh | Shell::Direnv => _ = writeln!(text, "unset {gone}"),
        Shell::Fish => _ = writeln!(text, "set -e {gone}"),
        // It only ever adds to an environment.
        Shell::Dotenv => {}
    }
    for (name, value) in changes.set() {
        match shell {
            Shell::Sh | Shell::Direnv => {
                let value = shlex::try_quote(value).map_err(|_| unfit(name, "a shell's variable"))?;
                _ = writeln!(text, "export {name}={value}");
            }
            Shell::Fish => _ = writeln!(text, "set -gx {name} {}", fish(name, value)?),
            Shell::Dotenv => _ = writeln!(text, "{name}={}", dotenv(name, value)?),
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
                    text(Shell::Sh, &changes(value)).unwrap()
                );
                let output = Command::new(shell).args(["-c", &script]).output().unwrap();
                assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{value}|gone"), "{shell}");
                assert!(output.stderr.is_empty(), "{shell}: {value}: {:?}", output.stderr);
            }
        }
    }

    #[test]
    fn what_no_variable_holds_is_refused() {
        for shell in [Shell::Sh, Shell::Fish, Shell::Dotenv, Shell::Direnv] {
            assert!(text(shell, &changes("a\0b")).is_err());
        }
    }

    #[test]
    fn fish_knows_two_escapes_between_single_quotes() {
        let text = |value| text(Shell::Fish, &changes(value)).unwrap();
        assert_eq!(text("it's"), "set -e OS_CLOUD\nset -gx OS_REGION_NAME 'it\\'s'\n");
        assert_eq!(text("$(a) \\"), "set -e OS_CLOUD\nset -gx OS_REGION_NAME '$(a) \\\\'\n");
    }

    #[test]
    fn a_file_has_only_what_every_reader_of_such_files_takes_alike() {
        let text = |value| text(Shell::Dotenv, &changes(value));
        assert_eq!(text("http://127.0.0.1:8/v3").unwrap(), "OS_REGION_NAME=http://127.0.0.1:8/v3\n");
        assert_eq!(text("two words # here").unwrap(), "OS_REGION_NAME='two words # here'\n");
        for refused in ["it's", "two\nlines", "$HOME", "a\\b", "\"a\""] {
            let error = text(refused).unwrap_err();
            assert!(error.detail.contains("OS_REGION_NAME") && !error.detail.contains(refused), "{error}");
        }
    }
}
