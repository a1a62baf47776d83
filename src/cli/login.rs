//! `ksb login`

use jiff::SignedDuration;

use super::sign_in::{interactive, recover, wait};
use super::{Done, cloud_args, duration, lease_request, say};
use crate::api::{LoginRequest, Session, SessionReply, SignIn, SignInReply, SignInState};
use crate::cli::output::{errln, outln};
use crate::client::Client;
use crate::error::{Code, Error, Result};
use crate::model::Cloud;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cloud: cloud_args::CloudArgs,
    /// Make sure that the session lasts at least this long, such as 4h; exit with 4 if it cannot
    #[arg(long = "at-least", value_name = "TIME", value_parser = duration::parse)]
    lasting: Option<SignedDuration>,
    /// Log out by itself after this long, such as 8h, and revoke every token
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    lifetime: Option<SignedDuration>,
    /// Sign in as somebody else than before, in the browser's private window
    #[arg(long)]
    switch_user: bool,
}

/// A sign-in that the user who started this command wants.
pub(super) fn request(cloud: Cloud) -> LoginRequest {
    LoginRequest {
        cloud,
        min_validity: 0,
        lifetime: None,
        switch_user: false,
        renew: false,
        prompt: interactive::may_prompt(),
        remote: interactive::is_remote(),
    }
}

pub(super) async fn run(args: Args) -> Result<Done> {
    let resolved = cloud_args::resolve_unscoped(&args.cloud)?;
    let lasting = args.lasting.unwrap_or_default();
    let mut request = LoginRequest {
        min_validity: lease_request::seconds(lasting),
        lifetime: args.lifetime.map(lease_request::seconds),
        switch_user: args.switch_user,
        ..request(resolved.cloud)
    };
    let session = sign_in(&cloud_args::client()?.at_a_terminal(), &mut request).await.map_err(|error| {
        match error.code {
            Code::SignInNeeded => by_nobody(error),
            _ => error,
        }
    })?;
    let label = request.cloud.label();
    outln!("{label}: signed in as {} {}", say::user(&session.user), say::lasts(&session));
    if session.expires_at.duration_since(say::now()) < lasting {
        errln!("ksb: {label}: that is sooner than asked; {}", say::why_no_longer(&session));
        return Ok(Done::TooShort);
    }
    Ok(Done::Ok)
}

/// What helps where a job runs `ksb login` is not to run it again.
fn by_nobody(error: Error) -> Error {
    let detail = format!("{}, and no terminal or desktop says that a user started this", error.detail);
    Error { detail, ..error }.remedy("the same at a terminal; or KSB_PROMPT=always, if there is a user")
}

/// Signs in, by the user or by whatever token a workload has, unless a session lasts long enough.
pub(super) async fn sign_in(client: &Client, request: &mut LoginRequest) -> Result<Session> {
    sign_in_by(client, request, |sign_in| wait::until_done(client, sign_in, true)).await
}

/// The same for a caller that wants to know why, as soon as what the browser brings cannot be used.
pub(super) async fn sign_in_or_say_why(client: &Client, request: &mut LoginRequest) -> Result<Session> {
    let watch = async |sign_in: SignIn| {
        let refused = refusal(client, sign_in.clone());
        let path = format!("/v1/sign-ins/{}", sign_in.id);
        tokio::select! {
            done = wait::until_done(client, sign_in, true) => done,
            refused = refused => {
                client.delete(&path).await.ok();
                Err(refused?)
            }
        }
    };
    sign_in_by(client, request, watch).await
}

/// Why what the browser brought could not be used, as soon as there was such a thing.
async fn refusal(client: &Client, mut sign_in: SignIn) -> Result<Error> {
    loop {
        match sign_in.refused.take() {
            Some(problem) => return Ok(problem.into()),
            // Whoever waits for it says how it ended.
            None if matches!(sign_in.state, SignInState::Done | SignInState::Failed) => {
                return std::future::pending().await;
            }
            None => sign_in = wait::news(client, &sign_in).await?,
        }
    }
}

pub(super) async fn sign_in_by(
    client: &Client,
    request: &mut LoginRequest,
    wait: impl AsyncFn(SignIn) -> Result<()>,
) -> Result<Session> {
    for _ in 0..3 {
        match client.post("/v1/sign-ins", request).await {
            Ok(reply) if reply.status == 200 => return Ok(reply.json::<SessionReply>()?.session),
            Ok(reply) => {
                wait(reply.json::<SignInReply>()?.sign_in).await?;
                // The switch is made; what is left to ask is how long it lasts.
                request.switch_user = false;
                request.renew = false;
            }
            Err(error) => recover::ask(client, &mut request.cloud, error).await?,
        }
    }
    Err(Error::new(Code::Internal, "signed in, and yet there is no session").cloud(request.cloud.label()))
}
