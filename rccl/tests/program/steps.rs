//! Programs: calls one after the other, at once and together, on communicators that are made and dropped on the way.
//!
//! All ranks make the same choices, those that are not members of a communicator too; what concerns a rank alone (where
//! its memory is, in which order it waits) is of its own making.

use super::call::Call;
use super::operation::{Operation, Part, Pending};
use super::stream::Stream;
use rccl::{Collective, Communicator, group};
use std::rc::Rc;
use std::sync::Mutex;

/// What this process is doing, for whoever finds it hanging.
pub static AT: Mutex<String> = Mutex::new(String::new());

/// At most this many bytes of calls under way.
const UNDER_WAY: usize = 48 << 20;
/// At most this many communicators.
const COMMUNICATORS: usize = 8;

/// A communicator: its ranks by their numbers in the world, and this one's handle if it is a member.
struct Known {
    members: Vec<usize>,
    handle: Option<Communicator>,
}

/// A program that runs.
pub struct Program {
    rank: usize,
    known: Vec<Known>,
    shared: Stream,
    own: Stream,
    under_way: Vec<Box<dyn Pending>>,
    /// Calls made so far, by anybody.
    pub calls: usize,
    /// Elements of the longest array.
    most: usize,
}

impl Program {
    pub fn new(world: Communicator, seed: u64, most: usize) -> Program {
        let rank = world.rank() as usize;
        let known = Known { members: (0..world.size() as usize).collect(), handle: Some(world) };
        Program {
            rank,
            known: vec![known],
            shared: Stream(seed ^ 1),
            own: Stream(seed ^ (rank as u64) << 48 ^ 2),
            under_way: Vec::new(),
            calls: 0,
            most,
        }
    }

    /// One step.
    ///
    /// # Panics
    /// When a call fails or gives something else than it must.
    pub fn step(&mut self) {
        match self.shared.below(100) {
            0..38 => self.blocking(),
            38..62 => self.start(),
            62..70 => self.scope(),
            70..84 => self.group(),
            84..90 => self.raw(),
            90..96 => self.part(),
            _ => self.forget(),
        }
        while self.under_way.iter().map(|call| call.bytes()).sum::<usize>() > UNDER_WAY
            || self.under_way.len() > 64
        {
            self.settle_one();
        }
        if self.own.once_in(4) {
            for _ in 0..self.own.below(self.under_way.len() + 1) {
                self.settle_one();
            }
        }
    }

    /// Waits for everything and leaves.
    ///
    /// # Panics
    /// As [`Program::step`].
    pub fn end(mut self) {
        while !self.under_way.is_empty() {
            self.settle_one();
        }
        let world = self.known.swap_remove(0).handle;
        drop(self.known);
        world.into_iter().for_each(|world| world.finish().expect("leaving"));
    }

    /// The call of a communicator, and this rank's part in it if it has one.
    fn call(&mut self, number: usize, call: Call) -> Option<Box<dyn Operation>> {
        self.calls += 1;
        let known = &self.known[number];
        let comm = known.handle.as_ref()?;
        let rank = comm.rank() as usize;
        let what = format!("call {} on communicator {number} ({})", self.calls, comm.label());
        *AT.lock().expect("no panic under it") = format!("{what}: {call}");
        let part = Part { comm, sends: rank == call.from, call: &Rc::new(call), what };
        part.call.concerns(rank).then(|| part.operation(&mut self.own))
    }

    fn any(&mut self) -> usize {
        self.shared.below(self.known.len())
    }

    fn any_call(&mut self, most: usize) -> Option<Box<dyn Operation>> {
        let number = self.any();
        let call = Call::random(&mut self.shared, self.known[number].members.len(), most);
        self.call(number, call)
    }

    fn blocking(&mut self) {
        if let Some(mut call) = self.any_call(self.most) {
            call.blocking().expect("a blocking call");
            call.check();
        }
    }

    fn start(&mut self) {
        for _ in 0..1 + self.shared.magnitude(16) {
            if let Some(call) = self.any_call(self.most / 8) {
                let call = call.started();
                // It goes on, and nobody will know what it gives.
                if self.own.once_in(10) { drop(call) } else { self.under_way.push(call) }
            }
        }
    }

    fn scope(&mut self) {
        let number = self.any();
        let mut calls = Vec::new();
        for _ in 0..1 + self.shared.below(6) {
            let call = Call::random(&mut self.shared, self.known[number].members.len(), self.most / 8);
            calls.extend(self.call(number, call));
        }
        let Some(comm) = self.known[number].handle.clone() else { return };
        let own = &mut self.own;
        let began = comm.scope(|scope| {
            for call in &mut calls {
                let work = call.in_scope(scope);
                if own.once_in(2) { drop(work) } else { work.wait().expect("a call in a scope") }
            }
        });
        began.expect("a scope");
        calls.iter_mut().for_each(|call| call.check());
    }

    fn group(&mut self) {
        let numbers: Vec<usize> = (0..1 + self.shared.below(3)).map(|_| self.any()).collect();
        // Often calls of one kind, which run as one.
        let (alike, small) = (self.shared.once_in(3), self.shared.once_in(2));
        let most = if small { 500 } else { self.most / 8 };
        let mut collectives: Vec<Vec<Box<dyn Operation>>> = numbers.iter().map(|_| Vec::new()).collect();
        let mut messages = Vec::new();
        let mut last: Vec<Option<Call>> = numbers.iter().map(|_| None).collect();
        for _ in 0..1 + self.shared.below(14) {
            let which = self.shared.below(numbers.len());
            let number = numbers[which];
            let ranks = self.known[number].members.len();
            if self.shared.once_in(2) {
                let call = Call::message(&mut self.shared, ranks, most);
                let to_itself = call.from == call.root;
                let receives = Call { ..call.clone() };
                messages.extend(self.call(number, call));
                if to_itself {
                    messages.extend(self.receive(number, receives));
                }
                continue;
            }
            let mut call = Call::random(&mut self.shared, ranks, most);
            if call.collective == Collective::Send {
                messages.extend(self.call(number, call));
                continue;
            }
            if let Some(last) = last[which].as_ref().filter(|last| alike && !last.varies()) {
                call = Call { seed: call.seed, count: last.count / 2, ..last.clone() };
            }
            last[which] = Some(call.clone());
            // The collectives of a communicator keep their order, wherever the numbers name it.
            let first = numbers.iter().position(|&other| other == number).unwrap_or(which);
            let call = self.call(number, call);
            collectives[first].extend(call);
        }
        // Communicators in any order, messages anywhere, but those of an edge in order.
        for i in (1..collectives.len()).rev() {
            collectives.swap(i, self.own.below(i + 1));
        }
        let messages_first = self.own.once_in(2);
        let made = group(|calls| {
            if messages_first {
                messages.iter_mut().for_each(|message| message.in_group(calls));
                collectives.iter_mut().flatten().for_each(|call| call.in_group(calls));
            } else {
                collectives.iter_mut().flatten().for_each(|call| call.in_group(calls));
                messages.iter_mut().for_each(|message| message.in_group(calls));
            }
        });
        made.expect("a group");
        collectives.iter_mut().flatten().chain(&mut messages).for_each(|call| call.check());
    }

    /// The other end of a message of a rank to itself.
    fn receive(&mut self, number: usize, call: Call) -> Option<Box<dyn Operation>> {
        let comm = self.known[number].handle.as_ref()?;
        let what = format!("call {}, the other end", self.calls);
        let part = Part { comm, sends: false, call: &Rc::new(call), what };
        part.call.concerns(comm.rank() as usize).then(|| part.operation(&mut self.own))
    }

    fn raw(&mut self) {
        let number = self.any();
        let call = Call::random(&mut self.shared, self.known[number].members.len(), self.most / 4);
        if call.varies() || call.collective == Collective::Send {
            return;
        }
        if let Some(mut call) = self.call(number, Call { op: call.op.map(unscaled), ..call }) {
            call.raw().expect("a raw call");
            call.check();
        }
    }

    /// A new communicator of the ranks of another.
    fn part(&mut self) {
        let number = self.any();
        let seed = Stream(self.shared.bits());
        let Known { members, handle } = &self.known[number];
        let of = |rank: usize| {
            let mut stream = Stream(seed.0 ^ (rank as u64) << 32);
            let color = [Some(0), Some(0), Some(7), None][stream.below(4)];
            (color, stream.below(5) as i32 - 2)
        };
        let mut choice = seed.clone();
        *AT.lock().expect("no panic under it") = format!("parting communicator {number} of {members:?}");
        let (members, handle) = match choice.below(4) {
            0 => {
                let new = handle.as_ref().map(|comm| comm.duplicate().expect("a duplicate"));
                (vec![members.clone()], new)
            }
            1 => {
                let excluded: Vec<u32> =
                    (0..members.len()).filter(|_| choice.once_in(3)).map(|rank| rank as u32).collect();
                let stays = |rank: usize| !excluded.contains(&(rank as u32));
                let new = handle.as_ref().filter(|comm| stays(comm.rank() as usize));
                let new = new.map(|comm| comm.shrink(&excluded).expect("a shrunk communicator"));
                let members = (0..members.len()).filter(|&rank| stays(rank)).map(|rank| members[rank]);
                (vec![members.collect()], new)
            }
            _ => {
                let new = handle.as_ref().and_then(|comm| {
                    let (color, key) = of(comm.rank() as usize);
                    comm.split(color, key).expect("a part")
                });
                let part = |color: u32| {
                    let mut ranks: Vec<usize> =
                        (0..members.len()).filter(|&rank| of(rank).0 == Some(color)).collect();
                    ranks.sort_by_key(|&rank| of(rank).1);
                    ranks.into_iter().map(|rank| members[rank]).collect::<Vec<usize>>()
                };
                (vec![part(0), part(7)], new)
            }
        };
        self.calls += 1;
        let mut handle = handle;
        for members in members.into_iter().filter(|members| !members.is_empty()) {
            let place = members.iter().position(|&member| member == self.rank);
            let handle = place.and_then(|_| handle.take());
            let is = handle.as_ref().map(|comm| (comm.rank() as usize, comm.size() as usize));
            assert_eq!(is, place.map(|rank| (rank, members.len())), "of communicator {number}, {members:?}");
            self.known.push(Known { members, handle });
        }
        assert!(handle.is_none(), "a communicator that nobody knows");
        while self.known.len() > COMMUNICATORS {
            self.forget();
        }
    }

    /// Drops a communicator, with calls on it still under way.
    fn forget(&mut self) {
        if self.known.len() > 1 {
            let number = 1 + self.shared.below(self.known.len() - 1);
            let gone = self.known.swap_remove(number);
            if self.own.once_in(3) {
                gone.handle.into_iter().for_each(|comm| comm.finish().expect("leaving"));
            }
        }
    }

    fn settle_one(&mut self) {
        if !self.under_way.is_empty() {
            let call = self.under_way.swap_remove(self.own.below(self.under_way.len()));
            call.settle(self.own.below(4));
        }
    }
}

/// Raw calls have no scalar.
fn unscaled(op: rccl::ReduceOp) -> rccl::ReduceOp {
    if op == rccl::ReduceOp::PreMulSum { rccl::ReduceOp::Sum } else { op }
}
