//! Trains as `digits` does, but no rank holds the whole network: of each layer it keeps one shard of the parameters and
//! of the optimizer's state, as ZeRO (Rajbhandari et al., 2020) and fully sharded data parallel do.
//!
//! A layer is put together by an all_gather just before it is needed and forgotten after; its gradient goes into a
//! reduce_scatter, which leaves every rank with the sum for its own shard. So a rank needs memory for its shards and one
//! whole layer, and no more.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/rccl run -n 4 -- target/release/sharded
//! ```
#![forbid(unsafe_code)]

use std::error::Error;

use clap::Parser;
use rccl::{Communicator, ReduceOp};
use rccl_examples::data::Example;
use rccl_examples::network::{self, Layer};
use rccl_examples::training::{self, Trainer, descend, share};

/// Trains a network to read digits with its parameters and optimizer state sharded over the ranks.
#[derive(Parser)]
#[command(name = "sharded", max_term_width = 110)]
struct Options {
    #[command(flatten)]
    training: training::Options,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let comm = Communicator::from_env()?;
    let layers = network::layers(&options.training.hidden);
    let mut sharded = Sharded::new(&comm, &layers)?;
    training::train(&comm, options.training.epochs, &mut sharded)?;
    if comm.rank() == 0 {
        let mine: usize = sharded.shards.iter().map(|shard| shard.parameters.len()).sum();
        let all = layers.last().map_or(0, |layer| layer.place.end);
        println!("rank 0 of {} kept {mine} of {all} parameters", comm.size());
    }
    comm.finish()?;
    Ok(())
}

/// This rank's shards of all layers.
struct Sharded<'a> {
    comm: &'a Communicator,
    shards: Vec<Shard>,
}

/// This rank's part of a layer.
struct Shard {
    layer: Layer,
    /// Parameters that each rank keeps: the layer's as even as can be, whatever the number of ranks.
    counts: Vec<usize>,
    parameters: Vec<f32>,
    velocity: Vec<f32>,
}

impl Sharded<'_> {
    fn new<'a>(comm: &'a Communicator, layers: &[Layer]) -> rccl::Result<Sharded<'a>> {
        // Rank 0 deals the first parameters out.
        let all = if comm.rank() == 0 { network::initial(layers, training::SEED) } else { Vec::new() };
        let shards = layers.iter().map(|layer| Shard::new(comm, layer, all.get(layer.place.clone())));
        Ok(Sharded { comm, shards: shards.collect::<rccl::Result<_>>()? })
    }

    /// The images, then the outputs of every layer.
    fn forward(&self, examples: &[Example]) -> rccl::Result<Vec<Vec<f32>>> {
        let mut values = vec![network::pixels(examples)];
        for (number, shard) in self.shards.iter().enumerate() {
            values.push(shard.layer.forward(&shard.gather(self.comm)?, &values[number]));
        }
        Ok(values)
    }

    fn share<'b>(&self, examples: &'b [Example]) -> &'b [Example] {
        let rank = self.comm.rank();
        share(examples, rank..rank + 1, self.comm.size())
    }
}

impl Shard {
    /// `all`: the layer's first parameters, on rank 0.
    fn new(comm: &Communicator, layer: &Layer, all: Option<&[f32]>) -> rccl::Result<Shard> {
        let length = layer.place.len();
        let edge = |rank: u32| length * rank as usize / comm.size() as usize;
        let counts: Vec<usize> = (0..comm.size()).map(|rank| edge(rank + 1) - edge(rank)).collect();
        let mut parameters = vec![0.0; counts[comm.rank() as usize]];
        comm.scatter_v_into(all.unwrap_or_default(), &counts, &mut parameters, 0)?;
        let velocity = vec![0.0; parameters.len()];
        Ok(Shard { layer: layer.clone(), counts, parameters, velocity })
    }

    /// The layer's parameters, from all ranks.
    fn gather(&self, comm: &Communicator) -> rccl::Result<Vec<f32>> {
        let mut whole = vec![0.0; self.layer.place.len()];
        comm.all_gather_v_into(&self.parameters, &mut whole, &self.counts)?;
        Ok(whole)
    }
}

impl Trainer for Sharded<'_> {
    fn step(&mut self, batch: &[Example]) -> rccl::Result<f32> {
        let mine = self.share(batch);
        let mut values = self.forward(mine)?;
        let (loss, mut error) = network::loss(values.pop().unwrap_or_default(), mine);
        for (number, shard) in self.shards.iter_mut().enumerate().rev() {
            let mut gradient = vec![0.0; shard.layer.place.len()];
            shard.layer.accumulate(&values[number], &error, &mut gradient);
            if number > 0 {
                error = shard.layer.back(&shard.gather(self.comm)?, &error, &values[number]);
            }
            let mut sum = vec![0.0; shard.parameters.len()];
            self.comm.reduce_scatter_v_into(&gradient, &mut sum, &shard.counts, ReduceOp::Sum)?;
            descend(&mut shard.parameters, &mut shard.velocity, &sum, batch.len());
        }
        Ok(loss)
    }

    fn count_right(&mut self, examples: &[Example]) -> rccl::Result<usize> {
        let mine = self.share(examples);
        let values = self.forward(mine)?;
        Ok(values.last().map_or(0, |probabilities| network::count_right(probabilities, mine)))
    }
}
