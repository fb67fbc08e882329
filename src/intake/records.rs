//! Records from submissions: what is kept of a visitor, and under which keys things are unique.

use std::net::IpAddr;

use uuid::{Builder, Uuid};

use super::{AdjustmentSubmission, ClickSubmission, IntakeShared, Submission};
use crate::{
    core::{
        Adjustment, AdjustmentId, Click, ClickId, ClickSource, Conversion, ConversionId, Currency,
        DedupScope, GoalId, Matching, Money, OrderId, UnixMillis,
    },
    dedup::{First, KeyRef},
    wal::Ticket,
};

/// Longest user agent kept, in bytes.
const USER_AGENT_BYTES_MAX: usize = 512;
/// The key table's first column for keys that belong to an account and not to a goal.
const NO_GOAL: GoalId = GoalId(0);

impl IntakeShared {
    pub(super) fn conversion(
        &self,
        submission: &Submission,
        id: ConversionId,
        key: Option<KeyRef>,
        unverified: bool,
    ) -> Conversion {
        let user_agent = kept_of(&submission.user_agent);
        Conversion {
            id,
            account_id: submission.account_id,
            goal_id: submission.goal_id,
            order_id: submission.order_id.clone(),
            key: key.map(|key| (key.key, key.scope)),
            value: submission.value,
            currency: submission.currency,
            received_at: submission.received_at,
            converted_at: submission.converted_at,
            window_seconds: submission.window_seconds,
            source: submission.source,
            click_id: submission.click_id,
            visitor_key: self.hasher.visitor(submission.account_id, submission.ip, user_agent),
            ip: self.address_kept(submission.ip),
            user_agent: user_agent.to_owned(),
            matching: Matching::Unknown,
            unverified,
        }
    }

    pub(super) fn click(
        &self,
        submission: ClickSubmission,
        id: ClickId,
        key: Option<KeyRef>,
        unverified: bool,
    ) -> Click {
        let mut user_agent = submission.user_agent;
        user_agent.truncate(kept_of(&user_agent).len());
        Click {
            id,
            account_id: submission.account_id,
            link_id: submission.link_id,
            key: key.map(|key| key.key),
            clicked_at: submission.clicked_at,
            received_at: submission.received_at,
            source: submission.source,
            traffic: submission.traffic,
            campaign: submission.campaign,
            variant: submission.variant,
            subs: submission.subs,
            ip: self.address_kept(submission.ip),
            visitor_key: self.hasher.visitor(submission.account_id, submission.ip, &user_agent),
            user_agent,
            private_address: false,
            unverified,
        }
    }

    pub(super) fn adjustment(
        submission: &AdjustmentSubmission,
        id: AdjustmentId,
        key: Option<KeyRef>,
        unverified: bool,
    ) -> Adjustment {
        Adjustment {
            id,
            account_id: submission.account_id,
            conversion_id: submission.conversion_id,
            kind: submission.kind,
            value: submission.value,
            key: key.map(|key| key.key),
            reason: submission.reason.clone(),
            received_at: submission.received_at,
            unverified,
        }
    }

    /// What makes a conversion unique within its goal.
    pub(super) fn conversion_key(&self, submission: &Submission) -> Option<KeyRef> {
        let goal = submission.goal_id;
        let (scope, text) = match (&submission.order_id, &submission.idempotency_key) {
            (Some(order_id), _) => (DedupScope::Forever, OrderId::as_str(order_id)),
            (None, Some(key)) => (DedupScope::Day, key.as_str()),
            (None, None) => return None,
        };
        Some(KeyRef { goal, key: self.hasher.order(goal, scope, text), scope })
    }

    /// What makes a click unique within its account: the caller's number. A number issued here can't come twice.
    pub(super) fn click_key(&self, submission: &ClickSubmission) -> Option<KeyRef> {
        let id = submission.click_id.filter(|_| submission.source == ClickSource::Api)?;
        let key = self.hasher.click(submission.account_id, id);
        Some(KeyRef { goal: NO_GOAL, key, scope: DedupScope::Forever })
    }

    /// What makes an adjustment unique within its account.
    pub(super) fn adjustment_key(&self, submission: &AdjustmentSubmission) -> Option<KeyRef> {
        let text = submission.idempotency_key.as_deref()?;
        let key = self.hasher.adjustment(submission.account_id, text);
        Some(KeyRef { goal: NO_GOAL, key, scope: DedupScope::Day })
    }

    fn address_kept(&self, ip: Option<IpAddr>) -> Option<IpAddr> {
        ip.and_then(|ip| self.ip_storage.keep(ip))
    }
}

/// The first copy of something that has no value and no currency of its own. The nil id stands for a click.
pub(super) fn first_of(id: Uuid) -> First<Ticket> {
    First { id: ConversionId(id), value: Money::ZERO, currency: Currency::USD, ticket: None }
}

/// A UUID of version 7: 48 bits of milliseconds, the rest random.
pub(super) fn new_id(now: UnixMillis) -> Uuid {
    let millis = u64::try_from(now.0).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

fn kept_of(user_agent: &str) -> &str {
    &user_agent[..user_agent.floor_char_boundary(USER_AGENT_BYTES_MAX)]
}
