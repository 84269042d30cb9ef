//! CBOR as keys read and write it: only the canonical form (CTAP 2.1,
//! section 8).

use ciborium::Value;

/// What bytes say, unless they could be shorter or are out of order.
pub fn read(bytes: &[u8]) -> Option<Value> {
    let value: Value = ciborium::from_reader(bytes).ok()?;
    (write(&value) == bytes && is_sorted(&value)).then_some(value)
}

pub fn write(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// A map with these keys, in their order.
pub fn map<K: Into<Value>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
    let entries = entries.into_iter().map(|(key, value)| (key.into(), value));
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(key, _)| rank(key));
    Value::Map(entries)
}

/// What a map has under a key.
pub fn find<K: Into<Value>>(map: &Value, key: K) -> Option<&Value> {
    let key = key.into();
    let mut entries = map.as_map()?.iter();
    Some(&entries.find(|(name, _)| *name == key)?.1)
}

pub fn bytes_of<K: Into<Value>>(map: &Value, key: K) -> Option<&[u8]> {
    Some(find(map, key)?.as_bytes()?.as_slice())
}

pub fn text_of<K: Into<Value>>(map: &Value, key: K) -> Option<&str> {
    find(map, key)?.as_text()
}

pub fn number_of<K: Into<Value>>(map: &Value, key: K) -> Option<u64> {
    find(map, key)?.as_integer()?.try_into().ok()
}

fn is_sorted(value: &Value) -> bool {
    match value {
        Value::Map(entries) => {
            entries.is_sorted_by(|(a, _), (b, _)| rank(a) < rank(b))
                && entries.iter().all(|(_, value)| is_sorted(value))
        }
        Value::Array(values) => values.iter().all(is_sorted),
        _ => true,
    }
}

/// Shorter keys come first.
fn rank(key: &Value) -> (u8, usize, Vec<u8>) {
    let bytes = write(key);
    (bytes[0] >> 5, bytes.len(), bytes)
}
