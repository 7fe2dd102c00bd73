//! The simulator against arithmetic, and all algorithms through it.

use rccl_schedule::simulate::{
    Call, Class, Cluster, How, Link, Outcome, Overhead, Placement, Rate, Slow, Unfit, formula, simulate,
};
use rccl_schedule::{Algorithm, Collective};

/// The algorithms of a collective that run calls of any size.
fn algorithms(collective: &Collective) -> impl Iterator<Item = Algorithm> {
    Algorithm::for_collective(collective)
        .iter()
        .copied()
        .filter(|&algorithm| algorithm != Algorithm::Exchange)
}

/// A cluster in which all numbers are round: 10 ns a send, 20 ns a receive, 1 us a link, 1 GB/s everywhere, 4 GB/s to reduce.
fn round() -> Cluster {
    let overhead = Overhead { send: 10_000, receive: 20_000, copy: Rate::INFINITE, eager: 256 };
    Cluster {
        ranks_per_host: 1,
        placement: Placement::Block,
        rails: 1,
        hosts_per_leaf: 64,
        rail_optimised: false,
        spines: 1,
        oversubscription: 1.0,
        rail: Link { latency: 1_000_000, rate: Rate::gigabytes(1.0) },
        trunk_latency: 500_000,
        memory: Link { latency: 100_000, rate: Rate::gigabytes(10.0) },
        network: overhead,
        local: overhead,
        reduce: Rate::gigabytes(4.0),
        copy: Rate::INFINITE,
        chunk: 4096,
        window: 32,
        slow: Vec::new(),
    }
}

fn call(collective: Collective, algorithm: Algorithm, ranks: u32, bytes: u64) -> Call {
    Call { algorithm, collective, ranks, bytes, element: 4 }
}

fn run(collective: Collective, algorithm: Algorithm, ranks: u32, bytes: u64, cluster: &Cluster) -> Outcome {
    let call = call(collective, algorithm, ranks, bytes);
    simulate(&call, cluster).unwrap_or_else(|unfit| panic!("{call:?}: {unfit}"))
}

fn broadcast(ranks: u32, bytes: u64, cluster: &Cluster) -> Outcome {
    run(Collective::Broadcast { root: 0 }, Algorithm::Direct, ranks, bytes, cluster)
}

#[test]
fn two_ranks_over_one_link_take_what_the_formula_says() {
    let cluster = round();
    // Eager: send, two links of 1 us, 256 bytes at 1 ns, receive.
    assert_eq!(broadcast(2, 256, &cluster).time, 10_000 + 2_000_000 + 256_000 + 20_000);
    // Granted: the grant comes after 2 us.
    assert_eq!(broadcast(2, 260, &cluster).time, 2_000_000 + 10_000 + 2_000_000 + 260_000 + 20_000);
    // Chunks follow one another on the link, the longest of all stages.
    assert_eq!(broadcast(2, 40_960, &cluster).time, 2_000_000 + 10_000 + 2_000_000 + 40_960_000 + 20_000);
}

#[test]
fn a_reduction_is_paid_for_each_operand_but_the_first() {
    let cluster = round();
    let outcome = run(Collective::Reduce { root: 0 }, Algorithm::Direct, 3, 200, &cluster);
    // Both messages meet at the root's link: 400 ns. Two receives, and 200 bytes twice at 4 GB/s.
    assert_eq!(outcome.time, 10_000 + 2_000_000 + 400_000 + 2 * 20_000 + 2 * 50_000);
}

#[test]
fn messages_queue_at_the_link_that_they_share() {
    let cluster = Cluster { rails: 1, ranks_per_host: 4, ..round() };
    // Ranks 0 to 3 send to the four of the other host, over one rail.
    let outcome = run(Collective::AllToAll, Algorithm::Pairwise, 8, 8 * 200, &cluster);
    let (name, share) = outcome.slowest.clone().unwrap();
    assert!(name.starts_with("host ") && name.contains("rail 0"), "{name}");
    let busy = share * outcome.time as f64;
    assert!((busy - 16.0 * 200_000.0).abs() < 1.0, "16 messages of 200 bytes: {busy}");
    assert!(outcome.time > 16 * 200_000 + 2_000_000);
}

#[test]
fn a_window_holds_a_sender_back() {
    let wide = broadcast(2, 40_960, &round());
    let narrow = broadcast(2, 40_960, &Cluster { window: 1, ..round() });
    // Each chunk waits until the one before was taken and its sender heard so.
    let each = 10_000 + 2_000_000 + 4_096_000 + 20_000 + 2_000_000;
    assert_eq!(narrow.time, 2_000_000 + 10 * each - 2_000_000);
    assert!(wide.time < narrow.time);
}

#[test]
fn far_leaves_are_one_more_pair_of_links_away() {
    let cluster = Cluster { hosts_per_leaf: 1, ..round() };
    assert_eq!(broadcast(2, 256, &cluster).time, 10_000 + 3_000_000 + 256_000 + 20_000);
    let outcome = broadcast(2, 256, &Cluster { oversubscription: 2.0, ..cluster });
    // A link up carries half as much, and is the slowest.
    assert_eq!(outcome.time, 10_000 + 3_000_000 + 512_000 + 20_000);
    assert_eq!(outcome.slowest.unwrap().0, "leaf 0 spine 0 up");
}

#[test]
fn what_is_slow_is_found() {
    let slow = |what: &str| Cluster { slow: vec![Slow { what: what.into(), factor: 10.0 }], ..round() };
    let ring = |cluster: &Cluster| run(Collective::AllReduce, Algorithm::Ring, 8, 1 << 20, cluster);
    let usual = ring(&round());
    for link in ["host 5 rail 0 in", "host 0 rail 0 out"] {
        let outcome = ring(&slow(link));
        assert_eq!(outcome.slowest.as_ref().unwrap().0, link);
        assert!(outcome.time > usual.time * 5, "{} and {}", outcome.time, usual.time);
    }
    let outcome = ring(&slow("host 3"));
    let (mean, most) = outcome.processors.unwrap();
    assert!(most > 2.0 * mean, "{mean} {most}");
    let unknown = simulate(&outcome.call, &slow("host 8"));
    let text = unknown.unwrap_err().to_string();
    assert!(text.contains("nothing is called \"host 8\"") && text.contains("`host 7`"), "{text}");
}

#[test]
fn a_run_repeats_exactly() {
    let cluster = Cluster { ranks_per_host: 3, hosts_per_leaf: 2, spines: 3, ..Cluster::default() };
    for collective in Collective::ALL {
        for algorithm in algorithms(&collective) {
            let once = run(collective, algorithm, 23, 1 << 20, &cluster);
            assert_eq!(once, run(collective, algorithm, 23, 1 << 20, &cluster), "{collective} {algorithm}");
        }
    }
}

#[test]
fn every_algorithm_comes_to_its_end_for_every_number_of_ranks() {
    let clusters = [
        round(),
        Cluster { ranks_per_host: 4, hosts_per_leaf: 2, ..round() },
        Cluster { ranks_per_host: 3, placement: Placement::RoundRobin, chunk: 16, window: 1, ..round() },
    ];
    for ranks in 1..=33 {
        for cluster in &clusters {
            for collective in Collective::ALL {
                let roots = if collective.root().is_some() { vec![0, ranks - 1] } else { vec![0] };
                for root in roots {
                    for algorithm in algorithms(&collective) {
                        let mut before = 0;
                        for bytes in [0, 4, 4 * u64::from(ranks), 1000 * u64::from(ranks)] {
                            let outcome = run(collective.with_root(root), algorithm, ranks, bytes, cluster);
                            assert_eq!(outcome.how, How::Simulated);
                            // Chunks that queue in another order may win a little.
                            assert!(
                                outcome.time >= before / 10 * 9,
                                "{collective} {algorithm} {ranks} {bytes}"
                            );
                            assert!(
                                ranks == 1 || outcome.time > 0,
                                "{collective} {algorithm} {ranks} {bytes}"
                            );
                            before = outcome.time;
                        }
                    }
                }
            }
        }
    }
}

/// No link carries more than it can, and no algorithm beats the bandwidth of what a rank has.
#[test]
fn bandwidth_has_its_limits() {
    let cluster = Cluster { ranks_per_host: 1, ..Cluster::default() };
    for collective in Collective::ALL {
        for algorithm in algorithms(&collective) {
            let outcome = run(collective, algorithm, 12, 12 << 20, &cluster);
            assert!(
                outcome.uses.iter().all(|used| used.most <= 1.0 && used.mean <= used.most),
                "{outcome:?}"
            );
            assert!(outcome.bus_bandwidth() < 12.5, "{collective} {algorithm} {}", outcome.bus_bandwidth());
        }
    }
    let ring = run(Collective::AllReduce, Algorithm::Ring, 12, 48 << 20, &cluster);
    assert!(ring.bus_bandwidth() > 4.0, "{}", ring.bus_bandwidth());
}

#[test]
fn oversubscription_slows_what_crosses_it() {
    let time = |oversubscription| {
        let cluster =
            Cluster { hosts_per_leaf: 4, ranks_per_host: 1, spines: 4, oversubscription, ..round() };
        run(Collective::AllToAll, Algorithm::Direct, 16, 16 << 12, &cluster)
    };
    let (flat, thin) = (time(1.0), time(4.0));
    assert!(thin.time > flat.time * 2, "{} and {}", thin.time, flat.time);
    let used = |outcome: &Outcome| outcome.uses.iter().find(|used| used.class == Class::Up).unwrap().most;
    assert!(used(&thin) > 0.5, "{:?}", thin.uses);
}

#[test]
fn an_exchange_needs_messages_that_leave_unasked() {
    let exchange = |bytes| simulate(&call(Collective::AllReduce, Algorithm::Exchange, 5, bytes), &round());
    // Four sends, all of which arrive before the last could leave twice; four receives and reductions of 256 bytes.
    let sends_and_links = 4 * 10_000 + 2_000_000;
    assert!(exchange(256).unwrap().time > sends_and_links + 4 * (20_000 + 64_000));
    assert_eq!(exchange(260).unwrap_err(), Unfit::Granted(Algorithm::Exchange));
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let refused = |cluster: Cluster| {
        simulate(&call(Collective::AllReduce, Algorithm::Ring, 4, 4), &cluster).unwrap_err().to_string()
    };
    assert!(refused(Cluster { rails: 0, ..round() }).contains("rails"));
    assert!(refused(Cluster { chunk: 0, ..round() }).contains("chunk"));
    assert!(refused(Cluster { oversubscription: f64::NAN, ..round() }).contains("NaN"));
    let many = simulate(&call(Collective::AllToAll, Algorithm::Bruck, 70_000, 4), &round());
    assert_eq!(many.unwrap_err(), Unfit::TooManyRanks { most: 65_535 });
    let many = simulate(&call(Collective::AllReduce, Algorithm::Direct, 100_000, 4), &round());
    assert!(matches!(many, Err(Unfit::TooManyMessages(_))), "{many:?}");
}

/// How many times as long as the simulation a formula says.
fn formula_over_simulation(algorithm: Algorithm, ranks: u32, bytes: u64, cluster: &Cluster) -> f64 {
    let call = call(Collective::AllReduce, algorithm, ranks, bytes);
    formula(&call, cluster).unwrap().time as f64 / simulate(&call, cluster).unwrap().time as f64
}

#[test]
fn formulas_say_what_the_simulation_does() {
    let clos = Cluster { oversubscription: 2.0, ..Cluster::default() };
    let by_rail = Cluster { hosts_per_leaf: 4, rail_optimised: true, spines: 4, ..clos.clone() };
    let alone = Cluster { ranks_per_host: 1, ..Cluster::default() };
    // The largest is for release builds.
    let counts = if cfg!(debug_assertions) { vec![4, 16, 100, 256] } else { vec![4, 16, 100, 512] };
    for ranks in counts {
        for cluster in [&clos, &by_rail, &alone, &round()] {
            for bytes in [1 << 10, 1 << 20, 16 << 20] {
                for algorithm in [Algorithm::Ring, Algorithm::Direct] {
                    let ratio = formula_over_simulation(algorithm, ranks, bytes, cluster);
                    assert!((0.7..1.35).contains(&ratio), "{algorithm} {ranks} {bytes} {cluster:?}: {ratio}");
                }
            }
        }
    }
    let other = call(Collective::AllReduce, Algorithm::Tree, 4, 4);
    assert_eq!(formula(&other, &clos), None);
}

/// What the table of 100,000 ranks relies on, at the most ranks of which all messages can be simulated. The direct ones take
/// 6 GB.
#[test]
#[ignore = "takes a quarter of an hour in a release build"]
fn formulas_say_what_the_simulation_does_at_4096_ranks() {
    let clos = Cluster { oversubscription: 2.0, ..Cluster::default() };
    for algorithm in [Algorithm::Ring, Algorithm::Direct] {
        for bytes in [1 << 10, 1 << 20] {
            let ratio = formula_over_simulation(algorithm, 4096, bytes, &clos);
            eprintln!("{algorithm} of {bytes} bytes: {ratio:.3} of the simulation");
            assert!((0.7..1.35).contains(&ratio), "{algorithm} {bytes}: {ratio}");
        }
    }
}

/// Both take less than a minute in a release build, and far less than 24 GiB.
#[test]
#[cfg_attr(debug_assertions, ignore = "a matter of release builds")]
fn a_hundred_thousand_ranks_and_a_long_ring_are_a_matter_of_a_minute() {
    for (algorithm, ranks, bytes) in [(Algorithm::Tree, 100_000, 1 << 20), (Algorithm::Ring, 4096, 1 << 20)] {
        let begin = std::time::Instant::now();
        let outcome = run(Collective::AllReduce, algorithm, ranks, bytes, &Cluster::default());
        eprintln!(
            "{algorithm} {ranks}: {:?}, {} events, {} us",
            begin.elapsed(),
            outcome.events,
            outcome.time / 1_000_000
        );
        assert!(begin.elapsed().as_secs() < 60, "{algorithm}: {:?}", begin.elapsed());
        if let Some(formula) = formula(&outcome.call, &Cluster::default()) {
            let ratio = formula.time as f64 / outcome.time as f64;
            assert!((0.7..1.35).contains(&ratio), "{algorithm} {ranks}: {ratio}");
        }
    }
}
