//! Macros that a sender was to replace and did not: `{clickid}`, `%CLICKID%`, `{{click_id}}`, `[CLICK_ID]`,
//! `${CLICK_ID}`. As an order id such a text would make one order of all sales; as a click id it hides a mistake.

use uuid::Uuid;

/// How macros begin and end, in ad networks and shops.
const SHAPES: [(&str, &str); 8] =
    [("{{", "}}"), ("${", "}"), ("#{", "}"), ("{", "}"), ("[", "]"), ("%%", "%%"), ("%", "%"), ("<", ">")];

/// Whether the whole text is one macro. A name in it starts with a letter, and a GUID in braces is not a name.
pub(in crate::http) fn is_unexpanded(text: &str) -> bool {
    // Almost every value starts with a letter or a digit.
    if !matches!(text.as_bytes().first(), Some(b'{' | b'$' | b'#' | b'[' | b'%' | b'<')) {
        return false;
    }
    SHAPES.iter().any(|(open, close)| {
        text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).is_some_and(is_name)
    })
}

fn is_name(text: &str) -> bool {
    let text = text.trim();
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.: ".contains(&b))
        && Uuid::try_parse(text).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_are_told_from_ids() {
        for text in [
            "{clickid}",
            "%CLICKID%",
            "{{click_id}}",
            "{{ order.id }}",
            "[CLICK_ID]",
            "${CLICK_ID}",
            "#{id}",
            "{sub1}",
            "%%ORDER%%",
            "<order-id>",
            "{_x}",
        ] {
            assert!(is_unexpanded(text), "{text}");
        }
        for text in [
            "",
            "A-1",
            "{",
            "{}",
            "%",
            "%%",
            "100%",
            "{1234}",
            "[42]",
            "order {id}",
            "{a}{b}!",
            "{AF2504E0-4F89-41D3-9A0C-0305E82C3301}",
            "$5",
            "#1001",
            "{é}",
        ] {
            assert!(!is_unexpanded(text), "{text}");
        }
    }
}
