//! The one pass over memory: every input is read once, every output written once.

use super::register::{Arithmetic, Bitwise, Register};

/// What happens between the registers.
pub(super) trait Operator<R: Register> {
    /// Whether even a single input is changed.
    const CHANGES_ONE: bool = false;

    /// Joins the next input to those before it.
    fn combine(so_far: R, next: R) -> R;

    /// The last step before the store. Leaves only canonical NaN.
    fn finish(result: R, ranks: u32) -> R;
}

/// Sum of all inputs.
pub(super) struct Sum;

impl<R: Arithmetic> Operator<R> for Sum {
    #[inline(always)]
    fn combine(so_far: R, next: R) -> R {
        so_far.add(next)
    }

    #[inline(always)]
    fn finish(result: R, _ranks: u32) -> R {
        result.canonical()
    }
}

/// Product of all inputs.
pub(super) struct Prod;

impl<R: Arithmetic> Operator<R> for Prod {
    #[inline(always)]
    fn combine(so_far: R, next: R) -> R {
        so_far.mul(next)
    }

    #[inline(always)]
    fn finish(result: R, _ranks: u32) -> R {
        result.canonical()
    }
}

/// The greatest input.
pub(super) struct Max;

impl<R: Arithmetic> Operator<R> for Max {
    #[inline(always)]
    fn combine(so_far: R, next: R) -> R {
        so_far.max(next)
    }

    #[inline(always)]
    fn finish(result: R, _ranks: u32) -> R {
        result
    }
}

/// The least input.
pub(super) struct Min;

impl<R: Arithmetic> Operator<R> for Min {
    #[inline(always)]
    fn combine(so_far: R, next: R) -> R {
        so_far.min(next)
    }

    #[inline(always)]
    fn finish(result: R, _ranks: u32) -> R {
        result
    }
}

/// Sum of all inputs, divided by the number of ranks: the last hop of an average.
pub(super) struct Mean;

impl<R: Arithmetic> Operator<R> for Mean {
    const CHANGES_ONE: bool = true;

    #[inline(always)]
    fn combine(so_far: R, next: R) -> R {
        so_far.add(next)
    }

    #[inline(always)]
    fn finish(result: R, ranks: u32) -> R {
        result.divide(ranks).canonical()
    }
}

/// The three operators on bits.
macro_rules! bitwise {
    ($($name:ident $method:ident $doc:literal;)*) => {$(
        #[doc = $doc]
        pub(super) struct $name;

        impl<R: Bitwise> Operator<R> for $name {
            #[inline(always)]
            fn combine(so_far: R, next: R) -> R {
                so_far.$method(next)
            }

            #[inline(always)]
            fn finish(result: R, _ranks: u32) -> R {
                result
            }
        }
    )*};
}

bitwise! {
    And and "The bits that are set in every input.";
    Or or "The bits that are set in any input.";
    Xor xor "The bits that are set in an odd number of inputs.";
}

/// The whole of one call: the common shapes with their pointers in registers, any other shape by loops over the lists.
///
/// # Safety
/// The CPU has R's instruction set. Every input has `count` readable elements, every output `count` writable ones. An
/// output may equal an input; otherwise no output overlaps anything. `inputs` and `outputs` are not empty.
#[inline(always)]
pub(super) unsafe fn run<R: Register, O: Operator<R>>(
    inputs: &[*const u8],
    outputs: &[*mut u8],
    count: usize,
    ranks: u32,
) {
    match (inputs, outputs) {
        // SAFETY: the caller's promise, passed on.
        (&[a, b], &[x]) => unsafe { sweep::<R, O>(&[a, b], &[x], count, ranks) },
        // SAFETY: the caller's promise, passed on.
        (&[a, b], &[x, y]) => unsafe { sweep::<R, O>(&[a, b], &[x, y], count, ranks) },
        // SAFETY: the caller's promise, passed on.
        (&[input], _) if !O::CHANGES_ONE => unsafe { copy(input, outputs, count * R::SIZE) },
        // SAFETY: the caller's promise, passed on.
        _ => unsafe { sweep::<R, O>(inputs, outputs, count, ranks) },
    }
}

/// Copies one input to every output that is not the input itself.
///
/// # Safety
/// As for [`run`], in bytes.
#[inline(never)]
unsafe fn copy(input: *const u8, outputs: &[*mut u8], bytes: usize) {
    for &output in outputs.iter().filter(|&&output| !std::ptr::eq(output, input)) {
        // SAFETY: both are as long as promised and, not being equal, do not overlap.
        unsafe { output.copy_from_nonoverlapping(input, bytes) };
    }
}

/// All elements, a few registers at a time, then one by one, the last perhaps in part.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn sweep<R: Register, O: Operator<R>>(
    inputs: &[*const u8],
    outputs: &[*mut u8],
    count: usize,
    ranks: u32,
) {
    /// Registers per step: enough to hide the latency of an addition, and to spread the cost of walking the lists.
    const STEP: usize = 4;
    let mut done = 0;
    while count - done >= STEP * R::LANES {
        // SAFETY: that many elements are left.
        unsafe { step::<R, O, STEP>(inputs, outputs, done, R::LANES, ranks) };
        done += STEP * R::LANES;
    }
    while done < count {
        let lanes = R::LANES.min(count - done);
        // SAFETY: that many elements are left.
        unsafe { step::<R, O, 1>(inputs, outputs, done, lanes, ranks) };
        done += lanes;
    }
}

/// Reduces `U` registers' worth of elements from element `at` on. All are read before any is written, so that an output
/// may be one of the inputs. However many inputs there are, what was reduced so far stays in registers: it is rounded to
/// the type in memory once, at the end.
///
/// # Safety
/// As for [`run`], for `(U - 1) * LANES + lanes` elements from `at` on.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "see the comment in the body")]
unsafe fn step<R: Register, O: Operator<R>, const U: usize>(
    inputs: &[*const u8],
    outputs: &[*mut u8],
    at: usize,
    lanes: usize,
    ranks: u32,
) {
    // Plain loops, which unroll; the closures and iterators that would be shorter here cost a minute of compilation,
    // being instantiated for every type, operator and instruction set.
    let load = |input: *const u8, u: usize| {
        // SAFETY: inside every input, by the caller's promise about their lengths.
        let from = unsafe { input.add((at + u * R::LANES) * R::SIZE) };
        // SAFETY: that many elements are readable there, by the same promise.
        unsafe { R::load(from, lanes) }
    };
    let mut result = [load(inputs[0], 0); U];
    for u in 1..U {
        result[u] = load(inputs[0], u);
    }
    for &input in &inputs[1..] {
        for u in 0..U {
            result[u] = O::combine(result[u], load(input, u));
        }
    }
    for u in 0..U {
        result[u] = O::finish(result[u], ranks);
    }
    // Register by register, not output by output: 10 % faster in the first-level cache.
    for u in 0..U {
        for &output in outputs {
            // SAFETY: inside the output, by the caller's promise about its length.
            let to = unsafe { output.add((at + u * R::LANES) * R::SIZE) };
            // SAFETY: as above; and `finish` leaves only canonical NaN.
            unsafe { result[u].store(to, lanes) };
        }
    }
}
