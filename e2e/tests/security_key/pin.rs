//! A key's PIN (CTAP 2.1, section 6.5): tries are counted before they are
//! looked at, three wrong ones in a row block it until it is unplugged, eight
//! for good.

use aes::Aes256;
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use ciborium::Value;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{EncodedPoint, PublicKey, SecretKey};
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use super::cbor::{bytes_of, find, map, number_of, text_of};
use super::software_key::Status;

const TRIES: u8 = 8;
const IN_A_ROW: u8 = 3;

/// The PIN of one key, and the token that it hands out for it.
#[derive(Clone)]
pub struct Pin {
    hash: Vec<u8>,
    tries: u8,
    wrong_in_a_row: u8,
    agreement: SecretKey,
    token: [u8; 32],
    /// What the token is good for; `None` for all of these: anything.
    permissions: Option<u64>,
    party: Option<String>,
}

/// What a token is wanted for.
#[derive(Debug, Clone, Copy)]
pub enum Permission {
    MakeCredential = 1,
    GetAssertion = 2,
}

impl Pin {
    pub fn new(pin: &str) -> Self {
        Self {
            hash: hash(pin.as_bytes()),
            tries: TRIES,
            wrong_in_a_row: 0,
            agreement: SecretKey::random(&mut OsRng),
            token: token(),
            permissions: None,
            party: None,
        }
    }

    pub fn tries_left(&self) -> u8 {
        self.tries
    }

    /// Unplugged and plugged in again.
    pub fn power_cycle(&mut self) {
        self.wrong_in_a_row = 0;
        self.token = token();
    }

    /// authenticatorClientPIN.
    pub fn answer(&mut self, request: &Value, protocols: &[u64]) -> Result<Value, Status> {
        let protocol = || {
            let asked = number_of(request, 1).ok_or(Status::MissingParameter)?;
            let known = protocols.contains(&asked);
            known.then_some(asked).ok_or(Status::InvalidParameter)
        };
        match number_of(request, 2).ok_or(Status::MissingParameter)? {
            1 => Ok(map([
                (3, self.tries.into()),
                (4, (self.wrong_in_a_row >= IN_A_ROW).into()),
            ])),
            2 => {
                protocol()?;
                Ok(map([(1, self.public())]))
            }
            5 => {
                let token = self.check(request, protocol()?)?;
                (self.permissions, self.party) = (None, None);
                Ok(map([(2, Value::Bytes(token))]))
            }
            9 => {
                let permissions = number_of(request, 9).ok_or(Status::MissingParameter)?;
                let party = text_of(request, 10).ok_or(Status::MissingParameter)?;
                let token = self.check(request, protocol()?)?;
                (self.permissions, self.party) = (Some(permissions), Some(party.to_owned()));
                Ok(map([(2, Value::Bytes(token))]))
            }
            _ => Err(Status::InvalidSubcommand),
        }
    }

    /// Whether a request carries the proof that its sender has a token for it.
    pub fn permits(
        &self,
        permission: Permission,
        party: &str,
        message: &[u8],
        proof: Option<&[u8]>,
        protocol: Option<u64>,
    ) -> Result<(), Status> {
        let proof = proof.ok_or(Status::PinRequired)?;
        let protocol = protocol.ok_or(Status::MissingParameter)?;
        let mut mac = hmac(&self.token, message);
        mac.truncate(if protocol == 1 { 16 } else { 32 });
        let allowed = self
            .permissions
            .is_none_or(|all| all & permission as u64 != 0);
        let fits = self.party.as_deref().is_none_or(|bound| bound == party);
        match proof == mac && allowed && fits {
            true => Ok(()),
            false => Err(Status::PinAuthInvalid),
        }
    }

    /// The token, encrypted, for whoever knows the PIN.
    fn check(&mut self, request: &Value, protocol: u64) -> Result<Vec<u8>, Status> {
        let theirs = find(request, 3).ok_or(Status::MissingParameter)?;
        let encrypted = bytes_of(request, 6).ok_or(Status::MissingParameter)?;
        if self.tries == 0 {
            return Err(Status::PinBlocked);
        }
        if self.wrong_in_a_row >= IN_A_ROW {
            return Err(Status::PinAuthBlocked);
        }
        let secret = self
            .secret(theirs, protocol)
            .ok_or(Status::InvalidParameter)?;
        self.tries -= 1;
        if secret.decrypt(encrypted).as_deref() != Some(&self.hash) {
            self.agreement = SecretKey::random(&mut OsRng);
            self.wrong_in_a_row += 1;
            return Err(match (self.tries, self.wrong_in_a_row) {
                (0, _) => Status::PinBlocked,
                (_, IN_A_ROW..) => Status::PinAuthBlocked,
                _ => Status::PinInvalid,
            });
        }
        (self.tries, self.wrong_in_a_row) = (TRIES, 0);
        self.token = token();
        Ok(secret.encrypt(&self.token))
    }

    fn public(&self) -> Value {
        let point = self.agreement.public_key().to_encoded_point(false);
        super::credential::cose_key(&point, -25)
    }

    fn secret(&self, theirs: &Value, protocol: u64) -> Option<Secret> {
        let (x, y) = (bytes_of(theirs, -2)?, bytes_of(theirs, -3)?);
        if x.len() != 32 || y.len() != 32 {
            return None;
        }
        let point = EncodedPoint::from_affine_coordinates(x.into(), y.into(), false);
        let theirs = PublicKey::from_sec1_bytes(point.as_bytes()).ok()?;
        let shared =
            p256::ecdh::diffie_hellman(self.agreement.to_nonzero_scalar(), theirs.as_affine());
        let shared = shared.raw_secret_bytes();
        Some(match protocol {
            1 => Secret {
                key: Sha256::digest(shared).into(),
                random_iv: false,
            },
            _ => {
                let mut key = [0; 32];
                let derived = Hkdf::<Sha256>::new(Some(&[0; 32]), shared);
                derived.expand(b"CTAP2 AES key", &mut key).unwrap();
                Secret {
                    key,
                    random_iv: true,
                }
            }
        })
    }
}

/// What a key and its reader share in one exchange.
struct Secret {
    key: [u8; 32],
    random_iv: bool,
}

impl Secret {
    fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        let mut iv = [0; 16];
        if self.random_iv {
            OsRng.fill_bytes(&mut iv);
        }
        let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&self.key, &iv).unwrap();
        let encrypted = cipher.encrypt_padded_vec::<NoPadding>(plain);
        match self.random_iv {
            true => [&iv[..], &encrypted].concat(),
            false => encrypted,
        }
    }

    fn decrypt(&self, encrypted: &[u8]) -> Option<Vec<u8>> {
        let (iv, encrypted) = match self.random_iv {
            true => encrypted.split_at_checked(16)?,
            false => (&[0; 16][..], encrypted),
        };
        let cipher = cbc::Decryptor::<Aes256>::new_from_slices(&self.key, iv).ok()?;
        cipher.decrypt_padded_vec::<NoPadding>(encrypted).ok()
    }
}

fn hash(pin: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::digest(pin).to_vec();
    hash.truncate(16);
    hash
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn token() -> [u8; 32] {
    let mut token = [0; 32];
    OsRng.fill_bytes(&mut token);
    token
}
