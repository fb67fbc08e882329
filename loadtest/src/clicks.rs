//! The clicks of a stream: their numbers, and which of them an order names. All of it follows from the run and a number,
//! so that a copy is byte for byte what it copies.

use crate::rng::scramble;

/// An order names a click that is at least so many clicks old: by then it was answered, or its answer was lost.
pub const LAG: u64 = 512;
/// Of four orders so many name a click.
const NAMING_OF_FOUR: u64 = 3;

/// Length of every click id, in digits.
pub const CLICK_ID_DIGITS: usize = 16;
/// All ids lie from here to 2^53, so that each has [`CLICK_ID_DIGITS`] digits.
const FIRST: u64 = 1 << 52;
const NUMBER_BITS: u32 = 33;
const RUN_BITS: u32 = 52 - NUMBER_BITS;

/// The id of the `number`th click of `run`.
#[must_use]
pub const fn click_id(run: u32, number: u64) -> u64 {
    // A const fn has no `u64::from`.
    let run = (run as u64) & ((1 << RUN_BITS) - 1);
    FIRST | run << NUMBER_BITS | (number & ((1 << NUMBER_BITS) - 1))
}

/// The number of the click that the order with this sequence number names, if it names one, where there are so many
/// clicks for each hit.
#[must_use]
pub fn named(sequence: u64, clicks_per_hit: u32) -> Option<u64> {
    if clicks_per_hit == 0 || scramble(sequence) % 4 >= NAMING_OF_FOUR {
        return None;
    }
    (sequence * u64::from(clicks_per_hit)).checked_sub(LAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_length_and_stay_below_the_bound() {
        for (run, number) in [(0, 0), (u32::MAX, (1 << NUMBER_BITS) - 1), (7, 1)] {
            let id = click_id(run, number);
            assert_eq!(id.to_string().len(), CLICK_ID_DIGITS);
            assert!(id < 1 << 53);
        }
        assert_ne!(click_id(1, 0), click_id(2, 0));
    }

    #[test]
    fn most_orders_name_a_click_that_is_old_enough() {
        let names = (0..10_000).filter_map(|sequence| Some((sequence, named(sequence, 2)?)));
        let names: Vec<_> = names.collect();
        assert!(names.len() > 7_000);
        assert!(names.iter().all(|(sequence, click)| click + LAG <= sequence * 2));
        assert_eq!(named(5_000, 0), None);
    }
}
