//! A sign-in as a command sees it: how the user is asked, and what is shown while it is waited for.

pub(in crate::cli) mod browser;
pub(in crate::cli) mod factor_prompt;
pub(in crate::cli) mod interactive;
pub(in crate::cli) mod recover;
pub(in crate::cli) mod ssh_hint;
pub(in crate::cli) mod token_command;
pub(in crate::cli) mod wait;
