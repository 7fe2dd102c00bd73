//! From a user's arguments to what the engine is asked to do: every check of lengths, roots and operators is here.
//!
//! The functions take the slices of a call and give the [`Task`] that works on them. Whoever submits the task keeps the
//! slices borrowed, or owns them, until it has ended.

use crate::call::{Call, Collective};
use crate::element::{DataType, Element};
use crate::engine::{Cross, Lengths, Message, Task};
use crate::error::{Error, Result};
use crate::op::Op;
use rccl_kernels::Scale;
use rccl_schedule::Few;

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub rank: u32,
    pub size: u32,
}

pub(crate) fn all_reduce<T: Element>(_: Caller, x: &mut [T], op: impl Into<Op<T>>) -> Result<Task> {
    let call = reduction::<T>(Collective::AllReduce, op, None, x.len())?;
    Ok(in_place(call, x))
}

pub(crate) fn all_reduce_into<T: Element>(
    _: Caller,
    x: &[T],
    out: &mut [T],
    op: impl Into<Op<T>>,
) -> Result<Task> {
    let call = reduction::<T>(Collective::AllReduce, op, None, x.len())?;
    length("all_reduce_into", "the output", x.len(), out.len())?;
    Ok(apart(call, x, out))
}

pub(crate) fn broadcast<T: Element>(by: Caller, x: &mut [T], root: u32) -> Result<Task> {
    let call = by.rooted::<T>(Collective::Broadcast, root, x.len())?;
    Ok(in_place(call, x))
}

pub(crate) fn broadcast_into<T: Element>(by: Caller, x: &[T], out: &mut [T], root: u32) -> Result<Task> {
    let call = by.rooted::<T>(Collective::Broadcast, root, x.len())?;
    length("broadcast_into", "the output", x.len(), out.len())?;
    Ok(apart(call, x, out))
}

pub(crate) fn reduce<T: Element>(by: Caller, x: &mut [T], op: impl Into<Op<T>>, root: u32) -> Result<Task> {
    by.check_root("reduce", root)?;
    Ok(in_place(reduction::<T>(Collective::Reduce, op, Some(root), x.len())?, x))
}

pub(crate) fn reduce_into<T: Element>(
    by: Caller,
    x: &[T],
    out: &mut [T],
    op: impl Into<Op<T>>,
    root: u32,
) -> Result<Task> {
    by.check_root("reduce_into", root)?;
    if by.rank == root {
        length("reduce_into", "the root's output", x.len(), out.len())?;
    }
    Ok(apart(reduction::<T>(Collective::Reduce, op, Some(root), x.len())?, x, out))
}

pub(crate) fn reduce_scatter<T: Element>(by: Caller, x: &mut [T], op: impl Into<Op<T>>) -> Result<Task> {
    let count = by.block("reduce_scatter", "the input", x.len())?;
    let call = reduction::<T>(Collective::ReduceScatter, op, None, count)?;
    let own = by.own_block(x, count);
    Ok(collective(call, x.as_ptr(), own))
}

pub(crate) fn reduce_scatter_into<T: Element>(
    by: Caller,
    x: &[T],
    out: &mut [T],
    op: impl Into<Op<T>>,
) -> Result<Task> {
    by.blocks("reduce_scatter_into", "the input", out.len(), x.len())?;
    Ok(apart(reduction::<T>(Collective::ReduceScatter, op, None, out.len())?, x, out))
}

pub(crate) fn all_gather<T: Element>(by: Caller, x: &mut [T]) -> Result<Task> {
    let count = by.block("all_gather", "the output", x.len())?;
    let own = by.own_block(x, count);
    Ok(collective(movement::<T>(Collective::AllGather, None, count), own, x.as_mut_ptr()))
}

pub(crate) fn all_gather_into<T: Element>(by: Caller, x: &[T], out: &mut [T]) -> Result<Task> {
    by.blocks("all_gather_into", "the output", x.len(), out.len())?;
    Ok(apart(movement::<T>(Collective::AllGather, None, x.len()), x, out))
}

pub(crate) fn gather<T: Element>(by: Caller, x: &mut [T], root: u32) -> Result<Task> {
    let count = by.block("gather", "the array", x.len())?;
    let call = by.rooted::<T>(Collective::Gather, root, count)?;
    let own = by.own_block(x, count);
    Ok(collective(call, own, x.as_mut_ptr()))
}

pub(crate) fn gather_into<T: Element>(by: Caller, x: &[T], out: &mut [T], root: u32) -> Result<Task> {
    let call = by.rooted::<T>(Collective::Gather, root, x.len())?;
    if by.rank == root {
        by.blocks("gather_into", "the root's output", x.len(), out.len())?;
    }
    Ok(apart(call, x, out))
}

pub(crate) fn scatter<T: Element>(by: Caller, x: &mut [T], root: u32) -> Result<Task> {
    let count = by.block("scatter", "the array", x.len())?;
    let call = by.rooted::<T>(Collective::Scatter, root, count)?;
    let own = by.own_block(x, count);
    Ok(collective(call, x.as_ptr(), own))
}

pub(crate) fn scatter_into<T: Element>(by: Caller, x: &[T], out: &mut [T], root: u32) -> Result<Task> {
    let call = by.rooted::<T>(Collective::Scatter, root, out.len())?;
    if by.rank == root {
        by.blocks("scatter_into", "the root's input", out.len(), x.len())?;
    }
    Ok(apart(call, x, out))
}

pub(crate) fn all_to_all_into<T: Element>(by: Caller, x: &[T], out: &mut [T]) -> Result<Task> {
    let count = by.block("all_to_all_into", "the input", x.len())?;
    length("all_to_all_into", "the output", x.len(), out.len())?;
    Ok(apart(movement::<T>(Collective::AllToAll, None, count), x, out))
}

pub(crate) fn all_gather_v_into<T: Element>(
    by: Caller,
    x: &[T],
    out: &mut [T],
    counts: &[usize],
) -> Result<Task> {
    let blocks = by.counts("all_gather_v_into", "counts", counts)?;
    length("all_gather_v_into", "the input (by its entry in counts)", counts[by.rank as usize], x.len())?;
    length("all_gather_v_into", "the output (the sum of counts)", counts.iter().sum(), out.len())?;
    let call = movement::<T>(Collective::AllGatherV, Some(digest(&blocks)), out.len());
    Ok(of_blocks(call, Lengths::Blocks(blocks), x.as_ptr(), out.as_mut_ptr()))
}

pub(crate) fn reduce_scatter_v_into<T: Element>(
    by: Caller,
    x: &[T],
    out: &mut [T],
    counts: &[usize],
    op: impl Into<Op<T>>,
) -> Result<Task> {
    let blocks = by.counts("reduce_scatter_v_into", "counts", counts)?;
    length("reduce_scatter_v_into", "the input (the sum of counts)", counts.iter().sum(), x.len())?;
    let own = counts[by.rank as usize];
    length("reduce_scatter_v_into", "the output (by its entry in counts)", own, out.len())?;
    let call = reduction::<T>(Collective::ReduceScatterV, op, Some(digest(&blocks)), x.len())?;
    Ok(of_blocks(call, Lengths::Blocks(blocks), x.as_ptr(), out.as_mut_ptr()))
}

pub(crate) fn gather_v_into<T: Element>(
    by: Caller,
    x: &[T],
    out: &mut [T],
    counts: &[usize],
    root: u32,
) -> Result<Task> {
    let call = by.rooted::<T>(Collective::GatherV, root, 0)?;
    let mut blocks = vec![0; by.size as usize];
    if by.rank == root {
        blocks = by.counts("gather_v_into", "the root's counts", counts)?;
        length("gather_v_into", "the root's output (the sum of counts)", counts.iter().sum(), out.len())?;
        let own = counts[by.rank as usize];
        length("gather_v_into", "the root's input (by its entry in counts)", own, x.len())?;
    }
    blocks[by.rank as usize] = x.len() as u64;
    let call = Call { count: Call::VARYING, ..call };
    Ok(of_blocks(call, Lengths::Blocks(blocks), x.as_ptr(), out.as_mut_ptr()))
}

pub(crate) fn scatter_v_into<T: Element>(
    by: Caller,
    x: &[T],
    counts: &[usize],
    out: &mut [T],
    root: u32,
) -> Result<Task> {
    let call = by.rooted::<T>(Collective::ScatterV, root, 0)?;
    let mut blocks = vec![0; by.size as usize];
    if by.rank == root {
        blocks = by.counts("scatter_v_into", "the root's counts", counts)?;
        length("scatter_v_into", "the root's input (the sum of counts)", counts.iter().sum(), x.len())?;
        let own = counts[by.rank as usize];
        length("scatter_v_into", "the root's output (by its entry in counts)", own, out.len())?;
    }
    blocks[by.rank as usize] = out.len() as u64;
    let call = Call { count: Call::VARYING, ..call };
    Ok(of_blocks(call, Lengths::Blocks(blocks), x.as_ptr(), out.as_mut_ptr()))
}

pub(crate) fn all_to_all_v_into<T: Element>(
    by: Caller,
    x: &[T],
    send_counts: &[usize],
    out: &mut [T],
    recv_counts: &[usize],
) -> Result<Task> {
    let row = by.counts("all_to_all_v_into", "send_counts", send_counts)?;
    let column = by.counts("all_to_all_v_into", "recv_counts", recv_counts)?;
    length("all_to_all_v_into", "the input (the sum of send_counts)", send_counts.iter().sum(), x.len())?;
    length("all_to_all_v_into", "the output (the sum of recv_counts)", recv_counts.iter().sum(), out.len())?;
    let own = by.rank as usize;
    length(
        "all_to_all_v_into",
        "this rank's entry in recv_counts (by that in send_counts)",
        send_counts[own],
        recv_counts[own],
    )?;
    let call = Call { count: Call::VARYING, ..movement::<T>(Collective::AllToAllV, None, 0) };
    let sizes = Lengths::Cross(Box::new(Cross { rank: by.rank, row, column }));
    Ok(of_blocks(call, sizes, x.as_ptr(), out.as_mut_ptr()))
}

pub(crate) fn barrier(_: Caller) -> Result<Task> {
    let call = Call { collective: Collective::Barrier, dtype: DataType::U8, op: None, root: None, count: 0 };
    Ok(in_place::<u8>(call, &mut []))
}

pub(crate) fn send<T: Element>(by: Caller, x: &[T], to: u32) -> Result<Task> {
    let memory = x.as_ptr().cast_mut().cast();
    by.message(
        "send",
        to,
        Message { peer: to, outgoing: true, dtype: T::TYPE, count: x.len() as u64, memory },
    )
}

pub(crate) fn recv<T: Element>(by: Caller, x: &mut [T], from: u32) -> Result<Task> {
    let memory = x.as_mut_ptr().cast();
    let count = x.len() as u64;
    by.message("recv", from, Message { peer: from, outgoing: false, dtype: T::TYPE, count, memory })
}

/// A message that nothing else goes with.
pub(crate) fn send_alone<T: Element>(by: Caller, x: &[T], to: u32) -> Result<Task> {
    by.check_another("send", to)?;
    send(by, x, to)
}

/// A message that nothing else goes with.
pub(crate) fn recv_alone<T: Element>(by: Caller, x: &mut [T], from: u32) -> Result<Task> {
    by.check_another("recv", from)?;
    recv(by, x, from)
}

/// Expands `$methods!` with the name and arguments of every call on borrowed memory, but for messages and barriers.
macro_rules! for_borrowed {
    ($methods:ident $env:lifetime) => {
        $methods! {
            all_reduce(x: &$env mut [T], op: impl Into<Op<T>>);
            all_reduce_into(x: &$env [T], out: &$env mut [T], op: impl Into<Op<T>>);
            reduce(x: &$env mut [T], op: impl Into<Op<T>>, root: u32);
            reduce_into(x: &$env [T], out: &$env mut [T], op: impl Into<Op<T>>, root: u32);
            reduce_scatter(x: &$env mut [T], op: impl Into<Op<T>>);
            reduce_scatter_into(x: &$env [T], out: &$env mut [T], op: impl Into<Op<T>>);
            reduce_scatter_v_into(x: &$env [T], out: &$env mut [T], counts: &[usize], op: impl Into<Op<T>>);
            broadcast(x: &$env mut [T], root: u32);
            broadcast_into(x: &$env [T], out: &$env mut [T], root: u32);
            scatter(x: &$env mut [T], root: u32);
            scatter_into(x: &$env [T], out: &$env mut [T], root: u32);
            scatter_v_into(x: &$env [T], counts: &[usize], out: &$env mut [T], root: u32);
            gather(x: &$env mut [T], root: u32);
            gather_into(x: &$env [T], out: &$env mut [T], root: u32);
            gather_v_into(x: &$env [T], out: &$env mut [T], counts: &[usize], root: u32);
            all_gather(x: &$env mut [T]);
            all_gather_into(x: &$env [T], out: &$env mut [T]);
            all_gather_v_into(x: &$env [T], out: &$env mut [T], counts: &[usize]);
            all_to_all_into(x: &$env [T], out: &$env mut [T]);
            all_to_all_v_into(x: &$env [T], send_counts: &[usize], out: &$env mut [T], recv_counts: &[usize]);
        }
    };
}
pub(crate) use for_borrowed;

impl Caller {
    #[inline]
    pub(crate) fn check_root(self, call: &'static str, root: u32) -> Result<()> {
        if root < self.size {
            return Ok(());
        }
        Err(Error::InvalidArgument {
            call,
            what: format!("root {root} in a communicator of {} ranks", self.size),
            hint: "ranks count from 0 to size - 1".into(),
        })
    }

    /// A message to this rank itself waits for ever if nothing else is under way.
    pub(crate) fn check_another(self, call: &'static str, peer: u32) -> Result<()> {
        if peer != self.rank {
            return Ok(());
        }
        Err(Error::InvalidArgument {
            call,
            what: format!("rank {peer} is this rank itself, and the other end of the message is missing"),
            hint: "send to and receive from the own rank in one group".into(),
        })
    }

    fn rooted<T: Element>(self, collective: Collective, root: u32, count: usize) -> Result<Call> {
        self.check_root(collective.name(), root)?;
        Ok(movement::<T>(collective, Some(root), count))
    }

    fn message(self, call: &'static str, peer: u32, message: Message) -> Result<Task> {
        if peer >= self.size {
            return Err(Error::InvalidArgument {
                call,
                what: format!("rank {peer} in a communicator of {} ranks", self.size),
                hint: "ranks count from 0 to size - 1".into(),
            });
        }
        Ok(Task::Messages(Few::One(message)))
    }

    /// The length of one of this communicator's equal blocks in an array of `all` elements.
    fn block(self, call: &'static str, what: &str, all: usize) -> Result<usize> {
        let count = all / self.size as usize;
        if count * self.size as usize == all {
            return Ok(count);
        }
        Err(Error::InvalidArgument {
            call,
            what: format!("{what} has {all} elements, which {} ranks cannot share equally", self.size),
            hint: format!(
                "pass a multiple of {}, or use the form with counts ({} or {} are nearest)",
                self.size,
                count * self.size as usize,
                (count + 1) * self.size as usize
            ),
        })
    }

    /// Checks that an array has a block of `count` elements for each rank.
    fn blocks(self, call: &'static str, what: &str, count: usize, given: usize) -> Result<()> {
        let expected = count.checked_mul(self.size as usize);
        if expected == Some(given) {
            return Ok(());
        }
        Err(Error::InvalidArgument {
            call,
            what: format!(
                "{what} has {given} elements where {} x {count} = {} belong",
                self.size,
                expected.map_or("too many".into(), |expected| expected.to_string())
            ),
            hint: "it has one block for each rank, each as long as the other array".into(),
        })
    }

    /// This rank's block of an array of equal blocks.
    fn own_block<T>(self, x: &mut [T], count: usize) -> *mut T {
        x.as_mut_ptr().wrapping_add(self.rank as usize * count)
    }

    pub(crate) fn counts(self, call: &'static str, what: &str, counts: &[usize]) -> Result<Vec<u64>> {
        let sum = counts.iter().try_fold(0_usize, |sum, &count| sum.checked_add(count));
        let what = match sum {
            Some(_) if counts.len() == self.size as usize => {
                return Ok(counts.iter().map(|&count| count as u64).collect());
            }
            Some(_) => format!("{what} has {} entries for {} ranks", counts.len(), self.size),
            None => format!("the entries of {what} add up to more than any memory has"),
        };
        Err(Error::InvalidArgument {
            call,
            what,
            hint: "it says for each rank, in order, how many elements its block has".into(),
        })
    }
}

/// A reduction of `x` into `out`, and what its operands are multiplied by.
fn reduction<T: Element>(
    collective: Collective,
    op: impl Into<Op<T>>,
    root: Option<u32>,
    count: usize,
) -> Result<Reduction> {
    let op = op.into();
    let call = Call { collective, dtype: T::TYPE, op: Some(op.operator), root, count: count as u64 };
    check_operator(&call)?;
    Ok(Reduction { call, scale: op.scalar.map(Scale::by) })
}

/// Checks that a call has an operator if it reduces, and one that suits its type.
#[inline]
pub(crate) fn check_operator(call: &Call) -> Result<()> {
    let reduces = call.collective.schedule(0).is_some_and(|collective| collective.reduces());
    let reduces = reduces && call.collective != Collective::Barrier;
    let (what, hint) = match call.op {
        Some(op) if !op.suits(call.dtype) => (
            format!("the operator {op} on elements of type {}", call.dtype),
            "bitwise operators need integers",
        ),
        None if reduces => ("no operator".into(), "say how elements are combined"),
        _ => return Ok(()),
    };
    Err(Error::InvalidArgument { call: call.collective.name(), what, hint: hint.into() })
}

struct Reduction {
    call: Call,
    scale: Option<Scale>,
}

impl From<Call> for Reduction {
    fn from(call: Call) -> Reduction {
        Reduction { call, scale: None }
    }
}

fn movement<T: Element>(collective: Collective, root: Option<u32>, count: usize) -> Call {
    Call { collective, dtype: T::TYPE, op: None, root, count: count as u64 }
}

fn in_place<T: Element>(call: impl Into<Reduction>, x: &mut [T]) -> Task {
    let memory = x.as_mut_ptr();
    collective(call, memory.cast_const(), memory)
}

fn apart<T: Element>(call: impl Into<Reduction>, x: &[T], out: &mut [T]) -> Task {
    collective(call, x.as_ptr(), out.as_mut_ptr())
}

#[inline]
fn collective<T>(call: impl Into<Reduction>, input: *const T, output: *mut T) -> Task {
    let reduction = call.into();
    let sizes = Lengths::Equal(reduction.call.count);
    of_blocks(reduction, sizes, input, output)
}

#[inline]
fn of_blocks<T>(call: impl Into<Reduction>, sizes: Lengths, input: *const T, output: *mut T) -> Task {
    let Reduction { call, scale } = call.into();
    Task::Collective { call, sizes, input: input.cast(), output: output.cast(), scale }
}

fn length(call: &'static str, what: &str, expected: usize, given: usize) -> Result<()> {
    if expected == given {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        call,
        what: format!("{what} has {given} elements where {expected} belong"),
        hint: "the arrays of a call must fit each other".into(),
    })
}

/// What lengths that every rank must know alike are compared by.
pub(crate) fn digest(counts: &[u64]) -> u32 {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for byte in counts.iter().flat_map(|count| count.to_le_bytes()) {
        digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (digest ^ (digest >> 32)) as u32
}
