//! Trains as `digits` does, with the gradient in buckets: the all_reduce of the last layers' gradients is under way while
//! those of the layers before are still computed, so that part of the communication costs no time.
//!
//! After the training it takes every batch twice more, once in buckets and once in one, and says how much of the
//! communication the buckets have hidden.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/rccl run -n 2 -- target/release/overlap --hidden 512,512,512 --epochs 1 --buckets 4 \
//!     --trace trace.json --picture overlap.svg
//! ```
#![forbid(unsafe_code)]

mod steps;
mod timeline;
mod trace;

use std::error::Error;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Instant;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use rccl::{Buffer, Communicator, ReduceOp};
use rccl_examples::data::{self, Example};
use rccl_examples::network::{self, Layer};
use rccl_examples::training::{self, BATCH, Trainer, descend, share};

use crate::steps::Steps;
use crate::trace::{Tracer, Watched, What};

/// Trains a network to read digits, data-parallel, with communication under way while gradients are computed.
#[derive(Parser)]
#[command(name = "overlap", max_term_width = 110)]
struct Options {
    /// Parts that the gradient is added up in, at most one for each layer; one part hides nothing
    #[arg(long, value_name = "N", default_value = "2")]
    buckets: NonZero<usize>,
    /// File for a trace of all ranks, for chrome://tracing or ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// File for a picture of one step in buckets and one without (SVG)
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    #[command(flatten)]
    training: training::Options,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let layers = network::layers(&options.training.hidden);
    let buckets = options.buckets.get();
    if buckets > layers.len() {
        let what = format!("{buckets} buckets for {} layers: a bucket has at least one layer", layers.len());
        Options::command().error(ErrorKind::ValueValidation, what).exit();
    }
    let comm = Communicator::from_env()?;
    let mut replica = Replica::new(&comm, layers, buckets)?;
    training::train(&comm, options.training.epochs, &mut replica)?;

    replica.tracer = Tracer::new(&comm)?;
    for batch in data::load().0.chunks(BATCH) {
        for buckets in [buckets, 1] {
            replica.buckets = buckets;
            replica.step(batch)?;
        }
    }
    let ranks = replica.tracer.gather(&comm)?;
    if comm.rank() == 0 {
        // The steps are numbered from 1, those in buckets first.
        let in_buckets = Steps::of(&ranks, buckets, |step| step % 2 == 1);
        let in_one = Steps::of(&ranks, 1, |step| step % 2 == 0);
        println!("{in_one}\n{in_buckets}");
        match 100.0 * (1.0 - in_buckets.waited / in_one.waited) {
            share if share > 0.0 => println!("{share:.0} % of what one bucket waits for is hidden"),
            _ => println!("nothing is hidden: the calls are too short, or no core is free for them"),
        }
        if let Some(file) = &options.trace {
            trace::write(file, &ranks)?;
            println!("trace in {}", file.display());
        }
        if let Some(file) = &options.picture {
            timeline::draw(file, &ranks, &[&in_one, &in_buckets])?;
            println!("picture in {}", file.display());
        }
    }
    comm.finish()?;
    Ok(())
}

/// The whole network, as every rank holds it.
struct Replica<'a> {
    comm: &'a Communicator,
    layers: Vec<Layer>,
    buckets: usize,
    parameters: Vec<f32>,
    velocity: Vec<f32>,
    /// In registered memory, which the other ranks on this host read in place.
    gradient: Buffer<f32>,
    tracer: Tracer,
}

impl Replica<'_> {
    fn new(comm: &Communicator, layers: Vec<Layer>, buckets: usize) -> rccl::Result<Replica<'_>> {
        let mut parameters = network::initial(&layers, training::SEED);
        comm.broadcast(&mut parameters, 0)?;
        let velocity = vec![0.0; parameters.len()];
        let (gradient, tracer) = (comm.alloc(parameters.len())?, Tracer::new(comm)?);
        Ok(Replica { comm, layers, buckets, parameters, velocity, gradient, tracer })
    }

    fn share<'b>(&self, examples: &'b [Example]) -> &'b [Example] {
        let rank = self.comm.rank();
        share(examples, rank..rank + 1, self.comm.size())
    }
}

impl Trainer for Replica<'_> {
    fn step(&mut self, batch: &[Example]) -> rccl::Result<f32> {
        let mine = self.share(batch);
        let Replica { comm, layers, buckets, parameters, velocity, gradient, tracer } = self;
        tracer.next_step();
        let mut values = tracer.compute(What::Forward, || network::forward(layers, parameters, mine));
        let (loss, mut error) = network::loss(values.pop().unwrap_or_default(), mine);
        gradient.fill(0.0);
        // The gradient of the layers that are not done yet.
        let mut rest = &mut gradient[..];
        comm.scope(|calls| {
            let mut under_way = Vec::new();
            for (number, layer) in layers.iter().enumerate().rev() {
                let (values, place) = (&values[number], layer.place.clone());
                tracer.compute(What::Backward(number as u64), || {
                    layer.accumulate(values, &error, &mut rest[place.clone()]);
                    if number > 0 {
                        error = layer.back(&parameters[place.clone()], &error, values);
                    }
                });
                if starts_bucket(number, layers.len(), *buckets) {
                    // Nobody touches a bucket before the scope ends: it is borrowed by its call.
                    let (before, bucket) = std::mem::take(&mut rest).split_at_mut(place.start);
                    rest = before;
                    let submitted = Instant::now();
                    under_way.push(Watched::new(submitted, calls.all_reduce(bucket, ReduceOp::Sum)));
                }
            }
            tracer.wait(under_way)
        })??;
        tracer.compute(What::Update, || descend(parameters, velocity, gradient, batch.len()));
        Ok(loss)
    }

    fn count_right(&mut self, examples: &[Example]) -> rccl::Result<usize> {
        let mine = self.share(examples);
        let values = network::forward(&self.layers, &self.parameters, mine);
        Ok(values.last().map_or(0, |probabilities| network::count_right(probabilities, mine)))
    }
}

/// Whether a layer is the first of its bucket: `layers` are dealt to `buckets` as evenly as can be.
fn starts_bucket(layer: usize, layers: usize, buckets: usize) -> bool {
    (0..buckets).any(|bucket| layer == layers * bucket / buckets)
}
