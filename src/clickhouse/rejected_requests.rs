//! Rows of `rejections` that an older version wrote: it kept requests word for word, with what masking left of addresses
//! and tokens in them, and the order ids of duplicates, which came back after an erasure.

use super::{Database, Failure};

/// What may not stand there. `request` is a summary or nothing; the order id of a duplicate is its original's.
const ROWS: &str = "(request != '' AND NOT startsWith(request, {summary: String})) \
                    OR (code = {duplicate: String} AND order_id != '')";

impl Database {
    /// Blanks what older versions kept too much of, and waits until it is done. How many rows it met: none, where it ran
    /// before. The rows stay, so counts and accounting do.
    pub async fn blank_rejected_requests(&self) -> Result<u64, Failure> {
        let bound = |sql: &str| {
            self.long_query(sql)
                .param("summary", crate::core::REQUEST_SUMMARY_START)
                .param("duplicate", crate::core::DUPLICATE)
        };
        let count = format!("SELECT count() FROM rejections WHERE {ROWS}");
        let met: u64 = self.long(bound(&count).fetch_one()).await?;
        if met > 0 {
            let sql = format!(
                "ALTER TABLE rejections UPDATE \
                     request = if(startsWith(request, {{summary: String}}), request, ''), \
                     order_id = if(code = {{duplicate: String}}, '', order_id) WHERE {ROWS}"
            );
            self.long(bound(&sql).with_setting("mutations_sync", "2").execute()).await?;
        }
        Ok(met)
    }
}
