//! *Keep me signed in while this tab is open*: a tab whose sign-in is done goes round again before the session ends.
//!
//! The last page holds one request whose answer does not end. The connection tells us that the tab is there, and the
//! answer tells the tab when to go: browsers throttle and freeze the timers of background tabs, and no timer counts
//! while a computer sleeps. The tab proves itself by the secret of the sign-in that it finished, and each round gives it
//! a new one.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::loopback::{CallbackPort, TabPrint};
use super::websso::Websso;
use super::{SignedIn, Task, browser_flow};
use crate::error::Result;
use crate::time::SharedClock;

/// How long the last page offers it. The port stays bound meanwhile, if the page stays open.
const OFFER: SignedDuration = SignedDuration::from_mins(1);
/// The last page comes at once, or it has no script.
const FIRST: SignedDuration = SignedDuration::from_secs(3);
/// A page that comes back does so soon: a closed tab keeps nothing longer than this.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// Where a tab's page reports.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) tab: TabPrint,
    visits: mpsc::Sender<Visit>,
}

/// The page's open request.
struct Visit {
    wanted: bool,
    answer: mpsc::Sender<Bytes>,
}

/// A tab whose sign-in is done.
pub struct Tab {
    port: Arc<CallbackPort>,
    id: String,
    visits: mpsc::Receiver<Visit>,
    here: Option<Visit>,
    grace: SignedDuration,
}

impl Keeper {
    /// The page is there, and stays until the answer's other end is gone.
    pub(super) async fn visit(&self, wanted: bool) -> Response {
        let (answer, mut lines) = mpsc::channel(4);
        let _first_line = answer.send(line(&json!({"state": "here"}))).await;
        if self.visits.send(Visit { wanted, answer }).await.is_err() {
            return over();
        }
        let lines = stream::poll_fn(move |context| {
            lines.poll_recv(context).map(|line| line.map(Ok::<_, Infallible>))
        });
        respond(Body::from_stream(lines))
    }
}

/// The answer to a tab that keeps nothing.
pub(super) fn over() -> Response {
    respond(Body::from(line(&json!({"state": "over"}))))
}

fn respond(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

impl Tab {
    pub(super) fn new(port: Arc<CallbackPort>, id: String, tab: TabPrint) -> (Keeper, Self) {
        let (report, visits) = mpsc::channel(4);
        (Keeper { tab, visits: report }, Self { port, id, visits, here: None, grace: FIRST })
    }

    /// Whether the user wants it, asked for as long as the page offers it.
    pub async fn is_wanted(&mut self, clock: &SharedClock) -> bool {
        let over = clock.sleep_until(clock.now() + OFFER);
        tokio::pin!(over);
        while !self.here.as_ref().is_some_and(|visit| visit.wanted) {
            let comes = tokio::select! {
                biased;
                comes = self.comes(clock) => comes,
                () = &mut over => false,
            };
            if !comes {
                return false;
            }
        }
        true
    }

    /// Returns when the tab is closed, or the user does not want it any more.
    pub async fn changes(&mut self, clock: &SharedClock) {
        while self.comes(clock).await && self.here.as_ref().is_some_and(|visit| visit.wanted) {}
    }

    /// Sends the tab round again, and returns with what it brought back: a sign-in of the expected user, and the tab.
    pub async fn again(mut self, task: Task) -> Result<SignedIn> {
        while self.here.is_none() {
            if !self.comes(&task.clock).await {
                return Err(task.cancelled());
            }
        }
        let errand = Websso::at(&self.port, &task)?;
        let (mail_to, mail) = mpsc::channel(16);
        let label = task.cloud.label().to_owned();
        let seat =
            self.port.seat(&task.id, browser_flow::Errand::address(&errand).clone(), mail_to, Some(label));
        let go = json!({"state": "go", "begin": format!("/begin/{}", task.id)});
        self.say(&go);
        let round = browser_flow::round(task, seat, errand, mail);
        tokio::pin!(round);
        loop {
            tokio::select! {
                back = &mut round => return back,
                // A page that was frozen did not hear it, and asks again.
                Some(visit) = self.visits.recv() => {
                    self.here = Some(visit);
                    self.say(&go);
                }
            }
        }
    }

    /// Waits for the page's next request; false when there is none any more.
    async fn comes(&mut self, clock: &SharedClock) -> bool {
        if let Some(here) = &self.here {
            tokio::select! {
                biased;
                visit = self.visits.recv() => {
                    self.here = visit;
                    return self.here.is_some();
                }
                () = here.answer.closed() => self.here = None,
            }
        }
        tokio::select! {
            // Who came while the computer slept has come.
            biased;
            visit = self.visits.recv() => self.here = visit,
            () = clock.sleep_until(clock.now() + self.grace) => {}
        }
        self.grace = GRACE;
        self.here.is_some()
    }

    fn say(&self, what: &Value) {
        if let Some(here) = &self.here {
            here.answer.try_send(line(what)).ok();
        }
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        self.port.end_keeping(&self.id);
        self.visits.close();
        let late = std::iter::from_fn(|| self.visits.try_recv().ok());
        for visit in self.here.take().into_iter().chain(late) {
            visit.answer.try_send(line(&json!({"state": "over"}))).ok();
        }
    }
}
