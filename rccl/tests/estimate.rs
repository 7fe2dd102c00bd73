//! How long calls are said to take.

mod common;

use common::{config, on_ranks, on_ranks_with};
use rccl::{Call, Collective, Communicator, DataType, ReduceOp, Stream};
use std::time::Duration;

fn call(collective: Collective, count: u64, root: Option<u32>) -> Call {
    let op = matches!(collective, Collective::AllReduce | Collective::Reduce).then_some(ReduceOp::Sum);
    Call { collective, dtype: DataType::F32, op, root, count }
}

fn all_reduce(on: &Communicator, count: u64) -> Duration {
    on.estimate(&call(Collective::AllReduce, count, None)).expect("an estimate")
}

#[test]
fn longer_calls_take_longer_and_no_rank_need_ask() {
    on_ranks(3, &config("", ""), |three| {
        if three.rank() > 0 {
            return;
        }
        let times: Vec<Duration> =
            [1, 1 << 14, 1 << 20, 1 << 24].map(|count| all_reduce(&three, count)).into();
        assert!(times[0] > Duration::ZERO && times.is_sorted_by(|a, b| a < b), "{times:?}");
        let message = three.estimate(&call(Collective::Send, 1 << 20, Some(2))).expect("an estimate");
        assert!(message > Duration::ZERO && message < times[3]);
        for (collective, root) in [
            (Collective::GatherV, Some(0)),
            (Collective::AllToAllV, None),
            (Collective::Broadcast, Some(3)),
            (Collective::Broadcast, None),
            (Collective::Send, Some(3)),
        ] {
            assert_eq!(three.estimate(&call(collective, 1, root)), None, "{collective:?}");
        }
    });
}

#[test]
fn between_hosts_it_takes_longer() {
    let apart = |host: &str| {
        let mut config = config("tcp", "");
        config.set("RCCL_HOSTID", host).expect("a host");
        config
    };
    let between = on_ranks_with(&[apart("a"), apart("b")], |two| all_reduce(&two, 1 << 18))[0];
    let inside = on_ranks(2, &config("", ""), |two| all_reduce(&two, 1 << 18))[0];
    assert!(between > inside, "{between:?} between hosts, {inside:?} on one");
}

/// Where a call of the communicator has just ended, on the thread that moves it.
#[test]
fn whoever_is_told_of_an_end_may_ask() {
    on_ranks(2, &config("", ""), |two| {
        let (stream, (told, times)) = (Stream::new(), std::sync::mpsc::channel());
        let work = two.on(&stream).start_all_reduce(vec![1.0_f32; 1 << 16], ReduceOp::Sum);
        let asked = two.clone();
        stream.on_end(move |_| told.send(all_reduce(&asked, 1)).unwrap());
        work.wait().unwrap();
        assert!(times.recv_timeout(common::DEADLINE).expect("an estimate") > Duration::ZERO);
    });
}

/// Links over sockets send more unasked than the model's of one host.
#[test]
fn every_algorithm_that_may_be_chosen_has_an_estimate() {
    on_ranks(2, &config("tcp", ""), |two| {
        for shift in 0..24 {
            assert!(all_reduce(&two, 1 << shift) > Duration::ZERO);
        }
    });
}
