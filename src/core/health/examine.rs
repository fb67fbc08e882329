//! What explains numbers that look wrong, by the troubleshooting table: no conversions, duplicates, wrong attribution, low
//! rate.

use super::{ClickFacts, DUPLICATE, Health, HealthFinding, HealthReport, HealthSetup, Severity};
use crate::core::{Unattributed, percent};

/// Below that many of anything a share says nothing.
const FEW: u64 = 10;
/// From that many human clicks on, a rate says something.
const MANY_CLICKS: u64 = 1000;

/// What explains numbers that look wrong, the gravest first; nothing: all is well.
#[must_use]
pub fn examine(report: &HealthReport, setup: &HealthSetup) -> Vec<HealthFinding> {
    let sums = Health::of(report);
    let mut findings = Vec::new();
    arrival(report, sums, setup, &mut findings);
    copies(report, sums, setup, &mut findings);
    attribution(report, sums, &mut findings);
    clicks(report, sums, &mut findings);
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Whether `part` is at least that share, in percent, and more than a few.
fn is_common(part: u64, whole: u64, share: f64) -> bool {
    part >= FEW && percent(part, whole) >= share
}

/// "No conversions": nothing came, or what came was refused.
fn arrival(report: &HealthReport, sums: Health, setup: &HealthSetup, findings: &mut Vec<HealthFinding>) {
    let mut find = |code, severity, message, action| {
        findings.push(HealthFinding { code, severity, message, action });
    };
    let refused_as = |code: &str| -> u64 {
        let of = report.refused.iter().filter(|refused| refused.code == code);
        of.map(|refused| refused.count).sum()
    };
    if setup.plan_without_tracking {
        find(
            "plan_without_tracking",
            Severity::Error,
            "The account's plan has no conversion tracking: every hit is refused with plan_required.".into(),
            "Change the account's plan.",
        );
    }
    if sums.received == 0 {
        find(
            "nothing_received",
            Severity::Error,
            "No hit reached this goal in the period, not even one that was refused.".into(),
            "Check that the page or the server calls the tracking address with this goal's postback token: a hit with \
             another token gets 404 unknown_token and is recorded nowhere. Then send one by hand.",
        );
    } else if report.conversions.count == 0 && sums.refused > 0 {
        let most = report.refused.iter().find(|refused| refused.code != DUPLICATE);
        let code = most.map_or("", |refused| &*refused.code);
        find(
            "everything_refused",
            Severity::Error,
            format!("{} hits came and none of them counts, most of them refused with {code}.", sums.received),
            "Look at the examples: each has the code, the field at fault and what came.",
        );
    } else if is_common(sums.refused, sums.received, 5.0) {
        find(
            "hits_refused",
            Severity::Warning,
            format!("{} % of {} hits were refused.", percent(sums.refused, sums.received), sums.received),
            "Look at the examples: each has the code, the field at fault and what came.",
        );
    }
    let limited = refused_as("rate_limited");
    if limited > 0 {
        find(
            "rate_limited",
            Severity::Warning,
            format!("At least {limited} hits were refused because too many came in a minute."),
            "Send them again after Retry-After, or in bulk with POST /api/v1/conversions/batch; or raise the account's \
             rate limit.",
        );
    }
    let macros = refused_as("unexpanded_macro");
    if macros > 0 {
        find(
            "unexpanded_macros",
            Severity::Error,
            format!("{macros} hits held a macro, such as {{click_id}}, that the sender did not replace."),
            "Correct the macro's name in the network's postback settings.",
        );
    }
    let foreign = refused_as("no_known_field");
    if foreign > 0 {
        find(
            "no_known_field",
            Severity::Error,
            format!("{foreign} hits had none of the fields that tell of a sale."),
            "Send value, order_id or click_id: see the examples for the names that came instead.",
        );
    }
    if setup.hits_with_ignored_fields > 0 {
        find(
            "fields_ignored",
            Severity::Info,
            format!(
                "{} hits since the daemon started had fields that mean nothing here: {}.",
                setup.hits_with_ignored_fields,
                setup.ignored_fields.join(", ")
            ),
            "If one of them is the order's value, its id or the click's id under another name, send it under the name that is \
             known here. The visitor's ip, user_agent and converted_at count only where the goal has trust_client_fields.",
        );
    }
    if setup.postbacks_disabled > 0 {
        find(
            "postback_disabled",
            Severity::Error,
            "The goal's postback_url answered 410 and is not called any more.".into(),
            "Set the goal's postback_url anew, then send what was missed with POST …/goals/{id}/backfill.",
        );
    }
    if setup.purchases && is_common(report.conversions.without_value, report.conversions.count, 50.0) {
        find(
            "values_missing",
            Severity::Warning,
            format!(
                "{} % of the sales are worth nothing.",
                percent(report.conversions.without_value, report.conversions.count)
            ),
            "Send the order's value, or give the goal a value for hits that bring none.",
        );
    }
}

/// "Duplicates": copies that were recognised, and those that can't be.
fn copies(report: &HealthReport, sums: Health, setup: &HealthSetup, findings: &mut Vec<HealthFinding>) {
    let mut find = |code, message, action| {
        findings.push(HealthFinding { code, severity: Severity::Warning, message, action });
    };
    if sums.conflicts > 0 {
        find(
            "conflicting_duplicates",
            format!(
                "{} copies had another value or currency than the first one, which counts.",
                sums.conflicts
            ),
            "Give each order an id of its own, and report a changed value as an adjustment.",
        );
    }
    let copied = report.conversions.count + sums.duplicates;
    if is_common(sums.duplicates, copied, 20.0) {
        find(
            "many_duplicates",
            format!("{} % of the hits were copies of others.", percent(sums.duplicates, copied)),
            "They are counted once, so nothing is wrong with the numbers. If they should be different sales, their order \
             ids are not unique.",
        );
    }
    let repeats = report.refused.iter().filter(|refused| refused.code == DUPLICATE);
    let repeats = repeats.map(|refused| refused.of_one_conversion).max().unwrap_or(0);
    if repeats >= FEW {
        find(
            "order_id_repeats",
            format!("One order id came {repeats} times after its first report, which alone counts."),
            "No sender tries so often: look at the examples of duplicate. If the id is a fixed text, put the order's own id in \
             its place; the sales that shared it are lost to the numbers.",
        );
    }
    let without = report.conversions.without_order_id;
    if setup.purchases && is_common(without, report.conversions.count, 20.0) {
        find(
            "order_ids_missing",
            format!(
                "{} % of the sales have no order id: copies of them are counted again.",
                percent(without, report.conversions.count)
            ),
            "Send the shop's order id as order_id, or an Idempotency-Key.",
        );
    }
}

/// "Wrong attribution": why conversions find no click, or the wrong one.
fn attribution(report: &HealthReport, sums: Health, findings: &mut Vec<HealthFinding>) {
    let total = report.conversions.count;
    let mut find = |code, severity, message, action| {
        findings.push(HealthFinding { code, severity, message, action });
    };
    let without =
        |reason: Unattributed| report.attribution.unattributed.get(reason.as_str()).copied().unwrap_or(0);
    let share = |count: u64, what: &str| format!("{} % of the conversions {what}.", percent(count, total));
    let unknown = without(Unattributed::ClickNotFound);
    if is_common(unknown, total, 5.0) {
        find(
            "clicks_not_found",
            Severity::Error,
            share(unknown, "name a click that is not known"),
            "Hand on the number that {click_id} in the link's destination became, not a network's own click id; or report \
             the network's clicks with POST /api/v1/clicks.",
        );
    }
    let old = without(Unattributed::OutsideWindow);
    if is_common(old, total, 20.0) {
        find(
            "outside_window",
            Severity::Warning,
            share(old, "came after the attribution window had ended"),
            "If people really take that long, give the goal a longer attribution window, and decide history anew with \
             tally reattribute.",
        );
    }
    let early = without(Unattributed::AfterConversion);
    if is_common(early, total, 5.0) {
        find(
            "clicks_after_conversion",
            Severity::Warning,
            share(early, "are older than their click"),
            "Compare the clocks of whoever reports clicks and conversions with their own times.",
        );
    }
    let private = without(Unattributed::PrivateAddress);
    if is_common(private, total, 10.0) {
        find(
            "private_addresses",
            Severity::Warning,
            share(private, "came from private or carrier-shared addresses, which name nobody"),
            "Behind a proxy, list it in --trusted-proxies; a server sends the visitor's ip, or better the click_id.",
        );
    }
    let nobody = without(Unattributed::NoVisitor);
    if is_common(nobody, total, 10.0) {
        find(
            "visitors_unknown",
            Severity::Warning,
            share(nobody, "have neither a click_id nor an address with a user agent"),
            "Send the click_id, or the visitor's ip and user_agent.",
        );
    }
    if total >= 2 * FEW && is_common(report.conversions.of_one_visitor, total, 50.0) {
        find(
            "one_visitor_dominates",
            Severity::Warning,
            share(report.conversions.of_one_visitor, "seem to be of one visitor"),
            "That is a server that reports with its own address: send the click_id, or the visitor's ip and user_agent.",
        );
    }
    let strangers = without(Unattributed::NoCandidate);
    if report.clicks.human > 0 && is_common(strangers, total, 50.0) {
        find(
            "visitors_without_click",
            Severity::Info,
            share(strangers, "are of visitors of whom no click is known"),
            "Either they came without a link, or their address changed in between: a click_id that is handed on does not \
             depend on it.",
        );
    }
    if sums.attributed == 0 && is_common(sums.unattributed, total, 100.0) {
        find(
            "nothing_attributed",
            Severity::Warning,
            format!("None of {total} conversions is attributed to a click."),
            "See the reasons in attribution, and GET /api/v1/conversions/{id}?explain=1 for a single one.",
        );
    }
}

/// "Low rate": clicks that are none, or that can't be seen.
fn clicks(report: &HealthReport, sums: Health, findings: &mut Vec<HealthFinding>) {
    let ClickFacts { count, human, without_link } = report.clicks;
    let mut find = |code, severity, message, action| {
        findings.push(HealthFinding { code, severity, message, action });
    };
    if count == 0 && report.conversions.count > 0 {
        find(
            "no_clicks",
            Severity::Warning,
            "There are conversions and no clicks in the period: nothing can be attributed, and there is no rate.".into(),
            "Lead visitors through links (/r/{slug}), or report clicks with POST /api/v1/clicks.",
        );
    }
    if is_common(sums.robots, count, 50.0) {
        find(
            "mostly_robots",
            Severity::Info,
            format!("{} % of the clicks are of robots or link previews.", percent(sums.robots, count)),
            "They are left out of rates already. If they are paid for, take it up with who sends them.",
        );
    }
    if is_common(without_link, count, 20.0) {
        find(
            "clicks_without_link",
            Severity::Info,
            format!("{} % of the clicks name no link.", percent(without_link, count)),
            "Report clicks with their link_id: what names none is in no report by link.",
        );
    }
    let rate = percent(sums.attributed, human);
    if human >= MANY_CLICKS && report.conversions.count > 0 && rate < 0.1 {
        find(
            "low_rate",
            Severity::Info,
            format!("{rate} % of {human} human clicks of the account earned a conversion of this goal."),
            "Look at the other findings first: refused hits and missing attribution lower the rate. Then at the pages that \
             the links lead to.",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        UnixMillis,
        health::{AttributionFacts, ConversionFacts, RefusedFacts},
    };

    /// A goal with 1,000 conversions of 20,000 clicks, with a little of everything that happens every day.
    fn healthy() -> HealthReport {
        let refused = |code: &str, count, conflicts| RefusedFacts {
            code: code.into(),
            count,
            conflicts,
            of_one_conversion: 0,
            examples: Vec::new(),
        };
        let unattributed =
            [("no_candidate", 200), ("outside_window", 30), ("click_not_found", 9), ("no_visitor", 20)];
        HealthReport {
            conversions: ConversionFacts {
                count: 1000,
                last_received_at: Some(UnixMillis(1)),
                by_postback: 600,
                by_pixel: 400,
                by_api: 0,
                without_order_id: 50,
                without_value: 20,
                of_one_visitor: 9,
            },
            attribution: AttributionFacts {
                by_click_id: 500,
                by_ip_user_agent: 241,
                unattributed: unattributed.into_iter().collect(),
            },
            refused: vec![refused("duplicate", 90, 0), refused("invalid_value", 12, 0)],
            clicks: ClickFacts { count: 25_000, human: 20_000, without_link: 40 },
        }
    }

    const SALES: HealthSetup = HealthSetup {
        plan_without_tracking: false,
        postbacks_disabled: 0,
        purchases: true,
        hits_with_ignored_fields: 0,
        ignored_fields: Vec::new(),
    };

    fn found(report: &HealthReport, setup: &HealthSetup) -> Vec<(&'static str, Severity)> {
        examine(report, setup).iter().map(|finding| (finding.code, finding.severity)).collect()
    }

    /// What is found of the healthy goal when this is changed.
    fn when(change: impl FnOnce(&mut HealthReport)) -> Vec<&'static str> {
        let mut report = healthy();
        change(&mut report);
        found(&report, &SALES).into_iter().map(|(code, _)| code).collect()
    }

    fn refuse(report: &mut HealthReport, code: &str, count: u64) {
        let examples = Vec::new();
        report.refused.push(RefusedFacts {
            code: code.into(),
            count,
            conflicts: 0,
            of_one_conversion: 0,
            examples,
        });
    }

    #[test]
    fn a_healthy_goal_has_no_findings() {
        assert_eq!(found(&healthy(), &SALES), []);
    }

    #[test]
    fn silence_is_told_from_refusal() {
        let nothing = HealthReport::default();
        assert_eq!(found(&nothing, &SALES), [("nothing_received", Severity::Error)]);
        let mut refused = HealthReport::default();
        refuse(&mut refused, "duplicate", 9);
        refuse(&mut refused, "invalid_value", 7);
        let findings = examine(&refused, &SALES);
        assert_eq!(findings[0].code, "everything_refused");
        assert!(findings[0].message.contains("16 hits") && findings[0].message.contains("invalid_value"));
        assert_eq!(when(|it| refuse(it, "invalid_currency", 60)), ["hits_refused"]);
        assert_eq!(when(|it| refuse(it, "invalid_currency", 30)), [""; 0], "below 5 %");
    }

    #[test]
    fn limits_macros_and_plans_are_named() {
        assert_eq!(when(|it| refuse(it, "rate_limited", 1)), ["rate_limited"]);
        assert_eq!(when(|it| refuse(it, "unexpanded_macro", 1)), ["unexpanded_macros"]);
        let setup = HealthSetup { plan_without_tracking: true, ..SALES };
        assert_eq!(found(&healthy(), &setup), [("plan_without_tracking", Severity::Error)]);
        assert_eq!(when(|it| refuse(it, "no_known_field", 1)), ["no_known_field"]);
        let ignored_fields = vec!["payout".into(), "txid".into()];
        let setup = HealthSetup { hits_with_ignored_fields: 7, ignored_fields, ..SALES };
        assert_eq!(found(&healthy(), &setup), [("fields_ignored", Severity::Info)]);
        let told = examine(&healthy(), &setup);
        assert!(told[0].message.contains("7 hits") && told[0].message.contains("payout, txid"));
        let setup = HealthSetup { postbacks_disabled: 1, ..SALES };
        assert_eq!(found(&healthy(), &setup), [("postback_disabled", Severity::Error)]);
    }

    #[test]
    fn duplicates_conflicts_and_missing_order_ids_are_told_apart() {
        assert_eq!(when(|it| it.refused[0].conflicts = 1), ["conflicting_duplicates"]);
        assert_eq!(when(|it| it.refused[0].count = 300), ["many_duplicates"]);
        assert_eq!(when(|it| it.refused[0].of_one_conversion = 9), [""; 0], "retries");
        assert_eq!(when(|it| it.refused[0].of_one_conversion = 10), ["order_id_repeats"]);
        assert_eq!(when(|it| it.conversions.without_order_id = 200), ["order_ids_missing"]);
        assert_eq!(when(|it| it.conversions.without_value = 500), ["values_missing"]);
        let mut sign_ups = healthy();
        sign_ups.conversions.without_order_id = 1000;
        sign_ups.conversions.without_value = 1000;
        assert_eq!(found(&sign_ups, &HealthSetup::default()), [], "sign-ups have neither");
    }

    #[test]
    fn each_reason_without_attribution_has_its_finding() {
        let of = |reason: Unattributed, count: u64| {
            when(|it| {
                it.attribution.unattributed.insert(reason.as_str(), count);
            })
        };
        assert_eq!(of(Unattributed::ClickNotFound, 50), ["clicks_not_found"]);
        assert_eq!(of(Unattributed::OutsideWindow, 200), ["outside_window"]);
        assert_eq!(of(Unattributed::AfterConversion, 50), ["clicks_after_conversion"]);
        assert_eq!(of(Unattributed::PrivateAddress, 100), ["private_addresses"]);
        assert_eq!(of(Unattributed::NoVisitor, 100), ["visitors_unknown"]);
        assert_eq!(of(Unattributed::NoCandidate, 500), ["visitors_without_click"]);
        assert_eq!(when(|it| it.conversions.of_one_visitor = 500), ["one_visitor_dominates"]);
        let none = when(|it| {
            it.attribution = AttributionFacts::default();
            it.attribution.unattributed.insert(Unattributed::NoCandidate.as_str(), 1000);
        });
        assert_eq!(none, ["nothing_attributed", "visitors_without_click", "low_rate"]);
    }

    #[test]
    fn clicks_that_are_missing_or_no_people_are_named() {
        assert_eq!(when(|it| it.clicks = ClickFacts::default()), ["no_clicks"]);
        assert_eq!(when(|it| it.clicks.count = 40_000), ["mostly_robots"]);
        assert_eq!(when(|it| it.clicks.without_link = 5000), ["clicks_without_link"]);
        assert_eq!(
            when(|it| it.clicks = ClickFacts { count: 900_000, human: 900_000, without_link: 0 }),
            ["low_rate"]
        );
    }

    #[test]
    fn a_few_are_never_a_finding_and_the_gravest_comes_first() {
        let mut few = HealthReport::default();
        few.conversions.count = 3;
        few.conversions.without_order_id = 3;
        few.attribution.unattributed.insert(Unattributed::NoVisitor.as_str(), 3);
        few.clicks = ClickFacts { count: 5, human: 1, without_link: 5 };
        assert_eq!(found(&few, &SALES), []);
        let mut both = healthy();
        both.clicks.count = 40_000;
        refuse(&mut both, "unexpanded_macro", 1);
        assert_eq!(
            found(&both, &SALES),
            [("unexpanded_macros", Severity::Error), ("mostly_robots", Severity::Info)]
        );
    }
}
