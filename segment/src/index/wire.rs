//! Integers and bounded slices in index bytes: what is read is checked against what is there before anything is allocated.

use crate::error::{Error, Result};

/// Appends `value` as LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The first eight bytes of the BLAKE3 of `bytes`: what a reader compares a section with.
pub(crate) fn check_of(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

/// An error about the named part of an index.
pub(crate) fn corrupt(subject: &str, problem: impl Into<String>) -> Error {
    Error::Corrupt { subject: subject.to_owned(), problem: problem.into() }
}

/// Reads values off the front of a slice.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    subject: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, which errors call `subject`.
    pub(crate) fn new(subject: &'static str, bytes: &'a [u8]) -> Self {
        Self { subject, bytes }
    }

    /// What has not been read.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.bytes.len() {
            return Err(corrupt(self.subject, format!("{length} bytes expected, {} left", self.bytes.len())));
        }
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(taken)
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// The next LEB128 number.
    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(corrupt(self.subject, "a number of more than 64 bits"))
    }

    /// The next bytes, so many as the array has.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    /// The next eight bytes, little-endian.
    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least one byte each, so at most what is left.
    pub(crate) fn count(&mut self) -> Result<usize> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.bytes.len() => Ok(count),
            _ => Err(corrupt(self.subject, format!("{count} entries in {} bytes", self.bytes.len()))),
        }
    }

    /// A number that may not exceed `most`.
    pub(crate) fn bounded(&mut self, what: &str, most: u64) -> Result<u64> {
        let value = self.varint()?;
        if value > most {
            return Err(corrupt(self.subject, format!("{what} is {value}; at most {most} is possible")));
        }
        Ok(value)
    }

    /// A length and that many bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    /// A length and that many bytes of UTF-8.
    pub(crate) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| corrupt(self.subject, "a name is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_overlong_ones_are_refused() {
        for value in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(Reader::new("test", &out).varint().expect("reads"), value);
        }
        assert!(Reader::new("test", &[0xff; 11]).varint().is_err());
        assert!(Reader::new("test", &[0x80]).varint().is_err());
        assert!(Reader::new("test", &[200, 1, 0]).count().is_err());
    }
}
