//! Entry for the fuzz target: bytes as a hit.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use super::payload::Payload;
use crate::core::UnixMillis;

/// Bytes as a content type, a query and a body, in lines. What is read means the same as a form.
pub fn hit(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(lines.next().unwrap_or_default()).ok();
    let (content_type, query) = (text(), text());
    let payload = Payload { query, content_type, body: lines.next().unwrap_or_default() };
    assert!(super::summary::of(&payload).len() <= 1024);
    let Ok(hit) = payload.decode() else { return };
    let fields = hit.read();
    let _ = hit.reported(UnixMillis(1_768_996_800_000), 400);
    let pairs = [
        ("value", &hit.value),
        ("currency", &hit.currency),
        ("order_id", &hit.order_id),
        ("click_id", &hit.click_id),
    ];
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        // A text between percent signs is a macro in a form, whatever it holds.
        let Some(value) = value.as_deref().filter(|value| !value.starts_with('%')) else { continue };
        form.append_pair(name, value);
    }
    if pairs.iter().any(|(_, value)| value.as_deref().is_some_and(|value| value.starts_with('%'))) {
        return;
    }
    let form = form.finish();
    let again = Payload { query: Some(&form), content_type: None, body: b"" };
    let again = again.decode().expect("own form").read();
    assert_eq!(again.as_ref().ok(), fields.as_ref().ok());
}
