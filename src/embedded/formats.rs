//! What the wrapper must know of ClickHouse's formats: which ones can be joined from pieces, and what each piece
//! repeats.
//!
//! The engine formats every piece of a streamed result as if it were a whole one. Rows one after another are
//! fine; a header in front of them is taken off from all pieces but the first. JSON, Parquet and the like can't
//! be joined, so they are buffered.

/// What a piece begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// Nothing.
    None,
    /// So many lines of text.
    Lines(usize),
    /// So many lines of CSV, whose quoted names may hold line ends.
    CsvLines(usize),
    /// Names (and types) as length-prefixed strings.
    Binary { types: bool },
}

/// How the pieces of a format are joined; `None` if they can't be.
pub(crate) fn joinable(format: &str) -> Option<Header> {
    Some(match format.to_ascii_lowercase().as_str() {
        "tabseparated"
        | "tsv"
        | "tabseparatedraw"
        | "tsvraw"
        | "raw"
        | "csv"
        | "jsoneachrow"
        | "jsonlines"
        | "ndjson"
        | "jsonstringseachrow"
        | "jsoncompacteachrow"
        | "jsoncompactstringseachrow"
        | "rowbinary"
        | "native"
        | "msgpack"
        | "lineasstring"
        | "tskv" => Header::None,
        "tabseparatedwithnames"
        | "tsvwithnames"
        | "tabseparatedrawwithnames"
        | "tsvrawwithnames"
        | "rawwithnames"
        | "jsoncompacteachrowwithnames"
        | "jsoncompactstringseachrowwithnames" => Header::Lines(1),
        "csvwithnames" => Header::CsvLines(1),
        "csvwithnamesandtypes" => Header::CsvLines(2),
        "tabseparatedwithnamesandtypes"
        | "tsvwithnamesandtypes"
        | "tabseparatedrawwithnamesandtypes"
        | "tsvrawwithnamesandtypes"
        | "rawwithnamesandtypes"
        | "jsoncompacteachrowwithnamesandtypes"
        | "jsoncompactstringseachrowwithnamesandtypes" => Header::Lines(2),
        "rowbinarywithnames" => Header::Binary { types: false },
        "rowbinarywithnamesandtypes" => Header::Binary { types: true },
        _ => return None,
    })
}

/// The length of the header that `piece` begins with; `None` if it does not hold one.
pub(crate) fn header_bytes(header: Header, piece: &[u8]) -> Option<usize> {
    match header {
        Header::None => Some(0),
        Header::Lines(lines) | Header::CsvLines(lines) => {
            let csv = matches!(header, Header::CsvLines(_));
            let mut left = lines;
            let mut quoted = false;
            for (index, byte) in piece.iter().enumerate() {
                match byte {
                    b'"' if csv => quoted = !quoted,
                    b'\n' if !quoted => {
                        left -= 1;
                        if left == 0 {
                            return Some(index + 1);
                        }
                    }
                    _ => {}
                }
            }
            None
        }
        Header::Binary { types } => {
            let (columns, mut at) = varint(piece, 0)?;
            let strings = if types { columns.checked_mul(2)? } else { columns };
            for _ in 0..strings {
                let (length, start) = varint(piece, at)?;
                at = start.checked_add(usize::try_from(length).ok()?)?;
                if at > piece.len() {
                    return None;
                }
            }
            Some(at)
        }
    }
}

/// The media type that ClickHouse answers with.
pub(crate) fn content_type(format: &str) -> &'static str {
    let lower = format.to_ascii_lowercase();
    if lower.starts_with("json") && !lower.contains("eachrow") && lower != "jsonlines" {
        return "application/json; charset=UTF-8";
    }
    match lower.as_str() {
        "jsoneachrow" | "jsonlines" | "ndjson" => "application/x-ndjson; charset=UTF-8",
        "native"
        | "rowbinary"
        | "rowbinarywithnames"
        | "rowbinarywithnamesandtypes"
        | "parquet"
        | "arrow"
        | "arrowstream"
        | "orc"
        | "avro"
        | "msgpack" => "application/octet-stream",
        _ if lower.starts_with("csv") => "text/csv; charset=UTF-8; header=absent",
        _ if lower.starts_with("tabseparated") || lower.starts_with("tsv") => {
            "text/tab-separated-values; charset=UTF-8"
        }
        _ => "text/plain; charset=UTF-8",
    }
}

fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for index in 0..9 {
        let byte = *bytes.get(at + index)?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_measured() {
        assert_eq!(header_bytes(Header::Lines(2), b"a\tb\nInt\tInt\n1\t2\n"), Some(12));
        assert_eq!(header_bytes(Header::CsvLines(1), b"\"a\n\"\n1\n"), Some(5));
        assert_eq!(header_bytes(Header::Binary { types: true }, b"\x01\x01a\x05UInt8\x07"), Some(9));
        assert_eq!(header_bytes(Header::Binary { types: true }, b"\x01\x01a\x05UInt"), None);
        assert_eq!(joinable("CSVWithNames"), Some(Header::CsvLines(1)));
        assert_eq!(joinable("JSON"), None);
    }

    proptest! {
        #[test]
        fn any_piece_is_survived(piece in prop::collection::vec(any::<u8>(), 0..100), lines in 1_usize..3) {
            for header in [Header::Lines(lines), Header::CsvLines(lines), Header::Binary { types: true }, Header::Binary { types: false }] {
                if let Some(bytes) = header_bytes(header, &piece) {
                    prop_assert!(bytes <= piece.len());
                }
            }
        }
    }
}
