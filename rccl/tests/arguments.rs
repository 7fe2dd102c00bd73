//! Arguments that can never be right are refused before anything is sent, whatever the way in which the call is made, and
//! the communicator stays usable; what is used after its end says so.

mod common;

use common::{config, on_ranks, try_on_ranks};
use rccl::{
    Call, Collective, Communicator, DataType, Error, Failure, Group, Op, RawSizes, ReduceOp, Result, Scope,
    UniqueId, Work, group,
};

fn still_works(comm: &Communicator) {
    let mut x = [comm.rank() as i32 + 1];
    comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
    assert_eq!(x, [3]);
}

fn refused(result: Result<()>, words: &[&str]) {
    let error = result.expect_err("refused");
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    assert_eq!(error.code(), "RCCL-1001");
    for word in words {
        assert!(error.to_string().contains(word), "{error} does not say {word}");
    }
}

/// Makes a wrong call of each kind: blocking, in a scope and in a group; all are refused with these words.
macro_rules! each_way {
    ($comm:expr, $method:ident($($argument:expr),*), $words:expr) => {{
        let comm: &Communicator = $comm;
        refused(comm.$method($($argument),*), $words);
        refused(comm.scope(|calls| drop(calls.$method($($argument),*))), $words);
        refused(group(|calls| calls.$method(comm, $($argument),*)), $words);
    }};
}

#[test]
fn lengths_that_do_not_fit_each_other() {
    on_ranks(2, &config("shm", ""), |comm| {
        let c = &comm;
        let rank = comm.rank();
        let sum = ReduceOp::Sum;
        let (x3, x4) = ([1_u8; 3], [1_u8; 4]);
        let (mut y3, mut y4, mut y5) = ([1_u8; 3], [1_u8; 4], [1_u8; 5]);
        each_way!(c, all_reduce_into(&x3, &mut y4, sum), &["all_reduce_into", "4 elements where 3 belong"]);
        each_way!(c, broadcast_into(&x3, &mut y4, 0), &["4 elements where 3 belong"]);
        each_way!(c, all_gather_into(&x3, &mut y5), &["5 elements where 2 x 3 = 6 belong"]);
        each_way!(c, reduce_scatter_into(&x3, &mut y4, sum), &["3 elements where 2 x 4 = 8 belong"]);
        each_way!(c, reduce_scatter(&mut y3, sum), &["3 elements", "2 ranks", "2 or 4"]);
        each_way!(c, all_gather(&mut y5), &["5 elements", "2 ranks"]);
        each_way!(c, gather(&mut y3, 0), &["3 elements", "2 ranks"]);
        each_way!(c, scatter(&mut y3, 0), &["3 elements", "2 ranks"]);
        each_way!(c, all_to_all_into(&x3, &mut y3), &["3 elements", "2 ranks"]);
        each_way!(c, all_to_all_into(&x4, &mut y3), &["3 elements where 4 belong"]);
        each_way!(c, all_to_all_into(&x4, &mut y5), &["5 elements where 4 belong"]);
        // Only the root's other array is looked at.
        each_way!(c, reduce_into(&x3, &mut y4, sum, rank), &["root's output", "4 elements where 3 belong"]);
        each_way!(c, gather_into(&x3, &mut y5, rank), &["root's output", "5 elements where 2 x 3 = 6"]);
        each_way!(c, scatter_into(&x3, &mut y4, rank), &["root's input", "3 elements where 2 x 4 = 8"]);
        still_works(c);
    });
}

#[test]
fn counts_that_do_not_fit() {
    on_ranks(2, &config("shm", ""), |comm| {
        let c = &comm;
        let rank = comm.rank();
        let sum = ReduceOp::Sum;
        let x3 = [1_u8; 3];
        let (mut y3, mut y4, mut y6) = ([1_u8; 3], [1_u8; 4], [1_u8; 6]);
        let few: &[&str] = &["counts has 1 entries for 2 ranks"];
        each_way!(c, all_gather_v_into(&x3, &mut y4, &[3]), few);
        each_way!(c, all_gather_v_into(&x3, &mut y6, &[3, 3, 0]), &["3 entries for 2 ranks"]);
        each_way!(c, all_gather_v_into(&x3, &mut y6, &[2, 2]), &["3 elements where 2 belong"]);
        each_way!(c, all_gather_v_into(&x3, &mut y4, &[3, 3]), &["4 elements where 6 belong"]);
        each_way!(c, all_gather_v_into(&x3, &mut y4, &[usize::MAX, 2]), &["add up"]);
        each_way!(c, reduce_scatter_v_into(&x3, &mut y3, &[3], sum), few);
        each_way!(c, reduce_scatter_v_into(&x3, &mut y3, &[2, 2], sum), &["3 elements where 4 belong"]);
        each_way!(c, reduce_scatter_v_into(&x3, &mut y4, &[1, 2], sum), &["4 elements where"]);
        each_way!(c, gather_v_into(&x3, &mut y6, &[3], rank), few);
        each_way!(c, gather_v_into(&x3, &mut y4, &[3, 3], rank), &["4 elements where 6 belong"]);
        each_way!(c, gather_v_into(&x3, &mut y4, &[2, 2], rank), &["3 elements where 2 belong"]);
        each_way!(c, scatter_v_into(&x3, &[3], &mut y3, rank), few);
        each_way!(c, scatter_v_into(&x3, &[2, 2], &mut y3, rank), &["3 elements where 4 belong"]);
        each_way!(c, scatter_v_into(&x3, &[1, 2], &mut y4, rank), &["4 elements where"]);
        each_way!(c, all_to_all_v_into(&x3, &[3], &mut y3, &[1, 2]), &["send_counts has 1 entries"]);
        each_way!(c, all_to_all_v_into(&x3, &[1, 2], &mut y3, &[3]), &["recv_counts has 1 entries"]);
        each_way!(c, all_to_all_v_into(&x3, &[2, 2], &mut y4, &[2, 2]), &["3 elements where 4 belong"]);
        each_way!(c, all_to_all_v_into(&x3, &[1, 2], &mut y4, &[1, 2]), &["4 elements where 3 belong"]);
        // What a rank sends itself it receives.
        let (sends, receives) = if rank == 0 { ([1, 2], [2, 1]) } else { ([2, 1], [1, 2]) };
        each_way!(c, all_to_all_v_into(&x3, &sends, &mut y3, &receives), &["this rank's entry"]);
        still_works(c);
    });
}

#[test]
fn roots_and_peers_that_do_not_exist() {
    on_ranks(2, &config("shm", ""), |comm| {
        let c = &comm;
        let sum = ReduceOp::Sum;
        let x2 = [1_u8; 2];
        let (mut y2, mut y4) = ([1_u8; 2], [1_u8; 4]);
        let words: &[&str] = &["root 2", "2 ranks"];
        each_way!(c, broadcast(&mut y2, 2), words);
        each_way!(c, broadcast_into(&x2, &mut y2, 2), words);
        each_way!(c, reduce(&mut y2, sum, 2), words);
        each_way!(c, reduce_into(&x2, &mut y2, sum, 2), words);
        each_way!(c, gather(&mut y2, 2), words);
        each_way!(c, gather_into(&x2, &mut y4, 2), words);
        each_way!(c, gather_v_into(&x2, &mut y4, &[2, 2], 2), words);
        each_way!(c, scatter(&mut y2, 2), words);
        each_way!(c, scatter_into(&x2, &mut y2, 2), words);
        each_way!(c, scatter_v_into(&x2, &[1, 1], &mut y2, 2), words);
        each_way!(c, broadcast(&mut y2, u32::MAX), &["root 4294967295"]);
        each_way!(c, send(&x2, 2), &["rank 2", "2 ranks"]);
        each_way!(c, recv(&mut y2, u32::MAX), &["rank 4294967295", "2 ranks"]);
        each_way!(c, send(&x2, c.rank()), &["itself"]);
        each_way!(c, recv(&mut y2, c.rank()), &["itself"]);
        still_works(c);
    });
}

#[test]
fn operators_that_do_not_suit_the_type() {
    on_ranks(2, &config("shm", ""), |comm| {
        let c = &comm;
        let x2 = [1.0_f32; 2];
        let (mut y1, mut y2, mut double, mut none) = ([1.0_f32; 1], [1.0_f32; 2], [1.0_f64], [0.0_f32; 0]);
        let (mut half, mut brain) = ([half::f16::ONE], [half::bf16::ONE]);
        let (mut eight, mut other_eight) = ([rccl::F8E4M3(0)], [rccl::F8E5M2(0)]);
        for op in [ReduceOp::BitAnd, ReduceOp::BitOr, ReduceOp::BitXor] {
            let words: &[&str] = &[op.name(), "f", "integers"];
            each_way!(c, all_reduce(&mut y2, op), words);
            each_way!(c, all_reduce_into(&x2, &mut y1, op), words);
            each_way!(c, reduce(&mut y2, op, 0), words);
            each_way!(c, reduce_into(&x2, &mut y2, op, 0), words);
            each_way!(c, reduce_scatter(&mut y2, op), words);
            each_way!(c, reduce_scatter_into(&x2, &mut y1, op), words);
            each_way!(c, reduce_scatter_v_into(&x2, &mut y1, &[1, 1], op), words);
            each_way!(c, all_reduce(&mut half, op), words);
            each_way!(c, all_reduce(&mut brain, op), words);
            each_way!(c, all_reduce(&mut double, op), words);
            each_way!(c, all_reduce(&mut eight, op), words);
            each_way!(c, all_reduce(&mut other_eight, op), words);
            each_way!(c, all_reduce(&mut none, op), words);
        }
        // Every other operator suits every type.
        for op in ReduceOp::ALL.into_iter().filter(|op| !op.is_bitwise()) {
            c.all_reduce(&mut y2, op).unwrap();
        }
        c.all_reduce(&mut y2, Op::pre_mul_sum(2.0)).unwrap();
        still_works(c);
    });
}

/// Calls that own their memory tell by their `Work`, and the calls before and after are none the worse.
#[test]
fn started_calls_that_are_wrong() {
    on_ranks(2, &config("", ""), |comm| {
        let before = comm.start_all_reduce(vec![1_u32; 70_000], ReduceOp::Sum);
        refused(comm.start_broadcast(vec![1_u8], 2).wait().map(drop), &["root 2"]);
        refused(comm.start_all_gather_into(vec![1_u8; 3], vec![0; 7]).wait().map(drop), &["2 x 3 = 6"]);
        refused(comm.start_all_reduce(vec![1.0_f32], ReduceOp::BitXor).wait().map(drop), &["integers"]);
        refused(comm.start_send(vec![1_u8], comm.rank()).wait().map(drop), &["itself"]);
        refused(comm.start_recv(vec![1_u8], 9).wait().map(drop), &["rank 9"]);
        let counts = comm.start_all_gather_v_into(vec![1_u8; 3], vec![0; 7], &[3, 3]);
        refused(counts.wait().map(drop), &["7 elements where 6 belong"]);
        let mut wrong = comm.start_scatter(vec![1_u8; 3], 0);
        assert!(wrong.is_done(), "it cannot have begun");
        refused(wrong.wait_timeout(std::time::Duration::ZERO).map(drop), &["3 elements"]);
        // Dropped without a look.
        drop(comm.start_broadcast(vec![1_u8], 2));
        let after = comm.start_all_reduce(vec![3_u32], ReduceOp::Sum);
        assert_eq!(after.wait().unwrap(), [6]);
        assert!(before.wait().unwrap().iter().all(|&x| x == 2));
        still_works(&comm);
    });
}

#[test]
fn messages_of_a_rank_to_itself_need_both_ends() {
    on_ranks(2, &config("", ""), |comm| {
        let (rank, x, mut y, mut z) = (comm.rank(), [7_u8; 2], [0_u8; 2], [0_i8; 2]);
        refused(group(|calls| calls.send(&comm, &x, rank)), &["does not receive"]);
        refused(group(|calls| calls.recv(&comm, &mut y, rank)), &["does not send"]);
        let another_type = group(|calls| {
            calls.send(&comm, &x, rank);
            calls.recv(&comm, &mut z, rank);
        });
        refused(another_type, &["i8", "u8"]);
        // One of two is missing; and the other end is on another communicator.
        let copy = comm.duplicate().unwrap();
        let twice = group(|calls| {
            calls.send(&comm, &x, rank);
            calls.send(&comm, &x, rank);
            calls.recv(&comm, &mut y, rank);
        });
        refused(twice, &["does not receive"]);
        let elsewhere = group(|calls| {
            calls.send(&comm, &x, rank);
            calls.recv(&copy, &mut y, rank);
        });
        refused(elsewhere, &["itself"]);
        group(|calls| {
            calls.recv(&comm, &mut y, rank);
            calls.send(&comm, &x, rank);
        })
        .unwrap();
        assert_eq!(x, y);
        still_works(&comm);
        still_works(&copy);
    });
}

/// One wrong call of a group, and none of it is made: on no communicator, not by the rank that is right either.
#[test]
fn a_group_is_refused_as_a_whole() {
    on_ranks(2, &config("", ""), |comm| {
        let copy = comm.duplicate().unwrap();
        let (mut x, mut y, mut z) = ([1_u8], [2_u8; 100], [3_u8; 5]);
        let result = group(|calls| {
            calls.all_reduce(&comm, &mut x, ReduceOp::Sum);
            calls.all_reduce(&copy, &mut y, ReduceOp::Sum);
            calls.all_gather(&copy, &mut z);
        });
        refused(result, &["all_gather", "5 elements"]);
        assert_eq!((x, y), ([1], [2; 100]));
        still_works(&comm);
        still_works(&copy);
        assert_eq!(group(|_| 7).unwrap(), 7);
    });
}

#[test]
fn raw_calls_that_are_wrong() {
    on_ranks(2, &config("shm", ""), |comm| {
        let mut memory = [0_u8; 64];
        let base = memory.as_mut_ptr();
        let null = std::ptr::null_mut::<u8>();
        let call = |collective, op, root, count| Call { collective, dtype: DataType::F32, op, root, count };
        let sum = |count| call(Collective::AllReduce, Some(ReduceOp::Sum), None, count);
        let of = |collective, root| call(collective, None, root, 2);
        let wrong = |call: Call, input: *mut u8, output: *mut u8, words: &[&str]| {
            let called = comm.raw(&call, RawSizes::Equal, None, input, output);
            // SAFETY: refused before any memory is touched.
            refused(called.and_then(|raw| unsafe { comm.run_raw(raw) }), words);
        };
        wrong(sum(8), base, base.wrapping_add(16), &["overlap", "16 bytes"]);
        wrong(sum(8), null, base, &["null"]);
        wrong(sum(8), base, null, &["null"]);
        wrong(sum(u64::MAX / 2), base, base, &["elements"]);
        wrong(sum(u64::MAX / 4), base, base, &["elements"]);
        wrong(call(Collective::AllReduce, None, None, 2), base, base, &["no operator"]);
        wrong(call(Collective::Reduce, None, Some(0), 2), base, base, &["no operator"]);
        wrong(call(Collective::AllReduce, Some(ReduceOp::BitXor), None, 2), base, base, &["integers"]);
        wrong(of(Collective::Broadcast, Some(2)), base, base, &["root 2"]);
        wrong(of(Collective::Broadcast, None), base, base, &["no root"]);
        wrong(of(Collective::Send, None), base, base, &["no peer"]);
        wrong(of(Collective::Send, Some(2)), base, base, &["2 in a communicator of 2 ranks"]);
        wrong(of(Collective::Recv, Some(comm.rank())), base, base, &["itself"]);
        wrong(of(Collective::Send, Some(1 - comm.rank())), null, base, &["null"]);
        wrong(of(Collective::Recv, Some(1 - comm.rank())), base, null, &["null"]);
        wrong(of(Collective::AllToAll, None), base, base, &["overlap", "does not work in place"]);
        wrong(of(Collective::AllGather, None), base.wrapping_add(4), base, &["overlap"]);
        let varying = [
            Collective::AllGatherV,
            Collective::ReduceScatterV,
            Collective::GatherV,
            Collective::ScatterV,
            Collective::AllToAllV,
            Collective::Fused,
        ];
        for collective in varying {
            wrong(call(collective, Some(ReduceOp::Sum), Some(comm.rank()), 2), base, base, &["sizes of"]);
        }
        assert!(comm.alloc::<u64>(usize::MAX / 2).is_err());
        assert_eq!(memory, [0; 64]);
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
    let errors = try_on_ranks(3, &config("shm", ""), |comm| -> Result<()> {
        let comm = comm.unwrap();
        if comm.rank() == 1 {
            comm.abort("the loss is NaN");
        }
        // It returns at once: calls may still end well until everybody has heard of it.
        let end = std::time::Instant::now() + common::DEADLINE;
        while std::time::Instant::now() < end {
            comm.barrier()?;
        }
        Ok(())
    });
    for error in errors {
        let text = error.expect_err("aborted").to_string();
        assert!(text.contains("rank 1") && text.contains("the loss is NaN"), "{text}");
    }
}

type Wrong = (&'static str, fn(&Communicator) -> Result<()>);

/// A call of each kind; all are right by themselves.
const KINDS: [Wrong; 9] = [
    ("blocking", |comm| comm.all_reduce(&mut [1_u8], ReduceOp::Sum)),
    ("empty", |comm| comm.broadcast(&mut [0_u8; 0], 0)),
    ("barrier", Communicator::barrier),
    ("message", |comm| comm.send(&[1_u8], (comm.rank() + 1) % comm.size())),
    ("started", |comm| comm.start_all_gather(vec![1_u8; 2]).wait().map(drop)),
    ("scoped", |comm| comm.scope(|calls: &Scope<'_, '_>| drop::<Work<()>>(calls.barrier()))),
    ("grouped", |comm| group(|calls: &mut Group<'_>| calls.barrier(comm))),
    ("split", |comm| comm.split(Some(0), 0).map(drop)),
    ("duplicate", |comm| comm.duplicate().map(drop)),
];

#[test]
fn every_kind_of_call_after_an_abort_tells_the_first_cause() {
    on_ranks(2, &config("", ""), |comm| {
        let rank = comm.rank();
        still_works(&comm);
        let sub = comm.duplicate().unwrap();
        // Whoever still makes it when the other gives up has none.
        sub.barrier().unwrap();
        if rank == 0 {
            comm.abort("enough");
        }
        let end = std::time::Instant::now() + common::DEADLINE;
        while comm.barrier().is_ok() {
            assert!(std::time::Instant::now() < end, "nobody told rank {rank}");
        }
        for (kind, call) in KINDS {
            let error = call(&comm).expect_err(kind);
            assert!(matches!(error.failure(), Some(Failure::Aborted { .. })), "{kind}: {error}");
            assert!(error.to_string().contains("enough"), "{kind}: {error}");
            // What can never be right is still told as that, or as the abort, never as success.
            assert!(comm.broadcast(&mut [1_u8], 9).is_err(), "{kind}");
        }
        let error = comm.clone().finish().expect_err("aborted");
        assert!(error.to_string().contains("enough"), "{error}");
        // Another communicator of the same ranks is none the worse.
        still_works(&sub);
        still_works(&comm.shrink(&[]).unwrap());
    });
}

/// `finish` consumes a handle; its clones are handles on what has been left.
#[test]
fn every_kind_of_call_after_finish_is_refused() {
    on_ranks(2, &config("", ""), |comm| {
        still_works(&comm);
        let clone = comm.clone();
        let work = comm.start_barrier();
        comm.finish().unwrap();
        work.wait().unwrap();
        for (kind, call) in KINDS {
            let began = std::time::Instant::now();
            let error = call(&clone).expect_err(kind);
            assert!(
                matches!(error, Error::Finished { .. }) && error.code() == "RCCL-1006",
                "{kind}: {error}"
            );
            assert!(error.to_string().contains("after finish on rank"), "{kind}: {error}");
            assert!(began.elapsed() < std::time::Duration::from_secs(5), "{kind}: {:?}", began.elapsed());
        }
        let again = clone.clone().finish().expect_err("finished before");
        assert!(matches!(again, Error::Finished { .. }), "{again}");
        assert!(clone.shrink(&[]).is_err(), "the job was left");
        assert_eq!((clone.size(), clone.transports().len()), (2, 1));
    });
}
