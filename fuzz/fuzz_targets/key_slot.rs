//! A damaged key slot is an error and never exhausts the machine.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sotto_client_core::vault::Vault;

fuzz_target!(|bytes: &[u8]| {
    assert!(Vault::unlock(bytes, "passphrase").is_err());
});
