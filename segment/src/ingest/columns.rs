//! Column buffers that remember only the rows that have a value, and become Arrow arrays in any row order.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Int32Array, ListArray,
    PrimitiveArray, StringArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Field, Int32Type};

/// Texts up to this length are handed to the Parquet writer as dictionaries: a thousand of them still make a small page.
const LONG_TEXT_BYTES: i32 = 16 << 10;
/// No value for this row.
const NONE: u32 = u32::MAX;

/// Which stored row each output row is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement<'a> {
    /// Stored rows.
    pub rows: usize,
    /// For each output row its stored row; `None` for all of them in their order.
    pub source: Option<&'a [u32]>,
}

impl Placement<'_> {
    fn len(&self) -> usize {
        self.source.map_or(self.rows, <[u32]>::len)
    }

    /// For each output row the place of its value among the values of `rows`, which are ascending.
    fn places(&self, rows: &[u32]) -> Places {
        let full = rows.len() == self.rows;
        let by_row: Option<Vec<u32>> = (!full).then(|| {
            let mut by_row = vec![NONE; self.rows];
            for (place, row) in rows.iter().enumerate() {
                by_row[*row as usize] = place as u32;
            }
            by_row
        });
        let places = match (self.source, by_row) {
            (None, None) => (0..self.rows as u32).collect(),
            (None, Some(by_row)) => by_row,
            (Some(source), None) => source.to_vec(),
            (Some(source), Some(by_row)) => source.iter().map(|row| by_row[*row as usize]).collect(),
        };
        let nulls =
            (!full).then(|| NullBuffer::new(BooleanBuffer::collect_bool(places.len(), |row| places[row] != NONE)));
        Places { places, nulls: nulls.filter(|nulls| nulls.null_count() > 0) }
    }
}

struct Places {
    places: Vec<u32>,
    nulls: Option<NullBuffer>,
}

impl Places {
    fn pick<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        self.places.iter().map(|place| values.get(*place as usize).copied().unwrap_or_default()).collect()
    }
}

/// Numbers.
#[derive(Debug)]
pub(crate) struct NumberColumn<T: ArrowPrimitiveType> {
    rows: Vec<u32>,
    values: Vec<T::Native>,
}

impl<T: ArrowPrimitiveType> Default for NumberColumn<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), values: Vec::new() }
    }
}

impl<T: ArrowPrimitiveType> NumberColumn<T> {
    #[inline]
    pub(crate) fn push(&mut self, row: u32, value: T::Native) {
        self.rows.push(row);
        self.values.push(value);
    }

    #[inline]
    pub(crate) fn push_some(&mut self, row: u32, value: Option<T::Native>) {
        if let Some(value) = value {
            self.push(row, value);
        }
    }

    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    pub(crate) fn value(&self, place: usize) -> T::Native {
        self.values[place]
    }

    pub(crate) fn build(&self, placement: Placement<'_>, data_type: &DataType) -> ArrayRef {
        if self.rows.is_empty() {
            return new_null_array(data_type, placement.len());
        }
        let places = placement.places(&self.rows);
        let values = ScalarBuffer::from(places.pick(&self.values));
        Arc::new(PrimitiveArray::<T>::new(values, places.nulls).with_data_type(data_type.clone()))
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.values.clear();
    }
}

/// Booleans.
#[derive(Debug, Default)]
pub(crate) struct BoolColumn {
    rows: Vec<u32>,
    values: Vec<bool>,
}

impl BoolColumn {
    pub(crate) fn push(&mut self, row: u32, value: bool) {
        self.rows.push(row);
        self.values.push(value);
    }

    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    pub(crate) fn value(&self, place: usize) -> bool {
        self.values[place]
    }

    pub(crate) fn build(&self, placement: Placement<'_>) -> ArrayRef {
        let places = placement.places(&self.rows);
        let values = BooleanBuffer::from(places.pick(&self.values));
        Arc::new(BooleanArray::new(values, places.nulls))
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.values.clear();
    }
}

/// Ids of `N` bytes.
#[derive(Debug, Default)]
pub(crate) struct IdColumn<const N: usize> {
    rows: Vec<u32>,
    values: Vec<[u8; N]>,
}

impl<const N: usize> IdColumn<N> {
    #[inline]
    pub(crate) fn push_some(&mut self, row: u32, value: Option<&[u8; N]>) {
        if let Some(value) = value {
            self.rows.push(row);
            self.values.push(*value);
        }
    }

    pub(crate) fn build(&self, placement: Placement<'_>) -> ArrayRef {
        let width = i32::try_from(N).expect("ids have 8 or 16 bytes");
        if self.rows.is_empty() {
            return new_null_array(&DataType::FixedSizeBinary(width), placement.len());
        }
        let places = placement.places(&self.rows);
        let mut bytes = Vec::with_capacity(places.places.len() * N);
        for place in &places.places {
            bytes.extend_from_slice(self.values.get(*place as usize).unwrap_or(&[0; N]));
        }
        Arc::new(FixedSizeBinaryArray::new(width, Buffer::from(bytes), places.nulls))
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.values.clear();
    }
}

/// Text. A value equal to the one before it is stored once; the array is a dictionary, so that moving rows moves no text.
#[derive(Debug)]
pub(crate) struct TextColumn {
    rows: Vec<u32>,
    keys: Vec<i32>,
    /// Where each stored text ends, after a first 0.
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Default for TextColumn {
    fn default() -> Self {
        Self { rows: Vec::new(), keys: Vec::new(), ends: vec![0], bytes: Vec::new() }
    }
}

impl TextColumn {
    #[inline]
    pub(crate) fn push(&mut self, row: u32, text: &str) {
        if self.keys.is_empty() || self.last() != text.as_bytes() {
            self.bytes.extend_from_slice(text.as_bytes());
            self.end_text();
        }
        self.push_last(row);
    }

    /// Like `push`, empty text meaning none.
    #[inline]
    pub(crate) fn push_some(&mut self, row: u32, text: &str) {
        if !text.is_empty() {
            self.push(row, text);
        }
    }

    /// Stores the UTF-8 that `write` appends.
    #[inline]
    pub(crate) fn push_written(&mut self, row: u32, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.end_text();
        self.push_last(row);
    }

    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The bytes of the value at `place`.
    pub(crate) fn value(&self, place: usize) -> &[u8] {
        let key = self.keys[place] as usize;
        &self.bytes[self.ends[key] as usize..self.ends[key + 1] as usize]
    }

    fn last(&self) -> &[u8] {
        &self.bytes[self.ends[self.ends.len() - 2] as usize..]
    }

    fn end_text(&mut self) {
        // A partition is written out long before its text has 2 GiB.
        self.ends.push(i32::try_from(self.bytes.len()).expect("a partition's text stays below 2 GiB"));
    }

    fn push_last(&mut self, row: u32) {
        self.rows.push(row);
        self.keys.push(self.ends.len() as i32 - 2);
    }

    pub(crate) fn build(&mut self, placement: Placement<'_>) -> ArrayRef {
        if self.rows.is_empty() {
            return new_null_array(&text_type(), placement.len());
        }
        let places = placement.places(&self.rows);
        let keys = Int32Array::new(ScalarBuffer::from(places.pick(&self.keys)), places.nulls);
        Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(self.take_values())))
    }

    /// The same as a plain array: for long text, whose pages the Parquet writer then bounds, and for elements of lists.
    pub(crate) fn build_plain(&mut self, placement: Placement<'_>) -> ArrayRef {
        if self.rows.is_empty() {
            return new_null_array(&DataType::Utf8, placement.len());
        }
        let stored = self.ends.len() - 1;
        if placement.source.is_none() && stored == placement.rows && self.rows.len() == placement.rows {
            return Arc::new(self.take_values());
        }
        let places = placement.places(&self.rows);
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut ends = Vec::with_capacity(places.places.len() + 1);
        ends.push(0);
        for place in &places.places {
            if *place != NONE {
                bytes.extend_from_slice(self.value(*place as usize));
            }
            ends.push(i32::try_from(bytes.len()).expect("a partition's text stays below 2 GiB"));
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        Arc::new(StringArray::new(offsets, Buffer::from(bytes), places.nulls))
    }

    /// The stored texts, moved out: they are the bulk of a row group and are not copied. Only `clear` may follow.
    fn take_values(&mut self) -> StringArray {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::take(&mut self.ends)));
        StringArray::new(offsets, Buffer::from(std::mem::take(&mut self.bytes)), None)
    }

    /// As a dictionary, or plain when a text is so long that the Parquet writer, which does not bound pages of dictionaries, should.
    pub(crate) fn build_long(&mut self, placement: Placement<'_>) -> ArrayRef {
        let longest = self.ends.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
        if longest > LONG_TEXT_BYTES { self.build_plain(placement) } else { self.build(placement) }
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.keys.clear();
        self.ends.clear();
        self.ends.push(0);
        self.bytes.clear();
    }
}

/// Lists of numbers.
#[derive(Debug)]
pub(crate) struct ListColumn<T: ArrowPrimitiveType> {
    rows: Vec<u32>,
    ends: Vec<usize>,
    values: Vec<T::Native>,
}

impl<T: ArrowPrimitiveType> Default for ListColumn<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), ends: vec![0], values: Vec::new() }
    }
}

impl<T: ArrowPrimitiveType> ListColumn<T> {
    pub(crate) fn push(&mut self, row: u32, values: impl IntoIterator<Item = T::Native>) {
        self.rows.push(row);
        self.values.extend(values);
        self.ends.push(self.values.len());
    }

    pub(crate) fn build(&self, placement: Placement<'_>, data_type: &DataType) -> ArrayRef {
        if self.rows.is_empty() {
            return new_null_array(data_type, placement.len());
        }
        let places = placement.places(&self.rows);
        let mut values = Vec::with_capacity(self.values.len());
        let mut lengths = Vec::with_capacity(places.places.len());
        for place in &places.places {
            let before = values.len();
            if *place != NONE {
                values.extend_from_slice(&self.values[self.ends[*place as usize]..self.ends[*place as usize + 1]]);
            }
            lengths.push(values.len() - before);
        }
        let elements = PrimitiveArray::<T>::new(ScalarBuffer::from(values), None);
        let offsets = OffsetBuffer::from_lengths(lengths);
        Arc::new(ListArray::new(element_field(data_type), offsets, Arc::new(elements), places.nulls))
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.ends.truncate(1);
        self.values.clear();
    }
}

/// A list array of `elements`, whose runs end at `ends` and belong to `rows`.
pub(crate) fn build_list(
    rows: &[u32],
    ends: &[usize],
    elements: ArrayRef,
    placement: Placement<'_>,
    data_type: &DataType,
) -> ArrayRef {
    let stored = Placement { rows: placement.rows, source: None };
    let places = stored.places(rows);
    let lengths = places.places.iter().map(|place| match *place {
        NONE => 0,
        place => ends[place as usize + 1] - ends[place as usize],
    });
    let offsets = OffsetBuffer::from_lengths(lengths);
    let list = ListArray::new(element_field(data_type), offsets, elements, places.nulls);
    match placement.source {
        None => Arc::new(list),
        Some(source) => {
            let order = arrow::array::UInt32Array::from(source.to_vec());
            arrow::compute::take(&list, &order, None).expect("the order holds only stored rows")
        }
    }
}

/// The element field of a list type.
pub(crate) fn element_field(list: &DataType) -> Arc<Field> {
    match list {
        DataType::List(field) => Arc::clone(field),
        other => unreachable!("{other} is asked for as a list only where the schema has one"),
    }
}

/// The in-memory type of a text column.
pub(crate) fn text_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Values that every row has, in output order.
pub(crate) fn build_dense<T: ArrowPrimitiveType>(
    values: &[T::Native],
    order: Option<&[u32]>,
    data_type: &DataType,
) -> ArrayRef {
    let values = match order {
        None => Buffer::from_slice_ref(values).into(),
        Some(order) => order.iter().map(|row| values[row.as_usize()]).collect::<Vec<_>>().into(),
    };
    Arc::new(PrimitiveArray::<T>::new(values, None).with_data_type(data_type.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int64Type, UInt64Type};

    #[test]
    fn missing_rows_become_nulls_in_any_order() {
        let mut column = NumberColumn::<Int64Type>::default();
        column.push(0, 10);
        column.push(2, 30);
        let placement = Placement { rows: 3, source: Some(&[2, 1, 0, 2]) };
        let array = column.build(placement, &DataType::Int64);
        let values: Vec<Option<i64>> = array.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(values, [Some(30), None, Some(10), Some(30)]);
    }

    #[test]
    fn repeated_text_is_stored_once() {
        let mut column = TextColumn::default();
        for (row, text) in ["a", "a", "b", ""].into_iter().enumerate() {
            column.push(row as u32, text);
        }
        assert_eq!(column.ends.len(), 4);
        let array = column.build(Placement { rows: 5, source: None });
        let texts: Vec<Option<&str>> =
            array.as_dictionary::<Int32Type>().downcast_dict::<StringArray>().expect("text").into_iter().collect();
        assert_eq!(texts, [Some("a"), Some("a"), Some("b"), Some(""), None]);
    }

    #[test]
    fn lists_follow_their_rows() {
        let mut column = ListColumn::<UInt64Type>::default();
        column.push(1, [7, 8]);
        let data_type = crate::schema::list_of(DataType::UInt64);
        let array = column.build(Placement { rows: 2, source: Some(&[1, 0]) }, &data_type);
        assert_eq!(array.as_list::<i32>().value(0).as_primitive::<UInt64Type>().values(), &[7, 8]);
        assert!(array.is_null(1));
    }
}
