//! The file: lines are added whole, old ones go with the oldest file, and whoever reads may wait for more.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{OFlags, ftruncate};

use super::Entry;

/// The size of one file. With the old ones that is some weeks of a busy user.
const LARGEST: u64 = 2 << 20;
/// How many old ones there are: `audit.jsonl.1` is the youngest.
const OLD: u32 = 4;

/// The log's file, for one writer or several.
pub struct File {
    path: PathBuf,
    open: Option<fs::File>,
}

impl File {
    /// At this path. Nothing is opened yet.
    pub fn at(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Adds a line.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.append_all(&[entry])
    }

    /// Adds lines, all or none: those that find no room leave nothing behind.
    pub fn append_all(&mut self, entries: &[&Entry]) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        let mut file = self.file()?;
        let before = file.metadata()?.len();
        if before > 0 && before + lines.len() as u64 > LARGEST {
            self.turn()?;
            file = self.file()?;
        }
        let before = file.metadata()?.len();
        let written = file.write_all(&lines);
        if written.is_err() {
            ftruncate(file, before).ok();
        }
        written
    }

    /// The open file, if that is the one that lies at the path: another agent may have turned to a new one.
    fn file(&mut self) -> io::Result<&fs::File> {
        let there = fs::symlink_metadata(&self.path).ok().map(|meta| place(&meta));
        let ours = self.open.as_ref().and_then(|file| file.metadata().ok()).map(|meta| place(&meta));
        if ours.is_none() || there != ours {
            let mut options = OpenOptions::new();
            let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
            let file = options.append(true).create(true).mode(0o600).custom_flags(flags).open(&self.path)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            self.open = Some(file);
        }
        self.open.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes room: each file gets the next older one's name, and the oldest is gone.
    fn turn(&mut self) -> io::Result<()> {
        self.open = None;
        for age in (1..OLD).rev() {
            match fs::rename(old(&self.path, age), old(&self.path, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, old(&self.path, 1))
    }
}

fn old(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

/// Every line that there is, the oldest first, and with `follow` whatever comes then: for ever, or until `each` fails. What is
/// no line, as after a loss of power, is passed over.
pub fn read(
    path: &Path,
    follow: bool,
    mut each: impl FnMut(&str, &Entry) -> io::Result<()>,
) -> io::Result<()> {
    // From here on nothing is missed.
    let mut news = if follow { Some(watch(path.parent().unwrap_or(Path::new(".")))?) } else { None };
    for age in (1..=OLD).rev() {
        Tail::default().tell(&old(path, age), &mut each)?;
    }
    let mut tail = Tail::default();
    loop {
        tail.tell(path, &mut each)?;
        let Some(news) = &mut news else { return Ok(()) };
        // What happened is looked up; that something did is enough.
        let _events = news.read(&mut [0; 4096])?;
    }
}

fn watch(folder: &Path) -> io::Result<fs::File> {
    let kernel = inotify::init(CreateFlags::CLOEXEC)?;
    inotify::add_watch(&kernel, folder, WatchFlags::MODIFY | WatchFlags::CREATE)?;
    Ok(fs::File::from(kernel))
}

/// How far a file was read.
#[derive(Default)]
struct Tail {
    open: Option<BufReader<fs::File>>,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
}

impl Tail {
    /// Tells what is new, also in the file that has taken its place.
    fn tell(&mut self, path: &Path, each: &mut impl FnMut(&str, &Entry) -> io::Result<()>) -> io::Result<()> {
        loop {
            if let Some(file) = &mut self.open {
                while file.read_until(b'\n', &mut self.begun)? > 0 && self.begun.ends_with(b"\n") {
                    let line = String::from_utf8_lossy(self.begun.trim_ascii()).into_owned();
                    self.begun.clear();
                    if let Ok(entry) = serde_json::from_str(&line) {
                        each(&line, &entry)?;
                    }
                }
            }
            let there = match fs::File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                there => there?,
            };
            let ours = self.open.as_ref().map(|file| file.get_ref().metadata()).transpose()?;
            let is_ours =
                ours.is_some_and(|ours| there.metadata().is_ok_and(|there| place(&there) == place(&ours)));
            if is_ours {
                return Ok(());
            }
            self.begun.clear();
            self.open = Some(BufReader::new(there));
        }
    }
}

/// What tells a file from another one of the same name.
fn place(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Action, What};

    fn entry(number: u64) -> Entry {
        let time = "2026-03-29T00:59:57Z".parse().unwrap();
        let what = What { detail: Some("x".repeat(20_000)), ..What::done(Action::Token) };
        Entry { time, what, program: None, repeats: number, last: None }
    }

    fn numbers(path: &Path) -> Vec<u64> {
        let mut numbers = Vec::new();
        read(path, false, |_, entry| {
            numbers.push(entry.repeats);
            Ok(())
        })
        .unwrap();
        numbers
    }

    #[test]
    fn the_oldest_lines_go_and_nobody_else_can_read_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut file = File::at(path.clone());
        let mut last = 0;
        while !old(&path, OLD).exists() || last % 7 != 3 {
            last += 1;
            file.append(&entry(last)).unwrap();
        }
        let (before, total) = (numbers(&path), last);
        assert_eq!(before, (1..=total).collect::<Vec<_>>(), "in their order, from several files");
        while numbers(&path)[0] == 1 {
            last += 100;
            for number in last - 99..=last {
                file.append(&entry(number)).unwrap();
            }
        }
        let after = numbers(&path);
        assert_eq!(after, (after[0]..=last).collect::<Vec<_>>());
        for meta in fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap()) {
            assert_eq!(meta.mode() & 0o777, 0o600);
            assert!(meta.len() <= LARGEST);
        }
    }

    #[test]
    fn two_writers_lose_nothing_when_one_of_them_turns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let (mut one, mut other) = (File::at(path.clone()), File::at(path.clone()));
        one.append(&entry(1)).unwrap();
        other.append(&entry(2)).unwrap();
        one.turn().unwrap();
        other.append(&entry(3)).unwrap();
        one.append(&entry(4)).unwrap();
        fs::remove_file(old(&path, 1)).unwrap();
        assert_eq!(numbers(&path), [3, 4]);
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let line = serde_json::to_string(&entry(5)).unwrap();
        fs::write(&path, format!("{{\"time\": 3\n\n\u{0}\u{0}\n{line}\n{}", &line[..20])).unwrap();
        assert_eq!(numbers(&path), [5]);
    }

    #[test]
    fn who_follows_sees_lines_as_they_come_also_in_the_next_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut file = File::at(path.clone());
        file.append(&entry(1)).unwrap();
        let (send, seen) = std::sync::mpsc::channel();
        let followed = path.clone();
        let reading = std::thread::spawn(move || {
            read(&followed, true, |_, entry| {
                send.send(entry.repeats).unwrap();
                if entry.repeats == 4 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
            })
        });
        assert_eq!(seen.recv(), Ok(1));
        file.append(&entry(2)).unwrap();
        assert_eq!(seen.recv(), Ok(2));
        file.turn().unwrap();
        file.append(&entry(3)).unwrap();
        assert_eq!(seen.recv(), Ok(3));
        file.append(&entry(4)).unwrap();
        assert_eq!(reading.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
