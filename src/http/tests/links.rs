//! Links: their life in the API, and what their visitors meet.

use super::*;
use crate::core::{ClickSource, LinkId, Traffic};

const LINKS: &str = "/api/v1/links";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0";

impl Fixture {
    /// Makes a link of these fields, beside its name.
    async fn link(&self, fields: &str) -> Value {
        let got = self.call("POST", LINKS, &format!(r#"{{"link":{{"name":"n",{fields}}}}}"#)).await;
        assert_eq!(got.status, 201, "{}", String::from_utf8_lossy(&got.body));
        got.json()["data"].clone()
    }

    async fn visit(&self, target: &str, headers: &[(&str, &str)]) -> Got {
        self.send("GET", target, headers, "").await
    }
}

#[tokio::test]
async fn a_link_lives() {
    let it = Fixture::new();
    let body = r#"{"link":{"name":"Winter","destination_url":"https://shop.example/?cid={click_id}","slug":"winter",
        "variants":[{"name":"A","weight":1},{"name":"B","weight":0,"destination_url":"https://b.example"}],
        "utm_source":"mail"}}"#;
    let bearer = format!("Bearer {}", it.key);
    let headers = [("authorization", bearer.as_str()), ("host", "go.example:8080")];
    let got = it.send("POST", LINKS, &headers, body).await;
    assert_eq!(got.status, 201);
    let link = got.json()["data"].clone();
    assert_eq!(
        link,
        serde_json::json!({"id":1,"name":"Winter","slug":"winter","tracking_url":"http://go.example:8080/r/winter",
            "destination_url":"https://shop.example/?cid={click_id}",
            "variants":[{"name":"A","weight":1,"destination_url":null},
                {"name":"B","weight":0,"destination_url":"https://b.example/"}],
            "append_click_id":false,"utm_source":"mail","utm_medium":null,"utm_campaign":null,"utm_term":null,
            "utm_content":null,"created_at":"2026-01-21T12:00:00Z"})
    );
    let path = format!("{LINKS}/1");
    assert_eq!(it.send("GET", &path, &headers, "").await.json()["data"], link);
    assert_eq!(it.call("GET", &path, "").await.json()["data"]["tracking_url"], "http://t/r/winter");
    let got = it.call("PATCH", &path, r#"{"link":{"variants":[],"append_click_id":true}}"#).await;
    assert_eq!((got.status, got.json()["data"]["variants"].clone()), (200, serde_json::json!([])));
    assert_eq!(got.json()["data"]["utm_source"], "mail", "what is not named stays");
    let got = it.visit("/r/winter", &[]).await;
    assert_eq!(got.header("location"), Some("https://shop.example/?cid=789&utm_source=mail&click_id=789"));

    let taken = it.call("POST", LINKS, body).await;
    assert_eq!(
        (taken.code(), taken.json()["error"]["field"].clone()),
        ((409, "slug_taken".into()), "slug".into())
    );
    assert_eq!(it.call("DELETE", &path, "").await.status, 200);
    assert_eq!(it.call("POST", LINKS, body).await.code(), (409, "slug_taken".into()), "for ever");
    assert_eq!(it.visit("/r/winter", &[]).await.status, 404);
    for method in ["GET", "DELETE"] {
        assert_eq!(it.call(method, &path, "").await.code(), (404, "link_not_found".into()));
    }
    assert_eq!(it.call("GET", LINKS, "").await.json()["pagination"]["total"], 0);
    let issued = it.link(r#""destination_url":"https://a.example""#).await;
    assert_eq!((issued["id"].clone(), issued["slug"].as_str().map(str::len)), (2.into(), Some(10)));
    assert_eq!(it.call("PATCH", &format!("{LINKS}/2"), r#"{"link":{"slug":"x"}}"#).await.status, 422);
}

#[tokio::test]
async fn links_page_and_need_a_key() {
    let it = Fixture::new();
    for _ in 0..3 {
        it.link(r#""destination_url":"https://a.example""#).await;
    }
    let got = it.call("GET", &format!("{LINKS}?page=2&per_page=2"), "").await.json();
    assert_eq!(got["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(got["pagination"], serde_json::json!({"page":2,"per_page":2,"total":3,"total_pages":2}));
    for (method, path) in
        [("GET", LINKS), ("POST", LINKS), ("GET", "/api/v1/links/1"), ("PATCH", "/api/v1/links/1")]
    {
        assert_eq!(it.send(method, path, &[], "").await.code(), (401, "unauthorized".into()));
    }
}

#[tokio::test]
async fn a_visit_becomes_a_click_and_the_visitor_goes_on() {
    let it = Fixture::new();
    it.link(
        r#""slug":"w","destination_url":"https://shop.example/p?c={click_id}&v={variant}#top",
        "variants":[{"name":"B"}],"utm_medium":"cpc""#,
    )
    .await;
    let query = "utm_source=face+book&utm_campaign=x&sub1=s&click_id=5&gclid=G";
    let got = it.visit(&format!("/r/w?{query}"), &[("user-agent", FIREFOX)]).await;
    assert_eq!(got.status, 302);
    assert_eq!(
        got.header("location"),
        Some(
            "https://shop.example/p?c=789&v=B&utm_source=face+book&utm_campaign=x&sub1=s&gclid=G&utm_medium=cpc#top"
        )
    );
    assert_eq!(got.header("cache-control"), Some("no-store"));
    assert_eq!(got.header("referrer-policy"), Some("strict-origin-when-cross-origin"));
    assert!(got.body.is_empty());
    let clicked = it.clicked();
    let click = clicked.first().expect("a click");
    assert_eq!((click.account_id, click.link_id, click.click_id), (AccountId(1), Some(LinkId(1)), None));
    assert_eq!((click.clicked_at, click.received_at), (NOW, NOW));
    assert_eq!(
        (click.source, click.traffic, click.variant.as_str()),
        (ClickSource::Redirect, Traffic::Human, "B")
    );
    assert_eq!((click.campaign.source.as_str(), click.campaign.medium.as_str()), ("face book", "cpc"));
    assert_eq!((click.subs[0].as_str(), click.subs[1].as_str()), ("s", ""));
    assert_eq!((click.ip, click.user_agent.as_str()), ("203.0.113.9".parse().ok(), FIREFOX));
}

#[tokio::test]
async fn robots_and_looks_ahead_are_redirected_and_told_apart() {
    let it = Fixture::new();
    it.link(r#""slug":"w","destination_url":"https://shop.example""#).await;
    for (method, headers) in [
        ("GET", [("user-agent", "Twitterbot/1.0"), ("accept", "*/*")]),
        ("HEAD", [("user-agent", FIREFOX), ("accept", "*/*")]),
        ("GET", [("user-agent", FIREFOX), ("sec-purpose", "prefetch")]),
        ("GET", [("user-agent", FIREFOX), ("purpose", "prefetch")]),
    ] {
        assert_eq!(it.send(method, "/r/w", &headers, "").await.status, 302);
    }
    let traffic: Vec<_> = it.clicked().iter().map(|click| click.traffic).collect();
    assert_eq!(traffic, [Traffic::Bot, Traffic::Prefetch, Traffic::Prefetch, Traffic::Prefetch]);
}

#[tokio::test]
async fn proxies_are_believed_about_visitors_when_they_are_trusted() {
    let mut it = Fixture::new();
    it.link(r#""slug":"w","destination_url":"https://shop.example""#).await;
    let headers = [("x-forwarded-for", "198.51.100.1")];
    it.visit("/r/w", &headers).await;
    it.services.limits.trusted_proxies = vec!["203.0.113.0/24".parse().expect("a network")];
    it.visit("/r/w", &headers).await;
    let ips: Vec<_> = it.clicked().iter().filter_map(|click| click.ip).map(|ip| ip.to_string()).collect();
    assert_eq!(ips, ["203.0.113.9", "198.51.100.1"]);
}

#[tokio::test]
async fn a_visitor_is_shown_the_same_variant_again() {
    let mut it = Fixture::new();
    it.link(
        r#""slug":"w","destination_url":"https://a.example/{variant}",
        "variants":[{"name":"A","weight":3},{"name":"B","weight":1,"destination_url":"https://b.example"}]"#,
    )
    .await;
    it.services.limits.trusted_proxies = vec!["203.0.113.0/24".parse().expect("a network")];
    let mut shown = [0; 2];
    for visitor in 0..200 {
        let ip = format!("198.51.100.{visitor}");
        let headers = [("x-forwarded-for", ip.as_str()), ("user-agent", FIREFOX)];
        let first = it.visit("/r/w", &headers).await;
        let first = first.header("location").expect("a location");
        for query in ["", "?utm_source=again"] {
            let again = it.visit(&format!("/r/w{query}"), &headers).await;
            assert!(again.header("location").expect("a location").starts_with(first), "{ip}");
        }
        shown[usize::from(first == "https://b.example/")] += 1;
    }
    assert!((30..70).contains(&shown[1]), "a quarter of 200: {shown:?}");
}

#[tokio::test]
async fn a_visitor_goes_on_when_the_record_does_not_come_in_time() {
    let it = Fixture::new();
    it.link(r#""slug":"w","destination_url":"https://shop.example/?c={click_id}""#).await;
    for recorded in [Some(false), None] {
        *it.services.intake.visit_outcome.lock() = recorded;
        let got = it.visit("/r/w", &[]).await;
        assert_eq!((got.status, got.header("location")), (302, Some("https://shop.example/?c=789")));
    }
}

#[tokio::test]
async fn a_link_of_an_account_without_tracking_leads_on_unrecorded() {
    let it = Fixture::new();
    it.link(r#""slug":"w","destination_url":"https://shop.example/?c={click_id}""#).await;
    assert_eq!(it.call("PATCH", "/api/v1/accounts/1", r#"{"account":{"plan":"starter"}}"#).await.status, 200);
    let got = it.visit("/r/w", &[]).await;
    assert_eq!((got.status, got.header("location")), (302, Some("https://shop.example/?c=789")));
    assert!(it.clicked().is_empty());
    let refused =
        it.call("POST", LINKS, r#"{"link":{"name":"n","destination_url":"https://a.example"}}"#).await;
    assert_eq!(refused.code(), (403, "plan_required".into()));
}

#[tokio::test]
async fn a_slug_that_is_not_there_is_said_so_in_the_callers_language() {
    let it = Fixture::new();
    let page = it.visit("/r/none", &[("accept", "text/html,*/*;q=0.8")]).await;
    assert_eq!((page.status, page.header("content-type")), (404, Some("text/html; charset=utf-8")));
    let json = it.visit("/r/none", &[("accept", "application/json")]).await;
    assert_eq!(json.code(), (404, "link_not_found".into()));
    for slug in ["%77", "..", "%2e%2e", "w%0d%0aSet-Cookie:a=b", "W", "w;x", &"x".repeat(5000)] {
        let got = it.visit(&format!("/r/{slug}"), &[]).await;
        assert_eq!((got.status, got.header("cache-control")), (404, Some("no-store")), "{slug}");
    }
    assert!(it.clicked().is_empty());
}

#[tokio::test]
async fn a_slug_is_found_however_its_address_was_written() {
    let it = Fixture::new();
    for (slug, written) in [
        ("q5", &["q5", "Q5", "q5/", "q5.", "q5//", "q5,", "q5%20", "%71%35", "Q5/?utm_source=x"][..]),
        (
            "Black-Friday",
            &["Black-Friday", "black-friday", "BLACK-FRIDAY", "Black%2DFriday", "black-friday)."],
        ),
    ] {
        let link =
            format!(r#"{{"link":{{"name":"n","slug":"{slug}","destination_url":"https://shop.example/"}}}}"#);
        assert_eq!(it.call("POST", "/api/v1/links", &link).await.status, 201, "{slug}");
        for written in written {
            assert_eq!(it.visit(&format!("/r/{written}"), &[]).await.status, 302, "{written}");
        }
        let other = link.replace(slug, &slug.to_ascii_uppercase());
        assert_eq!(
            it.call("POST", "/api/v1/links", &other).await.code(),
            (409, "slug_taken".into()),
            "{slug}"
        );
    }
    for unknown in ["q", "q55", "", "/", "q5/x"] {
        assert_eq!(it.visit(&format!("/r/{unknown}"), &[]).await.status, 404, "{unknown}");
    }
}
