//! Snapshots and exports of the directory: whatever the file holds, it is read
//! or refused.

#![no_main]

use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use sotto_jwt_accounts::directory::{export, snapshot};

fuzz_target!(|bytes: &[u8]| {
    let key = SigningKey::from_bytes(&[200; 32]).verifying_key();
    let org = "acme".parse().expect("a valid name");
    let _ = snapshot::read(bytes, &org, &key);
    let _ = export::verify(bytes, &key);

    // As records of a file that is otherwise whole.
    let mut file = b"SOTTODIR\0\0\0\x01".to_vec();
    file.extend(bytes);
    file.extend([0; 4]);
    file.extend(Sha256::digest(&file));
    if let Ok(state) = snapshot::read(&file[..], &org, &key) {
        let mut written = Vec::new();
        snapshot::write(&state, &mut written).expect("a state that was read is written");
        assert!(written.starts_with(b"SOTTODIR"));
    }
    let mut file = b"SOTTOLOG\0\0\0\x01".to_vec();
    file.extend(bytes);
    // Only an empty one fits this key, which signed nothing.
    if let Ok(state) = export::verify(&file[..], &key) {
        assert_eq!(state.head().length, 0);
    }
});
