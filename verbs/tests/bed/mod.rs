//! A device to test with, and two queue pairs on it that talk to each other.
//!
//! Where there is no device the tests print why and pass; `RCCL_TEST_RDMA=1` makes that a failure.
//! `RCCL_TEST_RDMA_DEVICE` names the device; else it is the first whose first port is active and has a usable address.

use std::time::{Duration, Instant};

use rccl_verbs::{
    Access, Capacity, Completion, CompletionQueue, Connection, Context, Gid, GidEntry, GidType, Library,
    MemoryRegion, Mtu, Port, PortState, ProtectionDomain, Psn, QpNumber, QueuePair, ReceiveBatch, Segment,
};

/// Every wait ends by then. Emulated machines are slow.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub const CAPACITY: Capacity =
    Capacity { sends: 64, receives: 64, send_segments: 4, receive_segments: 4, inline_bytes: 256 };

/// A device's first port, and the address to use on it.
pub struct Bed {
    pub context: Context,
    pub domain: ProtectionDomain,
    pub port: Port,
    pub gid: GidEntry,
}

/// The bed, or `None` where there is no device and none is demanded.
pub fn bed() -> Option<Bed> {
    match find() {
        Ok(bed) => Some(bed),
        Err(why) => {
            assert!(std::env::var_os("RCCL_TEST_RDMA").is_none(), "RCCL_TEST_RDMA is set, and {why}");
            eprintln!("skipped, needs an RDMA device (RCCL_TEST_RDMA=1 demands one): {why}");
            None
        }
    }
}

fn find() -> Result<Bed, String> {
    let library = Library::open(None).map_err(|error| error.to_string())?;
    library.prepare_for_fork().map_err(|error| error.to_string())?;
    let wanted = std::env::var("RCCL_TEST_RDMA_DEVICE").ok();
    let mut why = String::from("there is no device");
    for device in library.devices().map_err(|error| error.to_string())? {
        if wanted.as_deref().is_some_and(|wanted| wanted != device.name()) {
            continue;
        }
        let context = device.open().map_err(|error| error.to_string())?;
        let port = context.port(1).map_err(|error| error.to_string())?;
        let gids = context.gids(1).map_err(|error| error.to_string())?;
        let usable = |entry: &&GidEntry| entry.kind != GidType::RoceV1 && !entry.gid.is_link_local();
        match gids.iter().find(usable).or(gids.first()) {
            Some(gid) if port.state == PortState::Active => {
                let domain = context.protection_domain().map_err(|error| error.to_string())?;
                return Ok(Bed { context, domain, port, gid: gid.clone() });
            }
            _ => why = format!("{} has state {:?} and GIDs {gids:?}", device.name(), port.state),
        }
    }
    for device in library.unusable_devices().map_err(|error| error.to_string())? {
        why.push_str(&format!("; {device}"));
    }
    Err(why)
}

impl Bed {
    /// A new queue pair with completion queues of its own.
    pub fn end(&self) -> End {
        let sends = self.context.completion_queue(128).unwrap();
        let receives = self.context.completion_queue(128).unwrap();
        self.end_on(sends, receives)
    }

    pub fn end_on(&self, sends: CompletionQueue, receives: CompletionQueue) -> End {
        let pair = self.domain.queue_pair(&sends, &receives, CAPACITY).unwrap();
        pair.initialize(1, 0, Access::REMOTE_WRITE).unwrap();
        End { pair, sends, receives }
    }

    /// Two that are connected to each other.
    pub fn connected(&self) -> (End, End) {
        let (one, two) = (self.end(), self.end());
        self.connect(&one, &two);
        (one, two)
    }

    pub fn connect(&self, one: &End, two: &End) {
        let first = self.connection(two.pair.number(), 100, 200);
        let second = self.connection(one.pair.number(), 200, 100);
        one.pair.ready_to_receive(&first).unwrap();
        two.pair.ready_to_receive(&second).unwrap();
        one.pair.ready_to_send(&first).unwrap();
        two.pair.ready_to_send(&second).unwrap();
    }

    pub fn connection(&self, peer: QpNumber, receive: u32, send: u32) -> Connection {
        let (gid, mtu): (Gid, Mtu) = (self.gid.gid, self.port.active_mtu);
        Connection::new(self.gid.index as u8, gid, mtu, peer, Psn::new(receive), Psn::new(send))
    }

    /// Memory that peers may write to.
    pub fn memory(&self, length: usize) -> MemoryRegion {
        self.domain.allocate(length, Access::REMOTE_WRITE).unwrap()
    }
}

/// A queue pair and its completion queues.
pub struct End {
    pub pair: QueuePair,
    pub sends: CompletionQueue,
    pub receives: CompletionQueue,
}

impl End {
    pub fn receive(&self, id: u64, segments: &[Segment]) {
        let mut batch = ReceiveBatch::default();
        batch.push(id, segments);
        self.pair.post_receives(&mut batch).unwrap();
    }
}

/// So many completions, before the deadline.
pub fn take(queue: &CompletionQueue, count: usize) -> Vec<Completion> {
    let end = Instant::now() + DEADLINE;
    let mut taken = Vec::new();
    let mut room = [Completion::default(); 16];
    while taken.len() < count {
        let wanted = room.len().min(count - taken.len());
        let found = queue.poll(&mut room[..wanted]).unwrap();
        taken.extend_from_slice(&room[..found]);
        assert!(Instant::now() < end, "{count} completions wanted, {taken:?} came");
        if found == 0 {
            std::thread::yield_now();
        }
    }
    taken
}

/// Copies bytes into registered memory. The caller knows that no transfer touches them now.
pub fn fill(region: &MemoryRegion, offset: usize, bytes: &[u8]) {
    assert!(offset + bytes.len() <= region.length());
    // SAFETY: inside the region, which nothing else uses now.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), region.as_ptr().wrapping_add(offset), bytes.len())
    };
}

/// Copies bytes out of registered memory. The caller knows that no transfer touches them now.
pub fn read(region: &MemoryRegion, offset: usize, length: usize) -> Vec<u8> {
    assert!(offset + length <= region.length());
    let mut bytes = vec![0; length];
    // SAFETY: inside the region, which nothing else writes now.
    unsafe {
        std::ptr::copy_nonoverlapping(region.as_ptr().wrapping_add(offset), bytes.as_mut_ptr(), length)
    };
    bytes
}
