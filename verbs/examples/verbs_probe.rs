//! Times queue pairs alone: two on one device, connected to each other. What a link over verbs costs beyond this is the
//! link's.
//!
//!     cargo run --release -p rccl-verbs --example verbs_probe -- [device] [largest KiB] [repetitions]
//!
//! * one way: half a round trip between two threads, of writes with immediate that are noticed by their completions;
//! * by memory: the same of plain writes, noticed by their last byte in memory, as perftest's `ib_write_lat` does it;
//! * alone: a plain write from the post until its own completion;
//! * stream: plain writes, 16 under way, each posted by itself and signalled, as perftest's `ib_write_bw` does it;
//! * 1 of 4: the same, chained and posted four at a time, the last of the four signalled.
//!
//! Times are medians. Small messages go inline.

use std::error::Error;
use std::time::{Duration, Instant};

use rccl_verbs::{
    Access, Capacity, Completion, CompletionQueue, Connection, Context, Data, Library, MemoryRegion,
    Operation, Psn, QueuePair, ReceiveBatch, SendBatch, SendRequest,
};

const PATIENCE: Duration = Duration::from_secs(30);
const UNDER_WAY: usize = 16;
const CAPACITY: Capacity =
    Capacity { sends: 64, receives: 64, send_segments: 1, receive_segments: 1, inline_bytes: 256 };

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

struct End {
    pair: QueuePair,
    sends: CompletionQueue,
    receives: CompletionQueue,
    /// What is sent lies in the first half, what arrives in the second.
    memory: MemoryRegion,
}

/// How the receiver of a write notices it.
#[derive(Clone, Copy, PartialEq)]
enum Notice {
    Completion,
    Memory,
}

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let device = arguments.next();
    let largest = arguments.next().map_or(Ok(4096), |text| text.parse::<usize>())? << 10;
    let repetitions = arguments.next().map_or(Ok(200), |text| text.parse::<usize>())?;
    let library = Library::open(None)?;
    let devices = library.devices()?;
    let first = devices.first().ok_or("no RDMA device")?.name().to_owned();
    let context = library.device(device.as_deref().unwrap_or(&first))?.open()?;
    let (one, two) = connected(&context, largest)?;
    println!("{}: {:?}, {:?}", context.name(), context.port(1)?, one.pair.capacity());
    println!(
        "{:>10} {:>12} {:>12} {:>14} {:>14}",
        "bytes", "one way us", "alone us", "stream MB/s", "1 of 4 MB/s"
    );
    let mut bytes = 8;
    while bytes <= largest {
        // As many as move 64 MiB, at the most.
        let count = repetitions.min((64 << 20) / bytes).max(8);
        println!(
            "{bytes:>10} {:>11.2} {:>13.2} {:>11.2} {:>12.1} {:>12.1}",
            one_way(&one, &two, bytes, count, Notice::Completion)?,
            one_way(&one, &two, bytes, count, Notice::Memory)?,
            alone(&one, &two, bytes, count)?,
            stream(&one, &two, bytes, count, 1)?,
            stream(&one, &two, bytes, count, 4)?
        );
        bytes *= 8;
    }
    Ok(())
}

fn connected(context: &Context, largest: usize) -> Outcome<(End, End)> {
    let port = context.port(1)?;
    let gids = context.gids(1)?;
    let gid = gids.iter().find(|entry| !entry.gid.is_link_local()).or(gids.first()).ok_or("no GID")?;
    let domain = context.protection_domain()?;
    let end = || -> Outcome<End> {
        let (sends, receives) = (context.completion_queue(64)?, context.completion_queue(64)?);
        let pair = domain.queue_pair(&sends, &receives, CAPACITY)?;
        pair.initialize(1, 0, Access::REMOTE_WRITE)?;
        Ok(End { pair, sends, receives, memory: domain.allocate(2 * largest, Access::REMOTE_WRITE)? })
    };
    let (one, two) = (end()?, end()?);
    for (own, peer) in [(&one, &two), (&two, &one)] {
        let psn = Psn::new(1);
        let way = Connection::new(gid.index as u8, gid.gid, port.active_mtu, peer.pair.number(), psn, psn);
        own.pair.ready_to_receive(&way)?;
        own.pair.ready_to_send(&way)?;
    }
    Ok((one, two))
}

/// A request to write bytes of one end to the other, the last of them being `mark`.
fn push(
    batch: &mut SendBatch,
    from: &End,
    to: &End,
    bytes: usize,
    mark: u8,
    immediate: bool,
    signalled: bool,
) {
    let place = to.memory.remote(to.memory.length() / 2);
    let operation = match immediate {
        true => Operation::WriteWithImmediate(place, 7),
        false => Operation::Write(place),
    };
    let (segment, mut few) = ([from.memory.segment(0..bytes)], [0; 256]);
    let data = if bytes <= few.len().min(from.pair.capacity().inline_bytes as usize) {
        few[bytes - 1] = mark;
        Data::Inline(&few[..bytes])
    } else {
        // SAFETY: in the first half, which peers do not write to, and which no request still sends from.
        unsafe { from.memory.as_ptr().wrapping_add(bytes - 1).write_volatile(mark) };
        Data::Gather(&segment)
    };
    batch.push(&SendRequest { id: 0, operation, data, signalled, solicited: false });
}

/// Waits for so many completions, all of which must be good.
fn take(queue: &CompletionQueue, mut count: usize) -> Outcome {
    let began = Instant::now();
    let mut room = [Completion::default(); UNDER_WAY];
    while count > 0 {
        let wanted = count.min(UNDER_WAY);
        let found = queue.poll(&mut room[..wanted])?;
        if let Some(failed) = room[..found].iter().find(|completion| !completion.is_success()) {
            return Err(failed.status().to_string().into());
        }
        count -= found;
        if began.elapsed() > PATIENCE {
            return Err("no completion within 30 s".into());
        }
    }
    Ok(())
}

fn one_way(one: &End, two: &End, bytes: usize, count: usize, notice: Notice) -> Outcome<f64> {
    for end in [one, two] {
        // SAFETY: nothing is under way yet.
        unsafe { last_byte(end, bytes).write_volatile(0) };
    }
    let times = std::thread::scope(|scope| {
        let echo =
            scope.spawn(|| ping(two, one, bytes, count, notice, false).map_err(|error| error.to_string()));
        let times = ping(one, two, bytes, count, notice, true);
        echo.join().map_err(|_| "the other thread panicked")??;
        times
    })?;
    Ok(median(times) / 2.0)
}

/// The last byte of a message that has arrived.
fn last_byte(end: &End, bytes: usize) -> *mut u8 {
    end.memory.as_ptr().wrapping_add(end.memory.length() / 2 + bytes - 1)
}

/// Sends and waits in turn, or waits and sends. Round trips.
fn ping(
    own: &End,
    peer: &End,
    bytes: usize,
    count: usize,
    notice: Notice,
    begins: bool,
) -> Outcome<Vec<Duration>> {
    let (mut batch, mut receives) = (SendBatch::with_capacity(1), ReceiveBatch::with_capacity(1));
    let arrived = last_byte(own, bytes);
    let mut times = Vec::with_capacity(count);
    for round in 0..count {
        // One receive ahead of what the peer can send.
        for _ in 0..if round == 0 { 2 } else { 1 } {
            receives.push(0, &[]);
        }
        if notice == Notice::Completion {
            own.pair.post_receives(&mut receives)?;
        }
        receives.clear();
        let mark = (round % 255) as u8 + 1;
        let began = Instant::now();
        if begins {
            push(&mut batch, own, peer, bytes, mark, notice == Notice::Completion, true);
            own.pair.post_sends(&mut batch)?;
        }
        match notice {
            Notice::Completion => take(&own.receives, 1)?,
            Notice::Memory => loop {
                // SAFETY: the peer's device writes there at any time, so each read is a new one.
                if unsafe { arrived.read_volatile() } == mark {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    return Err("nothing in memory within 30 s".into());
                }
            },
        }
        times.push(began.elapsed());
        if !begins {
            push(&mut batch, own, peer, bytes, mark, notice == Notice::Completion, true);
            own.pair.post_sends(&mut batch)?;
        }
        take(&own.sends, 1)?;
    }
    Ok(times)
}

fn alone(one: &End, two: &End, bytes: usize, count: usize) -> Outcome<f64> {
    let mut batch = SendBatch::with_capacity(1);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        push(&mut batch, one, two, bytes, 0, false, true);
        one.pair.post_sends(&mut batch)?;
        take(&one.sends, 1)?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}

/// Megabytes a second, posted `together` at a time, of which the last is signalled.
fn stream(one: &End, two: &End, bytes: usize, count: usize, together: usize) -> Outcome<f64> {
    let mut batch = SendBatch::with_capacity(together);
    let batches = count.div_ceil(together);
    let window = UNDER_WAY / together;
    let began = Instant::now();
    for number in 0..batches {
        if number >= window {
            take(&one.sends, 1)?;
        }
        for last in (0..together).map(|at| at + 1 == together) {
            push(&mut batch, one, two, bytes, 0, false, last);
        }
        one.pair.post_sends(&mut batch)?;
    }
    take(&one.sends, batches.min(window))?;
    Ok((batches * together * bytes) as f64 / 1e6 / began.elapsed().as_secs_f64())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}
