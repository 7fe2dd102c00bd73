//! Operators.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use rccl::{DataType, ReduceOp};

/// The sum of all ranks' elements, each first multiplied by its rank's factor; ranks may pass different ones. Pass it as
/// `op`.
#[pyclass(module = "rccl", frozen)]
pub struct PreMulSum {
    /// What this rank's elements are multiplied by.
    #[pyo3(get)]
    factor: f64,
}

#[pymethods]
impl PreMulSum {
    #[new]
    fn new(factor: f64) -> PreMulSum {
        PreMulSum { factor }
    }

    fn __repr__(&self) -> String {
        format!("rccl.PreMulSum({})", self.factor)
    }
}

/// How elements are combined, as an argument says it: a word, or a [`PreMulSum`].
#[derive(Clone, Copy)]
pub struct Operator {
    pub op: ReduceOp,
    factor: Option<f64>,
}

impl Operator {
    pub const SUM: Operator = Operator { op: ReduceOp::Sum, factor: None };

    /// By NCCL's number.
    pub fn numbered(number: u8) -> Option<Operator> {
        let op = ReduceOp::try_from(number).ok().filter(|&op| op != ReduceOp::PreMulSum)?;
        Some(Operator { op, factor: None })
    }

    /// The factor as one element of a type.
    pub fn scalar(self, dtype: DataType) -> PyResult<Option<Vec<u8>>> {
        let Some(factor) = self.factor else { return Ok(None) };
        if dtype.is_integer() && factor.fract() != 0.0 {
            return Err(PyValueError::new_err(format!(
                "{factor} is no factor for elements of type {dtype}: it is no integer"
            )));
        }
        Ok(Some(match dtype {
            DataType::I8 => (factor as i8).to_ne_bytes().to_vec(),
            DataType::U8 => (factor as u8).to_ne_bytes().to_vec(),
            DataType::I32 => (factor as i32).to_ne_bytes().to_vec(),
            DataType::U32 => (factor as u32).to_ne_bytes().to_vec(),
            DataType::I64 => (factor as i64).to_ne_bytes().to_vec(),
            DataType::U64 => (factor as u64).to_ne_bytes().to_vec(),
            DataType::F64 => factor.to_ne_bytes().to_vec(),
            DataType::F32 => (factor as f32).to_ne_bytes().to_vec(),
            DataType::F16 => half::f16::from_f64(factor).to_ne_bytes().to_vec(),
            DataType::BF16 => half::bf16::from_f64(factor).to_ne_bytes().to_vec(),
            DataType::F8E4M3 => vec![rccl::F8E4M3::from_f32(factor as f32).0],
            DataType::F8E5M2 => vec![rccl::F8E5M2::from_f32(factor as f32).0],
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "no factor can be made for elements of type {dtype}"
                )));
            }
        }))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Operator {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Operator> {
        if let Ok(word) = object.cast::<PyString>() {
            let word = word.to_str()?;
            let op = word.parse::<ReduceOp>().ok().filter(|&op| op != ReduceOp::PreMulSum);
            let op = op.ok_or_else(|| {
                PyValueError::new_err(format!(
                    "{word:?} is no operator: sum, prod, min, max, avg, band, bor, bxor, or rccl.PreMulSum(factor)"
                ))
            })?;
            return Ok(Operator { op, factor: None });
        }
        match object.cast::<PreMulSum>() {
            Ok(made) => Ok(Operator { op: ReduceOp::PreMulSum, factor: Some(made.get().factor) }),
            Err(_) => {
                Err(PyTypeError::new_err("an operator is a word such as \"sum\", or rccl.PreMulSum(factor)"))
            }
        }
    }
}
