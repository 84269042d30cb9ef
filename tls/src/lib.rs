//! Which TLS all of Sotto speaks, servers and clients alike: TLS 1.3 by one
//! provider, whose first key exchange is hybrid and post-quantum; and how a
//! server is recognised by the fingerprint of its own authority. Certificates
//! are made and read elsewhere (`sotto-service`), and nothing here does I/O.

mod pinned;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use pinned::pinned_client;

/// The provider with the key exchanges that Sotto offers, best first.
#[must_use]
pub fn provider() -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

/// Makes it the process' default. First thing in every `main`: libraries panic
/// when they find two providers and no default.
pub fn install_provider() {
    // An error says that one is installed already: this one.
    let _ = provider().install_default();
}
