//! Two-level reduce_scatter in two steps, an all_gather run backwards: for each rank of another host, its counterpart on
//! this host reduces what the ranks here have for it in one pass, and sends it the sum; the rank reduces these sums and
//! what its own host has for it in one pass too.

use super::Hosts;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};
use crate::vector::Window;

pub(in super::super) fn reduce_scatter(hosts: Hosts<'_>, rank: Rank, n: u32) -> Program {
    let block = |rank: Rank| Op::over(Extent::part(rank, n)).reduce_with(Buffer::INPUT);
    let ascending = |mut ranks: Vec<Rank>| {
        ranks.sort_unstable();
        ranks
    };
    // The ranks of other hosts, and who of this host is their counterpart.
    let elsewhere: Vec<(Rank, Rank)> = hosts
        .others()
        .flat_map(|host| (0..).zip(&hosts.members[host as usize]))
        .map(|(index, &to)| (to, hosts.counterpart(hosts.host, index)))
        .collect();
    let locals = ascending(hosts.locals().collect());

    let mut program = Program::new(&Collective::ReduceScatter, rank, n, 1);
    // Sums are kept for the reason that the ring gives: hosts would wait for one another to take what they send.
    let mine = elsewhere.iter().filter(|(_, exit)| *exit == rank && !locals.is_empty()).map(|&(to, _)| to);
    let mine = Window::of(mine);
    let sums = if mine.is_empty() { Buffer::OUTPUT } else { program.scratch(mine) };
    for (to, exit) in elsewhere {
        program.push(match exit == rank {
            true if locals.is_empty() => block(to).send(to),
            true => block(to).recv_all(locals.iter().copied()).copy_to(sums).send(to),
            false => block(to).send(exit),
        });
    }
    for peer in hosts.locals() {
        program.push(block(peer).send(peer));
    }
    let counterparts = hosts.others().map(|host| hosts.counterpart(host, hosts.index));
    let from = ascending(counterparts.chain(hosts.locals()).collect());
    program.push(block(rank).recv_all(from).copy_to(Buffer::OUTPUT).finish());
    program
}
