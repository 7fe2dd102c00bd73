//! Calls on raw memory, for bindings of other languages.

use crate::call::{Call, Collective};
use crate::communicator::Communicator;
use crate::engine::{Lengths, Message, Task};
use crate::error::{Error, Result};
use crate::request::check_operator;
use rccl_schedule::Few;

impl Communicator {
    /// A call whose blocks have one length, or a message ([`Call::root`] is the peer then), on raw memory. `input` and
    /// `output` point to as many blocks of [`Call::count`] elements as the collective has there; a message uses
    /// one of them. In place, they are the same pointer, or one is this rank's block of the other as NCCL defines it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a root out of range, a null pointer where elements are needed, a size that does
    /// not fit an address space, memory that overlaps in any other way, an operator that does not suit the type, or a
    /// collective that needs more than a count; else as the methods.
    ///
    /// # Safety
    /// `input` is valid for reads and `output` for writes of these elements until this returns, and nobody else uses
    /// them meanwhile.
    pub unsafe fn call_raw(&self, call: &Call, input: *const u8, output: *mut u8) -> Result<()> {
        let task = self.raw_task(call, input, output);
        // SAFETY: the caller's promise; the ranges are those of a call in place, or apart.
        unsafe { self.execute(task) }
    }

    fn raw_task(&self, call: &Call, input: *const u8, output: *mut u8) -> Result<Task> {
        let name = call.collective.name();
        let invalid =
            |what: String, hint: &str| Err(Error::InvalidArgument { call: name, what, hint: hint.into() });
        let Some(block) = call.count.checked_mul(call.dtype.size() as u64) else {
            return invalid(format!("{} elements", call.count), "no memory is that large");
        };
        if let Some(root) = call.root {
            self.caller().check_root(name, root)?;
        }
        check_operator(call)?;
        let (rank, ranks) = (self.rank(), self.size());
        if let Collective::Send | Collective::Recv = call.collective {
            let Some(peer) = call.root else {
                return invalid("no peer".into(), "say which rank is at the other end");
            };
            self.caller().check_another(name, peer)?;
            let outgoing = call.collective == Collective::Send;
            let memory = if outgoing { input.cast_mut() } else { output };
            if memory.is_null() && block > 0 {
                return invalid("a null pointer".into(), "pass memory for all elements, or a count of 0");
            }
            let message = Message { peer, outgoing, dtype: call.dtype, count: call.count, memory };
            return Ok(Task::Messages(Few::One(message)));
        }
        let needs_more = call.collective.varies()
            || matches!(call.collective, Collective::AllGatherV | Collective::ReduceScatterV);
        let collective = call.collective.schedule(call.root.unwrap_or(0)).filter(|_| !needs_more);
        let Some(collective) = collective else {
            return invalid("a count alone".into(), "call the method, which takes a count for each block");
        };
        if collective.root().is_some() && call.root.is_none() {
            return invalid("no root".into(), "say which rank is the root");
        }
        let (read, written) = (collective.input(rank, ranks), collective.output(rank, ranks));
        let bytes =
            |blocks: u32| block.checked_mul(blocks.into()).filter(|&bytes| bytes <= isize::MAX as u64);
        let (Some(reads), Some(writes)) = (bytes(read.len()), bytes(written.len())) else {
            return invalid(format!("{} elements", call.count), "no memory is that large");
        };
        if reads > 0 && input.is_null() || writes > 0 && output.is_null() {
            return invalid("a null pointer".into(), "pass memory for all elements, or a count of 0");
        }
        let (first, second) = (input as u64, output as u64);
        let overlap = reads > 0 && writes > 0 && first < second + writes && second < first + reads;
        // The block that both have lies at one place if the call is in place.
        let shared = [&read, &written]
            .into_iter()
            .filter(|window| !window.is_empty())
            .map(|window| window.at(0))
            .max()
            .unwrap_or(0);
        let offset = |window: &rccl_schedule::Window| window.position(shared).map(|p| u64::from(p) * block);
        let in_place = collective != rccl_schedule::Collective::AllToAll
            && match (offset(&read), offset(&written)) {
                (Some(a), Some(b)) => first + a == second + b,
                _ => false,
            };
        if overlap && !in_place {
            return invalid(
                format!(
                    "input and output overlap: they start {} bytes apart and are {reads} and {writes} bytes long",
                    first.abs_diff(second)
                ),
                "work in place (one array, or this rank's block of it), or on disjoint arrays",
            );
        }
        Ok(Task::Collective { call: *call, sizes: Lengths::Equal(call.count), input, output, scale: None })
    }
}
