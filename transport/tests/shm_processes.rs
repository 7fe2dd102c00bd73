//! Two real processes on one segment: this test binary starts itself again as the peer and passes it the descriptors.
#![cfg(not(loom))]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rccl_transport::memory::{PeerRegions, RegionTable};
use rccl_transport::shm::{self, Doorbell, End, Options, Reach, ShmLink};
use rccl_transport::{Link, Place, Sink, Source, Tag};

const CHILD: &str = "RCCL_TEST_SHM_CHILD";
const LEN: usize = 100_000;
const ROUNDS: u32 = 300;

fn tag(sequence: u32) -> Tag {
    Tag { sequence, call: [1, 2] }
}

fn byte(i: usize, seed: usize) -> u8 {
    (i * 7 + i / 256 + seed) as u8
}

fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen in 30 s");
        std::thread::yield_now();
    }
}

/// Sends eight bytes and receives eight bytes, `first` or second.
fn turn(link: &mut ShmLink, round: u32, first: bool) {
    let send = |link: &mut ShmLink| {
        let bytes = u64::from(round);
        // SAFETY: the word is readable.
        let sent = unsafe { link.send_eager(tag(round), (&raw const bytes).cast(), 8) };
        assert!(sent.unwrap());
        link.flush().unwrap();
    };
    if first {
        send(link);
    }
    let m = link.open_recv(tag(round), 8, false, None).unwrap().unwrap();
    let head = until("a turn", || {
        link.poll().unwrap();
        link.incoming(m).unwrap()
    });
    assert_eq!(head.tag, tag(round));
    let Source::Eager(bytes) = head.source else { panic!("{head:?}") };
    // SAFETY: eight bytes are readable until released.
    assert_eq!(unsafe { bytes.cast::<u64>().read_unaligned() }, u64::from(round));
    link.release(m, 8).unwrap();
    link.close_recv(m);
    if !first {
        send(link);
    }
}

/// The parent: pulled from a region of its own, landed in plain memory of its own or staged to it, eager turns.
#[test]
fn messages_cross_between_two_processes() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let options = Options::default();
    let segment = shm::create_segment(&options).unwrap();
    let [bell, peer_bell] = [(); 2].map(|()| Doorbell::new().unwrap());
    let table = RegionTable::new();
    let region = table.alloc(LEN).unwrap();
    for i in 0..LEN {
        // SAFETY: the region has LEN bytes and is this test's alone.
        unsafe { region.as_ptr().wrapping_add(i).write(byte(i, 1)) };
    }
    let (region_descriptor, region_len) = table.fd(region.number()).unwrap();
    let nonce = Box::new(0x5eed_1234_5678_9abc_u64);
    let _ = shm::allow_copies();

    // The child learns the numbers of the descriptors; only these lose their close-on-exec flag.
    let passed: Vec<OwnedFd> = vec![
        segment.try_clone().unwrap(),
        bell.share().unwrap(),
        peer_bell.share().unwrap(),
        region_descriptor,
    ];
    for descriptor in &passed {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
    }
    let mut words: Vec<String> = passed.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    words.push(region.number().to_string());
    words.push(region_len.to_string());
    words.push((std::ptr::from_ref(&*nonce) as u64).to_string());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["the_other_process", "--exact", "--nocapture"])
        .env(CHILD, words.join(" "))
        .spawn()
        .unwrap();
    struct Reaped(std::process::Child);
    impl Drop for Reaped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut child = Reaped(child);
    drop(passed);

    let pid = child.0.id() as i32;
    let map = |copy| {
        let (own, other) =
            (Arc::new(Doorbell::from_descriptor(bell.share().unwrap())), peer_bell.share().unwrap());
        let (peer, reach) = (Arc::new(PeerRegions::new()), Reach { pid, copy });
        ShmLink::map(segment.as_fd(), End::Creator, &options, own, other, peer, reach).unwrap()
    };
    // Plain memory: this end does not offer it here, because only the child has proven copies.
    let mut link = map(false);
    for round in 0..ROUNDS {
        turn(&mut link, round, true);
    }
    let sent = link.open_send(tag(1), LEN as u64, table.lookup(region.as_ptr(), LEN)).unwrap().unwrap();
    link.flush().unwrap();
    assert_eq!(link.sink(sent).unwrap(), Sink::Pulled);
    until("the release", || (link.released(sent) == LEN as u64).then_some(()));
    link.close_send(sent);

    let m = link.open_recv(tag(2), LEN as u64, false, None).unwrap().unwrap();
    link.flush().unwrap();
    let mut got = Vec::new();
    until("the staged message", || {
        link.poll().unwrap();
        if let Some((bytes, len)) = link.peek(m).unwrap() {
            // SAFETY: the slot is readable until released.
            got.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes, len) });
            link.release(m, got.len() as u64).unwrap();
            link.flush().unwrap();
        }
        (got.len() == LEN).then_some(())
    });
    assert!(got.iter().enumerate().all(|(i, &b)| b == byte(i, 2)));
    let status = until("the end of the other process", || child.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

/// The child; does nothing when it is run as a test of its own.
#[test]
fn the_other_process() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let numbers: Vec<u64> = words.split(' ').map(|word| word.parse().unwrap()).collect();
    let take = |index: usize| {
        // SAFETY: the parent passed this descriptor to this process, and nothing else here owns it.
        unsafe { OwnedFd::from_raw_fd(numbers[index] as i32) }
    };
    let (segment, peer_bell, own_bell, region) = (take(0), take(1), take(2), take(3));
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
    match shm::prove_copy(parent, numbers[6], 0x5eed_1234_5678_9abc) {
        Ok(()) => {
            let wrong = shm::prove_copy(parent, numbers[6], 1).unwrap_err();
            assert_eq!(wrong.kind(), std::io::ErrorKind::InvalidData);
        }
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::InvalidData, "{error}"),
    }
    let peer = Arc::new(PeerRegions::new());
    let mut link = ShmLink::map(
        segment.as_fd(),
        End::Joiner,
        &Options::default(),
        Arc::new(Doorbell::from_descriptor(own_bell)),
        peer_bell,
        Arc::clone(&peer),
        Reach { pid: parent, copy: false },
    )
    .unwrap();
    for round in 0..ROUNDS {
        turn(&mut link, round, false);
    }
    let mut region = Some(region);
    let m = link.open_recv(tag(1), LEN as u64, false, None).unwrap().unwrap();
    link.flush().unwrap();
    let head = until("the head", || {
        link.poll().unwrap();
        for number in peer.take_requests() {
            assert_eq!(u64::from(number), numbers[4]);
            peer.insert(number, region.take().unwrap(), numbers[5] as usize).unwrap();
        }
        link.incoming(m).unwrap()
    });
    let Source::Mapped(bytes) = head.source else { panic!("{head:?}") };
    // SAFETY: LEN bytes are readable until released.
    let bytes = unsafe { std::slice::from_raw_parts(bytes, LEN) };
    assert!(bytes.iter().enumerate().all(|(i, &b)| b == byte(i, 1)));
    link.release(m, LEN as u64).unwrap();
    link.close_recv(m);

    // An address is of no use without copies: the place is passed over and the message is staged.
    let plain: Vec<u8> = (0..LEN).map(|i| byte(i, 2)).collect();
    let place = Some(Place::at_address(plain.as_ptr()));
    let sent = link.open_send(tag(2), LEN as u64, place).unwrap().unwrap();
    link.flush().unwrap();
    until("the grant", || {
        link.poll().unwrap();
        (link.sink(sent).unwrap() == Sink::Staged).then_some(())
    });
    let mut done = 0;
    until("room for all", || {
        link.poll().unwrap();
        let len = (LEN - done).min(link.limits().slot);
        if let Some(to) = link.reserve(sent, len).unwrap() {
            // SAFETY: the slot has `len` bytes.
            unsafe { std::ptr::copy_nonoverlapping(plain[done..].as_ptr(), to, len) };
            link.commit(sent, len).unwrap();
            link.flush().unwrap();
            done += len;
        }
        (done == LEN).then_some(())
    });
    link.close_send(sent);
}
