//! What makes a conversion unique: the caller's order id and the keyed hash that stands for it.

/// Longest order id, in bytes.
pub(super) const ORDER_ID_BYTES_MAX: usize = 255;

/// The caller's name of the order: trimmed, case-sensitive, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrderId(String);

/// The text can't be an order id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderIdError {
    /// Longer than 255 bytes.
    #[error("an order id has at most 255 bytes")]
    TooLong,
    /// Holds a control character.
    #[error("an order id holds no control characters")]
    ControlCharacter,
}

impl OrderId {
    /// Reads an order id; blank text is an absent one.
    pub fn parse(text: &str) -> Result<Option<Self>, OrderIdError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > ORDER_ID_BYTES_MAX {
            return Err(OrderIdError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(OrderIdError::ControlCharacter);
        }
        Ok(Some(Self(text.to_owned())))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How long a key stays unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DedupScope {
    /// An order id: for ever.
    Forever,
    /// An `Idempotency-Key`: 24 hours.
    Day,
}

impl DedupScope {
    /// How far back a first copy still makes a second one a duplicate, in milliseconds; `None`: without end.
    #[must_use]
    pub fn horizon_millis(self) -> Option<i64> {
        match self {
            Self::Forever => None,
            Self::Day => Some(24 * 3600 * 1000),
        }
    }
}

/// A secretly keyed 128-bit hash of (goal, scope, order id or idempotency key). All of deduplication works on it;
/// nobody without the key can aim at the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(pub u128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_is_absent_and_case_counts() {
        assert_eq!(OrderId::parse("  "), Ok(None));
        assert_ne!(OrderId::parse("a"), OrderId::parse("A"));
        assert_eq!(OrderId::parse(" a "), OrderId::parse("a"));
        assert_eq!(OrderId::parse(&"x".repeat(256)), Err(OrderIdError::TooLong));
        assert_eq!(OrderId::parse("a\nb"), Err(OrderIdError::ControlCharacter));
    }
}
