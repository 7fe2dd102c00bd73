//! What the system refuses costs speed, or is an error that says limit and remedy; never a hang, a crash, or a wrong
//! result.
#![cfg(target_arch = "x86_64")]

mod processes;

use processes::{DEADLINE, Job, hear, join, say, say_failed, task};
use rccl::{Communicator, ReduceOp};
use std::time::{Duration, Instant};

/// Has this thread and those that it starts refused some system calls, by a filter as containers install them.
fn refuse(calls: &[libc::c_long], errno: libc::c_int) {
    // Offsets in the kernel's `struct seccomp_data`; the number of x86_64 calls is all that these tests need.
    const NUMBER: u32 = 0;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER)];
    for (i, &call) in calls.iter().enumerate() {
        let to_refusal = (calls.len() - i) as u8;
        program.push(libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: to_refusal,
            jf: 0,
            k: call as u32,
        });
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes integers only.
    let answer = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(answer, 0, "no new privileges");
    // SAFETY: the filter points to a program that lives across the call.
    let answer = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(answer, 0, "installing the filter: {}", std::io::Error::last_os_error());
}

fn limit_files(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is valid for the call.
    let answer = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(answer, 0, "setting the limit");
}

/// What each rank does; started by the tests below.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    match task.split(' ').collect::<Vec<_>>()[..] {
        ["copies"] => refuse(&[libc::SYS_process_vm_readv, libc::SYS_process_vm_writev], libc::EPERM),
        ["memfd"] => refuse(&[libc::SYS_memfd_create], libc::ENOSYS),
        ["directory"] => refuse(&[libc::SYS_mkdir, libc::SYS_mkdirat], libc::EROFS),
        ["files", most] => limit_files(most.parse().expect("a number")),
        _ => {}
    }
    let comm = join();
    let mut taken = Vec::new();
    if task == "full" {
        limit_files(64);
        taken.extend(std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()));
    }
    match calls(&comm) {
        Ok(()) => {
            for (peer, transport, reason) in comm.transports() {
                say(&format!("reached {peer} {transport}: {reason}"));
            }
            comm.finish().expect("leaving");
            say("done");
        }
        Err(error) => {
            say_failed(&error);
            // The others are to be told by the failure itself, not by this rank's leaving.
            while hear().is_some() {}
        }
    }
}

fn calls(comm: &Communicator) -> rccl::Result<()> {
    for count in [1, 1000, 100_000, 1_000_000] {
        let mut x: Vec<u64> = (0..count).map(|i| i + u64::from(comm.rank())).collect();
        let ranks = u64::from(comm.size());
        comm.all_reduce(&mut x, ReduceOp::Sum)?;
        assert!((0..count).all(|i| x[i as usize] == i * ranks + ranks * (ranks - 1) / 2), "{count} elements");
        comm.broadcast(&mut x[..count as usize], 1)?;
    }
    Ok(())
}

/// What each rank says of how it reaches the others, when `settings` hold for all and `task` for some.
fn reached(size: u32, task: &'static str, who: &'static [u32], settings: &[(&str, &str)]) -> Vec<String> {
    let mut job = Job::start(size, "", settings, move |rank, command| {
        if who.contains(&rank) {
            command.env("TEST_TASK", task);
            if task == "disabled" {
                command.env("RCCL_COPY_DISABLE", "1");
            }
        }
    });
    let mut lines = Vec::new();
    for rank in &job.ranks {
        for _ in 1..size {
            lines.push(rank.says("reached").1);
        }
        rank.says("done");
    }
    assert!(job.end().iter().all(|status| status.success()));
    assert_eq!(job.left_behind(), Vec::<std::path::PathBuf>::new());
    lines
}

fn all(lines: &[String], words: &[&str]) {
    for line in lines {
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} expected: {line}");
    }
}

#[test]
fn copies_that_are_refused_are_staged() {
    let refused = ["shm", "process_vm copies refused", "Operation not permitted", "staged"];
    all(&reached(3, "copies", &[0, 1, 2], &[]), &refused);
    // One side is enough, and both say so.
    all(&reached(2, "copies", &[0], &[]), &refused);
    all(&reached(2, "copies", &[1], &[]), &refused);
    // Nothing is refused without the filter, so that the above shows something.
    let usual = reached(2, "", &[], &[]);
    assert!(usual.iter().all(|line| line.ends_with("same host: shared memory")), "{usual:?}");
}

#[test]
fn copies_that_are_switched_off_are_staged() {
    let disabled = ["shm", "RCCL_COPY_DISABLE is set", "staged"];
    all(&reached(2, "", &[], &[("RCCL_COPY_DISABLE", "1")]), &disabled);
    all(&reached(2, "disabled", &[1], &[]), &disabled);
    all(&reached(2, "disabled", &[0], &[]), &disabled);
}

#[test]
fn without_memfd_it_is_tcp() {
    let words = ["tcp", "no shared memory", "Function not implemented"];
    all(&reached(2, "memfd", &[0, 1], &[]), &words);
    all(&reached(2, "memfd", &[0], &[]), &words);
    // With algorithms that need memory of their own too.
    all(&reached(3, "memfd", &[0, 1, 2], &[("RCCL_ALGO", "tree,doubling,binomial")]), &["tcp"]);
}

#[test]
fn without_a_directory_it_is_tcp() {
    let words = ["tcp", "the peer could not open a path socket"];
    all(&reached(2, "directory", &[0, 1], &[]), &words);
    all(&reached(2, "directory", &[1], &[]), &words);
}

#[test]
fn without_a_directory_and_with_shm_only_it_is_an_error() {
    let settings = [("RCCL_TRANSPORT", "shm")];
    let mut job = Job::start(2, "directory", &settings, |_, _| {}).joined();
    for rank in &job.ranks {
        let line = rank.says("failed").1;
        assert!(line.contains("RCCL-2005") && line.contains("RCCL_TRANSPORT"), "{line}");
    }
    assert!(job.end().iter().all(|status| status.success()));
}

/// Whatever the limit, each rank ends by itself, with right results or with an error that says what to do.
#[test]
fn few_descriptors_are_an_error_or_enough() {
    let settings = [("RCCL_INIT_TIMEOUT", "3"), ("RCCL_TIMEOUT", "10")];
    // Every number at which something else fails, at either end: how many are open before varies.
    let limits = (4..=24).chain([28, 40]).flat_map(|most| [(most, 0), (most, 1)]);
    let jobs = limits.map(|(most, limited)| {
        let limit = move |rank, command: &mut std::process::Command| {
            if rank == limited {
                command.env("TEST_TASK", format!("files {most}"));
            }
        };
        (most, limited as usize, Job::start(2, "", &settings, limit))
    });
    let jobs: Vec<_> = jobs.collect();
    let began = Instant::now();
    for (most, limited, mut job) in jobs {
        let lines: Vec<String> =
            job.ranks.iter().map(|rank| rank.says_any(&["done", "not joined", "failed", "lost"])).collect();
        eprintln!("{most} descriptors of rank {limited}: {lines:#?}");
        let said = &lines[limited];
        assert!(said == "done" || said.contains("ulimit -n"), "{most} descriptors: {said}");
        for (rank, status) in job.end().into_iter().enumerate() {
            assert!(status.code().is_some(), "rank {rank} with {most} descriptors: {status}");
        }
        assert!(began.elapsed() < DEADLINE, "{most} descriptors");
        if most >= 40 {
            assert_eq!(lines, ["done", "done"]);
        }
    }
}

/// It cannot be reached, and nobody waits for its deadline to hear that.
#[test]
fn a_member_without_descriptors_is_named() {
    for (transport, full) in [("shm", 1), ("tcp", 1), ("shm,tcp", 0), ("tcp", 0)] {
        let settings = [("RCCL_TRANSPORT", transport)];
        let limit = |rank, command: &mut std::process::Command| {
            if rank == full {
                command.env("TEST_TASK", "full");
            }
        };
        let mut job = Job::start(3, "", &settings, limit).joined();
        let began = Instant::now();
        for rank in &job.ranks {
            let (_, line) = rank.says("failed");
            assert!(
                line.contains("ulimit -n") && line.contains(&format!("rank {full}")),
                "{transport}: {line}"
            );
        }
        assert!(began.elapsed() < Duration::from_secs(12), "{transport}: {:?}", began.elapsed());
        assert!(job.end().iter().all(|status| status.success()));
    }
}
