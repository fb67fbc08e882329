//! Names that came with a hit and are no fields of it.

use std::borrow::Cow;

use super::raw_hit::bare_name;

/// Most names that are told; more are only counted.
const NAMES_MAX: usize = 10;
/// Longest name that is told, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// What pages and ad servers add so that nothing answers out of a cache, in lower case. They tell nothing and are no
/// fields.
const CACHE_BUSTERS: [&[u8]; 20] = [
    b"_",
    b"_t",
    b"_ts",
    b"cache",
    b"cachebuster",
    b"cache_buster",
    b"cachebust",
    b"cb",
    b"nocache",
    b"no_cache",
    b"nonce",
    b"num",
    b"ord",
    b"r",
    b"rand",
    b"random",
    b"rnd",
    b"t",
    b"timestamp",
    b"ts",
];

/// The names of what was not understood, bounded in number and length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UnknownNames<'a> {
    names: Vec<Cow<'a, str>>,
    /// Names that are not in the list any more.
    further: usize,
}

impl<'a> UnknownNames<'a> {
    /// Keeps a name, unless it is a cache buster's.
    pub(super) fn note(&mut self, name: &'a [u8]) {
        let name = bare_name(name);
        if !is_cache_buster(name) {
            self.keep(String::from_utf8_lossy(name));
        }
    }

    /// The same of a name that lives no longer than the call.
    pub(super) fn note_owned(&mut self, name: &[u8]) {
        let name = bare_name(name);
        if !is_cache_buster(name) {
            self.keep(Cow::Owned(String::from_utf8_lossy(name).into_owned()));
        }
    }

    fn keep(&mut self, name: Cow<'a, str>) {
        if self.names.contains(&name) {
            return;
        }
        if self.names.len() == NAMES_MAX {
            self.further += 1;
            return;
        }
        self.names.push(name);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names as they can be told: cut, and without characters that end a line or a header.
    pub(super) fn told(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(|name| {
            let name = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
            name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        })
    }
}

/// A name that only changes the address: a known one, none at all, or a number (`?1768996800`, `?0.5471`).
fn is_cache_buster(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        || CACHE_BUSTERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[&'static str]) -> Vec<String> {
        let mut unknown = UnknownNames::default();
        for name in names {
            unknown.note(name.as_bytes());
        }
        unknown.told().collect()
    }

    #[test]
    fn names_are_told_once_and_bounded() {
        assert_eq!(told(&["payout", "amp;txid", "payout", "a\nb"]), ["payout", "txid", "a\u{fffd}b"]);
        let many: Vec<String> = (0..30).map(|n| format!("name{n}")).collect();
        let mut unknown = UnknownNames::default();
        for name in &many {
            unknown.note(name.as_bytes());
        }
        assert_eq!((unknown.told().count(), unknown.further), (10, 20));
        assert_eq!(told(&[Box::leak("ü".repeat(100).into_boxed_str())])[0].len(), 64);
    }

    #[test]
    fn cache_busters_are_no_fields() {
        assert_eq!(told(&["", "_", "CB", "rnd", "ord", "1768996800", "0.5471", "amp;"]), [""; 0]);
    }
}
