//! Which links are made, and what they say of themselves.

use super::*;

/// Collects the links of each rank to all others.
pub(super) fn linked(ranks: &[Control]) -> Vec<Vec<Made>> {
    let all: Vec<u32> = (0..ranks.len() as u32).collect();
    for rank in ranks {
        let peers: Vec<u32> = all.iter().copied().filter(|&peer| peer != rank.me().rank).collect();
        rank.request_links(&peers);
        rank.request_links(&peers);
    }
    let mut made: Vec<Vec<Made>> = ranks.iter().map(|_| Vec::new()).collect();
    let began = Instant::now();
    while made.iter().any(|made| made.len() + 1 < ranks.len()) {
        assert!(began.elapsed() < Duration::from_secs(20), "links are missing");
        for (rank, made) in ranks.iter().zip(&mut made) {
            made.extend(rank.take_links());
            assert!(!rank.failed(), "{}", rank.failure().unwrap());
        }
        thread::sleep(Duration::from_millis(1));
    }
    made
}

#[test]
fn neighbours_are_linked_through_shared_memory() {
    let ranks = job(4);
    for made in linked(&ranks).iter().flatten() {
        assert_eq!(made.kind, Kind::Shm);
        assert!(made.reason.starts_with("same host: shared memory"), "{}", made.reason);
    }
    assert!(ranks[0].0.shared.station.peer(3).is_some());
}

#[test]
fn other_hosts_are_linked_by_tcp() {
    let ranks = job_with(3, |rank| {
        let mut options = options();
        options.listening.host_id = Some(format!("host {}", rank / 2));
        options
    });
    for (rank, made) in linked(&ranks).iter().enumerate() {
        for made in made {
            let (kind, reason) = if rank / 2 == made.peer as usize / 2 {
                (Kind::Shm, "same host: shared memory")
            } else {
                (Kind::Tcp, "different hosts: TCP")
            };
            assert_eq!(made.kind, kind);
            assert!(made.reason.starts_with(reason), "{}", made.reason);
        }
    }
}

#[test]
fn ipv6_alone_suffices() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let mut config = Config::default();
    config.set("RCCL_SOCKET_FAMILY", "AF_INET6").unwrap();
    config.set("RCCL_TRANSPORT", "tcp").unwrap();
    let ranks = job_with(2, |_| JoinOptions::new(&config, RegionTable::new()));
    assert!(ranks[0].0.shared.station.details.addresses.iter().all(std::net::IpAddr::is_ipv6));
    linked(&ranks);
}

#[test]
fn without_shared_memory_neighbours_use_tcp() {
    let ranks = job_with(3, |_| {
        let mut config = config();
        config.set("RCCL_SHM_DISABLE", "1").unwrap();
        JoinOptions::new(&config, RegionTable::new())
    });
    for made in linked(&ranks).iter().flatten() {
        assert_eq!((made.kind, made.reason.as_str()), (Kind::Tcp, "RCCL_SHM_DISABLE is set: TCP"));
    }
}

#[test]
fn a_path_that_does_not_open_falls_back_to_tcp_and_says_why() {
    let ranks = job(2);
    // As in a container that does not see the other's files.
    std::fs::remove_file(ranks[1].0.shared.station.details.path.as_ref().unwrap()).unwrap();
    for made in linked(&ranks).iter().flatten() {
        assert_eq!(made.kind, Kind::Tcp);
        assert!(made.reason.contains("does not open") && made.reason.ends_with("TCP"), "{}", made.reason);
    }
}

#[test]
fn registered_memory_of_a_peer_is_mapped_on_demand() {
    use rccl_transport::memory::Resolved;
    let tables = [RegionTable::new(), RegionTable::new()];
    let ranks = job_with(2, |rank| JoinOptions { regions: tables[rank as usize].clone(), ..options() });
    let _links = linked(&ranks);
    let region = tables[1].alloc(4096).unwrap();
    let regions = ranks[0].0.shared.station.regions_of(1);
    assert_eq!(regions.resolve(region.number()), Resolved::Pending);
    until(Duration::from_secs(5), || {
        ranks[0].fetch_regions();
        matches!(regions.resolve(region.number()), Resolved::Ready { len, .. } if len >= 4096)
    });
    assert_eq!(regions.resolve(999), Resolved::Pending);
    ranks[0].fetch_regions();
    until(Duration::from_secs(5), || matches!(regions.resolve(999), Resolved::Failed(_)));
}

#[test]
fn paths_are_removed() {
    let ranks = job(2);
    let paths: Vec<_> =
        ranks.iter().map(|rank| rank.0.shared.station.details.path.clone().unwrap()).collect();
    assert!(paths.iter().all(|path| std::fs::exists(path).unwrap()));
    drop(ranks);
    assert!(!paths.iter().any(|path| std::fs::exists(path).unwrap()));
}
