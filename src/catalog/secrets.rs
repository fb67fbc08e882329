//! API keys and postback tokens: making them, reading them, comparing them.
//!
//! A key reads `tally_<number>_<secret>`: the number finds the row, the secret is 256 random bits in base64url.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    core::{ApiKey, PostbackToken, webhook::SigningSecret},
    secret::Secret,
};

const PREFIX: &str = "tally_";

/// Makes a key: its text, shown once, and the hash that is kept.
pub(super) fn new_key(id: u32) -> Result<(Secret, [u8; 32]), getrandom::Error> {
    let secret = random::<32>()?;
    let hash = hash(&secret);
    Ok((Secret::new(format!("{PREFIX}{id}_{secret}")), hash))
}

/// Makes a postback token: 144 random bits, so that tokens can't be guessed.
pub(super) fn new_token() -> Result<PostbackToken, getrandom::Error> {
    random::<18>().map(PostbackToken)
}

/// What slugs are made of: 31 characters that nobody takes for each other, `0`, `1`, `i`, `l` and `o` not among them.
const SLUG_ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";
/// Characters of an issued slug: 50 random bits. Whoever tries a million slugs meets one of a thousand links with a
/// chance of one in a million.
const SLUG_CHARS: usize = 10;

/// Makes a slug that is short enough to be typed.
pub(super) fn new_slug() -> Result<String, getrandom::Error> {
    let mut slug = String::with_capacity(SLUG_CHARS);
    while slug.len() < SLUG_CHARS {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        // Of five bits, the one value that names no character is thrown away, so that all are as likely.
        let characters = bytes.iter().filter_map(|byte| SLUG_ALPHABET.get(usize::from(byte & 31)));
        slug.extend(characters.take(SLUG_CHARS - slug.len()).map(|byte| char::from(*byte)));
    }
    Ok(slug)
}

/// Makes a secret that postbacks are signed with.
pub(super) fn new_signing_secret() -> Result<SigningSecret, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(SigningSecret(bytes))
}

/// A key as a caller presents it.
pub(super) struct Presented<'a> {
    /// Which key it claims to be.
    pub(super) id: u32,
    secret: &'a str,
}

impl<'a> Presented<'a> {
    /// Reads a key's text.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: id.parse().ok()?, secret })
    }

    /// Whether it is that key; takes the same time wherever the two differ.
    pub(super) fn is(&self, key: &ApiKey) -> bool {
        let same = hash(self.secret).ct_eq(&key.sha256);
        bool::from(same) && !key.revoked
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn random<const N: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::{AccountId, UnixMillis};

    fn key(sha256: [u8; 32], revoked: bool) -> ApiKey {
        ApiKey {
            id: 3,
            account_id: AccountId(1),
            name: "k".into(),
            sha256,
            created_at: UnixMillis(0),
            revoked,
        }
    }

    #[test]
    fn only_the_key_itself_is_let_in() {
        let (secret, sha256) = new_key(3).expect("random");
        let presented = Presented::parse(secret.expose()).expect("reads");
        assert_eq!(presented.id, 3);
        assert!(presented.is(&key(sha256, false)));
        assert!(!presented.is(&key(sha256, true)), "revoked");
        let (other, _) = new_key(3).expect("random");
        assert!(!Presented::parse(other.expose()).expect("reads").is(&key(sha256, false)));
        assert!(secret.expose().len() > 43 && !format!("{secret:?}").contains(secret.expose()));
    }

    #[test]
    fn tokens_differ_and_need_no_escaping() {
        let token = new_token().expect("random").0;
        assert_ne!(token, new_token().expect("random").0);
        assert!(token.len() == 24 && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
    }

    /// Timing can't be measured reliably here, so the source is held to it: the hashes meet in `ct_eq` alone.
    #[test]
    fn hashes_are_compared_in_constant_time() {
        let source = include_str!("secrets.rs").split("mod tests").next().expect("code");
        assert!(source.contains("ct_eq(&key.sha256)"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,80}") {
            if let Some(presented) = Presented::parse(&text) {
                prop_assert!(!presented.is(&key([0; 32], false)));
            }
        }
    }
}
