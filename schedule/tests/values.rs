//! Runs every algorithm with plain numbers on links that buffer without bound, in and out of place.
//!
//! It knows nothing of the validator, and so checks what both rest on: how operations are executed.

use std::collections::{HashMap, VecDeque};

use rccl_schedule::{Algorithm, Buffer, Collective, Layout, Program, Rank, programs};

/// One element: the sum of the operands and a fingerprint of the expression that made it.
type Value = (u64, u64);

fn input(rank: Rank, element: u64) -> Value {
    let sum = (u64::from(rank) + 1) * 1_000_003 + element;
    (sum, sum)
}

/// Every rank's output, or `None` if the programs get stuck.
fn run(programs: &[Program], count: u64, in_place: bool) -> Option<Vec<Vec<Value>>> {
    let table = |program: &Program, buffer: Buffer| match buffer {
        Buffer::INPUT if in_place => Buffer::OUTPUT.0 as usize,
        _ => buffer.0.min(program.scratch + 1) as usize,
    };
    let mut memory: Vec<Vec<Vec<Value>>> = programs
        .iter()
        .map(|program| {
            let mut memory = vec![vec![(0, 0); count as usize]; 2 + program.scratch as usize];
            memory[table(program, Buffer::INPUT)] = (0..count).map(|e| input(program.rank, e)).collect();
            memory
        })
        .collect();
    let mut edges: HashMap<(Rank, Rank, u8), VecDeque<Vec<Value>>> = HashMap::new();
    let mut next = vec![0; programs.len()];
    loop {
        let mut moved = false;
        for program in programs {
            let rank = program.rank;
            while let Some(op) = program.ops.get(next[rank as usize]) {
                let range = op.extent.bind(count, program.grain(count));
                let edge = |from: Rank| (from, rank, op.channel);
                if op.recv.iter().any(|&from| edges.get(&edge(from)).is_none_or(VecDeque::is_empty)) {
                    break;
                }
                let mut operands: Vec<(Rank, Vec<Value>)> = op
                    .recv
                    .iter()
                    .map(|&from| (from, edges.get_mut(&edge(from)).unwrap().pop_front().unwrap()))
                    .collect();
                if let Some(buffer) = op.reduce_with {
                    let here = &memory[rank as usize][table(program, buffer)];
                    operands.push((rank, here[range.start as usize..range.end as usize].to_vec()));
                }
                operands.sort_by_key(|(rank, _)| *rank);
                let value: Vec<Value> = (0..(range.end - range.start) as usize)
                    .map(|i| {
                        let terms = operands.iter().map(|(_, operand)| operand[i]);
                        terms
                            .reduce(|a, b| (a.0 + b.0, a.1.wrapping_mul(31).wrapping_add(b.1.rotate_left(7))))
                            .unwrap()
                    })
                    .collect();
                if let Some(buffer) = op.copy_to {
                    memory[rank as usize][table(program, buffer)][range.start as usize..range.end as usize]
                        .copy_from_slice(&value);
                }
                for &to in op.send.iter() {
                    edges.entry((rank, to, op.channel)).or_default().push_back(value.clone());
                }
                next[rank as usize] += 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let done = programs.iter().all(|program| next[program.rank as usize] == program.ops.len())
        && edges.values().all(VecDeque::is_empty);
    done.then(|| memory.into_iter().map(|mut memory| memory.swap_remove(1)).collect())
}

fn check(algorithm: Algorithm, collective: Collective, layout: &Layout, channels: u8) {
    let n = u64::from(layout.ranks());
    let programs = programs(algorithm, &collective, layout, channels);
    for count in [0, 1, n - 1, n, n + 1, 3 * n + 7] {
        for in_place in [false, true] {
            let what =
                format!("{algorithm}, {collective}, {layout:?}, {count} elements, in place {in_place}");
            let outputs = run(&programs, count, in_place).unwrap_or_else(|| panic!("{what}: stuck"));
            for (e, &(_, bits)) in (0..).zip(&outputs[0]) {
                let expected = match collective {
                    Collective::Broadcast { root } => input(root, e).0,
                    _ => (0..n as Rank).map(|rank| input(rank, e).0).sum(),
                };
                for (rank, output) in outputs.iter().enumerate() {
                    assert_eq!(output[e as usize], (expected, bits), "{what}: rank {rank} element {e}");
                }
            }
        }
    }
}

fn layouts(n: u32) -> Vec<Layout> {
    let by = |host: &dyn Fn(u32) -> u32| Layout { host: (0..n).map(host).collect() };
    vec![
        by(&|_| 0),
        by(&|r| r / 2),
        by(&|r| r % 3.min(n)),
        by(&|r| r),
        by(&|r| u32::from(r > 0) + u32::from(r > 2)),
    ]
}

#[test]
fn all_reduce_sums_every_input_once_and_alike_on_all_ranks() {
    for n in (1..=20).chain([31, 32, 33]) {
        for layout in layouts(n) {
            for &algorithm in Algorithm::for_collective(&Collective::AllReduce) {
                check(algorithm, Collective::AllReduce, &layout, 1 + (n % 3) as u8);
            }
        }
    }
}

#[test]
fn broadcast_gives_the_roots_input_to_all() {
    for n in (1..=20).chain([31, 32, 33]) {
        for layout in layouts(n) {
            for root in [0, n / 2, n - 1] {
                let collective = Collective::Broadcast { root };
                for &algorithm in Algorithm::for_collective(&collective) {
                    check(algorithm, collective, &layout, 1 + (n % 3) as u8);
                }
            }
        }
    }
}

#[test]
fn words_name_algorithms() {
    for collective in [Collective::AllReduce, Collective::Broadcast { root: 0 }] {
        for &algorithm in Algorithm::for_collective(&collective) {
            assert_eq!(algorithm.word().parse(), Ok(algorithm));
            assert_eq!(Algorithm::parse(algorithm.word(), &collective), Ok(algorithm));
        }
    }
    let error = Algorithm::parse("ring", &Collective::Broadcast { root: 0 }).unwrap_err().to_string();
    assert_eq!(
        error,
        "no algorithm of broadcast is called \"ring\"; there are chain, binomial, pipelined_tree, scatter_allgather"
    );
}
