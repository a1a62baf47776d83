//! The life of the agent's process: one per socket path, ready when it says so, gone without a trace or with a fresh one
//! in its place.

mod handover;
mod seat;
mod sockets;
mod upgrade;

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::fs::Mode;
use rustix::process::umask;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::FacadeReport;
use crate::broker::{Broker, Departure};
use crate::config::{Config, Lock};
use crate::error::{Code, Error, Result};
use crate::http::serve::{Askers, Server, serve};
use crate::listen::{facade, socket};
use crate::platform::clock::SystemClock;
use crate::platform::notify::Desktop;
use crate::platform::paths::{Paths, private_folder};
use crate::platform::socket::is_served;
use crate::platform::{descriptors, files, harden, machine};
use crate::vault::{Cost, Place, Vault, Wish};
use handover::Estate;
use sockets::Sockets;
pub use sockets::own_port;

/// Time for what the last requests began and must not be cut off.
const LAST_WORK: Duration = Duration::from_secs(1);
/// A stopping agent keeps its lock while it drains: wait a little longer than that.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const LOCK_TRIES: u32 = 400;

/// How an agent comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first one.
    Fresh,
    /// In the place of a process that left its sockets.
    Handed,
}

/// Serves until a signal or `POST /v1/stop`. `ready` is called when the socket answers.
pub async fn run(paths: &Paths, start: Start, ready: impl FnOnce()) -> Result<()> {
    if let (Some(why), Start::Fresh) = (harden::process(), start) {
        tracing::info!("memory is not locked, and may be swapped: {why}");
    }
    descriptors::all();
    descriptors::close_on_exec();
    let failed = |error: std::io::Error| Error::new(Code::Io, format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let config = Config::load(&paths.config)?;
    let estate = match start {
        Start::Fresh => settle_in(paths, &config).await?,
        Start::Handed => handover::take()?,
    };
    let ready = || {
        ready();
        let notified = sd_notify::notify(&[NotifyState::Ready]);
        if let Err(error) = notified {
            tracing::warn!(%error, "the service manager could not be told");
        }
    };
    match serve_until(paths, config, estate, ready, end).await? {
        (Departure::Stop, _) => Ok(()),
        (departure, estate) => Err(handover::leave(&estate, departure)),
    }
}

/// The same within another program, until `end`: nothing is kept, and the facade has any port that is free.
pub async fn run_within(paths: &Paths, ready: impl FnOnce(), end: impl Future<Output = ()>) -> Result<()> {
    let mut config = Config::load(&paths.config)?;
    config.vault = Wish::Memory;
    config.facade_port = Some(0);
    // What is locked without a vault is logged out, and this one ends with its command.
    config.lock = Lock::default();
    config.makes_room = false;
    let estate = settle_in(paths, &config).await?;
    serve_until(paths, config, estate, ready, end).await.map(drop)
}

/// Takes its place, where no other agent is.
async fn settle_in(paths: &Paths, config: &Config) -> Result<Estate> {
    umask(Mode::RWXG | Mode::RWXO);
    let folder = folder_of(paths);
    private_folder(folder)?;
    private_folder(&paths.state)?;
    let lock = lock(&paths.socket.with_extension("lock"), &paths.socket).await?;
    files::remove_abandoned(folder);
    Ok(Estate { sockets: Sockets::open(paths, config, lock)?, packed: None })
}

fn folder_of(paths: &Paths) -> &Path {
    paths.socket.parent().unwrap_or(Path::new("."))
}

/// Serves, and returns why it left and what it leaves.
async fn serve_until(
    paths: &Paths,
    config: Config,
    Estate { mut sockets, packed }: Estate,
    ready: impl FnOnce(),
    end: impl Future<Output = ()>,
) -> Result<(Departure, Estate)> {
    if sockets.facade.is_err() {
        sockets.facade = sockets::bind_facade(&config);
    }
    let vault = Vault::at(Place {
        folder: paths.state.clone(),
        machine: machine::id(),
        wish: config.vault,
        passphrase_file: passphrase_file(),
        cost: Cost::RECOMMENDED,
    });
    let (lock_when, makes_room) = (config.lock.clone(), config.makes_room);
    let broker = Broker::new(Arc::new(SystemClock), config, vault, folder_of(paths), Arc::new(Desktop));
    if let Some(packed) = packed {
        broker.unpack(&packed)?;
    }
    broker.recall().await;
    let mut servers = open_facade(&broker, &sockets.facade);
    let api = sockets.api.try_clone().and_then(|api| {
        api.set_nonblocking(true)?;
        UnixListener::from_std(api)
    });
    let api = api.map_err(|error| Error::new(Code::Io, format!("{}: {error}", paths.socket.display())))?;
    servers.push(serve(api, Askers::Programs, socket::router(broker.clone())));
    if let Some(idle) = lock_when.idle {
        let broker = broker.clone();
        tokio::spawn(async move { broker.lock_when_idle(idle).await });
    }
    tokio::spawn(seat::heed(broker.clone(), lock_when));
    if makes_room {
        let broker = broker.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = upgrade::when_replaced(&broker) => {}
                _leaves = broker.departure() => {}
            }
        });
    }
    tracing::info!(socket = %paths.socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    ready();
    let take_name_away = || {
        if sockets.is_ours {
            fs::remove_file(&paths.socket).ok();
        }
    };
    let ended = async {
        end.await;
        broker.stop();
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        never = ended => match never {},
        () = leave(&broker, servers, take_name_away) => {}
    }
    let departure = broker.departure().await;
    let packed = if departure == Departure::Stop { None } else { Some(broker.pack().await?) };
    broker.close_log().await;
    if departure == Departure::Stop {
        broker.release_vault();
    }
    Ok((departure, Estate { sockets, packed }))
}

/// Returns when the process is to leave, and nobody waits for it any more. What for may change until then.
async fn leave(broker: &Broker, servers: Vec<Server>, take_name_away: impl Fn()) {
    let why = broker.departure().await;
    tracing::info!(?why, "stopping");
    broker.rest_before_departure().await;
    let why = broker.departure().await;
    if why == Departure::Stop {
        // Whoever comes now finds no socket and starts a new agent once this one has let go of its lock.
        take_name_away();
    }
    let drained = join_all(servers.into_iter().map(|server| server.stop(why.grace())));
    tokio::join!(drained, broker.rest(why.grace()));
    broker.rest(LAST_WORK).await;
    if broker.departure().await == Departure::Stop {
        take_name_away();
    }
}

/// Serves the facade, or says why there is none: everything else works without.
fn open_facade(broker: &Broker, bound: &Result<Vec<std::net::TcpListener>, String>) -> Vec<Server> {
    let listeners = bound.as_ref().map_err(Clone::clone).and_then(|bound| {
        let listen = |listener: &std::net::TcpListener| {
            let listener = listener.try_clone()?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let listeners: std::io::Result<Vec<_>> = bound.iter().map(listen).collect();
        let listeners = listeners.map_err(|error| error.to_string())?;
        let address = listeners.first().ok_or("no port")?.local_addr().map_err(|error| error.to_string())?;
        Ok((address, listeners))
    });
    match listeners {
        Ok((address, listeners)) => {
            broker.facade(FacadeReport {
                url: format!("http://127.0.0.1:{}/v3", address.port()),
                problem: None,
            });
            let serve_one =
                |listener| serve(listener, Askers::Programs, facade::router(broker.clone(), address));
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
pub fn passphrase_file() -> Option<PathBuf> {
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
        let serving = is_served(socket);
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
