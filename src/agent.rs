//! The life of the agent's process: one per socket path, ready when it says so, gone without a trace.

mod sockets;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use listenfd::ListenFd;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::api::FacadeReport;
use crate::broker::Broker;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::http::serve::{Server, serve};
use crate::listen::{facade, socket};
use crate::platform::clock::SystemClock;
use crate::platform::notify::Desktop;
use crate::platform::paths::{Paths, private_folder};
use crate::platform::{files, machine};
use crate::vault::{Place, Vault, Wish};

/// How long requests in flight may take to end when the agent stops.
const DRAIN: Duration = Duration::from_secs(5);
/// A stopping agent keeps its lock while it drains: wait a little longer than that.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const LOCK_TRIES: u32 = 300;

/// Serves until a signal or `POST /v1/stop`. `ready` is called when the socket answers.
pub async fn run(paths: &Paths, ready: impl FnOnce()) -> Result<()> {
    let failed = |error: std::io::Error| Error::new(Code::Io, format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve_until(paths, Config::load(&paths.config)?, ready, end).await
}

/// The same within another program, until `end`: nothing is kept, and the facade has any port that is free.
pub async fn run_within(paths: &Paths, ready: impl FnOnce(), end: impl Future<Output = ()>) -> Result<()> {
    let mut config = Config::load(&paths.config)?;
    config.vault = Wish::Memory;
    config.facade_port = Some(0);
    serve_until(paths, config, ready, end).await
}

async fn serve_until(
    paths: &Paths,
    config: Config,
    ready: impl FnOnce(),
    end: impl Future<Output = ()>,
) -> Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    let folder = paths.socket.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    private_folder(&paths.state)?;
    let _lock = lock(&paths.socket.with_extension("lock"), &paths.socket).await?;
    files::remove_abandoned(folder);
    let mut given = ListenFd::from_env();
    let (listener, is_ours) = match sockets::given_socket(&mut given)? {
        Some(listener) => (listener, false),
        None => (sockets::bind(&paths.socket)?, true),
    };
    let facade = match sockets::given_port(&mut given)? {
        Some(listener) => Ok(vec![listener]),
        None => sockets::bind_facade(config.facade_port.unwrap_or_else(sockets::own_port)).await,
    };
    let vault = Vault::at(Place {
        folder: paths.state.clone(),
        machine: machine::id(),
        wish: config.vault,
        passphrase_file: passphrase_file(),
    });
    let broker = Broker::new(Arc::new(SystemClock), config, vault, folder, Arc::new(Desktop));
    broker.recall().await;
    let stop = Arc::new(Notify::new());
    let facade = open_facade(&broker, facade);
    let server = serve(listener, socket::router(broker.clone(), stop.clone()));
    tracing::info!(socket = %paths.socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    ready();
    tokio::select! {
        () = stop.notified() => {}
        () = end => {}
    }
    tracing::info!("stopping");
    if is_ours {
        // Whoever comes now finds no socket and starts a new agent once this one has let go of its lock.
        fs::remove_file(&paths.socket).ok();
    }
    let ends = async { tokio::join!(server.stop(), join_all(facade.into_iter().map(Server::stop))) };
    let _late_requests_are_cut = tokio::time::timeout(DRAIN, ends).await;
    broker.close_log().await;
    Ok(())
}

/// Serves the facade, or says why there is none: everything else works without.
fn open_facade(broker: &Broker, listeners: Result<Vec<TcpListener>, String>) -> Vec<Server> {
    let listeners = listeners.and_then(|listeners| {
        let address = listeners.first().ok_or("no port")?.local_addr().map_err(|error| error.to_string())?;
        Ok((address, listeners))
    });
    match listeners {
        Ok((address, listeners)) => {
            broker.facade(FacadeReport {
                url: format!("http://127.0.0.1:{}/v3", address.port()),
                problem: None,
            });
            let serve_one = |listener| serve(listener, facade::router(broker.clone(), address));
            listeners.into_iter().map(serve_one).collect()
        }
        Err(problem) => {
            tracing::warn!(problem, "no facade");
            broker.facade(FacadeReport { url: String::new(), problem: Some(problem) });
            Vec::new()
        }
    }
}

/// The file that a person or a systemd unit (`LoadCredential=ksb-passphrase:…`) names.
fn passphrase_file() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let credential = named("CREDENTIALS_DIRECTORY").map(|folder| folder.join("ksb-passphrase"));
    named("KSB_PASSPHRASE_FILE").or_else(|| credential.filter(|file| file.exists()))
}

/// Held for as long as the process lives; the kernel lets go of it however the process ends.
async fn lock(path: &Path, socket: &Path) -> Result<File> {
    let failed = |error: std::io::Error| Error::new(Code::Io, format!("{}: {error}", path.display()));
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    let mut tries = 0;
    while file.try_lock().is_err() {
        // An agent that holds the lock without a socket is about to end or about to be ready.
        let serving = UnixStream::connect(socket).await.is_ok();
        if serving || tries == LOCK_TRIES {
            let mut pid = String::new();
            file.read_to_string(&mut pid).ok();
            return Err(Error::new(
                Code::AgentUnavailable,
                format!("an agent (process {}) serves {} already", pid.trim(), socket.display()),
            )
            .remedy("ksb status; or end it: ksb stop"));
        }
        tries += 1;
        #[expect(clippy::disallowed_methods, reason = "another process's lock tells nobody when it is free")]
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}
