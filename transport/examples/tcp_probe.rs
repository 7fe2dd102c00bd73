//! Times a TCP link alone: two processes exchange messages over loopback, both directions at once, and the first
//! prints the median, and the tenth percentile, which other work on the machine disturbs less. Eager messages below the
//! limit, open/grant/bulk above.
//!
//!     cargo run --release -p rccl-transport --example tcp_probe -- [sockets] [buffer KiB, 0 = automatic] [eager KiB]
//!                                                                  [stripe KiB] [4 or 6] [largest KiB]
//!
//! `twice` in the last columns is two exchanges of half the size, as a ring all_reduce of two ranks does them, with
//! both grants posted first.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rccl_transport::{Link, MessageId, Sink, Source, Tag, TcpLink, TcpOptions};

const SIZES: [usize; 8] = [8, 512, 4 << 10, 32 << 10, 64 << 10, 256 << 10, 2 << 20, 16 << 20];
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, otherwise: usize| arguments.get(i).map_or(otherwise, |a| a.parse().unwrap());
    let sockets = number(0, 2);
    let options = TcpOptions {
        socket_buffer: Some(number(1, 0) << 10).filter(|&bytes| bytes > 0),
        eager: number(2, 32) << 10,
        stripe: number(3, 128) << 10,
        ..TcpOptions::default()
    };
    let host = if number(4, 4) == 6 { "::1" } else { "127.0.0.1" };
    let most = number(5, 16 << 10) << 10;
    match arguments.get(6) {
        Some(port) => {
            let port: u16 = port.parse().unwrap();
            let streams = (0..sockets).map(|_| TcpStream::connect((host, port)).unwrap()).collect();
            measure(streams, &options, most, false);
        }
        None => {
            let listener = TcpListener::bind((host, 0)).unwrap();
            let port = listener.local_addr().unwrap().port().to_string();
            let settings = [
                sockets.to_string(),
                number(1, 0).to_string(),
                number(2, 32).to_string(),
                number(3, 128).to_string(),
                number(4, 4).to_string(),
                (most >> 10).to_string(),
                port,
            ];
            let program = std::env::current_exe().unwrap();
            let mut peer = Command::new(program).args(settings).stdin(Stdio::null()).spawn().unwrap();
            let streams = (0..sockets).map(|_| listener.accept().unwrap().0).collect();
            measure(streams, &options, most, true);
            peer.wait().unwrap();
        }
    }
}

fn measure(streams: Vec<TcpStream>, options: &TcpOptions, most: usize, first: bool) {
    let mut link = TcpLink::new(streams, options).unwrap();
    let (out, mut into) = (vec![1u8; most], vec![0u8; most]);
    if first {
        println!(
            "{:>10} {:>12} {:>10} {:>12} {:>10}",
            "bytes", "exchange us", "p10 us", "twice us", "p10 us"
        );
    }
    for size in SIZES.into_iter().filter(|&size| size <= most) {
        let rounds = if size <= 64 << 10 { 3000 } else { (512 << 20) / size.max(1 << 20) };
        let [mut once, mut twice] = [Vec::new(), Vec::new()];
        for round in 0..rounds + rounds / 10 {
            for (times, parts) in [(&mut once, 1), (&mut twice, 2)] {
                exchange(&mut link, &out[..1], &mut into[..1], 1);
                let start = Instant::now();
                exchange(&mut link, &out[..size], &mut into[..size], parts);
                if round >= rounds / 10 {
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
        let [once, twice] = [once, twice].map(|mut times| {
            times.sort_by(f64::total_cmp);
            (times[times.len() / 2], times[times.len() / 10])
        });
        if first {
            println!("{size:>10} {:>12.2} {:>10.2} {:>12.2} {:>10.2}", once.0, once.1, twice.0, twice.1);
        }
    }
}

/// Sends `out` in `parts` equal messages and receives as many; each begins when the one before is through both ways.
fn exchange(link: &mut TcpLink, out: &[u8], into: &mut [u8], parts: usize) {
    let len = out.len() / parts;
    let tag = Tag { sequence: 1, call: [2, 3] };
    let eager = len <= link.limits().eager;
    let mut sends = [None; 2];
    let mut receives = [0; 2];
    for part in 0..parts {
        if !eager {
            sends[part] = link.open_send(tag, len as u64, None).unwrap();
        }
        receives[part] = link.open_recv(tag, len as u64, false, None).unwrap().unwrap();
    }
    if !eager {
        link.flush().unwrap();
    }
    for part in 0..parts {
        let (out, into) = (&out[part * len..][..len], &mut into[part * len..][..len]);
        both_ways(link, tag, out, into, sends[part], receives[part]);
    }
}

fn both_ways(link: &mut TcpLink, tag: Tag, out: &[u8], into: &mut [u8], s: Option<MessageId>, r: MessageId) {
    let len = out.len();
    let (mut gone, mut got, mut begun) = (0, 0, false);
    let deadline = Instant::now() + PATIENCE;
    let mut turns = 0u32;
    let mut source = None;
    while gone < len || got < len {
        match s {
            None if !begun => {
                // SAFETY: the slice is valid during the call.
                begun = unsafe { link.send_eager(tag, out.as_ptr(), len) }.unwrap();
                gone = if begun { len } else { 0 };
            }
            Some(m) if gone < len && (begun || link.sink(m).unwrap() == Sink::Copy) => {
                begun = true;
                // SAFETY: the slice is valid during the call.
                gone += unsafe { link.write(m, gone as u64, out[gone..].as_ptr(), len - gone) }.unwrap();
            }
            _ => {}
        }
        if source.is_none() || (!begun && s.is_some()) {
            link.poll().unwrap();
            source = link.incoming(r).unwrap().map(|incoming| incoming.source);
        }
        match source {
            Some(Source::Eager(pointer)) if got < len => {
                // SAFETY: an eager message is readable until released; the target is ours.
                unsafe { std::ptr::copy_nonoverlapping(pointer, into.as_mut_ptr(), len) };
                got = len;
            }
            Some(Source::Copy) if got < len => {
                let rest = &mut into[got..];
                // SAFETY: the slice is valid during the call.
                got += unsafe { link.read(r, got as u64, rest.as_mut_ptr(), rest.len()) }.unwrap();
            }
            _ => {}
        }
        turns += 1;
        assert!(
            !turns.is_multiple_of(1024) || Instant::now() < deadline,
            "no progress: {gone} out, {got} in of {len}"
        );
    }
    if let Some(m) = s {
        link.close_send(m);
    }
    link.release(r, len as u64).unwrap();
    link.close_recv(r);
}
