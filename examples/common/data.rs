//! The data set: 1,797 handwritten digits of 8 x 8 pixels (see `examples/data/README.md` for source and licence).

/// Pixels of one image.
pub const PIXELS: usize = 64;
/// The digits 0 to 9.
pub const CLASSES: usize = 10;
const ROW: usize = PIXELS + 1;

static FILE: &[u8] = include_bytes!("../data/digits.bin");

/// One image and the digit that it shows.
pub struct Example {
    /// Darkness of each pixel, row by row, from 0 to 1.
    pub pixels: [f32; PIXELS],
    /// The digit.
    pub label: usize,
}

/// The images for training and those for testing: four fifths and one fifth, in an order that is random but always
/// the same, so that all ranks, and runs with different rank counts, agree on it.
pub fn load() -> (Vec<Example>, Vec<Example>) {
    let mut examples: Vec<Example> = FILE.chunks_exact(ROW).map(example).collect();
    Shuffler(0x5eed).shuffle(&mut examples);
    let test = examples.split_off(examples.len() * 4 / 5);
    (examples, test)
}

fn example(row: &[u8]) -> Example {
    let mut pixels = [0.0; PIXELS];
    for (to, &from) in pixels.iter_mut().zip(row) {
        *to = f32::from(from) / 16.0;
    }
    Example { pixels, label: usize::from(row[PIXELS]) }
}

/// A small random generator (SplitMix64) whose numbers never change with a library's version.
pub struct Shuffler(pub u64);

impl Shuffler {
    /// A random number.
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number from -1 to 1.
    pub fn signed_unit(&mut self) -> f32 {
        (self.number() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Puts the items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.number() % (last as u64 + 1)) as usize);
        }
    }
}
