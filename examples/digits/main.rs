//! Trains a small network to read handwritten digits, data-parallel: every rank holds the whole network, computes the
//! gradient of its share of each batch, and one all_reduce adds the shares up.
//!
//! ```text
//! cargo build --release
//! target/release/rccl run -n 4 -- target/release/digits curve.svg
//! ```
//!
//! The batches are the same for any number of ranks, so 1, 2 and 4 ranks follow the same curve; the last digits may
//! differ, because sums of floats depend on the order of their terms.

mod curve;
mod data;
mod network;

use std::error::Error;
use std::path::PathBuf;

use rccl::{Communicator, ReduceOp};

use crate::curve::Epoch;
use crate::data::{Example, Shuffler};
use crate::network::PARAMETERS;

const EPOCHS: usize = 30;
/// Images in one step, over all ranks.
const BATCH: usize = 64;
const LEARNING_RATE: f32 = 0.1;
const MOMENTUM: f32 = 0.9;

fn main() -> Result<(), Box<dyn Error>> {
    let picture = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("digits.svg"), PathBuf::from);
    let comm = Communicator::from_env()?;
    let (mut train, test) = data::load();

    // Only rank 0's first weights count; the others would start from different ones without the broadcast.
    let mut parameters = vec![0.0; PARAMETERS];
    network::initialise(&mut parameters, &mut Shuffler(u64::from(comm.rank()) + 1));
    comm.broadcast(&mut parameters, 0)?;

    let mut velocity = vec![0.0; PARAMETERS];
    // Registered memory, which the other ranks on this host read in place. The loss travels with the gradient.
    let mut sums = comm.alloc::<f32>(PARAMETERS + 1)?;
    let mut order = Shuffler(42);
    let mut epochs = Vec::with_capacity(EPOCHS);
    for number in 1..=EPOCHS {
        order.shuffle(&mut train);
        let mut loss = 0.0;
        for batch in train.chunks(BATCH) {
            sums.fill(0.0);
            for example in share(batch, comm.rank(), comm.size()) {
                sums[PARAMETERS] += network::accumulate(&parameters, example, &mut sums[..PARAMETERS]);
            }
            comm.all_reduce(&mut sums, ReduceOp::Sum)?;
            loss += sums[PARAMETERS];
            step(&mut parameters, &mut velocity, &sums, batch.len());
        }
        let (loss, accuracy) = (loss / train.len() as f32, network::accuracy(&parameters, &test));
        epochs.push(Epoch { loss, accuracy });
        if comm.rank() == 0 {
            println!("epoch {number:2}  loss {loss:.6}  test accuracy {:.2} %", accuracy * 100.0);
        }
    }
    if comm.rank() == 0 {
        let right = epochs[EPOCHS - 1].accuracy * 100.0;
        let title =
            format!("{} rank(s): {right:.2} % of {} handwritten digits right", comm.size(), test.len());
        curve::draw(&picture, &title, &epochs)?;
        println!("{title}; curve in {}", picture.display());
    }
    comm.finish()?;
    Ok(())
}

/// The part of a batch that is this rank's: as even as can be, also where the ranks do not divide the batch.
fn share(batch: &[Example], rank: u32, ranks: u32) -> &[Example] {
    let edge = |rank: u32| batch.len() * rank as usize / ranks as usize;
    &batch[edge(rank)..edge(rank + 1)]
}

/// One step of gradient descent with momentum; `sums` holds the gradient summed over `count` examples.
fn step(parameters: &mut [f32], velocity: &mut [f32], sums: &[f32], count: usize) {
    for ((parameter, velocity), sum) in parameters.iter_mut().zip(velocity).zip(sums) {
        *velocity = MOMENTUM * *velocity - LEARNING_RATE * sum / count as f32;
        *parameter += *velocity;
    }
}
