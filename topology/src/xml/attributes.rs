//! Attributes of an element as typed values.

use std::fmt::Display;
use std::str::FromStr;

use roxmltree::Node;

use super::Error;
use super::outline;
use super::reader::Reader;
use crate::system::Hex;

/// The attributes of one element. Whoever reads it asks for all that it knows, and then says [`Attributes::finish`]. An
/// empty attribute is as good as none.
pub struct Attributes<'a> {
    node: Node<'a, 'a>,
    asked: Vec<&'static str>,
}

impl<'a> Attributes<'a> {
    /// Those of an element.
    pub fn of(node: Node<'a, 'a>) -> Attributes<'a> {
        Attributes { node, asked: Vec::new() }
    }

    /// Text, as it is.
    pub fn text(&mut self, name: &'static str) -> Option<&'a str> {
        self.asked.push(name);
        self.node.attribute(name).filter(|value| !value.trim().is_empty())
    }

    /// A number of 32 bits, decimal or with 0x. -1 is how NCCL writes that it does not know.
    pub fn number(&mut self, name: &'static str) -> Result<Option<u32>, Error> {
        match self.whole(name)? {
            None | Some(-1) => Ok(None),
            Some(number) => match u32::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(self.wrong(name, "a number from 0 to 4294967295")),
            },
        }
    }

    /// A number of 64 bits, decimal or with 0x.
    pub fn long_number(&mut self, name: &'static str) -> Result<Option<u64>, Error> {
        let Some(number) = self.whole(name)? else { return Ok(None) };
        u64::try_from(number).map(Some).map_err(|_| self.wrong(name, "a number of 64 bits"))
    }

    /// 0 is no, another number is yes.
    pub fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        Ok(self.number(name)?.map(|number| number != 0))
    }

    /// A hexadecimal number of 64 bits, with 0x or without.
    pub fn hex(&mut self, name: &'static str) -> Result<Option<Hex>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match unsigned(without_0x(text.trim()), 16).and_then(|number| u64::try_from(number).ok()) {
            Some(number) => Ok(Some(Hex(number))),
            None => Err(self.wrong(name, "a hexadecimal number of up to 64 bits, as 0x10de")),
        }
    }

    /// A finite number, maybe with a fraction.
    pub fn real(&mut self, name: &'static str) -> Result<Option<f64>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.wrong(name, "a number")),
        }
    }

    /// Anything that says itself what it must look like.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>, Error>
    where
        T::Err: Display,
    {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: T::Err| self.at(name, text, error))
    }

    /// A value without which the element means nothing.
    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| {
            let element = self.node.tag_name().name();
            let start = outline::position(self.node.document().input_text(), self.node.range().start);
            Error::new(Some(start), format!("<{element}> has no {name}"), format!("add {name}=\"...\""))
        })
    }

    /// The byte at which an attribute's value starts.
    pub fn place(&self, name: &str) -> usize {
        let attribute = self.node.attribute_node(name);
        attribute.map_or(self.node.range().start, |attribute| attribute.range_value().start)
    }

    /// Notes the attributes that nobody asked for.
    pub fn finish(self, reader: &mut Reader<'_>) {
        for attribute in self.node.attributes() {
            if !self.asked.contains(&attribute.name()) {
                let element = self.node.tag_name().name();
                let words = format!("the attribute {} of <{element}> is not known", attribute.name());
                reader.note(attribute.range().start, words);
            }
        }
    }

    /// Like C's strtol with base 0, but for octal numbers, which nobody means; and 1000.0 is a whole number, too.
    fn whole(&mut self, name: &'static str) -> Result<Option<i128>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let (sign, digits) = match text.trim().strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.trim()),
        };
        let base = if without_0x(digits) == digits { 10 } else { 16 };
        let number = unsigned(without_0x(digits), base).or_else(|| {
            let (whole, fraction) = digits.split_once('.')?;
            if fraction.bytes().all(|byte| byte == b'0') { unsigned(whole, 10) } else { None }
        });
        match number {
            Some(number) => Ok(Some(sign * number)),
            None => Err(self.wrong(name, "a whole number")),
        }
    }

    fn wrong(&self, name: &str, wanted: &str) -> Error {
        self.at(name, self.node.attribute(name).unwrap_or_default(), format!("it should be {wanted}"))
    }

    fn at(&self, name: &str, value: &str, rule: impl Display) -> Error {
        let position = outline::position(self.node.document().input_text(), self.place(name));
        let element = self.node.tag_name().name();
        // Files may hold anything, and the message is a line.
        let value: String = value.chars().take(40).flat_map(char::escape_debug).collect();
        Error::new(
            Some(position),
            format!("{name}=\"{value}\" of <{element}> makes no sense"),
            rule.to_string(),
        )
    }
}

fn without_0x(digits: &str) -> &str {
    digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits)
}

/// Digits alone: Rust's parsers would take a sign.
fn unsigned(digits: &str, base: u32) -> Option<i128> {
    let plain = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(base));
    // 30 digits fit.
    (plain && digits.trim_start_matches('0').len() <= 30)
        .then(|| i128::from_str_radix(digits, base).ok())
        .flatten()
}
