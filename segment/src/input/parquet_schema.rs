//! Looks at the schema of a Parquet file before its reader does: that one recurses as deep as the schema is nested, and a few kilobytes
//! of schema are enough to overflow any stack.
//!
//! Reads the footer's Thrift (compact protocol) only as far as needed: `FileMetaData.schema` is a list of elements in depth-first order, each
//! with its number of children. See <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift> and
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

use parquet::file::reader::ChunkReader;

/// Nested types may be this deep; a list takes two levels.
const DEPTH_LIMIT: usize = 64;
/// A schema may have this many elements.
const ELEMENT_LIMIT: u64 = 20_000;
/// A footer may have this many bytes.
const FOOTER_LIMIT_BYTES: u64 = 64 << 20;
/// Structures inside of each other that are skipped over; the format has fewer.
const SKIP_DEPTH: usize = 16;
/// The footer's length and `PAR1`.
const TRAILER_BYTES: u64 = 8;

const SCHEMA_FIELD: i64 = 2;
const CHILDREN_FIELD: i64 = 5;

/// Checks that the file's schema can be read.
///
/// # Errors
/// What is wrong with it. A file without a footer is no error here; its reader tells what it lacks.
pub(crate) fn check_schema(file: &impl ChunkReader) -> Result<(), String> {
    let told = |error: parquet::errors::ParquetError| error.to_string();
    let Some(before) = file.len().checked_sub(TRAILER_BYTES) else { return Ok(()) };
    let trailer = file.get_bytes(before, TRAILER_BYTES as usize).map_err(told)?;
    let Some((length, b"PAR1")) = trailer.split_first_chunk::<4>() else { return Ok(()) };
    let length = u64::from(u32::from_le_bytes(*length));
    let Some(start) = before.checked_sub(length) else { return Ok(()) };
    if length > FOOTER_LIMIT_BYTES {
        return Err(format!("a footer of {length} bytes, a file may have {FOOTER_LIMIT_BYTES}"));
    }
    let footer = file.get_bytes(start, length as usize).map_err(told)?;
    Thrift(&footer).check_metadata().unwrap_or_else(|| Err("the footer is no Parquet metadata".to_owned()))
}

/// The rest of a message; every method answers `None` where it ends too early or is none.
struct Thrift<'a>(&'a [u8]);

/// The types of the compact protocol that carry bytes of their own.
mod kind {
    pub(super) const STOP: u8 = 0;
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const BYTE: u8 = 3;
    pub(super) const I16: u8 = 4;
    pub(super) const I32: u8 = 5;
    pub(super) const I64: u8 = 6;
    pub(super) const DOUBLE: u8 = 7;
    pub(super) const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const SET: u8 = 10;
    pub(super) const MAP: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
}

impl<'a> Thrift<'a> {
    fn check_metadata(mut self) -> Option<Result<(), String>> {
        let mut field = 0;
        loop {
            let kind = self.field(&mut field)?;
            match (kind, field) {
                (kind::STOP, _) => return Some(Ok(())),
                (kind::LIST, SCHEMA_FIELD) => {
                    if let Err(problem) = self.check_elements()? {
                        return Some(Err(problem));
                    }
                }
                _ => self.skip(kind, SKIP_DEPTH)?,
            }
        }
    }

    fn check_elements(&mut self) -> Option<Result<(), String>> {
        let (kind, count) = self.list()?;
        if kind != kind::STRUCT {
            return None;
        }
        if count > ELEMENT_LIMIT {
            return Some(Err(format!("a schema of {count} elements, a file may have {ELEMENT_LIMIT}")));
        }
        // For each level that is open, the children that are still to come.
        let mut open: Vec<u64> = Vec::new();
        for _ in 0..count {
            let children = self.children()?;
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            if children > 0 {
                open.push(children);
            }
            if open.len() > DEPTH_LIMIT {
                return Some(Err(format!("columns nested deeper than {DEPTH_LIMIT} levels")));
            }
        }
        Some(Ok(()))
    }

    /// Reads a `SchemaElement` for its number of children.
    fn children(&mut self) -> Option<u64> {
        let (mut field, mut children) = (0, 0);
        loop {
            match (self.field(&mut field)?, field) {
                (kind::STOP, _) => return Some(children),
                (kind::I32, CHILDREN_FIELD) => children = u64::try_from(self.integer()?).ok()?,
                (kind, _) => self.skip(kind, SKIP_DEPTH)?,
            }
        }
    }

    /// The type of the next field; its number goes to `number`, which holds the one before.
    fn field(&mut self, number: &mut i64) -> Option<u8> {
        let byte = self.byte()?;
        let kind = byte & 0x0f;
        if kind == kind::STOP {
            return Some(kind);
        }
        match byte >> 4 {
            0 => *number = self.integer()?,
            delta => *number = number.checked_add(i64::from(delta))?,
        }
        Some(kind)
    }

    /// The type of a list's elements and their number.
    fn list(&mut self) -> Option<(u8, u64)> {
        let byte = self.byte()?;
        let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
        Some((byte & 0x0f, count))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // Their value is in the field's type.
            kind::TRUE | kind::FALSE => {}
            kind::BYTE => drop(self.byte()?),
            kind::I16 | kind::I32 | kind::I64 => drop(self.varint()?),
            kind::DOUBLE => self.take(8)?,
            kind::BINARY => {
                let length = self.varint()?;
                self.take(length)?;
            }
            kind::LIST | kind::SET => {
                let (kind, count) = self.list()?;
                self.skip_each(&[kind], count, depth)?;
            }
            kind::MAP => {
                let count = self.varint()?;
                if count > 0 {
                    let kinds = self.byte()?;
                    self.skip_each(&[kinds >> 4, kinds & 0x0f], count, depth)?;
                }
            }
            kind::STRUCT => {
                let mut field = 0;
                loop {
                    match self.field(&mut field)? {
                        kind::STOP => break,
                        kind => self.skip(kind, depth)?,
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Skips elements of a collection, where a truth value takes a byte; each takes one at least.
    fn skip_each(&mut self, kinds: &[u8], count: u64, depth: usize) -> Option<()> {
        if count > self.0.len() as u64 {
            return None;
        }
        for _ in 0..count {
            for kind in kinds {
                match *kind {
                    kind::TRUE | kind::FALSE => self.take(1)?,
                    kind => self.skip(kind, depth)?,
                }
            }
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(length).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A zigzag integer.
    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A file whose schema is a root with one group inside of the other, then a column.
    fn nested(levels: usize) -> Bytes {
        let group = [0x35, 2, 0x18, 1, b'a', 0x15, 2, 0];
        let column = [0x15, 2, 0x25, 2, 0x18, 1, b'a', 0];
        let mut footer = vec![0x15, 2, 0x19, 0xfc];
        let mut count = levels + 2;
        while count >= 0x80 {
            footer.push(count as u8 | 0x80);
            count >>= 7;
        }
        footer.push(count as u8);
        (0..=levels).for_each(|_| footer.extend(group));
        footer.extend(column);
        // No rows, no row groups.
        footer.extend([0x16, 0, 0x19, 0x0c, 0]);
        let mut file = b"PAR1".to_vec();
        file.extend(&footer);
        file.extend((footer.len() as u32).to_le_bytes());
        file.extend(b"PAR1");
        file.into()
    }

    #[test]
    fn a_schema_is_as_deep_as_its_children_say() {
        assert_eq!(check_schema(&nested(0)), Ok(()));
        assert_eq!(check_schema(&nested(DEPTH_LIMIT - 1)), Ok(()));
        for levels in [DEPTH_LIMIT, 1_000, 19_000] {
            assert_eq!(check_schema(&nested(levels)), Err("columns nested deeper than 64 levels".to_owned()));
        }
        let many = check_schema(&nested(1_000_000)).expect_err("too many");
        assert_eq!(many, "a schema of 1000002 elements, a file may have 20000");
    }

    #[test]
    fn what_the_reader_takes_is_taken() {
        use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
        for levels in [0, 10, DEPTH_LIMIT - 1] {
            ParquetRecordBatchReaderBuilder::try_new(nested(levels)).expect("the file is made right");
        }
    }

    #[test]
    fn a_footer_that_is_none_is_told() {
        let mut file = nested(3).to_vec();
        let length = file.len();
        file[6] = 0x1f;
        assert!(check_schema(&Bytes::from(file)).is_err());
        assert_eq!(check_schema(&nested(3).slice(..length - 1)), Ok(()), "not found, which the reader tells");
        assert_eq!(check_schema(&Bytes::from_static(b"PAR1")), Ok(()));
    }
}
