//! A vault's file that somebody else wrote, or half of one: it is refused, and nothing else happens.

use std::sync::LazyLock;

use keystone_broker::vault::Key;
use keystone_broker::vault::format::{KeptBy, Seal, parse};

static KEY: LazyLock<Key> = LazyLock::new(|| Key::of(&[7; 32]).unwrap());
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let seal = Seal::new("here".into(), "id".into(), KeptBy::Keyring, &KEY).unwrap();
    seal.file(b"contents", None).unwrap()
});

pub fn feed(bytes: &[u8]) {
    // Half of the time what is fed is put into a good file, at the place that its second byte says.
    let file = match bytes {
        [around, at, rest @ ..] if around % 2 == 1 => {
            let at = GOOD.len() * usize::from(*at) / 256;
            [&GOOD[..at], rest, &GOOD[at..]].concat()
        }
        _ => bytes.to_vec(),
    };
    match parse(&file).and_then(|parsed| parsed.open(&KEY).map(|(contents, _)| contents)) {
        Ok(contents) => assert!(file == *GOOD && *contents == *b"contents"),
        Err(_) => assert!(file != *GOOD),
    }
}
