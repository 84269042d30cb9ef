//! Key pairs on a key, and what it signs with them (WebAuthn Level 2,
//! sections 6.1 and 6.5).

use ciborium::Value;
use p256::EncodedPoint;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use super::cbor::{map, write};

pub const ES256: i64 = -7;
/// Names the make of a key.
pub const AAGUID: &[u8; 16] = b"Acme Keys Mark 4";

const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const ATTESTED: u8 = 0x40;

/// One key pair, for one relying party.
#[derive(Clone)]
pub struct Credential {
    pub id: Vec<u8>,
    pub party: String,
    key: SigningKey,
}

impl Credential {
    pub fn new(party: &str) -> Self {
        let mut id = vec![0; 64];
        OsRng.fill_bytes(&mut id);
        Self {
            id,
            party: party.to_owned(),
            key: SigningKey::random(&mut OsRng),
        }
    }

    /// What is said of a new one.
    pub fn attested(&self, counter: u32) -> Vec<u8> {
        let point = self.key.verifying_key().to_encoded_point(false);
        let length = u16::try_from(self.id.len()).unwrap().to_be_bytes();
        let public = write(&cose_key(&point, ES256));
        let said = authenticator_data(&self.party, ATTESTED, counter);
        [&said[..], AAGUID, &length, &self.id, &public].concat()
    }

    /// What is signed.
    pub fn asserted(&self, counter: u32) -> Vec<u8> {
        authenticator_data(&self.party, 0, counter)
    }

    pub fn sign(&self, said: &[u8], client_data_hash: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.key.sign(&[said, client_data_hash].concat());
        signature.as_bytes().to_vec()
    }
}

/// A public key in COSE's form.
pub fn cose_key(point: &EncodedPoint, algorithm: i64) -> Value {
    map([
        (1, 2.into()),
        (3, algorithm.into()),
        (-1, 1.into()),
        (-2, Value::Bytes(point.x().unwrap().to_vec())),
        (-3, Value::Bytes(point.y().unwrap().to_vec())),
    ])
}

fn authenticator_data(party: &str, flags: u8, counter: u32) -> Vec<u8> {
    let party = Sha256::digest(party);
    let flags = [flags | PRESENT | VERIFIED];
    [&party[..], &flags, &counter.to_be_bytes()].concat()
}
