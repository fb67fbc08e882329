//! Holds every answer of these tests to the API's description: an answer that it does not describe, down to the last field,
//! fails the test that got it.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use hyper::HeaderMap;
use jsonschema::{Registry, RegistryBuilder, Validator};
use serde_json::{Value, json};

use super::Got;
use crate::http::{openapi, router::without_trailing_slash};

/// Where the description is known to its own schemas.
const DOCUMENT: &str = "tally:/openapi.json";
/// What belongs to HTTP and not to an operation.
const OF_HTTP: [&str; 2] = ["content-type", "connection"];

/// The description, closed: what an object may have is what is written, where the description itself leaves room for more.
static CLOSED: LazyLock<Value> = LazyLock::new(|| {
    let mut document = openapi::document();
    close(&mut document);
    document
});

static REGISTRY: LazyLock<Registry<'static>> = LazyLock::new(|| {
    let registry = Registry::new().add(DOCUMENT, &*CLOSED).and_then(RegistryBuilder::prepare);
    registry.expect("the description is a resource")
});

static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> = LazyLock::new(Mutex::default);

/// Fails unless the description has this answer.
pub(super) fn check(method: &str, path: &str, got: &Got) {
    let path = without_trailing_slash(path.split('?').next().unwrap_or_default());
    let Some((template, item)) = path_item(path) else {
        assert_eq!(got.code(), (404, "not_found".into()), "{method} {path} is not described");
        return holds("/components/schemas/Failure", &got.json(), path);
    };
    let Some(operation) = operation(item, method) else {
        assert_eq!(got.code(), (405, "method_not_allowed".into()), "{method} {template} is not described");
        assert_eq!(got.header("allow"), Some(methods(item).as_str()), "{template}");
        return holds("/components/schemas/Failure", &got.json(), path);
    };
    let place = format!("/paths/{}/{operation}/responses/{}", escaped(template), got.status);
    let Some((place, response)) = resolved(&place) else {
        panic!("{operation} {template} is not described to answer {}: {:?}", got.status, got.body)
    };
    check_headers(response, &place, &got.headers);
    if method == "HEAD" || got.body.is_empty() {
        assert!(method == "HEAD" || response.get("content").is_none(), "{place} says that there is a body");
        return;
    }
    let content_type = got.header("content-type").expect("a body has a type");
    let essence = content_type.split(';').next().unwrap_or_default();
    assert!(response["content"].get(essence).is_some(), "{place} does not have {essence}");
    if essence == "application/json" {
        holds(&format!("{place}/content/application~1json/schema"), &got.json(), path);
    }
}

/// The path of the description that an address means: one without parameters before one with.
pub(super) fn path_item(path: &str) -> Option<(&'static str, &'static Value)> {
    let paths = CLOSED["paths"].as_object().expect("paths");
    let fitting = paths.iter().filter(|(template, _)| fits(template, path));
    fitting
        .min_by_key(|(template, _)| template.matches('{').count())
        .map(|(template, item)| (template.as_str(), item))
}

fn fits(template: &str, path: &str) -> bool {
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(expected), Some(got))
                if expected.starts_with('{') && !got.is_empty() || expected == got => {}
            _ => return false,
        }
    }
}

/// The operation that answers a method. HEAD is GET where it is not described by itself.
fn operation(item: &Value, method: &str) -> Option<&'static str> {
    let names = ["get", "head", "options", "post", "patch", "delete"];
    let has = |name: &str| names.into_iter().find(|known| *known == name && item.get(name).is_some());
    has(&method.to_ascii_lowercase()).or_else(|| if method == "HEAD" { has("get") } else { None })
}

/// What `Allow` says of a path.
fn methods(item: &Value) -> String {
    let known = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST"];
    known.into_iter().filter(|method| operation(item, method).is_some()).collect::<Vec<_>>().join(", ")
}

fn check_headers(response: &Value, place: &str, headers: &HeaderMap) {
    let none = serde_json::Map::new();
    let described = response.get("headers").map_or(&none, |headers| headers.as_object().expect("headers"));
    for name in headers.keys().filter(|name| !OF_HTTP.contains(&name.as_str())) {
        assert!(
            described.keys().any(|known| known.eq_ignore_ascii_case(name.as_str())),
            "{place} does not describe the header {name}"
        );
    }
    for name in described.keys() {
        let at = format!("{place}/headers/{}", escaped(name));
        let (at, header) = resolved(&at).unwrap_or_else(|| panic!("{at} is not there"));
        match headers.get(name) {
            Some(value) => {
                let text = value.to_str().expect("text");
                let is_number = header["schema"]["type"] == "integer";
                let value =
                    if is_number { text.parse().map_or(json!(text), |n: u64| json!(n)) } else { json!(text) };
                holds(&format!("{at}/schema"), &value, name);
            }
            None => assert!(header["required"] != true, "{place}: {name} is missing"),
        }
    }
}

/// What stands at a place of the description, or where a reference there leads.
fn resolved(place: &str) -> Option<(String, &'static Value)> {
    let found = CLOSED.pointer(place)?;
    match found.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolved(reference.trim_start_matches('#')),
        None => Some((place.to_owned(), found)),
    }
}

/// Fails unless the value is what the schema at this place of the description says.
pub(super) fn holds(place: &str, value: &Value, of: &str) {
    let mut validators = VALIDATORS.lock().expect("no test panicked inside");
    let validator =
        *validators.entry(place.to_owned()).or_insert_with(|| Box::leak(Box::new(validator(place))));
    drop(validators);
    let wrong: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{of} is not described by {place}:\n{}\n{value}", wrong.join("\n"));
}

fn validator(place: &str) -> Validator {
    let fragment = place.replace('{', "%7B").replace('}', "%7D");
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_registry(&REGISTRY)
        .should_validate_formats(true)
        .build(&json!({"$ref": format!("{DOCUMENT}#{fragment}")}))
        .unwrap_or_else(|error| panic!("{place} is not a schema: {error}"))
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Leaves no room in objects whose fields are written down.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(close);
            let has_fields = object.get("properties").is_some_and(Value::is_object);
            if has_fields && object.get("type").is_some_and(|kind| kind == "object") {
                object.entry("additionalProperties").or_insert(Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
