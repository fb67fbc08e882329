//! The one query that clickhouse-go (Grafana's plugin) opens every HTTP connection with.
//!
//! It asks for the server's revision and then reads Native blocks as a server of that revision writes them. The
//! engine writes Native at revision 0 while its `revision()` says otherwise, so this answer is made by hand: in
//! the framing of the client's revision, and with revision 0 in it. Every later block then is read as it is.

const QUERY: &str = "SELECT displayName(), version(), revision(), timezone()";
/// Before this revision a block's columns had no serialization flag, and the client reads plain blocks.
const CUSTOM_SERIALIZATION_REVISION: u64 = 54_454;

/// Whether a request is that hello.
pub(crate) fn is_hello(sql: &[u8], format: &str, client_revision: u64) -> bool {
    client_revision >= CUSTOM_SERIALIZATION_REVISION
        && format.eq_ignore_ascii_case("Native")
        && sql.trim_ascii() == QUERY.as_bytes()
}

/// The block: info, one row of four columns.
pub(crate) fn answer(display_name: &str, version: &str, timezone: &str) -> Vec<u8> {
    // Field 1 (overflows) = 0, field 2 (bucket) = -1, end.
    let mut block = vec![0x01, 0x00, 0x02, 0xff, 0xff, 0xff, 0xff, 0x00];
    block.extend_from_slice(&[4, 1]);
    let mut column = |name: &str, kind: &str, content: &[u8]| {
        string(&mut block, name);
        string(&mut block, kind);
        // No custom serialization.
        block.push(0);
        block.extend_from_slice(content);
    };
    column("displayName()", "String", &as_string(display_name));
    column("version()", "String", &as_string(version));
    column("revision()", "UInt32", &0_u32.to_le_bytes());
    column("timezone()", "String", &as_string(timezone));
    block
}

fn as_string(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    string(&mut bytes, value);
    bytes
}

fn string(out: &mut Vec<u8>, value: &str) {
    let mut left = value.len();
    while left >= 0x80 {
        out.push(u8::try_from(left & 0x7f).unwrap_or(0) | 0x80);
        left >>= 7;
    }
    out.push(u8::try_from(left).unwrap_or(0));
    out.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_hello_is_answered_by_hand() {
        assert!(is_hello(QUERY.as_bytes(), "Native", 54_460));
        assert!(!is_hello(QUERY.as_bytes(), "Native", 0));
        assert!(!is_hello(b"SELECT 1", "Native", 54_460));
        assert!(!is_hello(QUERY.as_bytes(), "JSON", 54_460));
    }

    #[test]
    fn the_block_is_framed_as_recorded() {
        let block = answer("n", "26.7", "UTC");
        let mut expected = vec![1, 0, 2, 255, 255, 255, 255, 0, 4, 1];
        expected.extend_from_slice(b"\x0ddisplayName()\x06String\0\x01n");
        expected.extend_from_slice(b"\x09version()\x06String\0\x0426.7");
        expected.extend_from_slice(b"\x0arevision()\x06UInt32\0\0\0\0\0");
        expected.extend_from_slice(b"\x0atimezone()\x06String\0\x03UTC");
        assert_eq!(block, expected);
    }
}
