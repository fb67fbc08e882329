//! Where every thread and task starts, under a name, and where its early end is noticed.
//!
//! A part that runs as long as the daemon does must not end alone: a log without its writer leaves a daemon that says
//! ready and takes nothing. So nothing is started by `std` or tokio directly; `.clippy.toml` bans that outside of here.
//!
//! | Started by | Its return | Its panic |
//! |---|---|---|
//! | [`spawn_event_loop`], [`spawn`] | before [`begin_stop`]: ends the daemon | ends the daemon |
//! | [`spawn_finite_thread`], [`spawn_finite_blocking`], [`spawn_finite`] | its work is done, or who gave it work is gone; an error ends the daemon | ends the daemon |
//! | [`isolated`], [`spawn_isolated`], [`spawn_isolated_thread`] | its work is done | is logged and counted; its caller, request or connection lives with it |
//! | [`blocking`] | is handed to the caller | goes on in the caller |
//!
//! The first failure is kept for the whole process, as panics are a matter of the whole process: parts deep in the log or
//! the engine need no handle to report to. Only the daemon's main task listens ([`first_failure`]).

mod failpoint;
mod supervisor;

use std::{
    any::Any,
    borrow::Cow,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread::JoinHandle,
};

use futures_util::FutureExt as _;
use tokio::runtime::{Handle, Runtime};

use self::supervisor::{Lifetime, SUPERVISOR, message, note_isolated};
pub use self::{
    failpoint::failpoint,
    supervisor::{Outcome, TaskFailure, describe_metrics, install_panic_hook},
};

/// What a thread or task is called in logs and metrics.
pub type Name = Cow<'static, str>;

/// An isolated task panicked; that is logged and counted already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task panicked")]
pub struct Panicked;

/// From here on threads and tasks may return. Panics still count as failures.
pub fn begin_stop() {
    SUPERVISOR.begin_stop();
}

/// Completes when the first thread or task has ended early. For one listener.
pub async fn first_failure() -> TaskFailure {
    SUPERVISOR.first_failure().await
}

/// The first early end there was, if any.
#[must_use]
pub fn failure() -> Option<TaskFailure> {
    SUPERVISOR.failure()
}

/// Starts a thread with an event loop of its own, for a task that runs until the daemon stops. The task is made on that
/// thread and stays there.
pub fn spawn_event_loop<F>(
    name: impl Into<Name>,
    runtime: Runtime,
    task: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    F: Future,
    F::Output: Outcome,
{
    let name = name.into();
    let own = name.clone();
    start_thread(name, Lifetime::Daemon, move || runtime.block_on(failpoint::racing(&own, task())))
}

/// Starts a thread that may end before the daemon does.
pub fn spawn_finite_thread<T: Outcome>(
    name: impl Into<Name>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    start_thread(name.into(), Lifetime::Finite, body)
}

/// Starts a thread that its caller joins, and whose panic the caller can live with.
#[expect(clippy::disallowed_methods, reason = "threads are started here")]
pub fn spawn_isolated_thread<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<Result<T, Panicked>>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let entered = move || {
            failpoint(name);
            body()
        };
        catch_unwind(AssertUnwindSafe(entered)).map_err(|panic| isolated_panic(name, &*panic))
    })
}

/// Starts a task that runs until the daemon stops, on the present runtime.
#[expect(clippy::disallowed_methods, reason = "tasks are started here")]
pub fn spawn<T: Outcome>(
    name: impl Into<Name>,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(supervised(name.into(), Lifetime::Daemon, task))
}

/// Starts a task that may end before the daemon does, on the present runtime.
pub fn spawn_finite<T: Outcome>(
    name: impl Into<Name>,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    spawn_finite_on(&Handle::current(), name, task)
}

/// The same on another runtime.
#[expect(clippy::disallowed_methods, reason = "tasks are started here")]
pub fn spawn_finite_on<T: Outcome>(
    runtime: &Handle,
    name: impl Into<Name>,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    runtime.spawn(supervised(name.into(), Lifetime::Finite, task))
}

/// Starts the task of one connection or request, whose panic must not concern any other.
pub fn spawn_isolated<T: Send + 'static>(
    name: &'static str,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<Result<T, Panicked>> {
    spawn_isolated_on(&Handle::current(), name, task)
}

/// The same on another runtime.
#[expect(clippy::disallowed_methods, reason = "tasks are started here")]
pub fn spawn_isolated_on<T: Send + 'static>(
    runtime: &Handle,
    name: &'static str,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<Result<T, Panicked>> {
    runtime.spawn(isolated(name, task))
}

/// Runs a part of a task whose panic the rest can live with.
pub async fn isolated<T>(name: &'static str, part: impl Future<Output = T>) -> Result<T, Panicked> {
    let entered = async move {
        failpoint(name);
        part.await
    };
    AssertUnwindSafe(entered).catch_unwind().await.map_err(|panic| isolated_panic(name, &*panic))
}

/// Starts work that blocks and may end before the daemon does, on the present runtime's pool of threads.
#[expect(clippy::disallowed_methods, reason = "tasks are started here")]
pub fn spawn_finite_blocking<T: Outcome>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_blocking(move || run(name, Lifetime::Finite, body))
}

/// Runs what blocks on the present runtime's pool of threads. Its panic goes on in the caller, so that a failed write is
/// never taken for a finished one.
#[expect(clippy::disallowed_methods, reason = "tasks are started here")]
pub async fn blocking<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(body).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is being shut down, and drops the caller too.
            Err(_) => std::future::pending().await,
        },
    }
}

#[expect(clippy::disallowed_methods, reason = "threads are started here")]
fn start_thread<T: Outcome>(
    name: Name,
    lifetime: Lifetime,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_string());
    thread.spawn(move || run(&name, lifetime, body))
}

fn isolated_panic(name: &'static str, panic: &(dyn Any + Send)) -> Panicked {
    note_isolated(name, &message(panic));
    Panicked
}

fn run<T: Outcome>(name: &str, lifetime: Lifetime, body: impl FnOnce() -> T) {
    let entered = || {
        failpoint(name);
        body()
    };
    note_end(name, lifetime, catch_unwind(AssertUnwindSafe(entered)));
}

async fn supervised<T: Outcome>(name: Name, lifetime: Lifetime, task: impl Future<Output = T> + Send) {
    let end = AssertUnwindSafe(failpoint::racing(&name, task)).catch_unwind().await;
    note_end(&name, lifetime, end);
}

fn note_end<T: Outcome>(name: &str, lifetime: Lifetime, end: Result<T, Box<dyn Any + Send>>) {
    match end {
        Ok(outcome) => SUPERVISOR.note_return(name, lifetime, outcome.failure()),
        Err(panic) => SUPERVISOR.note_panic(name, &message(&*panic)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_blocking_work_goes_on_in_its_caller() {
        let waits = AssertUnwindSafe(blocking(|| panic!("torn"))).catch_unwind();
        assert_eq!(message(&*waits.await.expect_err("a panic")), "torn");
        assert_eq!(blocking(|| 7).await, 7);
    }

    #[tokio::test]
    async fn an_isolated_task_panics_alone() {
        let panics = spawn_isolated("test-connection", async { panic!("bad bytes") });
        assert_eq!(panics.await.expect("joined"), Err::<(), _>(Panicked));
        assert_eq!(spawn_isolated("test-connection", async { 7 }).await.expect("joined"), Ok(7));
        assert_eq!(failure(), None, "it concerns no other");
    }

    #[tokio::test]
    async fn an_early_end_is_known_by_name() {
        spawn_finite_thread("test-thread", || Err::<(), _>("no disk"))
            .expect("started")
            .join()
            .expect("caught");
        let failure = first_failure().await;
        assert_eq!(failure.to_string(), "test-thread has ended: no disk");
    }
}
