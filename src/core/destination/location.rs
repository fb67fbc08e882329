//! From a destination and a visit to the address that the visitor is sent to.

use std::{borrow::Cow, fmt::Write as _};

use ahash::AHashSet;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};

use super::Destination;
use crate::core::{Campaign, ClickId, Link, SUBS, free_value, label};

/// What is replaced in a value: all but RFC 3986's unreserved characters, so that it can't end its parameter.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What is replaced in a parameter that is carried over as it came.
const CARRIED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// Length up to which a visitor's own parameters are carried over, in bytes: as much as servers take.
const LOCATION_BYTES_MAX: usize = 8192;
/// The parameter that names our click.
const CLICK_ID: &str = "click_id";

/// What a visit brings to a destination.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The link that was followed.
    pub link: &'a Link,
    /// The number of its click.
    pub click_id: ClickId,
    /// The variant that is shown; empty: none.
    pub variant: &'a str,
    /// Where the visitor came from, the link's defaults in it.
    pub campaign: &'a Campaign,
    /// Free values.
    pub subs: &'a [String; SUBS],
    /// The query as it came.
    pub query: &'a str,
}

impl Destination {
    /// The address for a visit: macros replaced, then what the visitor brought and the destination does not say itself,
    /// then what the link adds. The fragment stays at the end.
    #[must_use]
    pub fn location(&self, visit: &Visit<'_>) -> String {
        let (page, fragment) =
            self.0.split_once('#').map_or((self.0.as_str(), None), |(page, f)| (page, Some(f)));
        let mut location = String::with_capacity(self.0.len() + visit.query.len() + 64);
        expand(page, visit, &mut location);
        let own = location.split_once('?').map_or("", |(_, query)| query);
        let mut said: AHashSet<String> = own.split('&').map(name_of).collect();
        let names_click = said.contains(CLICK_ID);
        // A click id that a visitor brings is somebody else's.
        said.insert(CLICK_ID.to_owned());
        let mut tail = Tail {
            has_query: location.contains('?'),
            room: LOCATION_BYTES_MAX.saturating_sub(location.len()),
            location,
        };
        let mut brought = AHashSet::new();
        for pair in visit.query.split('&').filter(|pair| !pair.is_empty()) {
            let name = name_of(pair);
            // Blank is not said: the link's default takes its place.
            let blank_utm = is_utm(&name) && pair.split_once('=').is_none_or(|(_, value)| value.is_empty());
            if !blank_utm && !said.contains(&name) && tail.carry(pair) {
                brought.insert(name);
            }
        }
        for (name, value) in utm(&visit.link.campaign) {
            if !value.is_empty() && !said.contains(name) && !brought.contains(name) {
                tail.add(name, value);
            }
        }
        if visit.link.append_click_id && !names_click {
            tail.add(CLICK_ID, &visit.click_id.0.to_string());
        }
        let mut location = tail.location;
        if let Some(fragment) = fragment {
            location.push('#');
            expand(fragment, visit, &mut location);
        }
        location
    }
}

/// An address whose query grows.
struct Tail {
    location: String,
    has_query: bool,
    /// Bytes that may still be carried over.
    room: usize,
}

impl Tail {
    /// Carries a pair over as it came; false: there was no room for it.
    fn carry(&mut self, pair: &str) -> bool {
        let pair: Cow<'_, str> = utf8_percent_encode(pair, CARRIED).into();
        let fits = pair.len() < self.room;
        if fits {
            self.room -= pair.len() + 1;
            self.separate();
            self.location.push_str(&pair);
        }
        fits
    }

    fn add(&mut self, name: &str, value: &str) {
        self.separate();
        let _ = write!(self.location, "{name}={}", utf8_percent_encode(value, VALUE));
    }

    fn separate(&mut self) {
        if !self.has_query {
            self.location.push('?');
            self.has_query = true;
        } else if !self.location.ends_with(['?', '&']) {
            self.location.push('&');
        }
    }
}

/// Writes the text with its macros replaced. A value is as long as a label may be, and can't end what it stands in.
fn expand(text: &str, visit: &Visit<'_>, out: &mut String) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        out.extend(percent_encode(value(name, visit).as_bytes(), VALUE));
        rest = after;
    }
    out.push_str(rest);
}

fn value<'a>(name: &str, visit: &Visit<'a>) -> Cow<'a, str> {
    match name {
        CLICK_ID => visit.click_id.0.to_string().into(),
        "link_id" => visit.link.id.0.to_string().into(),
        "slug" => visit.link.slug.as_str().into(),
        "variant" => visit.variant.into(),
        _ => {
            let sub = || name.strip_prefix("sub")?.parse::<usize>().ok()?.checked_sub(1);
            let utm = utm(visit.campaign).into_iter().find(|(utm, _)| *utm == name).map(|(_, value)| value);
            utm.or_else(|| visit.subs.get(sub()?).map(String::as_str)).unwrap_or_default().into()
        }
    }
}

fn utm(campaign: &Campaign) -> [(&'static str, &str); 5] {
    [
        ("utm_source", &campaign.source),
        ("utm_medium", &campaign.medium),
        ("utm_campaign", &campaign.campaign),
        ("utm_term", &campaign.term),
        ("utm_content", &campaign.content),
    ]
}

fn is_utm(name: &str) -> bool {
    utm(&Campaign::default()).iter().any(|(utm, _)| *utm == name)
}

/// The name of a parameter as a forgiving server reads it: without case, and as PHP does with `cid[]`, `click.id` and
/// `click id`. So nothing that is carried over can stand for, or spoil, what the destination says itself.
fn name_of(pair: &str) -> String {
    let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default().trim();
    name.chars().map(|c| if matches!(c, '.' | ' ') { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Reads the labels of a visit's query. Of a repeated one the last counts.
#[must_use]
pub fn labels(query: &str) -> (Campaign, [String; SUBS]) {
    let (mut campaign, mut subs) = (Campaign::default(), <[String; SUBS]>::default());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "utm_source" => campaign.source = label(&value),
            "utm_medium" => campaign.medium = label(&value),
            "utm_campaign" => campaign.campaign = label(&value),
            "utm_term" => campaign.term = label(&value),
            "utm_content" => campaign.content = label(&value),
            "sub1" => subs[0] = free_value(&value),
            "sub2" => subs[1] = free_value(&value),
            "sub3" => subs[2] = free_value(&value),
            "sub4" => subs[3] = free_value(&value),
            "sub5" => subs[4] = free_value(&value),
            _ => {}
        }
    }
    (campaign, subs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;
    use crate::core::{AccountId, LinkId, UnixMillis};

    fn link(destination: &str) -> Link {
        Link {
            id: LinkId(7),
            account_id: AccountId(1),
            name: "Winter".into(),
            slug: "winter".into(),
            destination: Destination::parse(destination).expect("a destination"),
            variants: Vec::new(),
            append_click_id: false,
            campaign: Campaign::default(),
            created_at: UnixMillis(0),
        }
    }

    fn location(link: &Link, query: &str) -> String {
        let (campaign, subs) = labels(query);
        let campaign = campaign.or(&link.campaign);
        let visit =
            Visit { link, click_id: ClickId(789), variant: "B", campaign: &campaign, subs: &subs, query };
        link.destination.location(&visit)
    }

    #[test]
    fn macros_are_replaced_wherever_they_stand() {
        let link = link(
            "https://a.example/{variant}/{slug}?c={click_id}&l={link_id}&s={utm_source}&x={sub5}#k={utm_term}",
        );
        assert_eq!(
            location(&link, "utm_source=a%26b%3D%23&sub5=%C3%A4+%3F&utm_term=t"),
            "https://a.example/B/winter?c=789&l=7&s=a%26b%3D%23&x=%C3%A4%20%3F\
             &utm_source=a%26b%3D%23&sub5=%C3%A4+%3F&utm_term=t#k=t"
        );
        assert_eq!(location(&link, ""), "https://a.example/B/winter?c=789&l=7&s=&x=#k=");
    }

    #[test]
    fn what_a_visitor_brings_is_carried_over_unless_the_destination_says_it() {
        let own = link("https://a.example/?color=red&cid={click_id}#top");
        for (query, carried) in [
            ("size=4&color=blue", "&size=4"),
            ("Color=blue&COLOR=x&color[]=y&color.=z", "&color.=z"),
            ("cid=5&cid[]=5&cid%5B%5D=5", ""),
            ("a=1&a=2&b&=&&c=", "&a=1&a=2&b&=&c="),
            ("q=%C3%A4+x%20y%zz%", "&q=%C3%A4+x%20y%zz%"),
            ("q={click_id}", "&q=%7Bclick_id%7D"),
            ("next=https://evil.example/", "&next=https://evil.example/"),
        ] {
            let expected = format!("https://a.example/?color=red&cid=789{carried}#top");
            assert_eq!(location(&own, query), expected, "{query}");
        }
        assert_eq!(location(&link("https://a.example"), "x=1&y=2"), "https://a.example/?x=1&y=2");
        assert_eq!(location(&link("https://a.example/?"), "x=1"), "https://a.example/?x=1");
        assert_eq!(location(&link("https://a.example/?a&"), "x=1"), "https://a.example/?a&x=1");
    }

    #[test]
    fn nobody_else_names_the_click() {
        let plain = link("https://a.example/");
        let appended = Link { append_click_id: true, ..plain.clone() };
        for query in ["click_id=5", "CLICK_ID=5", "click%5Fid=5", "click.id=5", "click_id[]=5", "click+id=5"]
        {
            assert_eq!(location(&plain, query), "https://a.example/", "{query}");
            assert_eq!(location(&appended, query), "https://a.example/?click_id=789", "{query}");
        }
        let named = Link { append_click_id: true, ..link("https://a.example/?click_id={click_id}") };
        assert_eq!(location(&named, "click_id=5"), "https://a.example/?click_id=789");
    }

    #[test]
    fn the_links_utm_parameters_fill_what_nobody_says() {
        let campaign =
            Campaign { source: "news letter".into(), medium: "email".into(), ..Campaign::default() };
        let plain = Link { campaign: campaign.clone(), ..link("https://a.example/") };
        let both = "utm_source=news%20letter&utm_medium=email";
        assert_eq!(location(&plain, ""), format!("https://a.example/?{both}"));
        assert_eq!(location(&plain, "utm_source=&x=1"), format!("https://a.example/?x=1&{both}"), "blank");
        assert_eq!(
            location(&plain, "utm_source=ad"),
            "https://a.example/?utm_source=ad&utm_medium=email",
            "the visit says it"
        );
        let own = Link { campaign, ..link("https://a.example/?utm_source=own&m={utm_medium}") };
        assert_eq!(
            location(&own, "utm_source=ad"),
            "https://a.example/?utm_source=own&m=email&utm_medium=email",
            "the destination says it"
        );
    }

    #[test]
    fn an_address_does_not_outgrow_what_servers_take() {
        let link = link(&format!("https://a.example/?{}", "{sub1}".repeat(16)));
        let query = format!("sub1={}&{}", "%F0%9F%8E%84".repeat(40), "abcdefgh=1&".repeat(2000));
        let location = location(&link, &query);
        assert!((8000..=LOCATION_BYTES_MAX).contains(&location.len()), "{}", location.len());
        assert!(!location.ends_with("abcdefgh"), "parameters are carried over whole");
    }

    #[test]
    fn of_a_repeated_label_the_last_counts() {
        let (campaign, subs) = labels("utm_source=a&utm_source=b&sub1=x&sub6=y&utm_Medium=z");
        assert_eq!((campaign.source.as_str(), campaign.medium.as_str(), subs[0].as_str()), ("b", "", "x"));
    }

    proptest! {
        /// Whatever a visitor brings, the site is the link's, and so is every parameter that it names.
        #[test]
        fn the_host_is_always_the_links(
            page in "[a-z/.?&=#%@:\\\\]{0,40}",
            placed in proptest::sample::subsequence(super::super::MACROS.to_vec(), 0..6),
            query in proptest::prop_oneof!["\\PC{0,80}", "[a-z0-9=&%+.\\[\\]#/?@:{}\\\\ ]{0,80}"],
            append_click_id: bool,
            default in "\\PC{0,20}",
        ) {
            let macros: Vec<_> = placed.iter().map(|name| format!("/{{{name}}}?{name}={{{name}}}#")).collect();
            let macros = macros.concat();
            let template = format!("https://shop.example:8443/{page}{macros}");
            let Ok(destination) = Destination::parse(&template) else { return Ok(()) };
            let campaign = Campaign { source: label(&default), ..Campaign::default() };
            let link = Link { destination, append_click_id, campaign, ..link("https://a.example/") };
            let location = location(&link, &query);
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{}", location);
            prop_assert!(location.starts_with("https://shop.example:8443/"));
            let url = Url::parse(&location).expect("a URL");
            prop_assert_eq!((url.scheme(), url.host_str(), url.port()), ("https", Some("shop.example"), Some(8443)));
            prop_assert!(url.username().is_empty() && url.password().is_none());
            prop_assert_eq!(url.fragment().is_some(), link.destination.as_str().contains('#'));
            let ours = url.query_pairs().filter(|(name, _)| name.eq_ignore_ascii_case("click_id"));
            if !link.destination.as_str().contains("click_id=") {
                prop_assert!(ours.clone().all(|(_, value)| value == "789") && ours.count() <= 1);
            }
        }
    }
}
