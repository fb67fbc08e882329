//! The one table from errors to what a client sees.
//!
#![doc = include_str!("errors.md")]

use std::{borrow::Cow, time::Duration};

use hyper::StatusCode;

/// Builds the enum and its table from one list, so that no code lacks a status or a message.
macro_rules! error_codes {
    ($($variant:ident $status:ident $code:literal $message:literal;)*) => {
        /// Everything that can be wrong, as clients see it: a closed set, stable for ever.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $message] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// What is said where nothing more precise is known.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

error_codes! {
    InvalidJson BAD_REQUEST "invalid_json" "The body is not valid JSON.";
    InvalidBody BAD_REQUEST "invalid_body" "The body could not be read.";
    InvalidHead BAD_REQUEST "invalid_head" "The head of the request breaks the rules of HTTP, so that others might read it differently.";
    InvalidParameter BAD_REQUEST "invalid_parameter" "A query parameter has a value that it can't have.";
    UnknownParameter BAD_REQUEST "unknown_parameter" "There is no such query parameter here.";
    InvalidIdempotencyKey BAD_REQUEST "invalid_idempotency_key" "Idempotency-Key has 1 to 255 printable ASCII characters.";
    Unauthorized UNAUTHORIZED "unauthorized" "A valid API key is needed: `Authorization: Bearer tally_…`.";
    PlanRequired FORBIDDEN "plan_required" "The account's plan does not include this.";
    FirstKeyRequired FORBIDDEN "first_key_required" "Accounts are managed with the first key, the one in the data folder's `api-key`.";
    NotFound NOT_FOUND "not_found" "There is nothing at this address.";
    UnknownToken NOT_FOUND "unknown_token" "No goal has this postback token.";
    GoalNotFound NOT_FOUND "goal_not_found" "There is no such goal.";
    LinkNotFound NOT_FOUND "link_not_found" "There is no such link.";
    AccountNotFound NOT_FOUND "account_not_found" "There is no such account.";
    KeyNotFound NOT_FOUND "key_not_found" "The account has no such API key.";
    ConversionNotFound NOT_FOUND "conversion_not_found" "There is no such conversion, or it has not reached the database yet.";
    DeliveryNotFound NOT_FOUND "delivery_not_found" "There is no such delivery, or it has not reached the database yet.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "This address does not take this method; see Allow.";
    RequestTimeout REQUEST_TIMEOUT "request_timeout" "The body did not arrive in time.";
    TooManyGoals CONFLICT "too_many_goals" "The account has 10,000 goals, the most it may have; delete one that is not needed.";
    TooManyLinks CONFLICT "too_many_links" "The account has 100,000 links, the most it may have; delete one that is not needed.";
    TooManyAccounts CONFLICT "too_many_accounts" "There are 10,000 accounts, the most there may be.";
    TooManyKeys CONFLICT "too_many_keys" "The account has 1,000 API keys, the most it may have; revoke one that is not needed.";
    SlugTaken CONFLICT "slug_taken" "A link has, or had, this slug.";
    NameTaken CONFLICT "name_taken" "Another account has this name.";
    NoEndpoint CONFLICT "no_endpoint" "The goal has no `postback_url`, or its endpoint answered 410 and was disabled.";
    TooManyAdjustments CONFLICT "too_many_adjustments" "The conversion has as many adjustments as it may have.";
    BodyTooLarge PAYLOAD_TOO_LARGE "body_too_large" "The body is too large.";
    TooManyLines PAYLOAD_TOO_LARGE "too_many_lines" "A bulk request has at most 10,000 lines.";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "The body has a type that is not read here; send JSON.";
    ExpectationFailed EXPECTATION_FAILED "expectation_failed" "The only expectation that can be met is 100-continue.";
    MissingField UNPROCESSABLE_ENTITY "missing_field" "A field is missing.";
    UnknownField UNPROCESSABLE_ENTITY "unknown_field" "There is no such field.";
    InvalidField UNPROCESSABLE_ENTITY "invalid_field" "A field has a value that it can't have.";
    InvalidValue UNPROCESSABLE_ENTITY "invalid_value" "The value is not an amount that can be kept exactly.";
    InvalidCurrency UNPROCESSABLE_ENTITY "invalid_currency" "The currency is not an ISO 4217 code.";
    InvalidOrderId UNPROCESSABLE_ENTITY "invalid_order_id" "The order id can't be one.";
    InvalidClickId UNPROCESSABLE_ENTITY "invalid_click_id" "The click id is not a whole number below 2^53.";
    UnknownLink UNPROCESSABLE_ENTITY "unknown_link" "The account has no such link.";
    InvalidTime UNPROCESSABLE_ENTITY "invalid_time" "The time is not RFC 3339, or lies too far back or ahead.";
    NoKnownField UNPROCESSABLE_ENTITY "no_known_field" "None of the fields that came tells of a sale.";
    UnexpandedMacro UNPROCESSABLE_ENTITY "unexpanded_macro" "The field holds a macro that the sender did not replace.";
    IdempotencyKeyReused UNPROCESSABLE_ENTITY "idempotency_key_reused" "This Idempotency-Key came with another call; nothing was kept.";
    ReportTooExpensive UNPROCESSABLE_ENTITY "report_too_expensive" "The report takes more time or memory than one may; ask for a shorter period, fewer goals or a single link or goal.";
    TooManyBodies TOO_MANY_REQUESTS "too_many_bodies" "The account or the address has as many bytes of bodies under way as it may have; see Retry-After.";
    TooManyExports TOO_MANY_REQUESTS "too_many_exports" "The account has as many exports under way as it may have; see Retry-After.";
    TooManyReports TOO_MANY_REQUESTS "too_many_reports" "The account has as many reports running and waiting as it may have; see Retry-After.";
    TooManyTests TOO_MANY_REQUESTS "too_many_tests" "The account has as many test calls under way as it may have; see Retry-After.";
    TooManyBackfills TOO_MANY_REQUESTS "too_many_backfills" "The account has a backfill under way; see Retry-After.";
    RateLimited TOO_MANY_REQUESTS "rate_limited" "Too many hits for this token, or calls of this account; see Retry-After.";
    Internal INTERNAL_SERVER_ERROR "internal_error" "Something failed here; the log says what.";
    Overloaded SERVICE_UNAVAILABLE "overloaded" "More than can be taken now; nothing was kept. See Retry-After.";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "The log can't be written; nothing was kept. See Retry-After.";
    DatabaseUnavailable SERVICE_UNAVAILABLE "database_unavailable" "The database can't answer now; hits are taken all the same.";
    HttpVersion HTTP_VERSION_NOT_SUPPORTED "http_version" "An export needs HTTP/1.1: in HTTP/1.0 a file that broke off looks like a whole one.";
}

/// An error on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What is wrong.
    pub code: ErrorCode,
    /// In words.
    pub message: Cow<'static, str>,
    /// The field or parameter at fault; empty: none.
    pub field: Cow<'static, str>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The methods that the address takes.
    pub allow: Cow<'static, str>,
}

impl ApiError {
    /// The error with its code's own message.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            message: Cow::Borrowed(code.message()),
            field: Cow::Borrowed(""),
            retry_after: None,
            allow: Cow::Borrowed(""),
        }
    }

    /// With a message that says more.
    #[must_use]
    pub fn because(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// With the field at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = field.into();
        self
    }

    /// With the time after which to try again.
    #[must_use]
    pub fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_and_unique() {
        let documented: Vec<&str> =
            include_str!("errors.md").lines().filter(|line| line.starts_with("| `")).collect();
        let table: Vec<String> = ErrorCode::ALL
            .iter()
            .map(|code| format!("| `{}` | {} | {} |", code.as_str(), code.status().as_u16(), code.message()))
            .collect();
        assert_eq!(documented, table, "errors.md must read:\n{}", table.join("\n"));
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }
}
