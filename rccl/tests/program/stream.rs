//! Numbers that a seed makes.

/// A small deterministic stream of numbers (splitmix64, Steele, Lea, Flood 2014).
#[derive(Clone)]
pub struct Stream(pub u64);

impl Stream {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `limit - 1`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// Once in `times` times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// From 0 to `most`, every order of magnitude as likely as the next.
    pub fn magnitude(&mut self, most: usize) -> usize {
        let logarithm = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        (((most + 2) as f64).powf(logarithm) as usize - 1).min(most)
    }

    /// `n` lengths that are `total` together.
    pub fn parts(&mut self, total: usize, n: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = (1..n).map(|_| self.below(total + 1)).collect();
        cuts.extend([0, total]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}
