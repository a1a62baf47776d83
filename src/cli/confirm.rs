//! `ksb confirm`: answers at this terminal, where no desktop asks.

use super::terminal::Keys;
use super::{say, target};
use crate::api::{AnswerRequest, Question};
use crate::error::{Code, Error, Result};

/// As long as the agent holds a question that does not come.
const WAIT: u32 = 60;

pub(super) async fn run() -> Result<()> {
    let mut keys = Keys::open().ok_or_else(|| {
        Error::new(Code::InvalidRequest, "there is no terminal to ask on").remedy("run it at a terminal")
    })?;
    let client = target::client()?;
    eprintln!("ksb: asks here before a program gets a token of what wants `confirm`; Ctrl-C ends it");
    loop {
        let reply = match client.get(&format!("/v1/confirmations?wait={WAIT}")).await {
            Ok(reply) if reply.status == 200 => reply,
            Err(error) if error.code != Code::AgentLeaving => return Err(error),
            _ => continue,
        };
        let Question { id, title, text } = reply.json()?;
        eprintln!("{}\n    {}", say::printable(&title), say::printable(&text));
        let allow = keys.confirm("Allow?").await;
        let answered = client.post(&format!("/v1/confirmations/{id}"), &AnswerRequest { allow }).await;
        if let Err(error) = answered {
            if error.code != Code::InvalidRequest {
                return Err(error);
            }
            eprintln!("ksb: too late: {error}");
        }
    }
}
