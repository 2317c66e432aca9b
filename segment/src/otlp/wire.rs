//! Protobuf's wire format: fields of one message, borrowed from its bytes.
//!
//! Never allocates and never panics, whatever the bytes are. See <https://protobuf.dev/programming-guides/encoding/>.

use std::fmt;

/// The fields of a message, in the order of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    /// The bytes may end early; what is cut off ends the iteration instead of failing.
    clipped: bool,
    cut: bool,
}

/// A field's number and value.
pub(crate) type Field<'a> = (u32, Wire<'a>);

/// A field's value as the wire has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// Why bytes are no message, or a field is not of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireFault {
    /// The message ends inside a field.
    Truncated,
    /// A varint of more than ten bytes.
    LongVarint,
    /// Field number 0 or beyond 2^29 - 1.
    FieldNumber,
    /// Wire types 3, 4, 6 or 7.
    WireType(u8),
    /// A known field has another wire type than its own.
    Mismatch { found: u8, expected: u8 },
    /// Text that is not UTF-8, from this byte on.
    Utf8(usize),
}

impl fmt::Display for WireFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends inside a field"),
            Self::LongVarint => f.write_str("a varint has more than ten bytes"),
            Self::FieldNumber => f.write_str("a field number is 0 or above 536870911"),
            Self::WireType(found) => write!(f, "wire type {found} is not supported"),
            Self::Mismatch { found, expected } => write!(f, "wire type {found}, expected {expected}"),
            Self::Utf8(place) => write!(f, "invalid UTF-8 from byte {place}"),
        }
    }
}

impl<'a> Fields<'a> {
    /// The fields of the message `bytes`.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, clipped: false, cut: false }
    }

    /// The fields of a message that may be cut off; the last one may be a part of what was sent, see [`Self::was_cut`].
    pub(crate) fn of_clipped(bytes: &'a [u8], clipped: bool) -> Self {
        Self { rest: bytes, clipped, cut: false }
    }

    /// Whether the field that was answered last is incomplete.
    pub(crate) fn was_cut(&self) -> bool {
        self.cut
    }

    /// The next field, `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, WireFault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        match self.read_field() {
            Err(WireFault::Truncated) if self.clipped => {
                self.rest = &[];
                self.cut = true;
                Ok(None)
            }
            Err(fault) => Err(fault),
            Ok(field) => Ok(Some(field)),
        }
    }

    #[inline]
    fn read_field(&mut self) -> Result<Field<'a>, WireFault> {
        let tag = read_varint(&mut self.rest)?;
        let number = tag >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(WireFault::FieldNumber);
        }
        let wire = match tag & 7 {
            0 => Wire::Varint(read_varint(&mut self.rest)?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take_array()?)),
            2 => {
                let length = read_varint(&mut self.rest)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take_array()?)),
            other => return Err(WireFault::WireType(other as u8)),
        };
        Ok((number as u32, wire))
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], WireFault> {
        if length > self.rest.len() as u64 {
            if self.clipped {
                self.cut = true;
                return Ok(std::mem::take(&mut self.rest));
            }
            return Err(WireFault::Truncated);
        }
        let (taken, rest) = self.rest.split_at(length as usize);
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], WireFault> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireFault::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Reads one varint off the front of `bytes`.
#[inline]
pub(crate) fn read_varint(bytes: &mut &[u8]) -> Result<u64, WireFault> {
    let (first, rest) = bytes.split_first().ok_or(WireFault::Truncated)?;
    if *first < 0x80 {
        *bytes = rest;
        return Ok(u64::from(*first));
    }
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        // The tenth byte has room for one bit; protobuf drops the others.
        value |= u64::from(byte & 0x7f) << (7 * place as u32);
        if *byte < 0x80 {
            *bytes = &bytes[place + 1..];
            return Ok(value);
        }
    }
    Err(if bytes.len() < 10 { WireFault::Truncated } else { WireFault::LongVarint })
}

impl<'a> Wire<'a> {
    fn code(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32(_) => 5,
        }
    }

    fn mismatch<T>(self, expected: u8) -> Result<T, WireFault> {
        Err(WireFault::Mismatch { found: self.code(), expected })
    }

    /// The value of a `fixed64`, `sfixed64` or `double` field.
    #[inline]
    pub(crate) fn fixed64(self) -> Result<u64, WireFault> {
        if let Self::Fixed64(value) = self { Ok(value) } else { self.mismatch(1) }
    }

    /// The value of a `double` field.
    #[inline]
    pub(crate) fn double(self) -> Result<f64, WireFault> {
        self.fixed64().map(f64::from_bits)
    }

    /// The value of a `fixed32` field.
    #[inline]
    pub(crate) fn fixed32(self) -> Result<u32, WireFault> {
        if let Self::Fixed32(value) = self { Ok(value) } else { self.mismatch(5) }
    }

    /// The value of a varint field.
    #[inline]
    pub(crate) fn varint(self) -> Result<u64, WireFault> {
        if let Self::Varint(value) = self { Ok(value) } else { self.mismatch(0) }
    }

    /// The value of a `uint32` field.
    #[inline]
    pub(crate) fn uint32(self) -> Result<u32, WireFault> {
        self.varint().map(|value| value as u32)
    }

    /// The value of an enum or `int32` field.
    #[inline]
    pub(crate) fn int32(self) -> Result<i32, WireFault> {
        self.varint().map(|value| value as i32)
    }

    /// The value of a `sint32` field.
    #[inline]
    pub(crate) fn sint32(self) -> Result<i32, WireFault> {
        self.uint32().map(|value| ((value >> 1) as i32) ^ -((value & 1) as i32))
    }

    /// The bytes of a `bytes` or message field.
    #[inline]
    pub(crate) fn bytes(self) -> Result<&'a [u8], WireFault> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { self.mismatch(2) }
    }

    /// The text of a `string` field.
    #[inline]
    pub(crate) fn text(self) -> Result<&'a str, WireFault> {
        std::str::from_utf8(self.bytes()?).map_err(|error| WireFault::Utf8(error.valid_up_to()))
    }

    /// Appends the values of a repeated 64-bit field, packed or not.
    pub(crate) fn extend_fixed64(self, values: &mut Vec<u64>) -> Result<(), WireFault> {
        match self {
            Self::Fixed64(value) => values.push(value),
            Self::Bytes(packed) => {
                let chunks = packed.chunks_exact(8);
                if !chunks.remainder().is_empty() {
                    return Err(WireFault::Truncated);
                }
                values
                    .extend(chunks.map(|chunk| u64::from_le_bytes(chunk.try_into().expect("chunks have eight bytes"))));
            }
            other => return other.mismatch(2),
        }
        Ok(())
    }

    /// Appends the values of a repeated varint field, packed or not.
    pub(crate) fn extend_varints(self, values: &mut Vec<u64>) -> Result<(), WireFault> {
        match self {
            Self::Varint(value) => values.push(value),
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    values.push(read_varint(&mut packed)?);
                }
            }
            other => return other.mismatch(2),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_are_read() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(value, &mut bytes);
            let mut rest = bytes.as_slice();
            assert_eq!(read_varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
            let mut cut = &bytes[..bytes.len() - 1];
            assert_eq!(read_varint(&mut cut), Err(WireFault::Truncated));
        }
        assert_eq!(read_varint(&mut [0xff; 11].as_slice()), Err(WireFault::LongVarint));
    }

    #[test]
    fn a_length_beyond_the_end_is_a_truncation() {
        let bytes = [0x0a, 0x05, 1, 2];
        assert_eq!(Fields::of(&bytes).next(), Err(WireFault::Truncated));
        let mut clipped = Fields::of_clipped(&bytes, true);
        assert_eq!(clipped.next(), Ok(Some((1, Wire::Bytes(&[1, 2])))));
        assert!(clipped.was_cut());
    }

    #[test]
    fn zig_zag_is_undone() {
        assert_eq!(Wire::Varint(0).sint32(), Ok(0));
        assert_eq!(Wire::Varint(1).sint32(), Ok(-1));
        assert_eq!(Wire::Varint(u64::from(u32::MAX)).sint32(), Ok(i32::MIN));
    }
}
