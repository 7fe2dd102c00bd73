//! Broken programs are rejected, or are not broken: 1,000 random changes to good programs are each rejected by the
//! validator or, if it accepts them, give the right result in many adversarial executions. `RCCL_MUTANTS` sets another
//! number.

mod interpreter;

use interpreter::{Call, run};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rccl_schedule::{
    Algorithm, Buffer, Collective, Dep, Extent, Fault, Few, Layout, Model, Op, Program, Validator, Violation,
    Window, programs, validate,
};

/// Good programs, what they compute, and the link model that they are for.
fn good(rng: &mut StdRng) -> (Vec<Program>, Collective, Model, bool, String) {
    let ranks = rng.random_range(2..=5);
    let layout = Layout::of_hosts((0..ranks).map(|r| r % [1, 2, 3][rng_index(rng, 3)].min(ranks)));
    let places: Vec<u32> = (0..ranks).map(|_| rng.random_range(0..ranks)).collect();
    let layout = Layout::of_hosts(numbered(&layout.host)).in_order(places);
    let collective = match rng.random_range(0..10) {
        0 | 1 => Collective::AllReduce,
        other => Collective::ALL[other - 2].with_root(rng.random_range(0..ranks)),
    };
    let algorithms = Algorithm::for_collective(&collective);
    let algorithm = algorithms[rng_index(rng, algorithms.len())];
    let programs = programs(algorithm, &collective, &layout, rng.random_range(1..=2));
    let buffered = programs[0].snapshot || rng.random_ratio(1, 3);
    let model = if buffered { Model::Snapshot { slots: rng.random_range(1..=3) } } else { Model::Shared };
    let in_place = collective.has_in_place_form() && rng.random();
    let name = format!("{algorithm}, {collective}, {ranks} ranks, {model:?}, in place {in_place}");
    (programs, collective, model, in_place, name)
}

fn rng_index(rng: &mut StdRng, length: usize) -> usize {
    rng.random_range(0..length)
}

/// Hosts numbered by their lowest rank.
fn numbered(host: &[u32]) -> Vec<u32> {
    let mut seen = Vec::new();
    host.iter()
        .map(|host| {
            let at = seen.iter().position(|known| known == host).unwrap_or_else(|| {
                seen.push(*host);
                seen.len() - 1
            });
            at as u32
        })
        .collect()
}

/// Changes one operation of one rank, or the operation of that number on every rank; says how.
fn mutate(programs: &mut [Program], rng: &mut StdRng) -> String {
    let everywhere = rng.random_ratio(1, 4);
    let victim = rng_index(rng, programs.len());
    let at = rng_index(rng, programs[victim].ops.len());
    let kind = rng.random_range(0..16);
    let seed: u64 = rng.random();
    for (rank, program) in programs.iter_mut().enumerate() {
        if (everywhere || rank == victim) && at < program.ops.len() {
            change(program, at, kind, &mut StdRng::seed_from_u64(seed));
        }
    }
    format!(
        "kind {kind}, op #{at} of {}",
        if everywhere { "every rank".into() } else { format!("rank {victim}") }
    )
}

fn change(program: &mut Program, at: usize, kind: u32, rng: &mut StdRng) {
    let ranks = program.ranks;
    let (number, buffers) = (program.ops.len(), program.windows.len() as u16);
    let ops = &mut program.ops;
    match kind {
        // Drop the operation, and what is after it then is not.
        0 => {
            ops.remove(at);
            for op in ops.iter_mut() {
                let after: Vec<Dep> = op.after.iter().copied().filter(|dep| dep.op as usize != at).collect();
                op.after = after
                    .into_iter()
                    .map(|d| Dep { op: d.op - u32::from(d.op as usize > at), ..d })
                    .collect();
            }
        }
        // Swap it with the next, or with any, and let dependencies follow.
        1 | 2 => {
            let other = if kind == 1 { (at + 1) % number } else { rng_index(rng, number) };
            ops.swap(at, other);
            let moved = |op: u32| match op as usize {
                op if op == at => other as u32,
                op if op == other => at as u32,
                _ => op,
            };
            for op in ops.iter_mut() {
                op.after = op.after.iter().map(|dep| Dep { op: moved(dep.op), ..*dep }).collect();
            }
        }
        // Shift or cut the extent.
        3 => {
            let e = &mut ops[at].extent;
            *e = match rng.random_range(0..4) {
                0 => Extent::parts((e.lo + 1) % e.of, (e.lo + 1) % e.of + (e.hi - e.lo), e.of),
                1 => Extent::parts(e.lo, e.hi - 1, e.of),
                2 => Extent::parts(e.lo, e.hi + 1, e.of),
                _ => Extent::parts(2 * e.lo, 2 * e.hi - 1, 2 * e.of),
            };
        }
        // Another peer.
        4 => {
            let shift = |peers: &Few<u32>| peers.iter().map(|peer| (peer + 1) % ranks).collect();
            match rng.random() {
                true => ops[at].recv = shift(&ops[at].recv),
                false => ops[at].send = shift(&ops[at].send),
            }
        }
        // Lose a dependency, or all.
        5 | 6 => {
            let all = kind == 6;
            for op in ops[at..].iter_mut().filter(|op| !op.after.is_empty()).take(1) {
                let lost = rng_index(rng, op.after.len());
                op.after = op
                    .after
                    .iter()
                    .copied()
                    .enumerate()
                    .filter(|&(i, _)| !all && i != lost)
                    .map(|(_, d)| d)
                    .collect();
            }
        }
        7 => ops[at].finish = !ops[at].finish,
        // Other buffers.
        8 => ops[at].reduce_with = Some(Buffer(rng.random_range(0..buffers.max(3)))),
        9 => ops[at].copy_to = Some(Buffer(rng.random_range(1..buffers.max(3)))),
        10 => {
            let op = &mut ops[at];
            if rng.random() { op.copy_to = None } else { op.reduce_with = None }
        }
        // One target or source less.
        11 => {
            let without_first = |peers: &Few<u32>| peers.iter().skip(1).copied().collect();
            let op = &mut ops[at];
            if rng.random() { op.send = without_first(&op.send) } else { op.recv = without_first(&op.recv) }
        }
        // Twice.
        12 => {
            let op = ops[at].clone();
            ops.push(op);
        }
        // Another block, of one end or (changed on all ranks) of both.
        13 => {
            let e = &mut ops[at].extent;
            let block = if e.of >= program.blocks { e.of / program.blocks } else { 0 };
            let shift = rng.random_range(1..=program.blocks) * block;
            if e.hi + shift <= e.of {
                (e.lo, e.hi) = (e.lo + shift, e.hi + shift);
            } else if let Some(lo) = e.lo.checked_sub(shift) {
                (e.lo, e.hi) = (lo, e.hi - shift);
            }
        }
        // A buffer that shows other blocks: one less, one more, others.
        14 => {
            let window = &mut program.windows[rng.random_range(0..buffers as usize)];
            let blocks = (0..window.len()).map(|position| window.at(position));
            *window = match rng.random_range(0..4) {
                0 => Window::of(blocks.skip(1)),
                1 => Window::of(blocks.chain([rng.random_range(0..program.blocks)])),
                2 => Window::of(blocks.map(|block| (block + 1) % program.blocks)),
                _ => Window::blocks(0, program.blocks),
            };
        }
        // A promise taken back, a channel changed, a wait prolonged.
        _ => match rng.random_range(0..3) {
            0 => program.snapshot = false,
            1 => ops[at].channel ^= 1,
            _ => ops[at].after = ops[at].after.iter().map(|dep| Dep { whole: !dep.whole, ..*dep }).collect(),
        },
    }
}

fn calls(programs: &[Program], collective: Collective, model: Model, in_place: bool) -> Vec<Call> {
    let slots = if let Model::Snapshot { slots } = model { Some(slots) } else { None };
    let blocks = programs[0].blocks;
    let size = 2 * u64::from(programs[0].parts).max(2) + 1;
    let alike = if blocks == 1 { vec![size] } else { vec![2; blocks as usize] };
    let any =
        (0..u64::from(blocks)).map(|block| if blocks == 1 { size } else { (block * 5 + 3) % 4 }).collect();
    [(1, &alike), (2, &any), (64, &alike)]
        .map(|(chunk, sizes)| Call { collective, sizes: sizes.clone(), chunk, slots, in_place })
        .to_vec()
}

/// Values and races once, progress for each of the calls.
fn prove(
    programs: &[Program],
    collective: &Collective,
    calls: &[Call],
    model: Model,
    in_place: bool,
) -> Result<(), Violation> {
    let proof = Validator::new(programs)?;
    proof.values(collective, model, in_place)?;
    calls.iter().try_for_each(|call| proof.progress(&call.sizes[..], call.chunk, model))
}

#[test]
fn a_thousand_mutants_are_rejected_or_right() {
    let (mut rejected, mut accepted) = (0, 0);
    let mut faults = std::collections::BTreeMap::new();
    let mutants = std::env::var("RCCL_MUTANTS").ok().and_then(|mutants| mutants.parse().ok()).unwrap_or(1000);
    for seed in 0..mutants {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut programs, collective, model, in_place, name) = good(&mut rng);
        let original = programs.clone();
        let mut change = String::new();
        while programs == original {
            change = mutate(&mut programs, &mut rng);
        }
        let calls = calls(&programs, collective, model, in_place);
        let verdict = prove(&programs, &collective, &calls, model, in_place);
        match verdict {
            Err(violation) => {
                rejected += 1;
                let text = violation.to_string();
                assert!(text.starts_with(&format!("rank {}", violation.rank)), "{text}");
                let fault = format!("{:?}", violation.fault);
                *faults.entry(fault.split(['(', ' ']).next().unwrap_or("").to_owned()).or_insert(0) += 1;
            }
            Ok(()) => {
                accepted += 1;
                for (i, call) in (0..).zip(calls.iter().cycle().take(24)) {
                    if let Err(what) = run(&programs, call, seed * 1000 + i) {
                        let listing: String = programs.iter().map(Program::to_string).collect();
                        panic!(
                            "mutant {seed} ({name}; {change}) was accepted, but {what} in run {i}, {call:?}\n{listing}"
                        );
                    }
                }
            }
        }
    }
    println!("{rejected} rejected {faults:?}, {accepted} accepted and right");
    assert!(
        rejected > 700 && accepted > 20,
        "{rejected} rejected, {accepted} accepted: the mutations say little"
    );
}

#[test]
fn good_programs_survive_adversarial_executions() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (programs, collective, model, in_place, name) = good(&mut rng);
        let calls = calls(&programs, collective, model, in_place);
        prove(&programs, &collective, &calls, model, in_place)
            .unwrap_or_else(|violation| panic!("{name}: {violation}"));
        for (i, call) in (0..).zip(&calls) {
            run(&programs, call, seed * 10 + i).unwrap_or_else(|what| panic!("{name}: {what}"));
        }
    }
}

/// Recursive doubling as it is often written: in the output, without scratch. `waits`: for its own send to end.
fn doubling_in_place(waits: bool) -> Vec<Program> {
    (0..4)
        .map(|rank| {
            let mut program = Program::new(&Collective::AllReduce, rank, 4, 1);
            for step in 0..2 {
                let partner = rank ^ (1 << step);
                let mut send = Op::over(Extent::ALL).reduce_with(Buffer::OUTPUT).send(partner);
                if step > 0 {
                    send = send.after(1);
                }
                let send = program.push(send);
                let mut reduce =
                    Op::over(Extent::ALL).recv(partner).reduce_with(Buffer::OUTPUT).copy_to(Buffer::OUTPUT);
                if step > 0 {
                    reduce = reduce.after(1).finish();
                }
                program.push(if waits { reduce.after(send) } else { reduce });
            }
            program
        })
        .collect()
}

#[test]
fn recursive_doubling_in_place_is_right_on_snapshots_only() {
    let check = |waits, model| validate(&doubling_in_place(waits), &Collective::AllReduce, 9, 2, model, true);
    assert_eq!(check(true, Model::Snapshot { slots: 1 }), Ok(()));
    // On mapped memory the partner reads late: the sums are wrong, or it waits for what waits for it.
    for model in [Model::Shared, Model::Rendezvous] {
        assert!(matches!(check(false, model).unwrap_err().fault, Fault::Race { .. }));
        assert_eq!(check(true, model).unwrap_err().fault, Fault::Circular);
    }
    assert!(matches!(check(false, Model::Snapshot { slots: 8 }).unwrap_err().fault, Fault::Race { .. }));

    // And executions show both.
    let call =
        Call { collective: Collective::AllReduce, sizes: vec![9], chunk: 2, slots: Some(1), in_place: true };
    let mapped = Call { slots: None, ..call.clone() };
    let outcomes = |waits, call| (0..50).map(move |seed| run(&doubling_in_place(waits), call, seed));
    assert!(outcomes(true, &call).all(|outcome| outcome.is_ok()));
    assert!(outcomes(false, &mapped).any(|outcome| outcome.is_err_and(|what| what.contains("wrong"))));
    assert!(outcomes(true, &mapped).all(|outcome| outcome.is_err_and(|what| what.contains("stuck"))));
}

#[test]
fn a_ring_that_keeps_no_partial_sums_gets_stuck_once_slices_have_more_chunks_than_slots() {
    let mut ring = programs(Algorithm::Ring, &Collective::AllReduce, &Layout::one_host(4), 1);
    for op in ring.iter_mut().flat_map(|program| &mut program.ops) {
        if op.reduce_with.is_some() && !op.finish {
            op.copy_to = None;
        }
    }
    let check =
        |chunk| validate(&ring, &Collective::AllReduce, 32, chunk, Model::Snapshot { slots: 2 }, false);
    assert_eq!(check(8), Ok(()));
    let stuck = check(1).unwrap_err();
    assert!(matches!(stuck.fault, Fault::Stuck { .. }), "{stuck}");
    assert_eq!(
        stuck.to_string(),
        "rank 0 op #0: is stuck at chunk 2, waiting for rank 1 to take what comes up to its op #1"
    );
}

#[test]
fn a_hierarchical_reduce_scatter_that_keeps_no_sums_gets_stuck() {
    let hosts = Layout::of_hosts([0, 0, 1, 1]);
    let mut programs = programs(Algorithm::Hierarchical, &Collective::ReduceScatter, &hosts, 1);
    let ops = programs.iter_mut().flat_map(|program| &mut program.ops);
    ops.filter(|op| !op.finish).for_each(|op| op.copy_to = None);
    for model in [Model::Snapshot { slots: 2 }, Model::Shared] {
        let stuck = validate(&programs, &Collective::ReduceScatter, 20, 1, model, false).unwrap_err();
        assert!(matches!(stuck.fault, Fault::Stuck { .. }), "{stuck}");
    }
}

#[test]
fn programs_of_another_collective_or_placement_are_rejected() {
    let layout = Layout::one_host(4);
    let fault = |programs: &[Program], collective, in_place| {
        validate(programs, &collective, 9, 2, Model::Shared, in_place).unwrap_err().fault
    };
    let gather = programs(Algorithm::Ring, &Collective::AllGather, &layout, 1);
    for other in
        [Collective::ReduceScatter, Collective::Gather { root: 0 }, Collective::Broadcast { root: 0 }]
    {
        assert!(matches!(fault(&gather, other, false), Fault::Malformed(_)), "all_gather is no {other}");
    }
    let transposed = programs(Algorithm::Direct, &Collective::AllToAll, &layout, 1);
    assert_eq!(fault(&transposed, Collective::AllToAll, true), Fault::NoInPlaceForm);
    // The same elements, but not where the user has them.
    let mut wider = gather.clone();
    wider[2].windows[0] = Window::blocks(1, 2);
    assert!(matches!(fault(&wider, Collective::AllGather, false), Fault::Malformed(_)));
}

#[test]
fn a_violation_names_rank_operation_and_element() {
    let mut direct = programs(Algorithm::Direct, &Collective::AllReduce, &Layout::one_host(4), 1);
    direct[2].ops[3].reduce_with = None;
    let violation = validate(&direct, &Collective::AllReduce, 40, 8, Model::Shared, true).unwrap_err();
    assert_eq!(violation.to_string(), "rank 0 op #5 element 20: the output lacks the operand of rank 2");
}
