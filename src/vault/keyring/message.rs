//! What the agent and its helper say to each other: one packet each way.

use zeroize::Zeroizing;

use super::super::key::{Key, NoKey};

/// No packet is larger.
pub(super) const LARGEST: usize = 1024;
const KEY: usize = 32;

/// What the keyring is to do with the key of the vault `id`.
pub(super) struct Request {
    pub(super) action: Action,
    pub(super) id: String,
}

pub(super) enum Action {
    Store(Key),
    Read,
    Delete,
}

/// A key is the reply to [`Action::Read`] alone.
pub(super) type Reply = Result<Option<Key>, NoKey>;

impl Request {
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let id = self.id.as_bytes();
        match &self.action {
            Action::Store(key) => packet(b's', &[key.bytes(), id]),
            Action::Read => packet(b'r', &[id]),
            Action::Delete => packet(b'd', &[id]),
        }
    }

    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let (kind, rest) = packet.split_first()?;
        let (action, id) = match kind {
            b's' => {
                let (key, id) = rest.split_at_checked(KEY)?;
                (Action::Store(Key::of(key)?), id)
            }
            b'r' => (Action::Read, rest),
            b'd' => (Action::Delete, rest),
            _ => return None,
        };
        Some(Self { action, id: String::from_utf8(id.to_vec()).ok()? })
    }
}

pub(super) fn encode_reply(reply: &Reply) -> Zeroizing<Vec<u8>> {
    match reply {
        Ok(Some(key)) => packet(b'k', &[key.bytes()]),
        Ok(None) => packet(b'o', &[]),
        Err(NoKey::Gone) => packet(b'g', &[]),
        Err(NoKey::Unavailable(why)) => packet(b'u', &[why.as_bytes()]),
    }
}

pub(super) fn decode_reply(packet: &[u8]) -> Option<Reply> {
    let (kind, rest) = packet.split_first()?;
    Some(match kind {
        b'k' => Ok(Some(Key::of(rest)?)),
        b'o' => Ok(None),
        b'g' => Err(NoKey::Gone),
        b'u' => Err(NoKey::Unavailable(String::from_utf8_lossy(rest).into_owned())),
        _ => return None,
    })
}

/// Its buffer does not grow: what it held would stay behind.
fn packet(kind: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut packet = Zeroizing::new(Vec::with_capacity(LARGEST));
    packet.push(kind);
    for part in parts {
        let room = LARGEST - packet.len();
        packet.extend_from_slice(&part[..part.len().min(room)]);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_received() {
        let key = Key::random();
        let request = Request { action: Action::Store(Key::of(key.bytes()).unwrap()), id: "0f".into() };
        let received = Request::decode(&request.encode()).unwrap();
        assert_eq!(received.id, "0f");
        assert!(matches!(received.action, Action::Store(sent) if sent.bytes() == key.bytes()));
        for action in [Action::Read, Action::Delete] {
            let kind = std::mem::discriminant(&action);
            let received = Request::decode(&Request { action, id: "1e".into() }.encode()).unwrap();
            assert_eq!((std::mem::discriminant(&received.action), &*received.id), (kind, "1e"));
        }
        let bytes = |reply: Reply| reply.map(|key| key.map(|key| *key.bytes()));
        let there = |reply: Reply| bytes(decode_reply(&encode_reply(&reply)).unwrap());
        assert_eq!(there(Ok(Some(Key::of(key.bytes()).unwrap()))), Ok(Some(*key.bytes())));
        assert_eq!(there(Ok(None)), Ok(None));
        assert_eq!(there(Err(NoKey::Gone)), Err(NoKey::Gone));
        let why = "long ".repeat(LARGEST);
        let Err(NoKey::Unavailable(cut)) = there(Err(NoKey::Unavailable(why.clone()))) else { panic!() };
        assert!(why.starts_with(&cut) && cut.len() == LARGEST - 1);
    }

    #[test]
    fn anything_else_is_not_understood() {
        for packet in [&b""[..], b"s", b"s0123", b"x", b"r\xff"] {
            assert!(Request::decode(packet).is_none(), "{packet:?}");
        }
        for packet in [&b""[..], b"k", b"k0123", b"x"] {
            assert!(decode_reply(packet).is_none(), "{packet:?}");
        }
    }
}
