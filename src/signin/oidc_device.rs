//! OAuth's device authorization (RFC 8628): a user approves on any device, this computer needs no browser.

use jiff::SignedDuration;
use tokio::sync::{Notify, mpsc};

use super::{Command, Progress, SignedIn, Started, Task};
use crate::error::{Code, Result};
use crate::oidc::{Device, Provider};

/// Asks the identity provider for a code, and starts to wait for the user's approval.
pub(super) async fn start(task: Task, provider: Provider) -> Result<Started> {
    let device = provider.device().await?;
    let client = task.cloud.client_id();
    // Whoever approves a code that somebody else sent signs *them* in (RFC 8628 section 5.4).
    let notice = format!(
        "open it on any device; it shows the code {} and asks for client {client}. Approve only what you started yourself",
        device.user_code
    );
    let started = Progress { opened: true, notices: vec![notice], ..Progress::default() };
    let (url, user_code) = (device.url.clone(), Some(device.user_code.clone()));
    Ok(Started::going_on(url, user_code, started, |_, heard, cancelled| async move {
        until_over(&task, &provider, device, heard, &cancelled).await
    }))
}

async fn until_over(
    task: &Task,
    provider: &Provider,
    device: Device,
    mut heard: mpsc::Receiver<Command>,
    cancelled: &Notify,
) -> Result<SignedIn> {
    let approved = approved(task, provider, &device);
    let deadline = task.clock.sleep_until(task.deadline);
    tokio::pin!(approved, deadline);
    loop {
        tokio::select! {
            signed_in = &mut approved => return signed_in,
            () = &mut deadline => {
                let waited = task.deadline.duration_since(task.started_at).as_secs();
                return Err(task.again(Code::SignInTimedOut, format!("nobody approved within {waited} seconds")));
            }
            () = cancelled.notified() => {
                return Err(task.cancelled());
            }
            // No page of ours has a token to offer.
            Some(command) = heard.recv() => {
                let why = "this sign-in is approved on the page, nothing comes back by an address or a terminal";
                command.makes_no_sense_here(task, why);
            }
        }
    }
}

async fn approved(task: &Task, provider: &Provider, device: &Device) -> Result<SignedIn> {
    let clock = task.clock.clone();
    let pause = move |time: std::time::Duration| {
        clock.sleep_until(clock.now() + SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
    };
    let granted = provider.approved(device, pause).await?;
    let signed_in = task.redeem(provider, granted).await?;
    task.check_user(&signed_in.token).await?;
    Ok(signed_in)
}
