//! The cryptography that openmls asks for: what there is much of, the AEAD of
//! messages and the signatures under them, from the crates that the rest of
//! the client uses, which have vector instructions for it; key agreement and
//! key derivation from libcrux. See `docs/adr/0026-mls-seals-with-rustcrypto.md`.
//!
//! Decides nothing: one function of a crate for each question.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use ed25519_dalek::{Signature, VerifyingKey};
use openmls_libcrux_crypto::CryptoProvider;
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
    HpkeKeyPair, KemOutput, SignatureScheme,
};
use tls_codec::SecretVLBytes;

/// Bytes of a nonce (RFC 8439).
const NONCE: usize = 12;

/// See the module.
pub(crate) struct Crypto {
    pub(super) libcrux: CryptoProvider,
}

/// The AEAD under this key, and the nonce, when that is the AEAD asked for.
fn chacha<'a>(
    aead: AeadType,
    key: &[u8],
    nonce: &'a [u8],
) -> Result<Option<(ChaCha20Poly1305, &'a Nonce)>, CryptoError> {
    if aead != AeadType::ChaCha20Poly1305 {
        return Ok(None);
    }
    let cipher = ChaCha20Poly1305::new_from_slice(key).map_err(|_| CryptoError::InvalidLength)?;
    let nonce = <&[u8; NONCE]>::try_from(nonce).map_err(|_| CryptoError::InvalidLength)?;
    Ok(Some((cipher, nonce.into())))
}

impl OpenMlsCrypto for Crypto {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        self.libcrux.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.libcrux.supported_ciphersuites()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.libcrux.hkdf_extract(hash_type, salt, ikm)
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.libcrux.hmac(hash_type, key, message)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.libcrux.hkdf_expand(hash_type, prk, info, okm_len)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.libcrux.hash(hash_type, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let Some((cipher, chacha_nonce)) = chacha(alg, key, nonce)? else {
            return self.libcrux.aead_encrypt(alg, key, data, nonce, aad);
        };
        cipher
            .encrypt(chacha_nonce, Payload { msg: data, aad })
            .map_err(|_| CryptoError::CryptoLibraryError)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let Some((cipher, chacha_nonce)) = chacha(alg, key, nonce)? else {
            return self.libcrux.aead_decrypt(alg, key, ct_tag, nonce, aad);
        };
        cipher
            .decrypt(chacha_nonce, Payload { msg: ct_tag, aad })
            .map_err(|_| CryptoError::AeadDecryptionError)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.libcrux.signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        if alg != SignatureScheme::ED25519 {
            return Err(CryptoError::UnsupportedSignatureScheme);
        }
        let key = <&[u8; 32]>::try_from(pk).map_err(|_| CryptoError::InvalidLength)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| CryptoError::InvalidSignature)?;
        let signature = Signature::from_slice(signature).map_err(|_| CryptoError::InvalidLength)?;
        key.verify_strict(data, &signature)
            .map_err(|_| CryptoError::InvalidSignature)
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.libcrux.sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.libcrux.hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.libcrux.hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.libcrux.hpke_setup_sender_and_export(
            config,
            pk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.libcrux.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        self.libcrux.derive_hpke_keypair(config, ikm)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    const CHACHA: AeadType = AeadType::ChaCha20Poly1305;
    const ED25519: SignatureScheme = SignatureScheme::ED25519;

    fn crypto() -> Crypto {
        let libcrux = CryptoProvider::new().unwrap();
        Crypto { libcrux }
    }

    #[test]
    fn what_either_seals_the_other_opens() {
        let crypto = crypto();
        let (key, nonce, aad) = ([7; 32], [9; NONCE], b"epoch");
        for length in [0, 1, 63, 64, 4_096, 100_003] {
            let text: Vec<u8> = (0..=255).cycle().take(length).collect();
            let sealed = crypto.aead_encrypt(CHACHA, &key, &text, &nonce, aad);
            let sealed = sealed.unwrap();
            let libcrux = crypto
                .libcrux
                .aead_encrypt(CHACHA, &key, &text, &nonce, aad);
            assert_eq!(libcrux.unwrap(), sealed);
            let opened = crypto.aead_decrypt(CHACHA, &key, &sealed, &nonce, aad);
            assert_eq!(opened.unwrap(), text);
        }
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let crypto = crypto();
        let (key, nonce) = ([7; 32], [9; NONCE]);
        let sealed = crypto
            .aead_encrypt(CHACHA, &key, b"text", &nonce, b"aad")
            .unwrap();
        let open = |sealed: &[u8], nonce: &[u8], aad: &[u8]| {
            crypto.aead_decrypt(CHACHA, &key, sealed, nonce, aad)
        };
        assert!(open(&sealed, &nonce, b"aad").is_ok());
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let failed = open(&changed, &nonce, b"aad").unwrap_err();
            assert_eq!(failed, CryptoError::AeadDecryptionError);
        }
        assert!(open(&sealed, &nonce, b"other").is_err());
        assert!(open(&sealed, &[8; NONCE], b"aad").is_err());
        assert!(open(&sealed[..3], &nonce, b"aad").is_err());
        assert!(open(&sealed, &nonce[1..], b"aad").is_err());
        assert!(
            crypto
                .aead_encrypt(CHACHA, &key[1..], b"", &nonce, b"")
                .is_err()
        );
    }

    #[test]
    fn signatures_count_as_they_do_for_libcrux() {
        let crypto = crypto();
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = crypto.sign(ED25519, b"text", key.as_bytes()).unwrap();
        assert_eq!(signature, key.sign(b"text").to_bytes());
        let verify = |text: &[u8], public: &[u8], signature: &[u8]| {
            let ours = crypto.verify_signature(ED25519, text, public, signature);
            let theirs = crypto
                .libcrux
                .verify_signature(ED25519, text, public, signature);
            assert_eq!(ours.is_ok(), theirs.is_ok());
            ours.is_ok()
        };
        assert!(verify(b"text", &public, &signature));
        assert!(!verify(b"texts", &public, &signature));
        assert!(!verify(b"text", &[5; 32], &signature));
        for bit in 0..signature.len() * 8 {
            let mut changed = signature.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(b"text", &public, &changed));
        }
        assert!(!verify(b"text", &public[1..], &signature));
        assert!(!verify(b"text", &public, &signature[1..]));
    }

    /// Under the neutral element every text has the same signature.
    #[test]
    fn a_key_under_which_everything_is_signed_is_none() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let verified = crypto().verify_signature(ED25519, b"any", &neutral, &signature);
        assert_eq!(verified, Err(CryptoError::InvalidSignature));
    }
}
