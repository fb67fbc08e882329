//! One document from its parts. What stands in the parts is passed on as it is written, in its order, but for these keys
//! of an operation:
//!
//! - `answers` are its `responses` that are not errors. `data` in one is the schema of what the envelope
//!   `{"success":true,"data":…}` holds, `list` that of an entry of a list with its pagination.
//! - `errors` are the codes that it may answer. Each status gets a response with those of its codes, and with the headers
//!   that go with it. A body and a key bring theirs along.
//! - `headers` names a set of headers that all of its answers have.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::http::{error::ErrorCode, json};

/// The errors of every operation that takes a body.
const OF_BODY: [ErrorCode; 5] = [
    ErrorCode::InvalidBody,
    ErrorCode::RequestTimeout,
    ErrorCode::BodyTooLarge,
    ErrorCode::TooManyBodies,
    ErrorCode::Overloaded,
];

/// The errors of every operation that may find the database unavailable: it takes its account's turn there.
const OF_DATABASE: [ErrorCode; 2] = [ErrorCode::TooManyReports, ErrorCode::ReportTooExpensive];

/// No headers.
const NONE: &str = "{}";
/// The headers of a limit, where an operation has none of its own.
const OF_LIMIT: &str = r##"{"RateLimit-Limit":{"$ref":"#/components/headers/RateLimitLimit"},
    "RateLimit-Remaining":{"$ref":"#/components/headers/RateLimitRemaining"},
    "RateLimit-Reset":{"$ref":"#/components/headers/RateLimitReset"}}"##;

/// Puts the document together; see the module for its parts.
pub(super) fn document(frame: &str, shared: &str, topics: &[&str]) -> String {
    let (frame, shared) = (Entries::of(frame), Entries::of(shared));
    let topics: Vec<_> = topics.iter().map(|topic| Entries::of(topic)).collect();
    let header_sets = Entries::of(shared.get("header_sets"));
    let (mut tags, mut paths, mut schemas) = (Vec::new(), Object::default(), Object::default());
    for topic in &topics {
        let tag = topic.get("tag");
        let name = Entries::of(tag).get("name");
        tags.push(tag);
        for (path, item) in Entries::of(topic.get("paths")).0 {
            paths.put(&path, &path_item(item.get(), name, &header_sets));
        }
        schemas.put_all(topic.get("schemas"));
    }
    schemas.put_all(shared.get("schemas"));
    schemas.put("ErrorCode", &error_code());
    schemas.put("Failure", &failure("{\"$ref\":\"#/components/schemas/ErrorDetail\"}"));

    let mut info = Object::default();
    info.put_all(frame.get("info"));
    info.put("version", &quoted(env!("CARGO_PKG_VERSION")));
    let mut components = Object::default();
    components.put("securitySchemes", frame.get("securitySchemes"));
    components.put("parameters", shared.get("parameters"));
    components.put("headers", shared.get("headers"));
    components.put("responses", &refusals());
    components.put("schemas", &schemas.end());

    let mut document = Object::default();
    document.put("openapi", "\"3.1.0\"");
    document.put("info", &info.end());
    document.put("servers", frame.get("servers"));
    document.put("security", frame.get("security"));
    document.put("tags", &format!("[{}]", tags.join(",")));
    document.put("paths", &paths.end());
    document.put("components", &components.end());
    compact(&document.end())
}

fn path_item(item: &str, tag: &str, header_sets: &Entries<'_>) -> String {
    let mut written = Object::default();
    for (name, raw) in Entries::of(item).0 {
        match name.as_ref() {
            "parameters" => written.put(&name, raw.get()),
            _ => written.put(&name, &operation(raw.get(), tag, header_sets)),
        }
    }
    written.end()
}

fn operation(operation: &str, tag: &str, header_sets: &Entries<'_>) -> String {
    let (mut written, mut responses) = (Object::default(), Object::default());
    let (mut codes, mut is_open, mut headers) = (Vec::new(), false, NONE);
    let mut answers = Vec::new();
    written.put("tags", &format!("[{tag}]"));
    for (name, raw) in Entries::of(operation).0 {
        let raw = raw.get();
        match name.as_ref() {
            "answers" => answers = Entries::of(raw).0,
            "errors" => codes.extend(named_codes(raw)),
            "headers" => headers = header_sets.get(&text(raw)),
            _ => {
                is_open |= name == "security";
                if name == "requestBody" {
                    codes.extend(OF_BODY);
                }
                written.put(&name, raw);
            }
        }
    }
    if !is_open {
        codes.extend([ErrorCode::Unauthorized, ErrorCode::RateLimited]);
    }
    if codes.contains(&ErrorCode::DatabaseUnavailable) {
        codes.extend(OF_DATABASE);
    }
    for (status, answer) in answers {
        responses.put(&status, &response(answer.get(), headers));
    }
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in ErrorCode::ALL.iter().filter(|code| codes.contains(code)) {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    for (status, codes) in by_status {
        let shared = format!("{{\"$ref\":\"#/components/responses/{}\"}}", codes[0].as_str());
        let is_shared = codes.len() == 1 && headers == NONE;
        responses.put(&status.to_string(), &if is_shared { shared } else { refusal(&codes, headers) });
    }
    written.put("responses", &responses.end());
    written.end()
}

fn response(answer: &str, of_all: &str) -> String {
    let (mut written, mut headers, mut content) = (Object::default(), Object::default(), Object::default());
    headers.put_all(of_all);
    for (name, raw) in Entries::of(answer).0 {
        match name.as_ref() {
            "data" => content.put("application/json", &media(&success(raw.get(), false))),
            "list" => {
                let items = format!("{{\"type\":\"array\",\"items\":{}}}", raw.get());
                content.put("application/json", &media(&success(&items, true)));
            }
            "content" => content.put_all(raw.get()),
            "headers" => headers.put_all(raw.get()),
            _ => written.put(&name, raw.get()),
        }
    }
    written.put_filled("headers", headers);
    written.put_filled("content", content);
    written.end()
}

/// The responses of each code alone, which most operations have.
fn refusals() -> String {
    let mut written = Object::default();
    for code in ErrorCode::ALL {
        written.put(code.as_str(), &refusal(&[*code], NONE));
    }
    written.end()
}

/// The response of a status with these codes, and no other.
fn refusal(codes: &[ErrorCode], of_all: &str) -> String {
    let (mut written, mut headers) = (Object::default(), Object::default());
    let lines: Vec<_> =
        codes.iter().map(|code| format!("- `{}`: {}", code.as_str(), code.message())).collect();
    let names: Vec<_> = codes.iter().map(|code| quoted(code.as_str())).collect();
    let detail = format!(
        "{{\"type\":\"object\",\"required\":[\"code\",\"message\",\"field\"],\"properties\":{{\
         \"code\":{{\"enum\":[{}]}},\"message\":{{\"type\":\"string\"}},\"field\":{{\"type\":[\"string\",\"null\"]}}}}}}",
        names.join(",")
    );
    headers.put_all(of_all);
    if of_all == NONE && codes.contains(&ErrorCode::RateLimited) {
        headers.put_all(OF_LIMIT);
    }
    match codes[0].status().as_u16() {
        401 => headers.put("WWW-Authenticate", "{\"$ref\":\"#/components/headers/WwwAuthenticate\"}"),
        429 | 503 => headers.put("Retry-After", "{\"$ref\":\"#/components/headers/RetryAfter\"}"),
        _ => {}
    }
    let mut content = Object::default();
    content.put("application/json", &media(&failure(&detail)));
    written.put("description", &quoted(&lines.join("\n")));
    written.put_filled("headers", headers);
    written.put_filled("content", content);
    written.end()
}

fn success(data: &str, is_list: bool) -> String {
    let (required, pagination) = if is_list {
        (",\"pagination\"", ",\"pagination\":{\"$ref\":\"#/components/schemas/Pagination\"}")
    } else {
        ("", "")
    };
    format!(
        "{{\"type\":\"object\",\"required\":[\"success\",\"data\"{required}],\
         \"properties\":{{\"success\":{{\"const\":true}},\"data\":{data}{pagination}}}}}"
    )
}

fn failure(detail: &str) -> String {
    format!(
        "{{\"type\":\"object\",\"required\":[\"success\",\"error\"],\
         \"properties\":{{\"success\":{{\"const\":false}},\"error\":{detail}}}}}"
    )
}

fn error_code() -> String {
    let line =
        |code: &ErrorCode| format!("- `{}` ({}): {}", code.as_str(), code.status().as_u16(), code.message());
    let lines: Vec<_> = ErrorCode::ALL.iter().map(line).collect();
    let names: Vec<_> = ErrorCode::ALL.iter().map(|code| quoted(code.as_str())).collect();
    format!(
        "{{\"type\":\"string\",\"description\":{},\"enum\":[{}]}}",
        quoted(&format!("What is wrong: a closed set, stable for ever.\n\n{}", lines.join("\n"))),
        names.join(",")
    )
}

fn media(schema: &str) -> String {
    format!("{{\"schema\":{schema}}}")
}

fn named_codes(names: &str) -> impl Iterator<Item = ErrorCode> {
    let names: Vec<String> = serde_json::from_str(names).expect("errors are a list of codes");
    names.into_iter().map(|name| {
        let code = ErrorCode::ALL.iter().find(|code| code.as_str() == name);
        *code.unwrap_or_else(|| panic!("{name} is not an error code"))
    })
}

/// An object being written.
#[derive(Default)]
struct Object(String);

impl Object {
    fn put(&mut self, name: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(json);
    }

    fn put_all(&mut self, entries: &str) {
        for (name, json) in Entries::of(entries).0 {
            self.put(&name, json.get());
        }
    }

    fn put_filled(&mut self, name: &str, object: Object) {
        if !object.0.is_empty() {
            self.put(name, &object.end());
        }
    }

    fn end(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }
}

/// An object as it stands in a part. The parts belong to the program, so what is wrong in one is a defect, which the first
/// test that reads the document meets.
struct Entries<'a>(Vec<(std::borrow::Cow<'a, str>, &'a RawValue)>);

impl<'a> Entries<'a> {
    fn of(text: &'a str) -> Self {
        Self(json::object(text).expect("a part of the document is a JSON object"))
    }

    fn get(&self, name: &str) -> &'a str {
        let entry = self.0.iter().find(|(key, _)| key == name);
        entry.unwrap_or_else(|| panic!("the document has no part {name}")).1.get()
    }
}

fn text(json: &str) -> String {
    serde_json::from_str(json).expect("text")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Without the white space between its values.
fn compact(json: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            let keep = in_string || !c.is_ascii_whitespace();
            (in_string, is_escaped) = match c {
                _ if is_escaped => (in_string, false),
                '\\' => (in_string, true),
                '"' => (!in_string, false),
                _ => (in_string, false),
            };
            keep
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_but_for_that_of_texts() {
        assert_eq!(
            compact("{ \"a b\" : [ 1,\n 2 ], \"c\": \" \\\" \\\\\" }"),
            r#"{"a b":[1,2],"c":" \" \\"}"#
        );
    }

    #[test]
    fn an_operation_gets_what_is_the_same_everywhere() {
        let sets = Entries::of("{}");
        let written = operation(
            r#"{"summary":"s","requestBody":{},"answers":{"200":{"description":"d","data":{}}},"errors":["goal_not_found","invalid_json"]}"#,
            "\"T\"",
            &sets,
        );
        let written: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        let statuses: Vec<_> = written["responses"].as_object().expect("an object").keys().collect();
        assert_eq!(statuses, ["200", "400", "401", "404", "408", "413", "429", "503"]);
        assert_eq!(written["responses"]["404"]["$ref"], "#/components/responses/goal_not_found");
        let codes = "/responses/400/content/application~1json/schema/properties/error/properties/code/enum";
        assert_eq!(written.pointer(codes), Some(&serde_json::json!(["invalid_json", "invalid_body"])));
        assert_eq!(written["tags"], serde_json::json!(["T"]));
    }
}
