//! Two-level all_gather in two steps: each rank sends its block to its own host and to its counterpart on each other
//! host, which passes it on inside that host.

use super::super::keep_own;
use super::Hosts;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(in super::super) fn all_gather(hosts: Hosts<'_>, rank: Rank, n: u32) -> Program {
    let block = |rank: Rank| Op::over(Extent::part(rank, n));

    let mut program = Program::new(&Collective::AllGather, rank, n, 1);
    let counterparts = hosts.others().map(|host| hosts.counterpart(host, hosts.index));
    let own = block(rank).reduce_with(Buffer::INPUT);
    program.push(own.send_all(counterparts.chain(hosts.locals())));
    program.push(keep_own(Extent::part(rank, n)));
    for peer in hosts.locals() {
        program.push(block(peer).recv(peer).copy_to(Buffer::OUTPUT));
    }
    for host in hosts.others() {
        for (index, &from) in (0..).zip(&hosts.members[host as usize]) {
            let entry = hosts.counterpart(hosts.host, index);
            let keep = block(from).copy_to(Buffer::OUTPUT);
            program.push(match entry == rank {
                true => keep.recv(from).send_all(hosts.locals()),
                false => keep.recv(entry),
            });
        }
    }
    program
}
