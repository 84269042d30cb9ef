//! The bridge to openmls: its storage over [`Records`], its cryptography, and
//! the device's signature key. Nothing here knows what a room is.

mod crypto;
mod storage;

use ed25519_dalek::Signer as _;
use openmls_libcrux_crypto::CryptoProvider;
use openmls_traits::OpenMlsProvider;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;

use crate::records::Records;
use crypto::Crypto;
use storage::Storage;

/// What openmls needs around it. The randomness of MLS itself comes from
/// libcrux' generator, which the operating system seeds.
pub(crate) struct Provider {
    crypto: Crypto,
    storage: Storage,
}

impl Provider {
    pub(crate) fn new(records: Records) -> Result<Self, MlsError> {
        let libcrux = CryptoProvider::new().map_err(|_| MlsError("no randomness"))?;
        Ok(Self {
            crypto: Crypto { libcrux },
            storage: Storage(records),
        })
    }

    pub(crate) fn records(&self) -> &Records {
        &self.storage.0
    }
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = Crypto;
    type RandProvider = CryptoProvider;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn crypto(&self) -> &Crypto {
        &self.crypto
    }

    fn rand(&self) -> &CryptoProvider {
        &self.crypto.libcrux
    }
}

/// The device's MLS signature key.
pub(crate) struct LeafSigner<'a>(pub(crate) &'a ed25519_dalek::SigningKey);

impl Signer for LeafSigner<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        let signature = self
            .0
            .try_sign(payload)
            .map_err(|_| SignerError::SigningError)?;
        Ok(signature.to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// An MLS operation failed. The text is for a developer's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the room's key agreement failed ({0})")]
pub(crate) struct MlsError(pub(crate) &'static str);
