//! Shares of a whole, as reports give them.

/// `part` of a hundred of `whole`, to hundredths; of nothing: 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let share = part as f64 / whole as f64;
    (share * 10_000.0).round() / 100.0
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "rounded to hundredths")]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_to_hundredths() {
        assert_eq!(percent(1, 3), 33.33);
        assert_eq!(percent(2, 3), 66.67);
        assert_eq!(percent(3, 3), 100.0);
        assert_eq!(percent(3, 2), 150.0);
        assert_eq!(percent(0, 0), 0.0);
    }
}
