//! The agent within this process, for machines where nothing may stay: its state lies in a directory that goes with us.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::umask;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::agent;
use crate::api::{LogoutReply, LogoutRequest};
use crate::cli::lease_env::Changes;
use crate::cli::output::errln;
use crate::cli::say;
use crate::client::Client;
use crate::error::{Code, Error, Result};
use crate::model::random_hex;
use crate::platform::paths::{Paths, known_clouds_in, runtime_directories};

/// A running agent, and its client.
pub(super) struct Inside {
    client: Client,
    stop: Arc<Notify>,
    agent: JoinHandle<Result<()>>,
    _folder: Folder,
}

/// Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    /// In the first directory where that can be.
    fn make() -> Result<Self> {
        let name = format!("ksb-{}", random_hex::<16>());
        let mut failed = Error::new(Code::Io, "there is no directory for temporary files");
        for parent in runtime_directories().chain([std::env::temp_dir(), PathBuf::from("/dev/shm")]) {
            let folder = Self(parent.join(&name));
            let create = |path: &Path| DirBuilder::new().mode(0o700).create(path);
            match create(&folder.0).and_then(|()| create(&folder.0.join("state"))) {
                Ok(()) => return Ok(folder),
                Err(error) => {
                    failed = Error::io(parent.display(), &error);
                }
            }
        }
        Err(failed.remedy("set TMPDIR to a directory of yours"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Inside {
    /// Starts it, in a directory of its own.
    pub(super) async fn start() -> Result<Self> {
        let usual = Paths::from_env()?;
        let folder = Folder::make()?;
        let state = folder.0.join("state");
        // `ksb trust` counts here, too, as far as it can be read.
        fs::copy(known_clouds_in(&usual.state), known_clouds_in(&state)).ok();
        let socket = folder.0.join("broker.sock");
        let paths = Paths { socket, fallbacks: Vec::new(), state, homeless: None, config: usual.config };
        let stop = Arc::new(Notify::new());
        let (is_ready, ready) = oneshot::channel();
        // The command is to have the one that we were started with.
        let before = umask(rustix::fs::Mode::empty());
        umask(before);
        let agent = tokio::spawn({
            let (paths, stop) = (paths.clone(), stop.clone());
            async move {
                let ready = move |_: &Path| _ = is_ready.send(());
                agent::run_within(&paths, ready, async move { stop.notified().await }).await
            }
        });
        let is_ready = ready.await;
        umask(before);
        if is_ready.is_err() {
            let ended = agent.await.map_err(|error| Error::new(Code::Internal, error.to_string()))?;
            return Err(ended.err().unwrap_or_else(|| Error::new(Code::Internal, "the agent ended at once")));
        }
        Ok(Self { client: Client::of_the_one_that_runs(paths), stop, agent, _folder: folder })
    }

    /// Its client.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// `ksb` within the command uses this agent, and starts no other.
    pub(super) fn changes(&self) -> Changes {
        let mut changes = Changes::default();
        changes.insert("KSB_SOCK", self.client.socket().display().to_string());
        changes
    }

    /// Signs out everywhere, and ends.
    pub(super) async fn end(self) {
        let all = LogoutRequest { cloud: None };
        match self.client.post("/v1/logout", &all).await.and_then(|reply| reply.json::<LogoutReply>()) {
            Ok(reply) => {
                for session in &reply.sessions {
                    for token in &session.not_revoked {
                        errln!("ksb: {}", say::not_revoked(&session.cloud, token));
                    }
                }
            }
            Err(error) => errln!("{}", say::failure(&error)),
        }
        self.stop.notify_one();
        if let Ok(Err(error)) = self.agent.await {
            errln!("{}", say::failure(&error));
        }
    }
}
