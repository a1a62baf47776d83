//! The life of the agent's process: one per socket path, ready when it says so, gone without a trace or with a fresh one
//! in its place.

mod handover;
mod reachable;
mod screen_lock;
mod sockets;
mod upgrade;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::error::{Error, Result, reason};
use crate::http_server::accept::{Askers, Server, serve};
use crate::listen::{facade, socket};
use crate::platform::clock::SystemClock;
use crate::platform::notify::Desktop;
use crate::platform::paths::{Homeless, Paths, make_private};
use crate::platform::{fd_limit, files, hardening, machine};
use crate::sync::lock_unpoisoned;
use crate::vault::{Cost, Place, Vault, Wish};
use handover::Estate;
pub use sockets::own_port;
use sockets::{ApiSocket, Sockets};

/// Time for what the last requests began and must not be cut off.
const LAST_WORK: Duration = Duration::from_secs(1);

/// How an agent comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first one.
    Fresh,
    /// In the place of a process that left its sockets.
    Handed,
}

/// Serves until a signal or `POST /v1/stop`. `ready` is called when the socket answers.
pub async fn run(paths: &Paths, start: Start, ready: impl FnOnce(&Path)) -> Result<()> {
    if let (Some(why), Start::Fresh) = (hardening::process(), start) {
        tracing::info!("memory is not locked, and may be swapped: {why}");
    }
    fd_limit::all();
    fd_limit::close_on_exec();
    let failed = |error: std::io::Error| Error::io("signals", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut config = Config::load(&paths.config)?;
    if let Some(Homeless { why, .. }) = &paths.homeless {
        tracing::warn!("nothing can be kept: {why}");
        config.vault = Wish::Memory;
    }
    let estate = match start {
        Start::Fresh => settle_in(paths, &config).await?,
        Start::Handed => handover::take()?,
    };
    let ready = |socket: &Path| {
        ready(socket);
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
pub async fn run_within(
    paths: &Paths,
    ready: impl FnOnce(&Path),
    end: impl Future<Output = ()>,
) -> Result<()> {
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
    make_private(&paths.state)?;
    let sockets = Sockets::open(paths, config).await?;
    files::remove_abandoned(&sockets.api.directory());
    Ok(Estate { sockets, packed: None })
}

/// Serves, and returns why it left and what it leaves.
async fn serve_until(
    paths: &Paths,
    config: Config,
    Estate { mut sockets, packed }: Estate,
    ready: impl FnOnce(&Path),
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
    let directory = sockets.api.directory();
    let broker = Broker::new(Arc::new(SystemClock), config, vault, &directory, Arc::new(Desktop));
    if let Some(packed) = packed {
        broker.unpack(&packed)?;
    }
    broker.recall().await;
    let mut servers = open_facade(&broker, &sockets.facade);
    servers.push(serve_api(&broker, &sockets.api)?);
    if let Some(idle) = lock_when.idle {
        let broker = broker.clone();
        tokio::spawn(async move { broker.lock_when_idle(idle).await });
    }
    tokio::spawn(screen_lock::heed(broker.clone(), lock_when));
    if makes_room {
        let broker = broker.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = upgrade::when_replaced(&broker) => {}
                _leaves = broker.departure() => {}
            }
        });
    }
    let socket = sockets.api.path();
    tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    ready(&socket);
    let (sockets, servers) = (Mutex::new(sockets), Mutex::new(servers));
    let mut stays_reachable = Box::pin(async {
        if makes_room {
            reachable::keep(&broker, &sockets, &servers).await;
        }
        std::future::pending::<Infallible>().await
    });
    let ended = async {
        end.await;
        broker.stop();
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        never = ended => match never {},
        never = &mut stays_reachable => match never {},
        () = leave(&broker, &sockets, &servers) => {}
    }
    let departure = broker.departure().await;
    let packed = if departure == Departure::Stop { None } else { Some(broker.pack().await?) };
    broker.close_log().await;
    if departure == Departure::Stop {
        broker.release_vault();
    }
    // To end what watches a directory takes the kernel some milliseconds: not before the last work is done.
    drop(stays_reachable);
    let sockets = sockets.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((departure, Estate { sockets, packed }))
}

/// Returns when the process is to leave, and nobody waits for it any more. What for may change until then.
async fn leave(broker: &Broker, sockets: &Mutex<Sockets>, servers: &Mutex<Vec<Server>>) {
    let why = broker.departure().await;
    tracing::info!(?why, "stopping");
    broker.rest_before_departure().await;
    let why = broker.departure().await;
    if why == Departure::Stop {
        // A command that comes now starts a new agent, once this one has let go of its lock.
        lock_unpoisoned(sockets).api.remove();
    }
    let servers = std::mem::take(&mut *lock_unpoisoned(servers));
    let drained = join_all(servers.into_iter().map(|server| server.stop(why.grace())));
    tokio::join!(drained, broker.rest(why.grace()));
    broker.rest(LAST_WORK).await;
    if broker.departure().await == Departure::Stop {
        lock_unpoisoned(sockets).api.remove();
    }
}

fn serve_api(broker: &Broker, api: &ApiSocket) -> Result<Server> {
    let listener = api.listener.try_clone().and_then(|listener| {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    let failed = |error: std::io::Error| Error::io(api.path().display(), &error);
    Ok(serve(listener.map_err(failed)?, Askers::Programs, socket::router(broker.clone())))
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
        let listeners = listeners.map_err(|error| reason(&error))?;
        // Tools that know IPv4 only are many; a machine without it has the other address alone.
        let addresses: Vec<_> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let v4 = addresses.iter().find(|address| address.is_ipv4());
        let address = *v4.or(addresses.first()).ok_or("no port")?;
        Ok((address, listeners))
    });
    match listeners {
        Ok((address, listeners)) => {
            broker.facade(FacadeReport { url: format!("http://{address}/v3"), problem: None });
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

/// The file that a user or a systemd unit (`LoadCredential=ksb-passphrase:…`) names.
pub fn passphrase_file() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let credential = named("CREDENTIALS_DIRECTORY").map(|folder| folder.join("ksb-passphrase"));
    named("KSB_PASSPHRASE_FILE").or_else(|| credential.filter(|file| file.exists()))
}
