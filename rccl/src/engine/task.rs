//! What the engine is asked to do.

use super::lengths::Lengths;
use crate::call::Call;
use crate::element::DataType;
use rccl_kernels::Scale;
use rccl_schedule::{Buffer, Extent, Few, Op, Program, Rank, Window};

/// One submission. Its memory stays as it is promised to be until it has ended.
pub(crate) enum Task {
    /// A collective call.
    Collective {
        call: Call,
        sizes: Lengths,
        /// Read; `sizes` and the collective say how long it is.
        input: *const u8,
        /// Written; the same memory as `input`, or its part that the collective defines, or apart from it.
        output: *mut u8,
        /// What every operand of this rank is multiplied by first.
        scale: Option<Scale>,
    },
    /// Messages to and from single ranks, all under way at once.
    Messages(Few<Message>),
    /// Small calls of one kind, at least one, run as one.
    Fused(Vec<Piece>),
}

// SAFETY: the memory may be used from any thread, as whoever submits the task promises.
unsafe impl Send for Task {}

/// One message of [`Task::Messages`].
#[derive(Clone, Copy)]
pub(crate) struct Message {
    pub peer: Rank,
    /// Sent; else received.
    pub outgoing: bool,
    pub dtype: DataType,
    pub count: u64,
    /// Read if it is sent, written if it is received.
    pub memory: *mut u8,
}

/// One call of [`Task::Fused`].
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub call: Call,
    pub input: *const u8,
    pub output: *mut u8,
}

/// The program that moves messages: an operation for each, sends first, none after another, each with a buffer and a
/// block of its own. A message to this rank itself is a copy from its buffer to that of the one that receives it.
///
/// It depends on the list of peers and directions only. Returns the program and, for each of its buffers behind the
/// first two and for each operation, the number of its message.
pub(crate) fn program_of(messages: &[Message], rank: Rank, ranks: u32) -> (Program, Vec<u32>, Vec<u32>) {
    let mut to_itself =
        messages.iter().zip(0..).filter(|(m, _)| m.peer == rank && !m.outgoing).map(|(_, i)| i);
    let mut ops = Vec::new();
    let mut windows = vec![Window::NONE, Window::NONE];
    let (mut buffers, mut of_ops) = (Vec::new(), Vec::new());
    let mut buffer = |block: u32, message: u32| {
        windows.push(Window::block(block));
        buffers.push(message);
        Buffer((windows.len() - 1) as u16)
    };
    let numbered = messages.iter().zip(0_u32..);
    let sends_first =
        numbered.clone().filter(|(m, _)| m.outgoing).chain(numbered.filter(|(m, _)| !m.outgoing));
    for (message, number) in sends_first {
        let block = ops.len() as u32;
        let op = match (message.peer == rank, message.outgoing) {
            (false, true) => Op::over(Extent::ALL).reduce_with(buffer(block, number)).send(message.peer),
            (false, false) => Op::over(Extent::ALL).recv(message.peer).copy_to(buffer(block, number)),
            (true, true) => {
                let Some(receive) = to_itself.next() else { continue };
                let from = buffer(block, number);
                Op::over(Extent::ALL).reduce_with(from).copy_to(buffer(block, receive))
            }
            // The send has it.
            (true, false) => continue,
        };
        ops.push(op);
        of_ops.push(number);
    }
    let blocks = (ops.len() as u32).max(1);
    for (op, block) in ops.iter_mut().zip(0..) {
        op.extent = Extent::part(block, blocks);
        op.after = Few::None;
    }
    (Program { rank, ranks, blocks, parts: 1, windows, snapshot: false, ops }, buffers, of_ops)
}
