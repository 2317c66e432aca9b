//! Each encoding against its own reader or its text.

use std::io::Cursor;

use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, StringViewArray, TimestampNanosecondArray};
use arrow::datatypes::Int32Type;
use arrow_ipc::reader::StreamReader;

use super::*;

fn batch() -> RecordBatch {
    let columns: [(&str, ArrayRef); 5] = [
        ("time", Arc::new(TimestampNanosecondArray::from(vec![1, 1_700_000_000_123_456_789]).with_timezone("UTC"))),
        ("n", Arc::new(Int64Array::from(vec![None, Some(9_007_199_254_740_993)]))),
        ("x", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(0.5)]))),
        ("text", Arc::new(StringViewArray::from(vec![Some("a,\"b\""), None]))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([None, Some([Some(1), None])]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("one length")
}

fn encode(format: OutputFormat, batches: &[RecordBatch]) -> Vec<u8> {
    let mut encoder = Encoder::new(format, &batch().schema()).expect("the schema is expressible");
    let mut bytes = Vec::new();
    for batch in batches {
        bytes.extend(encoder.encode(batch).expect("it is encoded"));
    }
    bytes.extend(encoder.finish().expect("it ends"));
    bytes
}

fn text(format: OutputFormat, batches: &[RecordBatch]) -> String {
    String::from_utf8(encode(format, batches)).expect("it is text")
}

#[test]
fn json_lines_keep_every_digit() {
    let expected = concat!(
        r#"{"time":"1970-01-01T00:00:00.000000001Z","n":null,"x":null,"text":"a,\"b\"","list":null}"#,
        "\n",
        r#"{"time":"2023-11-14T22:13:20.123456789Z","n":9007199254740993,"x":0.5,"text":null,"list":[1,null]}"#,
        "\n",
    );
    assert_eq!(text(OutputFormat::JsonLines, &[batch()]), expected);
    assert_eq!(text(OutputFormat::JsonLines, &[]), "");
}

#[test]
fn csv_has_one_header_and_quotes() {
    let rows = "1970-01-01T00:00:00.000000001Z,,NaN,\"a,\"\"b\"\"\",\n2023-11-14T22:13:20.123456789Z,9007199254740993,0.5,,\"[1,null]\"\n";
    assert_eq!(text(OutputFormat::Csv, &[batch(), batch()]), format!("time,n,x,text,list\n{rows}{rows}"));
    assert_eq!(text(OutputFormat::Csv, &[]), "time,n,x,text,list\n");
}

#[test]
fn an_arrow_stream_reads_back() {
    let bytes = encode(OutputFormat::ArrowStream, &[batch(), batch()]);
    let read: Vec<RecordBatch> =
        StreamReader::try_new(Cursor::new(bytes), None).expect("a stream").collect::<Result<_, _>>().expect("batches");
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].schema().field(3).data_type(), &DataType::Utf8);
    assert_eq!(read[1].num_rows(), 2);
}

#[test]
fn a_table_shows_its_columns_even_without_rows() {
    let drawn = text(OutputFormat::Table, &[]);
    assert!(drawn.contains("| time | n |"), "{drawn}");
    assert!(text(OutputFormat::Table, &[batch()]).contains("9007199254740993"));
}

#[test]
fn accept_headers_choose() {
    assert_eq!(OutputFormat::from_accept(None), Ok(OutputFormat::JsonLines));
    assert_eq!(OutputFormat::from_accept(Some("image/png, text/csv;q=0.5")), Ok(OutputFormat::Csv));
    let weighed = "text/csv;q=0.1, application/x-ndjson;q=0.2, */*;q=0";
    assert_eq!(OutputFormat::from_accept(Some(weighed)), Ok(OutputFormat::JsonLines));
    for accept in ["image/png", "text/csv;q=0", "text/csv;q=much"] {
        assert!(OutputFormat::from_accept(Some(accept)).is_err(), "{accept}");
    }
}
