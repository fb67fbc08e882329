//! `?explain=1`: why each click did or did not earn a conversion, by the function that decides.

use serde::Serialize;

use crate::{
    core::{Candidate, Candidates, Question, StoredConversion, Verdict, explain},
    http::times,
};

/// The rules of the decision in force, and every click that it could have met. Clicks that were erased, or are older
/// than clicks are kept, are not there any more.
#[derive(Serialize)]
pub(super) struct ExplanationJson {
    model: &'static str,
    window_seconds: u32,
    settle_seconds: u16,
    /// There are more clicks than are listed: these are the newest.
    truncated: bool,
    candidates: Vec<CandidateJson>,
}

#[derive(Serialize)]
struct CandidateJson {
    click_id: u64,
    link_id: Option<u32>,
    clicked_at: String,
    received_at: String,
    traffic: &'static str,
    /// Whole seconds from the click to the conversion; negative: it came after.
    seconds: i64,
    verdict: &'static str,
    why: &'static str,
}

impl ExplanationJson {
    pub(super) fn new(stored: &StoredConversion, candidates: &Candidates, settle_seconds: u16) -> Self {
        let question = Question {
            window_seconds: candidates.window_seconds,
            ..Question::of(&stored.conversion, i64::from(settle_seconds) * 1000)
        };
        let verdicts = explain(&question, &candidates.clicks, candidates.model);
        let at = stored.conversion.converted_at;
        let rows =
            candidates.clicks.iter().zip(verdicts).map(|(click, verdict): (&Candidate, _)| CandidateJson {
                click_id: click.click_id.0,
                link_id: click.link_id.map(|link| link.0),
                clicked_at: times::utc(click.clicked_at),
                received_at: times::utc(click.received_at),
                traffic: click.traffic.as_str(),
                seconds: at.seconds().saturating_sub(click.clicked_at.seconds()),
                verdict: verdict.as_str(),
                why: why(verdict),
            });
        Self {
            model: candidates.model.as_str(),
            window_seconds: candidates.window_seconds,
            settle_seconds,
            truncated: candidates.is_truncated,
            candidates: rows.collect(),
        }
    }
}

fn why(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Won => "It earned the conversion.",
        Verdict::Outranked => "Another click within the window wins by the model.",
        Verdict::OlderThanWindow => "It is older than the attribution window.",
        Verdict::AfterConversion => "It happened after the conversion.",
        Verdict::ArrivedTooLate => "It was reported after the conversion had been decided.",
        Verdict::Bot => "A robot clicked, or a browser that looked ahead.",
        Verdict::PrivateAddress => "Its address is private or shared by a carrier, and names nobody.",
        Verdict::NotNamed => "The conversion names another click.",
        Verdict::OtherVisitor => "Another visitor clicked.",
        Verdict::OtherAccount => "Another account's visitor clicked.",
    }
}
