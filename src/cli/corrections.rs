//! The arguments of the subcommands that correct what is known: `reattribute` and `erase`.

use std::net::IpAddr;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, value_parser};

use super::command_line;
use crate::core::{Model, UnixMillis};

/// Whose data is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever placed an order.
    Order {
        /// As it was reported.
        id: String,
        /// Of which goal; none: of any.
        goal: Option<u32>,
    },
    /// Whoever made a click.
    Click(u64),
    /// Whoever has a visitor's key, as tables show it.
    VisitorKey(u64),
    /// Whoever came from an address with a browser.
    Visitor {
        /// The full address.
        ip: IpAddr,
        /// The browser's user agent, whole.
        user_agent: String,
    },
}

/// What to do about runs of attribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reattribute {
    /// Compute a new one.
    Run {
        /// How many days old a click may be.
        window_days: u16,
        /// Which of several clicks wins.
        model: Model,
        /// For conversions from then on.
        since: UnixMillis,
        /// Leave in force what is.
        dry_run: bool,
    },
    /// Put one in force; 0: the decisions as conversions came in.
    Use(u32),
    /// Show all.
    List,
}

/// What to do, as the arguments say.
pub(super) fn reattribute(matches: &ArgMatches) -> Reattribute {
    if let Some(run) = matches.get_one("use") {
        return Reattribute::Use(*run);
    }
    match (matches.get_one("window-days"), matches.get_one("since")) {
        (Some(window_days), Some(since)) => Reattribute::Run {
            window_days: *window_days,
            model: matches.get_one("model").copied().unwrap_or_default(),
            since: *since,
            dry_run: matches.get_flag("dry-run"),
        },
        _ => Reattribute::List,
    }
}

/// Who is meant, as the arguments say.
pub(super) fn who(matches: &ArgMatches) -> Result<Who, clap::Error> {
    let text = |name: &str| matches.get_one::<String>(name).map(|text| text.trim().to_owned());
    if let Some(id) = text("order-id") {
        return Ok(Who::Order { id, goal: matches.get_one("goal").copied() });
    }
    if let Some(click) = matches.get_one("click-id") {
        return Ok(Who::Click(*click));
    }
    let visitor = text("visitor").unwrap_or_default();
    match (visitor.parse::<u64>(), visitor.parse::<IpAddr>(), text("user-agent")) {
        (Ok(key), _, None) if key != 0 => Ok(Who::VisitorKey(key)),
        (_, Ok(ip), Some(user_agent)) if !user_agent.is_empty() => Ok(Who::Visitor { ip, user_agent }),
        _ => Err(command_line().error(
            clap::error::ErrorKind::InvalidValue,
            "--visitor is a key that a table shows, or an address with --user-agent beside it",
        )),
    }
}

/// The arguments of `erase`: one person, perhaps in one account.
pub(super) fn with_person(command: clap::Command) -> clap::Command {
    let number = || value_parser!(u32).range(1..);
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        let not_blank = |text: &str| match text.trim() {
            "" => Err("must not be blank"),
            _ => Ok(text.to_owned()),
        };
        Arg::new(name).long(name).value_name(value).value_parser(not_blank).help(help)
    };
    command
        .arg(text("order-id", "ID", "Whoever placed this order"))
        .arg(
            Arg::new("goal")
                .long("goal")
                .value_name("N")
                .value_parser(number())
                .requires("order-id")
                .help("The order of this goal alone; it may stand for others elsewhere"),
        )
        .arg(
            Arg::new("click-id")
                .long("click-id")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..1 << 53))
                .help("Whoever made this click"),
        )
        .arg(text("visitor", "KEY|IP", "Whoever has this key, or came from this address with --user-agent"))
        .arg(text("user-agent", "UA", "The visitor's browser, whole, as it names itself").requires("visitor"))
        .arg(
            Arg::new("account")
                .long("account")
                .value_name("N")
                .value_parser(number())
                .help("In this account alone"),
        )
        .group(ArgGroup::new("who").args(["order-id", "click-id", "visitor"]).required(true))
}

/// The arguments of `reattribute`: one of three things to do.
pub(super) fn with_reattribution(command: clap::Command) -> clap::Command {
    let days = value_parser!(u16).range(1..=365);
    command
        .arg(
            Arg::new("window-days")
                .long("window-days")
                .value_name("N")
                .value_parser(days)
                .requires("since")
                .help("Decide anew: a click may be this many days old, whatever the goal"),
        )
        .arg(
            Arg::new("since")
                .long("since")
                .value_name("DATE")
                .value_parser(instant)
                .requires("window-days")
                .help("For conversions from then on: 2026-11-01 or 2026-11-01T12:00:00Z, down to the hour"),
        )
        .arg(
            Arg::new("model")
                .long("model")
                .value_name("MODEL")
                .value_parser(|text: &str| Model::parse(text).ok_or("expected last or first"))
                .requires("window-days")
                .help("Which of several clicks wins: last or first [default: last]"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .requires("window-days")
                .help("Compute and compare, and leave in force what is"),
        )
        .arg(
            Arg::new("use")
                .long("use")
                .value_name("RUN")
                .value_parser(value_parser!(u32))
                .help("Put an earlier run in force; 0: the decisions as conversions came in"),
        )
        .arg(Arg::new("list").long("list").action(ArgAction::SetTrue).help("Show every run"))
        .group(ArgGroup::new("action").args(["window-days", "use", "list"]).required(true))
}

/// A day (UTC) or an instant.
fn instant(text: &str) -> Result<UnixMillis, String> {
    let wrong = || "expected a date such as 2026-11-01 or an instant such as 2026-11-01T12:00:00Z".to_owned();
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(UnixMillis(at.as_millisecond()));
    }
    let day: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    let start = day.to_zoned_datetime(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?;
    Ok(UnixMillis(start.timestamp().as_millisecond()))
}
