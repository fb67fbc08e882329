//! What a caller is told beside the outcome: fields that were not understood, and values that were read otherwise than
//! they were written.

use hyper::header::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use super::raw_hit::Field;
use crate::http::error::ErrorCode;

/// What a header's list can't hold as it is.
const ENCODED: AsciiSet = CONTROLS.add(b',').add(b'%').add(b' ').add(b'"');

/// A value that was read otherwise than it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Warning {
    /// The field holds what scripts write for 'nothing', and is taken for absent.
    Placeholder(Field),
    /// The click id is no whole number below 2^53: the conversion counts, and no click earns it.
    UnusableClickId,
}

/// What is told beside the outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Names that came and mean nothing here.
    pub(super) ignored: Vec<String>,
    pub(super) warnings: Vec<Warning>,
}

/// As it stands in answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct NotesJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignored: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<WarningJson>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct WarningJson {
    code: &'static str,
    message: String,
    field: &'static str,
}

impl Notes {
    pub(super) fn is_empty(&self) -> bool {
        self.ignored.is_empty() && self.warnings.is_empty()
    }

    /// The ignored names as a header's list.
    pub(super) fn ignored_header(&self) -> Option<HeaderValue> {
        let names: Vec<_> =
            self.ignored.iter().map(|name| utf8_percent_encode(name, &ENCODED).to_string()).collect();
        if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
    }
}

impl From<&Notes> for NotesJson {
    fn from(notes: &Notes) -> Self {
        Self {
            ignored: notes.ignored.clone(),
            warnings: notes.warnings.iter().map(|warning| WarningJson::from(*warning)).collect(),
        }
    }
}

impl From<Warning> for WarningJson {
    fn from(warning: Warning) -> Self {
        match warning {
            Warning::Placeholder(field) => Self {
                code: "placeholder",
                message: format!(
                    "`{}` holds what a script writes for nothing; it is taken for absent.",
                    field.name()
                ),
                field: field.name(),
            },
            Warning::UnusableClickId => Self {
                code: ErrorCode::InvalidClickId.as_str(),
                message:
                    "`click_id` is not a whole number below 2^53; the conversion counts without a click."
                        .into(),
                field: Field::ClickId.name(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_header_can_hold_are_encoded() {
        let ignored = ["payout", "a,b", "größe", "x y"].map(String::from).to_vec();
        let notes = Notes { ignored, ..Notes::default() };
        assert_eq!(notes.ignored_header().expect("a header"), "payout, a%2Cb, gr%C3%B6%C3%9Fe, x%20y");
        assert_eq!(Notes::default().ignored_header(), None);
    }
}
