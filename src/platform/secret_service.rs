//! Whether the desktop's keyring has something, asked so that nobody is asked to unlock it: the Secret Service's `SearchItems`
//! (freedesktop.org's Secret Service API, draft 0.2) tells what is locked from what is not, and opens nothing.

use std::collections::HashMap;
use std::time::Duration;

use zbus::Connection;
use zbus::zvariant::OwnedObjectPath;

/// One that works answers in milliseconds; one that the bus has to start first, in a second.
const PATIENCE: Duration = Duration::from_secs(4);

/// How the keyring has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It would be given at once.
    Open,
    /// Its user would have to unlock the keyring.
    Locked,
    /// There is no such item.
    Gone,
}

#[zbus::proxy(
    interface = "org.freedesktop.Secret.Service",
    default_service = "org.freedesktop.secrets",
    default_path = "/org/freedesktop/secrets",
    gen_blocking = false
)]
trait SecretService {
    /// The items that have these attributes: those that are unlocked, and those that are locked.
    fn search_items(
        &self,
        attributes: &HashMap<&str, &str>,
    ) -> zbus::Result<(Vec<OwnedObjectPath>, Vec<OwnedObjectPath>)>;
}

/// Looks for an item by its attributes; why that could not be done, in a few words.
pub async fn kept(attributes: &[(&str, &str)]) -> Result<Kept, String> {
    let wanted: HashMap<_, _> = attributes.iter().copied().collect();
    let asking = async {
        let bus = Connection::session().await?;
        let (open, locked) = SecretServiceProxy::new(&bus).await?.search_items(&wanted).await?;
        zbus::Result::Ok(match (open.is_empty(), locked.is_empty()) {
            (false, _) => Kept::Open,
            (true, false) => Kept::Locked,
            (true, true) => Kept::Gone,
        })
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(kept)) => Ok(kept),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no Secret Service");
            Err("there is none in this session".into())
        }
        Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
    }
}
