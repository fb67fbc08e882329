//! Ids as short texts that are copied, not allocated: the hot path of the load client keeps two for every hit.

use std::fmt;

/// The longest text that fits.
pub const BYTES_MAX: usize = 39;

/// Up to [`BYTES_MAX`] bytes of UTF-8, inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortText {
    bytes: [u8; BYTES_MAX],
    len: u8,
}

impl ShortText {
    /// Takes `text` over, or nothing if it is too long or not UTF-8.
    #[must_use]
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        std::str::from_utf8(text).ok()?;
        Some(Self { bytes, len: u8::try_from(text.len()).ok()? })
    }

    /// A single dash.
    #[must_use]
    pub const fn dash() -> Self {
        let mut bytes = [0; BYTES_MAX];
        bytes[0] = b'-';
        Self { bytes, len: 1 }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The constructor checked the bytes.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_fits_and_refuses_the_rest() {
        let id = "0193a5b2-7c1e-7d30-8f00-0123456789ab";
        assert_eq!(ShortText::from_bytes(id.as_bytes()).map(|text| text.to_string()).as_deref(), Some(id));
        assert_eq!(ShortText::from_bytes(&[b'x'; BYTES_MAX + 1]), None);
        assert_eq!(ShortText::from_bytes(&[0xff]), None);
    }
}
