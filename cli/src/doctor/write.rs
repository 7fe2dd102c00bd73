//! One end of a reliable connection that writes once or twice: what proves that a rail works.

use rccl_topology::Advert;
use rccl_verbs::{
    Access, AckTimeout, Capacity, Completion, CompletionQueue, Connection, Context, Data, Gid, MemoryRegion,
    Mtu, Operation, Psn, QpNumber, QueuePair, RemoteKey, RemoteMemory, SendBatch, SendRequest, Status,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, Instant};

/// Bytes that are registered, and of a long write: many packets of the largest size.
pub const MEMORY: usize = 64 << 10;

/// Bytes of a short write: a packet that fits through everything.
pub const SHORT: usize = 64;

/// Longer than a queue pair tries: its device gives up after 8 times [`ACK_TIMEOUT`], some after four times that.
const PATIENCE: Duration = Duration::from_secs(15);

/// 1.07 s: for a peer that has a processor to itself 10 us would do, an emulated one may stand still for a while.
const ACK_TIMEOUT: u8 = 18;

const CAPACITY: Capacity =
    Capacity { sends: 4, receives: 1, send_segments: 1, receive_segments: 1, inline_bytes: 0 };

/// A queue pair with registered memory.
pub struct End {
    pair: QueuePair,
    queue: CompletionQueue,
    memory: MemoryRegion,
    psn: u32,
}

/// What the peer needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    number: u32,
    psn: u32,
    address: u64,
    key: u32,
}

/// What the packets shall look like.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Index in the port's table of partition keys.
    pub partition: u16,
    /// Traffic class.
    pub traffic_class: u8,
    /// Service level.
    pub service_level: u8,
}

/// How a write failed.
pub enum Failure {
    /// The peer did not answer.
    Silence(String),
    /// Anything else.
    Other(String),
}

/// A sentence without its full stop.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Silence(words) | Failure::Other(words)) = self;
        f.write_str(words)
    }
}

impl End {
    /// Registers memory and makes a queue pair on a port.
    pub fn new(context: &Context, port: u8, manner: Manner) -> rccl_verbs::Result<End> {
        let domain = context.protection_domain()?;
        let memory = domain.allocate(MEMORY, Access::REMOTE_WRITE)?;
        let queue = context.completion_queue(8)?;
        let pair = domain.queue_pair(&queue, &queue, CAPACITY)?;
        pair.initialize(port, manner.partition, Access::REMOTE_WRITE)?;
        Ok(End { pair, queue, memory, psn: rand::random::<u32>() & 0xff_ffff })
    }

    /// For the peer.
    pub fn endpoint(&self) -> Endpoint {
        let place = self.memory.remote(0);
        Endpoint { number: self.pair.number().0, psn: self.psn, address: place.address, key: place.key.0 }
    }

    /// Connects it. The kernel may take seconds to find out that nobody has the peer's address.
    pub fn connect(
        &self,
        own: &Advert,
        peer: &Advert,
        other: &Endpoint,
        manner: Manner,
    ) -> rccl_verbs::Result<()> {
        let bytes = own.mtu.unwrap_or(256).min(peer.mtu.unwrap_or(256));
        let mtu = Mtu::from_bytes(bytes).unwrap_or(Mtu::Mtu256);
        let (receive, send) = (Psn::new(other.psn), Psn::new(self.psn));
        let peer_number = QpNumber(other.number);
        let mut way = Connection::new(own.index, Gid(peer.gid.0), mtu, peer_number, receive, send);
        way.destination_lid = peer.lid;
        way.traffic_class = manner.traffic_class;
        way.service_level = manner.service_level;
        way.timeout = AckTimeout::new(ACK_TIMEOUT).unwrap_or(way.timeout);
        self.pair.ready_to_receive(&way)?;
        self.pair.ready_to_send(&way)
    }

    /// Writes so many bytes into the peer's memory, and waits until its device has acknowledged them, for 15 s at the
    /// most. Answers how long that took.
    pub fn write(&self, bytes: usize, to: &Endpoint) -> Result<Duration, Failure> {
        let began = Instant::now();
        let segment = [self.memory.segment(0..bytes)];
        let mut batch = SendBatch::default();
        batch.push(&SendRequest {
            id: 0,
            operation: Operation::Write(RemoteMemory { address: to.address, key: RemoteKey(to.key) }),
            data: Data::Gather(&segment),
            signalled: true,
            solicited: false,
        });
        let other = |error: rccl_verbs::Error| Failure::Other(error.to_string());
        self.pair.post_sends(&mut batch).map_err(other)?;
        let mut completions = [Completion::default()];
        while self.queue.poll(&mut completions).map_err(other)? == 0 {
            if began.elapsed() > PATIENCE {
                return Err(Failure::Silence(format!(
                    "no write was acknowledged within {} s",
                    PATIENCE.as_secs()
                )));
            }
            // Short waits are timed, long ones cost nothing.
            if began.elapsed() > Duration::from_millis(1) {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        match completions[0].status() {
            Status::Success => Ok(began.elapsed()),
            // The report says what that commonly means.
            status @ (Status::RetriesExceeded | Status::ResponseTimeout) => {
                Err(Failure::Silence(format!("no write was acknowledged (status {})", status.number())))
            }
            status => Err(Failure::Other(status.to_string())),
        }
    }
}
