//! A JSON number as an id: `12345`, `12345.0` and `1.2345e4` are one number, and name one order.

/// Longest text that is made of a number; past it the number stays as it was written.
const BYTES_MAX: usize = 255;

/// The shortest decimal text of a JSON number's value; `None`: that is how it is written already, or it is too long.
pub(super) fn shortest_decimal(text: &str) -> Option<String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (sign, unsigned) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".into());
    }
    // How many of the digits stand before the point.
    let leading = digits.len() - significant.len();
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent) - i64::try_from(leading).ok()?;
    let significant = significant.trim_end_matches('0');
    let length = i64::try_from(significant.len()).ok()?;
    if point.abs() + length > i64::try_from(BYTES_MAX).ok()? {
        return None;
    }
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    Some(if point <= 0 {
        format!("{sign}0.{}{significant}", zeros(-point))
    } else if point >= length {
        format!("{sign}{significant}{}", zeros(point - length))
    } else {
        let (whole, fraction) = significant.split_at(usize::try_from(point).ok()?);
        format!("{sign}{whole}.{fraction}")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_has_one_shortest_text() {
        for (text, shortest) in [
            ("12345.0", "12345"),
            ("1.2345e4", "12345"),
            ("1.50", "1.5"),
            ("0.10", "0.1"),
            ("1e3", "1000"),
            ("1E+3", "1000"),
            ("25e-3", "0.025"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("-7.0", "-7"),
            ("0e999", "0"),
        ] {
            assert_eq!(shortest_decimal(text).as_deref(), Some(shortest), "{text}");
        }
        for text in ["12345", "0", "1e400", "1e-400", "1e99999999999"] {
            assert_eq!(shortest_decimal(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_text_is_the_same_for_every_way_to_write_a_number(digits in 1u64.., shift in 0usize..6) {
            let plain = format!("{digits}.5");
            let moved = format!("{digits}5{}e-{}", "0".repeat(shift), shift + 1);
            prop_assert_eq!(shortest_decimal(&plain), Some(plain.clone()));
            prop_assert_eq!(shortest_decimal(&moved), Some(plain));
        }
    }
}
