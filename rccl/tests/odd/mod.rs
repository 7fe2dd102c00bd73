//! Calls that differ from one another in what a user gets wrong.

use rccl::{Communicator, Group, ReduceOp, Result, Scope, Work};

/// Elements of a block.
const BLOCK: usize = 1000;
const LONG: usize = 100_000;

/// A call that differs from each of the others: collective, type, count, operator, root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Case {
    Sum,
    Max,
    Ints,
    Longer,
    Large,
    FromZero,
    FromOne,
    Barrier,
    ToZero,
    ToOne,
    ReduceScatter,
    AllGather,
    Gather,
    Scatter,
    AllToAll,
    ReduceScatterV,
    AllGatherV,
    GatherV,
    ScatterV,
    AllToAllV,
}

pub const CASES: [Case; 20] = [
    Case::Sum,
    Case::Max,
    Case::Ints,
    Case::Longer,
    Case::Large,
    Case::FromZero,
    Case::FromOne,
    Case::Barrier,
    Case::ToZero,
    Case::ToOne,
    Case::ReduceScatter,
    Case::AllGather,
    Case::Gather,
    Case::Scatter,
    Case::AllToAll,
    Case::ReduceScatterV,
    Case::AllGatherV,
    Case::GatherV,
    Case::ScatterV,
    Case::AllToAllV,
];

/// What any case needs on a communicator.
pub struct Memory {
    /// A block.
    pub x: Vec<f32>,
    blocks: Vec<f32>,
    more: Vec<f32>,
    longer: Vec<f32>,
    large: Vec<f32>,
    ints: Vec<i32>,
    counts: Vec<usize>,
}

impl Memory {
    pub fn new(comm: &Communicator) -> Memory {
        let n = comm.size() as usize;
        Memory {
            x: vec![1.0; BLOCK],
            blocks: vec![1.0; BLOCK * n],
            more: vec![1.0; BLOCK * n],
            longer: vec![1.0; BLOCK + 1],
            large: vec![1.0; LONG],
            ints: vec![1; BLOCK],
            counts: vec![BLOCK; n],
        }
    }
}

/// The call of a case, on something that has the communicator's methods.
macro_rules! call {
    ($case:expr, $on:expr, ($($first:expr)?), $memory:expr) => {{
        let Memory { x, blocks, more, longer, large, ints, counts } = $memory;
        match $case {
            Case::Sum => $on.all_reduce($($first,)? x, ReduceOp::Sum),
            Case::Max => $on.all_reduce($($first,)? x, ReduceOp::Max),
            Case::Ints => $on.all_reduce($($first,)? ints, ReduceOp::Sum),
            Case::Longer => $on.all_reduce($($first,)? longer, ReduceOp::Sum),
            Case::Large => $on.all_reduce($($first,)? large, ReduceOp::Sum),
            Case::FromZero => $on.broadcast($($first,)? x, 0),
            Case::FromOne => $on.broadcast($($first,)? x, 1),
            Case::Barrier => $on.barrier($($first)?),
            Case::ToZero => $on.reduce($($first,)? x, ReduceOp::Sum, 0),
            Case::ToOne => $on.reduce($($first,)? x, ReduceOp::Sum, 1),
            Case::ReduceScatter => $on.reduce_scatter_into($($first,)? blocks, x, ReduceOp::Sum),
            Case::AllGather => $on.all_gather_into($($first,)? x, blocks),
            Case::Gather => $on.gather_into($($first,)? x, blocks, 0),
            Case::Scatter => $on.scatter_into($($first,)? blocks, x, 0),
            Case::AllToAll => $on.all_to_all_into($($first,)? blocks, more),
            Case::ReduceScatterV => $on.reduce_scatter_v_into($($first,)? blocks, x, counts, ReduceOp::Sum),
            Case::AllGatherV => $on.all_gather_v_into($($first,)? x, blocks, counts),
            Case::GatherV => $on.gather_v_into($($first,)? x, blocks, counts, 0),
            Case::ScatterV => $on.scatter_v_into($($first,)? blocks, counts, x, 0),
            Case::AllToAllV => $on.all_to_all_v_into($($first,)? blocks, counts, more, counts),
        }
    }};
}

impl Case {
    pub fn run(self, comm: &Communicator, memory: &mut Memory) -> Result<()> {
        call!(self, comm, (), memory)
    }

    pub fn add<'e>(self, calls: &mut Group<'e>, comm: &Communicator, memory: &'e mut Memory) {
        call!(self, calls, (comm), memory);
    }

    pub fn start<'s, 'e>(self, calls: &'s Scope<'s, 'e>, memory: &'e mut Memory) -> Work<()> {
        call!(self, calls, (), memory)
    }

    /// How errors name it. Where ranks know their own lengths only, some errors say the length of a message too.
    pub fn named(self, n: u32) -> String {
        let all = BLOCK * n as usize;
        match self {
            Case::Sum => "all_reduce f32 x1000 sum".into(),
            Case::Max => "all_reduce f32 x1000 max".into(),
            Case::Ints => "all_reduce i32 x1000 sum".into(),
            Case::Longer => "all_reduce f32 x1001 sum".into(),
            Case::Large => "all_reduce f32 x100000 sum".into(),
            Case::FromZero => "broadcast f32 x1000 root 0".into(),
            Case::FromOne => "broadcast f32 x1000 root 1".into(),
            Case::Barrier => "barrier".into(),
            Case::ToZero => "reduce f32 x1000 sum root 0".into(),
            Case::ToOne => "reduce f32 x1000 sum root 1".into(),
            Case::ReduceScatter => "reduce_scatter f32 x1000 sum".into(),
            Case::AllGather => "all_gather f32 x1000".into(),
            Case::Gather => "gather f32 x1000 root 0".into(),
            Case::Scatter => "scatter f32 x1000 root 0".into(),
            Case::AllToAll => "all_to_all f32 x1000".into(),
            Case::ReduceScatterV => format!("reduce_scatter_v f32 x{all} sum in blocks"),
            Case::AllGatherV => format!("all_gather_v f32 x{all} in blocks"),
            Case::GatherV => " gather_v f32".into(),
            Case::ScatterV => " scatter_v f32".into(),
            Case::AllToAllV => "all_to_all_v f32".into(),
        }
    }
}

/// A call with a length for each block, of which one rank has another idea than the others.
#[derive(Clone, Copy, Debug)]
pub enum Varying {
    ReduceScatter,
    AllGather,
    Gather,
    Scatter,
    AllToAll,
}

pub const VARYING: [Varying; 5] =
    [Varying::ReduceScatter, Varying::AllGather, Varying::Gather, Varying::Scatter, Varying::AllToAll];

impl Varying {
    /// Rank `odd` counts wrong: where all know the lengths, it takes an element of its own block for the next rank's;
    /// where the root knows them, it is the root and expects, or sends, one element less of the next rank's block; and in
    /// an all_to_all it sends one more to the next rank than that expects.
    pub fn run(self, comm: &Communicator, large: usize, odd: u32) -> Result<()> {
        let (rank, n) = (comm.rank() as usize, comm.size() as usize);
        let is_odd = rank == odd as usize;
        let next = (odd as usize + 1) % n;
        let right: Vec<usize> = (0..n).map(|rank| (rank + 2) * large).collect();
        let mut counts = right.clone();
        match self {
            Varying::ReduceScatter | Varying::AllGather if is_odd => {
                counts[rank] -= 1;
                counts[next] += 1;
            }
            Varying::Gather | Varying::Scatter if is_odd => counts[next] -= 1,
            Varying::AllToAll if is_odd => counts[next] += 1,
            _ => {}
        }
        let (all, own) = (counts.iter().sum(), counts[rank]);
        match self {
            Varying::ReduceScatter => {
                comm.reduce_scatter_v_into(&vec![1_i32; all], &mut vec![0; own], &counts, ReduceOp::Sum)
            }
            Varying::AllGather => comm.all_gather_v_into(&vec![1_i32; own], &mut vec![0; all], &counts),
            Varying::Gather => comm.gather_v_into(&vec![1_i32; own], &mut vec![0; all], &counts, odd),
            Varying::Scatter => comm.scatter_v_into(&vec![1_i32; all], &counts, &mut vec![0; own], odd),
            Varying::AllToAll => {
                let receives = vec![right[rank]; n];
                comm.all_to_all_v_into(&vec![1_i32; all], &counts, &mut vec![0; right[rank] * n], &receives)
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Varying::ReduceScatter => "reduce_scatter_v",
            Varying::AllGather => "all_gather_v",
            Varying::Gather => "gather_v",
            Varying::Scatter => "scatter_v",
            Varying::AllToAll => "all_to_all_v",
        }
    }
}
