//! What this device's leaves look like: suite, credential, capabilities, and
//! the key packages by which others add it.

use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    Capabilities, Ciphersuite, Credential, CredentialType, CredentialWithKey, ExtensionType,
    KeyPackage, KeyPackageBuilder, KeyPackageIn, Lifetime, MlsMessageBodyIn, MlsMessageIn,
    MlsMessageOut, OpenMlsProvider as _, ProtocolVersion,
};
use prost::Message;
use sotto_proto::wire::{self, Signed};
use sotto_proto::{DeviceId, limits, signed};

use crate::account::{Account, millis};
use crate::io::Timestamp;
use crate::mls::{LeafSigner, MlsError, Provider};
use crate::rules::{Leaf, Member};

/// X-Wing (X25519 + ML-KEM-768), ChaCha20-Poly1305, SHA-256, Ed25519. The code
/// point is provisional; a room keeps the suite it was made with.
pub(crate) const SUITE: Ciphersuite = Ciphersuite::MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519;
/// Private-use credential type: an encoded `Signed` device certificate.
pub(crate) const CREDENTIAL: CredentialType = CredentialType::Other(0xF0A0);
/// Private-use group context extension: [`Rules`].
pub(crate) const RULES: u16 = 0xF0A1;
/// Validity of a key package from when it was made (openmls allows 84 days in all).
const KEY_PACKAGE_LIFETIME_S: i64 = 60 * 24 * 3_600;

/// Makes a key package for others to add this device with.
pub(crate) fn new_key_package(
    provider: &Provider,
    account: &Account,
    now: Timestamp,
    last_resort: bool,
) -> Result<Vec<u8>, MlsError> {
    let not_before = (now.0.saturating_sub(millis(limits::CLOCK_SKEW)) / 1_000).max(0);
    let not_after = (now.0 / 1_000)
        .saturating_add(KEY_PACKAGE_LIFETIME_S)
        .max(0);
    let builder = KeyPackageBuilder::new()
        .leaf_node_capabilities(capabilities())
        .key_package_lifetime(Lifetime::init(
            not_before.unsigned_abs(),
            not_after.unsigned_abs(),
        ));
    let builder = if last_resort {
        builder.mark_as_last_resort()
    } else {
        builder
    };
    let bundle = builder
        .build(SUITE, provider, &signer(account), credential(account))
        .map_err(|_| MlsError("key package"))?;
    bytes(bundle.into())
}

/// Reads and checks another device's key package.
pub(crate) fn read_key_package(
    provider: &Provider,
    payload: &[u8],
) -> Result<(KeyPackage, Leaf), MlsError> {
    let MlsMessageBodyIn::KeyPackage(key_package) = message(payload)?.extract() else {
        return Err(MlsError("not a key package"));
    };
    let key_package: KeyPackageIn = key_package;
    let key_package = key_package
        .validate(provider.crypto(), ProtocolVersion::Mls10)
        .map_err(|_| MlsError("key package"))?;
    if key_package.ciphersuite() != SUITE {
        return Err(MlsError("key package of another suite"));
    }
    let leaf = leaf(key_package.leaf_node());
    Ok((key_package, leaf))
}

pub(crate) fn capabilities() -> Capabilities {
    Capabilities::new(
        None,
        Some(&[SUITE]),
        Some(&[ExtensionType::Unknown(RULES), ExtensionType::LastResort]),
        None,
        Some(&[CREDENTIAL]),
    )
}

pub(crate) fn credential(account: &Account) -> CredentialWithKey {
    CredentialWithKey {
        credential: Credential::new(CREDENTIAL, account.certificate().encode_to_vec()),
        signature_key: account.leaf.verifying_key().to_bytes().to_vec().into(),
    }
}

pub(crate) fn signer(account: &Account) -> LeafSigner<'_> {
    LeafSigner(&account.leaf)
}

pub(crate) fn leaf(node: &openmls::prelude::LeafNode) -> Leaf {
    Leaf {
        credential: node.credential().serialized_content().to_vec(),
        signature_key: node.signature_key().as_slice().to_vec(),
    }
}

/// Reads a credential that was verified when its leaf came into the tree.
pub(crate) fn read_credential(credential: &Credential) -> Option<Member> {
    let signed = Signed::decode(credential.serialized_content()).ok()?;
    let certificate = wire::DeviceCertificate::decode(signed.statement).ok()?;
    Some(Member {
        user: certificate.user.parse().ok()?,
        device: DeviceId::try_from(&certificate.device).ok()?,
        identity_key: signed::public_key(&certificate.identity_key).ok()?,
    })
}

pub(crate) fn message(payload: &[u8]) -> Result<MlsMessageIn, MlsError> {
    MlsMessageIn::tls_deserialize_exact(payload).map_err(|_| MlsError("not an MLS message"))
}

pub(crate) fn bytes(message: MlsMessageOut) -> Result<Vec<u8>, MlsError> {
    message.to_bytes().map_err(|_| MlsError("encode"))
}
