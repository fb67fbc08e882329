//! Which clicks earned a batch's conversions.
//!
//! Clicks are looked for in memory and in files or, all at once, in ClickHouse; what decides between them is [`core::decide`]. A
//! conversion may overtake its click: so a batch waits until the newest conversion that could still meet one has had its
//! time to settle, and then the log is read ahead for clicks behind the batch. Whether a click counts is a matter of when
//! the two were accepted and not of when this is decided, so that a restart, or a ClickHouse that was away, changes
//! nothing.
//!
//! [`core::decide`]: crate::core::decide

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    ShipError, Surroundings, Warehouse, ask,
    click_index::ClickIndex,
    duplicates,
    labels::Labels,
    look_ahead::{self, LookAhead},
    past::Past,
    taken,
};
use crate::{
    clickhouse::Visitors,
    core::{
        AccountId, Attribution, CANDIDATES_MAX, Candidate, Click, ClickId, Conversion, CountedClick,
        CountedConversion, Model, Question, Record, RunId, UnixMillis, decide,
    },
    past_clicks::Found,
    shipper::deliver::pause,
    wal::Position,
};

/// Clicks in memory past which those behind a batch are kept only if the batch asks for them. Few under test, so that
/// it happens there.
const IN_MEMORY_MAX: usize = if cfg!(test) { 20 } else { 2_000_000 };
/// A visitor's key is that of one epoch of 30 days: its clicks are at most that much older than the window.
const EPOCH_MILLIS: i64 = 30 * 86_400_000;
/// A click may be dated that much ahead of its arrival.
const AHEAD_MILLIS: i64 = 60_000;

/// What it remembers between batches.
#[derive(Debug, Default)]
pub(super) struct Attributor {
    clicks: ClickIndex,
    ahead: LookAhead,
}

/// What a batch's conversions ask for.
#[derive(Default)]
struct Asked {
    named: BTreeSet<(AccountId, ClickId)>,
    visitors: BTreeSet<(AccountId, u64)>,
}

/// What ClickHouse has of it, or the copy in files.
#[derive(Default)]
struct Older {
    named: HashMap<(AccountId, ClickId), Candidate>,
    visitors: HashMap<(AccountId, u64), Vec<Candidate>>,
}

impl Attributor {
    /// Takes the batch's own clicks, which are in ClickHouse once the log is settled up to its end. Those from before it
    /// are.
    pub(super) fn take(&mut self, clicks: &[CountedClick], from: Position, to: Position) {
        self.clicks.forget(from.lsn);
        for counted in clicks {
            self.clicks.insert(&counted.click, counted.labelled, to.lsn);
        }
    }

    /// Decides about the conversions of a batch that ends at `to`. `None`: told to stop before it was decided.
    pub(super) async fn attribute<W: Warehouse>(
        &mut self,
        around: &Surroundings<W>,
        labels: &mut Labels,
        past: &mut Past,
        conversions: Vec<Conversion>,
        to: Position,
        run: RunId,
    ) -> Result<Option<Vec<CountedConversion>>, ShipError> {
        let settle = around.config.settle;
        let settle_millis = i64::try_from(settle.as_millis()).unwrap_or(i64::MAX);
        let questions: Vec<_> = conversions.iter().map(|of| Question::of(of, settle_millis)).collect();
        let asked = self.asked(&questions);
        let mut older = Older::default();
        if !asked.named.is_empty() || !asked.visitors.is_empty() {
            let Some(found) = look_up(around, past, &asked, &questions).await else { return Ok(None) };
            older = found;
        }
        let waiting = questions.iter().filter(|question| self.may_meet_a_click(question, &older));
        if let Some(settled_at) = waiting.map(|question| question.settled_at).max()
            && !(until(around, settled_at, settle).await
                && self.look_ahead(around, labels, &asked, to, settled_at).await?)
        {
            return Ok(None);
        }
        let mut decisions = Vec::with_capacity(questions.len());
        for question in &questions {
            let mut decision = self.decide(question, &older);
            if decision.outcome.is_err() && is_crowded(question, &older) {
                let Some(found) = look_further_back(around, question).await else { return Ok(None) };
                decision = self.decide(question, &found);
            }
            decisions.push(decision);
        }
        let decided = conversions.into_iter().zip(decisions);
        let counted =
            decided.map(|(conversion, attribution)| CountedConversion { conversion, attribution, run });
        Ok(Some(counted.collect()))
    }

    fn asked(&self, questions: &[Question<'_>]) -> Asked {
        let mut asked = Asked::default();
        for question in questions {
            let account = question.account_id;
            if let Some(id) = question.click_id.filter(|id| self.clicks.named(account, *id).is_none()) {
                asked.named.insert((account, id));
            }
            asked.visitors.extend(question.visitor_keys().iter().map(|key| (account, *key)));
        }
        asked
    }

    /// Whether a click that is still on its way could change the decision.
    fn may_meet_a_click(&self, question: &Question<'_>, older: &Older) -> bool {
        match question.click_id {
            Some(id) => {
                let id = (question.account_id, id);
                self.clicks.named(id.0, id.1).is_none() && !older.named.contains_key(&id)
            }
            None => !question.visitor_keys().is_empty(),
        }
    }

    /// Takes the clicks behind the batch into memory. `false`: told to stop.
    async fn look_ahead<W: Warehouse>(
        &mut self,
        around: &Surroundings<W>,
        labels: &mut Labels,
        asked: &Asked,
        to: Position,
        settled_at: UnixMillis,
    ) -> Result<bool, ShipError> {
        // What may be the report of a click that was not kept.
        let mut doubtful = Vec::new();
        loop {
            let ahead = self.ahead.read(&around.wal, to, settled_at)?;
            let Some(known) = known(around, &ahead.clicks).await else { return Ok(false) };
            for ((click, settled_lsn), known) in ahead.clicks.iter().zip(known) {
                let crowded = self.clicks.len() >= IN_MEMORY_MAX;
                if crowded {
                    self.ahead.begin_anew();
                }
                if known || crowded && !asked.asks_for(click) {
                    continue;
                }
                if crowded && duplicates::may_be_report(click) {
                    doubtful.push((click.clone(), *settled_lsn));
                    continue;
                }
                let Some(labelled) = labels.admit(around, click).await else { return Ok(false) };
                self.clicks.insert(click, labelled, *settled_lsn);
            }
            if !ahead.more {
                break;
            }
        }
        let numbers: HashSet<_> = doubtful.iter().map(|(click, _)| (click.account_id, click.id)).collect();
        let issued = look_ahead::issued(&around.wal, to, settled_at, &numbers)?;
        for (click, settled_lsn) in doubtful {
            if issued.contains(&(click.account_id, click.id)) {
                continue;
            }
            let Some(labelled) = labels.admit(around, &click).await else { return Ok(false) };
            self.clicks.insert(&click, labelled, settled_lsn);
        }
        Ok(true)
    }

    fn decide(&self, question: &Question<'_>, older: &Older) -> Attribution {
        let account = question.account_id;
        if let Some(id) = question.click_id {
            let named = self.clicks.named(account, id).or_else(|| older.named.get(&(account, id)));
            return decide(question, named, Model::Last);
        }
        let keys = question.visitor_keys();
        let recent = keys.iter().flat_map(|key| self.clicks.of_visitor(account, *key));
        let stored = keys.iter().filter_map(|key| older.visitors.get(&(account, *key))).flatten();
        let stored = stored.filter(|click| self.clicks.named(account, click.click_id).is_none());
        decide(question, recent.chain(stored), Model::Last)
    }
}

impl Asked {
    fn asks_for(&self, click: &Click) -> bool {
        self.named.contains(&(click.account_id, click.id))
            || self.visitors.contains(&(click.account_id, click.visitor_key))
    }
}

/// Looks for all of it in files; what can't be told there is asked of ClickHouse. `None`: told to stop.
async fn look_up<W: Warehouse>(
    around: &Surroundings<W>,
    past: &mut Past,
    asked: &Asked,
    questions: &[Question<'_>],
) -> Option<Older> {
    let (mut named, mut keys): (Vec<_>, Vec<_>) =
        (asked.named.iter().copied().collect(), asked.visitors.iter().copied().collect());
    let of_visitors = questions.iter().filter(|question| !question.visitor_keys().is_empty());
    let (mut from, mut to) = (UnixMillis(i64::MAX), UnixMillis(i64::MIN));
    for question in of_visitors {
        from = from.min(oldest(question));
        to = to.max(question.settled_at.plus(AHEAD_MILLIS));
    }
    let mut past = match past.find(&named, &keys, from..=to).await {
        Some(found) => {
            named.clear();
            keys.clone_from(&found.crowds);
            found
        }
        None => Found::default(),
    };
    let visitors = Visitors { keys: keys.as_slice().into(), from, to };
    let asking = "conversions can't be attributed yet";
    let (named, found) = ask(around, asking, async || {
        let named = async {
            if named.is_empty() { Ok(Vec::new()) } else { around.warehouse.clicks_named(&named).await }
        };
        let found = async {
            if keys.is_empty() { Ok(Vec::new()) } else { around.warehouse.clicks_of(&visitors).await }
        };
        tokio::try_join!(named, found)
    })
    .await?;
    past.named.extend(named);
    past.of_visitors.extend(found);
    Some(Older::new(past.named, past.of_visitors))
}

/// The clicks of a conversion's visitor up to the conversion, where later ones crowded them out. `None`: told to stop.
async fn look_further_back<W: Warehouse>(around: &Surroundings<W>, question: &Question<'_>) -> Option<Older> {
    let keys: Vec<_> = question.visitor_keys().iter().map(|key| (question.account_id, *key)).collect();
    let end_of_second = UnixMillis(question.converted_at.seconds().saturating_mul(1000)).plus(999);
    let visitors = Visitors { keys: keys.into(), from: oldest(question), to: end_of_second };
    let asking = "conversions can't be attributed yet";
    let found = ask(around, asking, async || around.warehouse.clicks_of(&visitors).await).await?;
    Some(Older::new(Vec::new(), found))
}

impl Older {
    fn new(named: Vec<Candidate>, of_visitors: Vec<Candidate>) -> Self {
        let mut older = Self::default();
        older.named.extend(named.into_iter().map(|click| ((click.account_id, click.click_id), click)));
        for click in of_visitors {
            older.visitors.entry((click.account_id, click.visitor_key)).or_default().push(click);
        }
        older
    }
}

/// The time of the oldest click that says anything about the conversion.
fn oldest(question: &Question<'_>) -> UnixMillis {
    question.converted_at.plus(-i64::from(question.window_seconds) * 1000 - EPOCH_MILLIS)
}

/// Whether ClickHouse may have left out older clicks of the conversion's visitor.
fn is_crowded(question: &Question<'_>, older: &Older) -> bool {
    let clicks = |key: &u64| older.visitors.get(&(question.account_id, *key)).map_or(0, Vec::len);
    question.visitor_keys().iter().any(|key| clicks(key) >= usize::from(CANDIDATES_MAX))
}

/// Which of the clicks don't count, since their number was taken before: asked only of those that were accepted without
/// knowing. `None`: told to stop.
async fn known<W: Warehouse>(around: &Surroundings<W>, clicks: &[(Click, u64)]) -> Option<Vec<bool>> {
    let mut known = vec![false; clicks.len()];
    let unverified = clicks.iter().enumerate().filter(|(_, (click, _))| duplicates::may_be_report(click));
    let (places, records): (Vec<_>, Vec<_>) =
        unverified.map(|(n, (click, _))| (n, Record::Click(click.clone()))).unzip();
    if !records.is_empty() {
        let questions = duplicates::questions(&records, false);
        let asking = "late duplicates can't be told yet";
        let answers = ask(around, asking, async || around.warehouse.lookup(&questions).await).await?;
        let numbers: Vec<_> = duplicates::numbers(&records, false).collect();
        let taken = taken(around, &numbers).await?;
        for ((n, answer), number) in places.into_iter().zip(answers).zip(numbers) {
            known[n] = answer.is_some() || taken.contains(&number);
        }
    }
    Some(known)
}

/// Waits until then, but never longer than conversions have to settle, whatever becomes of the clock. `false`: told to
/// stop.
async fn until<W>(around: &Surroundings<W>, then: UnixMillis, at_most: Duration) -> bool {
    let since = Instant::now();
    loop {
        let left = u64::try_from(then.0.saturating_sub(around.clock.now().0)).unwrap_or(0);
        let left = Duration::from_millis(left).min(at_most.saturating_sub(since.elapsed()));
        if left.is_zero() {
            return true;
        }
        if !pause(&around.stop, left.min(around.config.poll)).await {
            return false;
        }
    }
}
