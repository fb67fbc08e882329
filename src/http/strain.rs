//! Whether the workers have time to spare.

use std::time::{Duration, Instant};

use procfs::{CpuTime, CurrentSI as _, KernelStats};
use tokio::runtime::{Handle, RuntimeMetrics};

/// Workers that are busy for that share of the processors' time have none to spare, whoever uses the rest: where a
/// container may use a part of a machine, the machine's own figures say nothing.
const BUSY_FROM: f64 = 0.6;
/// The same for workers that also wait, for the disk or for each other, on processors that are idle for less than
const WAITING_FROM: f64 = 0.25;
/// this.
const IDLE_BELOW: f64 = 0.2;

/// Measures, from one call of [`Self::is_high`] to the next, how the processors' time was used.
pub struct Strain {
    workers: Vec<RuntimeMetrics>,
    processors: u32,
    last: Instant,
    busy: Duration,
    machine: Option<Ticks>,
}

/// What the kernel counted for all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    all: u64,
    idle: u64,
}

impl Strain {
    /// Of event loops with one thread each.
    pub(super) fn new<'a>(workers: impl IntoIterator<Item = &'a Handle>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = workers.into_iter().map(Handle::metrics).collect();
        let busy = busy(&workers);
        let processors = u32::try_from(processors).unwrap_or(u32::MAX);
        Self { workers, processors, last: Instant::now(), busy, machine: Ticks::read() }
    }

    /// Whether the workers had no time to spare since the last call.
    pub fn is_high(&mut self) -> bool {
        is_high(self.busy_share(), self.idle_share())
    }

    /// 0 to 1: 1 where there are as many busy workers as processors. One that is held up by other threads is busy too.
    fn busy_share(&mut self) -> f64 {
        let (now, busy) = (Instant::now(), busy(&self.workers));
        let (passed, worked) = (now.duration_since(self.last), busy.saturating_sub(self.busy));
        (self.last, self.busy) = (now, busy);
        (worked.as_secs_f64() / (passed * self.processors).as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0)
    }

    /// 0 to 1; none: the kernel does not say, or too little time has passed.
    fn idle_share(&mut self) -> Option<f64> {
        let before = std::mem::replace(&mut self.machine, Ticks::read());
        self.machine?.idle_since(before?)
    }
}

fn is_high(busy: f64, idle: Option<f64>) -> bool {
    busy >= BUSY_FROM || busy >= WAITING_FROM && idle.is_some_and(|idle| idle < IDLE_BELOW)
}

fn busy(workers: &[RuntimeMetrics]) -> Duration {
    workers.iter().map(|worker| worker.worker_total_busy_duration(0)).sum()
}

impl Ticks {
    /// Guests' time is in that of users already. (proc(5))
    fn read() -> Option<Self> {
        let CpuTime { user, nice, system, idle, iowait, irq, softirq, steal, .. } =
            KernelStats::current().ok()?.total;
        let [waiting, irq, softirq, steal] = [iowait, irq, softirq, steal].map(Option::unwrap_or_default);
        let idle = idle + waiting;
        Some(Self { all: user + nice + system + idle + irq + softirq + steal, idle })
    }

    #[expect(clippy::cast_precision_loss, reason = "a share")]
    fn idle_since(self, before: Self) -> Option<f64> {
        let all = self.all.saturating_sub(before.all);
        (all > 0).then(|| self.idle.saturating_sub(before.idle) as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_worker_is_not_busy_and_one_that_works_is() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut strain = Strain { processors: 1, ..Strain::new([runtime.handle()]) };
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        assert!(strain.busy_share() < 0.5);
        runtime.block_on(async {
            let task = tokio::spawn(async {
                let since = Instant::now();
                while since.elapsed() < Duration::from_millis(50) {
                    std::hint::black_box(since);
                }
            });
            task.await.expect("done");
        });
        let share = strain.busy_share();
        assert!((0.5..=1.0).contains(&share), "{share}");
    }

    #[test]
    fn there_is_time_to_spare_while_either_idles() {
        for (busy, idle, high) in [
            (0.6, None, true),
            (0.6, Some(0.9), true),
            (0.59, None, false),
            (0.59, Some(0.2), false),
            (0.25, Some(0.19), true),
            (0.24, Some(0.0), false),
        ] {
            assert_eq!(is_high(busy, idle), high, "{busy} {idle:?}");
        }
    }

    #[test]
    fn the_share_is_that_between_two_readings() {
        let (early, late) = (Ticks { all: 181, idle: 140 }, Ticks { all: 281, idle: 190 });
        assert_eq!(late.idle_since(early), Some(0.5));
        assert_eq!(late.idle_since(late), None, "too little time has passed");
        assert!(Ticks::read().is_some_and(|now| now.all >= now.idle && now.all > 0));
    }
}
