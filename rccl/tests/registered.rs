//! Memory of the caller's that is registered, in calls of every form.

mod common;

use common::{config, on_ranks};
use rccl::{ReduceOp, Registered};

const LENGTH: usize = 100_000;

#[test]
fn registered_memory_works_in_every_form_of_call() {
    for transport in ["shm", "tcp", "shm,verbs,tcp"] {
        on_ranks(2, &config(transport, ""), |comm| {
            let rank = comm.rank();
            let mut x = comm.register(vec![rank as i32 + 1; LENGTH]).unwrap();
            comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
            assert_eq!(*x, [3; LENGTH]);
            // The same memory again, and a part of it.
            comm.all_reduce(&mut x[7..LENGTH / 2], ReduceOp::Sum).unwrap();
            assert_eq!((x[6], x[7], x[LENGTH / 2 - 1], x[LENGTH / 2]), (3, 6, 6, 3));
            // Owned by a call under way.
            let mut x: Registered<Vec<i32>> = comm.start_all_reduce(x, ReduceOp::Max).wait().unwrap();
            assert_eq!((x[6], x[7]), (3, 6));
            let nothing = comm.register(Vec::<f32>::new()).unwrap();
            assert!(!nothing.is_registered() && nothing.is_empty());
            comm.broadcast(&mut x, 1).unwrap();
            let plain: Vec<i32> = x.into_inner();
            assert_eq!((plain.len(), plain[7]), (LENGTH, 6));
        });
    }
}

#[test]
fn it_outlives_its_communicator() {
    let kept =
        on_ranks(1, &config("", ""), |comm| comm.register(vec![1_u8; 5000].into_boxed_slice()).unwrap());
    for kept in kept {
        assert_eq!(*kept.into_inner(), [1; 5000]);
    }
}
