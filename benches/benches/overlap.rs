//! How much of an asynchronous all_reduce is hidden behind computation: run it as every rank of a job.
//!
//! ```sh
//! rccl run -n 2 -- target/release/overlap-bench 16M 7
//! ```
//!
//! Rank 0 prints medians over the rounds, in ms, with least and most: the all_reduce alone, the computation alone (as long
//! as the all_reduce, by calibration), one after the other, and both at once. `tests/hosts.sh` runs it between hosts that
//! are joined by 1 Gbit/s, where both at once should take little longer than the longer of the two.

use rccl::{Buffer, Communicator, ReduceOp, Result};
use std::time::{Duration, Instant};

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let bytes = arguments.next().map_or(Some(16 << 20), |text| size(&text));
    let rounds = arguments.next().map_or(Some(7), |text| text.parse().ok().filter(|&rounds| rounds > 0));
    let (Some(bytes), Some(rounds), None) = (bytes, rounds, arguments.next()) else {
        eprintln!("usage: overlap-bench [BYTES, as 16M] [ROUNDS]");
        return std::process::ExitCode::from(2);
    };
    match measure(bytes, rounds) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn size(text: &str) -> Option<usize> {
    let (number, unit) = match text.strip_suffix(['K', 'M']) {
        Some(number) => (number, if text.ends_with('K') { 1 << 10 } else { 1 << 20 }),
        None => (text, 1),
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// Work for one processor that nothing but its clock bounds.
fn compute(steps: u64) -> u64 {
    (0..steps)
        .fold(1, |x: u64, i| std::hint::black_box(x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23))
}

fn measure(bytes: usize, rounds: usize) -> Result<()> {
    let comm = Communicator::from_env()?;
    let mut gradients = comm.alloc::<f32>(bytes / 4)?;
    gradients.fill(1.0);
    all_reduce(&comm, &mut gradients)?;
    let usual = (0..3).map(|_| all_reduce(&comm, &mut gradients)).collect::<Result<Vec<_>>>();
    let usual = median(&mut usual?);

    // As long as the all_reduce, on every rank the same number of steps.
    const SAMPLE: u64 = 1 << 22;
    let began = Instant::now();
    std::hint::black_box(compute(SAMPLE));
    let mut steps = [(SAMPLE as f64 * usual.as_secs_f64() / began.elapsed().as_secs_f64()) as u64];
    comm.broadcast(&mut steps, 0)?;
    let [steps] = steps;

    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        times[0].push(all_reduce(&comm, &mut gradients)?);
        comm.barrier()?;
        let began = Instant::now();
        std::hint::black_box(compute(steps));
        times[1].push(began.elapsed());
    }
    for _ in 0..rounds {
        for (at_once, times) in [false, true].into_iter().zip(&mut times[2..]) {
            comm.barrier()?;
            let began = Instant::now();
            let work = comm.start_all_reduce(gradients, ReduceOp::Max);
            if at_once {
                std::hint::black_box(compute(steps));
                gradients = work.wait()?;
            } else {
                gradients = work.wait()?;
                std::hint::black_box(compute(steps));
            }
            times.push(began.elapsed());
        }
    }
    if comm.rank() == 0 {
        let names = ["all_reduce", "computation", "one after the other", "both at once"];
        let medians = times.each_mut().map(|times| median(times));
        for ((name, median), times) in names.iter().zip(medians).zip(&times) {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let (least, most) = (times[0], times[times.len() - 1]);
            println!("{name:20} {:9.3} ms ({:.3} - {:.3})", ms(median), ms(least), ms(most));
        }
        let larger = medians[0].max(medians[1]);
        let ratio = |time: Duration, to: Duration| time.as_secs_f64() / to.as_secs_f64();
        println!("at once / the larger of the two  {:.3}", ratio(medians[3], larger));
        println!("at once / one after the other    {:.3}", ratio(medians[3], medians[2]));
    }
    comm.finish()
}

/// How long a blocking call takes.
fn all_reduce(comm: &Communicator, x: &mut Buffer<f32>) -> Result<Duration> {
    comm.barrier()?;
    let began = Instant::now();
    comm.all_reduce(x, ReduceOp::Max)?;
    Ok(began.elapsed())
}

/// The middle one; sorts them.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
