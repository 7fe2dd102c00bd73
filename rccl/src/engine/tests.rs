//! The engine alone: ranks as threads, joined by loopback links, without a control plane.

use super::drive::{Stage, go};
use super::lengths::Lengths;
use super::plan::Plan;
use super::pool::Pool;
use super::round::Round;
use super::run::{Area, CHUNK, Now, Run, State, Stop};
use super::straight::Straight;
use crate::config::ChunkSize;
use crate::element::{DataType, ReduceOp};
use rccl_kernels::Kernel;
use rccl_schedule::{Algorithm, Buffer, Collective, Layout, Op, Program, Window};
use rccl_transport::memory::RegionTable;
use rccl_transport::rc::{self, Rails, Registration, bed};
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
    /// Registered with an RDMA device, over which the ranks are joined.
    Registered,
}

type Links = Vec<Option<Box<dyn Link>>>;

/// The links of all ranks; and each rank's rails, if they are joined over a device.
fn mesh(n: usize, memory: Memory) -> Vec<(Links, Option<Arc<Rails>>)> {
    let mut links: Vec<Links> = (0..n).map(|_| (0..n).map(|_| None).collect()).collect();
    if memory == Memory::Registered {
        let rails: Vec<Arc<Rails>> = (0..n).map(|_| bed::rails(0, 1).0).collect();
        // Short pieces, so that even these calls have many.
        let options = rc::Options { eager: 512, piece: 16 << 10, ..rc::Options::default() };
        for (low, high) in (0..n).flat_map(|high| (0..high).map(move |low| (low, high))) {
            let [a, b] = bed::links([&rails[low], &rails[high]], &options);
            links[low][high] = Some(Box::new(a));
            links[high][low] = Some(Box::new(b));
        }
        return links.into_iter().zip(rails.into_iter().map(Some)).collect();
    }
    let bell = || Arc::new(Doorbell::new().expect("an eventfd"));
    for (low, high) in (0..n).flat_map(|high| (0..high).map(move |low| (low, high))) {
        let regions = || Some(RegionTable::new());
        let (a, b) = loopback::pair_with(&Options::default(), [regions(), regions()], [bell(), bell()])
            .expect("a link");
        links[low][high] = Some(Box::new(a));
        links[high][low] = Some(Box::new(b));
    }
    links.into_iter().map(|links| (links, None)).collect()
}

/// Element `i` of the vector of a call, as rank `rank` has it.
fn value(rank: u64, i: u64) -> u64 {
    (rank + 1) * 1_000_000_000 + i
}

/// The elements of a window, each as `of` says.
fn elements(window: &Window, count: u64, of: impl Fn(u32, u64) -> u64) -> Vec<u64> {
    let blocks = (0..window.len()).map(|position| window.at(position));
    let of = &of;
    blocks.flat_map(|block| (0..count).map(move |i| of(block, u64::from(block) * count + i))).collect()
}

/// What each rank has in the end.
fn expected(collective: &Collective, n: u32, count: u64) -> Vec<Vec<u64>> {
    let of = |block, i| match collective.source(block, n) {
        Some(rank) => value(rank.into(), i),
        None => (0..u64::from(n)).map(|rank| value(rank, i)).sum(),
    };
    (0..n).map(|rank| elements(&collective.output(rank, n), count, of)).collect()
}

/// Runs `programs` on blocks of `count` elements; returns what each rank has in its output, or where it was stuck.
fn drive(
    programs: Vec<Program>,
    memory: Memory,
    in_place: bool,
    count: u64,
) -> Vec<Result<Vec<u64>, String>> {
    let n = programs.len();
    let ranks = mesh(n, memory).into_iter().zip(programs).map(|((mut links, rails), program)| {
        std::thread::spawn(move || {
            let sizes = Lengths::Equal(count);
            let len = |buffer| program.len_in(buffer, &sizes) as usize;
            let (read, written) = (&program.windows[0], &program.windows[1]);
            let mut input = elements(read, count, |_, i| value(program.rank.into(), i));
            let mut output = vec![u64::MAX; len(Buffer::OUTPUT)];
            let scratch: Vec<Vec<u64>> =
                (2..program.windows.len()).map(|i| vec![0; len(Buffer(i as u16))]).collect();
            let area = |base: *mut u8| Area {
                base,
                place: (memory != Memory::Private).then(|| Place::at_address(base)),
            };
            // In place the shorter of the two is a part of the longer one.
            let mut shared = if read.len() >= written.len() { input.clone() } else { output.clone() };
            let (mut first, mut second) = (input.as_mut_ptr(), output.as_mut_ptr());
            let mut at = 0;
            if in_place {
                (first, second) = (shared.as_mut_ptr(), shared.as_mut_ptr());
                if read.len() >= written.len() {
                    at = if written.is_empty() { 0 } else { read.position(written.at(0)).unwrap() };
                    second = second.wrapping_add(at as usize * count as usize);
                } else if !read.is_empty() {
                    let at = written.position(read.at(0)).unwrap() as usize * count as usize;
                    shared[at..at + input.len()].copy_from_slice(&input);
                    first = first.wrapping_add(at);
                }
            }
            let mut areas = vec![area(first.cast()), area(second.cast())];
            areas.extend(scratch.iter().map(|buffer| area(buffer.as_ptr().cast_mut().cast())));
            let registered: Vec<Registration> = [&input, &output, &shared]
                .into_iter()
                .chain(&scratch)
                .zip(rails.iter().cycle())
                .map(|(buffer, rails)| {
                    // SAFETY: the buffers live until the registrations are gone, and are this call's; nobody writes to
                    // what else lies on their pages.
                    unsafe { rails.register(buffer.as_ptr().cast_mut().cast(), buffer.len() * 8) }
                        .expect("memory")
                })
                .collect();
            let eager = |link: &Option<Box<dyn Link>>| {
                let limits = link.as_ref().map(|link| link.limits());
                limits.map_or(0, |limits| if program.snapshot { limits.unasked } else { limits.eager } as u64)
            };
            let eager: Vec<u64> = links.iter().map(eager).collect();
            let plan = Plan::new(program);
            let (mut state, mut pool) = (State::default(), Pool::default());
            let mut now = Now::new(CHUNK, memory == Memory::Mapped);
            // The same at all ranks, as both ends of a message must have it.
            now.cut([None, ChunkSize::new(1 << 10), ChunkSize::new(128 << 10)][count as usize % 3]);
            now.kernel = Kernel::select(DataType::U64, ReduceOp::Sum);
            now.areas = areas;
            now.tag = Tag { sequence: 1, call: [1, count] };
            now.element = 8;
            now.streaming = count > 20_000;
            now.dear_polls = !count.is_multiple_of(2);
            let mut run =
                Run { plan: &plan, state: &mut state, links: &mut links, pool: &mut pool, now: &mut now };
            let longest = run.bind(0, &sizes, &eager);
            run.rewind();
            let eagerly = longest <= 64 && plan.fits_links && !count.is_multiple_of(5);
            let mut stage = if plan.one_round && !count.is_multiple_of(3) {
                Stage::Round(Round::default(), count as usize * 8)
            } else if eagerly {
                Stage::Straight(Straight::default())
            } else {
                Stage::Steps
            };
            let started = Instant::now();
            loop {
                let stepped = go(&mut run, &mut stage);
                match stepped {
                    Ok((_, true)) => break,
                    Ok((true, _)) => continue,
                    Ok(_) => std::thread::yield_now(),
                    Err(stop) => return (links, Err(describe(&stop))),
                }
                if started.elapsed() > DEADLINE {
                    let stuck = run.now.first;
                    return (links, Err(format!("stuck at step {stuck}")));
                }
            }
            let written = plan.program.windows[1].len() as usize * count as usize;
            let result =
                if in_place { shared[at as usize * count as usize..][..written].to_vec() } else { output };
            drop(registered);
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

#[test]
fn every_collective_runs_on_loopback() {
    for collective in Collective::ALL {
        for n in [1_u32, 2, 3, 4, 7] {
            let roots = if collective.root().is_some() { n.min(3) } else { 1 };
            for collective in (0..roots).map(|root| collective.with_root(root)) {
                for &algorithm in Algorithm::for_collective(&collective) {
                    runs(algorithm, &collective, n);
                }
            }
        }
    }
}

/// Memory that cards read after they were told to, and write by themselves.
#[test]
fn every_collective_runs_on_a_device() {
    if !bed::has(1) {
        return;
    }
    for collective in Collective::ALL {
        for n in [2_u32, 3] {
            let collective = collective.with_root(n - 1);
            let layout = Layout::of_hosts((0..n).map(|rank| rank / 2));
            for &algorithm in Algorithm::for_collective(&collective) {
                for (count, in_place) in [(5, false), (20_000, true), (20_001, false)] {
                    let never = count > 5 && algorithm == Algorithm::Exchange;
                    if !(never || in_place && collective == Collective::AllToAll) {
                        run(algorithm, &collective, &layout, count, Memory::Registered, in_place);
                    }
                }
            }
        }
    }
}

fn runs(algorithm: Algorithm, collective: &Collective, n: u32) {
    let layout = Layout::of_hosts((0..n).map(|rank| rank / 2));
    let all_blocks = u64::from(collective.blocks(n));
    for count in [0, 1, 5, 100, 1000, 50_000] {
        // The exchange is for eager messages; as many elements as make a difference are enough for many blocks.
        if count > 1000 && (algorithm == Algorithm::Exchange || count * all_blocks > 400_000) {
            continue;
        }
        for memory in [Memory::Mapped, Memory::Private] {
            for in_place in [false, true] {
                if in_place && *collective == Collective::AllToAll {
                    continue;
                }
                run(algorithm, collective, &layout, count, memory, in_place);
            }
        }
    }
}

fn run(
    algorithm: Algorithm,
    collective: &Collective,
    layout: &Layout,
    count: u64,
    memory: Memory,
    in_place: bool,
) {
    let n = layout.ranks();
    let results = drive(programs(algorithm, collective, layout), memory, in_place, count);
    let expected = expected(collective, n, count);
    for (rank, (result, expected)) in results.into_iter().zip(expected).enumerate() {
        let context = format!(
            "{collective} by {algorithm} on {n} ranks, {count} elements, {memory:?}, in place {in_place}, rank {rank}"
        );
        assert!(result.expect(&context) == expected, "{context}");
    }
}

/// What `--explain` prints is what runs: change one operation of the program, and the result is wrong or missing.
#[test]
fn a_corrupted_program_fails_for_real() {
    let layout = Layout::one_host(3);
    let expected = expected(&Collective::AllReduce, 3, 6000);
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
        let results = drive(programs, Memory::Private, false, 6000);
        assert!(
            results.iter().zip(&expected).any(|(result, expected)| result.as_ref().ok() != Some(expected)),
            "{what} went unnoticed"
        );
    }
}
