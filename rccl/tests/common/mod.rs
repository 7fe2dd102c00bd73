//! Ranks as threads of the test's process.
#![allow(dead_code)]

pub mod devices;
#[path = "../program/stream.rs"]
pub mod stream;

use rccl::{Communicator, Config, Result, UniqueId};
use std::sync::mpsc;
use std::time::Duration;

/// No test of a few ranks takes this long; one that does hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `body` on `n` ranks at once and returns what each returned, in order of rank.
///
/// # Panics
/// When a rank does not return within [`DEADLINE`], or panics.
pub fn on_ranks<R: Send + 'static>(
    n: u32,
    config: &Config,
    body: impl Fn(Communicator) -> R + Send + Sync + Clone + 'static,
) -> Vec<R> {
    try_on_ranks(n, config, move |comm| body(comm.expect("joining")))
}

/// As [`on_ranks`], with settings of its own for each rank.
pub fn on_ranks_with<R: Send + 'static>(
    configs: &[Config],
    body: impl Fn(Communicator) -> R + Send + Sync + Clone + 'static,
) -> Vec<R> {
    start(configs, move |comm| body(comm.expect("joining")))
}

/// As [`on_ranks`], for tests of joins that fail.
pub fn try_on_ranks<R: Send + 'static>(
    n: u32,
    config: &Config,
    body: impl Fn(Result<Communicator>) -> R + Send + Sync + Clone + 'static,
) -> Vec<R> {
    start(&vec![config.clone(); n as usize], body)
}

fn start<R: Send + 'static>(
    configs: &[Config],
    body: impl Fn(Result<Communicator>) -> R + Send + Sync + Clone + 'static,
) -> Vec<R> {
    let n = configs.len() as u32;
    let id = UniqueId::create(&configs[0]).expect("creating the unique id");
    let (done, results) = mpsc::channel();
    for (rank, config) in (0..n).zip(configs) {
        let (done, id, config, body) = (done.clone(), id, config.clone(), body.clone());
        std::thread::Builder::new()
            .name(format!("rank {rank}"))
            .spawn(move || {
                let label = std::thread::current().name().unwrap_or("rank").to_string();
                let comm = Communicator::builder()
                    .map(|builder| builder.config(config).label(label))
                    .and_then(|builder| builder.connect(&id, rank, n));
                let result = body(comm);
                let _ = done.send((rank, result));
            })
            .expect("starting a thread");
    }
    drop(done);
    let mut collected: Vec<Option<R>> = (0..n).map(|_| None).collect();
    for _ in 0..n {
        let (rank, result) = results.recv_timeout(DEADLINE).unwrap_or_else(|error| {
            let missing: Vec<usize> = (0..n as usize).filter(|&r| collected[r].is_none()).collect();
            panic!("ranks {missing:?} did not finish: {error}")
        });
        collected[rank as usize] = Some(result);
    }
    collected.into_iter().flatten().collect()
}

/// The transports that a test goes over, each by itself: shared memory, TCP, and RDMA where there are devices; or the one
/// that `TEST_TRANSPORT` names.
pub fn transports() -> Vec<&'static str> {
    let all = ["shm", "tcp", "verbs"].into_iter();
    let wanted = wanted();
    all.filter(|&transport| wanted.as_deref().is_none_or(|wanted| wanted == transport))
        .filter(|&transport| transport != "verbs" || devices::rdma())
        .collect()
}

fn wanted() -> Option<String> {
    std::env::var("TEST_TRANSPORT").ok()
}

/// Settings that allow one transport and one algorithm only; `""` leaves either open, but for `TEST_TRANSPORT`.
pub fn config(transport: &str, algorithm: &str) -> Config {
    let wanted = wanted().unwrap_or_default();
    let transport = if transport.is_empty() { &wanted } else { transport };
    let mut config = Config::default();
    if !transport.is_empty() {
        config.set("RCCL_TRANSPORT", transport).expect("a known transport");
    }
    if !algorithm.is_empty() {
        config.set("RCCL_ALGO", algorithm).expect("a known algorithm");
    }
    config.timeout = Duration::from_secs(30);
    config.init_timeout = Duration::from_secs(30);
    config
}
