//! The ring of shared-memory links, both ends on one thread: what an announcement costs without the other core.
//! (Round trips between two cores: the example `shm_probe` of `rccl-transport`.)

#![expect(missing_docs, reason = "criterion_group! makes a public function without documentation")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rccl_transport::loopback::{self, Loopback};
use rccl_transport::shm::Options;
use rccl_transport::{Link, Place, Sink, Source, Tag};

const TAG: Tag = Tag { sequence: 1, call: [2, 3] };

/// One eager message from end to end.
fn eager(a: &mut Loopback, b: &mut Loopback, bytes: &[u8]) {
    // SAFETY: the slice is readable.
    assert!(unsafe { a.send_eager(TAG, bytes.as_ptr(), bytes.len()) }.unwrap());
    a.flush().unwrap();
    let m = b.open_recv(TAG, bytes.len() as u64, false, None).unwrap().unwrap();
    b.poll().unwrap();
    let head = b.incoming(m).unwrap().unwrap();
    assert!(matches!(head.source, Source::Eager(_)));
    b.release(m, bytes.len() as u64).unwrap();
    b.close_recv(m);
    b.flush().unwrap();
    a.poll().unwrap();
}

/// One staged message of a single slot.
fn staged(a: &mut Loopback, b: &mut Loopback, len: usize) {
    let sent = a.open_send(TAG, len as u64, None).unwrap().unwrap();
    let m = b.open_recv(TAG, len as u64, false, None).unwrap().unwrap();
    a.flush().unwrap();
    b.flush().unwrap();
    a.poll().unwrap();
    assert_eq!(a.sink(sent).unwrap(), Sink::Staged);
    let _ = std::hint::black_box(a.reserve(sent, len).unwrap().unwrap());
    a.commit(sent, len).unwrap();
    a.close_send(sent);
    a.flush().unwrap();
    b.poll().unwrap();
    assert!(b.peek(m).unwrap().is_some());
    b.release(m, len as u64).unwrap();
    b.close_recv(m);
    b.flush().unwrap();
    a.poll().unwrap();
}

/// The four grants with which a direct all_reduce of two ranks begins, and their release.
fn grants(a: &mut Loopback, b: &mut Loopback, place: Place) {
    const LEN: u64 = 1 << 20;
    let open = |link: &mut Loopback| {
        let sends = [Some(place), None].map(|place| link.open_send(TAG, LEN, place).unwrap().unwrap());
        let recvs = [None, Some(place)].map(|place| link.open_recv(TAG, LEN, false, place).unwrap().unwrap());
        link.flush().unwrap();
        (sends, recvs)
    };
    let (at_a, at_b) = (open(a), open(b));
    for (link, (sends, recvs)) in [(&mut *a, &at_a), (&mut *b, &at_b)] {
        link.poll().unwrap();
        for (&sent, &received) in sends.iter().zip(recvs) {
            link.incoming(received).unwrap().unwrap();
            if let Sink::Mapped(_) = link.sink(sent).unwrap() {
                link.wrote(sent, LEN).unwrap();
            }
            link.release(received, LEN).unwrap();
        }
        link.flush().unwrap();
    }
    for (link, (sends, recvs)) in [(a, &at_a), (b, &at_b)] {
        link.poll().unwrap();
        sends.iter().for_each(|&m| link.close_send(m));
        recvs.iter().for_each(|&m| link.close_recv(m));
    }
}

fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    let (mut a, mut b) = loopback::pair(&Options::default()).unwrap();
    let bytes = vec![7u8; 32 << 10];
    for len in [8, 40, 512, 8192] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("eager {len}"), |bencher| {
            bencher.iter(|| eager(&mut a, &mut b, &bytes[..len]));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("slot", |bencher| bencher.iter(|| staged(&mut a, &mut b, 32 << 10)));
    let place = Place::at_address(bytes.as_ptr());
    group.bench_function("grants of a direct all_reduce", |bencher| {
        bencher.iter(|| grants(&mut a, &mut b, place));
    });
    group.bench_function("poll without news", |bencher| bencher.iter(|| a.poll().unwrap()));
    group.finish();
}

criterion_group!(benches, rings);
criterion_main!(benches);
