//! A workload's token from a command. The agent starts no program, so it runs here: in the caller's directory and environment,
//! and only when the agent has no token that lives.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::oneshot;

use crate::error::{Code, Error, Result, reason};
use crate::model::{Cloud, Secret, Workload};

/// Longer than any token.
const LONGEST: u64 = 64 << 10;

/// Puts what the entry's command prints into `cloud`.
pub(in crate::cli) async fn fetch(cloud: &mut Cloud) -> Result<()> {
    let label = cloud.label().to_owned();
    let ours = cloud.source.as_ref().is_none_or(|source| !source.current_folder);
    let Some(Workload::Command { command, limit, token }) = &mut cloud.sign_in.workload else {
        return Err(Error::new(Code::Internal, "the agent asks for a token of no command").cloud(&label));
    };
    if !ours {
        // Who trusts a cloned repository's cloud has not said that its commands may run.
        let why = format!("`{command}` is not run: the entry lies in the current directory");
        return Err(Error::new(Code::CloudNotTrusted, why)
            .cloud(&label)
            .remedy("move the entry to ~/.config/openstack/clouds.yaml"));
    }
    let printed = output(command, Duration::from_secs(*limit)).await.map_err(|why| {
        Error::new(Code::InvalidConfig, format!("`{command}`, the command for a token, {why}"))
            .cloud(&label)
            .remedy("run it yourself, and correct `token_command`")
    })?;
    *token = Some(printed);
    Ok(())
}

async fn output(command: &str, limit: Duration) -> Result<Secret, String> {
    let words = shlex::split(command).ok_or("has unbalanced quotes")?;
    let (program, arguments) = words.split_first().ok_or("is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // With all that it starts it can be ended.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be run: {}", reason(&error)))?;
    let group = Pid::from_child(&child);
    let (tell, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let pipe = child.stdout.take();
        let read = pipe.map_or(Ok(0), |pipe| pipe.take(LONGEST).read_to_string(&mut text));
        let ended = read.and_then(|_| child.wait());
        let _nobody_waits = tell.send(ended.map(|status| (status, Secret::new(text))));
    });
    let outcome = tokio::select! {
        ended = tokio::time::timeout(limit, ended) => ended.map_err(|_| format!("took more than {} s", limit.as_secs())),
        _ = tokio::signal::ctrl_c() => Err("was interrupted".into()),
    };
    match outcome {
        Ok(Ok(Ok((status, text)))) if status.success() => Ok(text),
        Ok(Ok(Ok((status, _)))) => Err(format!("failed: {status}")),
        Ok(Ok(Err(error))) => Err(format!("printed what cannot be read: {}", reason(&error))),
        Ok(Err(_)) => Err("got lost".into()),
        Err(why) => {
            kill_process_group(group, Signal::KILL).ok();
            Err(why)
        }
    }
}
