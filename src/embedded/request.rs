//! A request of ClickHouse's HTTP interface, parsed: head only, no body, no engine.

use std::time::Duration;

use base64::Engine as _;
use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

use super::encoding::Encoding;
use super::ffi::Params;
use super::multipart;
use super::settings::is_http_only;

/// ClickHouse's default and maximum of `session_timeout`.
const SESSION_SECONDS: (u64, u64) = (60, 3600);
const NAME_BYTES_MAX: usize = 256;

/// A request that can't be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    /// A codec that is not served.
    #[error("unknown Content-Encoding")]
    ContentEncoding,
    /// The form's framing.
    #[error(transparent)]
    Form(#[from] multipart::FormError),
    /// Something that ClickHouse has and the embedded engine has not.
    #[error("{0} is not supported by the embedded engine")]
    Unsupported(&'static str),
    /// A name or id that is longer than any client's.
    #[error("{0} is too long")]
    TooLong(&'static str),
}

/// Everything in a request's head that matters.
#[derive(Debug)]
pub(crate) struct Request {
    /// GET, which must not change anything.
    pub(crate) is_get: bool,
    /// `?query=`, or empty.
    pub(crate) query: Vec<u8>,
    pub(crate) database: Option<String>,
    pub(crate) default_format: Option<String>,
    /// Parameters that are settings, in order.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) params: Params,
    /// A kept session and for how long it is kept.
    pub(crate) session: Option<(String, Duration)>,
    pub(crate) query_id: Option<String>,
    pub(crate) log_comment: Option<String>,
    pub(crate) client_revision: u64,
    /// Hold the result back until it is complete, so that an error gets its status.
    pub(crate) wait_end: bool,
    pub(crate) body_encodings: Vec<Encoding>,
    pub(crate) answer_encoding: Encoding,
    pub(crate) form_boundary: Option<String>,
}

/// Who a request says that it is from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Request {
    pub(crate) fn parse(head: &Parts) -> Result<Self, BadRequest> {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let mut request = Self {
            is_get: head.method == Method::GET,
            query: Vec::new(),
            database: header("x-clickhouse-database").map(ToOwned::to_owned),
            default_format: header("x-clickhouse-format").map(ToOwned::to_owned),
            settings: Vec::new(),
            params: Params::default(),
            session: None,
            query_id: None,
            log_comment: None,
            client_revision: 0,
            wait_end: false,
            body_encodings: Vec::new(),
            answer_encoding: Encoding::accepted(header(ACCEPT_ENCODING.as_str())),
            form_boundary: None,
        };
        let content_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
        if let Some(boundary) = multipart::boundary(content_type) {
            request.form_boundary = Some(boundary?);
        }
        let content_encoding = Encoding::of_content(header(CONTENT_ENCODING.as_str()));
        request.body_encodings.push(content_encoding.ok_or(BadRequest::ContentEncoding)?);

        let mut session_id = None;
        let mut session_seconds = SESSION_SECONDS.0;
        let mut http_compression = true;
        for (name, value) in form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()) {
            let (name, value) = (name.into_owned(), value.into_owned());
            if name.len() > NAME_BYTES_MAX {
                return Err(BadRequest::TooLong("a parameter's name"));
            }
            match name.as_str() {
                "query" => request.query = value.into_bytes(),
                "database" => request.database = Some(value),
                "default_format" => request.default_format = Some(value),
                "session_id" => session_id = Some(value).filter(|id| !id.is_empty()),
                "session_timeout" => session_seconds = value.parse().unwrap_or(session_seconds),
                "query_id" => request.query_id = Some(value).filter(|id| !id.is_empty()),
                "client_protocol_version" => request.client_revision = value.parse().unwrap_or(0),
                "wait_end_of_query" => request.wait_end = is_true(&value),
                "enable_http_compression" => http_compression = is_true(&value),
                "decompress" if is_true(&value) => request.body_encodings.push(Encoding::Blocks),
                "compress" if is_true(&value) => request.answer_encoding = Encoding::Blocks,
                "role" => return Err(BadRequest::Unsupported("role")),
                "log_comment" => request.log_comment = Some(value),
                _ => match name.strip_prefix("param_") {
                    Some(param) => request.params.0.push((param.to_owned(), value)),
                    None if is_http_only(&name) => {}
                    None => request.settings.push((name, value)),
                },
            }
        }
        let too_long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > NAME_BYTES_MAX);
        if too_long(&session_id) || too_long(&request.query_id) {
            return Err(BadRequest::TooLong("an id"));
        }
        if !http_compression && request.answer_encoding != Encoding::Blocks {
            request.answer_encoding = Encoding::Identity;
        }
        // An id comes back in a header, where nothing but plain text belongs.
        request.query_id.take_if(|id| !id.bytes().all(|byte| byte.is_ascii_graphic()));
        request.database.take_if(|name| name.is_empty());
        request.session =
            session_id.map(|id| (id, Duration::from_secs(session_seconds.min(SESSION_SECONDS.1))));
        Ok(request)
    }

    /// Takes the fields of a form: the query's text and its parameters.
    pub(crate) fn take_form(&mut self, body: &[u8], boundary: &str) -> Result<(), BadRequest> {
        for (name, content) in multipart::fields(body, boundary)? {
            match name.strip_prefix("param_") {
                Some(param) => {
                    self.params.0.push((param.to_owned(), String::from_utf8_lossy(&content).into_owned()));
                }
                None if name == "query" => self.query = content,
                None => return Err(BadRequest::Unsupported("an external table")),
            }
        }
        Ok(())
    }
}

/// User and password of a request: ClickHouse's headers, else Basic, else URL parameters.
pub(crate) fn claim(headers: &HeaderMap, query: &str) -> Claim {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    if let Some(user) = header("x-clickhouse-user") {
        return Claim { user, password: header("x-clickhouse-key").unwrap_or_default() };
    }
    if let Some(encoded) = header(AUTHORIZATION.as_str()).as_deref().and_then(|it| it.strip_prefix("Basic "))
    {
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).unwrap_or_default();
        let text = String::from_utf8_lossy(&decoded);
        let (user, password) = text.split_once(':').unwrap_or((&text, ""));
        return Claim { user: user.to_owned(), password: password.to_owned() };
    }
    let mut claim = Claim::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "user" => claim.user = value.into_owned(),
            "password" => claim.password = value.into_owned(),
            _ => {}
        }
    }
    claim
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true" | "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn parameters_are_sorted_into_settings_query_parameters_and_our_own() {
        let request = Request::parse(&head(
            "/?query=SELECT%201&max_threads=2&param_x=a%20b&wait_end_of_query=1&session_id=s&decompress=1",
            &[("Accept-Encoding", "gzip")],
        ))
        .expect("a request");
        assert_eq!(request.query, b"SELECT 1");
        assert_eq!(request.settings, [("max_threads".to_owned(), "2".to_owned())]);
        assert_eq!(request.params.0, [("x".to_owned(), "a b".to_owned())]);
        assert!(request.wait_end && request.session.is_some());
        assert_eq!(request.body_encodings, [Encoding::Identity, Encoding::Blocks]);
        assert_eq!(request.answer_encoding, Encoding::Gzip);
    }

    #[test]
    fn credentials_come_from_headers_basic_or_the_url() {
        let both = Claim { user: "u".into(), password: "p:q".into() };
        let from = |uri: &str, headers: &[(&str, &str)]| {
            let head = head(uri, headers);
            claim(&head.headers, head.uri.query().unwrap_or_default())
        };
        assert_eq!(from("/", &[("Authorization", "Basic dTpwOnE=")]), both);
        assert_eq!(from("/", &[("X-ClickHouse-User", "u"), ("X-ClickHouse-Key", "p:q")]), both);
        assert_eq!(from("/?user=u&password=p%3Aq", &[]), both);
        assert_eq!(from("/", &[("Authorization", "Basic %%%")]), Claim::default());
    }
}
