//! Currencies, ISO 4217.

/// An ISO 4217 alphabetic code, upper case. Amounts of different currencies are never added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// The text is not a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ISO 4217 currency code")]
pub struct CurrencyError;

impl Currency {
    /// US dollars: what a conversion counts in when neither it nor its goal says otherwise.
    pub const USD: Self = Self(*b"USD");

    /// Reads a code in any case, white space around it ignored.
    pub fn parse(text: &str) -> Result<Self, CurrencyError> {
        let bytes: [u8; 3] = text.trim().as_bytes().try_into().map_err(|_| CurrencyError)?;
        let code = Self(bytes.map(|byte| byte.to_ascii_uppercase()));
        // The common case costs no table look-up.
        if code == Self::USD || iso_currency::Currency::from_code(code.as_str()).is_some() {
            Ok(code)
        } else {
            Err(CurrencyError)
        }
    }

    /// Takes back a code that was checked when it was accepted. Lists change; what is stored stays readable.
    pub fn from_stored(code: &str) -> Result<Self, CurrencyError> {
        let bytes: [u8; 3] = code.as_bytes().try_into().map_err(|_| CurrencyError)?;
        if bytes.iter().all(u8::is_ascii_uppercase) { Ok(Self(bytes)) } else { Err(CurrencyError) }
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

impl std::fmt::Debug for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_checked_and_upper_cased() {
        assert_eq!(Currency::parse(" eur ").map(|c| c.to_string()), Ok("EUR".into()));
        assert_eq!(Currency::parse("usd"), Ok(Currency::USD));
        for wrong in ["", "US", "USDT", "ÄÖ", "ABC", "US$", "\u{0}\u{0}\u{0}"] {
            assert_eq!(Currency::parse(wrong), Err(CurrencyError), "{wrong:?}");
        }
    }
}
