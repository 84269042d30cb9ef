//! How a dialer proves its nkey: it signs what only the two ends of this one
//! TLS connection know (RFC 8446, 7.5), so that nobody in between can hand
//! the proof on.

use nkeys::{KeyPair, KeyPairType};
use sotto_proto::wire::TunnelDialer;

use crate::table::is_dialer_key;

/// The exporter's label.
pub const EXPORTER: &[u8] = b"EXPORTER-sotto-tunnel-v1";
/// What the protocol inside of the link is called (RFC 7301).
pub const ALPN: &[u8] = b"sotto-tunnel/1";
/// The version that both ends speak.
pub const VERSION: u32 = 1;
const LABEL: &[u8] = b"sotto v1 tunnel dialer\0";

/// What a connection exports.
pub type Binding = [u8; 32];

/// A dialer's key pair. The seed is zeroized when it goes.
pub struct DialerKey(KeyPair);

/// Why a proof was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Another version.
    #[error("the two ends are of different versions: update both")]
    Version,
    /// Not a public nkey of the kind "server".
    #[error("the key is none of a dialer")]
    Key,
    /// Not signed with that key for this connection.
    #[error("the proof does not fit the key")]
    Proof,
}

impl DialerKey {
    /// Draws one.
    pub fn generate() -> Self {
        Self(KeyPair::new_server())
    }

    /// Reads a seed; `None` when it is none of a dialer.
    pub fn from_seed(seed: &str) -> Option<Self> {
        let pair = KeyPair::from_seed(seed).ok()?;
        matches!(pair.key_pair_type(), KeyPairType::Server).then_some(Self(pair))
    }

    /// The seed, secret.
    ///
    /// # Errors
    /// Never for a key pair.
    pub fn seed(&self) -> Result<zeroize::Zeroizing<String>, nkeys::error::Error> {
        self.0.seed().map(zeroize::Zeroizing::new)
    }

    /// What the public end's `names.toml` has.
    pub fn public(&self) -> String {
        self.0.public_key()
    }

    /// Proves that this end of the connection has the key.
    ///
    /// # Errors
    /// Never for a key pair.
    pub fn prove(&self, binding: &Binding) -> Result<Vec<u8>, nkeys::error::Error> {
        self.0.sign(&signed(binding))
    }
}

impl std::fmt::Debug for DialerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DialerKey").field(&self.public()).finish()
    }
}

/// Checks that whoever sent this has the key that it names.
///
/// # Errors
/// [`ProofError`].
pub fn verify(dialer: &TunnelDialer, binding: &Binding) -> Result<(), ProofError> {
    if dialer.version != VERSION {
        return Err(ProofError::Version);
    }
    if !is_dialer_key(&dialer.key) {
        return Err(ProofError::Key);
    }
    let key = KeyPair::from_public_key(&dialer.key).map_err(|_| ProofError::Key)?;
    let fits = key.verify(&signed(binding), &dialer.proof);
    fits.map_err(|_| ProofError::Proof)
}

fn signed(binding: &Binding) -> Vec<u8> {
    [LABEL, binding.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(key: &DialerKey, binding: &Binding) -> TunnelDialer {
        TunnelDialer {
            version: VERSION,
            key: key.public(),
            proof: key.prove(binding).unwrap().into(),
            ..TunnelDialer::default()
        }
    }

    #[test]
    fn a_proof_is_good_for_one_key_and_one_connection() {
        let (key, other) = (DialerKey::generate(), DialerKey::generate());
        let good = dialer(&key, &[1; 32]);
        assert_eq!(verify(&good, &[1; 32]), Ok(()));
        assert_eq!(verify(&good, &[2; 32]), Err(ProofError::Proof));
        let stolen = TunnelDialer {
            key: other.public(),
            ..good.clone()
        };
        assert_eq!(verify(&stolen, &[1; 32]), Err(ProofError::Proof));
        let newer = TunnelDialer { version: 2, ..good };
        assert_eq!(verify(&newer, &[1; 32]), Err(ProofError::Version));
        for nonsense in [
            String::new(),
            "N".repeat(56),
            KeyPair::new_user().public_key(),
        ] {
            let dialer = TunnelDialer {
                key: nonsense,
                ..dialer(&key, &[1; 32])
            };
            assert_eq!(verify(&dialer, &[1; 32]), Err(ProofError::Key));
        }
    }

    #[test]
    fn a_seed_comes_back_and_is_not_shown() {
        let key = DialerKey::generate();
        let seed = key.seed().unwrap();
        assert_eq!(DialerKey::from_seed(&seed).unwrap().public(), key.public());
        assert!(!format!("{key:?}").contains(seed.as_str()));
        let user = KeyPair::new_user().seed().unwrap();
        assert!(DialerKey::from_seed(&user).is_none());
    }
}
