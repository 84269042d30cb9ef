//! Linking a new device to a user with one that exists (DESIGN section 7),
//! over a mailbox that nobody needs to trust.
//!
//! | step | new device | old device |
//! |---|---|---|
//! | 1 | shows a [`DeviceLink`]: mailbox, one-time X25519 key | |
//! | 2 | | HPKE encapsulation to that key; puts a *commitment* to it |
//! | 3 | puts a random *nonce* and its device keys | |
//! | 4 | | *reveals* the encapsulation |
//! | 5 | both show a [`ShortCode`] over all of the above | a person types the new device's code |
//! | 6 | | signs the new device's certificate, enrols it, puts the sealed *payload* |
//!
//! The old device is bound to its encapsulation before it learns the nonce, so
//! whoever stands between the two has one try in a million to make the codes
//! agree (Vaudenay, "Secure Communications over Insecure Channels Based on
//! Short Authenticated Strings", CRYPTO 2005). The identity key leaves the old
//! device only in step 6.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, Payload};
use ed25519_dalek::SigningKey;
use openmls_libcrux_crypto::CryptoProvider;
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::types::{HpkeAeadType, HpkeConfig, HpkeKdfType, HpkeKemType};
use prost::Message;
use rand::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};
use sotto_proto::signed::{key_bytes, public_key};
use sotto_proto::wire::{self, Signed};
use sotto_proto::{DeviceId, DeviceLink, GatewayAddress, RendezvousId};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::account::{Account, AccountError, DeviceKeys, UserOf, random_bytes};
use crate::io::Timestamp;
use crate::vault::cipher;

/// RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
const HPKE: HpkeConfig = HpkeConfig(
    HpkeKemType::DhKem25519,
    HpkeKdfType::HkdfSha256,
    HpkeAeadType::ChaCha20Poly1305,
);
const INFO: &[u8] = b"sotto v1 link";

/// Why a device could not be linked. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The link is for another gateway or org than this account's.
    #[error(
        "this link is for another server or organisation than this account's: run `sotto device link` on the new device with the right one"
    )]
    OtherGateway,
    /// The codes differ: somebody is in between, or it was a typing error.
    #[error(
        "the codes are not the same, so nothing was shared: start again with a new link, and if it happens again somebody may be tampering with the connection"
    )]
    CodesDiffer,
    /// A message of the other device does not read or does not fit.
    #[error("the other device's answer makes no sense ({0}): start again with a new link")]
    Nonsense(&'static str),
    /// The account could not be put together.
    #[error(transparent)]
    Account(#[from] AccountError),
}

/// Six digits for people to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortCode(u32);

impl ShortCode {
    fn matches(&self, typed: &str) -> bool {
        let digits: String = typed.chars().filter(|c| !c.is_whitespace()).collect();
        let own = format!("{:06}", self.0);
        digits.as_bytes().ct_eq(own.as_bytes()).into()
    }
}

impl std::fmt::Display for ShortCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:03} {:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// Everything that both sides must have seen alike.
struct Transcript([u8; 32]);

impl Transcript {
    fn new(
        rendezvous: &RendezvousId,
        new_key: &[u8; 32],
        encapsulation: &[u8],
        nonce: &wire::LinkNonce,
    ) -> Self {
        let nonce = nonce.encode_to_vec();
        let mut hash = Sha256::new_with_prefix(b"sotto v1 link transcript\0");
        for part in [&rendezvous.as_bytes()[..], new_key, encapsulation, &nonce] {
            // Lengths first: no two transcripts have the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    fn code(&self) -> ShortCode {
        let digest = Sha256::new_with_prefix(b"sotto v1 link code\0")
            .chain_update(self.0)
            .finalize();
        let number = digest
            .iter()
            .take(8)
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        // The remainder is below a million.
        ShortCode(u32::try_from(number % 1_000_000).unwrap_or_default())
    }
}

fn commitment(encapsulation: &[u8]) -> [u8; 32] {
    Sha256::new_with_prefix(b"sotto v1 link commitment\0")
        .chain_update(encapsulation)
        .finalize()
        .into()
}

fn crypto() -> Result<CryptoProvider, LinkError> {
    CryptoProvider::new().map_err(|_| LinkError::Nonsense("no randomness"))
}

/// The new device, showing its link.
pub struct NewDevice {
    gateway: GatewayAddress,
    rendezvous: RendezvousId,
    secret: Zeroizing<Vec<u8>>,
    public: [u8; 32],
    keys: DeviceKeys,
    nonce: [u8; 32],
}

/// The new device, having put its nonce.
pub struct AwaitingReveal {
    device: NewDevice,
    commitment: [u8; 32],
}

/// The new device, showing its code.
pub struct AwaitingPayload {
    device: NewDevice,
    encapsulation: Vec<u8>,
    transcript: Transcript,
}

impl NewDevice {
    /// Draws the one-time key, the mailbox and the device's keys.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn start(
        gateway: GatewayAddress,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(Self, DeviceLink), LinkError> {
        let mut seed: [u8; 32] = random_bytes(rng);
        let pair = crypto()?.derive_hpke_keypair(HPKE, &seed);
        seed.zeroize();
        let pair = pair.map_err(|_| LinkError::Nonsense("no key"))?;
        let public = pair
            .public
            .as_slice()
            .try_into()
            .map_err(|_| LinkError::Nonsense("no key"))?;
        let rendezvous = RendezvousId::random(rng);
        let link = DeviceLink {
            gateway: gateway.clone(),
            rendezvous,
            key: public,
        };
        let device = Self {
            gateway,
            rendezvous,
            secret: Zeroizing::new(pair.private.to_vec()),
            public,
            keys: DeviceKeys::generate(rng),
            nonce: random_bytes(rng),
        };
        Ok((device, link))
    }

    /// Takes the commitment; the answer goes into the mailbox.
    ///
    /// # Errors
    /// [`LinkError::Nonsense`] when it is no commitment.
    pub fn answer(self, commitment: &[u8]) -> Result<(AwaitingReveal, wire::LinkNonce), LinkError> {
        let commitment = commitment
            .try_into()
            .map_err(|_| LinkError::Nonsense("not a commitment"))?;
        let nonce = self.link_nonce();
        Ok((
            AwaitingReveal {
                device: self,
                commitment,
            },
            nonce,
        ))
    }

    fn link_nonce(&self) -> wire::LinkNonce {
        wire::LinkNonce {
            nonce: Bytes::copy_from_slice(&self.nonce),
            device: self.keys.device.to_bytes(),
            signature_key: key_bytes(&self.keys.leaf.verifying_key()),
            nats_key: self.keys.nats.public_key(),
        }
    }
}

impl AwaitingReveal {
    /// Takes the encapsulation; the code is to be shown.
    ///
    /// # Errors
    /// [`LinkError::CodesDiffer`] when it is not what was committed to.
    pub fn reveal(self, encapsulation: &[u8]) -> Result<(AwaitingPayload, ShortCode), LinkError> {
        if commitment(encapsulation) != self.commitment {
            return Err(LinkError::CodesDiffer);
        }
        let device = self.device;
        let transcript = Transcript::new(
            &device.rendezvous,
            &device.public,
            encapsulation,
            &device.link_nonce(),
        );
        let code = transcript.code();
        Ok((
            AwaitingPayload {
                device,
                encapsulation: encapsulation.to_vec(),
                transcript,
            },
            code,
        ))
    }
}

impl AwaitingPayload {
    /// Opens the payload: this device now belongs to the user.
    ///
    /// # Errors
    /// [`LinkError::Nonsense`] when it does not open or does not fit.
    pub fn payload(self, sealed: &[u8], server: &wire::ServerInfo) -> Result<Account, LinkError> {
        let nonsense = || LinkError::Nonsense("its secret does not open");
        let Self {
            device,
            encapsulation,
            transcript,
        } = self;
        let key = crypto()?
            .hpke_setup_receiver_and_export(HPKE, &encapsulation, &device.secret, INFO, b"", 32)
            .map_err(|_| nonsense())?;
        let opened = payload_cipher(&key)?
            .decrypt(
                &[0; 24].into(),
                Payload {
                    msg: sealed,
                    aad: &transcript.0,
                },
            )
            .map_err(|_| nonsense())?;
        let opened = Zeroizing::new(opened);
        let payload = wire::LinkPayload::decode(opened.as_slice()).map_err(|_| nonsense())?;
        let seed = payload
            .identity_seed
            .as_ref()
            .try_into()
            .map_err(|_| nonsense())?;
        let identity = SigningKey::from_bytes(seed);
        let certificate = payload.certificate.ok_or_else(nonsense)?;
        Ok(Account::new(
            device.gateway,
            server,
            identity,
            device.keys,
            certificate,
        )?)
    }
}

/// The old device, having put its commitment.
pub struct OldDevice {
    link: DeviceLink,
    encapsulation: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// The old device, waiting for a person to type the new device's code.
pub struct Confirming {
    code: ShortCode,
    certificate: Signed,
    payload: Vec<u8>,
}

impl OldDevice {
    /// Encapsulates to the new device; the second part is the commitment for
    /// the mailbox.
    ///
    /// # Errors
    /// [`LinkError::OtherGateway`], or when the link's key is none.
    pub fn start(link: &DeviceLink, account: &Account) -> Result<(Self, Vec<u8>), LinkError> {
        let same = link.gateway.org == account.gateway.org
            && link.gateway.authority == account.gateway.authority;
        if !same {
            return Err(LinkError::OtherGateway);
        }
        let (encapsulation, key) = crypto()?
            .hpke_setup_sender_and_export(HPKE, &link.key, INFO, b"", 32)
            .map_err(|_| LinkError::Nonsense("its key is no key"))?;
        let commitment = commitment(&encapsulation).to_vec();
        let key = Zeroizing::new(key.to_vec());
        Ok((
            Self {
                link: link.clone(),
                encapsulation,
                key,
            },
            commitment,
        ))
    }

    /// Takes the new device's nonce; the second part is the encapsulation for
    /// the mailbox, the third the code that the new device must show too.
    ///
    /// # Errors
    /// [`LinkError::Nonsense`] when the new device's keys are none.
    pub fn nonce(
        self,
        nonce: &wire::LinkNonce,
        account: &Account,
        now: Timestamp,
    ) -> Result<(Confirming, Vec<u8>, ShortCode), LinkError> {
        let nonsense = || LinkError::Nonsense("its keys do not read");
        let owner = UserOf {
            org: &account.org,
            user: &account.user,
            identity: &account.identity,
        };
        // Only a well-formed nkey is worth a signature.
        let nats = nkeys::KeyPair::from_public_key(&nonce.nats_key).map_err(|_| nonsense())?;
        let certificate = owner.certify(
            DeviceId::try_from(&nonce.device).map_err(|_| nonsense())?,
            public_key(&nonce.signature_key).map_err(|_| nonsense())?,
            nats.public_key(),
            now,
        );
        let transcript = Transcript::new(
            &self.link.rendezvous,
            &self.link.key,
            &self.encapsulation,
            nonce,
        );
        let payload = wire::LinkPayload {
            identity_seed: Bytes::copy_from_slice(account.identity.as_bytes()),
            user: account.user.to_string(),
            certificate: Some(certificate.clone()),
        };
        let payload = Zeroizing::new(payload.encode_to_vec());
        // The key seals this one message only, so the nonce can be zero.
        let sealed = payload_cipher(&self.key)?
            .encrypt(
                &[0; 24].into(),
                Payload {
                    msg: payload.as_slice(),
                    aad: &transcript.0,
                },
            )
            .map_err(|_| nonsense())?;
        let code = transcript.code();
        let confirming = Confirming {
            code: code.clone(),
            certificate,
            payload: sealed,
        };
        Ok((confirming, self.encapsulation, code))
    }
}

impl Confirming {
    /// Releases the payload when `typed` is the code that both devices show.
    /// The enrolment must be stored before the payload goes into the mailbox.
    ///
    /// # Errors
    /// [`LinkError::CodesDiffer`].
    pub fn confirm(self, typed: &str) -> Result<(wire::DeviceEnrol, Vec<u8>), LinkError> {
        if !self.code.matches(typed) {
            return Err(LinkError::CodesDiffer);
        }
        Ok((
            wire::DeviceEnrol {
                certificate: Some(self.certificate),
            },
            self.payload,
        ))
    }
}

fn payload_cipher(key: &[u8]) -> Result<chacha20poly1305::XChaCha20Poly1305, LinkError> {
    let key = key.try_into().map_err(|_| LinkError::Nonsense("no key"))?;
    Ok(cipher(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::tests::account;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn server() -> wire::ServerInfo {
        crate::account::tests::server()
    }

    #[test]
    fn a_linked_device_has_the_identity_and_its_own_keys() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let alice = account("alice", &mut rng);
        let (new, link) = NewDevice::start(alice.gateway.clone(), &mut rng).unwrap();
        let link: DeviceLink = link.to_string().parse().unwrap();
        let (old, commitment) = OldDevice::start(&link, &alice).unwrap();
        let (new, nonce) = new.answer(&commitment).unwrap();
        let (old, reveal, shown_by_old) = old.nonce(&nonce, &alice, NOW).unwrap();
        let (new, shown_by_new) = new.reveal(&reveal).unwrap();
        assert_eq!(shown_by_old, shown_by_new);
        let (_, payload) = old.confirm(&shown_by_new.to_string()).unwrap();
        let second = new.payload(&payload, &server()).unwrap();
        assert_eq!(second.user, alice.user);
        assert_eq!(second.safety_number(), alice.safety_number());
        assert_ne!(second.device, alice.device);
        assert_ne!(second.nats_public_key(), alice.nats_public_key());
    }

    #[test]
    fn somebody_in_between_changes_the_code() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let alice = account("alice", &mut rng);
        let (new, link) = NewDevice::start(alice.gateway.clone(), &mut rng).unwrap();
        // The attacker answers the new device and shows the old one a link of its own.
        let (attacker_new, attacker_link) =
            NewDevice::start(alice.gateway.clone(), &mut rng).unwrap();
        let (attacker_old, commitment) = OldDevice::start(&link, &alice).unwrap();
        let (new, nonce) = new.answer(&commitment).unwrap();
        let (_, reveal, _) = attacker_old.nonce(&nonce, &alice, NOW).unwrap();
        let (_, shown_by_new) = new.reveal(&reveal).unwrap();

        let (old, commitment) = OldDevice::start(&attacker_link, &alice).unwrap();
        let (_, nonce) = attacker_new.answer(&commitment).unwrap();
        let (old, _, shown_by_old) = old.nonce(&nonce, &alice, NOW).unwrap();
        assert_ne!(shown_by_old, shown_by_new);
        assert_eq!(
            old.confirm(&shown_by_new.to_string()).unwrap_err(),
            LinkError::CodesDiffer
        );
    }

    #[test]
    fn a_reveal_that_was_not_committed_to_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let alice = account("alice", &mut rng);
        let (new, link) = NewDevice::start(alice.gateway.clone(), &mut rng).unwrap();
        let (_, commitment) = OldDevice::start(&link, &alice).unwrap();
        let (other, _) = OldDevice::start(&link, &alice).unwrap();
        let (new, _) = new.answer(&commitment).unwrap();
        let refused = new.reveal(&other.encapsulation).err();
        assert_eq!(refused, Some(LinkError::CodesDiffer));
    }

    #[test]
    fn a_link_to_another_org_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let alice = account("alice", &mut rng);
        let mut gateway = alice.gateway.clone();
        gateway.org = "rival".parse().unwrap();
        let (_, link) = NewDevice::start(gateway, &mut rng).unwrap();
        assert_eq!(
            OldDevice::start(&link, &alice).err(),
            Some(LinkError::OtherGateway)
        );
    }
}
