//! Addresses of RDMA ports that go and come, as they do when a link flaps or an administrator changes them: what is under
//! way waits for them, or goes on over new queue pairs.
//!
//! A queue pair keeps the entry of the GID table that it was made with. When its address is removed the entry is dead, but
//! not free, so the same address comes back at another index, and the first packet that the queue pair sends, an
//! acknowledgement too, fails it: on soft-RoCE with a local operation error, or without any sign but "Failed allocating
//! skb" in the kernel's log if earlier writes were not acknowledged. So new queue pairs alone are not enough, they must be
//! made with the index that the address has then.
//!
//! Changes the addresses of the network device that `TEST_NETDEV` names, which is the guests' own: tests/rdma.sh starts one
//! rank in each of two guests. Does nothing without it.

use rccl::{Communicator, ReduceOp};
use std::process::Command;
use std::time::Duration;

const COUNT: usize = 100_000;

fn sum(comm: &Communicator, count: usize) {
    let mut x = vec![u64::from(comm.rank()) + 1; count];
    comm.all_reduce(&mut x, ReduceOp::Sum).expect("a call");
    assert!(x.iter().all(|&x| x == 3), "{count} elements");
}

/// Runs `ip address` with these arguments on the device.
fn ip(arguments: &str) {
    let device = std::env::var("TEST_NETDEV").expect("a device");
    let words = ["address"].into_iter().chain(arguments.split(' ')).chain(["dev", &device]);
    assert!(Command::new("ip").args(words).status().expect("ip").success(), "{arguments}");
}

/// Both ranks may wait for each other in a call, or must not send anything until the address is back.
struct Ranks {
    comm: Communicator,
    address: String,
}

impl Ranks {
    /// Nothing where there is no device whose addresses may be changed.
    fn join() -> Option<Ranks> {
        std::env::var_os("TEST_NETDEV")?;
        let address = std::env::var("RXE_ADDRESS").expect("this guest's address");
        let comm = Communicator::from_env().expect("joining");
        sum(&comm, COUNT);
        Some(Ranks { comm, address })
    }

    fn changes(&self) -> bool {
        self.comm.rank() == 1
    }

    /// Removes and adds the address, half a second later.
    fn flap(&self) {
        ip(&format!("del {}/24", self.address));
        std::thread::sleep(Duration::from_millis(500));
        ip(&format!("add {}/24", self.address));
    }

    /// Everything goes over RDMA still, and so does what links that are made now carry.
    fn end(self) {
        sum(&self.comm, COUNT);
        let copy = self.comm.duplicate().expect("a communicator");
        sum(&copy, COUNT);
        for comm in [&self.comm, &copy] {
            for (peer, transport, reason) in comm.transports() {
                println!("rank {} reaches {peer} by {transport}: {reason}", comm.rank());
                assert_eq!(transport, "verbs");
            }
        }
        copy.finish().expect("leaving");
        self.comm.finish().expect("leaving");
    }
}

#[test]
fn between_calls() {
    let Some(ranks) = Ranks::join() else { return };
    if ranks.changes() {
        ranks.flap();
    } else {
        std::thread::sleep(Duration::from_secs(3));
    }
    ranks.end();
}

#[test]
fn in_calls() {
    let Some(ranks) = Ranks::join() else { return };
    std::thread::scope(|scope| {
        if ranks.changes() {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                ranks.flap();
            });
        }
        for _ in 0..3 {
            sum(&ranks.comm, 1 << 20);
        }
    });
    ranks.end();
}

/// Another address takes its place in the table of GIDs.
#[test]
fn in_another_place_of_the_table() {
    let Some(ranks) = Ranks::join() else { return };
    if ranks.changes() {
        ip(&format!("del {}/24", ranks.address));
        ip("add 10.99.0.1/32");
        ip(&format!("add {}/24", ranks.address));
    } else {
        std::thread::sleep(Duration::from_secs(3));
    }
    ranks.end();
}
