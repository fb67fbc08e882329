//! Signals. SIGTERM and SIGINT under load: the daemon ends in order, in time, and nothing that it acknowledged is lost.
//! Others change nothing.

mod support;

use std::net::TcpStream;
use std::time::Duration;

use loadtest::generator::Mix;
use rustix::process::{Signal, kill_process};
use support::accounts::assert_exactly_once;
use support::daemon::{Site, pid};
use support::wait_for;

/// What the contract gives it.
const END_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn told_to_stop_under_load_it_ends_in_time_and_loses_nothing() {
    let mut site = Site::start(&[]);
    let goals = site.goals(2);
    let traffic = site.load(&goals, 7, Mix::with(0.2, 0.02, 0.05));
    for signals in
        [&[Signal::TERM][..], &[Signal::TERM, Signal::TERM], &[Signal::INT], &[Signal::INT, Signal::TERM]]
    {
        traffic.wait_for_more(5_000);
        let said_before = site.log().matches("stopping").count();
        site.signal(signals[0]);
        for &again in &signals[1..] {
            // In the middle of its shutdown.
            wait_for("the shutdown's start", || site.log().matches("stopping").count() > said_before);
            site.signal(again);
        }
        let status = site.ended_within(END_WITHIN);
        assert_eq!(status.code(), Some(0), "after {signals:?}");
        let address = site.daemon.options.listen;
        assert!(TcpStream::connect(address).is_err(), "nobody listens on {address} any more");
        assert_eq!(loadtest::process::children(site.pid()), [0u32; 0], "no child is left");
        site.restart();
    }
    traffic.wait_for_more(2_000);
    let (report, ledger) = traffic.finish();
    println!("{:?}", report.total);
    let reader = site.daemon.reader_url().expect("a URL");
    assert_exactly_once(&site, &reader, &ledger.entries());
}

#[test]
fn without_load_everything_is_in_clickhouse_before_it_ends() {
    let mut site = Site::start(&[]);
    let goal = site.goals(1).remove(0);
    // Until the first batch is in, the schema may be on its way; what is left then is safe in the log.
    assert_eq!(site.track(&goal, "FIRST").status, 201);
    site.wait_inserted(1);
    for order in 0..20 {
        assert_eq!(site.track(&goal, &format!("ORDER-{order}")).status, 201);
    }
    site.signal(Signal::TERM);
    assert_eq!(site.ended_within(END_WITHIN).code(), Some(0));
    site.restart();
    assert!(!site.log().contains("read back what was not in ClickHouse yet"), "the last batch was shipped");
    let reader = site.daemon.reader_url().expect("a URL");
    assert_exactly_once(&site, &reader, &[]);
}

#[test]
fn other_signals_end_nothing_and_none_ends_it_out_of_order() {
    let mut site = Site::start(&[]);
    let goal = site.goals(1).remove(0);
    let engine = site.engine_pid().expect("an engine");
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        site.signal(signal);
        // As a terminal does that closes: to all processes of its group.
        kill_process(pid(engine), signal).expect("signalled");
        wait_for("what is said of it", || site.log().contains(name));
        assert_eq!(site.track(&goal, name).status, 201);
    }
    site.wait_inserted(3);
    assert_eq!(site.engine_pid(), Some(engine), "nor does the engine end");
    site.signal(Signal::QUIT);
    assert_eq!(site.ended_within(END_WITHIN).code(), Some(0));
    assert!(site.log().contains("stopped"));
}
