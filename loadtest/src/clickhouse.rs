//! `ClickHouse` over HTTP, as far as a verification needs it: rows out, nothing in.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use crate::text::ShortText;
use crate::verify::{Comparison, Row, Verdict};

/// Why `ClickHouse` could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClickHouseError {
    /// Not `http://[user:password@]host:port/[?database=…]`.
    #[error("not a ClickHouse URL: {0:?}")]
    Url(String),
    /// The connection failed.
    #[error("ClickHouse cannot be reached: {0}")]
    Http(#[from] Box<ureq::Error>),
    /// The answer broke off.
    #[error("ClickHouse's answer broke off: {0}")]
    Io(#[from] io::Error),
    /// It refused the query.
    #[error("ClickHouse answered {status}: {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// A row that is not of the form asked for.
    #[error("ClickHouse sent a row that cannot be read: {0:?}")]
    Row(String),
}

/// A connection's address and credentials.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    agent: ureq::Agent,
    url: String,
    user: Option<String>,
    password: String,
}

impl ClickHouse {
    /// Takes the credentials out of `url`.
    pub fn new(url: &str) -> Result<Self, ClickHouseError> {
        let wrong = || ClickHouseError::Url(url.into());
        let (scheme, rest) = url.trim().split_once("://").ok_or_else(wrong)?;
        let host_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(host_end);
        let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        if host.is_empty() {
            return Err(wrong());
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_mins(10)));
        Ok(Self {
            agent: config.build().into(),
            url: format!("{scheme}://{host}{}{path}", if path.starts_with('/') { "" } else { "/" }),
            user: (!user.is_empty()).then(|| percent_decoded(user)),
            password: percent_decoded(password),
        })
    }

    /// The answer to `query`, line by line.
    pub fn lines(
        &self,
        query: &str,
    ) -> Result<impl Iterator<Item = Result<String, ClickHouseError>> + use<>, ClickHouseError> {
        let mut request = self.agent.post(&self.url);
        if let Some(user) = &self.user {
            request = request.header("X-ClickHouse-User", user).header("X-ClickHouse-Key", &self.password);
        }
        let response = request.send(query).map_err(Box::new)?;
        let status = response.status().as_u16();
        let body = response.into_body().into_reader();
        if status != 200 {
            let mut text = String::new();
            body.take(4096).read_to_string(&mut text)?;
            return Err(ClickHouseError::Refused { status, text: text.trim().into() });
        }
        Ok(BufReader::with_capacity(1 << 18, body).lines().map(|line| line.map_err(ClickHouseError::Io)))
    }

    /// The first value of the answer to `query`.
    pub fn number(&self, query: &str) -> Result<u64, ClickHouseError> {
        let line = self.lines(query)?.next().transpose()?.unwrap_or_default();
        line.trim().parse().map_err(|_| ClickHouseError::Row(line))
    }

    /// Holds a comparison against the rows that are there now.
    pub fn verify(&self, mut comparison: Comparison) -> Result<Verdict, ClickHouseError> {
        // Those rejected are read first: what is rejected in between is then reported, and gone the next time.
        let rejected = if comparison.has_undecided() { self.rejected()? } else { HashSet::new() };
        let query = "SELECT toString(goal_id), ifNull(toString(order_id), ''), toString(conversion_id), \
                     toString(click_id), attribution_method = 'click_id' FROM tally.conversions \
                     FORMAT TabSeparated";
        for line in self.lines(query)? {
            let line = line?;
            comparison.add_row(&parse_row(&line).ok_or(ClickHouseError::Row(line))?);
        }
        if comparison.has_clicks() {
            for line in self.lines("SELECT click_id FROM tally.clicks FORMAT TabSeparated")? {
                let line = line?;
                comparison.add_click(line.parse().map_err(|_| ClickHouseError::Row(line))?);
            }
        }
        Ok(comparison.finish(&rejected))
    }

    fn rejected(&self) -> Result<HashSet<ShortText>, ClickHouseError> {
        let query = "SELECT toString(conversion_id) FROM tally.rejections FORMAT TabSeparated";
        // A text that is too long for an id is no conversion's.
        self.lines(query)?
            .filter_map(|line| line.map(|line| ShortText::from_bytes(line.as_bytes())).transpose())
            .collect()
    }
}

/// An order id that does not fit came from elsewhere: any other text does as well.
fn parse_row(line: &str) -> Option<Row> {
    let mut fields = line.split('\t');
    let goal_id = fields.next()?.parse().ok()?;
    let order_id = match fields.next()? {
        "" => None,
        order => Some(ShortText::from_bytes(order.as_bytes()).unwrap_or(ShortText::dash())),
    };
    let conversion_id = ShortText::from_bytes(fields.next()?.as_bytes())?;
    let click_id = fields.next()?.parse().ok()?;
    let earned = match fields.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    fields.next().is_none().then_some(Row { goal_id, order_id, conversion_id, click_id, earned })
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        (rest, ()) = match (first, code) {
            (b'%', Some(code)) => (&tail[2..], bytes.push(code)),
            _ => (tail, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_url() {
        let with = ClickHouse::new("http://reader:p%40ss@127.0.0.1:8123/?database=tally\n").unwrap();
        assert_eq!(with.url, "http://127.0.0.1:8123/?database=tally");
        assert_eq!((with.user.as_deref(), with.password.as_str()), (Some("reader"), "p@ss"));
        let without = ClickHouse::new("http://127.0.0.1:8123").unwrap();
        assert_eq!((without.url.as_str(), without.user), ("http://127.0.0.1:8123/", None));
        assert!(ClickHouse::new("127.0.0.1:8123").is_err());
    }

    #[test]
    fn rows_are_read() {
        let row = parse_row("3\torder\tid\t7\t1").unwrap();
        assert_eq!(
            (row.goal_id, row.order_id.unwrap().as_str(), row.conversion_id.as_str()),
            (3, "order", "id")
        );
        assert_eq!((row.click_id, row.earned), (7, true));
        assert_eq!(parse_row("3\t\tid\t0\t0").unwrap().order_id, None);
        assert_eq!(parse_row("3\torder\tid"), None);
    }
}
