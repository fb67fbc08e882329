//! Answers read by hand: as much of HTTP/1.1 as a server of small JSON bodies needs, and nothing allocated.

use crate::text::ShortText;

/// A complete answer at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `conversion_id` in the body, if there is one.
    pub conversion_id: Option<ShortText>,
    /// `duplicate` in the body: absent, or `null`, is `None`.
    pub duplicate: Option<bool>,
    /// The server closes the connection after this one.
    pub closes: bool,
    /// There was a `Retry-After` header.
    pub retry_after: bool,
    /// Bytes that the answer takes up.
    pub bytes: usize,
}

/// Why a buffer is no answer that this client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// It does not begin like HTTP/1.
    #[error("the answer does not begin with an HTTP/1 status line")]
    StatusLine,
    /// A length that is not a number.
    #[error("the answer's content-length is not a number")]
    ContentLength,
    /// Neither a content-length nor a status without a body.
    #[error("the answer has no content-length")]
    Framing,
    /// The header goes on and on.
    #[error("the answer's header is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
}

/// Longest header that is accepted.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Reads one answer from the start of `input`; `None` while it is incomplete.
pub fn parse(input: &[u8]) -> Result<Option<Answer>, ResponseError> {
    let start = b"HTTP/1.";
    let common = input.len().min(start.len());
    if input[..common] != start[..common] {
        return Err(ResponseError::StatusLine);
    }
    let Some(head_bytes) = find(input, b"\r\n\r\n").map(|at| at + 4) else {
        return if input.len() > HEAD_BYTES_MAX { Err(ResponseError::HeadTooLong) } else { Ok(None) };
    };
    let head = Head::parse(&input[..head_bytes])?;
    let body_bytes = match head.content_length {
        _ if head.status == 204 || head.status == 304 => 0,
        Some(length) => length,
        None => return Err(ResponseError::Framing),
    };
    let bytes = head_bytes.checked_add(body_bytes).ok_or(ResponseError::ContentLength)?;
    let Some(body) = input.get(head_bytes..bytes) else {
        return Ok(None);
    };
    let accepted = (200..300).contains(&head.status);
    Ok(Some(Answer {
        status: head.status,
        conversion_id: if accepted { conversion_id(body) } else { None },
        duplicate: if accepted { duplicate(body) } else { None },
        closes: head.closes,
        retry_after: head.retry_after,
        bytes,
    }))
}

struct Head {
    status: u16,
    content_length: Option<usize>,
    closes: bool,
    retry_after: bool,
}

impl Head {
    /// `head` ends with the empty line.
    fn parse(head: &[u8]) -> Result<Self, ResponseError> {
        let digits = head.get(9..12).ok_or(ResponseError::StatusLine)?;
        let status =
            number(digits).and_then(|status| u16::try_from(status).ok()).ok_or(ResponseError::StatusLine)?;
        let mut parsed = Self { status, content_length: None, closes: false, retry_after: false };
        let mut rest = head;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            rest = &rest[at + 1..];
            // The first letter rules out nearly every line at the price of one comparison.
            match rest.first().map(u8::to_ascii_lowercase) {
                Some(b'c') => {
                    if let Some(value) = field(rest, b"content-length:") {
                        parsed.content_length = Some(number(value).ok_or(ResponseError::ContentLength)?);
                    } else if let Some(value) = field(rest, b"connection:") {
                        parsed.closes = value.eq_ignore_ascii_case(b"close");
                    }
                }
                Some(b'r') => parsed.retry_after |= field(rest, b"retry-after:").is_some(),
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// The trimmed value of the header line at the start of `lines`, if its name is `name`.
fn field<'a>(lines: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = lines.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    Some(rest[..end].trim_ascii())
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

fn conversion_id(body: &[u8]) -> Option<ShortText> {
    let value = after(body, b"\"conversion_id\":")?.strip_prefix(b"\"")?;
    let end = value.iter().position(|byte| *byte == b'"')?;
    ShortText::from_bytes(&value[..end])
}

fn duplicate(body: &[u8]) -> Option<bool> {
    let value = after(body, b"\"duplicate\":")?;
    if value.starts_with(b"true") {
        Some(true)
    } else if value.starts_with(b"false") {
        Some(false)
    } else {
        None
    }
}

/// What follows `key`, without leading blanks.
fn after<'a>(body: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    find(body, key).map(|at| body[at + key.len()..].trim_ascii_start())
}

/// Where `needle` begins in `haystack`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, last) = (needle.first()?, haystack.len().checked_sub(needle.len())?);
    let mut from = 0;
    while from <= last {
        from += haystack[from..=last].iter().position(|byte| byte == first)?;
        if haystack[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\ncontent-length: 94\r\n\
        date: Mon, 01 Jan 2026 00:00:00 GMT\r\n\r\n\
        {\"success\":true,\"data\":{\"conversion_id\":\"0193a5b2-7c1e-7d30-8f00-0123456789ab\",\"duplicate\":false}}";

    fn created() -> Vec<u8> {
        let (head, body) = CREATED.split_once("\r\n\r\n").unwrap();
        format!("{}\r\n\r\n{body}", head.replace(": 94", &format!(": {}", body.len()))).into_bytes()
    }

    #[test]
    fn reads_a_created_conversion() {
        let bytes = created();
        let answer = parse(&bytes).unwrap().unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.conversion_id.unwrap().as_str(), "0193a5b2-7c1e-7d30-8f00-0123456789ab");
        assert_eq!(answer.duplicate, Some(false));
        assert_eq!(answer.bytes, bytes.len());
        assert!(!answer.closes && !answer.retry_after);
    }

    #[test]
    fn reads_an_empty_answer_and_what_follows_stays() {
        let bytes = b"HTTP/1.1 204 No Content\r\ndate: x\r\n\r\nHTTP/1.1 201";
        let answer = parse(bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.bytes), (204, 36));
        assert_eq!(parse(&bytes[answer.bytes..]), Ok(None));
    }

    #[test]
    fn sees_overload_and_close() {
        let bytes = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
        let answer = parse(bytes).unwrap().unwrap();
        assert!(answer.closes && answer.retry_after);
        assert_eq!(answer.conversion_id, None);
    }

    #[test]
    fn an_undecided_duplicate_is_neither() {
        let body = r#"{"data":{"conversion_id": "x", "duplicate": null}}"#;
        let bytes = format!("HTTP/1.1 202 Accepted\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = parse(bytes.as_bytes()).unwrap().unwrap();
        assert_eq!(answer.conversion_id.unwrap().as_str(), "x");
        assert_eq!(answer.duplicate, None);
    }

    #[test]
    fn refuses_what_it_cannot_frame() {
        assert_eq!(parse(b"SMTP ready\r\n\r\n"), Err(ResponseError::StatusLine));
        assert_eq!(parse(b"HTTP/1.1 2x0 OK\r\n\r\n"), Err(ResponseError::StatusLine));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n"), Err(ResponseError::Framing));
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
            Err(ResponseError::ContentLength)
        );
        let endless = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'y'; HEAD_BYTES_MAX]].concat();
        assert_eq!(parse(&endless), Err(ResponseError::HeadTooLong));
    }

    proptest! {
        /// However the stream of answers is cut into reads, the same answers come out.
        #[test]
        fn splits_do_not_matter(cuts in prop::collection::vec(1_usize..80, 1..60), count in 1_usize..6) {
            let mut stream = Vec::new();
            for index in 0..count {
                if index % 2 == 0 {
                    stream.extend(created());
                } else {
                    stream.extend(b"HTTP/1.1 204 No Content\r\n\r\n");
                }
            }
            let (mut buffer, mut statuses, mut at) = (Vec::new(), Vec::new(), 0);
            let mut cuts = cuts.iter().cycle();
            while at < stream.len() {
                let end = (at + cuts.next().unwrap()).min(stream.len());
                buffer.extend_from_slice(&stream[at..end]);
                at = end;
                while let Some(answer) = parse(&buffer).unwrap() {
                    statuses.push(answer.status);
                    buffer.drain(..answer.bytes);
                }
            }
            prop_assert!(buffer.is_empty());
            let wanted: Vec<u16> = (0..count).map(|index| if index % 2 == 0 { 201 } else { 204 }).collect();
            prop_assert_eq!(statuses, wanted);
        }

        /// Any bytes at all: an answer, an error or a wish for more, but no panic and no answer longer than the input.
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), http in any::<bool>()) {
            let bytes = if http { [b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes].concat() } else { bytes };
            if let Ok(Some(answer)) = parse(&bytes) {
                prop_assert!(answer.bytes <= bytes.len());
            }
        }
    }
}
