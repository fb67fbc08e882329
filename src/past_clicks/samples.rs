//! Clicks for tests.

use std::sync::Arc;

use proptest::prelude::*;

use crate::core::{AccountId, Campaign, Candidate, ClickId, ClickLabels, LinkId, Traffic, UnixMillis};

/// Any click.
pub(super) fn candidate() -> impl Strategy<Value = Candidate> {
    let traffic = prop_oneof![Just(Traffic::Human), Just(Traffic::Bot), Just(Traffic::Prefetch)];
    let labels = (["[a-zäß🦀]{0,30}", ".{0,60}", "x{0,128}", "", "t{0,2}"], ".{0,9}", any::<bool>());
    let numbers = (any::<u32>(), any::<u64>(), 0u32..3, any::<i64>(), any::<i64>(), any::<u64>());
    (numbers, traffic, any::<bool>(), labels).prop_map(|(numbers, traffic, private_address, labels)| {
        let (account, click, link, clicked_at, received_at, visitor_key) = numbers;
        let ([source, medium, campaign, term, content], variant, labelled) = labels;
        Candidate {
            account_id: AccountId(account),
            click_id: ClickId(click),
            link_id: Some(LinkId(link)).filter(|link| link.0 != 0),
            clicked_at: UnixMillis(clicked_at),
            received_at: UnixMillis(received_at),
            traffic,
            visitor_key,
            private_address,
            labels: Arc::new(ClickLabels {
                campaign: Campaign { source, medium, campaign, term, content },
                variant,
                labelled,
            }),
        }
    })
}
