//! What RFC 9112 has a server refuse in a request's head, beyond what hyper does: wherever two servers on the way could
//! read one request differently, one of them could be made to see a request in another one's body.
//!
//! hyper itself refuses what does not parse, lengths that are no number or differ, an encoding whose last coding is not
//! `chunked` or that comes with HTTP/1.0. Where a length stands beside `chunked`, it takes the latter, drops the length
//! and ends the connection after the answer, as RFC 9112, 6.3 has it.

use std::net::Ipv6Addr;

use hyper::{HeaderMap, Version, header};

use super::error::{ApiError, ErrorCode};

/// Checks a head, before anything else is looked at.
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    if version >= Version::HTTP_11 {
        check_host(headers)?;
        if headers.contains_key(header::EXPECT) {
            check_expectation(headers)?;
        }
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        check_encoding(headers)?;
    }
    Ok(())
}

/// Exactly one, and one that is a host. (RFC 9112, 3.2)
fn check_host(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(invalid("`Host` is not a host and a port.")),
        (Some(_), Some(_)) => Err(invalid("There is more than one `Host`.")),
        (None, _) => Err(invalid("`Host` is missing.")),
    }
}

/// One coding, `chunked`: no other is understood, and to be applied twice it makes no sense. (RFC 9112, 6.1 and 7)
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (Some(encoding), None) if encoding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(invalid("`Transfer-Encoding` is `chunked`, once, or it is not there.")),
    }
}

fn check_expectation(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut expected = headers.get_all(header::EXPECT).iter();
    if expected.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        Ok(())
    } else {
        Err(ErrorCode::ExpectationFailed.into())
    }
}

/// `uri-host [ ":" port ]` of RFC 3986; empty where the target has no host.
fn is_host(bytes: &[u8]) -> bool {
    let (host, port) = match bytes {
        [b'[', ..] => match bytes.iter().position(|byte| *byte == b']') {
            Some(end) => bytes.split_at(end + 1),
            None => return false,
        },
        _ => bytes.split_at(bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len())),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_port && if host.starts_with(b"[") { is_literal(host) } else { host.iter().copied().all(is_in_name) }
}

fn is_literal(bracketed: &[u8]) -> bool {
    let inner = bracketed.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or_default();
    std::str::from_utf8(inner).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Of a registered name, percent-encoding included.
fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte)
}

fn invalid(why: &'static str) -> ApiError {
    ApiError::new(ErrorCode::InvalidHead).because(why)
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use proptest::prelude::*;

    use super::*;

    fn checked(version: Version, headers: &[(&str, &str)]) -> Result<(), ErrorCode> {
        let mut request = Request::builder().version(version).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        check(request.version(), request.headers()).map_err(|error| error.code)
    }

    #[test]
    fn a_host_is_there_once_and_is_one() {
        for host in
            ["t", "", "go.example:8080", "203.0.113.9:", "[2001:db8::1]:80", "a_b.example", "xn--bcher-kva"]
        {
            assert_eq!(checked(Version::HTTP_11, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "a b",
            "a/b",
            "u@go.example",
            "a:b",
            "a:1:2",
            "[2001:db8::1",
            "[x]",
            "[::1]x",
            "a:123456",
            "a\\b",
            "a,b?",
        ] {
            assert_eq!(checked(Version::HTTP_11, &[("host", host)]), Err(ErrorCode::InvalidHead), "{host}");
        }
        assert_eq!(checked(Version::HTTP_11, &[]), Err(ErrorCode::InvalidHead));
        assert_eq!(checked(Version::HTTP_11, &[("host", "t"), ("host", "t")]), Err(ErrorCode::InvalidHead));
        assert_eq!(checked(Version::HTTP_10, &[]), Ok(()), "it came with HTTP/1.1");
    }

    #[test]
    fn one_coding_is_understood_once() {
        let encoded = |values: &[&str]| {
            let mut headers = vec![("host", "t")];
            headers.extend(values.iter().map(|value| ("transfer-encoding", *value)));
            checked(Version::HTTP_11, &headers)
        };
        assert_eq!(encoded(&["chunked"]), Ok(()));
        assert_eq!(encoded(&["Chunked"]), Ok(()));
        for values in [
            &["chunked", "chunked"][..],
            &["chunked, chunked"],
            &[",chunked"],
            &["chunked,"],
            &["gzip, chunked"],
            &["gzip", "chunked"],
            &["identity"],
            &["chunked;q=1"],
            &["\"chunked\""],
            &[""],
        ] {
            assert_eq!(encoded(values), Err(ErrorCode::InvalidHead), "{values:?}");
        }
    }

    #[test]
    fn only_one_expectation_can_be_met() {
        let expecting = |version, value| checked(version, &[("host", "t"), ("expect", value)]);
        assert_eq!(expecting(Version::HTTP_11, "100-Continue"), Ok(()));
        assert_eq!(expecting(Version::HTTP_11, "200-ok"), Err(ErrorCode::ExpectationFailed));
        assert_eq!(expecting(Version::HTTP_10, "200-ok"), Ok(()), "it means nothing there");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(host in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = is_host(&host);
        }
    }
}
