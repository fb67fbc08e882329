//! Entries for the fuzz targets: what the engine's HTTP face reads of strangers.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use std::io::Read as _;

use super::{blocks, encoding::Encoding, formats, multipart, request, settings, statement};

/// Bytes as compressed blocks, raw and with a good checksum, and as every content encoding.
pub fn compressed_blocks(data: &[u8]) {
    let mut framed = data.to_vec();
    blocks::seal(&mut framed);
    for bytes in [data, &framed] {
        if let Ok((content, length)) = blocks::decode(bytes) {
            assert!(length <= bytes.len());
            let (again, _) = blocks::decode(&blocks::encode(&content)).expect("own block");
            assert_eq!(again, content);
        }
    }
    for encoding in [
        Encoding::Identity,
        Encoding::Lz4,
        Encoding::Zstd,
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Blocks,
    ] {
        if let Ok(reader) = encoding.reader(std::io::Cursor::new(data.to_vec())) {
            // Callers bound what they take, too.
            let _ = std::io::copy(&mut reader.take(1 << 20), &mut std::io::sink());
        }
    }
    let text = std::str::from_utf8(data).ok();
    let _ = (Encoding::of_content(text), Encoding::accepted(text));
    for format in ["CSVWithNames", "TSVWithNamesAndTypes", "RowBinaryWithNames", "RowBinaryWithNamesAndTypes"]
    {
        let length = formats::joinable(format).and_then(|header| formats::header_bytes(header, data));
        assert!(length.is_none_or(|length| length <= data.len()), "a header lies in its piece");
    }
}

/// Bytes as a content type and a form. What is read was there.
pub fn multipart_form(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (head, body) = data.split_at(line);
    let boundary = match std::str::from_utf8(head).ok().and_then(multipart::boundary) {
        Some(Ok(boundary)) => boundary,
        _ => "b".to_owned(),
    };
    if let Ok(fields) = multipart::fields(body, &boundary) {
        let bytes: usize = fields.iter().map(|(name, content)| name.len() + content.len()).sum();
        assert!(bytes <= body.len());
    }
}

/// Bytes as a request's head (a URI, then headers) and its statement.
pub fn engine_request(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let uri = lines.next().unwrap_or_default();
    let mut builder = hyper::Request::builder().uri(uri);
    let mut rest: &[u8] = &[];
    for line in lines.by_ref() {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            rest = line;
            break;
        };
        builder = builder.header(&line[..colon], &line[colon + 1..]);
    }
    if let Ok(message) = builder.body(()) {
        let (head, ()) = message.into_parts();
        let _ = request::claim(&head.headers, head.uri.query().unwrap_or_default());
        if let Ok(mut request) = request::Request::parse(&head) {
            let _ = request.take_form(rest, "b");
            let _ = settings::reset_statement(&request.settings);
        }
    }
    let _ = statement::split(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let quoted = settings::quote(text);
        assert!(quoted.starts_with('\'') && quoted.ends_with('\''));
    }
}
