//! `has_token(text, 'word')` and `hex(value)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewBuilder};
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

pub(crate) const HAS_TOKEN: &str = "has_token";

/// Whether `word` is one token: a run of ASCII letters and digits.
pub(crate) fn is_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether `word` occurs in `text` as a whole run of ASCII letters and digits, case as it is.
fn text_has_token(text: &str, word: &str) -> bool {
    let bytes = text.as_bytes();
    let is_edge = |place: Option<usize>| {
        place.and_then(|place| bytes.get(place)).is_none_or(|byte| !byte.is_ascii_alphanumeric())
    };
    text.match_indices(word).any(|(start, _)| is_edge(start.checked_sub(1)) && is_edge(Some(start + word.len())))
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HasToken {
    signature: Signature,
}

impl HasToken {
    pub(super) fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8View, DataType::Utf8], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for HasToken {
    fn name(&self) -> &str {
        HAS_TOKEN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [text, word] = args.args.as_slice() else { return plan_err!("has_token takes a text and a word") };
        let ColumnarValue::Scalar(ScalarValue::Utf8(word)) = word else {
            return exec_err!("has_token(text, word): the word is a constant in single quotes");
        };
        let Some(word) = word else { return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(None))) };
        if !is_token(word) {
            return exec_err!(
                "has_token(text, {word:?}): a token is one run of ASCII letters and digits; use LIKE '%…%' for others"
            );
        }
        let text = text.to_array(args.number_rows)?;
        let found: BooleanArray =
            text.as_string_view().iter().map(|text| text.map(|text| text_has_token(text, word))).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Hex {
    signature: Signature,
}

impl Hex {
    pub(super) fn new() -> Self {
        let kinds = [DataType::Binary, DataType::Utf8View, DataType::UInt64, DataType::Int64];
        let signatures: Vec<TypeSignature> = kinds.into_iter().map(|kind| TypeSignature::Exact(vec![kind])).collect();
        Self { signature: Signature::one_of(signatures, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Hex {
    fn name(&self) -> &str {
        "hex"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return plan_err!("hex takes one value") };
        let value = value.to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(hex_array(&value)?))
    }
}

fn hex_array(value: &ArrayRef) -> Result<ArrayRef> {
    let mut builder = StringViewBuilder::with_capacity(value.len());
    for row in 0..value.len() {
        if value.is_null(row) {
            builder.append_null();
            continue;
        }
        let text = match value.data_type() {
            DataType::Binary => hex::encode(value.as_binary::<i32>().value(row)),
            DataType::Utf8View => hex::encode(value.as_string_view().value(row)),
            DataType::UInt64 => format!("{:x}", value.as_primitive::<UInt64Type>().value(row)),
            DataType::Int64 => format!("{:x}", value.as_primitive::<Int64Type>().value(row)),
            other => return exec_err!("hex of {other} is not supported"),
        };
        builder.append_value(text);
    }
    Ok(Arc::new(builder.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_whole_run_of_letters_and_digits() {
        assert!(text_has_token("user=Anna failed", "Anna"));
        assert!(text_has_token("Anna", "Anna"));
        assert!(text_has_token("Annabel, Anna", "Anna"));
        assert!(!text_has_token("Annabel", "Anna"));
        assert!(!text_has_token("anna", "Anna"));
        assert!(!text_has_token("xAnna", "Anna"));
        assert!(text_has_token("éAnnaé", "Anna"), "letters outside ASCII separate");
        assert!(is_token("a1") && !is_token("a-1") && !is_token(""));
    }
}
