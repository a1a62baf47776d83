//! The agent in this process: broker and API as in `ksb agent`, with a clock of the test's.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use keystone_broker::api::FacadeReport;
use keystone_broker::broker::{Broker, Departure};
use keystone_broker::config::Config;
use keystone_broker::http_server::accept::{Askers, serve};
use keystone_broker::listen;
use keystone_broker::platform::paths::make_private;
use keystone_broker::time::SharedClock;
use keystone_broker::vault::{Cost, Place, Vault, Wish};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::api::Api;
use super::lab::until;
use super::notices::{Answer, Desktop};
use super::spawn;

/// The socket of one that shares its directory with no other.
const FIRST: &str = "broker.sock";
/// For answers to what was asked before it leaves.
const GRACE: Duration = Duration::from_secs(1);

/// A running agent in a directory of its own. Ends when dropped.
pub struct Agent {
    api: Api,
    folder: Arc<TempDir>,
    life: Arc<Mutex<Life>>,
    thread: Option<JoinHandle<()>>,
    desktop: Arc<Desktop>,
}

/// What it is about.
#[derive(Default)]
enum Life {
    /// A broker makes room for the next one, or the first one has not come.
    #[default]
    Changes,
    Serves(Broker, Handle),
    /// Nobody wants it any more.
    Ends,
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

    /// Writes what the next one takes for the user's `config.toml`.
    pub fn write_config(&self, toml: &str) {
        std::fs::write(self.folder.path().join("config.toml"), toml).unwrap();
    }

    /// Ends it and starts the next one in the same directory, as after a restart.
    pub fn restart(self, clock: SharedClock) -> Self {
        let folder = self.folder.clone();
        drop(self);
        Self::start_in(clock, folder)
    }

    /// One more in the same directory, at a socket of its own.
    pub fn beside(&self, clock: SharedClock) -> Self {
        Self::start_at(clock, self.folder.clone(), "second.sock")
    }

    fn start_in(clock: SharedClock, folder: Arc<TempDir>) -> Self {
        Self::start_at(clock, folder, FIRST)
    }

    fn start_at(clock: SharedClock, folder: Arc<TempDir>, socket: &'static str) -> Self {
        let (is_ready, ready) = mpsc::channel();
        let (place, life) = (folder.path().to_owned(), Arc::default());
        let lives = Arc::clone(&life);
        let desktop = Desktop::new();
        let notices = desktop.clone();
        let thread = std::thread::spawn(move || {
            run(&clock, &place, socket, &notices, &lives, &is_ready);
        });
        ready.recv().unwrap();
        let api = Api::new(folder.path().join(socket));
        // An agent answers before a slow machine has made the vault's key of the passphrase.
        until("a look into the vault", || {
            let status = api.status();
            status["vault"]["reason"] != "it was not opened yet" || !status["locked"].is_null()
        });
        Self { api, folder, life, thread: Some(thread), desktop }
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What the user was told on the desktop.
    pub fn told(&self) -> Vec<(String, String)> {
        self.desktop.told()
    }

    /// The broker itself and where it runs: for callers that no test can be.
    pub fn broker(&self) -> (Broker, Handle) {
        match &*self.life.lock().unwrap() {
            Life::Serves(broker, runtime) => (broker.clone(), runtime.clone()),
            Life::Changes | Life::Ends => panic!("nobody serves just now"),
        }
    }

    /// How many tasks it has.
    pub fn tasks(&self) -> usize {
        match &*self.life.lock().unwrap() {
            Life::Serves(_, runtime) => runtime.metrics().num_alive_tasks(),
            Life::Changes | Life::Ends => 0,
        }
    }

    /// What the user says from now on when they are asked.
    pub fn will_answer(&self, answer: Answer) {
        self.desktop.will_answer(answer);
    }

    /// Where its socket lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// As the agent's process lives: also in the place of one that made room, of whose tasks nothing is left.
fn run(
    clock: &SharedClock,
    folder: &Path,
    socket: &str,
    desktop: &Arc<Desktop>,
    life: &Mutex<Life>,
    ready: &mpsc::Sender<()>,
) {
    let socket_path = folder.join(socket);
    std::fs::remove_file(&socket_path).ok();
    let api = std::os::unix::net::UnixListener::bind(&socket_path).unwrap();
    api.set_nonblocking(true).unwrap();
    make_private(&folder.join("state")).unwrap();
    // A restarted agent has the port that its leases name.
    let port_file = socket_path.with_extension("facade");
    let port = fs::read_to_string(&port_file).ok().and_then(|port| port.parse().ok());
    let port = port.unwrap_or_else(super::port::free);
    let facade = spawn::undisturbed(|| std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
    facade.set_nonblocking(true).unwrap();
    let address = facade.local_addr().unwrap();
    fs::write(port_file, address.port().to_string()).unwrap();
    let mut packed: Option<Zeroizing<Vec<u8>>> = None;
    let serve_until = async |packed: Option<Zeroizing<Vec<u8>>>| {
        let config = Config::layered(&folder.join("system.toml"), &folder.join("config.toml")).unwrap();
        let idle = config.lock.idle;
        let place = place(folder, config.vault);
        if socket == FIRST {
            has_let_go(&place);
        }
        let vault = spawn::undisturbed(|| Vault::at(place));
        let broker = Broker::new(clock.clone(), config, vault, folder, desktop.clone());
        if let Some(packed) = packed {
            broker.unpack(&packed).unwrap();
        }
        broker.recall().await;
        broker.facade(FacadeReport { url: format!("http://{address}/v3"), problem: None });
        if let Some(idle) = idle {
            let broker = broker.clone();
            tokio::spawn(async move { broker.lock_when_idle(idle).await });
        }
        let facade = TcpListener::from_std(facade.try_clone().unwrap()).unwrap();
        let api = UnixListener::from_std(api.try_clone().unwrap()).unwrap();
        let facade = serve(facade, Askers::Programs, listen::facade::router(broker.clone(), address));
        let api = serve(api, Askers::Programs, listen::socket::router(broker.clone()));
        match &mut *life.lock().unwrap() {
            Life::Ends => return None,
            life => *life = Life::Serves(broker.clone(), Handle::current()),
        }
        ready.send(()).ok();
        broker.departure().await;
        broker.rest_before_departure().await;
        if broker.departure().await == Departure::Stop {
            return None;
        }
        tokio::join!(api.stop(GRACE), facade.stop(GRACE));
        if let life @ Life::Serves(..) = &mut *life.lock().unwrap() {
            *life = Life::Changes;
        }
        Some(broker.pack().await.unwrap())
    };
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        packed = runtime.block_on(serve_until(packed));
        if packed.is_none() {
            return;
        }
    }
}

/// What a passphrase costs where the test is about something else: nothing.
pub const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

/// Nothing touches the disk or the machine's keyrings unless the test's `config.toml` says so. A test that wants another
/// machine writes its name to `machine`; one that wants a passphrase to take its time makes the file `takes-its-time`.
fn place(folder: &Path, wish: Wish) -> Place {
    let machine = fs::read_to_string(folder.join("machine")).unwrap_or_else(|_| "lab".into());
    let passphrase_file = Some(folder.join("passphrase")).filter(|file| file.exists());
    let wish = if wish == Wish::Auto { Wish::Memory } else { wish };
    let cost = if folder.join("takes-its-time").exists() { Cost::RECOMMENDED } else { CHEAP };
    Place { folder: folder.join("state"), machine: Some(machine), wish, passphrase_file, cost }
}

/// Waits for the one before. A thread that writes its vault may outlive it here; that of a process could not.
fn has_let_go(place: &Place) {
    let lock = format!("vault-{}.lock", place.machine.as_deref().unwrap_or_default());
    if let Ok(lock) = fs::File::open(place.folder.join(lock)) {
        lock.lock().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Life::Serves(broker, _) = std::mem::replace(&mut *self.life.lock().unwrap(), Life::Ends) {
            broker.stop();
        }
        self.thread.take().map(JoinHandle::join);
    }
}
