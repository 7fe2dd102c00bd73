//! What collectives mean, in terms of the users' buffers.

use rccl_schedule::{Collective, Rank};

/// One element: the sum of the operands and a fingerprint of the expression that made it.
pub type Value = (u64, u64);

/// What a rank's input holds. `sizes` are those of the vector's blocks.
pub fn input(collective: &Collective, rank: Rank, ranks: u32, sizes: &[u64]) -> Vec<Value> {
    let all: u64 = sizes.iter().sum();
    let n = ranks as usize;
    let len = match *collective {
        Collective::AllReduce | Collective::Reduce { .. } | Collective::ReduceScatter => all,
        Collective::Broadcast { root } | Collective::Scatter { root } if rank == root => all,
        Collective::Gather { .. } | Collective::AllGather => sizes[rank as usize],
        Collective::AllToAll => sizes[rank as usize * n..][..n].iter().sum(),
        _ => 0,
    };
    let value = |element: u64| (u64::from(rank) + 1) * 1_000_003 + element;
    (0..len).map(|element| (value(element), value(element))).collect()
}

/// What each rank's output must hold; of reductions, the sums only.
pub fn outputs(collective: &Collective, ranks: u32, sizes: &[u64]) -> Vec<Vec<Value>> {
    let inputs: Vec<Vec<Value>> = (0..ranks).map(|rank| input(collective, rank, ranks, sizes)).collect();
    let sums = || (0..inputs[0].len()).map(|e| (inputs.iter().map(|input| input[e].0).sum(), 0)).collect();
    let cut = |whole: &[Value], sizes: &[u64]| {
        let mut rest = whole;
        let parts = sizes.iter().map(|&size| rest.split_off(..size as usize).unwrap().to_vec());
        parts.collect::<Vec<Vec<Value>>>()
    };
    let only = |root: Rank, output: Vec<Value>| {
        (0..ranks).map(|rank| if rank == root { output.clone() } else { Vec::new() }).collect()
    };
    match *collective {
        Collective::AllReduce => vec![sums(); inputs.len()],
        Collective::Reduce { root } => only(root, sums()),
        Collective::ReduceScatter => cut(&sums(), sizes),
        Collective::Broadcast { root } => vec![inputs[root as usize].clone(); inputs.len()],
        Collective::Scatter { root } => cut(&inputs[root as usize], sizes),
        Collective::Gather { root } => only(root, inputs.concat()),
        Collective::AllGather => vec![inputs.concat(); inputs.len()],
        Collective::AllToAll => {
            let rows = inputs.iter().zip(sizes.chunks(inputs.len()));
            let rows: Vec<Vec<Vec<Value>>> = rows.map(|(input, sizes)| cut(input, sizes)).collect();
            (0..inputs.len()).map(|to| rows.iter().flat_map(|row| row[to].clone()).collect()).collect()
        }
        other => panic!("{other} is not known here"),
    }
}
