//! Money: exact decimals, never floats.

use std::fmt;

/// An amount in millionths of its currency's unit: up to 12 digits before the point and 6 after it, never negative.
///
/// The same layout as ClickHouse's `Decimal(18, 6)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(u64);

/// The text is not an amount that can be kept exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number.
    #[error("not a decimal number")]
    NotANumber,
    /// Below zero.
    #[error("must not be negative; report a refund as an adjustment")]
    Negative,
    /// More than 12 digits before the point.
    #[error("has more than 12 digits before the point")]
    TooLarge,
}

const SCALE: i64 = 6;
const DIGITS_MAX: u32 = 18;
const MICROS_PER_UNIT: u64 = 1_000_000;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount of that many millionths; `None` past 18 digits.
    #[must_use]
    pub fn from_micros(micros: u64) -> Option<Self> {
        (micros < 10u64.pow(DIGITS_MAX)).then_some(Self(micros))
    }

    /// The amount in millionths: ClickHouse's `Decimal(18, 6)` as an integer.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.0
    }

    /// Reads a decimal number as JSON and people write it: `99`, `99.90`, `.5`, `1e2`, `+3`. White space around it is
    /// ignored. What stands after the sixth decimal is rounded half to even: scripts compute in binary floating point
    /// and send `0.30000000000000004`.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let text = text.trim();
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], parse_exponent(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.len() + fraction.len() == 0
            || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        {
            return Err(MoneyError::NotANumber);
        }
        let magnitude = scale(whole, fraction, exponent)?;
        if negative && magnitude != 0 { Err(MoneyError::Negative) } else { Ok(Self(magnitude)) }
    }
}

/// Two digits after the point at least, six at most: `99.00`, `0.125`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_micros(f, self.0.into())
    }
}

/// Writes millionths as [`Money`] does; sums need more room than one amount has.
pub(crate) fn write_micros(f: &mut impl fmt::Write, micros: u128) -> fmt::Result {
    let (units, fraction) = (micros / u128::from(MICROS_PER_UNIT), micros % u128::from(MICROS_PER_UNIT));
    let digits = format!("{fraction:06}");
    let kept = digits.trim_end_matches('0').len().max(2);
    write!(f, "{units}.{}", &digits[..kept])
}

fn parse_exponent(text: &str) -> Result<i32, MoneyError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(MoneyError::NotANumber);
    }
    // Past this the number is zero or too large, whatever its digits.
    let magnitude = digits.parse::<i32>().unwrap_or(i32::MAX).min(10_000);
    Ok(if text.starts_with('-') { -magnitude } else { magnitude })
}

/// Millionths of `whole.fraction x 10^exponent`, rounded half to even.
fn scale(whole: &str, fraction: &str, exponent: i32) -> Result<u64, MoneyError> {
    let digits = whole.bytes().chain(fraction.bytes()).map(|b| u64::from(b - b'0'));
    // How many of the digits stand before the point of the result in millionths.
    let kept = i64::try_from(whole.len()).unwrap_or(i64::MAX) + i64::from(exponent) + SCALE;
    let mut micros = 0u64;
    let mut count = 0i64;
    let mut rest = Rest::default();
    for digit in digits {
        if count >= kept {
            rest.push(digit, count == kept);
        } else {
            micros = push_digit(micros, digit)?;
        }
        count += 1;
    }
    while count < kept && micros != 0 {
        micros = push_digit(micros, 0)?;
        count += 1;
    }
    if rest.rounds_up(micros) { within_range(micros + 1) } else { Ok(micros) }
}

/// The digits after the last that is kept.
#[derive(Default)]
struct Rest {
    first: u64,
    any_further: bool,
}

impl Rest {
    fn push(&mut self, digit: u64, is_first: bool) {
        if is_first {
            self.first = digit;
        } else {
            self.any_further |= digit != 0;
        }
    }

    fn rounds_up(&self, kept: u64) -> bool {
        self.first > 5 || self.first == 5 && (self.any_further || kept % 2 == 1)
    }
}

fn push_digit(micros: u64, digit: u64) -> Result<u64, MoneyError> {
    within_range(micros * 10 + digit)
}

fn within_range(micros: u64) -> Result<u64, MoneyError> {
    if micros < 10u64.pow(DIGITS_MAX) { Ok(micros) } else { Err(MoneyError::TooLarge) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_and_json_write() {
        let micros = |text| Money::parse(text).map(Money::micros);
        assert_eq!(micros("99.99"), Ok(99_990_000));
        assert_eq!(micros(" 0 "), Ok(0));
        assert_eq!(micros(".5"), Ok(500_000));
        assert_eq!(micros("5."), Ok(5_000_000));
        assert_eq!(micros("1e2"), Ok(100_000_000));
        assert_eq!(micros("1.25E-2"), Ok(12_500));
        assert_eq!(micros("-0"), Ok(0));
        assert_eq!(micros("999999999999.999999"), Ok(999_999_999_999_999_999));
        assert_eq!(micros("0e999999999999"), Ok(0));
        assert_eq!(micros("0.1000000000"), Ok(100_000));
    }

    #[test]
    fn refuses_what_it_can_not_keep() {
        assert_eq!(Money::parse("-1"), Err(MoneyError::Negative));
        assert_eq!(Money::parse("999999999999.9999995"), Err(MoneyError::TooLarge), "rounded up");
        assert_eq!(Money::parse("1000000000000"), Err(MoneyError::TooLarge));
        assert_eq!(Money::parse("1e400"), Err(MoneyError::TooLarge));
        for wrong in ["", ".", "NaN", "inf", "1,5", "1.2.3", "0x10", "1e", "--1", "١"] {
            assert_eq!(Money::parse(wrong), Err(MoneyError::NotANumber), "{wrong:?}");
        }
    }

    #[test]
    fn rounds_half_to_even_after_the_sixth_decimal() {
        let micros = |text| Money::parse(text).map(Money::micros);
        assert_eq!(micros("0.30000000000000004"), Ok(300_000));
        assert_eq!(micros("0.1000000000000000055"), Ok(100_000));
        assert_eq!(micros("29.999999999999996"), Ok(30_000_000));
        assert_eq!(micros("0.0000005"), Ok(0), "half, to the even neighbour below");
        assert_eq!(micros("0.0000015"), Ok(2), "half, to the even neighbour above");
        assert_eq!(micros("0.00000050000000001"), Ok(1));
        assert_eq!(micros("0.00000009"), Ok(0));
        assert_eq!(micros("5e-7"), Ok(0));
        assert_eq!(micros("15e-7"), Ok(2));
        assert_eq!(micros("1e-400"), Ok(0));
        assert_eq!(micros("-1.7763568394002505e-15"), Ok(0), "a script's zero");
    }

    #[test]
    fn prints_two_to_six_digits() {
        let shown = |text| Money::parse(text).map(|m| m.to_string());
        assert_eq!(shown("99"), Ok("99.00".into()));
        assert_eq!(shown("0.125"), Ok("0.125".into()));
        assert_eq!(shown("1.10"), Ok("1.10".into()));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = Money::parse(&text);
        }

        #[test]
        fn numbers_of_any_shape_never_panic(text in "[+-]?[0-9]{0,25}\\.?[0-9]{0,25}([eE][+-]?[0-9]{1,12})?") {
            let _ = Money::parse(&text);
        }

        #[test]
        fn rounding_is_that_of_integers(units in 0..10u64.pow(9), fraction in 0..10u64.pow(9)) {
            let (kept, rest) = (units * 1_000_000 + fraction / 1000, fraction % 1000);
            let up = rest > 500 || rest == 500 && kept % 2 == 1;
            let read = Money::parse(&format!("{units}.{fraction:09}")).map(Money::micros);
            prop_assert_eq!(read, Ok(kept + u64::from(up)));
        }

        #[test]
        fn what_is_printed_reads_back(micros in 0..10u64.pow(18)) {
            let money = Money::from_micros(micros).expect("18 digits");
            prop_assert_eq!(Money::parse(&money.to_string()), Ok(money));
        }
    }
}
