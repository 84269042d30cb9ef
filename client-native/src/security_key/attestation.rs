//! Takes the attestation out of what a key says of a new credential (WebAuthn
//! Level 2, section 5.1.3, step 21), as browsers do: it tells the make of
//! people's keys, and keys give it whether it was asked for or not.

use std::ops::Range;

use serde_cbor_2::Value;
use webauthn_authenticator_rs::ctap2::commands::MakeCredentialResponse;
use webauthn_authenticator_rs::prelude::RegisterPublicKeyCredential;

/// Where authenticator data has the model of the key.
const AAGUID: Range<usize> = 37..53;

/// The same without; `None` when it does not read.
pub(super) fn removed(
    mut made: RegisterPublicKeyCredential,
) -> Option<RegisterPublicKeyCredential> {
    let object = &mut made.response.attestation_object;
    let read: MakeCredentialResponse = serde_cbor_2::from_slice(object).ok()?;
    let Some(Value::Bytes(mut said)) = read.auth_data else {
        return None;
    };
    said.get_mut(AAGUID)?.fill(0);
    let text = |text: &str| Value::Text(text.to_owned());
    let without = Value::Map(
        [
            (text("fmt"), text("none")),
            (text("attStmt"), Value::Map([].into())),
            (text("authData"), Value::Bytes(said)),
        ]
        .into(),
    );
    *object = serde_cbor_2::to_vec(&without).ok()?;
    // The library has the format of the attestation here.
    made.type_ = "public-key".to_owned();
    Some(made)
}
