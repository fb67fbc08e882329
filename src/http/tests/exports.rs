//! Exports through the API: what is asked for, and what the headers say. The rows are tested on a real database.

use futures_util::future::BoxFuture;

use super::*;
use crate::{
    core::{BatchId, ExportFormat, ExportKey, ExportKind, ExportQuery, ExportRow},
    http::{Export, ExportError, Exports, pipe},
};

const CONVERSIONS: &str = "/api/v1/exports/conversions";
const CLICKS: &str = "/api/v1/exports/clicks";
const KEY: ExportKey = ExportKey::Click { id: ClickId(12), is_callers: false };

/// Has one row; a limit of 2 breaks it off, and there is no place where 3 are asked for.
#[derive(Default)]
pub(super) struct Files {
    asked: Mutex<Vec<ExportQuery>>,
}

impl Exports for Files {
    fn settled(&self) -> BatchId {
        BatchId(7)
    }

    fn position(
        &self,
        _: ReportPermit,
        account: AccountId,
        row: ExportRow,
    ) -> BoxFuture<'_, Result<Option<ExportKey>, ReportError>> {
        assert_eq!(account, AccountId(1));
        Box::pin(async move { Ok((row == ExportRow::Click(ClickId(12))).then_some(KEY)) })
    }

    fn start(
        &self,
        _: ReportPermit,
        query: ExportQuery,
        _: ExportFormat,
        rows_max: Option<u64>,
    ) -> BoxFuture<'_, Result<Export, ExportError>> {
        self.asked.lock().push(query);
        Box::pin(async move {
            match rows_max {
                Some(3) => return Err(ExportError::AccountBusy),
                Some(4) => return Err(ExportError::Busy),
                Some(5) => return Err(ExportError::Report(ReportError::Unavailable)),
                _ => {}
            }
            let (writer, body) = pipe();
            writer.put(vec![Bytes::from_static(b"a row\n")]).expect("read");
            writer.complete();
            // A writer that is dropped before its rows are read breaks the answer off.
            tokio::spawn(async move { writer.drained(0).await });
            Ok(Export { body, next_after: rows_max.map(|_| KEY) })
        })
    }
}

impl Fixture {
    fn files(&self) -> Vec<ExportQuery> {
        std::mem::take(&mut *self.files.asked.lock())
    }
}

#[tokio::test]
async fn a_file_has_a_name_a_type_and_a_cursor() {
    let it = Fixture::new();
    let got = it.call("GET", &format!("{CONVERSIONS}?format=csv&from=2026-01-01&to=2026-01-21"), "").await;
    assert_eq!((got.status, &got.body[..]), (200, &b"a row\n"[..]));
    assert_eq!(got.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let name = "attachment; filename=\"conversions_2026-01-01_2026-01-20.csv\"";
    assert_eq!(got.header("content-disposition"), Some(name));
    assert_eq!((got.header("cache-control"), got.header("link")), (Some("no-store"), None));
    let asked = it.files().remove(0);
    assert_eq!(
        (asked.account_id, asked.kind, asked.batch),
        (AccountId(1), ExportKind::Conversions, BatchId(7))
    );
    let cursor = got.header("x-export-cursor").expect("a cursor").to_owned();
    let again = it.call("GET", &format!("{CONVERSIONS}?cursor={cursor}"), "").await;
    assert_eq!((again.header("x-export-cursor"), it.files()), (Some(&*cursor), vec![asked]));

    for (format, kind) in [("ndjson", "application/x-ndjson"), ("parquet", "application/vnd.apache.parquet")]
    {
        let got = it.call("GET", &format!("{CLICKS}?format={format}"), "").await;
        assert_eq!(got.header("content-type"), Some(kind));
        let name = format!("attachment; filename=\"clicks_2026-01-21.{format}\"");
        assert_eq!(got.header("content-disposition"), Some(&*name));
    }
    it.files();
    let head = it.call("HEAD", CLICKS, "").await;
    assert_eq!((head.status, head.body.len(), it.files()), (200, 0, Vec::new()));
    assert!(head.header("content-disposition").is_some() && head.header("x-export-cursor").is_some());
}

#[tokio::test]
async fn a_page_names_the_next_and_a_broken_file_goes_on() {
    let it = Fixture::new();
    let page = it.call("GET", &format!("{CLICKS}?limit=2"), "").await;
    let link = page.header("link").expect("a link").to_owned();
    let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).expect("a link");
    assert!(next.starts_with(&format!("{CLICKS}?format=csv&limit=2&cursor=")), "{next}");
    assert_eq!(it.call("GET", next, "").await.status, 200);
    let asked = it.files();
    assert_eq!((asked[0].after, asked[1].after), (None, Some(KEY)));
    assert_eq!(ExportQuery { after: None, ..asked[1] }, asked[0]);

    let cursor = page.header("x-export-cursor").expect("a cursor");
    let resumed = it.call("GET", &format!("{CLICKS}?cursor={cursor}&after=12"), "").await;
    assert_eq!((resumed.status, it.files()[0].after), (200, Some(KEY)));
    let unknown = it.call("GET", &format!("{CLICKS}?cursor={cursor}&after=13"), "").await;
    assert_eq!(unknown.code(), (400, "invalid_parameter".into()));
    assert_eq!(unknown.json()["error"]["field"], "after");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let it = Fixture::new();
    for (query, code, field) in [
        ("format=xlsx", "invalid_parameter", "format"),
        ("from=yesterday", "invalid_parameter", "from"),
        ("from=2026-01-02&to=2026-01-01", "invalid_parameter", "to"),
        ("limit=0", "invalid_parameter", "limit"),
        ("limit=1000001", "invalid_parameter", "limit"),
        ("cursor=abc", "invalid_parameter", "cursor"),
        ("after=12", "invalid_parameter", "cursor"),
        ("goal=1", "unknown_parameter", "goal"),
    ] {
        let got = it.call("GET", &format!("{CLICKS}?{query}"), "").await;
        assert_eq!(got.code(), (400, code.into()), "{query}");
        assert_eq!(got.json()["error"]["field"], field, "{query}");
    }
    for (limit, status, code) in
        [(3, 429, "too_many_exports"), (4, 503, "overloaded"), (5, 503, "database_unavailable")]
    {
        let got = it.call("GET", &format!("{CLICKS}?limit={limit}"), "").await;
        assert_eq!(got.code(), (status, code.into()));
        assert!(got.header("retry-after").is_some());
    }
    assert_eq!(it.send("GET", CLICKS, &[], "").await.code(), (401, "unauthorized".into()));
    let post = it.call("POST", CLICKS, "").await;
    assert_eq!((post.code(), post.header("allow")), ((405, "method_not_allowed".into()), Some("GET, HEAD")));
}
