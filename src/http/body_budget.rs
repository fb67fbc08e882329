//! Memory for request bodies: one budget for all that are under way, and a share of it for each caller.
//!
//! What must hold:
//! - Bytes are charged before they are kept, and given back when the request is over: [`Charge`] does so when it is
//!   dropped.
//! - Who has a key pays by account, everybody else by address. All the latter together get a quarter, so that strangers
//!   can't keep accounts from sending.
//! - A body of up to [`FREE_BYTES`] costs nothing: it is within what a connection may take, and nearly all hits are.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use hyper::http::request::Parts;
use ipnet::IpNet;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;

use super::{
    client,
    error::{ApiError, ErrorCode},
    network::Network,
};
use crate::{catalog::Catalog, core::AccountId};

/// What a body may have without being charged.
pub(super) const FREE_BYTES: usize = 8 << 10;
/// For all bodies: eight of bulk calls at their largest.
const BYTES_MAX: usize = 64 << 20;
/// Of that, for one account: two of them.
const ACCOUNT_BYTES_MAX: usize = 16 << 20;
/// For all callers without a key, and for one address of theirs.
const STRANGERS_BYTES_MAX: usize = 16 << 20;
const ADDRESS_BYTES_MAX: usize = 4 << 20;
/// When a caller may find room again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The budget. Shared by all workers.
pub struct BodyBudget {
    held: Mutex<Held>,
    limits: BodyLimits,
    meter: Gauge,
    refused: Counter,
}

struct BodyLimits {
    all: usize,
    account: usize,
    strangers: usize,
    address: usize,
}

#[derive(Default)]
struct Held {
    all: usize,
    strangers: usize,
    payers: HashMap<Payer, usize>,
}

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Payer {
    Account(AccountId),
    Address(Network),
}

/// A request, as far as it matters to who pays. Looked at only where a body is not free.
pub(super) struct Caller<'a> {
    pub(super) budget: &'a Arc<BodyBudget>,
    pub(super) catalog: &'a Catalog,
    pub(super) head: &'a Parts,
    pub(super) peer: IpAddr,
    pub(super) trusted: &'a [IpNet],
}

/// Bytes that are held. Dropping it gives them back.
pub struct Charge {
    budget: Arc<BodyBudget>,
    payer: Payer,
    bytes: usize,
}

impl BodyBudget {
    /// Room for the bodies that the configuration allows, two of a stranger's at least.
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Self {
        describe_gauge!(
            "tally_http_body_bytes",
            Unit::Bytes,
            "Request bodies under way that are held in memory."
        );
        describe_gauge!(
            "tally_http_body_bytes_max",
            Unit::Bytes,
            "Most of them: past it bodies are refused."
        );
        describe_counter!(
            "tally_http_bodies_refused_total",
            Unit::Count,
            "Bodies that were refused since there was no room for them, or not in their caller's share."
        );
        let address = ADDRESS_BYTES_MAX.max(2 * body_bytes_max);
        let strangers = STRANGERS_BYTES_MAX.max(2 * address);
        let account = ACCOUNT_BYTES_MAX.max(address);
        let limits = BodyLimits { all: BYTES_MAX.max(2 * strangers), account, strangers, address };
        set(&gauge!("tally_http_body_bytes_max"), limits.all);
        let meter = gauge!("tally_http_body_bytes");
        set(&meter, 0);
        Self { held: Mutex::default(), limits, meter, refused: counter!("tally_http_bodies_refused_total") }
    }

    fn take(&self, payer: Payer, bytes: usize) -> Result<(), ApiError> {
        let mut held = self.held.lock();
        let own = held.payers.get(&payer).copied().unwrap_or_default();
        let (share, is_full) = match payer {
            Payer::Account(_) => (self.limits.account, false),
            Payer::Address(_) => {
                (self.limits.address, held.strangers.saturating_add(bytes) > self.limits.strangers)
            }
        };
        let code = if own.saturating_add(bytes) > share {
            Some(ErrorCode::TooManyBodies)
        } else if is_full || held.all.saturating_add(bytes) > self.limits.all {
            Some(ErrorCode::Overloaded)
        } else {
            None
        };
        if let Some(code) = code {
            self.refused.increment(1);
            return Err(ApiError::new(code).after(RETRY_AFTER));
        }
        held.add(payer, bytes);
        set(&self.meter, held.all);
        Ok(())
    }

    fn change(&self, payer: Payer, from: usize, to: usize) {
        let mut held = self.held.lock();
        held.remove(payer, from);
        held.add(payer, to);
        set(&self.meter, held.all);
    }
}

impl Held {
    fn add(&mut self, payer: Payer, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.all += bytes;
        if matches!(payer, Payer::Address(_)) {
            self.strangers += bytes;
        }
        *self.payers.entry(payer).or_default() += bytes;
    }

    fn remove(&mut self, payer: Payer, bytes: usize) {
        let Some(own) = self.payers.get_mut(&payer) else { return };
        *own -= bytes;
        if *own == 0 {
            self.payers.remove(&payer);
        }
        self.all -= bytes;
        if matches!(payer, Payer::Address(_)) {
            self.strangers -= bytes;
        }
    }
}

impl Caller<'_> {
    /// Charges bytes that are about to be read.
    pub(super) fn charge(&self, bytes: usize) -> Result<Charge, ApiError> {
        let payer = client::account(&self.catalog.snapshot(), &self.head.headers).map_or_else(
            |_| Payer::Address(Network::of(client::address(self.peer, &self.head.headers, self.trusted))),
            Payer::Account,
        );
        self.budget.take(payer, bytes)?;
        Ok(Charge { budget: self.budget.clone(), payer, bytes })
    }
}

impl Charge {
    /// How many are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges some more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.budget.take(self.payer, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Holds so many instead, whether there is room or not: they are in memory already.
    pub(super) fn become_of(&mut self, bytes: usize) {
        self.budget.change(self.payer, self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.change(self.payer, self.bytes, 0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn set(gauge: &Gauge, bytes: usize) {
    gauge.set(bytes as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Arc<BodyBudget> {
        Arc::new(BodyBudget::new(64 << 10))
    }

    fn charge(budget: &Arc<BodyBudget>, payer: Payer, bytes: usize) -> Result<Charge, ErrorCode> {
        budget.take(payer, bytes).map_err(|error| error.code)?;
        Ok(Charge { budget: budget.clone(), payer, bytes })
    }

    fn stranger(last: u8) -> Payer {
        Payer::Address(Network::of(IpAddr::from([203, 0, 113, last])))
    }

    fn account(id: u32) -> Payer {
        Payer::Account(AccountId(id))
    }

    #[test]
    fn a_share_ends_before_the_whole_does_and_all_is_given_back() {
        let budget = budget();
        let first = charge(&budget, account(1), ACCOUNT_BYTES_MAX).expect("room");
        assert_eq!(charge(&budget, account(1), 1).err(), Some(ErrorCode::TooManyBodies));
        let others: Vec<_> =
            (2..5).map(|id| charge(&budget, account(id), ACCOUNT_BYTES_MAX).expect("room")).collect();
        assert_eq!(charge(&budget, account(9), 1).err(), Some(ErrorCode::Overloaded));
        drop(first);
        let mut again = charge(&budget, account(1), 10).expect("room");
        again.grow(5).expect("room");
        assert_eq!(again.grow(ACCOUNT_BYTES_MAX).map_err(|error| error.code), Err(ErrorCode::TooManyBodies));
        assert_eq!(again.bytes(), 15);
        drop((others, again));
        let held = budget.held.lock();
        assert_eq!((held.all, held.strangers, held.payers.len()), (0, 0, 0));
    }

    #[test]
    fn strangers_leave_room_for_accounts() {
        let budget = budget();
        let strangers: Vec<_> =
            (0..).map_while(|last| charge(&budget, stranger(last), ADDRESS_BYTES_MAX).ok()).collect();
        assert_eq!(strangers.len(), STRANGERS_BYTES_MAX / ADDRESS_BYTES_MAX);
        assert_eq!(charge(&budget, stranger(0), 1).err(), Some(ErrorCode::TooManyBodies));
        assert_eq!(charge(&budget, stranger(99), 1).err(), Some(ErrorCode::Overloaded));
        assert!(charge(&budget, account(1), ACCOUNT_BYTES_MAX).is_ok());
    }

    #[test]
    fn an_answer_counts_even_where_there_is_no_room() {
        let budget = budget();
        let mut held = charge(&budget, account(1), 100).expect("room");
        held.become_of(BYTES_MAX + 1);
        assert_eq!(charge(&budget, account(2), 1).err(), Some(ErrorCode::Overloaded));
        drop(held);
        assert!(charge(&budget, account(2), 1).is_ok());
    }

    #[test]
    fn the_largest_body_that_is_allowed_always_fits() {
        let body_bytes_max = 16 << 20;
        let budget = Arc::new(BodyBudget::new(body_bytes_max));
        assert!(charge(&budget, stranger(1), body_bytes_max).is_ok());
        assert!(charge(&budget, account(1), body_bytes_max).is_ok());
    }
}
