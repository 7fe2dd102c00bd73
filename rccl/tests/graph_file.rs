//! Rings, trees and chains pass the ranks of a host in the order of the graph file that rank 0 names. Ranks are processes.

mod processes;

use processes::{Job, hear, join, say, task};
use rccl::{Call, Collective, Communicator, DataType, ReduceOp};
use std::path::Path;

/// What each rank does; started by the tests below: whom it talks to in rings, and whether results are right.
#[test]
fn rank() {
    if task().is_none() {
        return;
    }
    let world = join();
    say(&format!("world {}", neighbours(&world)));
    check(&world);
    // The ranks of every other number, backwards; they keep the order that they have in the job.
    let rank = world.rank();
    let part = world.split(Some(rank % 2), -(rank as i32)).expect("a split").expect("a part");
    say(&format!("part {}", neighbours(&part)));
    check(&part);
    let copy = world.duplicate().expect("a duplicate");
    assert_eq!(neighbours(&copy), neighbours(&world));
    check(&copy);
    say("right");
    hear();
    [part, copy, world].into_iter().for_each(|comm| comm.finish().expect("leaving"));
}

/// Whom a rank receives from and sends to in a ring: "2 -> 4".
fn neighbours(comm: &Communicator) -> String {
    let (dtype, op) = (DataType::F32, Some(ReduceOp::Sum));
    let call = Call { collective: Collective::AllReduce, dtype, op, root: None, count: 1000 };
    let program = comm.explain(&call);
    let after = |word: &str| {
        let ends = program.lines().filter_map(|line| line.split(word).nth(1));
        let mut ranks: Vec<&str> = ends.filter_map(|end| end.split([' ', ';', ',']).next()).collect();
        ranks.sort_unstable();
        ranks.dedup();
        assert_eq!(ranks.len(), 1, "not a ring: {program}");
        ranks[0].to_owned()
    };
    format!("{} -> {}", after("recv "), after("send "))
}

/// All collectives that go by the order, with every root.
fn check(comm: &Communicator) {
    const EACH: usize = 5000;
    let (rank, size) = (comm.rank() as usize, comm.size() as usize);
    let value = |rank: usize, i: usize| (rank * 1_000_000 + i) as u64;
    let own = |len: usize| (0..len).map(|i| value(rank, i)).collect::<Vec<u64>>();
    let sums = |from: usize, len: usize| {
        (from..from + len).map(|i| (0..size).map(|rank| value(rank, i)).sum()).collect::<Vec<u64>>()
    };
    for len in [1, EACH] {
        let mut x = own(len);
        comm.all_reduce(&mut x, ReduceOp::Sum).expect("all_reduce");
        assert_eq!(x, sums(0, len));
        let mut block = vec![0; len];
        comm.reduce_scatter_into(&own(len * size), &mut block, ReduceOp::Sum).expect("reduce_scatter");
        assert_eq!(block, sums(rank * len, len));
        let mut all = vec![0; len * size];
        comm.all_gather_into(&own(len), &mut all).expect("all_gather");
        let gathered: Vec<u64> = (0..size).flat_map(|rank| (0..len).map(move |i| value(rank, i))).collect();
        assert_eq!(all, gathered);
        for root in 0..size {
            let mut x = own(len);
            comm.broadcast(&mut x, root as u32).expect("broadcast");
            assert_eq!(x, (0..len).map(|i| value(root, i)).collect::<Vec<u64>>());
            let mut x = own(len);
            comm.reduce(&mut x, ReduceOp::Sum, root as u32).expect("reduce");
            assert!(rank != root || x == sums(0, len));
        }
    }
}

/// A file whose ring passes these devices.
fn graph_file(path: &Path, devices: &[u32]) {
    let hops: String = devices.iter().map(|dev| format!("<gpu dev=\"{dev}\"/>\n")).collect();
    let ring =
        format!("<graph id=\"0\" pattern=\"4\" nchannels=\"1\">\n<channel>\n{hops}</channel>\n</graph>");
    std::fs::write(path, format!("<graphs version=\"1\">\n{ring}\n</graphs>\n")).expect("a graph file");
}

/// What all ranks said of their neighbours in the world and in their part, and what rank 0 warned of.
struct Said {
    world: Vec<String>,
    parts: Vec<String>,
    warnings: String,
}

/// So many ranks on so many hosts, dealt to them in turn; rank 0 alone knows the graph file of these devices.
fn run(ranks: u32, hosts: u32, devices: &[u32], algorithms: &str) -> Said {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, log) = (folder.path().join("graph.xml"), folder.path().join("log"));
    graph_file(&file, devices);
    std::fs::write(&log, "").expect("a log");
    let mut job = Job::start(ranks, "neighbours", &[("RCCL_ALGO", algorithms)], |rank, command| {
        command.env("RCCL_HOSTID", format!("host {}", rank % hosts));
        if rank == 0 {
            command.env("RCCL_GRAPH_FILE", &file).env("RCCL_DEBUG", "WARN").env("RCCL_DEBUG_FILE", &log);
        }
    });
    let said = |word: &str| -> Vec<String> {
        let lines = job.ranks.iter().map(|rank| rank.says(word).1);
        lines.map(|line| line[word.len()..].trim().to_owned()).collect()
    };
    let (world, parts) = (said("world"), said("part"));
    job.ranks.iter().for_each(|rank| drop(rank.says("right")));
    assert!(job.end().iter().all(|status| status.success()));
    Said { world, parts, warnings: std::fs::read_to_string(&log).expect("a log") }
}

#[test]
fn rings_go_in_the_order_of_the_file() {
    let said = run(4, 1, &[6, 2, 7, 4], "ring;broadcast:chain;reduce:chain");
    // 2 0 3 1
    assert_eq!(said.world, ["2 -> 3", "3 -> 2", "1 -> 0", "0 -> 1"]);
    assert_eq!(said.warnings, "");
    // Parts of two have one ring.
    assert_eq!(said.parts, ["0 -> 0", "0 -> 0", "1 -> 1", "1 -> 1"]);
}

#[test]
fn each_host_with_as_many_ranks_as_devices_has_their_order() {
    // Ranks 0 2 4 and 1 3 5, in both the second, the third, the first: 2 4 0 | 3 5 1.
    let said = run(6, 2, &[1, 2, 0], "ring;broadcast:pipelined_tree;reduce:pipelined_tree");
    assert_eq!(said.world, ["4 -> 3", "5 -> 2", "1 -> 4", "0 -> 5", "2 -> 0", "3 -> 1"]);
    assert_eq!(said.warnings, "");
    // Of the part of 4 2 0, which it calls 0 1 2: 1 0 2; the same on the other host.
    assert_eq!(said.parts, ["0 -> 1", "0 -> 1", "2 -> 0", "2 -> 0", "1 -> 2", "1 -> 2"]);
}

#[test]
fn a_ring_that_fits_no_host_is_told_once() {
    let said = run(5, 2, &[3, 2, 1, 0], "ring;broadcast:binomial;reduce:binomial");
    // 0 2 4 | 1 3
    assert_eq!(said.world, ["3 -> 2", "4 -> 3", "0 -> 4", "1 -> 0", "2 -> 1"]);
    assert_eq!(said.warnings.lines().count(), 1, "{}", said.warnings);
    assert!(
        said.warnings.contains("its ring passes 4 devices, and hosts have 2 to 3 ranks"),
        "{}",
        said.warnings
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("graph.xml");
    for (content, place) in [
        (
            "<graphs version=\"1\">\n  <graph pattern=\"4\">\n    <channel>\n  </graph>\n</graphs>\n",
            ":3:5: <channel> is never closed",
        ),
        ("<graphs>\n  <graph pattern=\"4\"><channel><gpu dev=\"x\"/></channel></graph></graphs>", ":2:"),
        (
            "<graphs><graph pattern=\"4\"><channel><gpu dev=\"1\"/><gpu dev=\"1\"/></channel></graph></graphs>",
            ": the first channel of its ring passes gpu 1 twice",
        ),
    ] {
        std::fs::write(&file, content).expect("a graph file");
        let job = Job::start(1, "neighbours", &[], |_, command| {
            command.env("RCCL_GRAPH_FILE", &file);
        });
        let said = job.ranks[0].says_any(&["not joined", "joined"]);
        let path = file.display();
        let words =
            format!("not joined: RCCL-1002 RCCL_GRAPH_FILE={path}: expected a graph file: {path}{place}");
        assert!(said.starts_with(&words), "{said}");
    }
}
