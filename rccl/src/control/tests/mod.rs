//! Joining, liveness and failures, with ranks that are threads of this process.

mod children;
mod links;
mod processes;

use super::*;
use crate::bootstrap::UniqueId;
use crate::bootstrap::handshake::Secret;
use crate::bootstrap::processors::Processors;
use crate::call::Collective;
use crate::element::{DataType, ReduceOp};
use crate::rdma::NoRdma;
use rccl_transport::Kind;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

/// The defaults on a host without RDMA.
fn config() -> Config {
    let mut config = Config::default();
    config.set("RCCL_NET", "tcp").unwrap();
    config
}

fn options() -> JoinOptions {
    let mut options = JoinOptions::new(&config(), RegionTable::new());
    options.patience = Duration::from_secs(30);
    options
}

fn meeting() -> Meeting {
    Meeting::Id(UniqueId::create(&Config::default()).unwrap())
}

/// All ranks of a job, in order.
fn job_with(size: u32, options: impl Fn(u32) -> JoinOptions + Sync) -> Vec<Control> {
    let meeting = meeting();
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                let (meeting, options) = (&meeting, &options);
                scope.spawn(move || Control::join(meeting, rank, size, options(rank)).unwrap())
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn job(size: u32) -> Vec<Control> {
    job_with(size, |_| options())
}

/// Waits until `what` holds.
fn until(limit: Duration, what: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < limit, "not within {limit:?}");
        thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

/// The failure that all these ranks report, which is the same.
fn common_failure(ranks: &[&Control]) -> Failure {
    until(Duration::from_secs(5), || ranks.iter().all(|rank| rank.failed()));
    let first = ranks[0].failure().unwrap();
    for rank in ranks {
        assert_eq!(rank.failure().unwrap(), first, "{}", rank.me());
    }
    (*first).clone()
}

fn cause(result: Result<Control>) -> String {
    match result {
        Err(error @ Error::Join { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it joined"),
    }
}

fn all_reduce(count: u64) -> Call {
    Call {
        collective: Collective::AllReduce,
        dtype: DataType::F32,
        op: Some(ReduceOp::Sum),
        root: None,
        count,
    }
}

#[test]
fn ranks_join_and_leave() {
    for size in [1, 2, 5, 64] {
        let ranks = job(size);
        for (number, rank) in ranks.iter().enumerate() {
            assert_eq!(rank.me().rank, number as u32);
            assert_eq!(*rank.layout().host, vec![0; size as usize]);
            assert!(!rank.failed());
        }
        let began = Instant::now();
        for rank in ranks {
            rank.goodbye();
            assert!(rank.failure().is_none(), "{:?}", rank.failure());
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn ranks_meet_at_an_address_that_rank_0_binds_late() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let secret = Secret { job: 3, key: [1; 16] };
    let meeting = &Meeting::Address { host: "localhost".into(), port, secret };
    thread::scope(|scope| {
        let one = scope.spawn(move || Control::join(meeting, 1, 2, options()).unwrap());
        thread::sleep(Duration::from_millis(200));
        let zero = Control::join(meeting, 0, 2, options()).unwrap();
        assert_eq!(one.join().unwrap().layout(), zero.layout());
    });
}

#[test]
fn hosts_are_told_apart_by_their_id() {
    let ranks = job_with(6, |rank| {
        let mut options = options();
        options.listening.host_id = Some(format!("host {}", rank / 2));
        options
    });
    assert_eq!(*ranks[3].layout().host, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn a_rank_outside_of_the_job_is_refused() {
    let text = cause(Control::join(&meeting(), 2, 2, options()));
    assert!(text.contains("rank 2 does not exist in a job of 2 ranks"), "{text}");
}

#[test]
fn two_processes_with_one_rank_are_both_named_to_everybody() {
    let meeting = &meeting();
    let pid = std::process::id();
    thread::scope(|scope| {
        let ranks: Vec<_> = [0, 1, 1]
            .map(|rank| scope.spawn(move || cause(Control::join(meeting, rank, 4, options()))))
            .into();
        for rank in ranks {
            let text = rank.join().unwrap();
            assert!(text.contains("two processes with rank 1: "), "{text}");
            assert_eq!(text.matches(&format!("pid {pid}")).count(), 2, "{text}");
        }
    });
}

#[test]
fn ranks_that_disagree_are_told_about_what() {
    let meeting = &meeting();
    thread::scope(|scope| {
        let ranks: Vec<_> = [2, 3]
            .map(|size| scope.spawn(move || cause(Control::join(meeting, size - 2, size, options()))))
            .into();
        for rank in ranks {
            let text = rank.join().unwrap();
            assert!(text.contains("disagree about the size"), "{text}");
        }
    });
    let meeting = &self::meeting();
    thread::scope(|scope| {
        let ranks: Vec<_> = [0, 1]
            .map(|rank| {
                let mut config = Config::default();
                config.set("RCCL_NSOCKS", &(rank + 2).to_string()).unwrap();
                let options = JoinOptions::new(&config, RegionTable::new());
                scope.spawn(move || cause(Control::join(meeting, rank, 2, options)))
            })
            .into();
        for rank in ranks {
            let text = rank.join().unwrap();
            assert!(text.contains("RCCL_NSOCKS=2") && text.contains("RCCL_NSOCKS=3"), "{text}");
        }
    });
}

#[test]
fn missing_ranks_are_named_to_those_that_came() {
    let meeting = &meeting();
    let began = Instant::now();
    thread::scope(|scope| {
        let ranks: Vec<_> = [0, 2, 3, 7]
            .map(|rank| {
                scope.spawn(move || {
                    let options = JoinOptions { patience: Duration::from_secs(2), ..options() };
                    cause(Control::join(meeting, rank, 8, options))
                })
            })
            .into();
        for rank in ranks {
            let text = rank.join().unwrap();
            assert!(text.contains("4 of 8 ranks arrived; missing 1, 4-6"), "{text}");
        }
    });
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn one_process_too_many_is_refused_and_the_job_goes_on() {
    let meeting = meeting();
    let alone = Control::join(&meeting, 0, 1, options()).unwrap();
    let text = cause(Control::join(&meeting, 0, 1, options()));
    assert!(text.contains("two processes with rank 0"), "{text}");
    let text = cause(Control::join(&meeting, 1, 2, options()));
    assert!(text.contains("complete with 1 ranks"), "{text}");
    assert!(!alone.failed());
}

#[test]
fn another_key_or_job_is_refused() {
    let Meeting::Id(id) = meeting() else { unreachable!() };
    let mut bytes = id.to_bytes();
    bytes[8] ^= 1;
    let text = cause(Control::join(&Meeting::Id(UniqueId::from_bytes(bytes).unwrap()), 0, 1, options()));
    assert!(text.contains("the key does not match"), "{text}");
    bytes[8] ^= 1;
    bytes[24] ^= 1;
    let text = cause(Control::join(&Meeting::Id(UniqueId::from_bytes(bytes).unwrap()), 0, 1, options()));
    assert!(text.contains("belongs to job"), "{text}");
    // The listener still serves the right one.
    Control::join(&Meeting::Id(id), 0, 1, options()).unwrap();
}

#[test]
fn strangers_do_not_disturb_a_job() {
    let Meeting::Id(id) = meeting() else { unreachable!() };
    let meeting = &Meeting::Id(id);
    let port = id.addresses()[0].port();
    thread::scope(|scope| {
        let first = scope.spawn(move || Control::join(meeting, 0, 2, options()).unwrap());
        let mut silent = Vec::new();
        for round in 0..20 {
            // A scan, garbage, an HTTP client, and one that holds its connection open.
            drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
            let mut garbage = TcpStream::connect(("127.0.0.1", port)).unwrap();
            garbage.write_all(&[round; 200]).unwrap();
            let mut web = TcpStream::connect(("127.0.0.1", port)).unwrap();
            web.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            web.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // Closed at once; a reset is as good as an end.
            assert!(matches!(web.read(&mut [0; 16]), Ok(0) | Err(_)));
            silent.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
        }
        let second = Control::join(meeting, 1, 2, options()).unwrap();
        let first = first.join().unwrap();
        assert!(!first.failed() && !second.failed());
    });
}

#[test]
fn an_unreachable_root_is_an_error_within_the_deadline() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let secret = Secret { job: 3, key: [1; 16] };
    let meeting = Meeting::Address { host: "127.0.0.1".into(), port, secret: secret.clone() };
    let began = Instant::now();
    let short = || JoinOptions { patience: Duration::from_secs(1), ..options() };
    let text = cause(Control::join(&meeting, 1, 2, short()));
    assert!(text.contains("the root was not reached within"), "{text}");
    let meeting = Meeting::Address { host: "no-such-host.invalid".into(), port, secret };
    let text = cause(Control::join(&meeting, 1, 2, short()));
    assert!(text.contains("does not resolve"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[test]
fn joining_can_be_cancelled() {
    let meeting = meeting();
    let options = options();
    let cancel = options.cancel.clone();
    thread::scope(|scope| {
        let joining = scope.spawn(|| cause(Control::join(&meeting, 0, 2, options)));
        thread::sleep(Duration::from_millis(100));
        cancel.store(true, Ordering::Relaxed);
        assert!(joining.join().unwrap().contains("cancelled"));
    });
}

#[test]
fn an_abort_reaches_all_ranks_and_this_one_at_once() {
    let ranks = job(3);
    ranks[2].abort("enough");
    assert!(ranks[2].failed());
    let failure = common_failure(&ranks.iter().collect::<Vec<_>>());
    assert_eq!(failure, Failure::Aborted { member: ranks[2].me(), why: "enough".into() });
}

#[test]
fn a_dead_rank_is_named_on_all_others_within_a_second() {
    let ranks = job(4);
    for rank in &ranks {
        rank.progress().enter(12, all_reduce(5).pack());
    }
    ranks[1].vanish();
    let left: Vec<_> = [0, 2, 3].map(|rank| &ranks[rank]).into();
    let took = until(Duration::from_secs(1), || left.iter().all(|rank| rank.failed()));
    let failure = common_failure(&left);
    assert_eq!(
        failure,
        Failure::PeerLost {
            member: ranks[1].me(),
            how: "exited without goodbye".into(),
            sequence: 12,
            seen_by: "rank 0 (root)".into()
        },
        "{took:?}"
    );
}

#[test]
fn a_broken_link_is_blamed_on_the_process_that_died() {
    let ranks = job(3);
    ranks[0].report_link_lost(1, "tcp", Some(4), "connection reset");
    thread::sleep(Duration::from_millis(50));
    ranks[1].vanish();
    let failure = common_failure(&[&ranks[0], &ranks[2]]);
    assert!(matches!(&failure, Failure::PeerLost { member, .. } if member.rank == 1), "{failure}");

    let ranks = job(2);
    ranks[0].report_link_lost(1, "tcp", Some(4), "connection reset");
    let failure = common_failure(&[&ranks[0], &ranks[1]]);
    assert!(matches!(&failure, Failure::LinkLost { rank: 0, peer: 1, sequence: 4, .. }), "{failure}");
}

#[test]
fn a_silent_rank_is_given_up() {
    // A process that answers no ping is made by joining by hand.
    let meeting = meeting();
    let silence = Silence { warn: Duration::from_millis(200), fatal: Duration::from_millis(800) };
    thread::scope(|scope| {
        let meeting = &meeting;
        let silent = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                use crate::bootstrap::{connect, message};
                let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
                let host = crate::bootstrap::host::Identity::here(None);
                let stream = connect::reach(meeting, 1, host.key, deadline).await.unwrap();
                let details = message::Details {
                    host,
                    pid: 77,
                    processors: Processors::default(),
                    path: None,
                    addresses: vec![],
                    port: 0,
                    rdma: Err(NoRdma::Natural("no RDMA device".into())),
                };
                let joining = message::Joining {
                    rank: 1,
                    size: 2,
                    patience: Duration::from_secs(10),
                    agreement: options().agreement,
                    silence,
                    ring: Vec::new(),
                    profile: Default::default(),
                    details,
                };
                connect::join(stream, joining, deadline).await.unwrap()
            })
        });
        let zero = Control::join(meeting, 0, 2, JoinOptions { silence, ..options() }).unwrap();
        let _open = silent.join().unwrap();
        let took = until(Duration::from_secs(3), || zero.failed());
        assert!(took > Duration::from_millis(600), "{took:?}");
        let failure = zero.failure().unwrap().to_string();
        assert!(failure.contains("rank 1") && failure.contains("has been silent for"), "{failure}");
    });
}

#[test]
fn a_mismatch_is_found_where_no_link_joins_the_two() {
    let ranks = job(4);
    for (number, rank) in ranks.iter().enumerate() {
        rank.progress().enter(1, all_reduce(10).pack());
        rank.progress().leave(1);
        let count = if number == 2 { 11 } else { 10 };
        rank.progress().enter(2, all_reduce(count).pack());
    }
    // This one has even returned.
    ranks[3].progress().leave(2);
    ranks[2].report_stall(2);
    let failure = common_failure(&ranks.iter().collect::<Vec<_>>());
    assert_eq!(
        failure.to_string(),
        "mismatch at op #2: rank 0 all_reduce f32 x10 sum; rank 2 all_reduce f32 x11 sum"
    );
}

#[test]
fn a_slow_rank_is_no_failure_and_is_known() {
    let ranks = job(3);
    for rank in &ranks {
        rank.progress().enter(1, all_reduce(10).pack());
        rank.progress().leave(1);
    }
    ranks[0].progress().enter(2, all_reduce(9).pack());
    ranks[1].progress().enter(2, all_reduce(9).pack());
    ranks[0].report_stall(2);
    ranks[1].report_stall(2);
    until(Duration::from_secs(2), || !ranks[0].waiting_for().is_empty());
    assert_eq!(ranks[0].waiting_for(), [CallOf { rank: 2, sequence: 1, call: None }]);
    assert!(!ranks[0].failed());

    ranks[0].report_timeout(2, Duration::from_secs(7), &[]);
    let failure = common_failure(&ranks.iter().collect::<Vec<_>>());
    let missing = CallOf { rank: 2, sequence: 1, call: None };
    assert_eq!(
        failure,
        Failure::Timeout { rank: 0, sequence: 2, waited: Duration::from_secs(7), waiting_for: vec![missing] }
    );
}

#[test]
fn a_rank_that_left_fails_only_those_that_need_it() {
    let mut ranks = job(3);
    let gone = ranks.pop().unwrap().me();
    assert!(!ranks[0].failed() && !ranks[1].failed());
    ranks[1].progress().enter(1, all_reduce(9).pack());
    ranks[1].report_stall(1);
    let failure = common_failure(&[&ranks[0], &ranks[1]]);
    assert!(
        matches!(&failure, Failure::PeerLost { member, how, .. } if *member == gone && how.contains("left the job")),
        "{failure}"
    );
}

#[test]
fn a_reported_mismatch_names_both() {
    let ranks = job(2);
    ranks[1].report_mismatch(3, all_reduce(1), 0, 3, all_reduce(2).pack());
    let failure = common_failure(&[&ranks[0], &ranks[1]]);
    assert_eq!(
        failure.to_string(),
        "mismatch at op #3: rank 0 all_reduce f32 x2 sum; rank 1 all_reduce f32 x1 sum"
    );
}

#[test]
fn dropping_is_quick() {
    let ranks = job(4);
    let began = Instant::now();
    drop(ranks);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
