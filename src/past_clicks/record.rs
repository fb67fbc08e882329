//! A click as it lies in a file: what attribution must know of it, and nothing of its visitor.

use std::{collections::HashMap, sync::Arc};

use crate::core::{
    AccountId, Campaign, Candidate, ClickId, ClickLabels, CountedClick, LinkId, Traffic, UnixMillis,
};

/// Checksum, account, number, link, two instants, flags.
const FIXED_BYTES: usize = 4 + 4 + 8 + 4 + 8 + 8 + 1;
const PRIVATE: u8 = 4;
const LABELLED: u8 = 8;
/// Labels that are remembered between records; beyond it they are forgotten and read anew.
const SHARED_MAX: usize = 10_000;

/// A record that is not what was written.
#[derive(Debug)]
pub(super) struct Corrupt;

/// What many clicks hand on, once for all of them.
#[derive(Debug, Default)]
pub(super) struct SharedLabels(HashMap<Box<[u8]>, Arc<ClickLabels>>);

/// A click to be written.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) account_id: AccountId,
    pub(super) click_id: ClickId,
    link_id: Option<LinkId>,
    clicked_at: UnixMillis,
    pub(super) received_at: UnixMillis,
    pub(super) traffic: Traffic,
    pub(super) visitor_key: u64,
    pub(super) private_address: bool,
    campaign: &'a Campaign,
    variant: &'a str,
    labelled: bool,
}

impl<'a> From<&'a Candidate> for Row<'a> {
    fn from(click: &'a Candidate) -> Self {
        Self {
            account_id: click.account_id,
            click_id: click.click_id,
            link_id: click.link_id,
            clicked_at: click.clicked_at,
            received_at: click.received_at,
            traffic: click.traffic,
            visitor_key: click.visitor_key,
            private_address: click.private_address,
            campaign: &click.labels.campaign,
            variant: &click.labels.variant,
            labelled: click.labels.labelled,
        }
    }
}

impl<'a> From<&'a CountedClick> for Row<'a> {
    fn from(CountedClick { click, labelled }: &'a CountedClick) -> Self {
        Self {
            account_id: click.account_id,
            click_id: click.id,
            link_id: click.link_id,
            clicked_at: click.clicked_at,
            received_at: click.received_at,
            traffic: click.traffic,
            visitor_key: click.visitor_key,
            private_address: click.private_address,
            campaign: &click.campaign,
            variant: &click.variant,
            labelled: *labelled,
        }
    }
}

/// Appends a click's record; returns its length.
pub(super) fn encode(click: &Row<'_>, into: &mut Vec<u8>) -> u16 {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&click.account_id.0.to_le_bytes());
    into.extend_from_slice(&click.click_id.0.to_le_bytes());
    into.extend_from_slice(&click.link_id.map_or(0, |link| link.0).to_le_bytes());
    into.extend_from_slice(&click.clicked_at.0.to_le_bytes());
    into.extend_from_slice(&click.received_at.0.to_le_bytes());
    let traffic = match click.traffic {
        Traffic::Human => 0,
        Traffic::Bot => 1,
        Traffic::Prefetch => 2,
    };
    let private = if click.private_address { PRIVATE } else { 0 };
    let labelled = if click.labelled { LABELLED } else { 0 };
    into.push(traffic | private | labelled);
    let Campaign { source, medium, campaign, term, content } = click.campaign;
    for label in
        [source, medium, campaign, term, content].map(String::as_str).into_iter().chain([click.variant])
    {
        // Labels are short; what would not fit is cut rather than let it spoil what follows.
        let bytes = &label.as_bytes()[..label.floor_char_boundary(255)];
        into.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        into.extend_from_slice(bytes);
    }
    let crc = crc32fast::hash(&into[start + 4..]);
    into[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    u16::try_from(into.len() - start).expect("a few hundred bytes at most")
}

/// Reads a record. The visitor is whoever was asked for.
pub(super) fn decode(
    bytes: &[u8],
    visitor_key: u64,
    shared: &mut SharedLabels,
) -> Result<Candidate, Corrupt> {
    let (fixed, labels) = bytes.split_at_checked(FIXED_BYTES).ok_or(Corrupt)?;
    let crc = fixed.first_chunk().copied().map(u32::from_le_bytes);
    if crc != Some(crc32fast::hash(&bytes[4..])) {
        return Err(Corrupt);
    }
    let flags = fixed[FIXED_BYTES - 1];
    let link = u32::from_le_bytes(at(fixed, 16));
    Ok(Candidate {
        account_id: AccountId(u32::from_le_bytes(at(fixed, 4))),
        click_id: ClickId(u64::from_le_bytes(at(fixed, 8))),
        link_id: Some(LinkId(link)).filter(|link| link.0 != 0),
        clicked_at: UnixMillis(i64::from_le_bytes(at(fixed, 20))),
        received_at: UnixMillis(i64::from_le_bytes(at(fixed, 28))),
        traffic: match flags & 3 {
            0 => Traffic::Human,
            1 => Traffic::Bot,
            _ => Traffic::Prefetch,
        },
        visitor_key,
        private_address: flags & PRIVATE != 0,
        labels: shared.get(labels, flags & LABELLED != 0)?,
    })
}

impl SharedLabels {
    fn get(&mut self, bytes: &[u8], labelled: bool) -> Result<Arc<ClickLabels>, Corrupt> {
        if let Some(known) = self.0.get(bytes).filter(|known| known.labelled == labelled) {
            return Ok(known.clone());
        }
        let mut rest = bytes;
        let mut next = || {
            let (&length, after) = rest.split_first().ok_or(Corrupt)?;
            let (label, after) = after.split_at_checked(length.into()).ok_or(Corrupt)?;
            rest = after;
            String::from_utf8(label.to_vec()).map_err(|_| Corrupt)
        };
        let labels = Arc::new(ClickLabels {
            campaign: Campaign {
                source: next()?,
                medium: next()?,
                campaign: next()?,
                term: next()?,
                content: next()?,
            },
            variant: next()?,
            labelled,
        });
        if self.0.len() >= SHARED_MAX {
            self.0.clear();
        }
        self.0.insert(bytes.into(), labels.clone());
        Ok(labels)
    }
}

fn at<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    std::array::from_fn(|n| bytes[from + n])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::past_clicks::samples::candidate;

    proptest! {
        #[test]
        fn what_is_written_is_read(click in candidate()) {
            let mut bytes = b"before".to_vec();
            let length = encode(&Row::from(&click), &mut bytes);
            prop_assert_eq!(bytes.len(), 6 + usize::from(length));
            let mut shared = SharedLabels::default();
            let read = decode(&bytes[6..], click.visitor_key, &mut shared);
            prop_assert_eq!(read.ok(), Some(click));
        }

        #[test]
        fn a_changed_byte_is_noticed(click in candidate(), at in 0usize..1000, by in 1u8..) {
            let mut bytes = Vec::new();
            let length = usize::from(encode(&Row::from(&click), &mut bytes));
            bytes[at % length] ^= by;
            prop_assert!(decode(&bytes, 0, &mut SharedLabels::default()).is_err());
            prop_assert!(decode(&bytes[..at % length], 0, &mut SharedLabels::default()).is_err());
        }
    }
}
