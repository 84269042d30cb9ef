//! What Consul's answers mean. Pure: takes bytes, which may be anything, and
//! believes nothing but their shape.

use serde::Deserialize;

use super::error::ConsulError;
use super::registration::ADMISSION;
use crate::cluster::Endpoint;

/// Addresses of nodes that are looked at, at most.
pub(super) const ENDPOINTS_MAX: usize = 16;

/// A lock's session, which is named in what is asked next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionId(String);

impl SessionId {
    /// As text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// `true` or `false`, and nothing else.
pub(super) fn yes_or_no(body: &[u8]) -> Result<bool, ConsulError> {
    match body.trim_ascii() {
        b"true" => Ok(true),
        b"false" => Ok(false),
        _ => Err(ConsulError::NotConsul("neither true nor false")),
    }
}

/// The session that was made.
pub(super) fn session(body: &[u8]) -> Result<SessionId, ConsulError> {
    #[derive(Deserialize)]
    struct Made {
        #[serde(rename = "ID")]
        id: String,
    }
    let no_session = || ConsulError::NotConsul("no session");
    let Made { id } = serde_json::from_slice(body).map_err(|_| no_session())?;
    // What Consul makes is a UUID.
    let fits = id.len() == 36 && id.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-');
    fits.then_some(SessionId(id)).ok_or_else(no_session)
}

/// Where nodes say that they let others in, each once, as many as are tried.
/// What is none is passed over: whoever may register a service may write there.
pub(super) fn admissions(body: &[u8]) -> Result<Vec<Endpoint>, ConsulError> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "Service")]
        service: Registered,
    }
    #[derive(Deserialize)]
    struct Registered {
        #[serde(rename = "Meta")]
        meta: Option<serde_json::Map<String, serde_json::Value>>,
    }
    let entries: Vec<Entry> =
        serde_json::from_slice(body).map_err(|_| ConsulError::NotConsul("no list of services"))?;
    let mut found: Vec<Endpoint> = Vec::new();
    for entry in entries {
        let meta = entry.service.meta.unwrap_or_default();
        let said = meta.get(ADMISSION).and_then(serde_json::Value::as_str);
        let Some(Ok(endpoint)) = said.map(str::parse) else {
            continue;
        };
        if found.len() < ENDPOINTS_MAX && !found.contains(&endpoint) {
            found.push(endpoint);
        }
    }
    Ok(found)
}

/// From where the next blocking query waits: an index that goes back, or is 0,
/// would wait for nothing, or for ever.
pub(super) fn next_index(known: u64, said: u64) -> u64 {
    match said < known {
        true => 0,
        false => said.max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_are_literal() {
        assert!(yes_or_no(b"true").unwrap());
        assert!(!yes_or_no(b"false\n").unwrap());
        for wrong in [&b""[..], b"1", b"True", b"{}", b"truefalse", b"\xff"] {
            assert!(yes_or_no(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_session_is_a_uuid() {
        let id = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
        let made = format!("{{\"ID\": \"{id}\"}}");
        assert_eq!(session(made.as_bytes()).unwrap().as_str(), id);
        for wrong in [
            "",
            "{}",
            "[]",
            "{\"ID\": 7}",
            "{\"ID\": \"../../../../../../../agent/leave?aaaaa\"}",
            "{\"ID\": \"adf4238a\"}",
        ] {
            assert!(session(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_addresses_are_taken_from_services() {
        let service = |meta: &str| format!("{{\"Node\": {{}}, \"Service\": {{\"Meta\": {meta}}}}}");
        let list = [
            service("null"),
            service("{}"),
            service("{\"admission\": 7}"),
            service("{\"admission\": \"10.0.0.1:6223\"}"),
            service("{\"admission\": \"http://10.0.0.2:6223/x\"}"),
            service("{\"admission\": \"10.0.0.1:6223\", \"other\": \"x\"}"),
            service("{\"admission\": \"[fd00::1]:6223\"}"),
        ];
        let body = format!("[{}]", list.join(","));
        let found = admissions(body.as_bytes()).unwrap();
        let found: Vec<String> = found.iter().map(Endpoint::to_string).collect();
        assert_eq!(found, ["10.0.0.1:6223", "[fd00::1]:6223"]);

        let many = (1..100).map(|n| service(&format!("{{\"admission\": \"h{n}:1\"}}")));
        let body = format!("[{}]", many.collect::<Vec<_>>().join(","));
        assert_eq!(admissions(body.as_bytes()).unwrap().len(), ENDPOINTS_MAX);

        for wrong in [
            "",
            "{}",
            "[7]",
            "[{}]",
            "[{\"Service\": []}]",
            &"[".repeat(10_000),
        ] {
            assert!(admissions(wrong.as_bytes()).is_err());
        }
        assert!(admissions(b"[]").unwrap().is_empty());
    }

    #[test]
    fn an_index_never_waits_for_what_does_not_come() {
        assert_eq!(next_index(0, 0), 1);
        assert_eq!(next_index(0, 7), 7);
        assert_eq!(next_index(7, 9), 9);
        assert_eq!(next_index(9, 7), 0);
        assert_eq!(next_index(9, 0), 0);
    }
}
