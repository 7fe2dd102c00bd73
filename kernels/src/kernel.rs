//! Reduction kernels: the engine's inner loop.
//!
//! A [`Kernel`] combines any number of inputs into any number of outputs in one pass over memory. It is chosen once for
//! a data type and an operator, for the CPU that runs: AVX-512, AVX2, or portable code that the compiler vectorises.
//!
//! # The same bits everywhere
//!
//! Ranks may run on different CPUs, cut a buffer at different places and align it differently, and must still end with
//! the same bits. So an element's result depends on its operands and their order alone:
//!
//! - Inputs are combined left to right, however many there are. f16, bf16 and fp8 are widened to f32, combined there, and
//!   rounded once, to nearest even.
//! - A result that is NaN is the canonical one: positive, quiet, no payload. (On x86 the first operand's payload wins, a
//!   compiler may swap the operands of an addition, and the NaN that a CPU makes itself is negative on x86 and positive
//!   on Arm.) Copies keep every bit.
//! - Max and min give NaN if any operand is NaN, and take -0 for less than +0.
//! - Integers wrap; avg truncates toward zero. Avg divides once, in the last hop.
//!
//! The processor's rounding mode and its flush-to-zero and denormals-are-zero flags are taken to be at their defaults.
//!
//! # What it costs
//!
//! On a Xeon of 2023 (AVX-512, 2 GHz, 48 KiB of first-level cache), f32 sum of two inputs into both of them:
//!
//! ```text
//! bytes of an input   kernel    the plain loop in 512-bit vectors
//!          1 KiB       20 ns      15 ns    5 ns are the call
//!         16 KiB      268 ns     233 ns    the canonical NaN: a compare and a blend for each register
//!         64 KiB      3.2 us     3.3 us    beyond the first-level cache it is free
//! ```
//!
//! A call of up to 16 elements takes 5 to 8 ns (fp8 12), or 11 if the operands were stored a few cycles before (a masked
//! load waits for such stores to reach the cache); with AVX2, which has no masks for small elements, 24 to 60 ns unless
//! the count is a whole number of registers. In 16 KiB, f16 and bf16 (8,192 elements) take 1.5 us, fp8 (16,384 elements)
//! 9 to 11 us; with AVX2 1.9, 2.4 and 20 us. Portable f16 and fp8, whose codec the compiler does not vectorise well, take
//! 33 and 130 to 200 us. The bitwise operators take what a sum of i32 takes, up to 16 elements 9 to 11 ns.
//!
//! Many inputs cost no more than they have bytes: f32 sums into one output read 80 to 114 GB/s from 4 to 32 inputs of 32
//! KiB, and at the memory's speed (23 to 28 GB/s) from 16 to 128 inputs of 256 KiB. Only beyond is it worse: 512 inputs of
//! 256 KiB, which are more streams than a CPU reads ahead, 9 GB/s.
//!
//! [`Kernel::run`] stores as usual: the engine's chunks are small and the peer reads them next. For outputs that are no
//! inputs, stores past the caches ([`Kernel::run_streaming`]) took 5.9 instead of 13 ms at 16 MiB and 130 instead of 181
//! us at 1 MiB, but 17 instead of 8.5 us at 128 KiB; in place there is nothing to gain, the line having been read.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod codec;
mod pass;
mod portable;
mod register;
mod scale;
mod select;
mod streaming;
#[cfg(test)]
mod tests;

pub use scale::Scale;
pub use select::InstructionSet;

use crate::element::{DataType, ReduceOp};

/// Reads `inputs`, combines, writes `outputs`: (inputs, outputs, count, ranks), see [`Kernel::run`].
type Entry = unsafe fn(&[*const u8], &[*mut u8], usize, u32);

/// A reduction kernel for one data type and operator, chosen once.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Every hop but the last of an average.
    plain: Entry,
    /// With the division by the number of ranks; `plain` again for operators other than avg.
    finishing: Entry,
    /// Bytes of an element.
    size: usize,
}

impl Kernel {
    /// The fastest kernel that this CPU can run. Cheap: the CPU is asked once per process.
    ///
    /// # Panics
    /// If the operator does not suit the type ([`ReduceOp::suits`]): ask that first where a user chose them.
    pub fn select(dtype: DataType, op: ReduceOp) -> Kernel {
        Kernel::for_set(InstructionSet::best(), dtype, op)
            .unwrap_or_else(|| panic!("no kernel: {op} combines integers only, and {dtype} is none"))
    }

    /// The kernel of one instruction set, for tests and benches; `None` if this CPU lacks the set, or if the operator
    /// does not suit the type.
    pub fn select_for(set: InstructionSet, dtype: DataType, op: ReduceOp) -> Option<Kernel> {
        if set.is_available() { Kernel::for_set(set, dtype, op) } else { None }
    }

    /// `outputs[j][i] = finish(inputs[0][i] op inputs[1][i] op …)`, left to right, for every output j and i < `count`.
    ///
    /// One input is a copy. `finish` is the number of ranks if this is the last hop of an average, which divides by it;
    /// the other operators ignore it. Runs on the calling thread, does not allocate, and takes any alignment.
    ///
    /// Whatever the number of inputs, operands are combined strictly in the order of `inputs`: `((x0 op x1) op x2) …`.
    /// f16, bf16 and fp8 are widened exactly, combined in f32 and rounded to their type once, behind the last operand
    /// and the division; no partial result is ever stored. So one call over all ranks' operands in ascending order gives
    /// the same bits on every CPU, for every alignment and wherever the array is cut.
    ///
    /// # Safety
    /// - `inputs` and `outputs` have at least one pointer each.
    /// - Every input has `count` elements that nobody writes meanwhile, every output `count` elements that nobody else
    ///   reads or writes meanwhile.
    /// - An output may be equal to an input (the same address); otherwise it overlaps no input and no other output.
    #[inline]
    pub unsafe fn run(&self, inputs: &[*const u8], outputs: &[*mut u8], count: usize, finish: Option<u32>) {
        debug_assert!(!inputs.is_empty() && !outputs.is_empty(), "a kernel needs an input and an output");
        let (entry, ranks) = match finish {
            None => (self.plain, 1),
            Some(ranks) => (self.finishing, ranks.max(1)),
        };
        // SAFETY: the caller's promise is the entry's, and `for_set` chose one that this CPU can run.
        unsafe { entry(inputs, outputs, count, ranks) }
    }

    /// As [`Kernel::run`], with stores that go past the caches: for large results that nobody reads soon and whose
    /// memory was not read before. The stores are done when it returns. The bits are those of [`Kernel::run`]; of more
    /// than 16 inputs, beside which one output is little traffic, the stores are the usual ones too.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    pub unsafe fn run_streaming(
        &self,
        inputs: &[*const u8],
        outputs: &[*mut u8],
        count: usize,
        finish: Option<u32>,
    ) {
        const MOST_INPUTS: usize = 16;
        if let (&[input], None) = (inputs, finish) {
            for &output in outputs.iter().filter(|&&output| !std::ptr::eq(output, input)) {
                // SAFETY: both are as long as the caller promises and, not being equal, do not overlap.
                unsafe { streaming::copy(input, output, count * self.size) };
            }
            streaming::drain();
            return;
        }
        if inputs.len() > MOST_INPUTS {
            // SAFETY: the caller's promise.
            return unsafe { self.run(inputs, outputs, count, finish) };
        }
        let mut block = streaming::Block([0; streaming::BLOCK]);
        let mut done = 0;
        while done < count {
            let part = (streaming::BLOCK / self.size).min(count - done);
            let mut from = [std::ptr::null(); MOST_INPUTS];
            for (from, input) in from.iter_mut().zip(inputs) {
                *from = input.wrapping_add(done * self.size);
            }
            let to = block.0.as_mut_ptr();
            // SAFETY: `part` elements are left in every input and fit in the block.
            unsafe { self.run(&from[..inputs.len()], &[to], part, finish) };
            for output in outputs {
                // SAFETY: `part` elements are left in every output, and the block is no output.
                unsafe { streaming::copy(to, output.wrapping_add(done * self.size), part * self.size) };
            }
            done += part;
        }
        streaming::drain();
    }
}
