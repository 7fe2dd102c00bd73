//! A network of 64 inputs, 32 hidden tanh units and 10 softmax outputs, in plain f32 loops.
//!
//! All parameters lie in one flat slice, and so do their gradients: one broadcast and one all_reduce move everything.

use crate::data::{CLASSES, Example, PIXELS, Shuffler};

const HIDDEN: usize = 32;
const WEIGHTS_1: usize = HIDDEN * PIXELS;
const BIASES_1: usize = WEIGHTS_1 + HIDDEN;
const WEIGHTS_2: usize = BIASES_1 + CLASSES * HIDDEN;
/// All weights and biases: first layer, then second.
pub const PARAMETERS: usize = WEIGHTS_2 + CLASSES;

/// Random first weights, scaled to the units' inputs (Glorot and Bengio, 2010); biases are zero.
pub fn initialise(parameters: &mut [f32], random: &mut Shuffler) {
    let (weights_1, biases_1, weights_2, biases_2) = layers_mut(parameters);
    let scale = |inputs: usize, outputs: usize| (6.0 / (inputs + outputs) as f32).sqrt();
    weights_1.fill_with(|| random.signed_unit() * scale(PIXELS, HIDDEN));
    weights_2.fill_with(|| random.signed_unit() * scale(HIDDEN, CLASSES));
    biases_1.fill(0.0);
    biases_2.fill(0.0);
}

/// Adds one example's gradient to `gradient` and returns its loss (cross entropy, natural logarithm).
pub fn accumulate(parameters: &[f32], example: &Example, gradient: &mut [f32]) -> f32 {
    let (hidden, probabilities) = forward(parameters, example);
    let (_, _, weights_2, _) = layers(parameters);
    let (to_weights_1, to_biases_1, to_weights_2, to_biases_2) = layers_mut(gradient);

    let mut at_output = probabilities;
    at_output[example.label] -= 1.0;
    let mut at_hidden = [0.0; HIDDEN];
    for (class, &error) in at_output.iter().enumerate() {
        to_biases_2[class] += error;
        for unit in 0..HIDDEN {
            to_weights_2[class * HIDDEN + unit] += error * hidden[unit];
            at_hidden[unit] += error * weights_2[class * HIDDEN + unit];
        }
    }
    for unit in 0..HIDDEN {
        let error = at_hidden[unit] * (1.0 - hidden[unit] * hidden[unit]);
        to_biases_1[unit] += error;
        for (to, pixel) in to_weights_1[unit * PIXELS..][..PIXELS].iter_mut().zip(example.pixels) {
            *to += error * pixel;
        }
    }
    -probabilities[example.label].max(f32::MIN_POSITIVE).ln()
}

/// The share of examples whose most probable digit is the right one.
pub fn accuracy(parameters: &[f32], examples: &[Example]) -> f32 {
    let right = examples.iter().filter(|example| {
        let (_, probabilities) = forward(parameters, example);
        let best = (0..CLASSES).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
        best == Some(example.label)
    });
    right.count() as f32 / examples.len() as f32
}

/// The hidden units' values and the probability of each digit.
fn forward(parameters: &[f32], example: &Example) -> ([f32; HIDDEN], [f32; CLASSES]) {
    let (weights_1, biases_1, weights_2, biases_2) = layers(parameters);
    let mut hidden = [0.0; HIDDEN];
    for (unit, value) in hidden.iter_mut().enumerate() {
        *value = (biases_1[unit] + dot(&weights_1[unit * PIXELS..][..PIXELS], &example.pixels)).tanh();
    }
    let mut outputs = [0.0; CLASSES];
    for (class, value) in outputs.iter_mut().enumerate() {
        *value = biases_2[class] + dot(&weights_2[class * HIDDEN..][..HIDDEN], &hidden);
    }
    // The largest is taken off first: a softmax does not notice, and no exponential overflows.
    let largest = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials = outputs.map(|output| (output - largest).exp());
    let sum: f32 = exponentials.iter().sum();
    (hidden, exponentials.map(|e| e / sum))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn layers(flat: &[f32]) -> (&[f32], &[f32], &[f32], &[f32]) {
    (&flat[..WEIGHTS_1], &flat[WEIGHTS_1..BIASES_1], &flat[BIASES_1..WEIGHTS_2], &flat[WEIGHTS_2..PARAMETERS])
}

fn layers_mut(flat: &mut [f32]) -> (&mut [f32], &mut [f32], &mut [f32], &mut [f32]) {
    let (weights_1, rest) = flat.split_at_mut(WEIGHTS_1);
    let (biases_1, rest) = rest.split_at_mut(BIASES_1 - WEIGHTS_1);
    let (weights_2, rest) = rest.split_at_mut(WEIGHTS_2 - BIASES_1);
    (weights_1, biases_1, weights_2, &mut rest[..CLASSES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    /// The gradient is the slope that the loss really has, measured with a small step.
    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let (train, _) = data::load();
        let mut parameters = vec![0.0; PARAMETERS];
        initialise(&mut parameters, &mut Shuffler(1));
        let mut gradient = vec![0.0; PARAMETERS];
        accumulate(&parameters, &train[0], &mut gradient);
        let mut unused = vec![0.0; PARAMETERS];
        for at in [70, WEIGHTS_1 + 3, BIASES_1 + 40, WEIGHTS_2 + 7] {
            let here = parameters[at];
            let step = 1e-2;
            parameters[at] = here + step;
            let above = accumulate(&parameters, &train[0], &mut unused);
            parameters[at] = here - step;
            let below = accumulate(&parameters, &train[0], &mut unused);
            parameters[at] = here;
            let slope = (above - below) / (2.0 * step);
            assert!((slope - gradient[at]).abs() < 1e-3, "parameter {at}: {slope} is not {}", gradient[at]);
        }
    }
}
