//! The same random program through rccl and through MPI: every result must be the same, bit for bit.
//!
//! Started by an MPI's `mpirun`. The programs are those of rccl's own soak test, of integers and of floats whose results
//! are exact, as far as MPI has the types; MPI makes each call from one array to another, one after the other. What a call
//! gives is compared with MPI's answer and with the plain reference, so that the reference is checked too.
//!
//! `rccl-oracle [CALLS [SEED]]`

mod mpi_call;
#[allow(unused, reason = "the soak test uses the rest")]
#[path = "../../../rccl/tests/program/mod.rs"]
mod program;

use mpi::topology::{Color, Communicator as _, SimpleCommunicator};
use mpi::traits::*;
use program::call::Call;
use program::operation::{Operation, Part};
use program::stream::Stream;
use rccl::{Communicator, DataType, UniqueId, group};
use std::rc::Rc;

/// Elements of the longest array.
const MOST: usize = 1 << 18;
/// What MPI has too.
const TYPES: [DataType; 8] = [
    DataType::I8,
    DataType::U8,
    DataType::I32,
    DataType::U32,
    DataType::I64,
    DataType::U64,
    DataType::F32,
    DataType::F64,
];

/// The same ranks, in both libraries.
struct Both {
    rccl: Communicator,
    mpi: SimpleCommunicator,
}

/// A call that rccl has been asked to make, and what it is.
type Asked = (Rc<Call>, Option<Box<dyn Operation>>);

struct Oracle {
    known: Vec<Both>,
    shared: Stream,
    own: Stream,
    made: usize,
}

impl Oracle {
    fn step(&mut self) {
        // All ranks of the world are in as many communicators, so they make the same choices.
        let number = self.shared.below(self.known.len());
        match self.shared.below(20) {
            0 if self.known.len() < 4 => self.split(number),
            0 => drop(self.known.remove(1 + self.shared.below(self.known.len() - 1))),
            1..4 => self.grouped(number),
            4..8 => {
                let started: Vec<_> = (0..1 + self.shared.below(5))
                    .map(|_| {
                        let (call, operation) = self.random(number);
                        (call, operation.map(|operation| operation.started()))
                    })
                    .collect();
                for (call, pending) in started {
                    let operation = pending.map(|pending| pending.settled(self.own.below(4)));
                    self.compare(number, &call, operation);
                }
            }
            _ => {
                let (call, mut operation) = self.random(number);
                operation.iter_mut().for_each(|operation| operation.blocking().expect("a blocking call"));
                self.compare(number, &call, operation);
            }
        }
    }

    fn split(&mut self, number: usize) {
        let Both { rccl, mpi } = &self.known[number];
        // Every rank gets a part: the parts of a communicator are as many as the colours, and known by the same number.
        let colour = Stream(self.shared.bits() ^ rccl.rank() as u64).below(2) as u32;
        let part = rccl.split(Some(colour), 0).expect("a split").expect("a part");
        let twin = mpi.split_by_color(Color::with_value(colour as i32)).expect("a part");
        assert_eq!((part.rank(), part.size()), (twin.rank() as u32, twin.size() as u32));
        self.known.push(Both { rccl: part, mpi: twin });
    }

    fn grouped(&mut self, number: usize) {
        let mut asked: Vec<Asked> = (0..1 + self.shared.below(9)).map(|_| self.random(number)).collect();
        let made = group(|calls| {
            asked
                .iter_mut()
                .flat_map(|(_, operation)| operation)
                .for_each(|operation| operation.in_group(calls));
        });
        made.expect("a group");
        for (call, operation) in asked {
            self.compare(number, &call, operation);
        }
    }

    /// A call on a communicator. The parts of one have their own sizes, so what is drawn must not depend on them.
    fn random(&mut self, number: usize) -> Asked {
        self.made += 1;
        let comm = &self.known[number].rccl;
        let (ranks, rank) = (comm.size() as usize, comm.rank() as usize);
        let mut stream = Stream(self.shared.bits());
        let call = loop {
            let call = Call::random(&mut stream, ranks, MOST);
            if TYPES.contains(&call.dtype) {
                break Rc::new(call);
            }
        };
        let part = Part { comm, call: &call, sends: rank == call.from, what: format!("call {}", self.made) };
        let operation = call.concerns(rank).then(|| part.operation(&mut self.own));
        (call, operation)
    }

    /// Makes the call by MPI, and compares.
    fn compare(&mut self, number: usize, call: &Call, operation: Option<Box<dyn Operation>>) {
        let theirs = mpi_call::result(&self.known[number].mpi, call);
        let Some(mut operation) = operation else { return };
        operation.check();
        if let Some(theirs) = theirs {
            assert!(operation.result() == theirs, "call {}: {call}: MPI gives something else", self.made);
        }
    }
}

fn main() {
    let universe = mpi::initialize().expect("MPI");
    let world = universe.world();
    let argument =
        |number: usize| std::env::args().nth(number).map(|text| text.parse::<u64>().expect("a number"));
    let calls = argument(1).unwrap_or(2000) as usize;
    let seed = argument(2).unwrap_or(1);
    let (rank, size) = (world.rank() as u32, world.size() as u32);
    let mut id = [0_u8; 128];
    let config = rccl::Config::from_env().expect("settings");
    // Lives until the end: rank 0 serves the others.
    let created = (rank == 0).then(|| UniqueId::create(&config).expect("an id"));
    if let Some(created) = &created {
        id = created.to_bytes();
    }
    world.process_at_rank(0).broadcast_into(&mut id[..]);
    let id = UniqueId::from_bytes(id).expect("rank 0's id");
    let comm = Communicator::new(&id, rank, size).expect("joining");
    // A rank that panics ends all, and does not leave the others in MPI for ever.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("rank {rank}, seed {seed}:");
        usual(panic);
        std::process::exit(1);
    }));
    let mut oracle = Oracle {
        known: vec![Both { rccl: comm, mpi: world.duplicate() }],
        shared: Stream(seed),
        own: Stream(seed ^ u64::from(rank) << 32),
        made: 0,
    };
    while oracle.made < calls {
        oracle.step();
    }
    let made = oracle.made;
    let comm = oracle.known.swap_remove(0).rccl;
    drop(oracle);
    comm.finish().expect("leaving");
    if rank == 0 {
        println!(
            "{made} calls on {size} ranks (seed {seed}): rccl and {} agree",
            mpi::environment::library_version().unwrap_or_default()
        );
    }
}
