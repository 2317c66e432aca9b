//! A typed attribute value, as OpenTelemetry's `AnyValue`.

/// One attribute value or log body. Map keys keep their order and their repetitions.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value was set.
    Empty,
    /// UTF-8 text.
    String(String),
    /// `boolValue`.
    Bool(bool),
    /// `intValue`.
    Int(i64),
    /// `doubleValue`, any bit pattern.
    Double(f64),
    /// `bytesValue`.
    Bytes(Vec<u8>),
    /// `arrayValue`.
    Array(Vec<Value>),
    /// `kvlistValue`.
    Map(Vec<(String, Value)>),
}
