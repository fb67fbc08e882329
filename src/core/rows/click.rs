//! Rows of `clicks`.

use super::{
    RowError,
    attribution::{put_campaign, take_campaign},
    bytes::{
        put_address, put_text, put_time, take, take_address, take_bool, take_text, take_time, take_u32,
        take_u64,
    },
};
use crate::core::{
    AccountId, BatchId, Click, ClickId, ClickSource, CountedClick, LinkId, OrderKey, SUBS, Traffic,
};

pub(super) const COLUMNS: &str = "click_id, account_id, link_id, click_key, clicked_at, received_at, source, traffic, \
    utm_source, utm_medium, utm_campaign, utm_term, utm_content, variant, labelled, sub1, sub2, sub3, sub4, sub5, ip, \
    user_agent, visitor_key, private_address, batch_id";

/// Appends a click's row to `out`.
pub fn encode(counted: &CountedClick, batch: BatchId, out: &mut Vec<u8>) {
    let click = &counted.click;
    out.extend_from_slice(&click.id.0.to_le_bytes());
    out.extend_from_slice(&click.account_id.0.to_le_bytes());
    out.extend_from_slice(&click.link_id.map_or(0, |link| link.0).to_le_bytes());
    out.extend_from_slice(&click.key.map_or(0, |key| key.0).to_le_bytes());
    put_time(out, click.clicked_at);
    put_time(out, click.received_at);
    out.push(match click.source {
        ClickSource::Redirect => 1,
        ClickSource::Api => 2,
    });
    out.push(match click.traffic {
        Traffic::Human => 1,
        Traffic::Bot => 2,
        Traffic::Prefetch => 3,
    });
    put_campaign(out, &click.campaign);
    put_text(out, &click.variant);
    out.push(counted.labelled.into());
    for sub in &click.subs {
        put_text(out, sub);
    }
    put_address(out, click.ip);
    put_text(out, &click.user_agent);
    out.extend_from_slice(&click.visitor_key.to_le_bytes());
    out.push(click.private_address.into());
    out.extend_from_slice(&batch.0.to_le_bytes());
}

/// Takes the first row off `bytes`.
pub fn decode(bytes: &mut &[u8]) -> Result<CountedClick, RowError> {
    let id = ClickId(take_u64(bytes)?);
    let account_id = AccountId(take_u32(bytes)?);
    let link_id = Some(take_u32(bytes)?).filter(|link| *link != 0).map(LinkId);
    let key = Some(u128::from_le_bytes(take(bytes)?)).filter(|key| *key != 0).map(OrderKey);
    let (clicked_at, received_at) = (take_time(bytes)?, take_time(bytes)?);
    let source = match take(bytes)? {
        [1] => ClickSource::Redirect,
        [2] => ClickSource::Api,
        _ => return Err(RowError),
    };
    let traffic = match take(bytes)? {
        [1] => Traffic::Human,
        [2] => Traffic::Bot,
        [3] => Traffic::Prefetch,
        _ => return Err(RowError),
    };
    let campaign = take_campaign(bytes)?;
    let variant = take_text(bytes)?;
    let labelled = take_bool(bytes)?;
    let mut subs: [String; SUBS] = Default::default();
    for sub in &mut subs {
        *sub = take_text(bytes)?;
    }
    let click = Click {
        id,
        account_id,
        link_id,
        key,
        clicked_at,
        received_at,
        source,
        traffic,
        campaign,
        variant,
        subs,
        ip: take_address(bytes)?,
        user_agent: take_text(bytes)?,
        visitor_key: take_u64(bytes)?,
        private_address: take_bool(bytes)?,
        unverified: false,
    };
    take::<8>(bytes)?;
    Ok(CountedClick { click, labelled })
}
