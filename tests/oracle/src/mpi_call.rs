//! A call by MPI.

use super::program::arrays::Arrays;
use super::program::call::Call;
use super::program::sample::Sample;
use super::program::stream::Stream;
use mpi::collective::SystemOperation;
use mpi::datatype::{Partition, PartitionMut};
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use rccl::{Collective, DataType, ReduceOp};

/// What the call gives this rank, if anything: its bytes. Collective, as the call is.
pub fn result(comm: &SimpleCommunicator, call: &Call) -> Option<Vec<u8>> {
    match call.dtype {
        DataType::I8 => typed::<i8>(comm, call),
        DataType::U8 => typed::<u8>(comm, call),
        DataType::I32 => typed::<i32>(comm, call),
        DataType::U32 => typed::<u32>(comm, call),
        DataType::I64 => typed::<i64>(comm, call),
        DataType::U64 => typed::<u64>(comm, call),
        DataType::F32 => typed::<f32>(comm, call),
        DataType::F64 => typed::<f64>(comm, call),
        other => unreachable!("{other}"),
    }
}

fn operation(op: ReduceOp) -> SystemOperation {
    match op {
        ReduceOp::Sum | ReduceOp::Avg | ReduceOp::PreMulSum => SystemOperation::sum(),
        ReduceOp::Prod => SystemOperation::product(),
        ReduceOp::Max => SystemOperation::max(),
        ReduceOp::Min => SystemOperation::min(),
        ReduceOp::BitAnd => SystemOperation::bitwise_and(),
        ReduceOp::BitOr => SystemOperation::bitwise_or(),
        ReduceOp::BitXor => SystemOperation::bitwise_xor(),
        other => unreachable!("{other}"),
    }
}

fn typed<T: Sample + Equivalence>(comm: &SimpleCommunicator, call: &Call) -> Option<Vec<u8>> {
    let (rank, ranks) = (comm.rank() as usize, call.ranks);
    let Arrays { x, out, .. } = call.arrays::<T>(rank, false, &mut Stream(0));
    // Empty vectors are all at one address, which for bytes is that of MPI_IN_PLACE: Open MPI refuses both.
    let array = |len: usize| {
        let mut array = Vec::with_capacity(len + 1);
        array.resize(len, T::of_bits(0));
        array
    };
    let (mut input, mut output) = (array(x.len()), array(out.len()));
    x.write(&mut input);
    let root = comm.process_at_rank(call.root as i32);
    let is_root = rank == call.root;
    // MPI multiplies and divides by nothing.
    if call.op == Some(ReduceOp::PreMulSum) {
        let by = [T::scalar(call.scalar_bits(rank))];
        input.iter_mut().for_each(|x| *x = T::combine(ReduceOp::PreMulSum, &[*x], &by));
    }
    let op = || operation(call.op.expect("an operator"));
    let starts = |counts: &[i32]| -> Vec<i32> {
        let sum = |sum: &mut i32, &count: &i32| Some(std::mem::replace(sum, *sum + count));
        counts.iter().scan(0, sum).collect()
    };
    let whole = |counts: Vec<usize>| -> Vec<i32> { counts.into_iter().map(|count| count as i32).collect() };
    let row = whole(call.row(rank));
    match call.collective {
        Collective::Barrier => {
            comm.barrier();
            return None;
        }
        Collective::AllReduce => comm.all_reduce_into(&input[..], &mut output[..], op()),
        Collective::Reduce if is_root => root.reduce_into_root(&input[..], &mut output[..], op()),
        Collective::Reduce => root.reduce_into(&input[..], op()),
        Collective::ReduceScatter => comm.reduce_scatter_block_into(&input[..], &mut output[..], op()),
        Collective::ReduceScatterV => {
            let mut all = array(input.len());
            comm.all_reduce_into(&input[..], &mut all[..], op());
            let first = starts(&row)[rank] as usize;
            let len = output.len();
            output.copy_from_slice(&all[first..first + len]);
        }
        Collective::Broadcast => {
            output.copy_from_slice(&input);
            root.broadcast_into(&mut output[..]);
        }
        Collective::AllGather => comm.all_gather_into(&input[..], &mut output[..]),
        Collective::AllGatherV => {
            let mut blocks = PartitionMut::new(&mut output[..], &row[..], starts(&row));
            comm.all_gather_varcount_into(&input[..], &mut blocks);
        }
        Collective::Gather if is_root => root.gather_into_root(&input[..], &mut output[..]),
        Collective::Gather => root.gather_into(&input[..]),
        Collective::GatherV if is_root => {
            let mut blocks = PartitionMut::new(&mut output[..], &row[..], starts(&row));
            root.gather_varcount_into_root(&input[..], &mut blocks);
        }
        Collective::GatherV => root.gather_varcount_into(&input[..]),
        Collective::Scatter if is_root => root.scatter_into_root(&input[..], &mut output[..]),
        Collective::Scatter => root.scatter_into(&mut output[..]),
        Collective::ScatterV if is_root => {
            let blocks = Partition::new(&input[..], &row[..], starts(&row));
            root.scatter_varcount_into_root(&blocks, &mut output[..]);
        }
        Collective::ScatterV => root.scatter_varcount_into(&mut output[..]),
        Collective::AllToAll => comm.all_to_all_into(&input[..], &mut output[..]),
        Collective::AllToAllV => {
            let column = whole(call.column(rank));
            let blocks = Partition::new(&input[..], &row[..], starts(&row));
            let mut received = PartitionMut::new(&mut output[..], &column[..], starts(&column));
            comm.all_to_all_varcount_into(&blocks, &mut received);
        }
        Collective::Send => {
            if rank == call.from {
                root.send(&input[..]);
            } else if is_root {
                comm.process_at_rank(call.from as i32).receive_into(&mut output[..]);
            }
        }
        other => unreachable!("{}", other.name()),
    }
    if call.op == Some(ReduceOp::Avg) {
        output.iter_mut().for_each(|x| *x = x.divided(ranks));
    }
    let gives = match call.collective {
        Collective::Reduce | Collective::Gather | Collective::GatherV | Collective::Send => is_root,
        _ => true,
    };
    gives.then(|| bytemuck::cast_slice(&output).to_vec())
}
