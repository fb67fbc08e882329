//! Which combinations of link, campaign and variant statistics name already.

use super::{Database, Failure};
use crate::core::{AccountId, Day, Label, LabelBook, LinkId};

#[derive(clickhouse::Row, serde::Deserialize)]
struct LabelRow {
    account_id: u32,
    link_id: u32,
    utm_source: String,
    utm_medium: String,
    utm_campaign: String,
    variant: String,
}

impl Database {
    /// The book of a day, with every combination in it that a click of that day is counted under.
    pub async fn label_book(&self, day: Day) -> Result<LabelBook, Failure> {
        let sql = "SELECT DISTINCT account_id, link_id, utm_source, utm_medium, utm_campaign, variant FROM clicks \
                   WHERE received_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC') \
                       AND received_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC') \
                       AND labelled AND (utm_source != '' OR utm_medium != '' OR utm_campaign != '' OR variant != '')";
        let query = self.long_query(sql).param("from", day.start().0).param("to", day.end().0);
        let mut rows = query.fetch::<LabelRow>()?;
        let mut book = LabelBook::new(day, std::hash::RandomState::new());
        while let Some(row) = self.long(rows.next()).await? {
            book.admit(&Label {
                account_id: AccountId(row.account_id),
                link_id: (row.link_id != 0).then_some(LinkId(row.link_id)),
                source: &row.utm_source,
                medium: &row.utm_medium,
                campaign: &row.utm_campaign,
                variant: &row.variant,
            });
        }
        Ok(book)
    }
}
