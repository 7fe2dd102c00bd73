//! Communicators that get new ranks.

#[path = "common/mod.rs"]
mod common;
mod processes;

use common::{DEADLINE, config, on_ranks, transports};
use processes::{Job, hear, join, say, say_failed, task};
use rccl::{Communicator, ReduceOp, UniqueId};
use std::sync::mpsc::channel;
use std::time::Instant;

fn sum(comm: &Communicator, x: u64) -> u64 {
    let mut x = [x];
    comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
    x[0]
}

fn connect(id: &UniqueId, rank: u32, size: u32, config: rccl::Config) -> rccl::Result<Communicator> {
    Communicator::builder()?.config(config).connect(id, rank, size)
}

/// Two ranks become five, each over every transport, and five seven; the smaller ones go on.
#[test]
fn new_ranks_come_to_old_ones() {
    for transport in transports() {
        let config = config(transport, "");
        let (made, ids) = channel();
        let newcomers = {
            let config = config.clone();
            std::thread::spawn(move || {
                let id: UniqueId = ids.recv_timeout(DEADLINE).expect("an id");
                let ranks: Vec<_> = (2..5)
                    .map(|rank| {
                        let config = config.clone();
                        std::thread::spawn(move || {
                            let five = connect(&id, rank, 5, config).expect("joining");
                            assert_eq!(sum(&five, u64::from(rank)), 10);
                            five.finish().expect("leaving");
                        })
                    })
                    .collect();
                ranks.into_iter().for_each(|rank| rank.join().expect("a new rank"));
            })
        };
        on_ranks(2, &config, move |two| {
            // Any rank may have the id.
            let id = (two.rank() == 1).then(|| two.unique_id().expect("an id"));
            id.iter().for_each(|id| made.send(*id).expect("the new ranks wait for it"));
            let five = two.grow(5, id.as_ref()).expect("growing");
            assert_eq!((five.rank(), five.size()), (two.rank(), 5));
            assert_eq!(five.label(), format!("{}/grown", two.label()));
            assert_eq!(sum(&five, u64::from(five.rank())), 10);
            assert_eq!(sum(&two, 1), 2);
            // The old one may end before the new one.
            two.finish().expect("leaving");
            five.finish().expect("leaving");
        });
        newcomers.join().expect("the new ranks");
    }
}

#[test]
fn all_are_told_what_they_do_not_agree_on() {
    on_ranks(3, &config("", ""), |three| {
        let error = three.grow(4 + three.rank() / 2, None).expect_err("different sizes").to_string();
        assert!(error.contains("rank 0 asks for 4 ranks, rank 2 for 5"), "{error}");
        let error = three.grow(4, None).expect_err("no id").to_string();
        assert!(error.contains("no rank passes an id"), "{error}");
        let id = three.unique_id().unwrap();
        let error = three.grow(4, Some(&id)).expect_err("three ids").to_string();
        assert!(error.contains("ranks 0 and 1 pass different ids"), "{error}");
        // It works as before.
        assert_eq!(sum(&three, 1), 3);
    });
}

#[test]
fn a_new_rank_that_does_not_come_is_named() {
    let mut config = config("", "");
    config.init_timeout = std::time::Duration::from_secs(2);
    on_ranks(2, &config, |two| {
        let id = (two.rank() == 0).then(|| two.unique_id().unwrap());
        let began = Instant::now();
        let error = two.grow(3, id.as_ref()).expect_err("nobody comes").to_string();
        assert!(error.contains("2 of 3 ranks arrived; missing 2"), "{error}");
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
        assert_eq!(sum(&two, 1), 2);
    });
}

/// What the processes of the next test do.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    let whole = match task.split_once(' ') {
        // Begins with those that are left.
        Some((_, id)) => {
            let id: UniqueId = id.parse().expect("an id");
            Communicator::new(&id, 2, 3).expect("joining")
        }
        None => {
            let world = join();
            let error = loop {
                if let Err(error) = world.all_reduce(&mut [1.0_f32; 1000], ReduceOp::Sum) {
                    break error;
                }
            };
            say_failed(&error);
            let two = world.shrink(&[2]).expect("shrinking");
            drop(world);
            let id = (two.rank() == 0).then(|| two.unique_id().expect("an id"));
            id.iter().for_each(|id| say(&format!("id {id}")));
            two.grow(3, id.as_ref()).expect("growing")
        }
    };
    assert_eq!((whole.size(), sum(&whole, u64::from(whole.rank()) + 1)), (3, 6));
    say("whole");
    assert_eq!(hear(), None);
    whole.finish().expect("leaving");
}

#[test]
fn a_killed_rank_gets_a_successor() {
    let mut job = Job::start(3, "survive", &[], |_, _| ()).joined();
    job.ranks[2].kill();
    job.ranks[..2].iter().for_each(|rank| drop(rank.says("lost 2")));
    let (_, line) = job.ranks[0].says("id ");
    let mut successor = Job::start(1, &format!("succeed {}", &line["id ".len()..]), &[], |_, _| ());
    let all = job.ranks[..2].iter().chain(&successor.ranks);
    all.for_each(|rank| drop(rank.says("whole")));
    assert!(successor.end().iter().all(|status| status.success()));
    assert!(job.end()[..2].iter().all(|status| status.success()));
}
