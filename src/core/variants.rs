//! A/B variants of a link: what is counted of each, how sure that is, and which one is best.
//!
//! A variant's rate is how many of its clicks converted at all: a click that earns three conversions is one success, so
//! that a rate is a proportion and what is said of its uncertainty holds. Everything here is computed without chance: the
//! same counts always give the same answer.

use std::collections::BTreeMap;

use super::{AccountId, Currency, GoalId, LinkId, MoneySum, UnixMillis};

/// What combinations count as that got no label of their own.
pub const VARIANT_OTHER: &str = "(other)";

/// What an experiment must have before a verdict is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExperimentMinimum {
    /// Since the first click, so that every day of the week has its say.
    pub days: u32,
    /// Human clicks of each variant.
    pub clicks: u64,
    /// Clicks of each variant that converted.
    pub converting_clicks: u64,
    /// How likely the best one must be the best.
    pub probability: f64,
}

/// The minimum that applies.
pub const EXPERIMENT_MINIMUM: ExperimentMinimum =
    ExperimentMinimum { days: 7, clicks: 100, converting_clicks: 25, probability: 0.95 };

/// Asks for the variants of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantQuery {
    /// The caller's account.
    pub account_id: AccountId,
    /// The link.
    pub link_id: LinkId,
    /// One goal, or all of the account's.
    pub goal_id: Option<GoalId>,
    /// The period's start, inclusive.
    pub from: UnixMillis,
    /// The period's end, exclusive.
    pub to: UnixMillis,
}

/// What was counted of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariantReport {
    /// Of each variant that was shown or earned something; empty: without a variant.
    pub variants: BTreeMap<String, VariantCounts>,
    /// The hour of the first human click in the period.
    pub first_click: Option<UnixMillis>,
}

/// What was counted of one variant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariantCounts {
    /// All clicks, robots among them.
    pub clicks: u64,
    /// Clicks of people.
    pub human_clicks: u64,
    /// People who clicked, about.
    pub visitors: u64,
    /// Human clicks of the period that earned a conversion until today.
    pub converting_clicks: u64,
    /// Conversions in the period.
    pub conversions: u64,
    /// Their value, by currency.
    pub value: BTreeMap<Currency, MoneySum>,
}

/// What the statistics of one variant rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    /// Human clicks.
    pub clicks: u64,
    /// Those that converted; not more than there are.
    pub converting: u64,
}

/// The best of several variants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Its place.
    pub arm: usize,
    /// How likely it is the best.
    pub probability: f64,
}

/// Why nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutVerdict {
    /// There is nothing to compare.
    OneVariant,
    /// It has not run long enough.
    NotEnoughDays,
    /// A variant has too few clicks.
    NotEnoughClicks,
    /// Too few clicks of a variant converted.
    NotEnoughConversions,
    /// There is enough of everything, and no variant stands out.
    NoClearWinner,
}

impl WithoutVerdict {
    /// The public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneVariant => "one_variant",
            Self::NotEnoughDays => "not_enough_days",
            Self::NotEnoughClicks => "not_enough_clicks",
            Self::NotEnoughConversions => "not_enough_conversions",
            Self::NoClearWinner => "no_clear_winner",
        }
    }
}

/// Which variant is best, given how likely each of them is, or why nothing is said.
pub fn judge(
    arms: &[Arm],
    probabilities: &[f64],
    days: u32,
    minimum: ExperimentMinimum,
) -> Result<Best, WithoutVerdict> {
    if arms.len() < 2 {
        return Err(WithoutVerdict::OneVariant);
    }
    if arms.iter().any(|arm| arm.clicks < minimum.clicks) {
        return Err(WithoutVerdict::NotEnoughClicks);
    }
    if arms.iter().any(|arm| arm.converting < minimum.converting_clicks) {
        return Err(WithoutVerdict::NotEnoughConversions);
    }
    if days < minimum.days {
        return Err(WithoutVerdict::NotEnoughDays);
    }
    let best = probabilities.iter().copied().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    match best {
        Some((arm, probability)) if probability >= minimum.probability => Ok(Best { arm, probability }),
        _ => Err(WithoutVerdict::NoClearWinner),
    }
}

/// Wilson's score interval of a proportion at 95 %: from, to. Without clicks everything is possible.
#[must_use]
pub fn wilson(arm: Arm) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    if arm.clicks == 0 {
        return (0.0, 1.0);
    }
    let (successes, n) = (float(arm.converting.min(arm.clicks)), float(arm.clicks));
    let share = successes / n;
    let centre = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// How likely each variant is the best, from its clicks and a uniform prior: its rate has the density of
/// Beta(converting + 1, not converting + 1), and the probability is the integral of that density times the chance that
/// all others lie below. By Simpson's rule; the sum is 1.
#[must_use]
pub fn probabilities_best(arms: &[Arm]) -> Vec<f64> {
    let curves: Vec<Curve> = arms.iter().map(|arm| Curve::new(*arm)).collect();
    let mut shares: Vec<f64> = curves
        .iter()
        .enumerate()
        .map(|(own, curve)| {
            curve.integral(|x| {
                let others = curves.iter().enumerate().filter(|(other, _)| *other != own);
                others.map(|(_, other)| other.below(x)).product()
            })
        })
        .collect();
    // What is cut off and what is rounded is the same for all, nearly.
    let sum: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= sum;
    }
    shares
}

/// The posterior of one variant's rate, as a table: its density where there is any worth mentioning, and what lies below.
struct Curve {
    from: f64,
    step: f64,
    density: Vec<f64>,
    below: Vec<f64>,
}

/// Intervals of a table; even, as Simpson's rule needs it.
const INTERVALS: usize = 4096;
/// How many standard deviations it reaches to each side: the flattest tail, that of no success at all, holds e^-20 beyond.
const DEVIATIONS: f64 = 20.0;

impl Curve {
    fn new(arm: Arm) -> Self {
        let converting = float(arm.converting.min(arm.clicks));
        let others = float(arm.clicks) - converting;
        let (alpha, beta) = (converting + 1.0, others + 1.0);
        let total = alpha + beta;
        let mean = alpha / total;
        let deviation = (alpha * beta / (total * total * (total + 1.0))).sqrt();
        let from = (mean - DEVIATIONS * deviation).max(0.0);
        let to = (mean + DEVIATIONS * deviation).min(1.0);
        let step = (to - from) / float(INTERVALS as u64);
        // Against the density at its peak, so that nothing over- or underflows; made whole below.
        let logarithm = |x: f64| power(converting, x) + power(others, 1.0 - x);
        let peak = logarithm(if arm.clicks == 0 { 0.5 } else { converting / (converting + others) });
        let at = |n: usize| (from + step * float(n as u64)).clamp(0.0, 1.0);
        let mut density: Vec<f64> = (0..=INTERVALS).map(|n| (logarithm(at(n)) - peak).exp()).collect();
        let middle = |n: usize| (logarithm(at(n) + step / 2.0) - peak).exp();
        let mut below = Vec::with_capacity(INTERVALS + 1);
        let mut sum = 0.0;
        below.push(sum);
        for (n, ends) in density.windows(2).enumerate() {
            sum += (ends[0] + 4.0 * middle(n) + ends[1]) * step / 6.0;
            below.push(sum);
        }
        for value in density.iter_mut().chain(&mut below) {
            *value /= sum;
        }
        Self { from, step, density, below }
    }

    /// How likely the rate is below `x`.
    fn below(&self, x: f64) -> f64 {
        let place = (x - self.from) / self.step;
        if place <= 0.0 {
            return 0.0;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the table")]
        let n = place as usize;
        match (self.below.get(n), self.below.get(n + 1)) {
            (Some(left), Some(right)) => left + (right - left) * (place - float(n as u64)),
            _ => 1.0,
        }
    }

    /// The integral of the density times `weight`, by Simpson's rule.
    fn integral(&self, weight: impl Fn(f64) -> f64) -> f64 {
        let terms = self.density.iter().enumerate().map(|(n, density)| {
            let factor = match n {
                0 | INTERVALS => 1.0,
                n if n % 2 == 1 => 4.0,
                _ => 2.0,
            };
            factor * density * weight(self.from + self.step * float(n as u64))
        });
        terms.sum::<f64>() * self.step / 3.0
    }
}

/// The logarithm of `base` to the power of `exponent`, where 0 to the power of 0 is 1.
fn power(exponent: f64, base: f64) -> f64 {
    if exponent == 0.0 { 0.0 } else { exponent * base.ln() }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(converting: u64, clicks: u64) -> Arm {
        Arm { clicks, converting }
    }

    fn close(a: f64, b: f64, by: f64) {
        assert!((a - b).abs() < by, "{a} is not {b}");
    }

    /// The logarithms of the gamma function of whole numbers, by its definition.
    struct LnGamma(Vec<f64>);

    impl LnGamma {
        fn below(n: u64) -> Self {
            let mut sum = 0.0;
            let sums = (2..n).map(|n| {
                sum += float(n).ln();
                sum
            });
            Self([0.0; 3].into_iter().chain(sums).collect())
        }

        fn ln_beta(&self, a: u64, b: u64) -> f64 {
            let of = |n: u64| self.0[usize::try_from(n).expect("small")];
            of(a) + of(b) - of(a + b)
        }
    }

    /// The closed form of P(second > first), a finite sum over whole parameters.
    fn second_is_better(first: Arm, second: Arm) -> f64 {
        let (a, b) = (first.converting + 1, first.clicks - first.converting + 1);
        let (c, d) = (second.converting + 1, second.clicks - second.converting + 1);
        let ln = LnGamma::below(a + b + c + d + 1);
        (0..c)
            .map(|i| {
                (ln.ln_beta(a + i, b + d) - float(d + i).ln() - ln.ln_beta(1 + i, d) - ln.ln_beta(a, b)).exp()
            })
            .sum()
    }

    #[test]
    fn two_variants_agree_with_the_closed_form() {
        for (first, second) in [
            (arm(0, 0), arm(0, 0)),
            (arm(0, 0), arm(1, 1)),
            (arm(0, 10), arm(1, 10)),
            (arm(10, 10), arm(9, 10)),
            (arm(20, 1000), arm(32, 1000)),
            (arm(3, 40), arm(900, 10_000)),
            (arm(0, 5000), arm(4, 5000)),
            (arm(2000, 40_000), arm(2080, 40_000)),
        ] {
            let found = probabilities_best(&[first, second]);
            close(found[1], second_is_better(first, second), 1e-5);
            close(found[0] + found[1], 1.0, 1e-12);
        }
        // The mean of Beta(2, 1), by hand.
        close(probabilities_best(&[arm(0, 0), arm(1, 1)])[1], 2.0 / 3.0, 1e-6);
    }

    #[test]
    fn equal_variants_are_equally_likely_and_order_does_not_matter() {
        for n in [2, 3, 10] {
            for share in probabilities_best(&vec![arm(30, 700); n]) {
                close(share, 1.0 / float(n as u64), 1e-6);
            }
        }
        let forth = probabilities_best(&[arm(30, 700), arm(45, 720), arm(5, 100)]);
        let back = probabilities_best(&[arm(5, 100), arm(45, 720), arm(30, 700)]);
        close(forth[0], back[2], 1e-12);
        assert!(forth[1] > forth[0] && forth[1] > forth[2]);
    }

    #[test]
    fn millions_of_clicks_and_none_at_all_are_numbers_too() {
        let found =
            probabilities_best(&[arm(1_000_000, 100_000_000), arm(1_010_000, 100_000_000), arm(0, 0)]);
        assert!(found.iter().all(|share| share.is_finite()));
        // The uniform one beats both unless it lies below them.
        close(found[2], 0.99, 1e-3);
        close(found[1], 0.01, 1e-3);
        assert_eq!(probabilities_best(&[]), Vec::<f64>::new());
        close(probabilities_best(&[arm(3, 2)])[0], 1.0, 1e-12);
    }

    /// Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    #[test]
    fn intervals_are_those_of_the_literature() {
        for (arm, low, high) in [
            (arm(81, 263), 0.2553, 0.3662),
            (arm(15, 148), 0.0624, 0.1605),
            (arm(0, 20), 0.0, 0.1611),
            (arm(1, 29), 0.0061, 0.1718),
        ] {
            let (from, to) = wilson(arm);
            close(from, low, 5e-5);
            close(to, high, 5e-5);
        }
        close(wilson(arm(20, 20)).1, 1.0, 1e-12);
        assert_eq!(wilson(arm(0, 0)), (0.0, 1.0));
    }

    #[test]
    fn nothing_is_said_before_the_minimum() {
        let say = |arms: &[Arm], days| judge(arms, &probabilities_best(arms), days, EXPERIMENT_MINIMUM);
        assert_eq!(say(&[arm(500, 1000)], 30), Err(WithoutVerdict::OneVariant));
        assert_eq!(say(&[arm(50, 99), arm(90, 1000)], 30), Err(WithoutVerdict::NotEnoughClicks));
        assert_eq!(say(&[arm(24, 100), arm(90, 100)], 30), Err(WithoutVerdict::NotEnoughConversions));
        assert_eq!(say(&[arm(25, 100), arm(90, 100)], 6), Err(WithoutVerdict::NotEnoughDays));
        assert_eq!(say(&[arm(25, 100), arm(26, 100)], 7), Err(WithoutVerdict::NoClearWinner));
        let best = say(&[arm(25, 100), arm(90, 100)], 7).expect("clear");
        assert!(best.arm == 1 && best.probability > 0.99);
    }
}
