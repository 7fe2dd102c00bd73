//! Calls on raw memory that are watched, or have a deadline of their own.

mod common;

use common::{config, on_ranks};
use rccl::{Call, Collective, Communicator, DataType, Failure, Raw, RawSizes, ReduceOp};
use std::time::{Duration, Instant};

fn sum(comm: &Communicator, x: &mut [f32]) -> Raw {
    let call = Call {
        collective: Collective::AllReduce,
        dtype: DataType::F32,
        op: Some(ReduceOp::Sum),
        root: None,
        count: x.len() as u64,
    };
    comm.raw(&call, RawSizes::Equal, None, x.as_ptr().cast(), x.as_mut_ptr().cast()).unwrap()
}

#[test]
fn whoever_watches_is_asked_while_the_call_waits_and_may_give_up() {
    on_ranks(2, &config("", ""), |comm| {
        let mut x = [comm.rank() as f32 + 1.0; 1000];
        if comm.rank() == 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        let raw = sum(&comm, &mut x);
        let mut asked = 0;
        let watch = || {
            asked += 1;
            None
        };
        // SAFETY: the array is this call's until it returns.
        unsafe { comm.run_raw_watched(raw, Duration::from_millis(10), watch) }.unwrap();
        assert_eq!(x, [3.0; 1000]);
        assert!(comm.rank() == 0 || (5..100).contains(&asked), "asked {asked} times");

        let why = if comm.rank() == 1 {
            let raw = sum(&comm, &mut x);
            // SAFETY: as above.
            unsafe { comm.run_raw_watched(raw, Duration::from_millis(10), || Some("enough".into())) }
        } else {
            std::thread::sleep(Duration::from_millis(200));
            comm.barrier()
        };
        match why.unwrap_err().failure() {
            Some(Failure::Aborted { member, why }) => assert_eq!((member.rank, why.as_str()), (1, "enough")),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_call_may_have_a_deadline_of_its_own() {
    for background in [false, true] {
        on_ranks(2, &config("", ""), move |comm| {
            let mut x = [1.0; 10];
            // SAFETY: the array is this call's until it returns.
            unsafe { comm.run_raw(sum(&comm, &mut x).within(Duration::from_secs(20))) }.unwrap();
            assert_eq!(x, [2.0; 10]);
            let began = Instant::now();
            let error = if comm.rank() == 0 {
                let raw = sum(&comm, &mut x).within(Duration::from_millis(200));
                if background {
                    // SAFETY: the array is this call's until it has ended, which is waited for.
                    unsafe { comm.start_raw(raw) }.wait()
                } else {
                    // SAFETY: as above.
                    unsafe { comm.run_raw(raw) }
                }
            } else {
                std::thread::sleep(Duration::from_secs(1));
                comm.barrier()
            };
            assert!(began.elapsed() < Duration::from_secs(5));
            match error.unwrap_err().failure() {
                Some(Failure::Timeout { rank: 0, sequence: 2, waited, waiting_for }) => {
                    assert!((200..900).contains(&waited.as_millis()), "{waited:?}");
                    assert_eq!(waiting_for.iter().map(|of| of.rank).collect::<Vec<_>>(), [1]);
                }
                other => panic!("{other:?}"),
            }
        });
    }
}
