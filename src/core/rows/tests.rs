//! Rows read back one after the other, and any bytes are answered.

use proptest::prelude::*;

use super::*;
use crate::core::{BatchId, arbitrary};

const BATCH: BatchId = BatchId(7);

proptest! {
    #[test]
    fn conversions_read_back(counted in arbitrary::counted_conversions()) {
        let (mut bytes, mut attributions) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            encode_conversion(&counted, BATCH, &mut bytes);
            encode_attribution(&counted, BATCH, &mut attributions);
        }
        let (mut rest, mut attributions) = (&bytes[..], &attributions[..]);
        for _ in 0..2 {
            let row = decode_conversion(&mut rest).expect("own bytes");
            prop_assert_eq!(&row.conversion, &counted.conversion);
            prop_assert_eq!(row.candidates, counted.attribution.candidates);
            prop_assert_eq!(row.run, counted.run);
            match &counted.attribution.outcome {
                Ok(earned) => {
                    prop_assert_eq!(row.attribution, Ok(earned.method));
                    let attribution = decode_attribution(&mut attributions).expect("own bytes");
                    prop_assert_eq!(attribution.conversion_id, counted.conversion.id);
                    prop_assert_eq!(&attribution.earned, earned);
                }
                Err(reason) => prop_assert_eq!(row.attribution, Err(*reason)),
            }
        }
        prop_assert!(rest.is_empty() && attributions.is_empty());
    }

    #[test]
    fn the_others_read_back(
        click in arbitrary::counted_clicks(), adjustment in arbitrary::counted_adjustments(),
        refusal in arbitrary::refusals(),
    ) {
        let mut bytes = Vec::new();
        encode_click(&click, BATCH, &mut bytes);
        encode_adjustment(&adjustment, BATCH, &mut bytes);
        encode_rejection(&refusal, BATCH, &mut bytes);
        let mut rest = &bytes[..];
        prop_assert_eq!(decode_click(&mut rest), Ok(click));
        prop_assert_eq!(decode_adjustment(&mut rest), Ok(adjustment));
        prop_assert_eq!(decode_rejection(&mut rest), Ok(refusal));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_conversion(&mut &bytes[..]);
        let _ = decode_attribution(&mut &bytes[..]);
        let _ = decode_click(&mut &bytes[..]);
        let _ = decode_adjustment(&mut &bytes[..]);
        let _ = decode_rejection(&mut &bytes[..]);
    }
}
