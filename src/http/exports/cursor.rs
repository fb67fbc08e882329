//! Cursors: which rows an export has, and from where on, as text that a client hands back unread.
//!
//! Not a secret and not signed: a made-up one names other rows of the same account, whose key came with it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::core::{
    AccountId, BatchId, ClickId, ConversionId, ExportKey, ExportKind, ExportQuery, GoalId, INTEGER_MAX,
    UnixMillis,
};

/// The first field of every cursor. Another shape gets another number.
const VERSION: &str = "1";

/// What a cursor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    kind: ExportKind,
    /// The period's start.
    pub(super) from: UnixMillis,
    /// The period's end.
    pub(super) to: UnixMillis,
    batch: BatchId,
    after: Option<ExportKey>,
}

impl Cursor {
    /// The rows that it stands for, if they are of that kind: see [`Self::is_of`].
    pub(super) fn query(self, account_id: AccountId, kind: ExportKind) -> ExportQuery {
        let Self { from, to, batch, after, .. } = self;
        ExportQuery { account_id, kind, from, to, batch, after, until: None }
    }

    /// Whether it is one of such exports.
    pub(super) fn is_of(&self, kind: ExportKind) -> bool {
        self.kind == kind
    }
}

/// The cursor of these rows.
pub(super) fn write(query: &ExportQuery) -> String {
    let key = match query.after {
        None => String::new(),
        Some(ExportKey::Conversion { goal_id, converted_at, id }) => {
            format!(".{}.{}.{}", goal_id.0, converted_at.0, id.0.as_simple())
        }
        Some(ExportKey::Click { id, is_callers }) => format!(".{}.{}", id.0, u8::from(is_callers)),
    };
    let kind = query.kind.as_str();
    URL_SAFE_NO_PAD.encode(format!("{VERSION}.{kind}.{}.{}.{}{key}", query.from.0, query.to.0, query.batch.0))
}

/// What a text says that [`write`] wrote.
pub(super) fn read(text: &str) -> Option<Cursor> {
    let decoded = URL_SAFE_NO_PAD.decode(text).ok()?;
    let decoded = std::str::from_utf8(&decoded).ok()?;
    let mut fields = decoded.split('.');
    let mut next = || fields.next();
    if next()? != VERSION {
        return None;
    }
    let kind = next()?;
    let kind = [ExportKind::Conversions, ExportKind::Clicks].into_iter().find(|of| of.as_str() == kind)?;
    let (from, to) = (UnixMillis(next()?.parse().ok()?), UnixMillis(next()?.parse().ok()?));
    let batch = BatchId(next()?.parse().ok().filter(|batch| *batch <= BatchId::MAX.0)?);
    let after = match (kind, next()) {
        (_, None) => None,
        (ExportKind::Conversions, Some(goal)) => Some(ExportKey::Conversion {
            goal_id: GoalId(goal.parse().ok()?),
            converted_at: UnixMillis(next()?.parse().ok()?),
            id: ConversionId(Uuid::try_parse(next()?).ok()?),
        }),
        (ExportKind::Clicks, Some(id)) => Some(ExportKey::Click {
            id: ClickId(id.parse().ok().filter(|id| *id <= INTEGER_MAX)?),
            is_callers: match next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
        }),
    };
    next().is_none().then_some(Cursor { kind, from, to, batch, after })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(kind: ExportKind) -> BoxedStrategy<Option<ExportKey>> {
        match kind {
            ExportKind::Conversions => {
                let parts = (any::<u32>(), any::<i64>(), any::<u128>());
                prop::option::of(parts.prop_map(|(goal, at, id)| ExportKey::Conversion {
                    goal_id: GoalId(goal),
                    converted_at: UnixMillis(at),
                    id: ConversionId(Uuid::from_u128(id)),
                }))
                .boxed()
            }
            ExportKind::Clicks => {
                let parts = (0..=INTEGER_MAX, any::<bool>());
                prop::option::of(
                    parts.prop_map(|(id, is_callers)| ExportKey::Click { id: ClickId(id), is_callers }),
                )
                .boxed()
            }
        }
    }

    fn query() -> impl Strategy<Value = ExportQuery> {
        let kinds = prop::sample::select(vec![ExportKind::Conversions, ExportKind::Clicks]);
        let all =
            kinds.prop_flat_map(|kind| (Just(kind), any::<(i64, i64)>(), 0..=BatchId::MAX.0, key(kind)));
        all.prop_map(|(kind, (from, to), batch, after)| ExportQuery {
            account_id: AccountId(1),
            kind,
            from: UnixMillis(from),
            to: UnixMillis(to),
            batch: BatchId(batch),
            after,
            until: None,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(query in query()) {
            let cursor = read(&write(&query)).expect("our own");
            prop_assert_eq!(cursor.query(AccountId(1), query.kind), query);
            prop_assert!(cursor.is_of(query.kind));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,60}", inner in "1\\.(clicks|conversions)(\\.[-0-9a-f]{0,20}){0,7}") {
            let _ = (read(&text), read(&URL_SAFE_NO_PAD.encode(inner)));
        }
    }
}
