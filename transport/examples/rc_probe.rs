//! Times a link over verbs alone: two processes on one device, which talk to each other through it.
//!
//!     cargo run --release -p rccl-transport --example rc_probe -- DEVICE [GID index] [queue pairs] [largest KiB]
//!
//! * `one way`: half of the median round trip of a message, as perftest's `ib_write_lat` counts;
//! * `registered`: messages of this size, 8 under way, from registered memory to registered memory, as `ib_write_bw` does
//!   it with more of them; `both ways`: the same from each end at once, the bytes of both together, as `ib_write_bw -b`;
//! * `plain`: from plain memory to plain memory, through slots.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rccl_transport::memory::RegionTable;
use rccl_transport::rc::{Hello, Options, Pending, RailChoice, Rails, RcLink};
use rccl_transport::{Link, MessageId, Place, Sink, Source, Tag};
use rccl_verbs::Library;

const SIZES: [usize; 8] = [8, 512, 4 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
const UNDER_WAY: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);
const TAG: Tag = Tag { sequence: 1, call: [2, 3] };

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let device = arguments.first().ok_or("which device?")?.clone();
    let number = |i: usize, otherwise: usize| arguments.get(i).map_or(Ok(otherwise), |text| text.parse());
    let (gid_index, queue_pairs, largest) = (number(1, 1)? as u8, number(2, 1)?, number(3, 4096)? << 10);
    let choice = RailChoice { device, port: 1, gid_index };
    let options = Options { queue_pairs, ..Options::default() };
    if let Some(port) = arguments.get(4) {
        let socket = TcpStream::connect(("127.0.0.1", port.parse::<u16>()?))?;
        return measure(socket, choice, &options, largest, false);
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let mut peer = Command::new(std::env::current_exe()?)
        .args([
            &choice.device,
            &gid_index.to_string(),
            &queue_pairs.to_string(),
            &(largest >> 10).to_string(),
        ])
        .arg(port.to_string())
        .stdin(Stdio::null())
        .spawn()?;
    let measured = measure(listener.accept()?.0, choice, &options, largest, true);
    peer.wait()?;
    measured
}

fn measure(socket: TcpStream, choice: RailChoice, options: &Options, largest: usize, first: bool) -> Outcome {
    let table = RegionTable::new();
    let rails = Rails::open(&Library::open(None)?, &[choice], Arc::clone(&table), false)?;
    let mut link = connect(&rails, socket, options)?;
    if first {
        println!("{}; {} queue pairs", rails.describe()[0], options.queue_pairs);
        println!(
            "{:>10} {:>12} {:>16} {:>15} {:>12}",
            "bytes", "one way us", "registered MB/s", "both ways MB/s", "plain MB/s"
        );
    }
    let region = table.alloc(largest * 2)?;
    let mut plain = vec![1u8; largest];
    let registered =
        |at: usize| Memory { address: region.as_ptr().wrapping_add(at), place: Some(region.place(at)) };
    let own = Memory { address: plain.as_mut_ptr(), place: None };
    // In the other half is what goes the other way.
    let [there, back] = [registered(0), registered(largest)];
    for bytes in SIZES.into_iter().filter(|&bytes| bytes <= largest) {
        let rounds = if bytes <= 8 << 10 { 1000 } else { ((16 << 20) / bytes).clamp(10, 200) };
        let mut times = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            let turns = if first { [true, false] } else { [false, true] };
            for sends in turns {
                run(&mut link, [Stream::new(sends, 1, bytes, there)])?;
            }
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let one_way = times[times.len() / 2].as_secs_f64() * 1e6 / 2.0;
        let count = ((32 << 20) / bytes).clamp(16, 2000);
        let rate = |link: &mut RcLink, streams: &dyn Fn(usize) -> Vec<Stream>| -> Outcome<f64> {
            run(link, streams(UNDER_WAY))?;
            let begun = Instant::now();
            let streams = streams(count);
            let moved = streams.len() * count * bytes;
            run(link, streams)?;
            // An answer, so that the time ends when all is there.
            run(link, [Stream::new(!first, 1, 8, there)])?;
            Ok(moved as f64 / begun.elapsed().as_secs_f64() / 1e6)
        };
        let straight = rate(&mut link, &|count| vec![Stream::new(first, count, bytes, there)])?;
        let both = rate(&mut link, &|count| {
            vec![Stream::new(first, count, bytes, there), Stream::new(!first, count, bytes, back)]
        })?;
        let through_slots = rate(&mut link, &|count| vec![Stream::new(first, count, bytes, own)])?;
        if first {
            println!("{bytes:>10} {one_way:>12.2} {straight:>16.1} {both:>15.1} {through_slots:>12.1}");
        }
    }
    // The last answer must arrive before the link goes.
    run(&mut link, [Stream::new(first, 1, 8, there)])?;
    run(&mut link, [Stream::new(!first, 1, 8, there)])
}

fn connect(rails: &Arc<Rails>, mut socket: TcpStream, options: &Options) -> Outcome<RcLink> {
    let pending = Pending::new(rails, &[0], options)?;
    let hello = pending.hello().to_bytes();
    socket.write_all(&(hello.len() as u32).to_le_bytes())?;
    socket.write_all(&hello)?;
    let mut len = [0; 4];
    socket.read_exact(&mut len)?;
    let mut theirs = vec![0; u32::from_le_bytes(len) as usize];
    socket.read_exact(&mut theirs)?;
    Ok(pending.connect(&Hello::from_bytes(&theirs)?)?.over(socket)?)
}

/// Where messages come from or go to.
#[derive(Clone, Copy)]
struct Memory {
    address: *mut u8,
    place: Option<Place>,
}

/// A message under way.
struct Message {
    m: MessageId,
    moved: usize,
    posted: usize,
}

/// `count` messages of `bytes` bytes in one direction, all from or to the same memory.
struct Stream {
    sends: bool,
    count: usize,
    bytes: usize,
    memory: Memory,
    open: Vec<Message>,
    begun: usize,
    done: usize,
}

impl Stream {
    fn new(sends: bool, count: usize, bytes: usize, memory: Memory) -> Stream {
        Stream { sends, count, bytes, memory, open: Vec::with_capacity(UNDER_WAY), begun: 0, done: 0 }
    }

    fn is_over(&self) -> bool {
        self.done == self.count
    }

    /// Messages begun and done, and bytes on their way.
    fn progress(&self) -> (usize, usize, usize) {
        let bytes = self.open.iter().map(|message| message.moved + message.posted).sum();
        (self.begun, self.done, bytes)
    }

    fn begin(&mut self, link: &mut RcLink) -> Outcome {
        let &mut Stream { sends, bytes, memory: Memory { address, place }, .. } = self;
        while self.begun < self.count && self.open.len() < UNDER_WAY {
            if sends && bytes <= link.limits().eager {
                // SAFETY: the memory has `bytes` bytes.
                if !unsafe { link.send_eager(TAG, address, bytes) }? {
                    break;
                }
                self.done += 1;
            } else {
                let opened = if sends {
                    link.open_send(TAG, bytes as u64, place)?
                } else {
                    link.open_recv(TAG, bytes as u64, false, place)?
                };
                let Some(m) = opened else { break };
                self.open.push(Message { m, moved: 0, posted: 0 });
            }
            self.begun += 1;
        }
        Ok(())
    }

    fn go_on(&mut self, link: &mut RcLink) -> Outcome {
        let &mut Stream { sends, bytes, memory, .. } = self;
        for message in &mut self.open {
            if sends {
                send(link, message, bytes, memory.address)?;
            } else {
                receive(link, message, bytes, memory.address)?;
            }
        }
        let before = self.open.len();
        self.open.retain(|message| message.moved != bytes);
        self.done += before - self.open.len();
        Ok(())
    }
}

/// Until all streams are over and all that was sent has arrived.
fn run(link: &mut RcLink, streams: impl Into<Vec<Stream>>) -> Outcome {
    let mut streams = streams.into();
    let (mut polls, mut since) = (0_u32, Instant::now());
    while !streams.iter().all(Stream::is_over) {
        let before: Vec<_> = streams.iter().map(Stream::progress).collect();
        for stream in &mut streams {
            stream.begin(link)?;
        }
        link.flush()?;
        link.poll()?;
        for stream in &mut streams {
            stream.go_on(link)?;
        }
        if !streams.iter().map(Stream::progress).eq(before) {
            (polls, since) = (0, Instant::now());
            continue;
        }
        polls += 1;
        if polls.is_multiple_of(4096) && since.elapsed() > PATIENCE {
            let done: Vec<_> =
                streams.iter().map(|stream| format!("{} of {}", stream.done, stream.count)).collect();
            return Err(format!("nothing moved for {PATIENCE:?}, {} are done", done.join(" and ")).into());
        }
        std::hint::spin_loop();
    }
    while !link.drained() {
        link.flush()?;
        link.poll()?;
    }
    link.flush()?;
    Ok(())
}

fn send(link: &mut RcLink, message: &mut Message, bytes: usize, memory: *mut u8) -> Outcome {
    let Message { m, moved, posted } = message;
    let m = *m;
    match link.sink(m)? {
        Sink::Posted => {
            // SAFETY: the memory stays as it is until the end.
            *posted +=
                unsafe { link.post(m, *posted as u64, memory.wrapping_add(*posted), bytes - *posted) }?;
            *moved = link.released(m) as usize;
        }
        Sink::Staged => {
            while *moved < bytes {
                let size = link.limits().slot.min(bytes - *moved);
                let Some(slot) = link.reserve(m, size)? else { break };
                // SAFETY: the slot has `size` bytes, and the memory `bytes`.
                unsafe { std::ptr::copy_nonoverlapping(memory.wrapping_add(*moved), slot, size) };
                link.commit(m, size)?;
                *moved += size;
            }
        }
        _ => return Ok(()),
    }
    if *moved == bytes {
        link.close_send(m);
    }
    Ok(())
}

fn receive(link: &mut RcLink, message: &mut Message, bytes: usize, memory: *mut u8) -> Outcome {
    let Message { m, moved, .. } = message;
    let m = *m;
    let Some(head) = link.incoming(m)? else { return Ok(()) };
    match head.source {
        Source::Eager(_) => *moved = bytes,
        Source::Landing => *moved = link.landed(m) as usize,
        _ => {
            while let Some((from, held)) = link.peek(m)? {
                // SAFETY: `held` bytes are readable, and the memory has `bytes` bytes.
                unsafe { std::ptr::copy_nonoverlapping(from, memory.wrapping_add(*moved), held) };
                *moved += held;
                link.release(m, *moved as u64)?;
            }
        }
    }
    if *moved == bytes {
        link.release(m, bytes as u64)?;
        link.close_recv(m);
    }
    Ok(())
}
