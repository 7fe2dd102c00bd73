//! Latency of a shared-memory link between two pinned threads, beside a bare cache-line ping-pong.
//!
//! `cargo run --release -p rccl-transport --example shm_probe` prints the median round trip of both, in nanoseconds,
//! measured by turns so that other work on the machine troubles both alike.

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() {
    let (mut bare, mut link, mut fenced) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..15 {
        bare.push(probe::bare());
        link.push(probe::link(false));
        fenced.push(probe::link(true));
    }
    for (name, times) in [("bare line", &mut bare), ("link, 8 B", &mut link), ("link and flush", &mut fenced)]
    {
        times.sort_by(f64::total_cmp);
        println!("{name:15} median {:6.0} ns  min {:6.0} ns  max {:6.0} ns", times[7], times[0], times[14]);
    }
    println!("lookup in 2 of 10 regions {:.1} ns", probe::lookup());
    probe::fences();
}

#[cfg(not(loom))]
mod probe {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use rccl_transport::memory::RegionTable;
    use rccl_transport::{Link, Source, Tag, loopback, shm::Options};

    const ROUNDS: u64 = 20_000;

    fn pin(cpu: usize) {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }

    fn timed(here: impl FnMut(u64) + Send, there: impl FnMut(u64) + Send) -> f64 {
        let (mut here, mut there) = (here, there);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                pin(1);
                (0..ROUNDS).for_each(&mut there);
            });
            scope
                .spawn(move || {
                    pin(0);
                    (0..1000).for_each(&mut here);
                    let start = Instant::now();
                    (1000..ROUNDS).for_each(&mut here);
                    start.elapsed().as_nanos() as f64 / (ROUNDS - 1000) as f64
                })
                .join()
                .unwrap()
        })
    }

    #[repr(align(128))]
    struct Apart(AtomicU64);

    pub fn bare() -> f64 {
        let (ping, pong) = (Apart(AtomicU64::new(0)), Apart(AtomicU64::new(0)));
        let (ping, pong) = (&ping, &pong);
        let await_value = |word: &Apart, value| {
            while word.0.load(Ordering::Acquire) != value {
                std::hint::spin_loop();
            }
        };
        timed(
            move |i| {
                ping.0.store(i + 1, Ordering::Release);
                await_value(pong, i + 1);
            },
            move |i| {
                await_value(ping, i + 1);
                pong.0.store(i + 1, Ordering::Release);
            },
        )
    }

    fn send(link: &mut dyn Link, tag: Tag, flush: bool) {
        let bytes = tag.sequence as u64;
        // SAFETY: the word is readable.
        while !unsafe { link.send_eager(tag, (&raw const bytes).cast(), 8) }.unwrap() {
            link.poll().unwrap();
        }
        if flush {
            link.flush().unwrap();
        }
    }

    fn receive(link: &mut dyn Link, tag: Tag) {
        let m = link.open_recv(tag, 8, false, None).unwrap().unwrap();
        let head = loop {
            link.poll().unwrap();
            if let Some(head) = link.incoming(m).unwrap() {
                break head;
            }
            std::hint::spin_loop();
        };
        assert!(head.tag == tag);
        let Source::Eager(bytes) = head.source else { panic!() };
        // SAFETY: eight bytes are readable until released.
        assert_eq!(unsafe { bytes.cast::<u64>().read_unaligned() }, tag.sequence as u64);
        link.release(m, 8).unwrap();
        link.close_recv(m);
    }

    pub fn link(flush: bool) -> f64 {
        let (mut a, mut b) = loopback::pair(&Options::default()).unwrap();
        let tag = |i| Tag { sequence: i as u32, call: [1, 2] };
        timed(
            move |i| {
                send(&mut a, tag(i), flush);
                receive(&mut a, tag(i));
            },
            move |i| {
                receive(&mut b, tag(i));
                send(&mut b, tag(i), flush);
            },
        )
    }

    pub fn lookup() -> f64 {
        let table = RegionTable::new();
        let regions: Vec<_> = (0..10).map(|_| table.alloc(8192).unwrap()).collect();
        let start = Instant::now();
        let mut found = 0;
        for i in 0..1_000_000usize {
            let region = std::hint::black_box(&regions[i % 2]);
            found += usize::from(table.lookup(region.as_ptr(), 100).is_some());
        }
        assert_eq!(found, 1_000_000);
        start.elapsed().as_nanos() as f64 / 1e6
    }

    /// What the two kinds of fences cost.
    pub fn fences() {
        let word = AtomicU64::new(0);
        let start = Instant::now();
        for i in 0..1_000_000 {
            std::hint::black_box(&word).store(i, Ordering::Relaxed);
            std::sync::atomic::fence(Ordering::SeqCst);
        }
        println!("full fence {:.1} ns", start.elapsed().as_nanos() as f64 / 1e6);
        let membarrier = |command: libc::c_int| {
            // SAFETY: takes integers only.
            unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
        };
        if membarrier(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) != 0 {
            return println!("no membarrier here");
        }
        let start = Instant::now();
        for _ in 0..1000 {
            membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED);
        }
        println!("membarrier {:.0} ns", start.elapsed().as_nanos() as f64 / 1e3);
    }
}
