//! `replace(text, from, to)` as DataFusion has it, within a bound: nested a few times, it makes gigabytes of a few letters, in one piece
//! that no memory limit sees.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The most bytes that it makes of a batch of rows.
const LIMIT_BYTES: usize = 256 << 20;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct BoundedReplace {
    inner: Arc<ScalarUDF>,
}

impl BoundedReplace {
    pub(super) fn new() -> Self {
        Self { inner: datafusion::functions::string::replace() }
    }
}

impl ScalarUDFImpl for BoundedReplace {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let made = made_bytes(&args.args)?;
        if made > LIMIT_BYTES {
            return exec_err!("replace would make {made} bytes of a batch of rows; at most {LIMIT_BYTES} are made");
        }
        self.inner.invoke_with_args(args)
    }
}

/// How many bytes the answer has.
fn made_bytes(args: &[ColumnarValue]) -> Result<usize> {
    let arrays = ColumnarValue::values_to_arrays(args)?;
    let views = arrays.iter().map(|array| Ok(cast(array, &DataType::Utf8View)?)).collect::<Result<Vec<_>>>()?;
    let columns: Vec<&StringViewArray> = views.iter().filter_map(|view| view.as_string_view_opt()).collect();
    let [texts, from, to] = columns.as_slice() else { return Ok(0) };
    let rows = (0..texts.len()).filter(|row| texts.is_valid(*row) && from.is_valid(*row) && to.is_valid(*row));
    let made = rows.map(|row| {
        let (text, from, to) = (texts.value(row), from.value(row), to.value(row));
        // Where that is little it need not be counted.
        let most = text.len() / from.len().max(1) + 1;
        let times = if most.saturating_mul(to.len()) < 1 << 10 { most } else { text.matches(from).count() };
        text.len().saturating_add(times.saturating_mul(to.len()))
    });
    Ok(made.fold(0, usize::saturating_add))
}
