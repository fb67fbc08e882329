//! Query parameters of the API: only those that an address knows, each checked.

use std::str::FromStr;

use super::error::{ApiError, ErrorCode};

/// Items on a page where none is asked for.
const PER_PAGE_DEFAULT: u32 = 50;
/// Most items on a page.
const PER_PAGE_MAX: u32 = 100;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// From 1.
    pub(super) number: u32,
    /// How many items.
    pub(super) size: u32,
}

impl Page {
    /// How many items come before it.
    pub(super) fn skip(self) -> usize {
        (self.number as usize - 1).saturating_mul(self.size as usize)
    }
}

/// The parameters of one request. Of a repeated one the last counts.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query; a parameter that is not among `known` is refused by name, so that a misspelt filter can't
    /// pass for one that was applied.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let pairs: Vec<(String, String)> =
            form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
        match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                let message =
                    format!("There is no parameter `{name}` here; there are: {}.", known.join(", "));
                Err(ApiError::new(ErrorCode::UnknownParameter).because(message).at(name.clone()))
            }
            None => Ok(Self(pairs)),
        }
    }

    /// The parameter's text; blank is absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.trim())?;
        (!value.is_empty()).then_some(value)
    }

    /// The parameter as a number inside a range.
    pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(invalid(
                name,
                format!("`{name}` is a whole number from {} to {}.", range.start(), range.end()),
            )),
        }
    }

    /// The parameter as one of a few words.
    pub(super) fn one_of<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let meant = words.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
        meant.map(Some).ok_or_else(|| invalid(name, format!("`{name}` is one of: {}.", known())))
    }

    /// `page` and `per_page`.
    pub(super) fn page(&self) -> Result<Page, ApiError> {
        Ok(Page {
            number: self.number("page", 1..=1_000_000)?.unwrap_or(1),
            size: self.number("per_page", 1..=PER_PAGE_MAX)?.unwrap_or(PER_PAGE_DEFAULT),
        })
    }
}

/// A parameter with a value that it can't have.
pub(super) fn invalid(name: &'static str, message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidParameter).because(message).at(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_defaults_and_bounds() {
        let page = |query| Parameters::read(Some(query), &["page", "per_page"]).and_then(|p| p.page());
        assert_eq!(page(""), Ok(Page { number: 1, size: 50 }));
        assert_eq!(page("page=3&per_page=100"), Ok(Page { number: 3, size: 100 }));
        assert_eq!(page("page=3&page=4").map(|page| page.number), Ok(4), "the last counts");
        for wrong in ["page=0", "per_page=101", "page=-1", "page=x", "per_page=1.5"] {
            assert_eq!(page(wrong).map_err(|error| error.code), Err(ErrorCode::InvalidParameter), "{wrong}");
        }
        let unknown = page("pages=1").expect_err("misspelt");
        assert_eq!((unknown.code, unknown.field.as_ref()), (ErrorCode::UnknownParameter, "pages"));
    }
}
