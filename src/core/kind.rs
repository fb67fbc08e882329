//! The kinds of records that are acknowledged and must be accounted for, each by itself.

use std::ops::{Index, IndexMut};

/// What an acknowledged record is. Refused hits were not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A conversion.
    Conversion,
    /// A click.
    Click,
    /// An adjustment of a conversion.
    Adjustment,
}

impl Kind {
    /// Every kind, in the order in which they are listed and kept.
    pub const ALL: [Self; 3] = [Self::Conversion, Self::Click, Self::Adjustment];

    /// The name in metrics and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conversion => "conversion",
            Self::Click => "click",
            Self::Adjustment => "adjustment",
        }
    }
}

/// One of something for each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerKind<T>(pub [T; Kind::ALL.len()]);

impl<T> Index<Kind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: Kind) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> IndexMut<Kind> for PerKind<T> {
    fn index_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_kept_in_their_order() {
        let per_kind = PerKind(Kind::ALL);
        assert!(Kind::ALL.into_iter().all(|kind| per_kind[kind] == kind));
    }
}
