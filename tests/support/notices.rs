//! A desktop that remembers what was told.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use keystone_broker::ports::Notices;

/// What the person saw, oldest first: title and text.
#[derive(Default)]
pub struct Desktop {
    told: Mutex<Vec<(String, String)>>,
}

impl Desktop {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn told(&self) -> Vec<(String, String)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Notices for Desktop {
    fn tell(&self, title: String, text: String) -> BoxFuture<'static, ()> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push((title, text));
        Box::pin(std::future::ready(()))
    }

    fn ask(&self, title: String, text: String, url: String) -> BoxFuture<'static, ()> {
        self.tell(title, format!("{text} {url}"))
    }
}
