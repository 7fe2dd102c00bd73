//! Multiplication of an array by one scalar: what a rank does to its operand of a pre-multiplied sum.
//!
//! It is the product kernel of two inputs, the second being a block of copies of the scalar that stays in the first-level
//! cache. So a product here has the same bits as one of [`ReduceOp::Prod`], on every CPU, and no kernel is built for it.
//!
//! On the machine of the figures in [`super`], f32, medians:
//!
//! ```text
//! bytes     out of place   memcpy     in place   the plain loop in 128-bit vectors
//!     64        42 ns        2 ns       42 ns       3 ns    most of it fills the block
//!   4 KiB      105 ns       28 ns      104 ns      64 ns
//!  64 KiB      2.2 us      1.6 us      1.8 us     1.4 us
//!  16 MiB     1.29 ms     1.24 ms     0.69 ms    0.66 ms    the memory's speed
//! ```
//!
//! 16 MiB of f16 and i8 take as long as f32 (1.28 and 1.32 ms), of fp8 8.1 ms. A block of 512 bytes took 13 % longer at 4
//! KiB and 24 % at 16 KiB; one of 4 KiB 19 ns more in every call, and was not faster but for 64 KiB and more, by 5 %.

use super::Kernel;
use crate::element::{DataType, Element, ReduceOp};

/// Bytes of the block of copies.
const BLOCK: usize = 1024;

/// Multiplies arrays by one scalar: `output[i] = input[i] * scalar`.
///
/// Integers wrap. f16, bf16 and fp8 are widened to f32, multiplied there and rounded once, to nearest even; fp8
/// saturates. A product that is NaN is the canonical one. The scalar has the elements' type, as in NCCL's
/// `ncclRedOpCreatePreMulSum`: a scalar that the type cannot hold exactly was rounded before it came here.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    product: Kernel,
    dtype: DataType,
    /// The element, zeros after it.
    scalar: [u8; 8],
}

impl Scale {
    /// Multiplication of elements of type `T` by `scalar`.
    pub fn by<T: Element>(scalar: T) -> Scale {
        Scale::with_kernel(Kernel::select(T::TYPE, ReduceOp::Prod), T::TYPE, bytemuck::bytes_of(&scalar))
    }

    /// Multiplication of elements of type `dtype` by the one element whose bytes, in this machine's order, `scalar`
    /// holds; `None` if those are not as many as an element of the type has ([`DataType::size`]).
    pub fn from_bytes(dtype: DataType, scalar: &[u8]) -> Option<Scale> {
        (scalar.len() == dtype.size())
            .then(|| Scale::with_kernel(Kernel::select(dtype, ReduceOp::Prod), dtype, scalar))
    }

    /// By the product kernel of `dtype` for some instruction set; `scalar` is one element.
    pub(super) fn with_kernel(product: Kernel, dtype: DataType, scalar: &[u8]) -> Scale {
        let mut padded = [0; 8];
        padded[..scalar.len()].copy_from_slice(scalar);
        Scale { product, dtype, scalar: padded }
    }

    /// The type of the elements, and of the scalar.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// `output[i] = input[i] * scalar` for i < `count`.
    ///
    /// Runs on the calling thread, does not allocate, and takes any alignment.
    ///
    /// # Safety
    /// - `input` has `count` elements that nobody writes meanwhile, `output` `count` elements that nobody else reads or
    ///   writes meanwhile.
    /// - `output` is equal to `input` (the same address) or does not overlap it.
    pub unsafe fn run(&self, input: *const u8, output: *mut u8, count: usize) {
        let size = self.dtype.size();
        let most = BLOCK / size;
        let mut block = Block([0; BLOCK]);
        block.0[..8].copy_from_slice(&self.scalar);
        let mut copies = 1;
        while copies < count.min(most) {
            // All these numbers are powers of two, so this fills the block and ends.
            block.0.copy_within(..copies * size, copies * size);
            copies *= 2;
        }
        let mut done = 0;
        while done < count {
            let part = most.min(count - done);
            let inputs = [input.wrapping_add(done * size), block.0.as_ptr()];
            let outputs = [output.wrapping_add(done * size)];
            // SAFETY: `part` elements are left in input and output, and the block holds as many and is neither.
            unsafe { self.product.run(&inputs, &outputs, part, None) };
            done += part;
        }
    }
}

/// A block at the alignment of a cache line.
#[repr(align(64))]
struct Block([u8; BLOCK]);
