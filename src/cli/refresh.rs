//! `ksb refresh`

use super::sign_in::wait;
use super::{cloud_args, login, say};
use crate::api::{CloudRequest, LoginRequest, RefreshReply, Session, SignIn};
use crate::cli::output::{errln, outln};
use crate::client::Client;
use crate::error::Result;
use crate::model::{Cloud, Way};

pub(super) async fn run(args: cloud_args::CloudArgs) -> Result<()> {
    let cloud = cloud_args::resolve_unscoped(&args)?.cloud;
    let client = cloud_args::client()?.at_a_terminal();
    let renewed = renew(&client, &cloud).await;
    // Also where the session stays as it was: roles of its user and groups may have changed.
    let reply: RefreshReply =
        client.post("/v1/refresh", &CloudRequest { cloud: cloud.clone() }).await?.json()?;
    let label = cloud.label();
    match &renewed {
        Ok(session) if cloud.sign_in.way != Way::Password => {
            let user = say::user(&session.user);
            outln!("{label}: renewed, with the groups of now: {user} {}", say::lasts(session));
        }
        _ => outln!("{label}: {} scoped token(s) dropped; the next command gets new ones", reply.dropped),
    }
    renewed.map(drop)
}

/// A federated token holds the groups of its sign-in: the session is renewed, by a sign-in where it cannot renew itself.
async fn renew(client: &Client, cloud: &Cloud) -> Result<Session> {
    let mut request = LoginRequest { renew: true, ..login::request(cloud.clone()) };
    let by_a_person = async |sign_in: SignIn| {
        errln!("ksb: {}: your groups are those of your sign-in; a new one renews them", sign_in.cloud);
        wait::until_done(client, sign_in, true).await
    };
    login::sign_in_by(client, &mut request, by_a_person).await
}
