//! While hits are answered, batches wait; and never for good.

use std::sync::atomic::AtomicBool;

use super::{
    attribution::{At, clicked},
    fake::Faults,
    *,
};
use crate::shipper::give_way::GiveWay;

/// Clicks that came in the last second, and whether those who answer hits have no time to spare.
async fn burst() -> (Rig, Surroundings<Warehouse>, Arc<AtomicBool>) {
    let mut rig = Rig::new(Warehouse::new(Faults::none()));
    rig.append((1..=20).map(|n| Record::Click(clicked(n, i64::from(n)))).collect()).await;
    let mut around = rig.start(LIMITS, i64::MAX);
    around.clock = Box::new(At(1000));
    let strained = Arc::new(AtomicBool::new(true));
    let asked = strained.clone();
    around.give_way =
        Some(GiveWay::new(Box::new(move || asked.load(Ordering::Relaxed)), around.config.settle));
    (rig, around, strained)
}

#[tokio::test]
async fn batches_wait_for_a_burst_and_go_once_it_is_over() {
    let (rig, mut around, strained) = burst().await;
    let mut worker = Worker::open(&around).expect("opened");
    for _ in 0..3 {
        assert_eq!(worker.step(&mut around).await.expect("no error"), Step::Idle);
    }
    assert_eq!(rig.warehouse.store().rows().count(), 0);
    strained.store(false, Ordering::Relaxed);
    while worker.step(&mut around).await.expect("no error") == Step::Worked {}
    assert_eq!(rig.warehouse.store().rows().count(), 20);
    rig.verify();
}

/// What was gathered stays in the log, and is read again.
#[tokio::test]
async fn a_burst_that_begins_while_a_batch_is_gathered_is_waited_for() {
    let (rig, mut around, _) = burst().await;
    let mut moments = [false, true].into_iter();
    around.give_way =
        Some(GiveWay::new(Box::new(move || moments.next().unwrap_or(false)), around.config.settle));
    let mut worker = Worker::open(&around).expect("opened");
    assert_eq!(
        worker.step(&mut around).await.expect("no error"),
        Step::Worked,
        "it tended the clicks' files"
    );
    assert_eq!(
        (rig.warehouse.store().rows().count(), around.folder.cut_ids().expect("a folder").len()),
        (0, 0)
    );
    while worker.step(&mut around).await.expect("no error") == Step::Worked {}
    assert_eq!(rig.warehouse.store().rows().count(), 20);
    rig.verify();
}

#[tokio::test]
async fn a_burst_that_lasts_is_shipped_all_the_same() {
    let (rig, mut around, _) = burst().await;
    around.clock = Box::new(At(10_000));
    let mut worker = Worker::open(&around).expect("opened");
    while worker.step(&mut around).await.expect("no error") == Step::Worked {}
    assert_eq!(rig.warehouse.store().rows().count(), 20);
}

#[tokio::test]
async fn told_to_stop_nothing_waits() {
    let (rig, mut around, _) = burst().await;
    around.stop.cancel();
    let mut worker = Worker::open(&around).expect("opened");
    while worker.step(&mut around).await.expect("no error") == Step::Worked {}
    assert_eq!(rig.warehouse.store().rows().count(), 20);
    rig.verify();
}
