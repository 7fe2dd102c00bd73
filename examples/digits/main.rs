//! Trains a small network to read handwritten digits, data-parallel: every rank holds the whole network, computes the
//! gradient of its share of each batch, and one all_reduce adds the shares up.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/rccl run -n 4 -- target/release/digits curve.svg
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use rccl::{Buffer, Communicator, ReduceOp};
use rccl_examples::data::Example;
use rccl_examples::network::{self, Layer};
use rccl_examples::training::{self, Trainer, descend, share};
use rccl_examples::{curve, data};

/// Trains a network to read digits, data-parallel: every rank has all parameters and a share of each batch.
#[derive(Parser)]
#[command(name = "digits", max_term_width = 110)]
struct Options {
    /// File for the picture of loss and accuracy
    #[arg(default_value = "digits.svg")]
    picture: PathBuf,
    #[command(flatten)]
    training: training::Options,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let comm = Communicator::from_env()?;
    let mut replica = Replica::new(&comm, network::layers(&options.training.hidden))?;
    let epochs = training::train(&comm, options.training.epochs, &mut replica)?;
    if let (0, Some(last)) = (comm.rank(), epochs.last()) {
        let tested = data::load().1.len();
        let right = last.accuracy * 100.0;
        let title = format!("{} rank(s): {right:.2} % of {tested} handwritten digits right", comm.size());
        curve::draw(&options.picture, &title, &epochs)?;
        println!("{title}; curve in {}", options.picture.display());
    }
    comm.finish()?;
    Ok(())
}

/// The whole network, as every rank holds it.
struct Replica<'a> {
    comm: &'a Communicator,
    layers: Vec<Layer>,
    parameters: Vec<f32>,
    velocity: Vec<f32>,
    /// In registered memory, which the other ranks on this host read in place.
    gradient: Buffer<f32>,
}

impl Replica<'_> {
    fn new(comm: &Communicator, layers: Vec<Layer>) -> rccl::Result<Replica<'_>> {
        // Only rank 0's first parameters count; the others would start from different ones without the broadcast.
        let mut parameters = network::initial(&layers, training::SEED + u64::from(comm.rank()));
        comm.broadcast(&mut parameters, 0)?;
        let velocity = vec![0.0; parameters.len()];
        let gradient = comm.alloc(parameters.len())?;
        Ok(Replica { comm, layers, parameters, velocity, gradient })
    }

    fn share<'b>(&self, examples: &'b [Example]) -> &'b [Example] {
        let rank = self.comm.rank();
        share(examples, rank..rank + 1, self.comm.size())
    }
}

impl Trainer for Replica<'_> {
    fn step(&mut self, batch: &[Example]) -> rccl::Result<f32> {
        self.gradient.fill(0.0);
        let mine = self.share(batch);
        let loss = network::accumulate(&self.layers, &self.parameters, mine, &mut self.gradient);
        self.comm.all_reduce(&mut self.gradient, ReduceOp::Sum)?;
        descend(&mut self.parameters, &mut self.velocity, &self.gradient, batch.len());
        Ok(loss)
    }

    fn count_right(&mut self, examples: &[Example]) -> rccl::Result<usize> {
        let mine = self.share(examples);
        let values = network::forward(&self.layers, &self.parameters, mine);
        Ok(values.last().map_or(0, |probabilities| network::count_right(probabilities, mine)))
    }
}
