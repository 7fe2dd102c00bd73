//! Two-level all_reduce: as direct as it gets inside a host, a ring per slice across hosts.
//!
//! With `H` hosts of at least `L` ranks, the first `L` ranks of each host own a slice each, the same on every host, and
//! the owners of one slice form a ring from host to host, in which the slice is cut into `H` sub-slices as in the ring
//! algorithm. An owner does the in-host reduction and the ring's hop in **one** operation: it reduces the sub-slice of
//! all ranks of its host and what came from the host before it in one pass, and sends it on. So nothing needs scratch,
//! only one rank per host and slice talks to another host, and between hosts each slice moves as little as it can,
//! with all owners' links busy at once. A completed sub-slice goes to the next host and to the ranks of this host in
//! one operation too.
//!
//! A ring and not doubling, because what this algorithm is chosen for is bandwidth between hosts; with two hosts the
//! two are the same. Hosts with different numbers of ranks: `L` is the smallest, so that every slice has an owner on
//! each host; the further ranks only contribute and receive. `L = 1` leaves one leader a host. Which ranks are on a
//! host does not matter, so round-robin placement is fine.

use super::Hosts;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(in super::super) fn all_reduce(hosts: Hosts<'_>, rank: Rank, n: u32) -> Program {
    let Hosts { members, host, index: mine } = hosts;
    let hosts = members.len() as u32;
    let owners = members.iter().map(Vec::len).min().unwrap_or(1) as u32;
    let here = &members[host as usize];

    let sub_slice = |owner: u32, i: u32| Op::over(Extent::part(owner * hosts + i, owners * hosts));
    // What the owners of this host reduce in step 0, 1, …, hosts-1, and complete or get in steps hosts-1, …, 2·hosts-2.
    let reduced_in = |step: u32| (host + 2 * hosts - 1 - step) % hosts;
    let other_owners = || (1..owners + 1).map(|i| (mine + i) % owners).filter(|&owner| owner != mine);

    let mut program = Program::new(&Collective::AllReduce, rank, n, owners * hosts);
    for step in 0..hosts {
        for owner in other_owners() {
            let send = sub_slice(owner, reduced_in(step)).reduce_with(Buffer::INPUT);
            program.push(send.send(here[owner as usize]));
        }
    }
    if mine < owners {
        let ring = |host: u32| members[(host % hosts) as usize][mine as usize];
        let (next, previous) = (ring(host + 1), ring(host + hosts - 1));
        let locals = || here.iter().copied().filter(|&r| r != rank);
        for step in 0..2 * hosts - 1 {
            let (first, last) = (step == 0, step == 2 * hosts - 2);
            let reduces = step < hosts;
            let complete = step >= hosts - 1;

            let mut from: Vec<Rank> = if reduces { locals().collect() } else { Vec::new() };
            from.extend((!first).then_some(previous));
            from.sort_unstable();
            let mut to: Vec<Rank> = (!last).then_some(next).into_iter().collect();
            to.extend(locals().filter(|_| complete));

            let mut op = sub_slice(mine, reduced_in(step)).recv_all(from).send_all(to);
            op.reduce_with = reduces.then_some(Buffer::INPUT);
            // Partial sums are kept for the reason that the ring gives.
            op.copy_to = (!op.recv.is_empty()).then_some(Buffer::OUTPUT);
            op.finish = step == hosts - 1;
            program.push(op);
        }
    }
    for step in hosts - 1..2 * hosts - 1 {
        for owner in other_owners() {
            let get = sub_slice(owner, reduced_in(step)).recv(here[owner as usize]);
            program.push(get.copy_to(Buffer::OUTPUT));
        }
    }
    program
}
