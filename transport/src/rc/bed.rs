//! Links to test with, on the devices that there are.
//!
//! Where there is none, tests say so and pass; `RCCL_TEST_RDMA=1` makes that a failure, and `RCCL_TEST_RDMA_DEVICE` names
//! the one device to use.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rccl_verbs::{GidEntry, GidType, Library, PortState};

use super::{Options, Pending, RailChoice, Rails, RcLink};
use crate::conformance::DEADLINE;
use crate::link::Link;
use crate::memory::RegionTable;

/// The first port and a usable address of every active device.
///
/// # Errors
/// Why there is none, in words.
pub fn choices() -> Result<Vec<RailChoice>, String> {
    let mut choices = addresses()?;
    choices.dedup_by(|next, first| next.device == first.device);
    Ok(choices)
}

/// All usable addresses of the first port of every active device.
///
/// # Errors
/// Why there is none, in words.
pub fn addresses() -> Result<Vec<RailChoice>, String> {
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
        if port.state == PortState::Active {
            let choice = |gid: &GidEntry| {
                let device = device.name().to_owned();
                RailChoice { device, port: 1, gid_index: gid.index as u8 }
            };
            found.extend(gids.iter().filter(usable).map(choice));
        }
    }
    if found.is_empty() { Err("there is no RDMA device with an active port".into()) } else { Ok(found) }
}

/// Whether there are so many devices; prints why not.
///
/// # Panics
/// If there is none, and `RCCL_TEST_RDMA` is set.
pub fn has(devices: usize) -> bool {
    let why = match choices() {
        Ok(found) if found.len() >= devices => return true,
        Ok(found) => format!("there are {} devices, needed are {devices}", found.len()),
        Err(why) => why,
    };
    assert!(devices > 1 || std::env::var_os("RCCL_TEST_RDMA").is_none(), "RCCL_TEST_RDMA is set, and {why}");
    eprintln!("skipped, needs {devices} RDMA devices (RCCL_TEST_RDMA=1 demands one): {why}");
    false
}

/// So many rails of one end, beginning with device `first`, and its registered memory.
///
/// # Panics
/// If there are not so many, or one cannot be opened.
pub fn rails(first: usize, count: usize) -> (Arc<Rails>, Arc<RegionTable>) {
    let table = RegionTable::new();
    let choices = choices().expect("a device");
    let library = Library::open(None).expect("a library");
    let rails = Rails::open(&library, &choices[first..first + count], Arc::clone(&table), false);
    (rails.expect("rails"), table)
}

/// Both ends of a TCP connection.
///
/// # Panics
/// If the system has none.
pub fn sockets() -> [TcpStream; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    [one, listener.accept().expect("a connection").0]
}

/// Both ends of a link, each over all its rails.
///
/// # Panics
/// If it cannot be made.
pub fn links(ends: [&Arc<Rails>; 2], options: &Options) -> [RcLink; 2] {
    let all: Vec<usize> = (0..ends[0].describe().len()).collect();
    links_over(ends, &all, options)
}

/// Both ends of a link, each over those of its addresses.
///
/// # Panics
/// If it cannot be made.
pub fn links_over(ends: [&Arc<Rails>; 2], addresses: &[usize], options: &Options) -> [RcLink; 2] {
    let [a, b] = ends.map(|rails| Pending::new(rails, addresses, options).expect("queue pairs"));
    let [here, there] = [a.hello(), b.hello()];
    let [one, other] = sockets();
    let [a, b] = [a.connect(&there), b.connect(&here)].map(|connected| connected.expect("a connection"));
    let mut ends = [a.over(one), b.over(other)].map(|link| link.expect("a link"));
    // A caller that flushes and never polls again, as some checks do, would keep what it flushed before the peer was heard.
    let begun = Instant::now();
    while !ends.iter().all(RcLink::is_ready) {
        for end in &mut ends {
            end.poll().expect("a healthy link");
        }
        assert!(begun.elapsed() < DEADLINE, "the ends do not hear each other");
    }
    ends
}

/// Both ends of a link, and what they are made of.
pub struct Ends {
    /// The two ends.
    pub links: [RcLink; 2],
    /// The rails of each.
    pub rails: [Arc<Rails>; 2],
    /// The registered memory of each.
    pub tables: [Arc<RegionTable>; 2],
}

/// Both ends of a link over so many rails. The second end uses other devices than the first where there are enough.
///
/// # Panics
/// If it cannot be made.
pub fn ends(count: usize, options: &Options) -> Ends {
    let first = if choices().expect("a device").len() >= 2 * count { count } else { 0 };
    let [(a, here), (b, there)] = [rails(0, count), rails(first, count)];
    Ends { links: links([&a, &b], options), rails: [a, b], tables: [here, there] }
}
