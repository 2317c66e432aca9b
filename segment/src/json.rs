//! JSON text of attribute values.
