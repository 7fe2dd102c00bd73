//! Types of elements by the names that NumPy, ml_dtypes and torch have for them.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;
use rccl::DataType;
use std::borrow::Cow;

/// What the elements of an array are.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Numbers of the library's, which can be reduced.
    Number(DataType),
    /// Anything else that is nothing but its bytes, in this machine's order. It can be moved, by so many numbers each.
    Plain { name: Cow<'static, str>, as_: DataType, per: usize },
}

/// Plain types that are not NumPy's alone: name, letter of typestrings, size, and what moves them.
const PLAIN: [(&str, char, usize, DataType, usize); 5] = [
    ("bool", 'b', 1, DataType::U8, 1),
    ("int16", 'i', 2, DataType::U8, 2),
    ("uint16", 'u', 2, DataType::U8, 2),
    ("complex64", 'c', 8, DataType::F32, 2),
    ("complex128", 'c', 16, DataType::F64, 2),
];

impl Kind {
    /// All that can be told by their names.
    pub fn all() -> impl Iterator<Item = Kind> {
        let plain =
            PLAIN.into_iter().map(|(name, _, _, as_, per)| Kind::Plain { name: name.into(), as_, per });
        DataType::ALL.into_iter().map(Kind::Number).chain(plain)
    }

    pub fn name(&self) -> &str {
        match self {
            Kind::Number(dtype) => name(*dtype),
            Kind::Plain { name, .. } => name,
        }
    }

    /// The bytes of an element.
    pub fn size(&self) -> usize {
        let (dtype, per) = self.moved();
        dtype.size() * per
    }

    /// The library's type, and how many of it an element has.
    #[inline]
    pub fn moved(&self) -> (DataType, usize) {
        match self {
            Kind::Number(dtype) => (*dtype, 1),
            Kind::Plain { as_, per, .. } => (*as_, *per),
        }
    }
}

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

/// The names of all types that can be reduced.
pub fn names() -> String {
    DataType::ALL.map(name).join(", ")
}

/// The type with this name.
pub fn by_name(word: &str) -> Option<Kind> {
    Kind::all().find(|kind| kind.name() == word)
}

/// The type of what the buffer protocol describes by a letter, in this machine's order of bytes.
#[inline]
pub fn by_letter(format: &[u8], size: usize) -> Option<Kind> {
    let letter = match format {
        [b'@' | b'=', letter @ ..] => letter,
        [b'<', letter @ ..] if cfg!(target_endian = "little") => letter,
        letter => letter,
    };
    Some(Kind::Number(match (letter, size) {
        (b"f", 4) => DataType::F32,
        (b"d", 8) => DataType::F64,
        (b"e", 2) => DataType::F16,
        (b"b" | b"i" | b"l" | b"q", 1) => DataType::I8,
        (b"i" | b"l" | b"q", 4) => DataType::I32,
        (b"i" | b"l" | b"q", 8) => DataType::I64,
        (b"B" | b"c", 1) => DataType::U8,
        (b"I" | b"L" | b"Q", 4) => DataType::U32,
        (b"I" | b"L" | b"Q", 8) => DataType::U64,
        (b"?", 1) => return by_name("bool"),
        (b"h", 2) => return by_name("int16"),
        (b"H", 2) => return by_name("uint16"),
        (b"Zf", 8) => return by_name("complex64"),
        (b"Zd", 16) => return by_name("complex128"),
        _ => return None,
    }))
}

/// The type of what `__array_interface__` describes: `<f4`.
pub fn by_typestr(word: &str) -> Option<Kind> {
    let own = if cfg!(target_endian = "little") { "<" } else { ">" };
    let word = word.strip_prefix(own).or_else(|| word.strip_prefix('|'))?;
    let (letter, size) = (word.chars().next()?, word.get(1..)?.parse().ok()?);
    if let Some(&(name, ..)) = PLAIN.iter().find(|(_, known, bytes, ..)| (*known, *bytes) == (letter, size)) {
        return by_name(name);
    }
    let mut numbers = DataType::ALL.into_iter().filter(|dtype| dtype.size() == size);
    let found = numbers.find(|&dtype| match name(dtype) {
        name if name.starts_with("int") => letter == 'i',
        name if name.starts_with("uint") => letter == 'u',
        "float16" | "float32" | "float64" => letter == 'f',
        _ => false,
    });
    found.map(Kind::Number)
}

/// What an array of NumPy's kind says of the type of its elements.
pub struct OfArray {
    pub name: String,
    /// The bytes of numbers are in this machine's order.
    pub is_native: bool,
    /// They refer to objects of Python's.
    pub has_objects: bool,
    /// They are what they are by their bytes alone; so many each.
    pub plain: Option<usize>,
}

impl OfArray {
    /// `None` for what has no `dtype`, or another library's.
    pub fn read(object: &Bound<'_, PyAny>) -> PyResult<Option<OfArray>> {
        let py = object.py();
        let Some(dtype) = object.getattr_opt(intern!(py, "dtype"))? else { return Ok(None) };
        let Some(has_objects) = dtype.getattr_opt("hasobject")? else { return Ok(None) };
        let has_objects = has_objects.is_truthy()?;
        let (name, kind) = (dtype.getattr("name")?, dtype.getattr("kind")?);
        // Of records, the fields.
        let is_record = !dtype.getattr("fields")?.is_none();
        // Numbers, times, strings of one length and records; not strings of NumPy's that lie elsewhere.
        let is_plain = "biufcmMSUV".contains(&kind.extract::<String>()?) && !has_objects;
        Ok(Some(OfArray {
            name: if is_record { dtype.str()?.to_string() } else { name.extract()? },
            is_native: dtype.getattr("isnative")?.is_truthy()?,
            has_objects,
            plain: is_plain.then(|| dtype.getattr("itemsize")?.extract()).transpose()?,
        }))
    }

    /// The type, if it can be used.
    pub fn kind(&self) -> Option<Kind> {
        if !self.is_native {
            return None;
        }
        by_name(&self.name).or_else(|| {
            let name = Cow::Owned(self.name.clone());
            self.plain.map(|per| Kind::Plain { name, as_: DataType::U8, per })
        })
    }
}

/// What a user means by a type: its name, a dtype of NumPy or torch, or a class of NumPy's or ml_dtypes'.
pub fn parse(object: &Bound<'_, PyAny>) -> PyResult<Kind> {
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
        let all: Vec<String> = Kind::all().map(|kind| kind.name().to_owned()).collect();
        pyo3::exceptions::PyTypeError::new_err(format!(
            "{word} is no type of elements: they are {}",
            all.join(", ")
        ))
    })
}
