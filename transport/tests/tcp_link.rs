//! A TCP link between two threads or two processes: short and long messages, odd socket counts and buffers, and peers
//! that go away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rccl_transport::{
    Incoming, Link, LinkError, MessageId, Result, Sink, Source, Tag, TcpLink, TcpOptions, WINDOW,
};

const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(20);

fn sockets(host: IpAddr, count: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (0..count).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).unzip()
}

fn links(host: IpAddr, count: usize, options: TcpOptions) -> (TcpLink, TcpLink) {
    let (a, b) = sockets(host, count);
    (TcpLink::new(a, &options).unwrap(), TcpLink::new(b, &options).unwrap())
}

fn tag(sequence: u32) -> Tag {
    Tag { sequence, call: [u64::from(sequence) << 32, !0] }
}

/// Polls until `ready` answers; panics after [`PATIENCE`].
fn wait<T>(link: &mut TcpLink, what: &str, mut ready: impl FnMut(&mut TcpLink) -> Result<Option<T>>) -> T {
    try_wait(link, what, &mut ready).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn try_wait<T>(
    link: &mut TcpLink,
    what: &str,
    mut ready: impl FnMut(&mut TcpLink) -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready(link)? {
            return Ok(found);
        }
        assert!(Instant::now() < deadline, "{what}: nothing for {PATIENCE:?}");
        link.flush()?;
        link.poll()?;
        thread::yield_now();
    }
}

fn send_eager(link: &mut TcpLink, sequence: u32, bytes: &[u8]) {
    wait(link, "sending", |link| {
        // SAFETY: the slice is valid during the call.
        let sent = unsafe { link.send_eager(tag(sequence), bytes.as_ptr(), bytes.len()) }?;
        Ok(sent.then_some(()))
    });
}

fn open_recv(link: &mut TcpLink, sequence: u32, len: usize) -> MessageId {
    wait(link, "opening", |link| link.open_recv(tag(sequence), len as u64, false, None))
}

fn head(link: &mut TcpLink, m: MessageId) -> Incoming {
    wait(link, "waiting for the head", |link| link.incoming(m))
}

fn eager_bytes(incoming: Incoming) -> Vec<u8> {
    let Source::Eager(pointer) = incoming.source else { panic!("{incoming:?} is not eager") };
    // SAFETY: an eager message is readable over its whole length until released.
    unsafe { std::slice::from_raw_parts(pointer, incoming.len.unwrap() as usize) }.to_vec()
}

fn finish(link: &mut TcpLink, m: MessageId, len: usize) {
    link.release(m, len as u64).unwrap();
    link.close_recv(m);
}

fn receive(link: &mut TcpLink, sequence: u32, len: usize) -> Vec<u8> {
    let m = open_recv(link, sequence, len);
    let incoming = head(link, m);
    assert_eq!((incoming.tag, incoming.len), (tag(sequence), Some(len as u64)));
    let bytes = if incoming.source == Source::Copy {
        let mut bytes = vec![0; len];
        let mut got = 0;
        while got < len {
            let rest = &mut bytes[got..];
            got += wait(link, "reading", |link| {
                // SAFETY: the slice is valid during the call.
                let n = unsafe { link.read(m, got as u64, rest.as_mut_ptr(), rest.len()) }?;
                Ok((n > 0).then_some(n))
            });
        }
        bytes
    } else {
        eager_bytes(incoming)
    };
    finish(link, m, len);
    bytes
}

fn send(link: &mut TcpLink, sequence: u32, bytes: &[u8]) {
    if bytes.len() <= link.limits().eager {
        return send_eager(link, sequence, bytes);
    }
    let m = wait(link, "opening", |link| link.open_send(tag(sequence), bytes.len() as u64, None));
    let sink =
        wait(link, "waiting for the grant", |link| Ok(Some(link.sink(m)?).filter(|s| *s != Sink::Waiting)));
    assert_eq!(sink, Sink::Copy);
    let mut gone = 0;
    while gone < bytes.len() {
        let rest = &bytes[gone..];
        gone += wait(link, "writing", |link| {
            // SAFETY: the slice is valid during the call.
            let n = unsafe { link.write(m, gone as u64, rest.as_ptr(), rest.len()) }?;
            Ok((n > 0).then_some(n))
        });
    }
    link.close_send(m);
}

/// Message lengths and contents that both ends know.
fn script(count: usize, eager: usize, most: usize) -> Vec<Vec<u8>> {
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let edges = [0, 1, 8, eager, eager + 1, most];
    (0..count)
        .map(|i| {
            let long = if rng.random_bool(0.6) { eager } else { most };
            let len = edges.get(i).copied().unwrap_or_else(|| rng.random_range(0..=long));
            let start: u8 = rng.random();
            (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(start)).collect()
        })
        .collect()
}

fn one_way(host: IpAddr, count: usize, options: TcpOptions, messages: usize, most: usize) {
    let (mut a, mut b) = links(host, count, options);
    let received = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&received);
    let sender = thread::spawn(move || {
        for (i, bytes) in script(messages, options.eager, most).iter().enumerate() {
            send(&mut a, i as u32, bytes);
        }
        // The rest of an eager message that a full socket did not take leaves when the link is polled.
        wait(&mut a, "the receiver to have it all", |_| Ok(seen.load(Ordering::Acquire).then_some(())));
    });
    for (i, bytes) in script(messages, options.eager, most).iter().enumerate() {
        assert!(receive(&mut b, i as u32, bytes.len()) == *bytes, "message {i} of {} bytes", bytes.len());
    }
    received.store(true, Ordering::Release);
    sender.join().unwrap();
    let end = try_wait(&mut b, "the end", |_| Ok(None::<()>));
    assert!(matches!(end, Err(LinkError::Closed { .. } | LinkError::Io { .. })), "{end:?}");
}

#[test]
fn messages_arrive_over_both_families_and_any_number_of_sockets() {
    for host in [LOCAL4, LOCAL6] {
        for count in [2, 3, 5] {
            one_way(host, count, TcpOptions { stripe: 10_000, ..TcpOptions::default() }, 60, 300_000);
        }
    }
}

#[test]
fn small_socket_buffers_force_partial_transfers() {
    let options =
        TcpOptions { socket_buffer: Some(4096), stripe: 777, eager: 20_000, ..TcpOptions::default() };
    for count in [2, 4] {
        one_way(LOCAL4, count, options, 8, 30_000);
    }
}

/// Both ends send and receive 40 long messages at the same time, every step polled, nobody ever waits for one
/// direction alone.
#[test]
fn both_directions_at_once() {
    let options = TcpOptions { socket_buffer: Some(16_384), ..TcpOptions::default() };
    let (a, b) = links(LOCAL4, 3, options);
    let ends = [(a, 10u8), (b, 20u8)].map(|(mut link, mark)| {
        thread::spawn(move || {
            let len = 200_000;
            let out = vec![mark; len];
            for round in 0..40 {
                let mut into = vec![0u8; len];
                let s = wait(&mut link, "open", |link| link.open_send(tag(round), len as u64, None));
                let r = open_recv(&mut link, round, len);
                let (mut gone, mut got) = (0, 0);
                wait(&mut link, "exchange", |link| {
                    if link.sink(s)? == Sink::Copy {
                        // SAFETY: the slice is valid during the call.
                        gone += unsafe { link.write(s, gone as u64, out[gone..].as_ptr(), len - gone) }?;
                    }
                    if link.incoming(r)?.is_some() {
                        let rest = &mut into[got..];
                        // SAFETY: the slice is valid during the call.
                        got += unsafe { link.read(r, got as u64, rest.as_mut_ptr(), rest.len()) }?;
                    }
                    Ok((gone == len && got == len).then_some(()))
                });
                link.close_send(s);
                finish(&mut link, r, len);
                assert!(into.iter().all(|&byte| byte == 30 - mark));
            }
        })
    });
    for end in ends {
        end.join().unwrap();
    }
}

#[test]
fn eager_messages_stop_at_the_credits_and_go_on_when_released() {
    let (mut a, mut b) = links(LOCAL4, 2, TcpOptions::default());
    let payload = vec![7u8; a.limits().eager];
    // SAFETY: the vector is valid during the call.
    let offer = |link: &mut TcpLink| unsafe { link.send_eager(tag(0), payload.as_ptr(), payload.len()) };
    let mut sent = 0;
    let deadline = Instant::now() + Duration::from_millis(300);
    while Instant::now() < deadline {
        sent += usize::from(offer(&mut a).unwrap());
        a.poll().unwrap();
        b.poll().unwrap();
    }
    assert_eq!(sent, WINDOW, "all credits and not one more");
    let mut opened: Vec<_> = (0..WINDOW).map(|_| open_recv(&mut b, 0, payload.len())).collect();
    assert_eq!(b.open_recv(tag(0), 1, false, None).unwrap(), None, "the window is full");
    for &m in &opened {
        assert!(eager_bytes(head(&mut b, m)) == payload);
    }
    // Released in any order.
    opened.reverse();
    for m in opened {
        finish(&mut b, m, payload.len());
    }
    wait(&mut a, "credits", |link| Ok(offer(link)?.then_some(())));
}

#[test]
fn long_message_waits_for_its_grant() {
    let (mut a, mut b) = links(LOCAL6, 2, TcpOptions::default());
    let bytes = vec![1u8; 100_000];
    let m = a.open_send(tag(1), bytes.len() as u64, None).unwrap().unwrap();
    a.flush().unwrap();
    for _ in 0..100 {
        a.poll().unwrap();
        b.poll().unwrap();
        assert_eq!(a.sink(m).unwrap(), Sink::Waiting);
        // SAFETY: the vector is valid during the call.
        assert_eq!(unsafe { a.write(m, 0, bytes.as_ptr(), bytes.len()) }.unwrap(), 0);
    }
    let r = open_recv(&mut b, 1, bytes.len());
    b.flush().unwrap();
    wait(&mut a, "grant", |link| Ok((link.sink(m)? == Sink::Copy).then_some(())));
    assert_eq!(head(&mut b, r).source, Source::Copy);
}

/// The caller finds the mismatch by the tag whatever the sizes of the two calls are.
#[test]
fn mismatched_messages_are_told_by_their_tags() {
    let (mut a, mut b) = links(LOCAL4, 2, TcpOptions::default());
    send_eager(&mut a, 5, &[9; 10]);
    let m = open_recv(&mut b, 6, 1 << 20);
    let incoming = head(&mut b, m);
    assert_eq!((incoming.tag, incoming.len), (tag(5), Some(10)));
    b.flush().unwrap();
    a.open_send(tag(7), 1 << 20, None).unwrap().unwrap();
    let foreign = a.open_send(tag(8), 1 << 20, None).unwrap().unwrap();
    a.flush().unwrap();
    let m = open_recv(&mut b, 8, 4);
    let incoming = head(&mut b, m);
    assert_eq!((incoming.tag, incoming.source), (tag(7), Source::Copy));
    // The sender of a long message sees it too, by the grant, and nothing leaves.
    open_recv(&mut b, 9, 1 << 20);
    b.flush().unwrap();
    wait(&mut a, "the grant", |link| Ok((link.sink(foreign)? == Sink::Foreign(tag(9))).then_some(())));
    // SAFETY: the array is valid during the call.
    assert_eq!(unsafe { a.write(foreign, 0, [1u8; 4].as_ptr(), 4) }.unwrap(), 0);
}

#[test]
fn strange_bytes_are_a_protocol_error() {
    use std::io::Write;
    let (mut ours, theirs) = sockets(LOCAL4, 2);
    let mut link = TcpLink::new(theirs, &TcpOptions::default()).unwrap();
    ours[0].write_all(b"GET / HTTP/1.1\r\nHost: somebody.example\r\nAccept: */*\r\n\r\n").unwrap();
    let end = try_wait(&mut link, "the refusal", |_| Ok(None::<()>)).unwrap_err();
    assert!(matches!(end, LinkError::Protocol { .. }), "{end}");
    let again = link.poll().unwrap_err();
    assert_eq!(end.to_string(), again.to_string());
}

#[test]
fn random_frames_never_panic() {
    use std::io::Write;
    let mut rng = rand::rngs::StdRng::seed_from_u64(4);
    for _ in 0..100 {
        let (mut ours, theirs) = sockets(LOCAL4, 2);
        let mut link = TcpLink::new(theirs, &TcpOptions { eager: 200, ..TcpOptions::default() }).unwrap();
        for _ in 0..3 {
            let _ = link.open_recv(tag(0), 1000, false, None);
            let _ = link.open_send(tag(0), 1000, None);
        }
        let mut bytes = Vec::new();
        for i in 0..rng.random_range(1..20u64) {
            let mut frame = [0u8; 48];
            frame[..4].copy_from_slice(&[0x52, 0x7C, rng.random_range(1..5), 0]);
            frame[8..16].copy_from_slice(&if rng.random_bool(0.8) { i } else { rng.random() }.to_le_bytes());
            let length: u64 = if rng.random_bool(0.9) { rng.random_range(0..200) } else { rng.random() };
            frame[16..24].copy_from_slice(&length.to_le_bytes());
            frame[40] = u8::from(rng.random_bool(0.05));
            bytes.extend(frame);
            bytes.extend((0..rng.random_range(0..4)).map(|_| rng.random::<u8>()));
        }
        ours[0].write_all(&bytes).unwrap();
        let mut buffer = [0u8; 1000];
        for m in 0..20 {
            let _ = link.poll();
            let _ = link.incoming(m % 3);
            // SAFETY: the buffer is valid during the calls.
            let _ = unsafe { link.read(m % 3, 0, buffer.as_mut_ptr(), buffer.len()) };
            // SAFETY: as above.
            let _ = unsafe { link.write(m % 3, 0, buffer.as_ptr(), buffer.len()) };
            let _ = link.release(m % 3, m);
        }
        link.close_recv(0);
        link.close_send(0);
    }
}

#[test]
fn unusable_sockets_are_refused() {
    let one = sockets(LOCAL4, 1).0;
    assert!(matches!(TcpLink::new(one, &TcpOptions::default()), Err(LinkError::Io { .. })));
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(matches!(TcpLink::new(vec![a, b], &TcpOptions::default()), Err(LinkError::Io { .. })));
}

/// A peer that goes away in the middle is seen by whoever sends, receives or only polls.
#[test]
fn vanished_peer_is_reported() {
    for long in [false, true] {
        let (mut a, mut b) = links(LOCAL4, 3, TcpOptions::default());
        let len = if long { 1 << 20 } else { 8 };
        let m = open_recv(&mut b, 1, len);
        if long {
            a.open_send(tag(1), len as u64, None).unwrap();
            a.flush().unwrap();
            head(&mut b, m);
        }
        drop(a);
        let mut buffer = vec![0u8; len];
        let end = try_wait(&mut b, "the end", |link| {
            if link.incoming(m)?.is_some() {
                // SAFETY: the vector is valid during the call.
                unsafe { link.read(m, 0, buffer.as_mut_ptr(), buffer.len()) }?;
            }
            Ok(None::<()>)
        });
        assert!(matches!(end, Err(LinkError::Closed { .. } | LinkError::Io { .. })), "{end:?}");
    }
}

/// What was announced before the peer closed in good order is still delivered; the end is reported after it.
#[test]
fn last_messages_outlive_their_sender() {
    let (mut a, mut b) = links(LOCAL6, 2, TcpOptions::default());
    let (m, long) = (open_recv(&mut b, 0, 50_000), vec![3u8; 50_000]);
    b.flush().unwrap();
    send(&mut a, 0, &long);
    send(&mut a, 1, &[4; 9]);
    send(&mut a, 2, &[]);
    drop(a);
    assert_eq!(head(&mut b, m).source, Source::Copy);
    let mut into = vec![0u8; long.len()];
    let mut got = 0;
    while got < into.len() {
        let rest = &mut into[got..];
        got += wait(&mut b, "reading", |link| {
            // SAFETY: the slice is valid during the call.
            let n = unsafe { link.read(m, got as u64, rest.as_mut_ptr(), rest.len()) }?;
            Ok((n > 0).then_some(n))
        });
    }
    finish(&mut b, m, into.len());
    assert!(into == long);
    assert_eq!(receive(&mut b, 1, 9), [4; 9]);
    assert_eq!(receive(&mut b, 2, 0), []);
    let end = try_wait(&mut b, "the end", |_| Ok(None::<()>));
    assert!(matches!(end, Err(LinkError::Closed { .. })), "{end:?}");
}

#[test]
fn sleeper_wakes_when_a_frame_or_bytes_arrive() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let (mut a, mut b) = links(LOCAL4, 3, TcpOptions::default());
    let len = 300_000;
    let sender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        send(&mut a, 1, &vec![5u8; 300_000]);
        a
    });
    let m = open_recv(&mut b, 1, len);
    b.flush().unwrap();
    let (mut got, mut naps, mut bytes) = (0, 0, vec![0u8; len]);
    let deadline = Instant::now() + PATIENCE;
    while got < len {
        assert!(Instant::now() < deadline);
        b.poll().unwrap();
        let mut n = 0;
        if b.incoming(m).unwrap().is_some() {
            let rest = &mut bytes[got..];
            // SAFETY: the slice is valid during the call.
            n = unsafe { b.read(m, got as u64, rest.as_mut_ptr(), rest.len()) }.unwrap();
            got += n;
        }
        if n == 0 && b.arm() {
            let mut watched = Vec::new();
            b.watch(&mut |fd, writable| {
                let flags = if writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
                watched.push((std::os::fd::AsRawFd::as_raw_fd(&fd), flags));
            });
            let mut set: Vec<_> = watched
                .iter()
                .map(|&(fd, flags)| {
                    // SAFETY: the descriptors belong to the link, which lives longer than this set.
                    PollFd::from_borrowed_fd(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }, flags)
                })
                .collect();
            let ready = poll(&mut set, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
            assert!(ready > 0, "slept through the arrival");
            naps += 1;
            b.disarm();
        }
    }
    assert!(naps > 0);
    drop(sender.join().unwrap());
}
