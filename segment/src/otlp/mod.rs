//! OTLP on the wire.
