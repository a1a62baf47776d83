//! A desktop that remembers what was told.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use keystone_broker::notifier::Notices;

/// What the user saw, oldest first: title and text.
#[derive(Default)]
pub struct Desktop {
    told: Mutex<Vec<(String, String)>>,
    answer: Mutex<Answer>,
}

/// What the user says when they are asked.
#[derive(Clone, Copy, Default)]
pub enum Answer {
    /// There is no desktop.
    #[default]
    Nobody,
    Yes,
    No,
    Silence,
}

impl Desktop {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn will_answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
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

    fn confirm(&self, title: String, text: String) -> BoxFuture<'static, Option<bool>> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).to_owned();
        let said = self.tell(title, text);
        Box::pin(async move {
            said.await;
            match answer {
                Answer::Nobody => None,
                Answer::Yes => Some(true),
                Answer::No => Some(false),
                Answer::Silence => std::future::pending().await,
            }
        })
    }
}
