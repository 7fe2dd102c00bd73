//! A network of tanh layers and a softmax layer at the end, in plain f32 loops.
//!
//! A layer is only its shape: its parameters are a slice of the caller's, so that every way to train keeps them where it
//! wants them. Values are matrices with a row for each example, row after row.

use crate::data::{CLASSES, Example, PIXELS, Shuffler};
use std::num::NonZero;
use std::ops::Range;

/// One fully connected layer. Its parameters are the weights, a row of `outputs` for each input, then the biases.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Values that an example has before the layer.
    pub inputs: usize,
    /// Values that it has after.
    pub outputs: usize,
    /// Where the parameters lie in those of the whole network.
    pub place: Range<usize>,
    /// Softmax instead of tanh.
    last: bool,
}

/// The layers of a network that reads digits, with hidden layers of these widths.
pub fn layers(hidden: &[NonZero<usize>]) -> Vec<Layer> {
    let hidden = hidden.iter().map(|width| width.get());
    let widths: Vec<usize> = [PIXELS].into_iter().chain(hidden).chain([CLASSES]).collect();
    let mut end = 0;
    let shapes = widths.windows(2).map(|width| (width[0], width[1]));
    let layer = shapes.enumerate().map(|(number, (inputs, outputs))| {
        let place = end..end + (inputs + 1) * outputs;
        end = place.end;
        Layer { inputs, outputs, place, last: number + 2 == widths.len() }
    });
    layer.collect()
}

/// The first parameters of a whole network, the same for the same seed: weights are random and scaled to the layer's
/// width (Glorot and Bengio, 2010), biases are zero.
pub fn initial(layers: &[Layer], seed: u64) -> Vec<f32> {
    let mut random = Shuffler(seed);
    let mut parameters = Vec::new();
    for layer in layers {
        let scale = (6.0 / (layer.inputs + layer.outputs) as f32).sqrt();
        let mut weights = vec![0.0; layer.inputs * layer.outputs];
        for output in 0..layer.outputs {
            let to_output = weights[output..].iter_mut().step_by(layer.outputs);
            to_output.for_each(|weight| *weight = random.signed_unit() * scale);
        }
        parameters.extend(weights);
        parameters.resize(layer.place.end, 0.0);
    }
    parameters
}

impl Layer {
    /// The layer's outputs for its inputs; for the last layer of a network, the probability of each digit.
    pub fn forward(&self, parameters: &[f32], inputs: &[f32]) -> Vec<f32> {
        let (weights, biases) = parameters.split_at(self.inputs * self.outputs);
        let mut values = vec![0.0; inputs.len() / self.inputs * self.outputs];
        for (row, sums) in inputs.chunks_exact(self.inputs).zip(values.chunks_exact_mut(self.outputs)) {
            for (weights, value) in weights.chunks_exact(self.outputs).zip(row) {
                sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
            }
            sums.iter_mut().zip(biases).for_each(|(sum, bias)| *sum += bias);
            if self.last {
                softmax(sums);
            } else {
                sums.iter_mut().for_each(|sum| *sum = sum.tanh());
            }
        }
        values
    }

    /// Adds the gradient of all examples to `gradient`, in the order of the examples. `error` is the slope of the loss
    /// by the layer's sums, before tanh or softmax: what [`loss`] and [`Layer::back`] give.
    pub fn accumulate(&self, inputs: &[f32], error: &[f32], gradient: &mut [f32]) {
        let (to_weights, to_biases) = gradient.split_at_mut(self.inputs * self.outputs);
        for (row, errors) in inputs.chunks_exact(self.inputs).zip(error.chunks_exact(self.outputs)) {
            for (to_weights, value) in to_weights.chunks_exact_mut(self.outputs).zip(row) {
                to_weights.iter_mut().zip(errors).for_each(|(to, error)| *to += error * value);
            }
            to_biases.iter_mut().zip(errors).for_each(|(to, error)| *to += error);
        }
    }

    /// The slope of the loss by the sums of the layer below, a tanh layer, whose outputs are this one's `inputs`.
    pub fn back(&self, parameters: &[f32], error: &[f32], inputs: &[f32]) -> Vec<f32> {
        let mut below = vec![0.0; inputs.len()];
        let rows = below.chunks_exact_mut(self.inputs).zip(error.chunks_exact(self.outputs));
        for ((below, errors), row) in rows.zip(inputs.chunks_exact(self.inputs)) {
            let units = below.iter_mut().zip(parameters.chunks_exact(self.outputs)).zip(row);
            for ((below, weights), value) in units {
                *below = dot(weights, errors) * (1.0 - value * value);
            }
        }
        below
    }
}

/// The loss of the examples, summed (cross entropy, natural logarithm), and its slope by the last layer's sums.
pub fn loss(mut probabilities: Vec<f32>, examples: &[Example]) -> (f32, Vec<f32>) {
    let mut loss = 0.0;
    for (row, example) in probabilities.chunks_exact_mut(CLASSES).zip(examples) {
        loss -= row[example.label].max(f32::MIN_POSITIVE).ln();
        row[example.label] -= 1.0;
    }
    (loss, probabilities)
}

/// How many examples have their digit as the most probable one.
pub fn count_right(probabilities: &[f32], examples: &[Example]) -> usize {
    let rows = probabilities.chunks_exact(CLASSES).zip(examples);
    let right = rows.filter(|(row, example)| {
        let best = (0..CLASSES).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        best == Some(example.label)
    });
    right.count()
}

/// Adds the gradient of the examples by the parameters of the whole network to `gradient`, and returns their loss.
pub fn accumulate(layers: &[Layer], parameters: &[f32], examples: &[Example], gradient: &mut [f32]) -> f32 {
    let mut values = forward(layers, parameters, examples);
    let (loss, mut error) = loss(values.pop().unwrap_or_default(), examples);
    for (number, layer) in layers.iter().enumerate().rev() {
        layer.accumulate(&values[number], &error, &mut gradient[layer.place.clone()]);
        if number > 0 {
            error = layer.back(&parameters[layer.place.clone()], &error, &values[number]);
        }
    }
    loss
}

/// The images, then the outputs of every layer of the whole network.
pub fn forward(layers: &[Layer], parameters: &[f32], examples: &[Example]) -> Vec<Vec<f32>> {
    let mut values = vec![pixels(examples)];
    for (number, layer) in layers.iter().enumerate() {
        values.push(layer.forward(&parameters[layer.place.clone()], &values[number]));
    }
    values
}

/// The images: the inputs of the first layer.
pub fn pixels(examples: &[Example]) -> Vec<f32> {
    examples.iter().flat_map(|example| example.pixels).collect()
}

fn softmax(row: &mut [f32]) {
    // The largest is taken off first: a softmax does not notice, and no exponential overflows.
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    /// The gradient is the slope that the loss really has, measured with a small step.
    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let (train, _) = data::load();
        let examples = &train[..3];
        let layers = layers(&[32, 16].map(|width| NonZero::new(width).unwrap()));
        let mut parameters = initial(&layers, 1);
        let mut gradient = vec![0.0; parameters.len()];
        accumulate(&layers, &parameters, examples, &mut gradient);
        let mut unused = vec![0.0; parameters.len()];
        for at in layers.iter().flat_map(|layer| [layer.place.start + 70, layer.place.end - 3]) {
            let here = parameters[at];
            let step = 1e-2;
            parameters[at] = here + step;
            let above = accumulate(&layers, &parameters, examples, &mut unused);
            parameters[at] = here - step;
            let below = accumulate(&layers, &parameters, examples, &mut unused);
            parameters[at] = here;
            let slope = (above - below) / (2.0 * step);
            assert!((slope - gradient[at]).abs() < 1e-3, "parameter {at}: {slope} is not {}", gradient[at]);
        }
    }
}
