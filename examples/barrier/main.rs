//! The smallest program: join, pass one barrier, leave.
//!
//! ```text
//! target/release/rccl run -n 64 -- target/release/barrier
//! ```
//!
//! Rank 0 says how long the joining took. `peers join` (benches/peers) times the same from outside: it sets PEERS_START
//! (seconds since 1970, just before the launcher started) and names a file for the seconds since then.

use std::error::Error;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rccl::Communicator;

fn main() -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let comm = Communicator::from_env()?;
    comm.barrier()?;
    let past_the_barrier = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    if comm.rank() == 0 {
        println!("{} rank(s) joined and met in {:.1} ms", comm.size(), began.elapsed().as_secs_f64() * 1e3);
        if let (Ok(start), Some(file)) = (std::env::var("PEERS_START"), std::env::args_os().nth(1)) {
            std::fs::write(file, format!("{:.6}\n", past_the_barrier - start.parse::<f64>()?))?;
        }
    }
    comm.finish()?;
    Ok(())
}
