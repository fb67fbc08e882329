//! Load.
use std::time::Duration;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "bare" {
        loadtest::bare::serve(args[2].parse().expect("addr"), |a| println!("{a}")).expect("serve");
    } else {
        let n = |i: usize| args[i].parse::<usize>().expect("n");
        let load = loadtest::load::Load {
            connections: n(3),
            pipeline: n(4),
            threads: n(5).try_into().expect("n"),
            warmup: Duration::from_millis(500),
            window: Duration::from_secs(3),
            server_pid: Some(n(6) as u32),
            ..loadtest::load::Load::new(
                args[2].parse().expect("a"),
                vec![loadtest::request::Goal { id: 1, token: "x".repeat(32) }],
            )
        };
        let c0 = loadtest::process::cpu_time(std::process::id());
        let r = loadtest::closed_loop::run(&load).expect("run");
        let c1 = loadtest::process::cpu_time(std::process::id());
        println!(
            "{} /s {:?} us {:?} {:?} client {:?}",
            r.answered_per_second(),
            r.cpu_us_per_hit(),
            r.acked.quantiles(),
            r.measured,
            c1.expect("") - c0.expect("")
        );
    }
}
