//! The conformance suite, on the devices that there are. Where there is none the tests say so and pass;
//! `RCCL_TEST_RDMA=1` makes that a failure, and `RCCL_TEST_RDMA_DEVICE` names the device.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rccl_verbs::{GidEntry, GidType, Library, PortState};

use super::{Options, Pending, RailChoice, Rails, RcLink};
use crate::conformance::Pair;
use crate::link::Link;
use crate::memory::RegionTable;

/// The first port and a usable address of every active device.
pub(super) fn choices() -> Result<Vec<RailChoice>, String> {
    let library = Library::open(None).map_err(|error| error.to_string())?;
    library.prepare_for_fork().map_err(|error| error.to_string())?;
    let wanted = std::env::var("RCCL_TEST_RDMA_DEVICE").ok();
    let mut found = Vec::new();
    for device in library.devices().map_err(|error| error.to_string())? {
        if wanted.as_deref().is_some_and(|wanted| wanted != device.name()) {
            continue;
        }
        let context = device.open().map_err(|error| error.to_string())?;
        let port = context.port(1).map_err(|error| error.to_string())?;
        let gids = context.gids(1).map_err(|error| error.to_string())?;
        let usable = |entry: &&GidEntry| entry.kind != GidType::RoceV1 && !entry.gid.is_link_local();
        if let Some(gid) = gids.iter().find(usable).filter(|_| port.state == PortState::Active) {
            let device = device.name().to_owned();
            found.push(RailChoice { device, port: 1, gid_index: gid.index as u8 });
        }
    }
    if found.is_empty() { Err("there is no RDMA device with an active port".into()) } else { Ok(found) }
}

/// Whether there are so many devices; prints why not.
pub(super) fn has(rails: usize) -> bool {
    let why = match choices() {
        Ok(found) if found.len() >= rails => return true,
        Ok(found) => format!("there are {} devices, needed are {rails}", found.len()),
        Err(why) => why,
    };
    assert!(rails > 1 || std::env::var_os("RCCL_TEST_RDMA").is_none(), "RCCL_TEST_RDMA is set, and {why}");
    eprintln!("skipped, needs RDMA devices (RCCL_TEST_RDMA=1 demands one): {why}");
    false
}

/// Both ends of a TCP connection.
pub(super) fn sockets() -> [TcpStream; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    [one, listener.accept().unwrap().0]
}

/// Both ends of a link over so many rails, and what they are made of. With two rails or more each end has its own.
pub(super) struct Ends {
    pub(super) links: [RcLink; 2],
    pub(super) rails: [Arc<Rails>; 2],
    pub(super) tables: [Arc<RegionTable>; 2],
}

pub(super) fn ends(rails: usize, options: &Options) -> Ends {
    let library = Library::open(None).unwrap();
    let choices = choices().unwrap();
    let tables = [(); 2].map(|()| RegionTable::new());
    let chosen = [0, 1].map(|end| {
        // The second end uses other devices where there are enough.
        let from = if choices.len() >= 2 * rails { end * rails } else { 0 };
        &choices[from..from + rails]
    });
    let rails =
        [0, 1].map(|end| Rails::open(&library, chosen[end], Arc::clone(&tables[end]), false).unwrap());
    let places: Vec<usize> = (0..chosen[0].len()).collect();
    let [a, b] = rails.each_ref().map(|rails| Pending::new(rails, &places, options).unwrap());
    let [here, there] = [a.hello(), b.hello()];
    let [one, other] = sockets();
    let links = [a.connect(&there, one).unwrap(), b.connect(&here, other).unwrap()];
    Ends { links, rails, tables }
}

fn pair(rails: usize, options: &Options) -> Pair {
    let Ends { links: [a, b], tables, .. } = ends(rails, options);
    let links: [Box<dyn Link>; 2] = [Box::new(a), Box::new(b)];
    Pair { links, regions: tables.map(Some), service: Box::new(|| ()) }
}

mod one {
    crate::conformance_suite!(|| super::pair(1, &super::Options::default()), if super::has(1));
}

/// Little room, so that all of it is used up again and again.
mod tiny {
    fn options() -> super::Options {
        super::Options { eager: 100, slots: 2, slot: 700, piece: 4096, ..super::Options::default() }
    }
    crate::conformance_suite!(|| super::pair(1, &options()), if super::has(1));
}
