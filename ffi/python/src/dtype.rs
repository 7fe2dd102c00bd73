//! Types of elements by the names that NumPy, ml_dtypes and torch have for them.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;
use rccl::DataType;

/// The name of a type.
pub fn name(dtype: DataType) -> &'static str {
    match dtype {
        DataType::I8 => "int8",
        DataType::U8 => "uint8",
        DataType::I32 => "int32",
        DataType::U32 => "uint32",
        DataType::I64 => "int64",
        DataType::U64 => "uint64",
        DataType::F16 => "float16",
        DataType::F32 => "float32",
        DataType::F64 => "float64",
        DataType::BF16 => "bfloat16",
        DataType::F8E4M3 => "float8_e4m3fn",
        DataType::F8E5M2 => "float8_e5m2",
        _ => "an unknown type",
    }
}

/// The type with this name.
pub fn by_name(word: &str) -> Option<DataType> {
    DataType::ALL.into_iter().find(|&dtype| name(dtype) == word)
}

/// The type of what the buffer protocol describes by a letter, in this machine's order of bytes.
#[inline]
pub fn by_letter(format: &[u8], size: usize) -> Option<DataType> {
    let letter = match format {
        [letter] | [b'@' | b'=', letter] => *letter,
        [b'<', letter] if cfg!(target_endian = "little") => *letter,
        _ => return None,
    };
    Some(match (letter, size) {
        (b'f', 4) => DataType::F32,
        (b'd', 8) => DataType::F64,
        (b'e', 2) => DataType::F16,
        (b'b' | b'i' | b'l' | b'q', 1) => DataType::I8,
        (b'i' | b'l' | b'q', 4) => DataType::I32,
        (b'i' | b'l' | b'q', 8) => DataType::I64,
        (b'B' | b'c', 1) => DataType::U8,
        (b'I' | b'L' | b'Q', 4) => DataType::U32,
        (b'I' | b'L' | b'Q', 8) => DataType::U64,
        _ => return None,
    })
}

/// The type of what `__array_interface__` describes: `<f4`.
pub fn by_typestr(word: &str) -> Option<DataType> {
    let own = if cfg!(target_endian = "little") { "<" } else { ">" };
    let word = word.strip_prefix(own).or_else(|| word.strip_prefix('|'))?;
    DataType::ALL.into_iter().find(|&dtype| {
        let kind = match name(dtype) {
            name if name.starts_with("int") => 'i',
            name if name.starts_with("uint") => 'u',
            "float16" | "float32" | "float64" => 'f',
            _ => return false,
        };
        word.strip_prefix(kind) == Some(&dtype.size().to_string())
    })
}

/// What an array calls the type of its elements.
pub fn of(object: &Bound<'_, PyAny>) -> Option<String> {
    let py = object.py();
    object.getattr(intern!(py, "dtype")).ok()?.getattr(intern!(py, "name")).ok()?.extract().ok()
}

/// What a user means by a type: its name, a dtype of NumPy or torch, or a class of NumPy's or ml_dtypes'.
pub fn parse(object: &Bound<'_, PyAny>) -> PyResult<DataType> {
    let word: String = if let Ok(word) = object.extract() {
        word
    } else if let Ok(class) = object.cast::<PyType>() {
        class.name()?.to_string()
    } else if let Some(name) = object.getattr_opt("name")? {
        name.extract()?
    } else {
        object.str()?.to_string().trim_start_matches("torch.").to_owned()
    };
    by_name(&word).ok_or_else(|| {
        let all: Vec<&str> = DataType::ALL.into_iter().map(name).collect();
        pyo3::exceptions::PyTypeError::new_err(format!(
            "{word} is no type of elements: they are {}",
            all.join(", ")
        ))
    })
}
