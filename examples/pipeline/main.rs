//! Trains as `digits` does, with the layers dealt to the ranks: each rank is a stage of a pipeline, through which the
//! examples of a batch go in micro-batches, so that all stages have something to do. Values go up from stage to stage,
//! errors come down, and both travel while the stages compute.
//!
//! Where there are more ranks than layers they form several pipelines, and each batch is shared between them; a layer's
//! gradient is then added up over the ranks that hold it. A last pipeline may have fewer ranks: each holds more layers
//! then, and the pipeline takes a smaller share.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/rccl run -n 4 -- target/release/pipeline --hidden 32,32,32
//! ```
#![forbid(unsafe_code)]

mod schedule;

use std::collections::VecDeque;
use std::error::Error;
use std::num::NonZero;
use std::ops::Range;

use clap::Parser;
use rccl::{Communicator, ReduceOp, Work};
use rccl_examples::data::Example;
use rccl_examples::network::{self, Layer};
use rccl_examples::training::{self, Trainer, descend, share};

use crate::schedule::{Pass, one_forward_one_backward};

/// Trains a network to read digits with its layers dealt to the ranks as stages of pipelines.
#[derive(Parser)]
#[command(name = "pipeline", max_term_width = 110)]
struct Options {
    /// Parts that a batch goes through a pipeline in
    #[arg(long, value_name = "N", default_value = "4")]
    micro_batches: NonZero<u32>,
    #[command(flatten)]
    training: training::Options,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let world = Communicator::from_env()?;
    let layers = network::layers(&options.training.hidden);
    let mut stage = Stage::new(&world, &layers, options.micro_batches.get())?;
    training::train(&world, options.training.epochs, &mut stage)?;
    if world.rank() == 0 {
        let stages = stage.up.size();
        let pipelines = world.size().div_ceil(stages);
        println!("{} rank(s): {pipelines} pipeline(s) of up to {stages} stage(s)", world.size());
    }
    drop(stage);
    world.finish()?;
    Ok(())
}

/// What a rank holds: some layers, and its way to the stages before and after.
struct Stage<'a> {
    world: &'a Communicator,
    /// The ranks of this pipeline.
    ranks: Range<u32>,
    /// The ranks of this pipeline, for values on their way up. Calls on one communicator run in their order, so errors
    /// have another one: neither waits for the other.
    up: Communicator,
    /// The same ranks, for errors on their way down.
    down: Communicator,
    held: Vec<Held>,
    micro_batches: u32,
}

/// A layer of this stage.
struct Held {
    layer: Layer,
    parameters: Vec<f32>,
    velocity: Vec<f32>,
    gradient: Vec<f32>,
    /// The ranks of all pipelines that hold this layer.
    holders: Communicator,
}

impl Stage<'_> {
    fn new<'a>(world: &'a Communicator, layers: &[Layer], micro_batches: u32) -> rccl::Result<Stage<'a>> {
        let depth = layers.len() as u32;
        let first = world.rank() / depth * depth;
        let ranks = first..(first + depth).min(world.size());
        let up = world.split(Some(first), 0)?.expect("who names a color gets a communicator");
        let down = up.duplicate()?;

        let own = share(layers, up.rank()..up.rank() + 1, up.size());
        // Every rank draws the first parameters of the whole network and keeps those of its layers.
        let all = network::initial(layers, training::SEED);
        let mut held = Vec::new();
        for layer in layers {
            let is_own = own.iter().any(|own| own.place == layer.place);
            // A rank without the layer takes part in the split, and gets nothing.
            if let Some(holders) = world.split(is_own.then_some(0), 0)? {
                held.push(Held::new(layer, &all[layer.place.clone()], holders));
            }
        }
        Ok(Stage { world, ranks, up, down, held, micro_batches })
    }

    /// The rank in the pipeline from which values come; none for the first stage.
    fn before(&self) -> Option<u32> {
        self.up.rank().checked_sub(1)
    }

    /// The rank in the pipeline from which errors come; none for the last stage.
    fn after(&self) -> Option<u32> {
        Some(self.up.rank() + 1).filter(|&rank| rank < self.up.size())
    }

    /// Starts to receive what this stage needs to go forward with these examples; the first stage has the images.
    fn receive_values(&self, examples: Option<&&[Example]>) -> Option<Work<Vec<f32>>> {
        let width = self.held[0].layer.inputs;
        Some(self.up.start_recv(vec![0.0; examples?.len() * width], self.before()?))
    }

    /// Starts to receive what this stage needs to go backward; the last stage has the labels.
    fn receive_errors(&self, examples: Option<&&[Example]>) -> Option<Work<Vec<f32>>> {
        let width = self.held[self.held.len() - 1].layer.outputs;
        Some(self.down.start_recv(vec![0.0; examples?.len() * width], self.after()?))
    }

    /// The inputs of this stage, once they are here, then the outputs of each of its layers.
    fn forward(&self, arriving: Option<Work<Vec<f32>>>, examples: &[Example]) -> rccl::Result<Vec<Vec<f32>>> {
        let inputs = arriving.map_or_else(|| Ok(network::pixels(examples)), Work::wait)?;
        let mut values = vec![inputs];
        for (number, held) in self.held.iter().enumerate() {
            values.push(held.layer.forward(&held.parameters, &values[number]));
        }
        Ok(values)
    }

    /// Adds to the gradients of this stage; the error for the stage before.
    fn backward(&mut self, values: &[Vec<f32>], mut error: Vec<f32>) -> Vec<f32> {
        let is_first_stage = self.before().is_none();
        for (number, held) in self.held.iter_mut().enumerate().rev() {
            held.layer.accumulate(&values[number], &error, &mut held.gradient);
            if number > 0 || !is_first_stage {
                error = held.layer.back(&held.parameters, &error, &values[number]);
            }
        }
        error
    }

    /// The share of this pipeline.
    fn share<'b>(&self, examples: &'b [Example]) -> &'b [Example] {
        share(examples, self.ranks.clone(), self.world.size())
    }
}

impl Held {
    fn new(layer: &Layer, parameters: &[f32], holders: Communicator) -> Held {
        let zeros = vec![0.0; parameters.len()];
        let (velocity, gradient) = (zeros.clone(), zeros);
        Held { layer: layer.clone(), parameters: parameters.to_vec(), velocity, gradient, holders }
    }
}

impl Trainer for Stage<'_> {
    fn step(&mut self, batch: &[Example]) -> rccl::Result<f32> {
        let mine = self.share(batch);
        let cut = |number| share(mine, number..number + 1, self.micro_batches);
        let micro_batches: Vec<&[Example]> = (0..self.micro_batches).map(cut).collect();
        let (mut loss, mut kept, mut sent) = (0.0, VecDeque::new(), Vec::new());
        let mut values_arrive = self.receive_values(micro_batches.first());
        let mut errors_arrive = self.receive_errors(micro_batches.first());
        // What goes up or down is under way while the stage computes the next pass. Sending copies it: the stage needs
        // its values again on the way back.
        for pass in one_forward_one_backward(self.up.rank(), self.up.size(), micro_batches.len()) {
            match pass {
                Pass::Forward(number) => {
                    let values = self.forward(values_arrive.take(), micro_batches[number])?;
                    if let Some(after) = self.after() {
                        sent.push(self.up.start_send(values[self.held.len()].clone(), after));
                    }
                    values_arrive = self.receive_values(micro_batches.get(number + 1));
                    kept.push_back(values);
                }
                Pass::Backward(number) => {
                    let mut values: Vec<Vec<f32>> = kept.pop_front().expect("forward comes before backward");
                    let outputs = values.pop().expect("a stage has a layer");
                    let error = match errors_arrive.take() {
                        Some(arriving) => arriving.wait()?,
                        None => {
                            let (more, error) = network::loss(outputs, micro_batches[number]);
                            loss += more;
                            error
                        }
                    };
                    let error = self.backward(&values, error);
                    if let Some(before) = self.before() {
                        sent.push(self.down.start_send(error, before));
                    }
                    errors_arrive = self.receive_errors(micro_batches.get(number + 1));
                }
            }
        }
        sent.into_iter().try_for_each(|work| work.wait().map(drop))?;
        for Held { parameters, velocity, gradient, holders, .. } in &mut self.held {
            holders.all_reduce(gradient, ReduceOp::Sum)?;
            descend(parameters, velocity, gradient, batch.len());
            gradient.fill(0.0);
        }
        Ok(loss)
    }

    fn count_right(&mut self, examples: &[Example]) -> rccl::Result<usize> {
        let mine = self.share(examples);
        let values = self.forward(self.receive_values(Some(&mine)), mine)?;
        let outputs = &values[self.held.len()];
        match self.after() {
            Some(after) => self.up.send(outputs, after).map(|()| 0),
            None => Ok(network::count_right(outputs, mine)),
        }
    }
}
