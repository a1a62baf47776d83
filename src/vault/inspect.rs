//! What can be known of a vault that is not opened for it, for `ksb doctor`: nobody is asked for anything, and nothing changes.

use std::io;
use std::path::Path;

use super::format::{self, Flaw, KeptBy};
use super::key::{NoKey, SERVICE};
use super::keyring::item_name;
use super::{foreign, kernel, newer, no_answer, path, read, unusable};
use crate::api::KeyKind;
use crate::error::{Result, reason};
use crate::platform::machine;
use crate::platform::secret_service::{self, Kept};

/// Whether this machine has a vault there.
pub fn is_there(folder: &Path) -> bool {
    path(folder, machine::id().as_deref()).exists()
}

/// Who keeps the key of the vault that lies there, or why the next agent could not open it; nothing where there is none.
pub async fn look(folder: &Path) -> Option<Result<KeyKind>> {
    let machine = machine::id();
    let file = path(folder, machine.as_deref());
    let bytes = match read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(unusable(&file, &reason(&error)))),
    };
    let anew =
        |why: &str| Err(unusable(&file, &format!("{why}; the next agent starts anew")).remedy("ksb login"));
    let header = match format::parse(&bytes) {
        Ok(parsed) => parsed.header,
        Err(Flaw::Newer) => return Some(Err(newer(&file))),
        Err(Flaw::Damaged | Flaw::WrongKey) => return Some(anew("it is damaged")),
    };
    if Some(&header.machine) != machine.as_ref() {
        return Some(Err(foreign(&file)));
    }
    Some(match &header.key {
        KeptBy::Keyring => {
            // As the keyring's store names what it keeps (zbus-secret-service-keyring-store).
            let named = [("service", SERVICE), ("username", &*item_name(&header.id))];
            match secret_service::kept(&named).await {
                Ok(Kept::Open) => Ok(KeyKind::Keyring),
                Ok(Kept::Locked) => Err(no_answer("it is locked")),
                Ok(Kept::Gone) => anew("the desktop's keyring has no key for it"),
                Err(why) => Err(no_answer(&why)),
            }
        }
        KeptBy::Kernel { boot } if *boot != machine::boot() => anew("its key ended with the reboot"),
        KeptBy::Kernel { .. } => match kernel::has(&header.id) {
            Err(NoKey::Gone) => anew("the kernel has no key for it"),
            _ => Ok(KeyKind::Kernel),
        },
        KeptBy::Passphrase { .. } => Ok(KeyKind::Passphrase),
    })
}
