//! The API's description: that it is served, and that it and the code say the same.

use std::collections::BTreeSet;

use serde_json::json;

use super::{described, *};
use crate::{
    core::{AdjustmentKind, GoalType, GroupBy, Method, Model, Plan, Source, Traffic, Unattributed, Verdict},
    http::{error::ErrorCode, openapi, router::TABLE},
};

#[tokio::test]
async fn the_document_is_served_and_cached() {
    let it = Fixture::new();
    let got = it.send("GET", "/openapi.json", &[], "").await;
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")));
    assert_eq!(got.json()["openapi"], "3.1.0");
    assert_eq!(got.json()["info"]["version"], env!("CARGO_PKG_VERSION"));
    let etag = got.header("etag").expect("a name").to_owned();
    for known in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let got = it.send("GET", "/openapi.json", &[("if-none-match", &known)], "").await;
        assert_eq!(
            (got.status, got.body.len(), got.header("etag")),
            (304, 0, Some(etag.as_str())),
            "{known}"
        );
    }
    assert_eq!(it.send("GET", "/openapi.json", &[("if-none-match", "\"other\"")], "").await.status, 200);
    assert_eq!(it.send("HEAD", "/openapi.json", &[], "").await.status, 200);
    assert_eq!(it.send("POST", "/openapi.json", &[], "").await.code().0, 405);
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = openapi::document();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("an object").keys().filter(|name| *name != "parameters") {
            described.insert((method.to_ascii_uppercase(), path.clone()));
        }
    }
    let routes: BTreeSet<_> =
        TABLE.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    let missing: Vec<_> = routes.difference(&described).collect();
    let invented: Vec<_> = described.difference(&routes).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not described: {missing:?}; not routed: {invented:?}"
    );
}

#[test]
fn enums_are_those_of_the_code() {
    let document = openapi::document();
    let described = |place: &str| -> Vec<String> {
        let names = document.pointer(&format!("/components/schemas/{place}/enum")).expect(place);
        let names = names.as_array().expect("an enum").iter().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    let same = |place: &str, names: &[&str]| assert_eq!(described(place), names, "{place}");
    same("ErrorCode", &ErrorCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
    same("GoalType", &GoalType::ALL.map(GoalType::as_str));
    same("Plan", &[Plan::Starter, Plan::Pro, Plan::Enterprise].map(Plan::as_str));
    same("Source", &[Source::Postback, Source::Pixel, Source::Api].map(Source::as_str));
    same("AdjustmentKind", &AdjustmentKind::ALL.map(AdjustmentKind::as_str));
    same("Explanation/properties/model", &[Model::Last, Model::First].map(Model::as_str));
    same("Attribution/properties/method", &[Method::ClickId, Method::IpUserAgent].map(Method::as_str));
    let traffic = [Traffic::Human, Traffic::Bot, Traffic::Prefetch];
    same("Candidate/properties/traffic", &traffic.map(Traffic::as_str));
    let reasons = [
        Unattributed::ClickNotFound,
        Unattributed::OutsideWindow,
        Unattributed::AfterConversion,
        Unattributed::NoCandidate,
        Unattributed::PrivateAddress,
        Unattributed::NoVisitor,
    ];
    same("Attribution/properties/reason", &reasons.map(Unattributed::as_str));
    same("UnattributedReason", &reasons.map(Unattributed::as_str));
    same("GroupBy", &GroupBy::ALL.map(GroupBy::as_str));
    let verdicts = [
        Verdict::Won,
        Verdict::Outranked,
        Verdict::OlderThanWindow,
        Verdict::AfterConversion,
        Verdict::ArrivedTooLate,
        Verdict::Bot,
        Verdict::PrivateAddress,
        Verdict::NotNamed,
        Verdict::OtherVisitor,
        Verdict::OtherAccount,
    ];
    same("Candidate/properties/verdict", &verdicts.map(Verdict::as_str));
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let document = openapi::document();
    let tags: Vec<_> = document["tags"].as_array().expect("tags").iter().map(|tag| &tag["name"]).collect();
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in
            item.as_object().expect("an object").iter().filter(|(name, _)| *name != "parameters")
        {
            let name =
                operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no name"));
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(operation["summary"].is_string(), "{name}");
            assert!(tags.contains(&&operation["tags"][0]), "{name}");
            for shorthand in ["answers", "errors", "headers"] {
                assert!(operation.get(shorthand).is_none(), "{name} keeps {shorthand}");
            }
        }
    }
}

/// Each example is what its schema says: of bodies, of parameters, and of the schemas themselves.
#[test]
fn examples_are_possible() {
    let mut seen = 0;
    walk(&openapi::document(), "", &mut |place, value| {
        if let (Some(example), true) = (value.get("example"), value.get("schema").is_some()) {
            seen += 1;
            described::holds(&format!("{place}/schema"), example, place);
        }
        let is_schema = place.contains("/schema");
        if let (Some(Value::Array(examples)), true) = (value.get("examples"), is_schema) {
            for example in examples {
                seen += 1;
                described::holds(place, example, place);
            }
        }
    });
    assert!(seen > 40, "{seen}");
}

/// Unknown names would pass for documented ones, and fields of combined objects can't be closed.
#[test]
fn references_lead_somewhere_and_objects_are_written_out() {
    let document = openapi::document();
    walk(&document, "", &mut |place, value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').expect("inside the document");
            assert!(document.pointer(pointer).is_some(), "{place}: {reference}");
        }
        assert!(value.get("allOf").is_none(), "{place}");
    });
}

#[test]
#[should_panic(expected = "is not described by")]
fn a_field_that_is_not_described_is_noticed() {
    let mut goal = json!({"name": "tally", "version": "1", "what": "", "track": "", "api": ""});
    goal["colour"] = json!("red");
    let body = json!({"success": true, "data": goal}).to_string().into();
    let headers = HeaderMap::from_iter([(
        "content-type".parse().expect("a name"),
        "application/json".parse().expect("a value"),
    )]);
    described::check("GET", "/", &Got { status: 200, headers, body });
}

#[test]
#[should_panic(expected = "is not described to answer 418")]
fn a_status_that_is_not_described_is_noticed() {
    described::check("GET", "/", &Got { status: 418, headers: HeaderMap::new(), body: Bytes::new() });
}

#[test]
#[should_panic(expected = "does not describe the header x-colour")]
fn a_header_that_is_not_described_is_noticed() {
    let headers =
        HeaderMap::from_iter([("x-colour".parse().expect("a name"), "red".parse().expect("a value"))]);
    described::check("HEAD", "/", &Got { status: 200, headers, body: Bytes::new() });
}

/// Every object of a document with its place.
fn walk(value: &Value, place: &str, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(object) => {
            visit(place, value);
            for (name, value) in
                object.iter().filter(|(name, _)| !matches!(name.as_str(), "example" | "examples"))
            {
                walk(value, &format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{place}/{index}"), visit);
            }
        }
        _ => {}
    }
}
