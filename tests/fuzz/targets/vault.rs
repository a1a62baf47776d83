//! A vault's file that somebody else wrote, or half of one: it is refused, and nothing else happens.
#![no_main]

use std::sync::LazyLock;

use keystone_broker::vault::Key;
use keystone_broker::vault::sealed::{KeptBy, Seal, parse};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<Key> = LazyLock::new(|| Key::of(&[7; 32]).unwrap());
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let seal = Seal::new("here".into(), "id".into(), KeptBy::Keyring, &KEY).unwrap();
    seal.file(b"contents").unwrap()
});

fuzz_target!(|input: (&[u8], bool, u8)| {
    let (bytes, around_a_good_one, at) = input;
    // Half of the time what is fed is put into a good file.
    let file = if around_a_good_one {
        let at = GOOD.len() * usize::from(at) / 256;
        [&GOOD[..at], bytes, &GOOD[at..]].concat()
    } else {
        bytes.to_vec()
    };
    match parse(&file).and_then(|parsed| parsed.open(&KEY).map(|(contents, _)| contents)) {
        Ok(contents) => assert!(file == *GOOD && *contents == *b"contents"),
        Err(_) => assert!(file != *GOOD),
    }
});
