//! The formats between memory, log and ClickHouse.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tally::core::{
    AccountId, BatchId, ClickId, Conversion, ConversionId, CountedConversion, Currency, DedupScope, GoalId,
    Matching, Money, OrderId, OrderKey, Source, Unattributed, UnixMillis, payload, rows,
};

fn conversion() -> Conversion {
    Conversion {
        id: ConversionId(uuid::Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0007)),
        account_id: AccountId(1),
        goal_id: GoalId(7),
        order_id: OrderId::parse("ORDER-12345").ok().flatten(),
        key: Some((OrderKey(0x1234_5678_9abc_def0), DedupScope::Forever)),
        value: Money::parse("99.99").unwrap_or_default(),
        currency: Currency::USD,
        received_at: UnixMillis(1_800_000_000_000),
        converted_at: UnixMillis(1_800_000_000_000),
        window_seconds: 30 * 86_400,
        matching: Matching::Unknown,
        source: Source::Postback,
        click_id: Some(ClickId(789)),
        ip: "203.0.113.0".parse().ok(),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".to_owned(),
        visitor_key: 42,
        unverified: false,
    }
}

fn formats(criterion: &mut Criterion) {
    let conversion = conversion();
    let mut group = criterion.benchmark_group("one conversion");
    group.throughput(Throughput::Elements(1));
    let mut bytes = Vec::with_capacity(1024);
    group.bench_function("to the log's payload", |bench| {
        bench.iter(|| {
            bytes.clear();
            payload::encode_conversion(black_box(&conversion), &mut bytes);
        });
    });
    let counted = CountedConversion::unattributed(conversion.clone(), Unattributed::NoVisitor);
    let stored = bytes.clone();
    group.bench_function("from the log's payload", |bench| {
        bench.iter(|| payload::decode(black_box(&stored)));
    });
    group.bench_function("to a row", |bench| {
        bench.iter(|| {
            bytes.clear();
            rows::encode_conversion(black_box(&counted), BatchId(7), &mut bytes);
        });
    });
    group.finish();
}

criterion_group!(benches, formats);
criterion_main!(benches);
