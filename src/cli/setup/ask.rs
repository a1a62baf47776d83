//! Questions to the user at the terminal. Without one, an option has to say it.

use crate::cli::output::{errln, outln, printable};
use crate::cli::terminal::Keys;
use crate::error::{Code, Error, Result};

pub(super) struct Person {
    keys: Option<Keys>,
    yes: bool,
}

impl Person {
    pub(super) fn new(yes: bool) -> Self {
        Self { keys: None, yes }
    }

    /// The terminal, for one question: a sign-in wants it, too.
    fn terminal(&mut self) -> Option<&mut Keys> {
        self.keys = Keys::open();
        self.keys.as_mut()
    }

    /// A line; without a terminal the option that says it is named.
    pub(super) async fn line(&mut self, question: &str, default: &str, option: &str) -> Result<String> {
        let Some(keys) = self.terminal() else { return Err(nobody(question, option)) };
        let line = keys.shown_line(question, default).await;
        self.keys = None;
        if line.is_empty() { Err(nobody(question, option)) } else { Ok(line) }
    }

    /// A line that may stay empty, as it does without a terminal.
    pub(super) async fn line_or_nothing(&mut self, question: &str) -> String {
        let Some(keys) = self.terminal() else { return String::new() };
        let line = keys.shown_line(question, "").await;
        self.keys = None;
        line
    }

    /// The place of one of several.
    pub(super) async fn number(
        &mut self,
        lines: impl Iterator<Item = String>,
        option: &str,
    ) -> Result<usize> {
        let mut count = 0;
        for line in lines {
            count += 1;
            outln!("  {count}  {}", printable(&line));
        }
        let question = "Which one";
        loop {
            let line = self.line(question, "1", option).await?;
            match line.parse::<usize>() {
                Ok(number) if (1..=count).contains(&number) => return Ok(number - 1),
                _ => errln!("ksb: a number from 1 to {count}"),
            }
        }
    }

    /// Whether they say yes, or said so before.
    pub(super) async fn agrees(&mut self, question: &str) -> Result<bool> {
        if self.yes {
            return Ok(true);
        }
        let Some(keys) = self.terminal() else { return Err(nobody(question, "--yes")) };
        let yes = keys.confirm(question).await;
        self.keys = None;
        Ok(yes)
    }
}

fn nobody(question: &str, option: &str) -> Error {
    let question = question.trim_end_matches('?');
    Error::new(Code::InvalidRequest, format!("not answered: {question}"))
        .remedy(format!("in a terminal; or {option}"))
}
