//! The page behind the link that the user opens. It lies on another origin than the callback: see `browser`.

use std::collections::HashMap;
use std::path::Path as File;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use tokio::sync::watch;

use super::Progress;
use super::door::{Forward, OwnSocket, listen};
use super::loopback::{Seat, expired};
use crate::error::{Error, Result};
use crate::http_server::accept::{Askers, Server, serve};
use crate::http_server::guard::{self, Hosts};
use crate::http_server::pages::{self, About};
use crate::model::{Cloud, random_hex};
use crate::sync::lock_unpoisoned;

/// A bound origin for start pages. One sign-in's own, or, behind a socket, shared by all of the agent.
pub(super) struct StartPort {
    host: String,
    pages: Pages,
    socket: Option<(u16, OwnSocket)>,
    _servers: Vec<Server>,
}

type Pages = Arc<Mutex<HashMap<String, StartPage>>>;

#[derive(Clone)]
struct StartPage {
    clean_url: String,
    begin_url: String,
    cloud: Cloud,
    progress: watch::Sender<Progress>,
}

/// A sign-in's own address; nobody answers there any more when it is dropped.
pub(super) struct Link {
    port: Arc<StartPort>,
    ticket: String,
}

impl StartPort {
    /// On a free TCP port.
    pub(super) fn on_any_port(host: &str) -> Result<Arc<Self>> {
        let (listeners, port) =
            listen(host, 0).map_err(|error| Error::io("a port for the start page", &error))?;
        let (host, pages) = (format!("{host}:{port}"), Pages::default());
        let router = routes(&host, &pages);
        let servers =
            listeners.into_iter().map(|listener| serve(listener, Askers::Browsers, router.clone())).collect();
        Ok(Arc::new(Self { host, pages, socket: None, _servers: servers }))
    }

    /// On a socket that a browser elsewhere reaches as `http://localhost:port`.
    pub(super) fn on_socket(file: &File, port: u16) -> Result<Arc<Self>> {
        let (listener, socket) = OwnSocket::bind(file)?;
        let (host, pages) = (format!("localhost:{port}"), Pages::default());
        let server = serve(listener, Askers::Browsers, routes(&host, &pages));
        Ok(Arc::new(Self { host, pages, socket: Some((port, socket)), _servers: vec![server] }))
    }

    /// Lets a sign-in begin here.
    pub(super) fn link(
        self: Arc<Self>,
        cloud: &Cloud,
        seat: &Seat,
        progress: watch::Sender<Progress>,
    ) -> Link {
        let ticket = random_hex::<16>();
        let (clean_url, begin_url) = (seat.clean_url(), seat.begin_url());
        let page = StartPage { clean_url, begin_url, cloud: cloud.clone(), progress };
        lock_unpoisoned(&self.pages).insert(ticket.clone(), page);
        Link { port: self, ticket }
    }
}

impl Link {
    /// What a user opens.
    pub(super) fn url(&self) -> String {
        format!("http://{}/start/{}", self.port.host, self.ticket)
    }

    /// What `ssh` must forward for that.
    pub(super) fn forward(&self) -> Option<Forward<'_>> {
        self.port.socket.as_ref().map(|(port, socket)| Forward { port: *port, socket })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        lock_unpoisoned(&self.port.pages).remove(&self.ticket);
    }
}

fn routes(host: &str, pages: &Pages) -> Router {
    Router::new()
        .route("/start/{ticket}", get(start_page))
        .fallback(|| async { expired() })
        .layer(middleware::from_fn_with_state(Hosts::of_pages(host.to_owned()), guard::known_host))
        .with_state(pages.clone())
}

async fn start_page(State(pages): State<Pages>, headers: HeaderMap, Path(ticket): Path<String>) -> Response {
    let start = lock_unpoisoned(&pages).get(&ticket).cloned();
    let Some(start) = start.filter(|_| guard::is_navigation(&headers)) else { return expired() };
    start.progress.send_if_modified(|progress| !std::mem::replace(&mut progress.opened, true));
    let about = About {
        cloud: start.cloud.label(),
        keystone: start.cloud.auth_url.host_str().unwrap_or_default(),
        identity_provider: start.cloud.identity_provider.as_deref(),
    };
    pages::start(&about, &start.clean_url, &start.begin_url)
}
