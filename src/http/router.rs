//! Which handler a request belongs to: one table of methods and paths.

use hyper::Method;

use super::error::{ApiError, ErrorCode};

/// Builds [`Route`], the search for one, and the list that the API's description is held to, from one table.
///
/// The first row whose path fits decides which path a request means, so `goals` stands before `{id}`; all of a path's
/// methods stand together. No parameter is empty. `GET` takes `HEAD` too, unless that has a row before it.
macro_rules! routes {
    ($($method:ident [$($segment:tt),*] $route:ident $(($($parameter:ident),+))?;)*) => {
        /// A handler, with what the path says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Route<'a> {
            $(
                #[doc = concat!("`", stringify!($method), " ", template!($($segment)*), "`.")]
                $route $(($(text!('a $parameter)),+))?,
            )*
        }

        /// Every method and path, as the API's description writes them.
        #[cfg(test)]
        pub(super) const TABLE: &[(&str, &str)] =
            &[$((stringify!($method), template!($($segment)*)),)*];

        fn find<'a>(method: &Method, segments: &[&'a str]) -> Result<Route<'a>, ApiError> {
            let mut meant = None;
            let mut allowed: Vec<&'static str> = Vec::new();
            $(
                if let [$($segment),*] = segments
                    $($(&& !$parameter.is_empty())+)?
                    && *meant.get_or_insert(template!($($segment)*)) == template!($($segment)*)
                {
                    let looks = *method == Method::HEAD && Method::$method == Method::GET;
                    if *method == Method::$method || looks {
                        return Ok(Route::$route $(($($parameter),+))?);
                    }
                    allowed.push(stringify!($method));
                }
            )*
            Err(if meant.is_some() { not_allowed(allowed) } else { ErrorCode::NotFound.into() })
        }
    };
}

/// A path as it is written in documents: `/api/v1/links/{id}`.
macro_rules! template {
    ($($segment:tt)*) => { concat!($("/", segment!($segment)),*) };
}

macro_rules! segment {
    ($text:literal) => {
        $text
    };
    ($parameter:ident) => {
        concat!("{", stringify!($parameter), "}")
    };
}

macro_rules! text {
    ($life:lifetime $parameter:ident) => { &$life str };
}

routes! {
    POST    ["api", "conversions", "track", token]                     Postback(token);
    HEAD    ["api", "conversions", "track", token]                     PixelHead(token);
    GET     ["api", "conversions", "track", token]                     Pixel(token);
    OPTIONS ["api", "conversions", "track", token]                     Preflight(token);
    GET     ["r", slug]                                                Redirect(slug);
    POST    ["api", "v1", "conversions", "track"]                      Track;
    POST    ["api", "v1", "conversions", "batch"]                      TrackBatch;
    POST    ["api", "v1", "clicks"]                                    ReportClicks;
    GET     ["api", "v1", "conversions", "goals"]                      ListGoals;
    POST    ["api", "v1", "conversions", "goals"]                      CreateGoal;
    GET     ["api", "v1", "conversions", "goals", id]                  ReadGoal(id);
    PATCH   ["api", "v1", "conversions", "goals", id]                  ChangeGoal(id);
    DELETE  ["api", "v1", "conversions", "goals", id]                  DeleteGoal(id);
    POST    ["api", "v1", "conversions", "goals", id, "rotate-token"]  RotateToken(id);
    POST    ["api", "v1", "conversions", "goals", id, "rotate-postback-secret"] RotatePostbackSecret(id);
    POST    ["api", "v1", "conversions", "goals", id, "test"]          TestPostback(id);
    POST    ["api", "v1", "conversions", "goals", id, "backfill"]      Backfill(id);
    GET     ["api", "v1", "conversions", "rejections"]                 Rejections;
    GET     ["api", "v1", "conversions", id]                           Conversion(id);
    GET     ["api", "v1", "conversions", id, "adjustments"]            Adjustments(id);
    POST    ["api", "v1", "conversions", id, "adjustments"]            Adjust(id);
    GET     ["api", "v1", "analytics", "conversions"]                  ConversionReport;
    GET     ["api", "v1", "analytics", "funnel"]                       FunnelReport;
    GET     ["api", "v1", "analytics", "variants"]                     VariantReport;
    GET     ["api", "v1", "analytics", "health"]                       HealthReport;
    GET     ["api", "v1", "exports", "conversions"]                    ExportConversions;
    GET     ["api", "v1", "exports", "clicks"]                         ExportClicks;
    GET     ["api", "v1", "links"]                                     ListLinks;
    POST    ["api", "v1", "links"]                                     CreateLink;
    GET     ["api", "v1", "links", id]                                 ReadLink(id);
    PATCH   ["api", "v1", "links", id]                                 ChangeLink(id);
    DELETE  ["api", "v1", "links", id]                                 DeleteLink(id);
    GET     ["api", "v1", "postbacks", "deliveries"]                   Deliveries;
    POST    ["api", "v1", "postbacks", "deliveries", id, "replay"]     Replay(id);
    GET     ["api", "v1", "accounts"]                                  ListAccounts;
    POST    ["api", "v1", "accounts"]                                  CreateAccount;
    GET     ["api", "v1", "accounts", id]                              ReadAccount(id);
    PATCH   ["api", "v1", "accounts", id]                              ChangeAccount(id);
    POST    ["api", "v1", "accounts", id, "keys"]                      CreateKey(id);
    DELETE  ["api", "v1", "accounts", id, "keys", key_id]              RevokeKey(id, key_id);
    POST    ["api", "v1", "accounts", id, "keys", key_id, "rotate"]    RotateKey(id, key_id);
    GET     ["openapi.json"]                                           OpenApi;
    GET     [""]                                                       Root;
}

const TOKEN_PREFIX: &str = "/api/conversions/track/";
const LINK_PREFIX: &str = "/r/";
/// Segments of the longest path.
const SEGMENTS_MAX: usize = 7;

/// Finds the handler, or says 404 or 405.
pub(super) fn route<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, ApiError> {
    // The hot path, without a search for its slashes.
    if let Some(token) = path.strip_prefix(TOKEN_PREFIX)
        && !token.contains('/')
    {
        return find(method, &["api", "conversions", "track", token]);
    }
    let path = without_trailing_slash(path);
    let mut segments = [""; SEGMENTS_MAX];
    let mut count = 0;
    for segment in path.strip_prefix('/').ok_or(ErrorCode::NotFound)?.split('/') {
        *segments.get_mut(count).ok_or(ErrorCode::NotFound)? = segment;
        count += 1;
    }
    find(method, &segments[..count])
}

/// The addresses that people and networks were given take a slash at their end: whoever stores them may have put it there.
pub(super) fn without_trailing_slash(path: &str) -> &str {
    if path.starts_with(LINK_PREFIX) || path.starts_with(TOKEN_PREFIX) {
        path.trim_end_matches('/')
    } else {
        path
    }
}

fn not_allowed(mut allowed: Vec<&'static str>) -> ApiError {
    if allowed.contains(&"GET") && !allowed.contains(&"HEAD") {
        allowed.push("HEAD");
    }
    allowed.sort_unstable();
    ApiError { allow: allowed.join(", ").into(), ..ApiError::new(ErrorCode::MethodNotAllowed) }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn every_method_and_path_has_its_handler() {
        let table = [
            ("POST", "/api/conversions/track/T", Route::Postback("T")),
            ("GET", "/api/conversions/track/T", Route::Pixel("T")),
            ("HEAD", "/api/conversions/track/T", Route::PixelHead("T")),
            ("OPTIONS", "/api/conversions/track/T", Route::Preflight("T")),
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
            ("GET", "/api/v1/analytics/funnel", Route::FunnelReport),
            ("GET", "/api/v1/analytics/variants", Route::VariantReport),
            ("HEAD", "/api/v1/analytics/health", Route::HealthReport),
            ("GET", "/r/winter", Route::Redirect("winter")),
            ("HEAD", "/r/winter", Route::Redirect("winter")),
            ("GET", "/r/winter/", Route::Redirect("winter")),
            ("POST", "/api/conversions/track/T/", Route::Postback("T")),
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
            ("POST", "/api/v1/accounts/7/keys/8/rotate", Route::RotateKey("7", "8")),
            ("GET", "/api/v1/exports/conversions", Route::ExportConversions),
            ("HEAD", "/api/v1/exports/clicks", Route::ExportClicks),
            ("GET", "/openapi.json", Route::OpenApi),
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
        let not_allowed = |allow: &'static str| (ErrorCode::MethodNotAllowed, Cow::Borrowed(allow));
        assert_eq!(failure("PUT", "/api/conversions/track/T"), not_allowed("GET, HEAD, OPTIONS, POST"));
        assert_eq!(failure("GET", "/api/v1/conversions/track"), not_allowed("POST"));
        assert_eq!(failure("GET", "/api/v1/conversions/batch"), not_allowed("POST"));
        assert_eq!(failure("GET", "/api/v1/clicks"), not_allowed("POST"));
        assert_eq!(failure("PUT", "/api/v1/conversions/goals"), not_allowed("GET, HEAD, POST"));
        assert_eq!(failure("PUT", "/api/v1/conversions/goals/1"), not_allowed("DELETE, GET, HEAD, PATCH"));
        assert_eq!(failure("GET", "/api/v1/conversions/goals/1/rotate-token"), not_allowed("POST"));
        assert_eq!(failure("POST", "/api/v1/conversions/rejections"), not_allowed("GET, HEAD"));
        assert_eq!(failure("POST", "/api/v1/analytics/conversions"), not_allowed("GET, HEAD"));
        assert_eq!(failure("POST", "/api/v1/analytics/funnel"), not_allowed("GET, HEAD"));
        assert_eq!(failure("PUT", "/api/v1/analytics/variants"), not_allowed("GET, HEAD"));
        assert_eq!(failure("DELETE", "/api/v1/analytics/health"), not_allowed("GET, HEAD"));
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
            "/r/a/b",
            "/api/v1/links/1/x",
            "/api/v1/links/",
            "/api/v1/conversions//adjustments",
            "/api/v1/accounts/1/keys/",
            "/a/b/c/d/e/f/g",
            "*",
            "",
        ] {
            assert_eq!(failure("GET", path).0, ErrorCode::NotFound, "{path}");
        }
    }
}
