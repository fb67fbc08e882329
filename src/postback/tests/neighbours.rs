//! How much sick endpoints delay the healthy ones: 1,000 endpoints, 10 % of them dead (refusing, accepting and then
//! silent, not even accepting), 10 % answering after 10 s. To be run by hand:
//! `cargo nextest run --lib neighbours --run-ignored only --no-capture`.
//!
//! Arrivals are on a schedule that waits for nobody, far below what sender and receiver can do. Both arms get the same
//! conversions for the healthy endpoints, at the same pace; one of them gets those of the sick ones too. A delay runs
//! from the moment at which the schedule lets a batch go, until the receiver has written its answer. Arms take turns
//! within one run; what counts is the median of the rounds' ratios.

use std::{net::TcpListener, time::Instant};

use super::{measure::runtime, *};

const ENDPOINTS: u32 = 1_000;
/// As the shipper settles: batches, one after the other.
const BATCH_EVERY: Duration = Duration::from_millis(100);
const PER_BATCH: u32 = 40;
/// Until those that are known to be fast or slow are known.
const WARM_UP: u32 = 60;
const BATCHES: u32 = 240;
const ROUNDS: usize = 5;
/// What waits for each sick endpoint from the beginning.
const BACKLOG: u32 = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Refuses,
    Hangs,
    DoesNotAccept,
    Slow,
}

fn health(endpoint: u32) -> Health {
    match (endpoint % 10, endpoint / 10 % 3) {
        (0, 0) => Health::Refuses,
        (0, 1) => Health::Hangs,
        (0, _) => Health::DoesNotAccept,
        (1, _) => Health::Slow,
        _ => Health::Well,
    }
}

/// The receivers, and the goals that name them.
struct Site {
    well: Receiver,
    catalog: Arc<Catalog>,
    clock: Turned,
    goals: Vec<Goal>,
    _catalog: tempfile::TempDir,
    _full: (TcpListener, Vec<std::net::TcpStream>),
}

#[test]
#[ignore = "measures"]
fn a_thousand_endpoints() {
    let receiving = runtime();
    let site = receiving.block_on(Site::start());
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let first = round % 2 == 1;
        let mut p99 = [0.0; 2];
        for sick in [first, !first] {
            let delays = site.delays(sick, u64::try_from(round).expect("small"));
            let at = |share: f64| percentile(&delays, share);
            println!(
                "round {round}, {}: {} delays, p50 {:.1} p90 {:.1} p99 {:.1} max {:.1} ms",
                if sick { "among sick ones" } else { "alone          " },
                delays.len(),
                at(0.5),
                at(0.9),
                at(0.99),
                at(1.0)
            );
            p99[usize::from(sick)] = at(0.99);
        }
        ratios.push(p99[1] / p99[0]);
    }
    println!("p99 among sick ones / alone, by round: {ratios:.2?}");
    ratios.sort_by(f64::total_cmp);
    println!("median {:.2}", ratios[ratios.len() / 2]);
}

impl Site {
    async fn start() -> Self {
        let well = Receiver::start(|_| Reply::After(5)).await;
        let slow = Receiver::start(|_| Reply::After(10_000)).await;
        let hangs = Receiver::start(|_| Reply::Silence).await;
        let refuses =
            TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let full = full();
        let port = full.0.local_addr().expect("an address").port();
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Turned(Arc::new(AtomicI64::new(crate::clock::SystemClock.now().0)));
        let catalog = Arc::new(Catalog::open(folder.path(), &clock, None).expect("opened").catalog);
        let goals = (0..ENDPOINTS).map(|number| {
            // Each is a place of its own: nobody uses another's connections.
            let [.., high, low] = number.to_be_bytes();
            let port = match health(number) {
                Health::Well => well.address.port(),
                Health::Slow => slow.address.port(),
                Health::Hangs => hangs.address.port(),
                Health::Refuses => refuses,
                Health::DoesNotAccept => return goal(&catalog, &format!("http://127.0.0.1:{port}/{number}")),
            };
            goal(&catalog, &format!("http://127.1.{high}.{low}:{port}/{number}"))
        });
        let goals = goals.collect();
        Self { well, catalog, clock, goals, _catalog: folder, _full: full }
    }

    /// What the healthy endpoints' postbacks took, in milliseconds, in order.
    fn delays(&self, sick: bool, seed: u64) -> Vec<f64> {
        // Where an fsync is one.
        let disk = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        std::fs::create_dir_all(&disk).expect("a folder");
        let folder = tempfile::tempdir_in(disk).expect("a folder");
        let clock = Arc::new(crate::clock::SystemClock);
        let guard = Guard::new(&["127.0.0.0/8".parse().expect("a net")], SystemResolver);
        let opened = Postbacks::open(folder.path(), self.catalog.clone(), clock, guard, BatchId(0));
        let postbacks = Arc::new(opened.expect("opened"));
        let mut numbers =
            Numbers { last: seed + 1, next_id: u128::from(seed) << 64 | u128::from(sick) << 63 };
        if sick {
            let all = (0..ENDPOINTS * BACKLOG).map(|number| number % ENDPOINTS);
            let ill: Vec<_> = all.filter(|number| health(*number) != Health::Well).collect();
            postbacks
                .queue(ill.iter().map(|number| self.event(*number, &mut numbers)).collect())
                .expect("queued");
        }
        let stop = tokio_util::sync::CancellationToken::new();
        let courier = std::thread::spawn({
            let (postbacks, stop) = (postbacks.clone(), stop.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime");
                runtime.block_on(deliver(postbacks, stop));
                runtime.shutdown_background();
            }
        });
        let mut due: HashMap<String, Instant> = HashMap::new();
        let start = Instant::now();
        for batch in 0..WARM_UP + BATCHES {
            let at = start + BATCH_EVERY * batch;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let mut events = Vec::new();
            for _ in 0..PER_BATCH {
                let endpoint = numbers.endpoint();
                let event = self.event(endpoint, &mut numbers);
                if health(endpoint) == Health::Well {
                    if batch >= WARM_UP {
                        due.insert(event.webhook_id(), at);
                    }
                } else if !sick {
                    continue;
                }
                events.push(event);
            }
            postbacks.queue(events).expect("queued");
        }
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut answered = self.well.answered();
        while !due.keys().all(|name| answered.contains_key(name)) {
            assert!(Instant::now() < deadline, "a healthy endpoint was not told");
            std::thread::sleep(Duration::from_millis(50));
            answered = self.well.answered();
        }
        stop.cancel();
        courier.join().expect("ended");
        let mut delays: Vec<_> =
            due.iter().map(|(name, at)| (answered[name] - *at).as_secs_f64() * 1e3).collect();
        delays.sort_by(f64::total_cmp);
        delays
    }

    fn event(&self, endpoint: u32, numbers: &mut Numbers) -> Event {
        numbers.next_id += 1;
        Event {
            conversion_id: ConversionId(uuid::Uuid::from_u128(numbers.next_id)),
            goal_id: self.goals[usize::try_from(endpoint).expect("small")].id,
            converted_at: self.clock.now(),
            ..webhook::sample()
        }
    }
}

/// The same numbers for the same seed.
struct Numbers {
    last: u64,
    next_id: u128,
}

impl Numbers {
    fn endpoint(&mut self) -> u32 {
        self.last = self.last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.last >> 33) % u64::from(ENDPOINTS)).expect("small")
    }
}

fn goal(catalog: &Catalog, url: &str) -> Goal {
    let draft = GoalDraft {
        name: "g".into(),
        goal_type: GoalType::Purchase,
        value: None,
        currency: None,
        attribution_window_days: 30,
        postback_url: Some(url.to_owned()),
        postback_method: webhook::PostbackMethod::Post,
        trust_client_fields: false,
    };
    catalog.create_goal(ME, draft, UnixMillis(1)).expect("made")
}

/// A listener whose queue is full: whoever connects hears nothing.
fn full() -> (TcpListener, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a port");
    socket.listen(1).expect("listening");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("an address");
    let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let waiting: Vec<_> = (0..4).map_while(connect).collect();
    assert!(waiting.len() < 4, "nobody else gets in");
    (listener, waiting)
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "thousands"
    )]
    let at = ((sorted.len() - 1) as f64 * share) as usize;
    sorted[at]
}
