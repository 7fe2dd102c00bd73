//! Two-level all_to_all in two steps: all that a rank has for another host goes to its counterpart there, which deals it
//! inside that host.
//!
//! Where the ranks of a host are neighbours, as launchers place them by default, that is one message for each other host
//! instead of one for each rank on it; else one for each run of neighbours. Inside a host blocks go straight.

use super::super::keep_own;
use super::Hosts;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};
use crate::vector::Window;

pub(in super::super) fn all_to_all(hosts: Hosts<'_>, rank: Rank, n: u32) -> Program {
    let here = &hosts.members[hosts.host as usize];
    let block = |from: Rank, to: Rank| Extent::part(from * n + to, n * n);
    // What a rank has for those of a host, in runs of neighbouring blocks, with the ranks that they are for.
    let row = |from: Rank, to: &[Rank]| -> Vec<(Extent, Vec<Rank>)> {
        let runs = to.chunk_by(|a, b| a + 1 == *b);
        let extent =
            |run: &[Rank]| Extent::parts(from * n + run[0], from * n + run[run.len() - 1] + 1, n * n);
        runs.map(|run| (extent(run), run.to_vec())).collect()
    };
    // The ranks of other hosts, and who of this host is their counterpart.
    let elsewhere: Vec<(Rank, Rank)> = hosts
        .others()
        .flat_map(|host| (0..).zip(&hosts.members[host as usize]))
        .map(|(index, &from)| (from, hosts.counterpart(hosts.host, index)))
        .collect();

    let mut program = Program::new(&Collective::AllToAll, rank, n, 1);
    for host in hosts.others() {
        for (extent, _) in row(rank, &hosts.members[host as usize]) {
            let to = hosts.counterpart(host, hosts.index);
            program.push(Op::over(extent).reduce_with(Buffer::INPUT).send(to));
        }
    }
    for peer in hosts.locals() {
        program.push(Op::over(block(rank, peer)).reduce_with(Buffer::INPUT).send(peer));
    }
    program.push(keep_own(block(rank, rank)));

    let passing = elsewhere.iter().filter(|&&(_, entry)| entry == rank);
    let passing = Window::of(passing.flat_map(|&(from, _)| here.iter().map(move |to| from * n + to)));
    let passing = if passing.is_empty() { Buffer::OUTPUT } else { program.scratch(passing) };
    for &(from, _) in elsewhere.iter().filter(|&&(_, entry)| entry == rank) {
        for (extent, ranks) in row(from, here) {
            if let &[to] = &ranks[..] {
                let op = Op::over(extent).recv(from);
                program.push(if to == rank {
                    op.copy_to(Buffer::OUTPUT)
                } else {
                    op.copy_to(passing).send(to)
                });
                continue;
            }
            let all = program.push(Op::over(extent).recv(from).copy_to(passing));
            for to in ranks {
                let op = Op::over(block(from, to)).reduce_with(passing).after_all_of(all);
                program.push(if to == rank { op.copy_to(Buffer::OUTPUT) } else { op.send(to) });
            }
        }
    }
    for peer in hosts.locals() {
        program.push(Op::over(block(peer, rank)).recv(peer).copy_to(Buffer::OUTPUT));
    }
    for (from, entry) in elsewhere.into_iter().filter(|&(_, entry)| entry != rank) {
        program.push(Op::over(block(from, rank)).recv(entry).copy_to(Buffer::OUTPUT));
    }
    program
}
