//! DSSE, Dead Simple Signing Envelope 1.0: bytes of a type, signed by several.

use anyhow::{Context, ensure};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use sotto_update::publish::SigningKey;
use tough::schema::key::Key;

/// The envelope as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Signs `payload` with every key.
    pub(crate) fn seal(
        payload: &[u8],
        payload_type: &str,
        keys: &[SigningKey],
    ) -> anyhow::Result<Self> {
        let message = pre_authentication(payload_type, payload);
        let signatures = keys.iter().map(|key| {
            Ok(Signature {
                keyid: HEXLOWER.encode(&key.public().key_id()?),
                sig: BASE64.encode(&key.sign(&message)),
            })
        });
        Ok(Self {
            payload: BASE64.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: signatures.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The payload, when at least `threshold` of the keys have signed it.
    pub(crate) fn open(
        &self,
        payload_type: &str,
        keys: &[Key],
        threshold: usize,
    ) -> anyhow::Result<Vec<u8>> {
        ensure!(
            self.payload_type == payload_type,
            "the envelope holds another type of document"
        );
        let payload = BASE64
            .decode(self.payload.as_bytes())
            .context("the envelope's payload is not base64")?;
        let message = pre_authentication(payload_type, &payload);
        let mut signed = 0;
        for key in keys {
            let keyid = HEXLOWER.encode(&key.key_id()?);
            let of_key = self.signatures.iter().filter(|sig| sig.keyid == keyid);
            let mut signatures = of_key.filter_map(|sig| BASE64.decode(sig.sig.as_bytes()).ok());
            signed += usize::from(signatures.any(|sig| is_signed(key, &message, &sig)));
        }
        ensure!(
            signed >= threshold,
            "{signed} of the keys have signed, and {threshold} must"
        );
        Ok(payload)
    }
}

fn is_signed(key: &Key, message: &[u8], signature: &[u8]) -> bool {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    let Key::Ed25519 { keyval, .. } = key else {
        return false;
    };
    let public: &[u8] = &keyval.public;
    UnparsedPublicKey::new(&ED25519, public)
        .verify(message, signature)
        .is_ok()
}

/// What is signed: the type and the payload, each with its length.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_as_the_specification_says() {
        // The specification's own example.
        let message = pre_authentication("http://example.com/HelloWorld", b"hello world");
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(message, expected);
    }

    #[test]
    fn it_opens_for_enough_keys_of_the_right_ones() {
        let key = || SigningKey::generate().unwrap().0;
        let (a, b, c) = (key(), key(), key());
        let public = [a.public(), b.public(), c.public()];
        let keys = [a, key()];
        let envelope = Envelope::seal(b"{}", "t", &keys).unwrap();
        assert_eq!(envelope.open("t", &public, 1).unwrap(), b"{}");
        assert!(envelope.open("t", &public, 2).is_err());
        assert!(envelope.open("u", &public, 1).is_err());
        let [a, _] = keys;
        let both = Envelope::seal(b"{}", "t", &[a, b]).unwrap();
        assert_eq!(both.open("t", &public, 2).unwrap(), b"{}");
        let changed = Envelope {
            payload: BASE64.encode(b"[]"),
            ..both
        };
        assert!(changed.open("t", &public, 1).is_err());
    }
}
