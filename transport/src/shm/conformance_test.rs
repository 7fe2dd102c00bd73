//! The conformance suite on shared memory (with and without copies by address) and on loopback.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::conformance::Pair;
use crate::link::Link;
use crate::loopback;
use crate::memory::{PeerRegions, RegionTable};
use crate::shm::{Doorbell, End, Options, Reach, ShmLink, create_segment};

fn shm(options: Options, copy: bool) -> Pair {
    let segment = create_segment(&options).unwrap();
    let bells = [(); 2].map(|()| Arc::new(Doorbell::new().unwrap()));
    let tables = [(); 2].map(|()| RegionTable::new());
    let peers = [(); 2].map(|()| Arc::new(PeerRegions::new()));
    let reach = Reach { pid: std::process::id() as i32, copy };
    let links = [(End::Creator, 0), (End::Joiner, 1)].map(|(end, own)| -> Box<dyn Link> {
        let (bell, other) = (Arc::clone(&bells[own]), bells[1 - own].share().unwrap());
        let peer = Arc::clone(&peers[own]);
        Box::new(ShmLink::map(segment.as_fd(), end, &options, bell, other, peer, reach).unwrap())
    });
    let owners = tables.clone();
    let service = move || {
        for (own, peer) in peers.iter().enumerate() {
            for number in peer.take_requests() {
                let (descriptor, len) = owners[1 - own].fd(number).expect("a descriptor");
                peer.insert(number, descriptor, len).expect("a mapping");
            }
        }
    };
    Pair { links, regions: tables.map(Some), service: Box::new(service) }
}

fn small() -> Options {
    Options { lines: 64, staging_bytes: 4096, slot: 1024, eager: 256 }
}

mod copied {
    crate::conformance_suite!(|| super::shm(super::Options::default(), true));
}

mod staged {
    crate::conformance_suite!(|| super::shm(super::Options::default(), false));
}

mod tiny {
    crate::conformance_suite!(|| super::shm(super::small(), false));
}

mod inside {
    use super::*;

    fn pair() -> Pair {
        let tables = [(); 2].map(|()| RegionTable::new());
        let bells = [(); 2].map(|()| Arc::new(Doorbell::new().unwrap()));
        let (a, b) = loopback::pair_with(&Options::default(), tables.clone().map(Some), bells).unwrap();
        Pair { links: [Box::new(a), Box::new(b)], regions: tables.map(Some), service: Box::new(|| ()) }
    }

    crate::conformance_suite!(pair);
}
