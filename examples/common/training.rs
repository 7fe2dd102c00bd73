//! The training that all examples do, each in its own way: epochs of shuffled batches, gradient descent with momentum.
//!
//! Seeds, batches and steps are the same for any way and any number of ranks, so all follow the same curve; the last
//! digits may differ, because sums of floats depend on the order of their terms.

use crate::curve::Epoch;
use crate::data::{self, Example, Shuffler};
use rccl::{Communicator, ReduceOp};
use std::num::NonZero;
use std::ops::Range;

/// Images in one step, over all ranks.
pub const BATCH: usize = 64;
const LEARNING_RATE: f32 = 0.1;
const MOMENTUM: f32 = 0.9;
/// Seed of the first parameters.
pub const SEED: u64 = 1;

/// Options of all trainings.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    /// Widths of the hidden layers
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', default_value = "32")]
    pub hidden: Vec<NonZero<usize>>,
    /// How often every image is seen
    #[arg(long, value_name = "N", default_value = "30")]
    pub epochs: NonZero<usize>,
}

/// A way to train: what one rank holds, and how it works with the others.
pub trait Trainer {
    /// Does one step with a batch. Every rank gets the whole batch and takes its part of it. Returns the loss, summed
    /// over the examples for which this rank has computed it; added up over all ranks, each counts once.
    ///
    /// # Errors
    /// Of the calls that it makes.
    fn step(&mut self, batch: &[Example]) -> rccl::Result<f32>;

    /// How many of the examples that this rank takes are recognised; added up over all ranks, each counts once.
    ///
    /// # Errors
    /// Of the calls that it makes.
    fn count_right(&mut self, examples: &[Example]) -> rccl::Result<usize>;
}

/// Trains, and returns what each epoch ended with, the same on every rank. Rank 0 prints it too.
///
/// # Errors
/// Those of the trainer, and of the calls on `comm`.
pub fn train(
    comm: &Communicator,
    epochs: NonZero<usize>,
    trainer: &mut impl Trainer,
) -> rccl::Result<Vec<Epoch>> {
    let (mut train, test) = data::load();
    let mut order = Shuffler(42);
    let mut ended = Vec::new();
    for number in 1..=epochs.get() {
        order.shuffle(&mut train);
        let loss = epoch(&train, trainer)?;
        let mut sums = [loss, trainer.count_right(&test)? as f32];
        comm.all_reduce(&mut sums, ReduceOp::Sum)?;
        let (loss, accuracy) = (sums[0] / train.len() as f32, sums[1] / test.len() as f32);
        if comm.rank() == 0 {
            println!("epoch {number:2}  loss {loss:.6}  test accuracy {:.2} %", accuracy * 100.0);
        }
        ended.push(Epoch { loss, accuracy });
    }
    Ok(ended)
}

/// One pass over the examples; the loss that this rank has computed.
///
/// # Errors
/// Those of the trainer.
pub fn epoch(examples: &[Example], trainer: &mut impl Trainer) -> rccl::Result<f32> {
    examples.chunks(BATCH).map(|batch| trainer.step(batch)).sum()
}

/// The part of `items` that those of `of` takers take together whose numbers are in `takers`: as even as can be, also
/// where their number does not divide the items.
pub fn share<T>(items: &[T], takers: Range<u32>, of: u32) -> &[T] {
    let edge = |taker: u32| items.len() * taker as usize / of as usize;
    &items[edge(takers.start)..edge(takers.end)]
}

/// One step of gradient descent with momentum; `gradient` is summed over `count` examples.
pub fn descend(parameters: &mut [f32], velocity: &mut [f32], gradient: &[f32], count: usize) {
    for ((parameter, velocity), sum) in parameters.iter_mut().zip(velocity).zip(gradient) {
        *velocity = MOMENTUM * *velocity - LEARNING_RATE * sum / count as f32;
        *parameter += *velocity;
    }
}
