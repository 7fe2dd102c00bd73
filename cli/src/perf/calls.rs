//! One iteration: the calls of a plan, alone, as one group, or all under way at once.

use super::line::SENDRECV;
use super::plan::Plan;
use rccl::{Collective, Communicator, Element, ReduceOp, Result, group};

/// Makes a call of the plan: on a communicator or scope, or in a group, where `$on` is the communicator.
macro_rules! call {
    ($plan:expr, $input:expr, $output:expr, $to:expr $(, $on:expr)?) => {{
        let (plan, input, output) = ($plan, $input, $output);
        let op = plan.line.op.unwrap_or(ReduceOp::Sum);
        let root = plan.line.root.unwrap_or(0);
        match (plan.line.collective, plan.in_place) {
            (Collective::AllReduce, false) => $to.all_reduce_into($($on,)? input, output, op),
            (Collective::AllReduce, true) => $to.all_reduce($($on,)? output, op),
            (Collective::Reduce, false) => $to.reduce_into($($on,)? input, output, op, root),
            (Collective::Reduce, true) => $to.reduce($($on,)? output, op, root),
            (Collective::ReduceScatter, false) => $to.reduce_scatter_into($($on,)? input, output, op),
            (Collective::ReduceScatter, true) => $to.reduce_scatter($($on,)? output, op),
            (Collective::ReduceScatterV, _) => {
                $to.reduce_scatter_v_into($($on,)? input, output, &plan.counts, op)
            }
            (Collective::Broadcast, false) => $to.broadcast_into($($on,)? input, output, root),
            (Collective::Broadcast, true) => $to.broadcast($($on,)? output, root),
            (Collective::Scatter, false) => $to.scatter_into($($on,)? input, output, root),
            (Collective::Scatter, true) => $to.scatter($($on,)? output, root),
            (Collective::ScatterV, _) => $to.scatter_v_into($($on,)? input, &plan.counts, output, root),
            (Collective::Gather, false) => $to.gather_into($($on,)? input, output, root),
            (Collective::Gather, true) => $to.gather($($on,)? output, root),
            (Collective::GatherV, _) => $to.gather_v_into($($on,)? input, output, &plan.counts, root),
            (Collective::AllGather, false) => $to.all_gather_into($($on,)? input, output),
            (Collective::AllGather, true) => $to.all_gather($($on,)? output),
            (Collective::AllGatherV, _) => $to.all_gather_v_into($($on,)? input, output, &plan.counts),
            (Collective::AllToAll, _) => $to.all_to_all_into($($on,)? input, output),
            (Collective::AllToAllV, _) => {
                $to.all_to_all_v_into($($on,)? input, &plan.counts, output, &plan.received)
            }
            _ => $to.barrier($($on)?),
        }
    }};
}

/// Calls once for each output, all reading the same input: one output straight, several as one group. Returns when all
/// have ended.
///
/// # Errors
/// The first error of a call.
#[inline]
pub fn blocking<T: Element>(
    communicator: &Communicator,
    plan: &Plan,
    input: &[T],
    outputs: &mut [&mut [T]],
) -> Result<()> {
    match outputs {
        [output] if plan.line.collective != SENDRECV => call!(plan, input, &mut **output, communicator),
        outputs => group(|calls| {
            for output in outputs {
                if plan.line.collective == SENDRECV {
                    calls.send(communicator, input, plan.next());
                    calls.recv(communicator, output, plan.previous());
                } else {
                    call!(plan, input, &mut **output, calls, communicator);
                }
            }
        }),
    }
}

/// As [`blocking`], by calls that are started one after the other and waited for at the end.
///
/// # Errors
/// The first error of a call.
pub fn started<T: Element>(
    communicator: &Communicator,
    plan: &Plan,
    input: &[T],
    outputs: &mut [&mut [T]],
) -> Result<()> {
    communicator.scope(|calls| {
        for output in outputs {
            if plan.line.collective != SENDRECV {
                drop(call!(plan, input, &mut **output, calls));
            } else if plan.rank.is_multiple_of(2) {
                // Work runs in the order in which it was started: were all to send first, all would wait.
                drop(calls.send(input, plan.next()));
                drop(calls.recv(output, plan.previous()));
            } else {
                drop(calls.recv(output, plan.previous()));
                drop(calls.send(input, plan.next()));
            }
        }
    })
}
