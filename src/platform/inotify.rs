//! Changes in a directory, told by the kernel (inotify(7)): a process that waits for them does not wake up.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use rustix::fs::inotify::WatchFlags;
use rustix::fs::inotify::{self, CreateFlags, Reader};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::fd_limit;

/// Changes of some kinds in one directory.
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// From now on.
    pub fn of(directory: &Path, changes: WatchFlags) -> std::io::Result<Self> {
        let kernel = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&kernel, directory, changes)?;
        fd_limit::readable(kernel).map(Self)
    }

    /// Returns after the next change of `name` or of the directory itself; never once the kernel tells nothing more.
    pub async fn changed(&mut self, name: &OsStr) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            match is_concerned(ready.get_inner(), name) {
                Ok(true) => return,
                Ok(false) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// Takes what the kernel has to tell; whether some of it is of `name` or of the directory itself.
fn is_concerned(kernel: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut changes = Reader::new(kernel, &mut buffer);
    let mut is_concerned = false;
    loop {
        let change = changes.next()?;
        is_concerned |= change.file_name().is_none_or(|changed| changed.to_bytes() == name.as_bytes());
        if changes.is_buffer_empty() {
            return Ok(is_concerned);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::*;

    #[tokio::test]
    async fn only_changes_of_the_name_and_of_the_directory_count() {
        let directory = tempfile::tempdir().unwrap();
        let Watch(kernel) =
            Watch::of(directory.path(), WatchFlags::CREATE | WatchFlags::DELETE_SELF).unwrap();
        let told = || is_concerned(kernel.get_ref(), "name".as_ref());
        assert_eq!(told(), Err(Errno::AGAIN));
        write(directory.path().join("other"), "").unwrap();
        assert_eq!(told(), Ok(false));
        write(directory.path().join("another"), "").unwrap();
        write(directory.path().join("name"), "").unwrap();
        assert_eq!(told(), Ok(true));
        drop(directory);
        assert_eq!(told(), Ok(true));
    }
}
