//! Runs every algorithm with plain numbers on links that buffer without bound, in and out of place, with blocks of equal
//! sizes and of any.
//!
//! It knows nothing of the validator, and so checks what both rest on: how operations are executed, and where elements
//! lie in buffers. What must come out is said in terms of the users' buffers, without vectors and windows.

mod reference;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rccl_schedule::{Algorithm, Buffer, Collective, Layout, Program, Rank, Sizes, Window, programs};
use reference::{Value, input, outputs};

/// The sizes of the blocks that a rank knows: all, or those that its own buffers show.
struct Known<'a> {
    sizes: &'a [u64],
    of: Option<[&'a Window; 2]>,
}

impl Sizes for Known<'_> {
    fn of(&self, block: u32) -> u64 {
        let known = self.of.is_none_or(|windows| windows.iter().any(|w| w.position(block).is_some()));
        assert!(known, "asks for block {block}, whose size this rank does not know");
        self.sizes[block as usize]
    }
}

/// A rank's memory: where each of its buffers lies.
struct Memory {
    areas: Vec<Vec<Value>>,
    /// By buffer: the area, and the index in it at which the buffer begins.
    at: Vec<(usize, u64)>,
}

impl Memory {
    fn new(program: &Program, collective: &Collective, sizes: &Known<'_>, in_place: bool) -> Memory {
        let garbage = |i| (0xdead, i);
        let buffers = 0..program.windows.len() as u16;
        let lens: Vec<u64> = buffers.map(|buffer| program.len_in(Buffer(buffer), sizes)).collect();
        let mut at: Vec<(usize, u64)> = (0..lens.len()).map(|area| (area, 0)).collect();
        if in_place {
            // The buffer that shows less lies in the other.
            let [input, output] = [Buffer::INPUT, Buffer::OUTPUT].map(|buffer| program.window(buffer));
            let (larger, smaller, inner) =
                if input.len() > output.len() { (0, 1, output) } else { (1, 0, input) };
            let outer = program.window(Buffer(larger as u16));
            let before =
                if inner.is_empty() { 0 } else { sizes.before(outer, outer.position(inner.at(0)).unwrap()) };
            at[smaller] = (larger, before);
        }
        let mut areas: Vec<Vec<Value>> = lens.iter().map(|&len| (0..len).map(garbage).collect()).collect();
        let input = input(collective, program.rank, program.ranks, sizes.sizes);
        assert_eq!(input.len() as u64, lens[0], "elements of rank {}'s input", program.rank);
        let (area, first) = at[0];
        areas[area][first as usize..][..input.len()].copy_from_slice(&input);
        Memory { areas, at }
    }

    fn slice(&mut self, buffer: Buffer, elements: Range<u64>) -> &mut [Value] {
        let (area, first) = self.at[buffer.0 as usize];
        &mut self.areas[area][(first + elements.start) as usize..(first + elements.end) as usize]
    }
}

/// Every rank's output, or `None` if the programs get stuck.
fn run(
    programs: &[Program],
    collective: &Collective,
    sizes: &[Known<'_>],
    in_place: bool,
) -> Option<Vec<Vec<Value>>> {
    let mut memory: Vec<Memory> = programs
        .iter()
        .zip(sizes)
        .map(|(program, sizes)| Memory::new(program, collective, sizes, in_place))
        .collect();
    let mut edges: HashMap<(Rank, Rank, u8), VecDeque<Vec<Value>>> = HashMap::new();
    let mut next = vec![0; programs.len()];
    loop {
        let mut moved = false;
        for (program, sizes) in programs.iter().zip(sizes) {
            let rank = program.rank;
            while let Some(op) = program.ops.get(next[rank as usize]) {
                let edge = |from: Rank| (from, rank, op.channel);
                if op.recv.iter().any(|&from| edges.get(&edge(from)).is_none_or(VecDeque::is_empty)) {
                    break;
                }
                let length = program.len_of(&op.extent, sizes);
                let elements = |buffer: Buffer| {
                    let first = program.start_in(buffer, &op.extent, sizes);
                    first..first + length
                };
                let mut operands: Vec<(Rank, Vec<Value>)> = op
                    .recv
                    .iter()
                    .map(|&from| (from, edges.get_mut(&edge(from)).unwrap().pop_front().unwrap()))
                    .collect();
                if let Some(buffer) = op.reduce_with {
                    operands.push((rank, memory[rank as usize].slice(buffer, elements(buffer)).to_vec()));
                }
                assert!(operands.iter().all(|(_, operand)| operand.len() as u64 == length));
                operands.sort_by_key(|(rank, _)| *rank);
                let value: Vec<Value> = (0..length as usize)
                    .map(|i| operands.iter().map(|(_, operand)| operand[i]).reduce(combine).unwrap())
                    .collect();
                if let Some(buffer) = op.copy_to {
                    memory[rank as usize].slice(buffer, elements(buffer)).copy_from_slice(&value);
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
    done.then(|| {
        let ends = programs.iter().zip(sizes).zip(memory);
        ends.map(|((program, sizes), mut memory)| {
            memory.slice(Buffer::OUTPUT, 0..program.len_in(Buffer::OUTPUT, sizes)).to_vec()
        })
        .collect()
    })
}

fn combine(a: Value, b: Value) -> Value {
    (a.0 + b.0, a.1.wrapping_mul(31).wrapping_add(b.1.rotate_left(7)))
}

/// Runs programs with these sizes of blocks, in place too where that is a form of the collective.
fn check(algorithm: Algorithm, collective: &Collective, programs: &[Program], sizes: &[u64]) {
    let own = algorithm.touches_own_blocks_only(collective);
    let known: Vec<Known<'_>> = programs
        .iter()
        .map(|program| Known { sizes, of: own.then(|| [0, 1].map(|b| program.window(Buffer(b)))) })
        .collect();
    let expected = outputs(collective, programs.len() as u32, sizes);
    for in_place in [false, true].into_iter().filter(|&wanted| !wanted || collective.has_in_place_form()) {
        let what = format!("{algorithm}, {collective}, blocks {sizes:?}, in place {in_place}");
        let outputs = run(programs, collective, &known, in_place).unwrap_or_else(|| panic!("{what}: stuck"));
        for (rank, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
            let sums = |values: &[Value]| values.iter().map(|value| value.0).collect::<Vec<u64>>();
            if collective.reduces() {
                assert_eq!(sums(output), sums(expected), "{what}: rank {rank}");
            } else {
                assert_eq!(output, expected, "{what}: rank {rank}");
            }
        }
        if *collective == Collective::AllReduce {
            assert!(outputs.iter().all(|output| *output == outputs[0]), "{what}: the bits differ");
        }
    }
}

fn check_all(collective: Collective, layout: &Layout) {
    let n = layout.ranks();
    let blocks = collective.blocks(n) as usize;
    let rng = &mut StdRng::seed_from_u64(u64::from(n));
    let random: Vec<u64> = (0..blocks).map(|_| rng.random_range(0..4) * rng.random_range(0..4)).collect();
    for &algorithm in Algorithm::for_collective(&collective) {
        let programs = programs(algorithm, &collective, layout, 1 + (n % 3) as u8);
        if blocks == 1 {
            let n = u64::from(n);
            for count in [0, 1, n - 1, n, n + 1, 3 * n + 7] {
                check(algorithm, &collective, &programs, &[count]);
            }
        } else {
            for count in [0, 1, 3] {
                check(algorithm, &collective, &programs, &vec![count; blocks]);
            }
            check(algorithm, &collective, &programs, &random);
        }
    }
}

fn layouts(n: u32) -> Vec<Layout> {
    let by = |host: &dyn Fn(u32) -> u32| Layout::of_hosts((0..n).map(host));
    vec![
        by(&|_| 0),
        by(&|r| r / 2),
        by(&|r| r % 3.min(n)),
        by(&|r| r),
        by(&|r| u32::from(r > 0) + u32::from(r > 2)),
        // Backwards in each host, and the even ranks of one before the odd ones.
        by(&|r| r % 3.min(n)).in_order((0..n).rev().collect::<Vec<_>>()),
        by(&|_| 0).in_order((0..n).map(|r| r % 2).collect::<Vec<_>>()),
    ]
}

fn check_everywhere(collective: Collective) {
    for n in (1..=20).chain([31, 32, 33]) {
        let mut roots = if collective.root().is_some() { vec![0, n / 2, n - 1] } else { vec![0] };
        roots.dedup();
        for layout in layouts(n) {
            for &root in &roots {
                check_all(collective.with_root(root), &layout);
            }
        }
    }
}

#[test]
fn all_reduce_sums_every_input_once_and_alike_on_all_ranks() {
    check_everywhere(Collective::AllReduce);
}

#[test]
fn reduce_sums_every_input_once_at_the_root() {
    check_everywhere(Collective::Reduce { root: 0 });
}

#[test]
fn reduce_scatter_sums_each_block_where_it_belongs() {
    check_everywhere(Collective::ReduceScatter);
}

#[test]
fn broadcast_gives_the_roots_input_to_all() {
    check_everywhere(Collective::Broadcast { root: 0 });
}

#[test]
fn scatter_and_gather_deal_and_collect_blocks() {
    check_everywhere(Collective::Scatter { root: 0 });
    check_everywhere(Collective::Gather { root: 0 });
}

#[test]
fn all_gather_collects_all_blocks_everywhere() {
    check_everywhere(Collective::AllGather);
}

#[test]
fn all_to_all_transposes() {
    check_everywhere(Collective::AllToAll);
}

#[test]
fn words_name_algorithms() {
    for collective in Collective::ALL {
        for &algorithm in Algorithm::for_collective(&collective) {
            assert_eq!(algorithm.word().parse(), Ok(algorithm));
            assert_eq!(Algorithm::parse(algorithm.word(), &collective), Ok(algorithm));
        }
    }
    for algorithm in Algorithm::ALL {
        let computes = |collective: &Collective| Algorithm::for_collective(collective).contains(&algorithm);
        assert!(Collective::ALL.iter().any(computes), "{algorithm} computes nothing");
    }
    let error = Algorithm::parse("ring", &Collective::Broadcast { root: 0 }).unwrap_err().to_string();
    assert_eq!(
        error,
        "no algorithm of broadcast is called \"ring\"; \
         there are direct, binomial, chain, pipelined_tree, scatter_allgather"
    );
}

/// What [`Algorithm::reduces_in_one_pass`] promises: an operation combines the operands of all ranks, or none at all.
#[test]
fn one_pass_reduces_all_ranks_operands() {
    for collective in Collective::ALL.into_iter().filter(Collective::reduces) {
        for &algorithm in Algorithm::for_collective(&collective) {
            let one_pass = (2..40).all(|n| {
                let layout = Layout::of_hosts((0..n).map(|rank| rank % 3));
                let programs = programs(algorithm, &collective, &layout, 1);
                programs.iter().flat_map(|program| &program.ops).all(|op| {
                    let operands = op.recv.len() + usize::from(op.reduce_with.is_some());
                    operands == 1 && !op.finish || operands == n as usize && op.finish
                })
            });
            assert_eq!(one_pass, algorithm.reduces_in_one_pass(), "{collective} by {algorithm}");
        }
    }
}
