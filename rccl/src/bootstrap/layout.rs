//! Which rank is on which host, in a form whose size does not grow with the ranks.

use rccl_schedule::Layout;
use serde::{Deserialize, Serialize};

/// `count` consecutive ranks: on one host (`step` 0), or each on the next host (`step` 1, ranks dealt out in turn).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    host: u32,
    step: u8,
    count: u32,
}

/// Codes `hosts` (host index of each rank) as runs.
pub(crate) fn runs(hosts: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &host in hosts {
        if let Some(run) = runs.last_mut() {
            if run.count == 1 && (host == run.host || host == run.host + 1) {
                run.step = (host - run.host) as u8;
                run.count = 2;
                continue;
            }
            if run.count > 1 && host == run.host + run.count * u32::from(run.step) {
                run.count += 1;
                continue;
            }
        }
        runs.push(Run { host, step: 0, count: 1 });
    }
    runs
}

/// The host index of each of `size` ranks, or `None` when the runs do not describe `size` ranks.
pub(crate) fn hosts(runs: &[Run], size: u32) -> Option<Vec<u32>> {
    let total: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
    if total != u64::from(size) {
        return None;
    }
    let mut hosts = Vec::with_capacity(size as usize);
    for run in runs {
        for i in 0..run.count {
            hosts.push(run.host.checked_add(i.checked_mul(u32::from(run.step))?)?);
        }
    }
    Some(hosts)
}

/// Hosts of as many ranks as `ring` is long have them in its order: first the one with index `ring[0]` among them. Others,
/// and all if it is empty, go by rank.
pub(crate) fn in_order(hosts: Vec<u32>, ring: &[u32]) -> Layout {
    let layout = Layout::of_hosts(hosts);
    if ring.is_empty() {
        return layout;
    }
    let mut members = vec![Vec::new(); layout.hosts() as usize];
    for (rank, &host) in layout.host.iter().enumerate() {
        members[host as usize].push(rank);
    }
    let mut places = vec![0; layout.host.len()];
    for members in members.iter().filter(|members| members.len() == ring.len()) {
        for (place, &index) in (0..).zip(ring) {
            if let Some(&rank) = members.get(index as usize) {
                places[rank] = place;
            }
        }
    }
    layout.in_order(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_survive_coding() {
        let blocks: Vec<u32> = (0..64).map(|rank| rank / 8).collect();
        let dealt: Vec<u32> = (0..64).map(|rank| rank % 8).collect();
        for layout in [blocks, dealt, vec![0], vec![0, 1, 1, 0, 2, 3, 3], vec![0, 1, 0, 1, 2]] {
            let coded = runs(&layout);
            assert_eq!(hosts(&coded, layout.len() as u32).as_deref(), Some(&layout[..]));
            assert_eq!(hosts(&coded, layout.len() as u32 + 1), None);
        }
        assert_eq!(runs(&vec![0; 4096]).len(), 1);
        assert_eq!(runs(&(0..64).map(|rank| rank / 8).collect::<Vec<_>>()).len(), 8);
    }
    #[test]
    fn a_ring_orders_hosts_of_its_length() {
        let hosts = vec![0, 0, 1, 0, 1, 2, 2, 2];
        assert_eq!(in_order(hosts.clone(), &[]), Layout::of_hosts(hosts.clone()));
        assert_eq!(in_order(hosts.clone(), &[2, 0, 1]).host_by_host(), [3, 0, 1, 2, 4, 7, 5, 6]);
        assert_eq!(in_order(hosts.clone(), &[1, 0]).host_by_host(), [0, 1, 3, 4, 2, 5, 6, 7]);
        // Whatever somebody sends.
        assert_eq!(in_order(hosts, &[9, 1, 1]).host_by_host(), [0, 3, 1, 2, 4, 5, 7, 6]);
    }
}
