//! Two queue pairs on one device, connected to each other. Needs a device: see `bed`.

#[allow(dead_code)]
mod bed;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bed::{Bed, CAPACITY, DEADLINE, End, bed, fill, read, take};
use rccl_verbs::{
    AckTimeout, AsyncEvent, CompletionChannel, Data, Error, Kind, MemoryRegion, Operation, QpNumber,
    ReceiveBatch, RemoteKey, RemoteMemory, SendBatch, SendRequest, State, Status,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Posts one signalled request.
fn post(end: &End, id: u64, operation: Operation, data: Data<'_>) {
    let mut batch = SendBatch::with_capacity(1);
    batch.push(&SendRequest { id, operation, data, signalled: true, solicited: false });
    end.pair.post_sends(&mut batch).unwrap();
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}

#[test]
fn an_inline_message_arrives() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let memory = bed.memory(4096);
    two.receive(7, &[memory.segment(16..144)]);
    let mut message = *b"a message that is short";
    post(&one, 9, Operation::Send, Data::Inline(&message));
    message.fill(0); // at once: the request has its own copy

    let sent = take(&one.sends, 1)[0];
    assert_eq!((sent.id(), sent.status(), sent.kind()), (9, Status::Success, Some(Kind::Send)));
    assert_eq!(sent.queue_pair(), one.pair.number());
    let received = take(&two.receives, 1)[0];
    assert_eq!((received.id(), received.kind(), received.immediate()), (7, Some(Kind::Receive), None));
    assert_eq!((received.bytes() as usize, received.queue_pair()), (message.len(), two.pair.number()));
    assert_eq!(read(&memory, 16, message.len()), b"a message that is short");
    assert_eq!(read(&memory, 16 + message.len(), 4), [0; 4]);
}

#[test]
fn a_write_with_immediate_of_a_mebibyte_arrives_and_then_its_completion() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let (source, target) = (bed.memory(1 << 20), bed.memory((1 << 20) + 4096));
    fill(&source, 0, &pattern(1 << 20, 5));
    two.receive(1, &[]);
    let operation = Operation::WriteWithImmediate(target.remote(4096), 0xabcd_1234);
    post(&one, 2, operation, Data::Gather(&[source.segment(0..1 << 20)]));
    let received = take(&two.receives, 1)[0];
    assert_eq!((received.kind(), received.immediate()), (Some(Kind::ReceiveWrite), Some(0xabcd_1234)));
    assert_eq!(received.bytes(), 1 << 20);
    assert_eq!(read(&target, 4096, 1 << 20), pattern(1 << 20, 5));
    assert_eq!(take(&one.sends, 1)[0].kind(), Some(Kind::Write));
}

#[test]
fn a_write_of_nothing_carries_its_immediate() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    two.receive(1, &[]);
    let nowhere = RemoteMemory { address: 0, key: RemoteKey(0) };
    post(&one, 2, Operation::WriteWithImmediate(nowhere, 5), Data::Gather(&[]));
    let received = take(&two.receives, 1)[0];
    assert_eq!((received.status(), received.immediate()), (Status::Success, Some(5)));
    assert!(take(&one.sends, 1)[0].is_success());
}

#[test]
fn a_batch_arrives_in_order_and_its_last_completion_stands_for_all() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let (source, target) = (bed.memory(64 << 10), bed.memory(64 << 10));
    fill(&source, 0, &pattern(64 << 10, 1));
    let mut sends = SendBatch::with_capacity(16);
    let mut receives = ReceiveBatch::with_capacity(16);
    for round in 0..4_u32 {
        for id in 0..16 {
            receives.push(id, &[]);
        }
        two.pair.post_receives(&mut receives).unwrap();
        for id in 0..16_u32 {
            // Two pieces, of which the target has one behind the other.
            let at = id as usize * 4096;
            let pieces = [source.segment(at..at + 1000), source.segment(at + 1000..at + 4096)];
            let operation = Operation::WriteWithImmediate(target.remote(at), round * 16 + id);
            let signalled = id == 15;
            let data = Data::Gather(&pieces);
            sends.push(&SendRequest { id: id.into(), operation, data, signalled, solicited: false });
        }
        one.pair.post_sends(&mut sends).unwrap();
        assert!(sends.is_empty() && receives.is_empty());
        let numbers: Vec<_> =
            take(&two.receives, 16).iter().map(|completion| completion.immediate().unwrap()).collect();
        assert_eq!(numbers, (round * 16..round * 16 + 16).collect::<Vec<_>>());
        assert_eq!(take(&one.sends, 1)[0].id(), 15);
    }
    assert_eq!(read(&target, 0, 64 << 10), pattern(64 << 10, 1));
    assert_eq!(
        one.sends.poll(&mut [Default::default(); 4]).unwrap(),
        0,
        "unsignalled requests are not reported"
    );
}

#[test]
fn a_message_is_scattered_over_segments() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let memory = bed.memory(4096);
    two.receive(1, &[memory.segment(0..3), memory.segment(1000..1100)]);
    post(&one, 2, Operation::SendWithImmediate(77), Data::Inline(b"abcdefg"));
    let received = take(&two.receives, 1)[0];
    assert_eq!((received.bytes(), received.immediate()), (7, Some(77)));
    assert_eq!((read(&memory, 0, 4), read(&memory, 1000, 5)), (b"abc\0".to_vec(), b"defg\0".to_vec()));
}

#[test]
fn what_is_posted_to_a_failed_queue_pair_is_flushed() {
    let Some(bed) = bed() else { return };
    let (one, _two) = bed.connected();
    let memory = bed.memory(4096);
    for id in 0..3 {
        one.receive(id, &[memory.segment(0..64)]);
    }
    one.pair.fail().unwrap();
    let flushed = take(&one.receives, 3);
    assert_eq!(flushed.iter().map(|completion| completion.id()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(flushed.iter().all(|completion| completion.status() == Status::Flushed), "{flushed:?}");
    assert!(flushed.iter().all(|completion| completion.kind().is_none()));
    // A receive that is posted now is flushed by the standard, and stays where it is on soft-RoCE.
    one.receive(10, &[]);
    post(&one, 9, Operation::Send, Data::Inline(b"late"));
    assert!(take(&one.sends, 1)[0].status().is_consequence());
}

#[test]
fn a_wrong_key_is_a_remote_access_error_and_fails_both_ends() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let target = bed.memory(4096);
    let place = target.remote(0);
    let wrong = RemoteMemory { key: RemoteKey(place.key.0 ^ 0x55), ..place };
    two.receive(1, &[]);
    post(&one, 2, Operation::Write(wrong), Data::Inline(b"12345678"));
    let failed = take(&one.sends, 1)[0];
    assert_eq!((failed.id(), failed.status()), (2, Status::RemoteAccess), "{}", failed.status());
    assert_eq!(one.pair.query_state().unwrap(), State::Error);
    // The peer's receive comes back too, for one reason or another.
    assert!(!take(&two.receives, 1)[0].is_success());
    assert_eq!(read(&target, 0, 8), [0; 8]);
}

#[test]
fn a_region_that_was_dropped_is_reached_no_more() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let target = bed.memory(4096);
    let place = target.remote(0);
    drop(target);
    post(&one, 1, Operation::Write(place), Data::Inline(b"12345678"));
    assert_eq!(take(&one.sends, 1)[0].status(), Status::RemoteAccess);
    drop((one, two));

    let (one, two) = bed.connected();
    let source = bed.memory(4096);
    let segment = source.segment(0..4096);
    drop(source);
    two.receive(1, &[]);
    let nowhere = RemoteMemory { address: 0, key: RemoteKey(0) };
    post(&one, 2, Operation::WriteWithImmediate(nowhere, 1), Data::Gather(&[segment]));
    // The standard asks for the first, soft-RoCE answers with the second.
    let status = take(&one.sends, 1)[0].status();
    assert!(matches!(status, Status::LocalProtection | Status::LocalOperation), "{status}");
}

#[test]
fn a_peer_that_is_not_there_exceeds_the_retries() {
    let Some(bed) = bed() else { return };
    let end = bed.end();
    let gone = bed.end().pair.number();
    let mut connection = bed.connection(QpNumber(gone.0), 1, 2);
    connection.timeout = AckTimeout::new(14).unwrap();
    connection.retries = 1;
    end.pair.ready_to_receive(&connection).unwrap();
    end.pair.ready_to_send(&connection).unwrap();
    post(&end, 1, Operation::Send, Data::Inline(b"anybody there?"));
    let failed = take(&end.sends, 1)[0];
    assert_eq!(failed.status(), Status::RetriesExceeded, "{}", failed.status());
    assert!(failed.status().to_string().contains("4791"));
}

#[test]
fn a_receiver_that_has_posted_nothing_exceeds_its_own_retries() {
    let Some(bed) = bed() else { return };
    let (one, two) = (bed.end(), bed.end());
    let mut there = bed.connection(two.pair.number(), 1, 2);
    there.receiver_not_ready_retries = 1;
    let back = bed.connection(one.pair.number(), 2, 1);
    one.pair.ready_to_receive(&there).unwrap();
    two.pair.ready_to_receive(&back).unwrap();
    one.pair.ready_to_send(&there).unwrap();
    post(&one, 1, Operation::Send, Data::Inline(b"anybody ready?"));
    assert_eq!(take(&one.sends, 1)[0].status(), Status::ReceiverNotReady);
}

#[test]
fn a_message_that_is_too_long_fails_both_ends() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let memory = bed.memory(4096);
    two.receive(1, &[memory.segment(0..4)]);
    post(&one, 2, Operation::Send, Data::Inline(b"longer than four"));
    // The standard asks for the first, soft-RoCE answers with the second.
    let status = take(&one.sends, 1)[0].status();
    assert!(matches!(status, Status::RemoteInvalidRequest | Status::RemoteOperation), "{status}");
    assert!(!take(&two.receives, 1)[0].is_success());
}

/// Waits until the channel has an event, and takes it.
fn wait(channel: &CompletionChannel) -> Option<u64> {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        let fd = channel.fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
        if let Some(token) = channel.next_event().unwrap() {
            return Some(token);
        }
    }
    None
}

#[test]
fn a_completion_wakes_who_sleeps_on_the_channel() {
    let Some(bed) = bed() else { return };
    let channel = bed.context.completion_channel().unwrap();
    let receives = channel.completion_queue(64, 4711, 0).unwrap();
    let (one, two) = (bed.end(), bed.end_on(bed.context.completion_queue(64).unwrap(), receives));
    bed.connect(&one, &two);
    assert_eq!(channel.next_event().unwrap(), None);
    for round in 0..3 {
        two.receive(round, &[]);
        two.receives.arm().unwrap();
        assert_eq!(two.receives.poll(&mut [Default::default(); 1]).unwrap(), 0);
        let nowhere = RemoteMemory { address: 0, key: RemoteKey(0) };
        post(&one, round, Operation::WriteWithImmediate(nowhere, 1), Data::Gather(&[]));
        assert_eq!(wait(&channel), Some(4711));
        assert_eq!(take(&two.receives, 1)[0].id(), round);
        assert_eq!(channel.next_event().unwrap(), None, "an armed queue raises one event");
        take(&one.sends, 1);
    }
    // An event that nobody takes does not keep the queue from going.
    two.receive(9, &[]);
    two.receives.arm().unwrap();
    two.pair.fail().unwrap();
    take(&two.receives, 1);
    drop(two);
}

/// A page that parent and child shared after a fork would be copied at the parent's next write, and the device would go
/// on with the page that the parent no longer has.
#[test]
fn registered_memory_stays_the_parents_across_a_fork() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let (source, target) = (bed.memory(4096), bed.memory(4096));
    fill(&source, 0, b"before");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    // SAFETY: the child makes two system calls and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Holds its copies until the parent has closed its end, or 20 s.
        // SAFETY: takes a number.
        unsafe { libc::alarm(DEADLINE.as_secs() as u32) };
        // SAFETY: this process's copies of the descriptors are its own.
        unsafe { libc::close(ours.as_raw_fd()) };
        let mut byte = 0_u8;
        // SAFETY: room for one byte.
        unsafe { libc::read(theirs.as_raw_fd(), (&raw mut byte).cast(), 1) };
        // SAFETY: ends without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
    fill(&source, 0, b"after!");
    two.receive(1, &[]);
    post(&one, 2, Operation::WriteWithImmediate(target.remote(0), 1), Data::Gather(&[source.segment(0..6)]));
    take(&two.receives, 1);
    let arrived = read(&target, 0, 6);
    drop((ours, theirs));
    let mut status = 0;
    // SAFETY: the child is this process's and is waited for once; its alarm ends it at the latest.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!((arrived.as_slice(), status), (b"after!".as_slice(), 0));
}

/// Destroying a queue waits for its events to be acknowledged, by whoever has taken them.
#[test]
fn queues_go_while_another_thread_takes_their_events() {
    let Some(bed) = bed() else { return };
    let channel = bed.context.completion_channel().unwrap();
    let (done, all_done) = std::sync::mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let taker = std::thread::spawn({
        let (channel, stop) = (channel.clone(), stop.clone());
        move || {
            let mut taken = 0;
            while !stop.load(Ordering::Relaxed) {
                taken += usize::from(channel.next_event().unwrap().is_some());
                std::thread::yield_now();
            }
            taken
        }
    });
    std::thread::spawn(move || {
        for token in 0..50 {
            let queue = channel.completion_queue(8, token, 0).unwrap();
            let end = bed.end_on(queue.clone(), queue);
            end.receive(1, &[]);
            end.receives.arm().unwrap();
            end.pair.fail().unwrap();
        }
        done.send(()).unwrap();
    });
    all_done.recv_timeout(DEADLINE).expect("all queues are destroyed");
    stop.store(true, Ordering::Relaxed);
    eprintln!("{} events of 50 were taken before their queue went", taker.join().unwrap());
}

#[test]
fn asking_for_events_of_the_device_does_not_block() {
    let Some(bed) = bed() else { return };
    let began = Instant::now();
    while let Some(event) = bed.context.next_event().unwrap() {
        eprintln!("{event:?}");
        assert!(began.elapsed() < DEADLINE);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_completion_queue_that_overflows_is_reported_by_its_token() {
    let Some(bed) = bed() else { return };
    let channel = bed.context.completion_channel().unwrap();
    let tiny = channel.completion_queue(1, 99, 0).unwrap();
    let room = tiny.entries() as usize;
    if room >= CAPACITY.sends as usize {
        eprintln!("skipped: the smallest completion queue has {room} entries");
        return;
    }
    let (one, two) = (bed.end_on(tiny, bed.context.completion_queue(8).unwrap()), bed.end());
    bed.connect(&one, &two);
    let target = bed.memory(4096);
    let mut batch = SendBatch::default();
    for id in 0..room as u64 + 1 {
        let (operation, data) = (Operation::Write(target.remote(0)), Data::Inline(b"more"));
        batch.push(&SendRequest { id, operation, data, signalled: true, solicited: false });
    }
    one.pair.post_sends(&mut batch).unwrap();
    let end = Instant::now() + DEADLINE;
    let failed = AsyncEvent::CompletionQueueFailed { token: 99 };
    loop {
        let (fd, timeout) = (bed.context.events_fd(), Timespec { tv_sec: 1, tv_nsec: 0 });
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
        match bed.context.next_event().unwrap() {
            Some(event) if event == failed => break,
            Some(other) => eprintln!("{other:?}"),
            None => assert!(Instant::now() < end, "no event"),
        }
    }
}

#[test]
fn requests_beyond_the_capacity_are_refused_and_counted() {
    let Some(bed) = bed() else { return };
    let (one, _two) = bed.connected();
    let capacity = one.pair.capacity();
    let mut sends = SendBatch::default();
    let long = vec![0; capacity.inline_bytes as usize + 1];
    let request =
        |data| SendRequest { id: 0, operation: Operation::Send, data, signalled: true, solicited: false };
    sends.push(&request(Data::Inline(&long)));
    assert!(matches!(one.pair.post_sends(&mut sends), Err(Error::Argument { .. })));
    let memory = bed.memory(4096);
    let pieces = vec![memory.segment(0..1); capacity.send_segments as usize + 1];
    sends.push(&request(Data::Gather(&pieces)));
    assert!(matches!(one.pair.post_sends(&mut sends), Err(Error::Argument { .. })));
    assert!(sends.is_empty());

    let mut receives = ReceiveBatch::default();
    // Devices round up, and need not tell.
    let of = 4 * capacity.receives as usize + 16;
    for id in 0..of {
        receives.push(id as u64, &[]);
    }
    match one.pair.post_receives(&mut receives).unwrap_err() {
        Error::Post { accepted, of: asked, .. } => {
            assert!(accepted >= CAPACITY.receives as usize && accepted < of, "{accepted}");
            assert_eq!(asked, of);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn nothing_is_posted_before_the_queue_pair_is_ready() {
    let Some(bed) = bed() else { return };
    let queue = bed.context.completion_queue(64).unwrap();
    let pair = bed.domain.queue_pair(&queue, &queue, CAPACITY).unwrap();
    let mut receives = ReceiveBatch::default();
    receives.push(0, &[]);
    assert!(matches!(pair.post_receives(&mut receives), Err(Error::State { .. })));
    let mut sends = SendBatch::default();
    let request = SendRequest {
        id: 0,
        operation: Operation::Send,
        data: Data::Inline(b""),
        signalled: true,
        solicited: false,
    };
    sends.push(&request);
    let message = pair.post_sends(&mut sends).unwrap_err().to_string();
    assert!(message.contains("state Reset, needed is ReadyToSend"), "{message}");
}

/// What the queue pair was made from may go first; it still works.
#[test]
fn a_queue_pair_keeps_alive_what_it_was_made_from() {
    let Some(bed) = bed() else { return };
    let (one, two) = bed.connected();
    let target: MemoryRegion = bed.memory(4096);
    let Bed { context, domain, .. } = bed;
    drop((context, domain));
    let (End { pair: one, .. }, End { pair: two, .. }) = (one, two);
    let mut receives = ReceiveBatch::default();
    receives.push(1, &[]);
    two.post_receives(&mut receives).unwrap();
    let mut sends = SendBatch::default();
    let operation = Operation::WriteWithImmediate(target.remote(0), 3);
    sends.push(&SendRequest {
        id: 2,
        operation,
        data: Data::Inline(b"still"),
        signalled: true,
        solicited: false,
    });
    one.post_sends(&mut sends).unwrap();
    assert_eq!(take(two.receive_queue(), 1)[0].immediate(), Some(3));
    assert!(take(one.send_queue(), 1)[0].is_success());
    assert_eq!(read(&target, 0, 5), b"still");
}
