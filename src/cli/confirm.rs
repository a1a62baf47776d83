//! `ksb confirm`: answers at this terminal, where no desktop asks.

use super::cloud_args;
use super::terminal::Keys;
use crate::api::{AnswerRequest, Question};
use crate::cli::output::{self, errln};
use crate::client::Client;
use crate::error::{Code, Error, Result};

/// As long as the agent holds a question that does not come.
const WAIT: u32 = 60;

pub(super) async fn run() -> Result<()> {
    let mut keys = Keys::open().ok_or_else(|| {
        Error::new(Code::InvalidRequest, "there is no terminal to ask on").remedy("run it at a terminal")
    })?;
    let client = cloud_args::client()?;
    client.get("/v1/status").await?;
    // Who stops it later means it.
    let client = Client::of_the_one_that_runs(client.paths().clone());
    errln!("ksb: asks here before a program gets a token of what wants `confirm`; Ctrl-C ends it");
    let path = format!("/v1/confirmations?wait={WAIT}");
    loop {
        let reply = tokio::select! {
            reply = client.get(&path) => reply,
            () = keys.hang_up() => return Ok(()),
        };
        let reply = match reply {
            Ok(reply) if reply.status == 200 => reply,
            Err(error) if error.code != Code::AgentLeaving => return Err(error),
            _ => continue,
        };
        let Question { id, title, text } = reply.json()?;
        errln!("{}\n    {}", output::printable(&title), output::printable(&text));
        let allow = keys.confirm("Allow?").await;
        let answered = client.post(&format!("/v1/confirmations/{id}"), &AnswerRequest { allow }).await;
        if let Err(error) = answered {
            if error.code != Code::InvalidRequest {
                return Err(error);
            }
            errln!("ksb: too late: {error}");
        }
    }
}
