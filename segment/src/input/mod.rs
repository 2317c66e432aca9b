//! An input as it is stored: bounded, decompressed, its format recognized.

mod stored;

pub(crate) use stored::StoredInput;
