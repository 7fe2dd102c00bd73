//! Operators with what belongs to them.

use crate::element::{Element, ReduceOp};

/// How elements of type `T` are combined: a [`ReduceOp`], or the sum of operands that every rank has multiplied by a
/// scalar of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Op<T> {
    pub(crate) operator: ReduceOp,
    pub(crate) scalar: Option<T>,
}

impl<T: Element> Op<T> {
    /// The sum of all ranks' elements, each first multiplied by its rank's `scalar`: integers wrap, halves and fp8 are
    /// multiplied in f32 and rounded once. Ranks may pass different scalars.
    pub fn pre_mul_sum(scalar: T) -> Op<T> {
        Op { operator: ReduceOp::PreMulSum, scalar: Some(scalar) }
    }
}

/// [`ReduceOp::PreMulSum`] without a scalar multiplies by one.
impl<T> From<ReduceOp> for Op<T> {
    fn from(operator: ReduceOp) -> Op<T> {
        Op { operator, scalar: None }
    }
}
