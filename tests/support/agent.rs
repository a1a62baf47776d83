//! The agent in this process: broker and API as in `ksb agent`, with a clock of the test's.

use std::fs;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use keystone_broker::api::FacadeReport;
use keystone_broker::broker::Broker;
use keystone_broker::config::Config;
use keystone_broker::http::serve::serve;
use keystone_broker::listen;
use keystone_broker::platform::paths::private_folder;
use keystone_broker::ports::SharedClock;
use keystone_broker::vault::{Place, Vault, Wish};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;

use super::api::Api;
use super::notices::{Answer, Desktop};

/// A running agent in a folder of its own. Ends when dropped.
pub struct Agent {
    api: Api,
    folder: Arc<TempDir>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
    desktop: Arc<Desktop>,
}

impl Agent {
    /// One without settings.
    pub fn start(clock: SharedClock) -> Self {
        Self::with_config(clock, "")
    }

    /// One with this `config.toml`.
    pub fn with_config(clock: SharedClock, toml: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("ksb").tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), toml).unwrap();
        Self::start_in(clock, Arc::new(folder))
    }

    /// Writes what the next one takes for the person's `config.toml`.
    pub fn write_config(&self, toml: &str) {
        std::fs::write(self.folder.path().join("config.toml"), toml).unwrap();
    }

    /// Ends it and starts the next one in the same folder, as after a restart.
    pub fn restart(self, clock: SharedClock) -> Self {
        let folder = self.folder.clone();
        drop(self);
        Self::start_in(clock, folder)
    }

    /// One more in the same folder, at a socket of its own.
    pub fn beside(&self, clock: SharedClock) -> Self {
        Self::start_at(clock, self.folder.clone(), "second.sock")
    }

    fn start_in(clock: SharedClock, folder: Arc<TempDir>) -> Self {
        Self::start_at(clock, folder, "broker.sock")
    }

    fn start_at(clock: SharedClock, folder: Arc<TempDir>, socket: &'static str) -> Self {
        let stop = Arc::new(Notify::new());
        let (is_ready, ready) = mpsc::channel();
        let (place, stopped) = (folder.path().to_owned(), stop.clone());
        let desktop = Desktop::new();
        let notices = desktop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(clock, &place, socket, notices, stopped, &is_ready));
        });
        ready.recv().unwrap();
        Self { api: Api::new(folder.path().join(socket)), folder, stop, thread: Some(thread), desktop }
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What the person was told on the desktop.
    pub fn told(&self) -> Vec<(String, String)> {
        self.desktop.told()
    }

    /// What the person says from now on when they are asked.
    pub fn will_answer(&self, answer: Answer) {
        self.desktop.will_answer(answer);
    }

    /// Where its socket lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

async fn run(
    clock: SharedClock,
    folder: &Path,
    socket: &str,
    desktop: Arc<Desktop>,
    stop: Arc<Notify>,
    ready: &mpsc::Sender<()>,
) {
    let config = Config::layered(&folder.join("system.toml"), &folder.join("config.toml")).unwrap();
    let socket_path = folder.join(socket);
    std::fs::remove_file(&socket_path).ok();
    let listener = UnixListener::bind(&socket_path).unwrap();
    private_folder(&folder.join("state")).unwrap();
    let vault = Vault::at(place(folder, config.vault));
    let broker = Broker::new(clock, config, vault, folder, desktop);
    broker.recall().await;
    // A restarted agent has the port that its leases name.
    let port_file = socket_path.with_extension("facade");
    let port = fs::read_to_string(&port_file).ok().and_then(|port| port.parse().ok());
    let port = port.unwrap_or_else(super::port::free);
    // A child between its fork and its exec still has the socket of the agent before.
    let facade = super::spawn::undisturbed(|| std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
    facade.set_nonblocking(true).unwrap();
    let facade = TcpListener::from_std(facade).unwrap();
    let address = facade.local_addr().unwrap();
    fs::write(port_file, address.port().to_string()).unwrap();
    broker.facade(FacadeReport { url: format!("http://{address}/v3"), problem: None });
    let _facade = serve(facade, listen::facade::router(broker.clone(), address));
    let _server = serve(listener, listen::socket::router(broker, stop.clone()));
    ready.send(()).unwrap();
    stop.notified().await;
}

/// Nothing touches the disk or the machine's keyrings unless the test's `config.toml` says so. A test that wants another
/// machine writes its name to `machine`.
fn place(folder: &Path, wish: Wish) -> Place {
    let machine = fs::read_to_string(folder.join("machine")).unwrap_or_else(|_| "lab".into());
    let passphrase_file = Some(folder.join("passphrase")).filter(|file| file.exists());
    let wish = if wish == Wish::Auto { Wish::Memory } else { wish };
    Place { folder: folder.join("state"), machine: Some(machine), wish, passphrase_file }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.notify_one();
        self.thread.take().map(JoinHandle::join);
    }
}
