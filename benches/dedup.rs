//! Deduplication: the filter's answers, and admission to the in-flight map.

use std::{hash::Hasher as _, hint::black_box};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use tally::{
    core::{ConversionId, Currency, DedupScope, GoalId, Money, OrderKey, UnixMillis},
    dedup::{Content, Filter, First, InFlight, KeyHasher, SECRET_BYTES},
};

/// Keys in the filter; its tables are then far larger than the caches.
const KEYS: u64 = 10_000_000;
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn key(n: u64) -> OrderKey {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(n);
    OrderKey(hasher.finish128().as_u128())
}

fn dedup(criterion: &mut Criterion) {
    let hasher = KeyHasher::new(&[7; SECRET_BYTES]);
    criterion.bench_function("key of an order id", |bench| {
        bench.iter(|| hasher.order(GoalId(1), DedupScope::Forever, black_box("ORDER-12345")));
    });

    let filter = Filter::with_capacity(KEYS);
    (0..KEYS).for_each(|n| filter.insert(key(n)));
    let mut n = 0;
    criterion.bench_function("filter, key never seen", |bench| {
        bench.iter_batched(
            || {
                n += 1;
                key(KEYS + n)
            },
            |key| filter.may_contain(key),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("filter, known key", |bench| {
        bench.iter_batched(
            || {
                n += 1;
                key(n % KEYS)
            },
            |key| filter.may_contain(key),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("filter, insertion", |bench| {
        bench.iter_batched(
            || {
                n += 1;
                key(2 * KEYS + n)
            },
            |key| filter.insert(key),
            BatchSize::SmallInput,
        );
    });

    let map = InFlight::<u64>::new(usize::MAX);
    let first = First {
        id: ConversionId(uuid::Uuid::from_u128(7)),
        content: Content::Amount(Money::ZERO, Currency::USD),
        ticket: Some(1),
    };
    criterion.bench_function("in-flight map, first copy", |bench| {
        bench.iter_batched(
            || {
                n += 1;
                key(n)
            },
            |key| map.admit(key, DedupScope::Forever, NOW, |_| false, || Ok::<_, ()>(first)),
            BatchSize::SmallInput,
        );
    });

    let keys: Vec<Vec<_>> =
        (0..2).map(|thread| (0..500_000).map(|n| key(thread * 500_000 + n)).collect()).collect();
    let mut group = criterion.benchmark_group("in-flight map");
    group.sample_size(10);
    group.bench_function("a million first copies by two threads, from empty", |bench| {
        bench.iter_batched_ref(
            || InFlight::<u64>::new(usize::MAX),
            |map| {
                let map = &*map;
                std::thread::scope(|scope| {
                    for of_thread in &keys {
                        scope.spawn(move || {
                            for key in of_thread {
                                let taken = || Ok::<_, ()>(first);
                                black_box(map.admit(*key, DedupScope::Forever, NOW, |_| false, taken)).ok();
                            }
                        });
                    }
                });
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, dedup);
criterion_main!(benches);
