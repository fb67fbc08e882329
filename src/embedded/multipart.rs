//! `multipart/form-data`, as far as ClickHouse's HTTP interface needs it: named text fields.

/// Not a form that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    /// The content type names no boundary.
    #[error("the multipart form has no boundary")]
    Boundary,
    /// The parts are not framed by the boundary.
    #[error("the multipart form is malformed")]
    Framing,
    /// More fields than a query has.
    #[error("the multipart form has more than {FIELDS_MAX} fields")]
    TooMany,
}

const FIELDS_MAX: usize = 1_000;

/// The boundary of a `multipart/form-data` content type; `None` if it is another type.
pub(crate) fn boundary(content_type: &str) -> Option<Result<String, FormError>> {
    let (kind, rest) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let named = rest.split(';').find_map(|field| {
        let (name, value) = field.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"').to_owned())
    });
    Some(named.filter(|it| !it.is_empty()).ok_or(FormError::Boundary))
}

/// The fields in order: name and content.
pub(crate) fn fields(body: &[u8], boundary: &str) -> Result<Vec<(String, Vec<u8>)>, FormError> {
    let delimiter = format!("--{boundary}");
    let delimiter = delimiter.as_bytes();
    // What precedes the first delimiter is a preamble and means nothing.
    let mut at = position(body, delimiter).ok_or(FormError::Framing)? + delimiter.len();
    let mut found = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(found);
        }
        let part = rest.strip_prefix(b"\r\n").ok_or(FormError::Framing)?;
        // The line end before a delimiter belongs to the delimiter.
        let closing = [b"\r\n", delimiter].concat();
        let end = position(part, &closing).ok_or(FormError::Framing)?;
        let (headers, content) = split_headers(&part[..end]).ok_or(FormError::Framing)?;
        if found.len() == FIELDS_MAX {
            return Err(FormError::TooMany);
        }
        found.push((field_name(headers).ok_or(FormError::Framing)?, content.to_vec()));
        at += 2 + end + closing.len();
    }
}

fn split_headers(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = position(part, b"\r\n\r\n")?;
    Some((&part[..end], &part[end + 4..]))
}

fn field_name(headers: &[u8]) -> Option<String> {
    let headers = std::str::from_utf8(headers).ok()?;
    headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if !name.trim().eq_ignore_ascii_case("content-disposition") {
            return None;
        }
        value.split(';').find_map(|field| {
            let (key, value) = field.trim().split_once('=')?;
            key.eq_ignore_ascii_case("name").then(|| value.trim_matches('"').to_owned())
        })
    })
}

fn position(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(fields: &[(String, Vec<u8>)], boundary: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, content) in fields {
            body.extend_from_slice(
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        body
    }

    #[test]
    fn the_boundary_is_found() {
        assert_eq!(boundary("multipart/form-data; boundary=\"ab\""), Some(Ok("ab".into())));
        assert_eq!(boundary("multipart/form-data"), Some(Err(FormError::Boundary)));
        assert_eq!(boundary("text/plain; boundary=ab"), None);
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read(
            fields in prop::collection::vec(("[a-z_]{1,10}", prop::collection::vec(any::<u8>(), 0..50)), 0..5),
        ) {
            let boundary = "----a-boundary-that-random-content-does-not-have";
            prop_assert_eq!(super::fields(&form(&fields, boundary), boundary), Ok(fields));
        }

        #[test]
        fn any_bytes_and_boundary_are_survived(
            body in prop::collection::vec(any::<u8>(), 0..200),
            head in prop::collection::vec(any::<u8>(), 0..20),
            content_type in "\\PC{0,40}",
        ) {
            let _ = super::fields(&body, "b");
            let framed = [b"--b\r\n", &head[..], b"\r\n\r\n", &body, b"\r\n--b--"].concat();
            let _ = super::fields(&framed, "b");
            let _ = boundary(&content_type);
            let _ = boundary(&format!("multipart/form-data;{content_type}"));
        }

        #[test]
        fn any_bytes_are_survived(body in "(--b|\r\n|:|;|name=|[a-z]| |--){0,40}") {
            let _ = super::fields(body.as_bytes(), "b");
        }
    }
}
