//! How busy the workers are.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};

/// Measures, from one call of [`Self::share`] to the next, how much of the processors' time the workers were busy.
pub struct Strain {
    workers: Vec<RuntimeMetrics>,
    processors: usize,
    last: Instant,
    busy: Duration,
}

impl Strain {
    /// Of event loops with one thread each.
    pub(super) fn new<'a>(workers: impl IntoIterator<Item = &'a Handle>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = workers.into_iter().map(Handle::metrics).collect();
        let busy = busy(&workers);
        Self { workers, processors, last: Instant::now(), busy }
    }

    /// The share since the last call, 0 to 1: 1 where there are as many busy workers as processors. A worker that is held
    /// up by other threads counts as busy.
    pub fn share(&mut self) -> f64 {
        let (now, busy) = (Instant::now(), busy(&self.workers));
        let (passed, worked) = (now.duration_since(self.last), busy.saturating_sub(self.busy));
        (self.last, self.busy) = (now, busy);
        let processors = u32::try_from(self.processors).unwrap_or(u32::MAX);
        (worked.as_secs_f64() / (passed * processors).as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0)
    }
}

fn busy(workers: &[RuntimeMetrics]) -> Duration {
    workers.iter().map(|worker| worker.worker_total_busy_duration(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_worker_is_not_busy_and_one_that_works_is() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut strain = Strain { processors: 1, ..Strain::new([runtime.handle()]) };
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        assert!(strain.share() < 0.5);
        runtime.block_on(async {
            let task = tokio::spawn(async {
                let since = Instant::now();
                while since.elapsed() < Duration::from_millis(50) {
                    std::hint::black_box(since);
                }
            });
            task.await.expect("done");
        });
        let share = strain.share();
        assert!((0.5..=1.0).contains(&share), "{share}");
    }
}
