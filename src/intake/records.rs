//! Records from submissions: what is kept of a visitor.

use std::net::IpAddr;

use uuid::{Builder, Uuid};

use super::{AdjustmentSubmission, ClickSubmission, IntakeShared, Submission};
use crate::{
    core::{Adjustment, AdjustmentId, Click, ClickId, Conversion, ConversionId, UnixMillis},
    dedup::KeyRef,
};

/// Longest user agent kept, in bytes.
const USER_AGENT_BYTES_MAX: usize = 512;

impl IntakeShared {
    pub(super) fn conversion(
        &self,
        submission: &Submission,
        id: ConversionId,
        key: Option<KeyRef>,
        unverified: bool,
    ) -> Conversion {
        let user_agent = kept_of(&submission.user_agent);
        let (visitor_key, matching) = self.visitors.of_conversion(submission, user_agent);
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
            visitor_key,
            ip: self.address_kept(submission.ip),
            user_agent: user_agent.to_owned(),
            matching,
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
        let (account, at) = (submission.account_id, submission.clicked_at);
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
            visitor_key: self.visitors.key(account, submission.ip, &user_agent, at),
            user_agent,
            private_address: self.visitors.is_private(submission.ip),
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

    fn address_kept(&self, ip: Option<IpAddr>) -> Option<IpAddr> {
        ip.and_then(|ip| self.ip_storage.keep(ip))
    }
}

/// A UUID of version 7: 48 bits of milliseconds, the rest random.
pub(super) fn new_id(now: UnixMillis) -> Uuid {
    let millis = u64::try_from(now.0).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

/// The part of a user agent that is kept, and hashed.
pub(super) fn kept_of(user_agent: &str) -> &str {
    &user_agent[..user_agent.floor_char_boundary(USER_AGENT_BYTES_MAX)]
}
