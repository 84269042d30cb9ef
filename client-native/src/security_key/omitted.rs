//! What a key may leave out of an answer, and the library wants to read.

use std::collections::btree_map::Entry;

use serde_cbor_2::Value;

const GET_ASSERTION: u8 = 2;
/// In the question: the list of credentials. In the answer: which one it was.
const LIST: i128 = 3;
const CREDENTIAL: i128 = 1;

/// The answer, with the credential that it is of: if it was the only one that
/// was asked for, a key may leave it out (CTAP 2.0, section 5.2).
pub(super) fn filled_in(question: &[u8], answer: Vec<u8>) -> Vec<u8> {
    only_one(question, &answer).unwrap_or(answer)
}

fn only_one(question: &[u8], answer: &[u8]) -> Option<Vec<u8>> {
    let (&GET_ASSERTION, question) = question.split_first()? else {
        return None;
    };
    let mut question = map(question)?;
    let mut answer = map(answer)?;
    let Value::Array(list) = question.remove(&Value::Integer(LIST))? else {
        return None;
    };
    let Ok([only]) = <[Value; 1]>::try_from(list) else {
        return None;
    };
    let Entry::Vacant(place) = answer.entry(Value::Integer(CREDENTIAL)) else {
        return None;
    };
    place.insert(only);
    serde_cbor_2::to_vec(&Value::Map(answer)).ok()
}

fn map(bytes: &[u8]) -> Option<std::collections::BTreeMap<Value, Value>> {
    match serde_cbor_2::from_slice(bytes) {
        Ok(Value::Map(map)) => Some(map),
        _ => None,
    }
}
