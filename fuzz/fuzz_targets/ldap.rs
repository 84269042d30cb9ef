//! What an LDAP server sends, and mapping files: read or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sotto_ldap::{Mapping, messages};

fuzz_target!(|bytes: &[u8]| {
    let length = messages::length(bytes);
    if messages::check_answer(bytes).is_ok() {
        assert_eq!(length, Ok(Some(bytes.len())));
    }
    if let Ok(Some(length)) = length
        && let Some(message) = bytes.get(..length)
    {
        let _ = messages::check_answer(message);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = Mapping::parse(text);
        let _ = text.parse::<sotto_ldap::Dn>();
    }
});
