//! The decision itself: one conversion, the clicks that could have earned it, and why each of them did or did not.

use std::sync::Arc;

use super::{Attribution, CANDIDATES_MAX, Earned, Method, Unattributed};
use crate::core::{AccountId, Campaign, Click, ClickId, Conversion, LinkId, Matching, Traffic, UnixMillis};

/// Which of several clicks in the window wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Model {
    /// The newest.
    #[default]
    Last,
    /// The oldest.
    First,
}

impl Model {
    /// The public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::First => "first",
        }
    }

    /// The model of that public name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Last, Self::First].into_iter().find(|model| model.as_str() == name)
    }
}

/// What a conversion asks of the clicks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// Whose it is: clicks of others are none of its business.
    pub account_id: AccountId,
    /// The click that the caller named.
    pub click_id: Option<ClickId>,
    /// Otherwise: under which keys its visitor is looked for.
    pub matching: &'a Matching,
    /// When it happened.
    pub converted_at: UnixMillis,
    /// How old a click may be, in seconds.
    pub window_seconds: u32,
    /// A click that was accepted after this came too late. It makes the decision the same whenever it is made.
    pub settled_at: UnixMillis,
}

impl<'a> Question<'a> {
    /// A conversion's. A click that was accepted up to `settle_millis` after it still counts.
    #[must_use]
    pub fn of(conversion: &'a Conversion, settle_millis: i64) -> Self {
        Self {
            account_id: conversion.account_id,
            click_id: conversion.click_id,
            matching: &conversion.matching,
            converted_at: conversion.converted_at,
            window_seconds: conversion.window_seconds,
            settled_at: conversion.received_at.plus(settle_millis),
        }
    }

    /// The keys under which its visitor is looked for; none where a click is named, or nobody can be looked for.
    #[must_use]
    pub fn visitor_keys(&self) -> &'a [u64] {
        match (self.click_id, self.matching) {
            (None, Matching::Keys(keys)) => keys,
            _ => &[],
        }
    }
}

/// What a click hands on to the conversions that it earns. Many clicks share one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClickLabels {
    /// Its campaign.
    pub campaign: Campaign,
    /// Its variant.
    pub variant: String,
    /// Whether statistics name both, rather than `(other)`.
    pub labelled: bool,
}

/// A click that may have earned a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whose it is.
    pub account_id: AccountId,
    /// Its number.
    pub click_id: ClickId,
    /// Its link, if it had one.
    pub link_id: Option<LinkId>,
    /// When it happened.
    pub clicked_at: UnixMillis,
    /// When it was accepted.
    pub received_at: UnixMillis,
    /// Who or what clicked.
    pub traffic: Traffic,
    /// The visitor; 0: unknown.
    pub visitor_key: u64,
    /// Its address names no visitor.
    pub private_address: bool,
    /// What it hands on.
    pub labels: Arc<ClickLabels>,
}

impl Candidate {
    /// A click, with what it hands on.
    #[must_use]
    pub fn new(click: &Click, labels: Arc<ClickLabels>) -> Self {
        Self {
            account_id: click.account_id,
            click_id: click.id,
            link_id: click.link_id,
            clicked_at: click.clicked_at,
            received_at: click.received_at,
            traffic: click.traffic,
            visitor_key: click.visitor_key,
            private_address: click.private_address,
            labels,
        }
    }

    /// The order of clicks in time; of two in the same millisecond, the greater number is the later one.
    fn rank(&self) -> (UnixMillis, ClickId) {
        (self.clicked_at, self.click_id)
    }
}

/// Why a click earned a conversion, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It earned it.
    Won,
    /// It could have, but another click in the window wins by the model.
    Outranked,
    /// It happened longer before the conversion than the window allows.
    OlderThanWindow,
    /// It happened after the conversion.
    AfterConversion,
    /// It was accepted when the conversion was decided already.
    ArrivedTooLate,
    /// A robot clicked, or a browser that looked ahead.
    Bot,
    /// Its address is private or shared by a carrier, and names nobody.
    PrivateAddress,
    /// The caller named another click.
    NotNamed,
    /// It is another visitor's.
    OtherVisitor,
    /// It is another account's.
    OtherAccount,
}

impl Verdict {
    /// The public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Outranked => "outranked",
            Self::OlderThanWindow => "older_than_window",
            Self::AfterConversion => "after_conversion",
            Self::ArrivedTooLate => "arrived_too_late",
            Self::Bot => "bot",
            Self::PrivateAddress => "private_address",
            Self::NotNamed => "not_named",
            Self::OtherVisitor => "other_visitor",
            Self::OtherAccount => "other_account",
        }
    }
}

/// Which of the candidates earned the conversion, or why none did. They may stand in any order; each click stands in it
/// once. Candidates that can't have earned it, such as those of others, do no harm.
#[must_use]
pub fn decide<'a>(
    question: &Question<'_>,
    candidates: impl IntoIterator<Item = &'a Candidate>,
    model: Model,
) -> Attribution {
    let mut winner: Option<(&Candidate, u32)> = None;
    let (mut in_window, mut older, mut after) = (0u16, false, false);
    for candidate in candidates {
        match examine(question, candidate) {
            Ok(seconds) => {
                in_window = in_window.saturating_add(1).min(CANDIDATES_MAX);
                if winner.is_none_or(|(best, _)| wins_over(candidate, best, model)) {
                    winner = Some((candidate, seconds));
                }
            }
            Err(Verdict::OlderThanWindow) => older = true,
            Err(Verdict::AfterConversion) => after = true,
            Err(_) => {}
        }
    }
    let outcome = match winner {
        Some((candidate, seconds)) => Ok(earned(question, candidate, seconds)),
        None if older => Err(Unattributed::OutsideWindow),
        None if after => Err(Unattributed::AfterConversion),
        None => Err(none_found(question)),
    };
    Attribution { outcome, candidates: in_window }
}

/// Why each of the candidates did or did not earn the conversion, in their order.
#[must_use]
pub fn explain(question: &Question<'_>, candidates: &[Candidate], model: Model) -> Vec<Verdict> {
    let winner = decide(question, candidates, model).outcome.ok().map(|earned| earned.click_id);
    candidates
        .iter()
        .map(|candidate| match examine(question, candidate) {
            Ok(_) if Some(candidate.click_id) == winner => Verdict::Won,
            Ok(_) => Verdict::Outranked,
            Err(verdict) => verdict,
        })
        .collect()
}

/// Whether a click by itself could have earned the conversion: the seconds between them, or why not.
fn examine(question: &Question<'_>, candidate: &Candidate) -> Result<u32, Verdict> {
    if candidate.account_id != question.account_id {
        return Err(Verdict::OtherAccount);
    }
    if let Some(named) = question.click_id {
        if named != candidate.click_id {
            return Err(Verdict::NotNamed);
        }
    } else {
        if candidate.visitor_key == 0 || !question.visitor_keys().contains(&candidate.visitor_key) {
            return Err(Verdict::OtherVisitor);
        }
        if candidate.traffic != Traffic::Human {
            return Err(Verdict::Bot);
        }
        if candidate.private_address {
            return Err(Verdict::PrivateAddress);
        }
    }
    if candidate.received_at > question.settled_at {
        return Err(Verdict::ArrivedTooLate);
    }
    let seconds = question.converted_at.seconds().saturating_sub(candidate.clicked_at.seconds());
    if seconds < 0 {
        return Err(Verdict::AfterConversion);
    }
    match u32::try_from(seconds) {
        Ok(seconds) if seconds <= question.window_seconds => Ok(seconds),
        _ => Err(Verdict::OlderThanWindow),
    }
}

fn wins_over(candidate: &Candidate, best: &Candidate, model: Model) -> bool {
    match model {
        Model::Last => candidate.rank() > best.rank(),
        Model::First => candidate.rank() < best.rank(),
    }
}

fn none_found(question: &Question<'_>) -> Unattributed {
    match (question.click_id, question.matching) {
        (Some(_), _) => Unattributed::ClickNotFound,
        (None, Matching::Keys(_)) => Unattributed::NoCandidate,
        (None, Matching::PrivateAddress) => Unattributed::PrivateAddress,
        (None, Matching::Unknown) => Unattributed::NoVisitor,
    }
}

fn earned(question: &Question<'_>, candidate: &Candidate, seconds_to_convert: u32) -> Earned {
    let ClickLabels { campaign, variant, labelled } = &*candidate.labels;
    Earned {
        method: if question.click_id.is_some() { Method::ClickId } else { Method::IpUserAgent },
        click_id: candidate.click_id,
        link_id: candidate.link_id,
        clicked_at: candidate.clicked_at,
        seconds_to_convert,
        campaign: campaign.clone(),
        variant: variant.clone(),
        labelled: *labelled,
    }
}
