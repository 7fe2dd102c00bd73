//! Two-level all_reduce for many hosts: as direct as it gets inside a host, halving and doubling per slice across hosts.
//!
//! As in [`all_reduce`](super::all_reduce) the first `L` ranks of each host own a slice each, the same on every host, where
//! `L` is the smallest number of ranks on a host. An owner reduces the slice of all ranks of its host; the owners of one
//! slice then go by [`Halving`] from host to host; and each range of the result goes on to the ranks of the host as soon as
//! an owner has it. That is `2⌈log₂ H⌉` steps between `H` hosts instead of the ring's `2(H-1)`, for as many bytes (half as
//! many again where `H` is no power of two); but partners are far from each other, where the ring's are neighbours.

use super::super::doubling::Fold;
use super::super::halving::Halving;
use super::Hosts;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(in super::super) fn all_reduce(hosts: Hosts<'_>, rank: Rank, n: u32) -> Program {
    let Hosts { members, host, index: mine } = hosts;
    let owners = members.iter().map(Vec::len).min().unwrap_or(1) as u32;
    let here = &members[host as usize];
    let other_owners = || (1..owners + 1).map(|i| (mine + i) % owners).filter(|&owner| owner != mine);
    let others: Vec<Rank> = here.iter().copied().filter(|&other| other != rank).collect();

    let counterpart = |host: u32| members[host as usize][mine as usize];
    let halving = |part: u32| Halving {
        fold: Fold::of(members.len() as u32),
        rank: &counterpart,
        part,
        parts: owners,
        others: &others,
    };
    let mut program = Program::new(&Collective::AllReduce, rank, n, halving(0).slices());
    for owner in other_owners() {
        let send = Op::over(Extent::part(owner, owners)).reduce_with(Buffer::INPUT);
        program.push(send.send(here[owner as usize]));
    }
    if mine < owners {
        halving(mine).push(&mut program, host);
    }
    for owner in other_owners() {
        for part in halving(owner).results(host) {
            program.push(Op::over(part).recv(here[owner as usize]).copy_to(Buffer::OUTPUT));
        }
    }
    program
}
