//! How one input holds more than one thing.

use gatebell_connectors::store::embedded::fuzzing::Value;

/// The first line without its end, and what follows it.
pub(super) fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, b""),
    }
}

/// The columns of a row, one a line: `i` and a whole number, `r` and another, `t` and a text, `x` and a blob in hexadecimal;
/// anything else is null.
pub(super) fn columns(bytes: &[u8]) -> Vec<Value> {
    bytes.split(|byte| *byte == b'\n').take(COLUMNS_MAX).map(column).collect()
}

/// Columns that are read of one row.
const COLUMNS_MAX: usize = 20;

fn column(line: &[u8]) -> Value {
    let Some((kind, value)) = line.split_first() else { return Value::Null };
    let text = String::from_utf8_lossy(value);
    match kind {
        b'i' => text.parse().map_or(Value::Null, Value::Integer),
        b'r' => text.parse().map_or(Value::Null, Value::Real),
        b't' => Value::Text(text.into_owned()),
        b'x' => hex::decode(value).map_or(Value::Null, Value::Blob),
        _ => Value::Null,
    }
}
