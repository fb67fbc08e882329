//! What is known of ended threads and tasks.

use std::{
    any::Any,
    fmt::Display,
    panic::PanicHookInfo,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

pub(super) static SUPERVISOR: Supervisor = Supervisor::new();

/// A thread or task ended that must not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} has ended: {reason}")]
pub struct TaskFailure {
    /// Which.
    pub name: String,
    /// Why, as far as is known.
    pub reason: String,
}

/// What a thread or task may return.
pub trait Outcome: Send + 'static {
    /// Why it could not go on, if that is why it returns.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send + 'static> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// How long a thread or task is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// As long as the daemon.
    Daemon,
    /// Until its work is done.
    Finite,
}

/// Keeps the first failure and wakes who waits for it.
pub(super) struct Supervisor {
    stopping: AtomicBool,
    first: OnceLock<TaskFailure>,
    failed: Notify,
}

impl Supervisor {
    pub(super) const fn new() -> Self {
        Self { stopping: AtomicBool::new(false), first: OnceLock::new(), failed: Notify::const_new() }
    }

    pub(super) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn failure(&self) -> Option<TaskFailure> {
        self.first.get().cloned()
    }

    pub(super) async fn first_failure(&self) -> TaskFailure {
        loop {
            if let Some(failure) = self.first.get() {
                return failure.clone();
            }
            self.failed.notified().await;
        }
    }

    pub(super) fn note_return(&self, name: &str, lifetime: Lifetime, failure: Option<String>) {
        let stopping = self.stopping.load(Ordering::Acquire);
        match failure {
            Some(reason) => self.fail(name, reason),
            None if lifetime == Lifetime::Daemon && !stopping => {
                self.fail(name, "it returned although the daemon runs".to_owned());
            }
            None => {}
        }
    }

    pub(super) fn note_panic(&self, name: &str, message: &str) {
        metrics::counter!("tally_task_panics_total", "task" => name.to_owned()).increment(1);
        self.fail(name, format!("it panicked: {message}"));
    }

    fn fail(&self, name: &str, reason: String) {
        tracing::error!(task = name, reason, "a thread or task ended early; the daemon stops");
        // Those that follow are its consequences, nearly always; they are in the log.
        let _ = self.first.set(TaskFailure { name: name.to_owned(), reason });
        self.failed.notify_one();
    }
}

/// Describes what is counted, and begins with the tasks that may panic alone: an alert must tell 'none' from 'not known'.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "tally_task_panics_total",
        metrics::Unit::Count,
        "Panics of threads and tasks."
    );
    for name in [
        "http-connection",
        "ops-connection",
        "export",
        "postback-attempt",
        "postback-connection",
        "past-clicks",
    ] {
        metrics::counter!("tally_task_panics_total", "task" => name).absolute(0);
    }
}

/// An end that concerns no other thread or task.
pub(super) fn note_isolated(name: &'static str, message: &str) {
    metrics::counter!("tally_task_panics_total", "task" => name).increment(1);
    tracing::error!(task = name, message, "a task panicked; its request or connection is ended");
}

/// Makes panics log lines like any other, with their place. The supervisor's own line, with the task's name, follows.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            place,
            message = message(panic.payload()),
            "panic"
        );
    }));
}

/// What a panic says.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no reason".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_is_a_failure_only_of_what_must_run_and_before_the_stop() {
        let supervisor = Supervisor::new();
        supervisor.note_return("finite", Lifetime::Finite, None);
        assert_eq!(supervisor.failure(), None);
        supervisor.begin_stop();
        supervisor.note_return("stopped", Lifetime::Daemon, None);
        assert_eq!(supervisor.failure(), None);
        supervisor.note_return("shipper", Lifetime::Finite, Some("no disk".into()));
        assert_eq!(supervisor.failure().expect("kept").name, "shipper", "an error is one at any time");

        let supervisor = Supervisor::new();
        supervisor.note_return("sampler", Lifetime::Daemon, None);
        supervisor.note_panic("wal-writer", "later");
        assert_eq!(supervisor.failure().expect("kept").name, "sampler", "the first is kept");
    }

    #[tokio::test]
    async fn a_failure_before_the_listener_came_is_heard() {
        let supervisor = Supervisor::new();
        supervisor.note_panic("wal-writer", "torn");
        assert_eq!(supervisor.first_failure().await.to_string(), "wal-writer has ended: it panicked: torn");
    }
}
