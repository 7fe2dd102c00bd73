//! The engine alone: ranks as threads, joined by loopback links, without a control plane.

use super::plan::Plan;
use super::pool::Pool;
use super::round::Round;
use super::run::{Area, CHUNK, Run, State, Stop};
use crate::element::{DataType, ReduceOp};
use rccl_kernels::Kernel;
use rccl_schedule::{Algorithm, Buffer, Collective, Layout, Op, Program};
use rccl_transport::memory::RegionTable;
use rccl_transport::shm::{Doorbell, Options};
use rccl_transport::{Link, Place, Tag, loopback};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

/// How memory is offered to the peers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Memory {
    /// By its address, which a loopback link maps.
    Mapped,
    /// Not at all: everything is staged.
    Private,
}

type Links = Vec<Option<Box<dyn Link>>>;

fn mesh(n: usize) -> Vec<Links> {
    let mut links: Vec<Links> = (0..n).map(|_| (0..n).map(|_| None).collect()).collect();
    let bell = || Arc::new(Doorbell::new().expect("an eventfd"));
    for (low, high) in (0..n).flat_map(|high| (0..high).map(move |low| (low, high))) {
        let regions = || Some(RegionTable::new());
        let (a, b) = loopback::pair_with(&Options::default(), [regions(), regions()], [bell(), bell()])
            .expect("a link");
        links[low][high] = Some(Box::new(a));
        links[high][low] = Some(Box::new(b));
    }
    links
}

/// Runs `programs` on `inputs`; returns what each rank has in its output, or where it was stuck.
fn drive(
    programs: Vec<Program>,
    memory: Memory,
    in_place: bool,
    inputs: &[Vec<u64>],
) -> Vec<Result<Vec<u64>, String>> {
    let n = programs.len();
    let ranks = mesh(n).into_iter().zip(programs).zip(inputs).map(|((mut links, program), input)| {
        let mut input = input.clone();
        std::thread::spawn(move || {
            let count = input.len();
            let mut output = vec![u64::MAX; count];
            let scratch: Vec<Vec<u64>> = (0..program.scratch).map(|_| vec![0; count]).collect();
            let area = |base: *mut u8| Area {
                base,
                place: (memory == Memory::Mapped).then(|| Place::at_address(base)),
            };
            let first = input.as_mut_ptr().cast::<u8>();
            let second = if in_place { first } else { output.as_mut_ptr().cast() };
            let mut areas = vec![area(first), area(second)];
            areas.extend(scratch.iter().map(|buffer| area(buffer.as_ptr().cast_mut().cast())));
            let eager = |link: &Option<Box<dyn Link>>| {
                let limits = link.as_ref().map(|link| link.limits());
                limits.map_or(0, |limits| if program.snapshot { limits.unasked } else { limits.eager } as u64)
            };
            let eager: Vec<u64> = links.iter().map(eager).collect();
            let plan = Plan::new(Algorithm::Ring, program);
            let (mut state, mut pool) = (State::default(), Pool::default());
            let mut run = Run {
                plan: &plan,
                state: &mut state,
                links: &mut links,
                pool: &mut pool,
                kernel: Kernel::select(DataType::U64, ReduceOp::Sum),
                areas: &areas,
                tag: Tag { sequence: 1, call: [1, count as u64] },
                element: 8,
                chunk: CHUNK,
                streaming: count > 20_000,
                shared_copies: memory == Memory::Mapped,
                first: 0,
                last: 0,
                unopened: 0,
                dear_polls: count % 2 == 1,
                rounds: 0,
            };
            run.bind(0, count as u64, &eager);
            let mut round = Round::default();
            let straight = plan.one_round && count % 3 != 0;
            let started = Instant::now();
            loop {
                let stepped =
                    if straight { run.step_round(&mut round, count * 8) } else { super::step(&mut run) };
                match stepped {
                    Ok((_, true)) => break,
                    Ok((true, _)) => continue,
                    Ok(_) => std::thread::yield_now(),
                    Err(stop) => return (links, Err(describe(&stop))),
                }
                if started.elapsed() > DEADLINE {
                    let stuck = run.first;
                    return (links, Err(format!("stuck at step {stuck}")));
                }
            }
            let result = if in_place { input } else { output };
            (links, Ok(result))
        })
    });
    // Links stay until every rank is done: a peer may still read from them.
    let threads: Vec<_> = ranks.collect();
    threads
        .into_iter()
        .map(|thread| thread.join().expect("a rank panicked"))
        .map(|(_, result)| result)
        .collect()
}

fn describe(stop: &Stop) -> String {
    match stop {
        Stop::Foreign { peer, .. } => format!("rank {peer} is in another call"),
        Stop::Length { peer, expected, given } => format!("{given} bytes from {peer}, expected {expected}"),
        Stop::Link { peer, error } => format!("link to {peer}: {error}"),
    }
}

fn programs(algorithm: Algorithm, collective: &Collective, layout: &Layout) -> Vec<Program> {
    (0..layout.ranks()).map(|rank| rccl_schedule::program(algorithm, collective, rank, layout, 1)).collect()
}

fn inputs(n: u32, count: usize) -> Vec<Vec<u64>> {
    (0..u64::from(n)).map(|rank| (0..count as u64).map(|i| (rank + 1) * 1_000_000 + i).collect()).collect()
}

fn sums(inputs: &[Vec<u64>]) -> Vec<u64> {
    (0..inputs[0].len()).map(|i| inputs.iter().map(|input| input[i]).sum()).collect()
}

#[test]
fn every_all_reduce_runs_on_loopback() {
    for n in [1_u32, 2, 3, 4, 7] {
        for &algorithm in Algorithm::for_collective(&Collective::AllReduce) {
            for count in [0, 1, 5, 100, 1000, 50_000] {
                let snapshot = algorithm == Algorithm::Exchange;
                if snapshot && count > 1000 {
                    continue;
                }
                for memory in [Memory::Mapped, Memory::Private] {
                    for in_place in [false, true] {
                        let inputs = inputs(n, count);
                        let layout = Layout { host: (0..n).map(|rank| rank / 2).collect() };
                        let results = drive(
                            programs(algorithm, &Collective::AllReduce, &layout),
                            memory,
                            in_place,
                            &inputs,
                        );
                        for (rank, result) in results.into_iter().enumerate() {
                            let context = format!(
                                "{algorithm} on {n} ranks, {count} elements, {memory:?}, in place {in_place}, rank {rank}"
                            );
                            assert!(result.expect(&context) == sums(&inputs), "{context}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_broadcast_runs_on_loopback() {
    for n in [1_u32, 2, 3, 5] {
        for root in 0..n {
            let collective = Collective::Broadcast { root };
            for &algorithm in Algorithm::for_collective(&collective) {
                for count in [0, 1, 100, 50_000] {
                    for memory in [Memory::Mapped, Memory::Private] {
                        for in_place in [false, true] {
                            let inputs = inputs(n, count);
                            let layout = Layout::one_host(n);
                            let results =
                                drive(programs(algorithm, &collective, &layout), memory, in_place, &inputs);
                            for (rank, result) in results.into_iter().enumerate() {
                                let context = format!(
                                    "{algorithm} from {root} of {n}, {count} elements, {memory:?}, in place {in_place}, rank {rank}"
                                );
                                assert!(result.expect(&context) == inputs[root as usize], "{context}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What `--explain` prints is what runs: change one operation of the program, and the result is wrong or missing.
#[test]
fn a_corrupted_program_fails_for_real() {
    let layout = Layout::one_host(3);
    let inputs = inputs(3, 6000);
    type Corruption = (&'static str, fn(&mut Op));
    let corruptions: [Corruption; 3] = [
        ("forget the own operand", |op| op.reduce_with = op.recv.is_empty().then_some(Buffer::INPUT)),
        ("store elsewhere", |op| op.copy_to = op.copy_to.map(|_| Buffer::INPUT)),
        ("reduce other elements", |op| op.extent = rccl_schedule::Extent::part((op.extent.lo + 1) % 3, 3)),
    ];
    for (what, corrupt) in corruptions {
        let mut programs = programs(Algorithm::Direct, &Collective::AllReduce, &layout);
        let op = programs[1].ops.iter_mut().find(|op| op.recv.len() > 1).expect("the n-way reduction");
        corrupt(op);
        let results = drive(programs, Memory::Private, false, &inputs);
        assert!(
            results.iter().any(|result| result.as_ref().ok() != Some(&sums(&inputs))),
            "{what} went unnoticed"
        );
    }
}
