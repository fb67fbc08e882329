//! Text that stands in a field's place without being its value: a macro that the sender did not replace, and what
//! scripts write for 'nothing'.
//!
//! As an order id such a text would make one order of all sales; as a click id it hides a mistake. Macros are recognised
//! by one rule for every notation, since each network, shop and tag manager has its own: a name that is wrapped on both
//! sides in punctuation, a name behind a dollar sign, or the bare name of a field in the field.

use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// What scripts and templates write where they have nothing, in lower case.
const NOTHING: [&str; 13] = [
    "undefined",
    "null",
    "nan",
    "none",
    "nil",
    "n/a",
    "(not set)",
    "(none)",
    "(null)",
    "(undefined)",
    "<nil>",
    "<null>",
    "[object object]",
];
/// Marks that open a macro, outermost. Not among them what ids in base64 begin or end with (`+`, `/`, `=`), quotation
/// marks, and what ids are joined with (`-`, `_`, `.`).
const OPENING: &str = "{[(<$#%*|~!@^&:;\\";
/// Marks that close one.
const CLOSING: &str = "}])>$#%*|~!@^&:;\\";
/// Joints of ids, which wrap a macro only where they stand twice: `__CLICKID__`.
const DOUBLED: [&str; 3] = ["__", "--", ".."];
/// Names that templates leave standing, in lower case and without what joins their words.
const BARE_NAMES: [&str; 22] = [
    "orderid",
    "ordernumber",
    "transactionid",
    "transid",
    "txnid",
    "txid",
    "clickid",
    "conversionid",
    "saleid",
    "invoiceid",
    "invoicenumber",
    "referenceid",
    "externalid",
    "uniqueid",
    "eventid",
    "cartid",
    "checkoutid",
    "replaceme",
    "changeme",
    "insertid",
    "uservalue",
    "placeholder",
];
/// Directives of printf, which nothing was printed into.
const DIRECTIVES: [&str; 4] = ["%s", "%d", "%i", "%u"];

/// Whether the text, which is trimmed, is a macro that was not replaced: `{clickid}`, `%CLICKID%`, `{{order.id}}`,
/// `[CLICK_ID]`, `${CLICK_ID}`, `#s1#`, `__CLICKID__`, `*|ORDER|*`, `$CLICK_ID`, `TRANSACTION_ID`.
pub(super) fn is_unexpanded(text: &str) -> bool {
    let Some(&first) = text.as_bytes().first() else { return false };
    if first.is_ascii_alphabetic() {
        return is_bare_name(text);
    }
    // Almost every other value starts with a digit, and no macro does.
    if first.is_ascii_digit() {
        return false;
    }
    DIRECTIVES.contains(&text) || is_variable(text) || is_wrapped(text) || is_encoded(text)
}

/// Whether the text, which is trimmed, is what a script writes for a value that it does not have.
pub(super) fn is_nothing(text: &str) -> bool {
    text.len() <= 16 && NOTHING.iter().any(|nothing| text.eq_ignore_ascii_case(nothing))
}

/// A name between punctuation.
fn is_wrapped(text: &str) -> bool {
    let starts = |marks: &str| text.starts_with(|c| marks.contains(c));
    let ends = |marks: &str| text.ends_with(|c| marks.contains(c));
    let doubled = DOUBLED.iter().any(|mark| text.starts_with(mark) && text.ends_with(mark));
    if !(doubled || starts(OPENING) && ends(CLOSING)) {
        return false;
    }
    is_name(text.trim_matches(|c: char| c.is_ascii_punctuation() || c == ' '))
}

/// A name in a macro starts with a letter; it may be a path, have blanks, a filter or an index in it. A GUID in braces is
/// not a name.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:| ()[]'>$/,".contains(&b))
        && Uuid::try_parse(text).is_err()
}

/// `$CLICK_ID`, `$order->id`, `$_GET['id']`: a variable of a template's or a script's language.
fn is_variable(text: &str) -> bool {
    text.strip_prefix('$').is_some_and(|name| is_name(name.trim_start_matches('_')))
}

/// `%7Bclickid%7D`: encoded twice.
fn is_encoded(text: &str) -> bool {
    text.starts_with('%')
        && percent_decode_str(text)
            .decode_utf8()
            .is_ok_and(|decoded| decoded != text && is_wrapped(decoded.trim()))
}

/// `ORDER_ID`, `YOUR_TRANSACTION_ID`, `REPLACE_ME`.
fn is_bare_name(text: &str) -> bool {
    // The longest name with what goes before and behind it.
    if text.len() > 40 || !text.bytes().all(|b| b.is_ascii_alphabetic() || b"_-. ".contains(&b)) {
        return false;
    }
    let mut name: String = text.chars().filter(char::is_ascii_alphabetic).collect();
    name.make_ascii_lowercase();
    let whole = name.as_str();
    let inner = ["insert", "replace", "enter", "put"]
        .iter()
        .find_map(|verb| whole.strip_prefix(verb))
        .unwrap_or(whole);
    let inner =
        ["your", "the", "my", "with"].iter().find_map(|word| inner.strip_prefix(word)).unwrap_or(inner);
    let inner = inner.strip_suffix("here").unwrap_or(inner);
    BARE_NAMES.contains(&whole) || BARE_NAMES.contains(&inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn macros_of_any_notation_are_recognised() {
        for text in [
            "{clickid}",
            "{{click_id}}",
            "{{{x}}}",
            "{{ order.id }}",
            "{{ order.id | default: '' }}",
            "{sub1}",
            "{_x}",
            "{!Order.Id}",
            "{%order_id%}",
            "{order[id]}",
            "[CLICK_ID]",
            "[[order]]",
            "(clickid)",
            "<order-id>",
            "<%= order.id %>",
            "<?= $order_id ?>",
            "%CLICKID%",
            "%%ORDER%%",
            "%{order_id}",
            "${CLICK_ID}",
            "$$ORDER$$",
            "#s1#",
            "##ORDER_ID##",
            "#{id}",
            "*|ORDER|*",
            "|ORDER|",
            "@@order@@",
            "@{order}",
            "~order~",
            "!orderid!",
            "^order^",
            ":order_id:",
            "__CLICKID__",
            "--ORDER--",
            "$CLICK_ID",
            "$order->id",
            "$_GET['id']",
            "%7Bclickid%7D",
            "%7B%7Border.id%7D%7D",
            "%s",
            "ORDER_ID",
            "order_id",
            "TRANSACTION_ID",
            "YOUR_ORDER_ID",
            "INSERT_ORDER_ID_HERE",
            "REPLACE_ME",
            "Click ID",
        ] {
            assert!(is_unexpanded(text), "{text}");
        }
    }

    #[test]
    fn ids_are_not_taken_for_macros() {
        for text in [
            "",
            "A-1",
            "ORDER-12345",
            "ORDER",
            "order_id_7",
            "transaction-2026",
            "{",
            "{}",
            "%",
            "%%",
            "100%",
            "{1234}",
            "[42]",
            "(1001)",
            "order {id}",
            "{AF2504E0-4F89-41D3-9A0C-0305E82C3301}",
            "AF2504E0-4F89-41D3-9A0C-0305E82C3301",
            "$5",
            "#1001",
            "#1001#",
            "#A1001",
            "_V1StGXR8_",
            "-abc-",
            "/aGVsbG8=",
            "+aGVsbG8/",
            "\"A-1\"",
            "'A-1'",
            "{é}",
            "%C3%A9",
            "gid://shopify/Order/1",
        ] {
            assert!(!is_unexpanded(text), "{text}");
        }
    }

    #[test]
    fn nothing_is_what_scripts_write_for_it() {
        for text in ["undefined", "null", "NULL", "NaN", "None", "nil", "(not set)", "[object Object]", "N/A"]
        {
            assert!(is_nothing(text), "{text}");
        }
        for text in ["", "0", "nullable", "NONE-1", "NA", "A-1", "undefined1"] {
            assert!(!is_nothing(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name_between_any_marks_is_a_macro(
            open in "[{\\[(<#%*|~!@]{1,3}", name in "[a-zA-Z][a-zA-Z0-9_]{0,20}", close in "[}\\])>#%*|~!@]{1,3}",
        ) {
            let text = format!("{open}{name}{close}");
            prop_assert!(is_unexpanded(&text), "{}", text);
        }

        #[test]
        fn ids_made_of_letters_and_digits_are_ids(text in "[A-Za-z]{0,6}[0-9]{1,12}[-_A-Za-z0-9]{0,8}") {
            prop_assert!(!is_unexpanded(&text), "{}", text);
        }

        #[test]
        fn any_text_is_decided(text in ".{0,60}") {
            let _ = (is_unexpanded(text.trim()), is_nothing(&text));
        }
    }
}
