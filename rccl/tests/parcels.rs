//! Bytes whose number only their root knows, broadcast in the background.

mod common;

use common::{config, on_ranks};
use rccl::{Communicator, Failure, ReduceOp};
use std::time::Duration;

fn content(root: u32, n: usize) -> Vec<u8> {
    (0..n * 1000).map(|i| (i as u32 * 7 + root) as u8).collect()
}

fn received(comm: &Communicator, n: usize, root: u32) -> Vec<u8> {
    let own = if comm.rank() == root { content(root, n) } else { vec![9; 3] };
    let (parcel, [number, bytes]) = comm.start_parcel(own, root, None).unwrap();
    number.wait().unwrap();
    bytes.wait().unwrap();
    parcel.take().expect("it has ended")
}

#[test]
fn every_rank_gets_the_bytes_of_the_root() {
    for transport in ["shm", "tcp"] {
        for ranks in [1, 2, 3, 5] {
            on_ranks(ranks, &config(transport, ""), |comm| {
                for n in [0, 1, 2, 500] {
                    for root in 0..comm.size() {
                        assert_eq!(received(&comm, n, root), content(root, n));
                    }
                }
            });
        }
    }
}

/// Their bytes go before what was called before their number was known.
#[test]
fn calls_behind_parcels_stay_behind_them() {
    on_ranks(3, &config("", ""), |comm| {
        let parcels: Vec<_> = (0..30_u32)
            .map(|i| {
                let root = i % comm.size();
                let parcel = comm.start_parcel(content(root, i as usize), root, None).unwrap();
                let sum = comm.start_all_reduce(vec![i; 3], ReduceOp::Sum);
                (parcel, sum)
            })
            .collect();
        let mut sum = [1; 2];
        comm.all_reduce(&mut sum, ReduceOp::Sum).unwrap();
        assert_eq!(sum, [3; 2]);
        for (i, ((parcel, works), sum)) in (0..).zip(parcels) {
            assert!(works.iter().all(rccl::Work::is_done), "a blocking call came before {i}");
            assert_eq!(parcel.take().unwrap(), content(i % comm.size(), i as usize));
            assert_eq!(sum.wait().unwrap(), [3 * i; 3]);
        }
    });
}

#[test]
fn one_that_is_dropped_goes_on_and_one_under_way_has_nothing_to_take() {
    on_ranks(2, &config("", ""), |comm| {
        if comm.rank() == 0 {
            drop(comm.start_parcel(Vec::new(), 1, None).unwrap());
            let (parcel, _works) = comm.start_parcel(Vec::new(), 1, None).unwrap();
            assert_eq!(parcel.take(), None);
            comm.barrier().unwrap();
            assert_eq!(parcel.take(), Some(content(1, 7)));
            assert_eq!(parcel.take(), Some(Vec::new()), "once");
        } else {
            std::thread::sleep(Duration::from_millis(100));
            drop(comm.start_parcel(content(1, 3), 1, None).unwrap());
            drop(comm.start_parcel(content(1, 7), 1, None).unwrap());
            comm.barrier().unwrap();
        }
    });
}

#[test]
fn failures_are_those_of_a_broadcast() {
    on_ranks(2, &config("", ""), |comm| {
        let refused = comm.start_parcel(Vec::new(), 2, None).unwrap_err().to_string();
        assert!(refused.contains("root 2"), "{refused}");
        comm.barrier().unwrap();
        if comm.rank() == 0 {
            let (_, works) = comm.start_parcel(Vec::new(), 1, Some(Duration::from_millis(200))).unwrap();
            for work in works {
                let error = work.wait().unwrap_err();
                assert!(matches!(error.failure(), Some(Failure::Timeout { .. })), "{error}");
            }
        } else {
            std::thread::sleep(Duration::from_millis(600));
            let (_, works) = comm.start_parcel(content(1, 1), 1, None).unwrap();
            works.into_iter().for_each(|work| drop(work.wait()));
            let error = comm.barrier().unwrap_err();
            assert!(matches!(error.failure(), Some(Failure::Timeout { .. })), "{error}");
        }
    });
}

/// Another call of the root's looks like the first of the two, and its number may be any.
#[test]
fn lengths_that_no_memory_has_are_refused() {
    on_ranks(2, &config("", ""), |comm| {
        if comm.rank() == 0 {
            comm.broadcast(&mut [u64::MAX], 0).unwrap();
            let refused = comm.barrier().unwrap_err().to_string();
            assert!(refused.contains("rank 1") && refused.contains("making room"), "{refused}");
        } else {
            let (_parcel, [number, bytes]) = comm.start_parcel(Vec::new(), 0, None).unwrap();
            number.wait().unwrap();
            let refused = bytes.wait().unwrap_err().to_string();
            assert!(refused.contains("room for 18446744073709551615 bytes that rank 0 sends"), "{refused}");
            comm.barrier().unwrap_err();
        }
    });
}
