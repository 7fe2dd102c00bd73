//! The conformance suite and more, on the devices that there are; [`bed`] says what happens where there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rccl_verbs::Library;

use super::bed::{Ends, addresses, choices, ends, has, links_over};
use super::{Options, Pending, RailChoice, Rails};
use crate::conformance::{CHECKS, DEADLINE, Pair, staying_threads};
use crate::link::{Link, LinkError, Place, Sink, Tag};
use crate::memory::RegionTable;

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
        super::Options { eager: 100, slots: 2, slot: 512, piece: 4096, ..super::Options::default() }
    }
    crate::conformance_suite!(|| super::pair(1, &options()), if super::has(1));
}

/// Queue pairs that overtake each other, with pieces short enough that every message goes over all of them.
mod four {
    fn options() -> super::Options {
        super::Options { queue_pairs: 4, piece: 16 << 10, ..super::Options::default() }
    }
    crate::conformance_suite!(|| super::pair(1, &options()), if super::has(1));
}

/// Two devices at each end.
mod rails {
    fn options() -> super::Options {
        super::Options { queue_pairs: 2, piece: 16 << 10, slots: 4, ..super::Options::default() }
    }
    crate::conformance_suite!(|| super::pair(2, &options()), if super::has(2));
}

/// The checks that let links fail in between: those that need none to refuse anything for a moment are left out.
fn survives(make: &dyn Fn() -> Pair) {
    survives_some(
        make,
        &[
            "eager messages of every size",
            "messages keep their order",
            "every pair of grants",
            "bytes may be taken in any pieces",
            "random messages match",
            "no wake-up is lost",
        ],
    );
    staying_threads(make);
}

fn survives_some(make: &dyn Fn() -> Pair, moves: &[&str]) {
    let chosen: Vec<_> =
        CHECKS.iter().filter(|check| moves.iter().any(|name| check.name.starts_with(name))).collect();
    assert_eq!(chosen.len(), moves.len());
    for check in chosen {
        (check.run)(make);
    }
}

/// Faults at short intervals, which differ so that they come at other points of the checks.
fn faults(queue_pairs: usize, every: u32) -> Options {
    let rail_failures = u32::MAX;
    Options { queue_pairs, fault_every: every, rail_failures, piece: 16 << 10, ..Options::default() }
}

#[test]
fn links_go_on_over_a_fresh_queue_pair() {
    if has(1) {
        survives(&|| pair(1, &faults(1, 397)));
    }
}

#[test]
fn links_go_on_over_several_fresh_queue_pairs() {
    if has(1) {
        survives_some(&|| pair(1, &faults(3, 251)), &["every pair of grants", "random messages match"]);
    }
}

#[test]
fn links_go_on_over_tcp() {
    if has(1) {
        let options = Options { fault_every: 23, rail_failures: 1, ..Options::default() };
        survives(&|| pair(1, &options));
    }
}

#[test]
fn links_go_on_over_other_rails_then_over_tcp() {
    if has(2) {
        let options = Options { fault_every: 67, queue_pairs: 2, rail_failures: 2, ..Options::default() };
        survives(&|| pair(2, &options));
    }
}

/// Moves `bytes` from one end to the other, from and to memory of these places.
fn transfer(ends: &mut Ends, from: &[u8], places: [Place; 2], to: *const u8) -> Result<(), LinkError> {
    let [a, b] = &mut ends.links;
    let (tag, len) = (Tag { sequence: 1, call: [2, 3] }, from.len() as u64);
    let sent = a.open_send(tag, len, Some(places[0]))?.expect("room to send");
    let m = b.open_recv(tag, len, false, Some(places[1]))?.expect("room to receive");
    let (mut posted, begun) = (0, Instant::now());
    while b.landed(m) < len || a.released(sent) < len {
        for link in [&mut *a, &mut *b] {
            link.flush()?;
            link.poll()?;
        }
        if a.sink(sent)? == Sink::Posted && posted < from.len() {
            let rest = &from[posted..];
            // SAFETY: the bytes stay as they are as long as this function runs, which is until they are released.
            posted += unsafe { a.post(sent, posted as u64, rest.as_ptr(), rest.len()) }?;
        } else if a.sink(sent)? == Sink::Staged {
            a.reserve(sent, 100)?;
        }
        assert!(begun.elapsed() < DEADLINE, "{posted} bytes posted, {} landed", b.landed(m));
    }
    a.close_send(sent);
    b.close_recv(m);
    // SAFETY: all bytes have landed, so nobody writes there any more.
    assert!(unsafe { std::slice::from_raw_parts(to, from.len()) } == from);
    Ok(())
}

fn without_slots() -> Options {
    Options { slots: 0, ..Options::default() }
}

#[test]
fn registered_memory_is_not_copied() {
    if !has(1) {
        return;
    }
    let mut ends = ends(1, &without_slots());
    let len = 3_000_001;
    let [source, target] = ends.tables.each_ref().map(|table| table.alloc(len).unwrap());
    // SAFETY: the memory is this test's, and nobody else uses it yet.
    let bytes = unsafe { std::slice::from_raw_parts_mut(source.as_ptr(), len) };
    bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7 / 5) as u8);
    let places = [source.place(0), target.place(0)];
    transfer(&mut ends, bytes, places, target.as_ptr()).unwrap();
    assert_eq!(ends.rails.each_ref().map(|rails| rails.staged_bytes()), [0, 0]);
}

#[test]
fn the_users_own_memory_is_registered_on_request_and_counted() {
    if !has(1) {
        return;
    }
    let mut ends = ends(1, &without_slots());
    let bytes: Vec<u8> = (0..100_000).map(|i| (i * 3 / 2) as u8).collect();
    let space = vec![0u8; 100_000];
    let places = [&bytes, &space].map(|memory| Place::at_address(memory.as_ptr()));
    let register = |rails: &Arc<Rails>, memory: &Vec<u8>| {
        // SAFETY: the vectors live until the end of the test, and their pages are written by its own ends only.
        unsafe { rails.register(memory.as_ptr().cast_mut(), memory.len()) }.unwrap()
    };
    let source = register(&ends.rails[0], &bytes);
    let twice = [register(&ends.rails[1], &space), register(&ends.rails[1], &space)];
    transfer(&mut ends, &bytes, places, space.as_ptr()).unwrap();
    let [one, other] = twice;
    drop(one);
    transfer(&mut ends, &bytes, places, space.as_ptr()).unwrap();
    assert_eq!(ends.rails.each_ref().map(|rails| rails.staged_bytes()), [0, 0]);
    // Without it the bytes would have to be copied, and there is no memory for that.
    drop((source, other));
    let error = transfer(&mut ends, &bytes, places, space.as_ptr()).unwrap_err().to_string();
    for part in ["message 2", "not registered", "0 slots", "allow slots"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

/// A port with several addresses is opened once, and each link uses that of them that leads to its peer.
#[test]
fn links_choose_among_the_addresses_of_a_port() {
    if !has(1) {
        return;
    }
    let (library, all) = (Library::open(None).unwrap(), addresses().unwrap());
    // A device whose host has others need not reach itself.
    let devices = [all[0].device.clone(), all[all.len() - 1].device.clone()];
    let [choices, others] = devices
        .map(|device| all.iter().filter(|choice| choice.device == device).cloned().collect::<Vec<_>>());
    let open = |choices: &[RailChoice]| {
        let table = RegionTable::new();
        (Rails::open(&library, choices, Arc::clone(&table), false).unwrap(), table)
    };
    let [(a, here), (b, there)] = [open(&choices), open(&others)];
    let one = Rails::open(&library, &choices[..1], RegionTable::new(), false).unwrap();
    assert_eq!(a.descriptors().count(), one.descriptors().count());
    for (address, choice) in choices.iter().enumerate() {
        let links = links_over([&a, &b], &[address], &without_slots());
        for (link, rails) in links.iter().zip([&a, &b]) {
            assert_eq!(link.rails(), [rails.describe()[address].clone()]);
        }
        assert_eq!(links[0].rails()[0].gid_index, u32::from(choice.gid_index));
        let (rails, tables) = ([Arc::clone(&a), Arc::clone(&b)], [Arc::clone(&here), Arc::clone(&there)]);
        let mut ends = Ends { links, rails, tables };
        let [source, target] = ends.tables.each_ref().map(|table| table.alloc(100_000).unwrap());
        // SAFETY: the memory is this test's, and nobody else uses it yet.
        let bytes = unsafe { std::slice::from_raw_parts_mut(source.as_ptr(), 100_000) };
        bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7 / 5 + address) as u8);
        transfer(&mut ends, bytes, [source.place(0), target.place(0)], target.as_ptr()).unwrap();
    }
    eprintln!("{} addresses", choices.len());
}

/// Two ends that are set otherwise say so instead of misunderstanding each other.
#[test]
fn ends_that_do_not_fit_are_refused() {
    if !has(1) {
        return;
    }
    let library = Library::open(None).unwrap();
    let rails = Rails::open(&library, &choices().unwrap()[..1], RegionTable::new(), false).unwrap();
    let pending = |options: &Options| Pending::new(&rails, &[0], options);
    let eager = |eager| Options { eager, ..Options::default() };
    let peer = pending(&eager(4096)).unwrap().hello();
    let refused = pending(&eager(8192)).unwrap().connect(&peer);
    let error = refused.err().expect("ends that differ").to_string();
    assert!(error.contains("eager limit: 4096 there, 8192 here"), "{error}");
    for (options, word) in [
        (Options { slot: 1000, ..Options::default() }, "power of two"),
        (Options { queue_pairs: 17, ..Options::default() }, "queue pairs"),
        (Options { retries: 8, ..Options::default() }, "retries"),
    ] {
        let error = pending(&options).err().expect(word).to_string();
        assert!(error.contains(word), "{error}");
    }
    let choice = RailChoice { gid_index: 200, ..choices().unwrap()[0].clone() };
    let error = Rails::open(&library, &[choice], RegionTable::new(), false).err().unwrap().to_string();
    assert!(error.contains("GID index 200 is empty; filled are: 0 fe80"), "{error}");
}

/// A peer that ends is noticed by its socket at once, not by retries that take seconds.
#[test]
fn a_peer_that_is_gone_is_noticed_at_once() {
    if !has(1) {
        return;
    }
    for sends in [false, true] {
        let Ends { links: [mut a, b], .. } = ends(1, &Options::default());
        let tag = Tag { sequence: 1, call: [0; 2] };
        a.poll().unwrap();
        a.open_recv(tag, 100_000, false, None).unwrap().expect("room to receive");
        a.flush().unwrap();
        drop(b);
        let begun = Instant::now();
        let error = loop {
            if sends {
                // SAFETY: no bytes are read.
                let _ = unsafe { a.send_eager(tag, std::ptr::null(), 0) };
            }
            if let Err(error) = a.flush().and_then(|()| a.poll()) {
                break error;
            }
            assert!(begun.elapsed() < DEADLINE, "the end of the peer was not noticed");
        };
        assert!(matches!(error, LinkError::Closed { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(1), "noticed only after {:?}", begun.elapsed());
        assert!(matches!(a.poll(), Err(LinkError::Closed { .. })));
    }
}

/// A queue pair of either end fails at any point of a long message, again and again: not a byte is lost or too many, and
/// nothing is copied on the way.
#[test]
fn long_messages_survive_failures_at_any_point() {
    if !has(1) {
        return;
    }
    let options =
        Options { slots: 0, piece: 64 << 10, queue_pairs: 2, rail_failures: u32::MAX, ..Options::default() };
    let mut ends = ends(1, &options);
    let len = 2_000_003;
    let [source, target] = ends.tables.each_ref().map(|table| table.alloc(len).unwrap());
    // SAFETY: the memory is this test's, and nobody else uses it yet.
    let bytes = unsafe { std::slice::from_raw_parts_mut(source.as_ptr(), len) };
    let mut random = 1_u64;
    for round in 0..8 {
        bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7 / 5 + round) as u8);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (end, after) = (random as usize >> 40 & 1, random >> 41 & 0x1f);
        ends.links[end].fail_after(after as u32);
        let places = [source.place(0), target.place(0)];
        transfer(&mut ends, bytes, places, target.as_ptr()).unwrap();
    }
    let moves = ends.links.each_ref().map(|link| link.moves());
    assert!(moves[0] > 0 && moves[0] == moves[1], "{moves:?}");
    assert_eq!(ends.rails.each_ref().map(|rails| rails.staged_bytes()), [0, 0]);
}

/// Takes the network devices nic0 to nic3 of `tests/rxe/four-devices` down, so it must run alone:
/// `tests/rxe/four-devices TEST-BINARY --ignored`.
#[test]
#[ignore = "takes network devices of a guest down"]
fn ports_that_go_down_are_left_one_by_one() {
    let set = |nic: usize, state: &str| {
        let set =
            std::process::Command::new("ip").args(["link", "set", &format!("nic{nic}"), state]).status();
        assert!(set.expect("ip(8)").success());
    };
    assert!(has(4));
    let mut ends = ends(2, &Options { piece: 16 << 10, ..Options::default() });
    let bytes: Vec<u8> = (0..1_000_000).map(|i| (i * 3 / 2) as u8).collect();
    let [source, target] = ends.tables.each_ref().map(|table| table.alloc(bytes.len()).unwrap());
    // SAFETY: the memory is this test's, and nobody else uses it yet.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), source.as_ptr(), bytes.len()) };
    let places = [source.place(0), target.place(0)];
    let mut go = |down: &[usize], left: usize| {
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                down.iter().for_each(|&nic| set(nic, "down"));
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            // Again until the devices are down, and once more.
            let mut last = false;
            while !last {
                last = done.load(std::sync::atomic::Ordering::Relaxed);
                transfer(&mut ends, &bytes, places, target.as_ptr()).unwrap();
            }
        });
        let begun = Instant::now();
        while ends.links.iter().any(|link| link.rails().len() != left) {
            transfer(&mut ends, &bytes, places, target.as_ptr()).unwrap();
            assert!(begun.elapsed() < DEADLINE, "{:?}", ends.links.each_ref().map(|link| link.rails()));
        }
        eprintln!("{left} rails left, {:?} moves", ends.links.each_ref().map(|link| link.moves()));
    };
    // One of the first end, then the other rail at the second end.
    go(&[], 2);
    go(&[0], 1);
    go(&[3], 0);
    for nic in 0..4 {
        set(nic, "up");
    }
}
