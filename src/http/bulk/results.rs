//! What a bulk call answers: a result a line, and how many there were of each kind.

use hyper::StatusCode;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::http::{
    error::ApiError,
    response::{self, Answer, FailureDetail},
};

/// What became of one line.
#[derive(Debug)]
pub(in crate::http) enum LineResult<T> {
    /// Kept: counted now (`201`), or when it turns out to be new (`202`).
    Accepted(StatusCode, T),
    /// Known already.
    Duplicate(T),
    /// Not kept.
    Refused(ApiError),
}

/// The results of all lines.
#[derive(Debug)]
pub(in crate::http) struct Results<T> {
    lines: Vec<(usize, LineResult<T>)>,
}

impl<T> Results<T> {
    /// None yet, with room for that many.
    pub(in crate::http) fn with_capacity(lines: usize) -> Self {
        Self { lines: Vec::with_capacity(lines) }
    }

    /// What became of the next line.
    pub(in crate::http) fn push(&mut self, number: usize, result: LineResult<T>) {
        self.lines.push((number, result));
    }
}

impl<T: Serialize> Results<T> {
    /// `200`, whatever the lines' own are.
    pub(in crate::http) fn answer(&self) -> Answer {
        let count =
            |kind: fn(&LineResult<T>) -> bool| self.lines.iter().filter(|(_, line)| kind(line)).count();
        let body = Body {
            results: self,
            accepted: count(|line| matches!(line, LineResult::Accepted(..))),
            duplicates: count(|line| matches!(line, LineResult::Duplicate(_))),
            refused: count(|line| matches!(line, LineResult::Refused(_))),
        };
        response::data(StatusCode::OK, &body)
    }
}

#[derive(Serialize)]
struct Body<'a, T: Serialize> {
    results: &'a Results<T>,
    accepted: usize,
    duplicates: usize,
    refused: usize,
}

struct Entry<'a, T>(usize, &'a LineResult<T>);

impl<T: Serialize> Serialize for Results<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.lines.iter().map(|(number, line)| Entry(*number, line)))
    }
}

impl<T: Serialize> Serialize for Entry<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (status, success) = match self.1 {
            LineResult::Accepted(status, _) => (*status, true),
            LineResult::Duplicate(_) => (StatusCode::OK, true),
            LineResult::Refused(error) => (error.code.status(), false),
        };
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("line", &self.0)?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("success", &success)?;
        match self.1 {
            LineResult::Accepted(_, data) | LineResult::Duplicate(data) => {
                map.serialize_entry("data", data)?;
            }
            LineResult::Refused(error) => map.serialize_entry("error", &FailureDetail::of(error))?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::http::error::ErrorCode;

    #[tokio::test]
    async fn results_read_as_documented() {
        let mut results = Results::with_capacity(3);
        results.push(1, LineResult::Accepted(StatusCode::CREATED, "a"));
        results.push(2, LineResult::Duplicate("b"));
        results.push(4, LineResult::Refused(ApiError::new(ErrorCode::InvalidClickId).at("click_id")));
        let answer = results.answer();
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("in memory").to_bytes();
        let message = ErrorCode::InvalidClickId.message();
        let expected = format!(
            r#"{{"success":true,"data":{{"results":[{{"line":1,"status":201,"success":true,"data":"a"}},{{"line":2,"status":200,"success":true,"data":"b"}},{{"line":4,"status":422,"success":false,"error":{{"code":"invalid_click_id","message":"{message}","field":"click_id"}}}}],"accepted":1,"duplicates":1,"refused":1}}}}"#
        );
        assert_eq!(body, expected);
    }
}
