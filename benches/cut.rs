//! What a batch of 50,000 costs the shipper beside its insert.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tally::{
    core::{
        AccountId, BatchId, Conversion, ConversionId, CountedConversion, Currency, DedupScope, GoalId,
        Matching, Money, OrderId, OrderKey, Source, Unattributed, UnixMillis,
    },
    shipper::{Content, Cut, Origin},
    wal::Position,
};

const ROWS: u32 = 50_000;

fn conversion(n: u32) -> Conversion {
    Conversion {
        id: ConversionId(uuid::Uuid::now_v7()),
        account_id: AccountId(1),
        goal_id: GoalId(1 + n % 20),
        order_id: OrderId::parse(&format!("ORDER-{n:08}")).expect("fits"),
        key: Some((OrderKey(u128::from(n) << 64 | 7), DedupScope::Forever)),
        value: Money::from_micros(99_990_000).expect("fits"),
        currency: Currency::USD,
        received_at: UnixMillis(1_793_491_200_000 + i64::from(n)),
        converted_at: UnixMillis(1_793_491_200_000 + i64::from(n)),
        window_seconds: 30 * 86_400,
        matching: Matching::Unknown,
        source: Source::Postback,
        click_id: None,
        ip: Some("203.0.113.0".parse().expect("an address")),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)".to_owned(),
        visitor_key: u64::from(n),
        unverified: false,
    }
}

fn counted(n: u32) -> CountedConversion {
    CountedConversion::unattributed(conversion(n), Unattributed::NoVisitor)
}

fn cut(criterion: &mut Criterion) {
    let content = Content { conversions: (0..ROWS).map(counted).collect(), ..Content::default() };
    let origin = Origin::Log { from: Position::START, to: Position::START };
    let cut = Cut::new(BatchId(7), None, origin.clone(), &content);
    let file = bytes::Bytes::from(cut.encode());
    let mut group = criterion.benchmark_group("cut_of_50k");
    group.throughput(Throughput::Elements(ROWS.into())).sample_size(20);
    group.bench_function("make", |bencher| {
        bencher.iter(|| Cut::new(BatchId(7), None, origin.clone(), black_box(&content)));
    });
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&cut).encode()));
    group.bench_function("decode", |bencher| bencher.iter(|| Cut::decode(black_box(&file))));
    group.bench_function("rows_back", |bencher| bencher.iter(|| black_box(&cut).content()));
    group.finish();
}

criterion_group!(benches, cut);
criterion_main!(benches);
