//! Both ends of a shared-memory link as threads of one process over one segment, and what set-up refuses.
#![cfg(not(loom))]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rccl_transport::memory::{PeerRegions, RegionTable};
use rccl_transport::shm::{self, Doorbell, End, Options, Reach, ShmLink};
use rccl_transport::{Link, Place, Sink, Source, Tag};

const TAG: Tag = Tag { sequence: 3, call: [4, 5] };

fn pair(copy: bool) -> [(ShmLink, Arc<PeerRegions>); 2] {
    let options = Options::default();
    let segment = shm::create_segment(&options).unwrap();
    let bells = [(); 2].map(|()| Arc::new(Doorbell::new().unwrap()));
    let reach = Reach { pid: std::process::id() as i32, copy };
    [(End::Creator, 0), (End::Joiner, 1)].map(|(end, own)| {
        let peer = Arc::new(PeerRegions::new());
        let (bell, other) = (Arc::clone(&bells[own]), bells[1 - own].share().unwrap());
        let link =
            ShmLink::map(segment.as_fd(), end, &options, bell, other, Arc::clone(&peer), reach).unwrap();
        (link, peer)
    })
}

/// Lets both ends hear all that was announced.
fn settle(a: &mut ShmLink, b: &mut ShmLink) {
    for link in [&mut *a, &mut *b] {
        link.flush().unwrap();
    }
    for link in [a, b] {
        link.poll().unwrap();
    }
}

fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen in 20 s");
        std::thread::yield_now();
    }
}

#[test]
fn an_inline_message_needs_no_flush_and_keeps_its_tag() {
    let [(mut a, _), (mut b, _)] = pair(false);
    // SAFETY: the slice is readable.
    assert!(unsafe { a.send_eager(TAG, b"hello".as_ptr(), 5) }.unwrap());
    let m = b.open_recv(TAG, 5, false, None).unwrap().unwrap();
    b.poll().unwrap();
    let head = b.incoming(m).unwrap().unwrap();
    assert_eq!((head.tag, head.len), (TAG, Some(5)));
    let Source::Eager(bytes) = head.source else { panic!("{head:?}") };
    // SAFETY: five bytes are readable until released.
    assert_eq!(unsafe { std::slice::from_raw_parts(bytes, 5) }, b"hello");
    b.release(m, 5).unwrap();
    b.close_recv(m);
}

#[test]
fn a_region_is_mapped_on_demand_and_pulled() {
    let [(mut a, _), (mut b, at_b)] = pair(false);
    let table = RegionTable::new();
    let region = table.alloc(1 << 20).unwrap();
    // SAFETY: the region is this test's alone.
    unsafe { region.as_ptr().wrapping_add(99_999).write(77) };
    let place = table.lookup(region.as_ptr(), 100_000);
    let sent = a.open_send(TAG, 100_000, place).unwrap().unwrap();
    a.flush().unwrap();
    let m = b.open_recv(TAG, 100_000, false, None).unwrap().unwrap();
    b.flush().unwrap();
    b.poll().unwrap();
    assert!(b.incoming(m).unwrap().is_none(), "not mapped yet");
    for number in at_b.take_requests() {
        let (descriptor, len) = table.fd(number).unwrap();
        at_b.insert(number, descriptor, len).unwrap();
    }
    let Source::Mapped(bytes) = b.incoming(m).unwrap().unwrap().source else { panic!() };
    // SAFETY: 100,000 bytes are readable until released.
    assert_eq!(unsafe { bytes.wrapping_add(99_999).read() }, 77);
    a.poll().unwrap();
    assert_eq!(a.sink(sent).unwrap(), Sink::Pulled);
    assert_eq!(a.released(sent), 0);
    b.release(m, 60_000).unwrap();
    assert_eq!(a.released(sent), 60_000);
    b.release(m, 100_000).unwrap();
    assert_eq!(a.released(sent), 100_000);
    a.close_send(sent);
    b.close_recv(m);
}

#[test]
fn addresses_are_copied_where_that_was_proven_and_staged_where_not() {
    let nonce = Box::new(0x1234_5678_9abc_def0_u64);
    let pid = std::process::id() as i32;
    let proven = shm::prove_copy(pid, std::ptr::from_ref(&*nonce) as u64, *nonce).is_ok();
    for copy in [false, proven] {
        let [(mut a, _), (mut b, _)] = pair(copy);
        let mut target = vec![0u8; 20_000];
        let place = Place::at_address(target.as_mut_ptr());
        let m = b.open_recv(TAG, 20_000, false, Some(place)).unwrap().unwrap();
        let sent = a.open_send(TAG, 20_000, None).unwrap().unwrap();
        settle(&mut a, &mut b);
        let (sink, source) = (a.sink(sent).unwrap(), b.incoming(m).unwrap().unwrap().source);
        if !copy {
            assert_eq!((sink, source), (Sink::Staged, Source::Staged));
            continue;
        }
        assert_eq!((sink, source), (Sink::Copy, Source::Landing));
        let bytes = vec![9u8; 20_000];
        // SAFETY: the bytes are readable; `target` outlives the copy.
        assert_eq!(unsafe { a.write(sent, 0, bytes.as_ptr(), 20_000) }.unwrap(), 20_000);
        assert_eq!(until("landing", || Some(b.landed(m)).filter(|&n| n == 20_000)), 20_000);
        assert_eq!(target, bytes);
    }
}

#[test]
fn a_memory_that_is_not_there_is_a_typed_error() {
    let [(mut a, _), (mut b, _)] = pair(true);
    let m = b.open_recv(TAG, 20_000, false, Some(Place::at_address(8 as *const u8))).unwrap().unwrap();
    let sent = a.open_send(TAG, 20_000, None).unwrap().unwrap();
    settle(&mut a, &mut b);
    assert!(b.incoming(m).unwrap().is_some());
    assert_eq!(a.sink(sent).unwrap(), Sink::Copy);
    let bytes = vec![9u8; 20_000];
    // SAFETY: the bytes are readable; the target is not mapped, which the kernel answers.
    let error = unsafe { a.write(sent, 0, bytes.as_ptr(), 20_000) }.unwrap_err().to_string();
    assert!(error.contains("process_vm_writev"), "{error}");
    let wrong = shm::prove_copy(std::process::id() as i32, (&raw const bytes[0]) as u64, 1).unwrap_err();
    assert_eq!(wrong.kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn a_sender_sees_that_its_receiver_is_in_another_call() {
    let [(mut a, _), (mut b, _)] = pair(false);
    let other = Tag { sequence: 4, ..TAG };
    b.open_recv(other, 20_000, false, None).unwrap().unwrap();
    let sent = a.open_send(TAG, 20_000, None).unwrap().unwrap();
    assert_eq!(a.sink(sent).unwrap(), Sink::Waiting);
    b.flush().unwrap();
    a.poll().unwrap();
    assert_eq!(a.sink(sent).unwrap(), Sink::Foreign(other));
}

#[test]
fn set_up_refuses_other_options_and_foreign_memory() {
    let options = Options::default();
    let map = |segment: std::os::fd::BorrowedFd<'_>, options: &Options| {
        let bell = Arc::new(Doorbell::new().unwrap());
        let other = bell.share().unwrap();
        let reach = Reach { pid: 0, copy: false };
        let peer = Arc::new(PeerRegions::new());
        ShmLink::map(segment, End::Joiner, options, bell, other, peer, reach).err().map(|e| e.to_string())
    };
    let segment = shm::create_segment(&options).unwrap();
    assert_eq!(map(segment.as_fd(), &options), None);
    let error = map(segment.as_fd(), &Options { eager: 4096, ..options }).unwrap();
    assert!(error.contains("other options"), "{error}");
    let error = map(segment.as_fd(), &Options { lines: 256, ..options }).unwrap();
    assert!(error.contains("configured differently"), "{error}");
    let error = map(Doorbell::new().unwrap().as_fd(), &options).unwrap();
    assert!(error.contains("0 bytes"), "{error}");
    let error = shm::create_segment(&Options { lines: 7, ..options }).unwrap_err().to_string();
    assert!(error.contains("7 lines"), "{error}");
}
