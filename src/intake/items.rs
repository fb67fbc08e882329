//! The three things that are taken, as deduplication and the log see them.

use uuid::Uuid;

use super::{
    AdjustmentSubmission, ClickSubmission, IntakeShared, Sameness, Submission, records::new_id,
    visitors::EPOCH_DAYS,
};
use crate::{
    core::{
        AdjustmentId, ClickId, ClickSource, ConversionId, DedupScope, GoalId, Kind, OrderId, Record,
        UnixMillis, adjustment_fingerprint, payload,
    },
    dedup::{Content, First, KeyRef},
    wal::Ticket,
};

/// The key table's first column for keys that belong to an account and not to a goal.
const NO_GOAL: GoalId = GoalId(0);
/// Most bytes of a record beside its texts: numbers, and the texts' lengths. A test holds all three kinds to it.
const FIXED_BYTES_MAX: usize = 160;
/// Most bytes of a visitor's key of one epoch, of which a conversion has several.
const KEY_BYTES_MAX: usize = 10;

/// A submission on its way to a record.
pub(super) trait Item {
    /// Its public name.
    type Id: Copy;
    /// Where it is accounted for.
    const KIND: Kind;

    /// When it came.
    fn received_at(&self) -> UnixMillis;

    /// What makes it unique; none: nothing does, and it is always new.
    fn key(&self, shared: &IntakeShared) -> Option<KeyRef>;

    /// Whether it may be a copy of a record without a key, which neither the map nor the key table knows. The shipper then
    /// decides, from the log's order: the record that it may be a copy of has to stand before it.
    fn may_repeat_issued(&self, _shared: &IntakeShared) -> bool {
        false
    }

    /// A name of its own.
    fn id(&self, shared: &IntakeShared) -> Self::Id;

    /// What the map keeps of it if it is the first of its key; the ticket is still missing.
    fn first(&self, id: Self::Id) -> First<Ticket>;

    /// The name of the first copy of its key, of which this id is kept.
    fn original(&self, kept: ConversionId) -> Self::Id;

    /// Whether the first copy said the same.
    fn compare(&self, _first: Content) -> Sameness {
        Sameness::Same
    }

    /// The record's bytes.
    fn encode(
        &self,
        shared: &IntakeShared,
        id: Self::Id,
        key: Option<KeyRef>,
        unverified: bool,
        out: &mut Vec<u8>,
    );

    /// Most bytes that [`Self::encode`] writes.
    fn bytes_max(&self) -> usize;
}

impl Item for Submission {
    type Id = ConversionId;
    const KIND: Kind = Kind::Conversion;

    fn received_at(&self) -> UnixMillis {
        self.received_at
    }

    fn key(&self, shared: &IntakeShared) -> Option<KeyRef> {
        let goal = self.goal_id;
        let (scope, text) = match (&self.order_id, &self.idempotency_key) {
            (Some(order_id), _) => (DedupScope::Forever, OrderId::as_str(order_id)),
            (None, Some(key)) => (DedupScope::Day, key.as_str()),
            (None, None) => return None,
        };
        Some(KeyRef { goal, key: shared.hasher.order(goal, scope, text), scope })
    }

    fn id(&self, _: &IntakeShared) -> ConversionId {
        ConversionId(new_id(self.received_at))
    }

    fn first(&self, id: ConversionId) -> First<Ticket> {
        First { id, content: Content::Amount(self.value, self.currency), ticket: None }
    }

    fn original(&self, kept: ConversionId) -> ConversionId {
        kept
    }

    fn compare(&self, first: Content) -> Sameness {
        match first {
            Content::Amount(value, currency) if value != self.value || currency != self.currency => {
                Sameness::Different
            }
            _ => Sameness::Same,
        }
    }

    fn encode(
        &self,
        shared: &IntakeShared,
        id: ConversionId,
        key: Option<KeyRef>,
        unverified: bool,
        out: &mut Vec<u8>,
    ) {
        payload::encode_conversion(&shared.conversion(self, id, key, unverified), out);
    }

    fn bytes_max(&self) -> usize {
        let order_id = self.order_id.as_ref().map_or(0, |order_id| order_id.as_str().len());
        // Both ends of the window touch an epoch.
        let epochs = self.window_seconds / (EPOCH_DAYS * 86_400) + 2;
        FIXED_BYTES_MAX + KEY_BYTES_MAX * epochs as usize + order_id + self.user_agent.len()
    }
}

impl Item for ClickSubmission {
    type Id = ClickId;
    const KIND: Kind = Kind::Click;

    fn received_at(&self) -> UnixMillis {
        self.received_at
    }

    /// The caller's number. One that is issued here is nobody else's, and gets no key: redirects need no look-up.
    fn key(&self, shared: &IntakeShared) -> Option<KeyRef> {
        let id = self.click_id.filter(|_| self.source == ClickSource::Api)?;
        let key = shared.hasher.click(self.account_id, id);
        Some(KeyRef { goal: NO_GOAL, key, scope: DedupScope::Forever })
    }

    /// A click that was issued its number may be reported by that number.
    fn may_repeat_issued(&self, shared: &IntakeShared) -> bool {
        self.click_id.is_some_and(|id| shared.click_ids.may_have_issued(id))
    }

    fn id(&self, shared: &IntakeShared) -> ClickId {
        self.click_id.unwrap_or_else(|| shared.issue_click_id(self.account_id, self.received_at))
    }

    /// A click's own number is in its key already.
    fn first(&self, _: ClickId) -> First<Ticket> {
        First { id: ConversionId(Uuid::nil()), content: Content::Unknown, ticket: None }
    }

    fn original(&self, _: ConversionId) -> ClickId {
        // Only a click with the caller's number has a key.
        self.click_id.unwrap_or(ClickId(0))
    }

    fn encode(
        &self,
        shared: &IntakeShared,
        id: ClickId,
        key: Option<KeyRef>,
        unverified: bool,
        out: &mut Vec<u8>,
    ) {
        payload::encode(&Record::Click(shared.click(self.clone(), id, key, unverified)), out);
    }

    fn bytes_max(&self) -> usize {
        let campaign = &self.campaign;
        let texts = [
            &campaign.source,
            &campaign.medium,
            &campaign.campaign,
            &campaign.term,
            &campaign.content,
            &self.variant,
            &self.user_agent,
        ];
        let texts: usize = texts.into_iter().chain(&self.subs).map(String::len).sum();
        FIXED_BYTES_MAX + texts
    }
}

impl Item for AdjustmentSubmission {
    type Id = AdjustmentId;
    const KIND: Kind = Kind::Adjustment;

    fn received_at(&self) -> UnixMillis {
        self.received_at
    }

    fn key(&self, shared: &IntakeShared) -> Option<KeyRef> {
        let text = self.idempotency_key.as_deref()?;
        let key = shared.hasher.adjustment(self.account_id, text);
        Some(KeyRef { goal: NO_GOAL, key, scope: DedupScope::Day })
    }

    fn id(&self, _: &IntakeShared) -> AdjustmentId {
        AdjustmentId(new_id(self.received_at))
    }

    fn first(&self, id: AdjustmentId) -> First<Ticket> {
        First { id: ConversionId(id.0), content: Content::Call(self.fingerprint()), ticket: None }
    }

    /// The key table keeps no more than the adjustment's name: whether that one said the same, its row tells.
    fn compare(&self, first: Content) -> Sameness {
        match first {
            Content::Call(said) if said == self.fingerprint() => Sameness::Same,
            Content::Call(_) => Sameness::Different,
            Content::Amount(..) | Content::Unknown => Sameness::Unknown,
        }
    }

    fn original(&self, kept: ConversionId) -> AdjustmentId {
        AdjustmentId(kept.0)
    }

    fn encode(
        &self,
        _: &IntakeShared,
        id: AdjustmentId,
        key: Option<KeyRef>,
        unverified: bool,
        out: &mut Vec<u8>,
    ) {
        payload::encode(&Record::Adjustment(IntakeShared::adjustment(self, id, key, unverified)), out);
    }

    fn bytes_max(&self) -> usize {
        FIXED_BYTES_MAX + self.reason.len()
    }
}

impl AdjustmentSubmission {
    fn fingerprint(&self) -> u64 {
        adjustment_fingerprint(self.conversion_id, self.kind, self.value, &self.reason)
    }
}
