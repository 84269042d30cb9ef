//! Statements signed with Ed25519: `Signed { statement, signature }`, where
//! the signature is over a label of the statement's kind and its exact bytes,
//! so that no statement can pass for one of another kind.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;

use crate::wire::{self, Signed};
use crate::{DeviceId, IdError, NameError, OrgName, RoomId, UserName};

/// A protobuf message that is only ever believed when signed.
pub trait Statement: Message + Default {
    /// Distinguishes the kinds; part of what is signed.
    const LABEL: &'static [u8];
}

impl Statement for wire::DeviceCertificate {
    const LABEL: &'static [u8] = b"sotto v1 device certificate\0";
}
impl Statement for wire::JoinGrant {
    const LABEL: &'static [u8] = b"sotto v1 join grant\0";
}
impl Statement for wire::RemovalOrder {
    const LABEL: &'static [u8] = b"sotto v1 removal order\0";
}
impl Statement for wire::SessionStatement {
    const LABEL: &'static [u8] = b"sotto v1 session\0";
}
impl Statement for wire::DirectoryEvent {
    const LABEL: &'static [u8] = b"sotto v1 directory event\0";
}

/// Why a signed statement was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// The signature is not by the expected key over these bytes.
    #[error("the signature does not fit")]
    Signature,
    /// A field is missing or malformed.
    #[error("the signed statement is malformed")]
    Malformed,
    /// The statement is not, or no longer, valid at the given time.
    #[error("the signed statement is not valid at this time")]
    Expired,
}

impl From<IdError> for SignedError {
    fn from(_: IdError) -> Self {
        Self::Malformed
    }
}

impl From<NameError> for SignedError {
    fn from(_: NameError) -> Self {
        Self::Malformed
    }
}

/// Signs a statement.
pub fn sign<S: Statement>(statement: &S, key: &SigningKey) -> Signed {
    let statement = statement.encode_to_vec();
    let signature = key.sign(&labelled::<S>(&statement));
    Signed {
        statement: statement.into(),
        signature: Bytes::copy_from_slice(&signature.to_bytes()),
    }
}

/// Checks the signature and reads the statement.
///
/// # Errors
/// [`SignedError::Signature`] or [`SignedError::Malformed`].
pub fn verify<S: Statement>(signed: &Signed, key: &VerifyingKey) -> Result<S, SignedError> {
    let signature = Signature::from_slice(&signed.signature).map_err(|_| SignedError::Signature)?;
    key.verify_strict(&labelled::<S>(&signed.statement), &signature)
        .map_err(|_| SignedError::Signature)?;
    S::decode(signed.statement.clone()).map_err(|_| SignedError::Malformed)
}

/// Reads an Ed25519 public key of 32 bytes.
///
/// # Errors
/// [`SignedError::Malformed`] when it is none.
pub fn public_key(bytes: &[u8]) -> Result<VerifyingKey, SignedError> {
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| SignedError::Malformed)?;
    VerifyingKey::from_bytes(bytes).map_err(|_| SignedError::Malformed)
}

/// A device certificate whose signature, by the identity key it names, was
/// checked. Whether that key is the user's is for the holder to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// The org.
    pub org: OrgName,
    /// The user whose device it is.
    pub user: UserName,
    /// The device.
    pub device: DeviceId,
    /// The user's identity key, which signed this.
    pub identity_key: VerifyingKey,
    /// The device's MLS signature key.
    pub signature_key: VerifyingKey,
    /// The device's NATS user nkey, public.
    pub nats_key: String,
    /// Not to be believed before, in ms since 1970.
    pub not_before_ms: i64,
    /// Not to be believed after, in ms since 1970.
    pub not_after_ms: i64,
}

impl DeviceCertificate {
    /// Checks the signature and every field; not the time.
    ///
    /// # Errors
    /// [`SignedError::Signature`] or [`SignedError::Malformed`].
    pub fn verify(signed: &Signed) -> Result<Self, SignedError> {
        let claimed = wire::DeviceCertificate::decode(signed.statement.clone())
            .map_err(|_| SignedError::Malformed)?;
        let identity_key = public_key(&claimed.identity_key)?;
        let statement: wire::DeviceCertificate = verify(signed, &identity_key)?;
        Ok(Self {
            org: statement.org.parse()?,
            user: statement.user.parse()?,
            device: DeviceId::try_from(&statement.device)?,
            identity_key,
            signature_key: public_key(&statement.signature_key)?,
            nats_key: statement.nats_key,
            not_before_ms: statement.not_before_ms,
            not_after_ms: statement.not_after_ms,
        })
    }

    /// Fails with [`SignedError::Expired`] outside the certificate's time.
    ///
    /// # Errors
    /// [`SignedError::Expired`].
    pub fn check_time(&self, now_ms: i64) -> Result<(), SignedError> {
        if (self.not_before_ms..=self.not_after_ms).contains(&now_ms) {
            Ok(())
        } else {
            Err(SignedError::Expired)
        }
    }

    /// Signs a certificate; `identity` must be the secret of `self.identity_key`.
    pub fn sign(&self, identity: &SigningKey) -> Signed {
        let statement = wire::DeviceCertificate {
            org: self.org.to_string(),
            user: self.user.to_string(),
            device: self.device.to_bytes(),
            identity_key: key_bytes(&self.identity_key),
            signature_key: key_bytes(&self.signature_key),
            nats_key: self.nats_key.clone(),
            not_before_ms: self.not_before_ms,
            not_after_ms: self.not_after_ms,
        };
        sign(&statement, identity)
    }
}

/// A gateway's word that a device may be a member of a room, signature checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGrant {
    /// The org.
    pub org: OrgName,
    /// The room.
    pub room: RoomId,
    /// The user.
    pub user: UserName,
    /// The device.
    pub device: DeviceId,
    /// The user's identity key as the directory has it.
    pub identity_key: VerifyingKey,
    /// The room's policy version that the device passed.
    pub policy_version: u64,
    /// Not to be believed after, in ms since 1970.
    pub not_after_ms: i64,
}

impl JoinGrant {
    /// Checks the gateway's signature and every field; not the time.
    ///
    /// # Errors
    /// [`SignedError::Signature`] or [`SignedError::Malformed`].
    pub fn verify(signed: &Signed, gateway: &VerifyingKey) -> Result<Self, SignedError> {
        let statement: wire::JoinGrant = verify(signed, gateway)?;
        Ok(Self {
            org: statement.org.parse()?,
            room: RoomId::try_from(&statement.room)?,
            user: statement.user.parse()?,
            device: DeviceId::try_from(&statement.device)?,
            identity_key: public_key(&statement.identity_key)?,
            policy_version: statement.policy_version,
            not_after_ms: statement.not_after_ms,
        })
    }

    /// Signs the grant with the gateway's key.
    pub fn sign(&self, gateway: &SigningKey) -> Signed {
        let statement = wire::JoinGrant {
            org: self.org.to_string(),
            room: self.room.to_bytes(),
            user: self.user.to_string(),
            device: self.device.to_bytes(),
            identity_key: key_bytes(&self.identity_key),
            policy_version: self.policy_version,
            not_after_ms: self.not_after_ms,
        };
        sign(&statement, gateway)
    }
}

/// A gateway's word that a user, or one device of theirs, may not be in a room
/// any more, signature checked. It can only take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalOrder {
    /// The org.
    pub org: OrgName,
    /// The room.
    pub room: RoomId,
    /// The user.
    pub user: UserName,
    /// The user's identity key as the directory had it.
    pub identity_key: VerifyingKey,
    /// The device; absent: every device of the user.
    pub device: Option<DeviceId>,
    /// When the right to be in the room ended, in ms since 1970.
    pub at_ms: i64,
}

impl RemovalOrder {
    /// Checks the gateway's signature and every field; not the time.
    ///
    /// # Errors
    /// [`SignedError::Signature`] or [`SignedError::Malformed`].
    pub fn verify(signed: &Signed, gateway: &VerifyingKey) -> Result<Self, SignedError> {
        let statement: wire::RemovalOrder = verify(signed, gateway)?;
        let device = if statement.device.is_empty() {
            None
        } else {
            Some(DeviceId::try_from(&statement.device)?)
        };
        Ok(Self {
            org: statement.org.parse()?,
            room: RoomId::try_from(&statement.room)?,
            user: statement.user.parse()?,
            identity_key: public_key(&statement.identity_key)?,
            device,
            at_ms: statement.at_ms,
        })
    }

    /// Signs the order with the gateway's key.
    pub fn sign(&self, gateway: &SigningKey) -> Signed {
        let statement = wire::RemovalOrder {
            org: self.org.to_string(),
            room: self.room.to_bytes(),
            user: self.user.to_string(),
            identity_key: key_bytes(&self.identity_key),
            device: self
                .device
                .map(|device| device.to_bytes())
                .unwrap_or_default(),
            at_ms: self.at_ms,
        };
        sign(&statement, gateway)
    }

    /// What the gateway publishes to the handshakes of `self.room`.
    pub fn notice(&self, gateway: &SigningKey) -> wire::RoomNotice {
        wire::RoomNotice {
            kind: Some(wire::room_notice::Kind::RemovalOrder(self.sign(gateway))),
        }
    }
}

/// A public key as it stands in protobuf fields.
pub fn key_bytes(key: &VerifyingKey) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

fn labelled<S: Statement>(statement: &[u8]) -> Vec<u8> {
    [S::LABEL, statement].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(identity: &SigningKey) -> DeviceCertificate {
        DeviceCertificate {
            org: "acme".parse().unwrap(),
            user: "alice".parse().unwrap(),
            device: DeviceId::try_from(&[1u8; 16][..]).unwrap(),
            identity_key: identity.verifying_key(),
            signature_key: SigningKey::from_bytes(&[2; 32]).verifying_key(),
            nats_key: "UABC".to_owned(),
            not_before_ms: 10,
            not_after_ms: 20,
        }
    }

    #[test]
    fn a_certificate_comes_back_as_signed() {
        let identity = SigningKey::from_bytes(&[1; 32]);
        let certificate = certificate(&identity);
        assert_eq!(
            DeviceCertificate::verify(&certificate.sign(&identity)).unwrap(),
            certificate
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let identity = SigningKey::from_bytes(&[1; 32]);
        let signed = certificate(&identity).sign(&identity);
        for bit in 0..signed.statement.len() * 8 {
            let mut statement = signed.statement.to_vec();
            statement[bit / 8] ^= 1 << (bit % 8);
            let forged = Signed {
                statement: statement.into(),
                signature: signed.signature.clone(),
            };
            assert!(DeviceCertificate::verify(&forged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_certificate_by_another_key_is_refused() {
        let identity = SigningKey::from_bytes(&[1; 32]);
        let forged = certificate(&identity).sign(&SigningKey::from_bytes(&[9; 32]));
        assert_eq!(
            DeviceCertificate::verify(&forged),
            Err(SignedError::Signature)
        );
    }

    #[test]
    fn a_statement_does_not_pass_for_another_kind() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let grant = sign(&wire::JoinGrant::default(), &key);
        let read: Result<wire::SessionStatement, _> = verify(&grant, &key.verifying_key());
        assert_eq!(read, Err(SignedError::Signature));
    }

    fn order(device: Option<DeviceId>) -> RemovalOrder {
        RemovalOrder {
            org: "acme".parse().unwrap(),
            room: RoomId::try_from(&[3u8; 16][..]).unwrap(),
            user: "mallory".parse().unwrap(),
            identity_key: SigningKey::from_bytes(&[1; 32]).verifying_key(),
            device,
            at_ms: 30,
        }
    }

    #[test]
    fn an_order_comes_back_as_signed_and_only_from_the_gateway() {
        let gateway = SigningKey::from_bytes(&[5; 32]);
        let device = DeviceId::try_from(&[4u8; 16][..]).unwrap();
        for order in [order(None), order(Some(device))] {
            let signed = order.sign(&gateway);
            assert_eq!(
                RemovalOrder::verify(&signed, &gateway.verifying_key()).unwrap(),
                order
            );
            let other = SigningKey::from_bytes(&[6; 32]).verifying_key();
            assert_eq!(
                RemovalOrder::verify(&signed, &other),
                Err(SignedError::Signature)
            );
        }
    }

    #[test]
    fn a_notice_never_begins_like_an_mls_message() {
        let gateway = SigningKey::from_bytes(&[5; 32]);
        let encoded = order(None).notice(&gateway).encode_to_vec();
        assert_ne!(encoded.first(), Some(&0));
    }

    #[test]
    fn certificates_have_a_time() {
        let certificate = certificate(&SigningKey::from_bytes(&[1; 32]));
        assert_eq!(certificate.check_time(9), Err(SignedError::Expired));
        assert_eq!(certificate.check_time(10), Ok(()));
        assert_eq!(certificate.check_time(21), Err(SignedError::Expired));
    }
}
