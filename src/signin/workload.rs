//! Programs without a user: a token that they have, then Keystone's bearer exchange. Nobody is asked, and nothing waits.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::Deserialize;
use url::Url;

use super::{SignedIn, Started, Task, client_credentials};
use crate::error::{Code, Error, Result, reason};
use crate::http_client::{self, Outbound, Peer};
use crate::model::{Cloud, Secret, Tls, Workload};

/// Longer than any token, shorter than any mistake.
const LONGEST: u64 = 64 << 10;

/// Signs in; the sign-in is over when this returns.
pub(super) async fn start(task: Task, outbound: &Outbound) -> Result<Started> {
    let workload = task.cloud.sign_in.workload.clone().ok_or_else(|| {
        Error::new(Code::InvalidConfig, "this way to sign in needs the source of a token")
            .cloud(task.cloud.label())
    })?;
    let source = workload.source();
    let bearer = bearer(&task, workload, outbound).await.map_err(|error| error.cloud(task.cloud.label()))?;
    let token = task.keystone.federated(&bearer).await.map_err(|error| match error.code {
        Code::BearerRefused => {
            let remedy =
                format!("see whether the token of {source} is still valid, and meant for this cloud");
            Error { detail: format!("{} (token of {source})", error.detail), ..error }.remedy(remedy)
        }
        _ => error,
    })?;
    task.check_user(&token).await?;
    Ok(Started::over(SignedIn::without_grant(token)))
}

async fn bearer(task: &Task, workload: Workload, outbound: &Outbound) -> Result<Secret> {
    let source = workload.source();
    let token = match workload {
        Workload::File { path } => {
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            read.map_err(|error| Error::new(Code::Internal, error.to_string()))??
        }
        Workload::Token { token, .. } | Workload::Command { token: Some(token), .. } => token,
        Workload::Command { token: None, .. } => {
            return Err(Error::new(
                Code::BearerNeeded,
                format!("the caller has to run {source} for a token"),
            )
            .remedy(format!("ksb login {}", task.cloud.argument())));
        }
        Workload::Github { url, request_token, audience, proxy } => {
            github(&task.cloud, outbound, url, &request_token, audience.as_deref(), proxy).await?
        }
        Workload::Client(client) => client_credentials::token(&task.cloud, &client, outbound).await?,
    };
    let text = token.expose().trim();
    // RFC 6750 section 2.1 allows less.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::new(Code::InvalidConfig, format!("what {source} gives is not a token"))
            .remedy(format!("ksb clouds show {}", task.cloud.argument())));
    }
    Ok(Secret::new(text))
}

/// Whoever else could write the file would decide who is signed in. Kubernetes' token files belong to root.
fn read(path: &Path) -> Result<Secret> {
    let failed = |why: String| {
        Error::new(Code::InvalidConfig, format!("{}: {why}", path.display())).remedy("correct `token_file`")
    };
    if !path.is_absolute() {
        return Err(failed("not an absolute path".into()));
    }
    // A pipe without a writer would hold us.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let open = File::options().read(true).custom_flags(nonblocking).open(path);
    let file = open.map_err(|error| failed(reason(&error)))?;
    let about = file.metadata().map_err(|error| failed(reason(&error)))?;
    let ours = rustix::process::getuid().as_raw();
    if !about.is_file() {
        return Err(failed("not a file".into()));
    }
    if about.uid() != ours && about.uid() != 0 {
        return Err(failed(format!("belongs to uid {}, neither you nor root", about.uid())));
    }
    if about.mode() & 0o002 != 0 {
        return Err(failed("anybody may write it".into()));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(|error| failed(reason(&error)))?;
    Ok(Secret::new(text))
}

/// "Requesting the JWT using environment variables" of GitHub's OpenID Connect reference.
async fn github(
    cloud: &Cloud,
    outbound: &Outbound,
    mut url: Url,
    request_token: &Secret,
    audience: Option<&str>,
    proxy: Option<String>,
) -> Result<Secret> {
    #[derive(Deserialize)]
    struct Given {
        value: Secret,
    }
    if let Some(audience) = audience {
        url.query_pairs_mut().append_pair("audience", audience);
    }
    // The cloud's own CA says nothing of GitHub.
    let at = Cloud { proxy, tls: Tls::default(), ..cloud.clone() };
    let request = outbound.client(&at)?.get(url).header("Accept", "application/json");
    let answer =
        http_client::send(&at, Peer::IdentityProvider, request.bearer_auth(request_token.expose())).await?;
    let failed = |why: String| {
        Error::new(Code::IdentityProviderError, format!("GitHub Actions gives no ID token: {why}"))
            .remedy("give the job `permissions: id-token: write`")
    };
    match answer.status {
        200 => serde_json::from_str::<Given>(&answer.body)
            .map(|given| given.value)
            .map_err(|_| failed("its answer is not understood".into())),
        status => Err(failed(format!("HTTP {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn why(path: &Path) -> String {
        read(path).unwrap_err().detail
    }

    #[test]
    fn only_a_file_that_nobody_else_writes_says_who_we_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "header.claims.signature\n").unwrap();
        assert!(read(&file).is_ok());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(why(&file).contains("anybody may write it"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(why(folder.path()).contains("not a file"));
        assert!(why(Path::new("token")).contains("not an absolute path"));
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(why(&pipe).contains("not a file"));
    }
}
