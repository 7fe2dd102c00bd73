//! Arguments that can never be right are refused before anything is sent, and the communicator stays usable.

mod common;

use common::{config, on_ranks, try_on_ranks};
use rccl::{Call, Collective, Communicator, DataType, Error, ReduceOp, UniqueId};

fn still_works(comm: &Communicator) {
    let mut x = [comm.rank() as i32 + 1];
    comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
    assert_eq!(x, [3]);
}

#[test]
fn a_bad_argument_leaves_the_communicator_usable() {
    on_ranks(2, &config("shm", ""), |comm| {
        let mut memory = [0_u8; 64];
        let base = memory.as_mut_ptr();
        let call = |count| Call {
            collective: Collective::AllReduce,
            dtype: DataType::F32,
            op: Some(ReduceOp::Sum),
            root: None,
            count,
        };
        let refused = |result: rccl::Result<()>, words: &[&str]| {
            let error = result.expect_err("refused");
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
            for word in words {
                assert!(error.to_string().contains(word), "{error} does not say {word}");
            }
        };
        // SAFETY: refused before any memory is touched.
        refused(unsafe { comm.call_raw(&call(8), base, base.wrapping_add(16)) }, &["overlap", "16 bytes"]);
        // SAFETY: as above.
        refused(unsafe { comm.call_raw(&call(8), std::ptr::null(), base) }, &["null"]);
        // SAFETY: as above.
        refused(unsafe { comm.call_raw(&call(u64::MAX / 2), base, base) }, &["elements"]);
        refused(comm.broadcast(&mut [1_u8], 2), &["root 2", "2 ranks"]);
        refused(comm.all_reduce_into(&[1_u8; 3], &mut [0; 4], ReduceOp::Sum), &["4 elements where 3 belong"]);
        assert!(comm.alloc::<u64>(usize::MAX / 2).is_err());
        still_works(&comm);
    });
}

#[test]
fn a_rank_beyond_the_size_is_refused() {
    let id = UniqueId::create(&config("", "")).unwrap();
    let error = Communicator::new(&id, 3, 3).map(|_| ()).expect_err("refused");
    assert!(error.to_string().contains("rank 3 of 3"), "{error}");
}

#[test]
fn an_aborted_communicator_says_who_and_why() {
    let errors = try_on_ranks(3, &config("shm", ""), |comm| {
        let comm = comm.unwrap();
        if comm.rank() == 1 {
            comm.abort("the loss is NaN");
        }
        let first = comm.barrier();
        first.and_then(|()| comm.barrier())
    });
    for error in errors {
        let text = error.expect_err("aborted").to_string();
        assert!(text.contains("rank 1") && text.contains("the loss is NaN"), "{text}");
    }
}
