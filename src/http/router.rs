//! Which handler a request belongs to: one match on method and path.

use hyper::Method;

use super::error::{ApiError, ErrorCode};

/// A handler, with what the path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `POST /api/conversions/track/{token}`.
    Postback(&'a str),
    /// `GET /api/conversions/track/{token}`.
    Pixel(&'a str),
    /// `HEAD /api/conversions/track/{token}`: looks, but does not convert.
    PixelHead,
    /// `OPTIONS /api/conversions/track/{token}`.
    Preflight,
    /// `POST /api/v1/conversions/track`.
    Track,
    /// `POST /api/v1/conversions/batch`.
    TrackBatch,
    /// `POST /api/v1/clicks`.
    ReportClicks,
    /// `GET /api/v1/conversions/goals`.
    ListGoals,
    /// `POST /api/v1/conversions/goals`.
    CreateGoal,
    /// `GET /api/v1/conversions/goals/{id}`.
    ReadGoal(&'a str),
    /// `PATCH /api/v1/conversions/goals/{id}`.
    ChangeGoal(&'a str),
    /// `DELETE /api/v1/conversions/goals/{id}`.
    DeleteGoal(&'a str),
    /// `POST /api/v1/conversions/goals/{id}/rotate-token`.
    RotateToken(&'a str),
    /// `POST /api/v1/conversions/goals/{id}/rotate-postback-secret`.
    RotatePostbackSecret(&'a str),
    /// `POST /api/v1/conversions/goals/{id}/test`.
    TestPostback(&'a str),
    /// `POST /api/v1/conversions/goals/{id}/backfill`.
    Backfill(&'a str),
    /// `GET /api/v1/postbacks/deliveries`.
    Deliveries,
    /// `POST /api/v1/postbacks/deliveries/{id}/replay`.
    Replay(&'a str),
    /// `GET` and `HEAD /r/{slug}`.
    Redirect(&'a str),
    /// `GET /api/v1/links`.
    ListLinks,
    /// `POST /api/v1/links`.
    CreateLink,
    /// `GET /api/v1/links/{id}`.
    ReadLink(&'a str),
    /// `PATCH /api/v1/links/{id}`.
    ChangeLink(&'a str),
    /// `DELETE /api/v1/links/{id}`.
    DeleteLink(&'a str),
    /// `GET /api/v1/accounts`.
    ListAccounts,
    /// `POST /api/v1/accounts`.
    CreateAccount,
    /// `GET /api/v1/accounts/{id}`.
    ReadAccount(&'a str),
    /// `PATCH /api/v1/accounts/{id}`.
    ChangeAccount(&'a str),
    /// `POST /api/v1/accounts/{id}/keys`.
    CreateKey(&'a str),
    /// `DELETE /api/v1/accounts/{id}/keys/{key_id}`.
    RevokeKey(&'a str, &'a str),
    /// `GET /api/v1/conversions/rejections`.
    Rejections,
    /// `GET /api/v1/conversions/{id}`.
    Conversion(&'a str),
    /// `GET /api/v1/conversions/{id}/adjustments`.
    Adjustments(&'a str),
    /// `POST /api/v1/conversions/{id}/adjustments`.
    Adjust(&'a str),
    /// `GET /api/v1/analytics/conversions`.
    ConversionReport,
    /// `GET /api/v1/exports/conversions`.
    ExportConversions,
    /// `GET /api/v1/exports/clicks`.
    ExportClicks,
    /// `GET /`.
    Root,
}

const TOKEN_PREFIX: &str = "/api/conversions/track/";
/// Segments of the longest path.
const SEGMENTS_MAX: usize = 6;

/// Finds the handler, or says 404 or 405.
pub(super) fn route<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, ApiError> {
    // The hot path first.
    if let Some(token) = path.strip_prefix(TOKEN_PREFIX)
        && !token.is_empty()
        && !token.contains('/')
    {
        return match *method {
            Method::POST => Ok(Route::Postback(token)),
            Method::GET => Ok(Route::Pixel(token)),
            Method::HEAD => Ok(Route::PixelHead),
            Method::OPTIONS => Ok(Route::Preflight),
            _ => Err(not_allowed("GET, HEAD, OPTIONS, POST")),
        };
    }
    let mut segments = [""; SEGMENTS_MAX];
    let mut count = 0;
    for segment in path.strip_prefix('/').ok_or(ErrorCode::NotFound)?.split('/') {
        *segments.get_mut(count).ok_or(ErrorCode::NotFound)? = segment;
        count += 1;
    }
    let delete = *method == Method::DELETE;
    let get = matches!(*method, Method::GET | Method::HEAD);
    let post = *method == Method::POST;
    match &segments[..count] {
        [""] if get => Ok(Route::Root),
        ["r", slug] if get && !slug.is_empty() => Ok(Route::Redirect(slug)),
        ["api", "v1", "links"] if get => Ok(Route::ListLinks),
        ["api", "v1", "links"] if post => Ok(Route::CreateLink),
        ["api", "v1", "links", id] if get => Ok(Route::ReadLink(id)),
        ["api", "v1", "links", id] if *method == Method::PATCH => Ok(Route::ChangeLink(id)),
        ["api", "v1", "links", id] if delete => Ok(Route::DeleteLink(id)),
        ["api", "v1", "accounts"] if get => Ok(Route::ListAccounts),
        ["api", "v1", "accounts"] if post => Ok(Route::CreateAccount),
        ["api", "v1", "accounts", id] if get => Ok(Route::ReadAccount(id)),
        ["api", "v1", "accounts", id] if *method == Method::PATCH => Ok(Route::ChangeAccount(id)),
        ["api", "v1", "accounts", id, "keys"] if post => Ok(Route::CreateKey(id)),
        ["api", "v1", "accounts", id, "keys", key] if delete => Ok(Route::RevokeKey(id, key)),
        ["api", "v1", "conversions", "track"] if post => Ok(Route::Track),
        ["api", "v1", "conversions", "batch"] if post => Ok(Route::TrackBatch),
        ["api", "v1", "clicks"] if post => Ok(Route::ReportClicks),
        ["api", "v1", "conversions", "goals"] if get => Ok(Route::ListGoals),
        ["api", "v1", "conversions", "goals"] if post => Ok(Route::CreateGoal),
        ["api", "v1", "conversions", "goals", id] if get => Ok(Route::ReadGoal(id)),
        ["api", "v1", "conversions", "goals", id] if *method == Method::PATCH => Ok(Route::ChangeGoal(id)),
        ["api", "v1", "conversions", "goals", id] if delete => Ok(Route::DeleteGoal(id)),
        ["api", "v1", "conversions", "goals", id, "rotate-token"] if post => Ok(Route::RotateToken(id)),
        ["api", "v1", "conversions", "goals", id, "rotate-postback-secret"] if post => {
            Ok(Route::RotatePostbackSecret(id))
        }
        ["api", "v1", "conversions", "goals", id, "test"] if post => Ok(Route::TestPostback(id)),
        ["api", "v1", "conversions", "goals", id, "backfill"] if post => Ok(Route::Backfill(id)),
        ["api", "v1", "postbacks", "deliveries"] if get => Ok(Route::Deliveries),
        ["api", "v1", "postbacks", "deliveries", id, "replay"] if post => Ok(Route::Replay(id)),
        ["api", "v1", "postbacks", "deliveries"] => Err(not_allowed("GET, HEAD")),
        ["api", "v1", "conversions", "rejections"] if get => Ok(Route::Rejections),
        ["api", "v1", "analytics", "conversions"] if get => Ok(Route::ConversionReport),
        ["api", "v1", "exports", "conversions"] if get => Ok(Route::ExportConversions),
        ["api", "v1", "exports", "clicks"] if get => Ok(Route::ExportClicks),
        ["api", "v1", "exports", "conversions" | "clicks"] => Err(not_allowed("GET, HEAD")),
        ["api", "v1", "conversions", id, "adjustments"] if get && !id.is_empty() => {
            Ok(Route::Adjustments(id))
        }
        ["api", "v1", "conversions", id, "adjustments"] if post && !id.is_empty() => Ok(Route::Adjust(id)),
        ["api", "v1", "conversions", _, "adjustments"]
        | ["api", "v1", "conversions", "goals"]
        | ["api", "v1", "links" | "accounts"] => Err(not_allowed("GET, HEAD, POST")),
        ["api", "v1", "conversions", "goals", _] | ["api", "v1", "links", _] => {
            Err(not_allowed("DELETE, GET, HEAD, PATCH"))
        }
        ["api", "v1", "accounts", _] => Err(not_allowed("GET, HEAD, PATCH")),
        ["api", "v1", "accounts", _, "keys", _] => Err(not_allowed("DELETE")),
        ["api", "v1", "conversions", "track" | "batch"]
        | ["api", "v1", "clicks"]
        | [
            "api",
            "v1",
            "conversions",
            "goals",
            _,
            "rotate-token" | "rotate-postback-secret" | "test" | "backfill",
        ]
        | ["api", "v1", "postbacks", "deliveries", _, "replay"]
        | ["api", "v1", "accounts", _, "keys"] => Err(not_allowed("POST")),
        ["api", "v1", "conversions", id] if get && !id.is_empty() => Ok(Route::Conversion(id)),
        ["api", "v1", "conversions", ""] | ["r", ""] => Err(ErrorCode::NotFound.into()),
        [""] | ["r", _] | ["api", "v1", "conversions", _] | ["api", "v1", "analytics", "conversions"] => {
            Err(not_allowed("GET, HEAD"))
        }
        _ => Err(ErrorCode::NotFound.into()),
    }
}

fn not_allowed(allow: &'static str) -> ApiError {
    ApiError { allow, ..ApiError::new(ErrorCode::MethodNotAllowed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_and_path_has_its_handler() {
        let table = [
            ("POST", "/api/conversions/track/T", Route::Postback("T")),
            ("GET", "/api/conversions/track/T", Route::Pixel("T")),
            ("HEAD", "/api/conversions/track/T", Route::PixelHead),
            ("OPTIONS", "/api/conversions/track/T", Route::Preflight),
            ("POST", "/api/v1/conversions/track", Route::Track),
            ("POST", "/api/v1/conversions/batch", Route::TrackBatch),
            ("POST", "/api/v1/clicks", Route::ReportClicks),
            ("GET", "/api/v1/conversions/goals", Route::ListGoals),
            ("POST", "/api/v1/conversions/goals", Route::CreateGoal),
            ("GET", "/api/v1/conversions/goals/7", Route::ReadGoal("7")),
            ("HEAD", "/api/v1/conversions/goals/7", Route::ReadGoal("7")),
            ("PATCH", "/api/v1/conversions/goals/7", Route::ChangeGoal("7")),
            ("DELETE", "/api/v1/conversions/goals/7", Route::DeleteGoal("7")),
            ("POST", "/api/v1/conversions/goals/7/rotate-token", Route::RotateToken("7")),
            ("POST", "/api/v1/conversions/goals/7/rotate-postback-secret", Route::RotatePostbackSecret("7")),
            ("POST", "/api/v1/conversions/goals/7/test", Route::TestPostback("7")),
            ("POST", "/api/v1/conversions/goals/7/backfill", Route::Backfill("7")),
            ("GET", "/api/v1/postbacks/deliveries", Route::Deliveries),
            ("POST", "/api/v1/postbacks/deliveries/0198/replay", Route::Replay("0198")),
            ("GET", "/api/v1/conversions/rejections", Route::Rejections),
            ("GET", "/api/v1/conversions/0198", Route::Conversion("0198")),
            ("GET", "/api/v1/conversions/0198/adjustments", Route::Adjustments("0198")),
            ("POST", "/api/v1/conversions/0198/adjustments", Route::Adjust("0198")),
            ("GET", "/api/v1/analytics/conversions", Route::ConversionReport),
            ("GET", "/r/winter", Route::Redirect("winter")),
            ("HEAD", "/r/winter", Route::Redirect("winter")),
            ("GET", "/api/v1/links", Route::ListLinks),
            ("POST", "/api/v1/links", Route::CreateLink),
            ("GET", "/api/v1/links/7", Route::ReadLink("7")),
            ("PATCH", "/api/v1/links/7", Route::ChangeLink("7")),
            ("DELETE", "/api/v1/links/7", Route::DeleteLink("7")),
            ("GET", "/api/v1/accounts", Route::ListAccounts),
            ("POST", "/api/v1/accounts", Route::CreateAccount),
            ("GET", "/api/v1/accounts/7", Route::ReadAccount("7")),
            ("PATCH", "/api/v1/accounts/7", Route::ChangeAccount("7")),
            ("POST", "/api/v1/accounts/7/keys", Route::CreateKey("7")),
            ("DELETE", "/api/v1/accounts/7/keys/8", Route::RevokeKey("7", "8")),
            ("GET", "/api/v1/exports/conversions", Route::ExportConversions),
            ("HEAD", "/api/v1/exports/clicks", Route::ExportClicks),
            ("GET", "/", Route::Root),
        ];
        for (method, path, expected) in table {
            let method: Method = method.parse().expect("a method");
            assert_eq!(route(&method, path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_there_and_what_is_not_allowed_are_told_apart() {
        let failure = |method: &str, path| {
            let error = route(&method.parse().expect("a method"), path).expect_err("refused");
            (error.code, error.allow)
        };
        let not_allowed = |allow| (ErrorCode::MethodNotAllowed, allow);
        assert_eq!(failure("PUT", "/api/conversions/track/T"), not_allowed("GET, HEAD, OPTIONS, POST"));
        assert_eq!(failure("GET", "/api/v1/conversions/track"), not_allowed("POST"));
        assert_eq!(failure("GET", "/api/v1/conversions/batch"), not_allowed("POST"));
        assert_eq!(failure("GET", "/api/v1/clicks"), not_allowed("POST"));
        assert_eq!(failure("PUT", "/api/v1/conversions/goals"), not_allowed("GET, HEAD, POST"));
        assert_eq!(failure("PUT", "/api/v1/conversions/goals/1"), not_allowed("DELETE, GET, HEAD, PATCH"));
        assert_eq!(failure("GET", "/api/v1/conversions/goals/1/rotate-token"), not_allowed("POST"));
        assert_eq!(failure("POST", "/api/v1/conversions/rejections"), not_allowed("GET, HEAD"));
        assert_eq!(failure("POST", "/api/v1/analytics/conversions"), not_allowed("GET, HEAD"));
        assert_eq!(failure("POST", "/api/v1/exports/clicks"), not_allowed("GET, HEAD"));
        assert_eq!(failure("PUT", "/api/v1/conversions/7/adjustments"), not_allowed("GET, HEAD, POST"));
        assert_eq!(failure("POST", "/"), not_allowed("GET, HEAD"));
        assert_eq!(failure("POST", "/r/winter"), not_allowed("GET, HEAD"));
        assert_eq!(failure("PUT", "/api/v1/links"), not_allowed("GET, HEAD, POST"));
        assert_eq!(failure("POST", "/api/v1/links/1"), not_allowed("DELETE, GET, HEAD, PATCH"));
        assert_eq!(failure("PUT", "/api/v1/accounts"), not_allowed("GET, HEAD, POST"));
        assert_eq!(failure("DELETE", "/api/v1/accounts/1"), not_allowed("GET, HEAD, PATCH"));
        assert_eq!(failure("GET", "/api/v1/accounts/1/keys"), not_allowed("POST"));
        assert_eq!(failure("GET", "/api/v1/accounts/1/keys/1"), not_allowed("DELETE"));
        for path in [
            "/api/conversions/track/",
            "/api/conversions/track/a/b",
            "/api/v1",
            "/x",
            "/api/v1/conversions/",
            "/api/v1/analytics/x",
            "/r",
            "/r/",
            "/r/winter/",
            "/r/a/b",
            "/api/v1/links/1/x",
            "/a/b/c/d/e/f/g",
            "*",
            "",
        ] {
            assert_eq!(failure("GET", path).0, ErrorCode::NotFound, "{path}");
        }
    }
}
