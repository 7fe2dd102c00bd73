//! Operators: `rcclRedOp_t`. Those that a program creates belong to a communicator; their numbers are unique in the process, so
//! one of another communicator is never taken for one's own.

use crate::comm::{self, Comm};
use crate::error::{Answer, Refusal, answer};
use crate::out;
use rccl::{DataType, ReduceOp};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI32, Ordering};

/// The first number of an operator that a program creates.
const CREATED: c_int = 16;

/// The number of the operator that is created next.
static NEXT: AtomicI32 = AtomicI32::new(CREATED);

/// The pre-multiplied sums of a communicator, by number.
pub(crate) type Created = HashMap<c_int, (DataType, [u8; 8])>;

/// What a number stands for.
pub(crate) struct Operator {
    pub op: ReduceOp,
    /// The bytes of an element, and zeros.
    pub scalar: Option<[u8; 8]>,
}

/// The operator of a number, for elements of this type.
#[inline]
pub(crate) fn find(comm: &Comm, number: c_int, dtype: DataType) -> Result<Operator, Refusal> {
    let built_in = u8::try_from(number).ok().and_then(|number| ReduceOp::try_from(number).ok());
    match built_in {
        Some(op) if op != ReduceOp::PreMulSum => Ok(Operator { op, scalar: None }),
        _ => find_created(comm, number, dtype),
    }
}

#[cold]
fn find_created(comm: &Comm, number: c_int, dtype: DataType) -> Result<Operator, Refusal> {
    let created = comm.created.lock().unwrap_or_else(PoisonError::into_inner);
    match created.get(&number) {
        Some((of, scalar)) if *of == dtype => Ok(Operator { op: ReduceOp::PreMulSum, scalar: Some(*scalar) }),
        Some((of, _)) => {
            Err(Refusal::argument(format!("the operator was created for elements of type {of}, not {dtype}")))
        }
        None if was_created(number) => Err(not_here(number)),
        None => Err(Refusal::argument(format!(
            "operator {number}: rcclRedOp_t has 0 to {}, and this communicator {} of its own",
            ReduceOp::BitXor as u8,
            created.len()
        ))),
    }
}

/// Whether a communicator of this process had an operator of this number.
fn was_created(number: c_int) -> bool {
    (CREATED..NEXT.load(Ordering::Relaxed)).contains(&number)
}

fn not_here(number: c_int) -> Refusal {
    Refusal::argument(format!(
        "operator {number} is none of this communicator's: it was destroyed, or created for another one"
    ))
}

/// The sum of all ranks' elements, each multiplied by its rank's scalar first.
///
/// # Safety
/// `op` is NULL or has room for a number; `scalar` is NULL or points to one element of `datatype`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclRedOpCreatePreMulSum(
    op: *mut c_int,
    scalar: *const c_void,
    datatype: c_int,
    residence: c_int,
    comm: comm::Handle,
) -> Answer {
    answer(|| {
        let (place, comm) = (out(op, "op")?, comm::get(comm)?);
        if !(0..=1).contains(&residence) {
            return Err(Refusal::argument(format!(
                "residence {residence}: rcclScalarResidence_t has 0 and 1"
            )));
        }
        let dtype = u8::try_from(datatype).ok().and_then(|number| DataType::try_from(number).ok());
        let dtype =
            dtype.ok_or_else(|| Refusal::argument(format!("data type {datatype}: no rcclDataType_t")))?;
        if scalar.is_null() {
            return Err(Refusal::argument("the scalar is NULL"));
        }
        let mut element = [0; 8];
        // SAFETY: the caller's promise; an element has at most 8 bytes.
        unsafe { std::ptr::copy_nonoverlapping(scalar.cast::<u8>(), element.as_mut_ptr(), dtype.size()) };
        // rcclMaxRedOp stays free.
        let next = |number: c_int| number.checked_add(1);
        let number = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let number = number.map_err(|_| Refusal::usage("this process has created 2 billion operators"))?;
        comm.created.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (dtype, element));
        // SAFETY: the caller's promise.
        unsafe { place.write(number) };
        Ok(())
    })
}

/// Calls that were made with it keep their scalar.
///
/// # Safety
/// Any values are safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclRedOpDestroy(op: c_int, comm: comm::Handle) -> Answer {
    answer(|| {
        let comm = comm::get(comm)?;
        let mut created = comm.created.lock().unwrap_or_else(PoisonError::into_inner);
        match created.remove(&op) {
            Some(_) => Ok(()),
            None if was_created(op) => Err(not_here(op)),
            None => Err(Refusal::argument(format!("operator {op} was not created by this program"))),
        }
    })
}
