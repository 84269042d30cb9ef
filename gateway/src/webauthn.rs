//! Passkeys and security keys (WebAuthn Level 2, section 7): what is asked of
//! one, and whether what it answers is what was asked. Pure but for the
//! challenge, which the library draws; what is stored of a user's keys goes in,
//! and what is to be stored comes out.
//!
//! Every ceremony demands that the key has verified who uses it (by PIN or
//! fingerprint). No attestation is asked for: it would tell the make of
//! people's keys, and nothing here depends on that.

mod ceremonies;
mod page;

use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::Sha256;
use sotto_jwt_accounts::policy::Factor;
use sotto_log::Known;
use sotto_proto::{FactorId, OrgName, UserName};
use url::{Host, Url};
use webauthn_rs_core::WebauthnCore;
use webauthn_rs_core::error::WebauthnError;
use webauthn_rs_core::proto::{
    AttestationConveyancePreference, AuthenticationState, AuthenticatorAttachment, Credential,
    PublicKeyCredential, RegisterPublicKeyCredential, RegistrationState, UserVerificationPolicy,
};
use zeroize::Zeroizing;

use crate::records::{CredentialRecord, FactorsRecord, VERSION};
use crate::refusal::Refusal;
use crate::sealing::derive;

pub use ceremonies::{Ceremony, begin, finish, standing};
pub use page::routes;

/// How long a browser or a key may wait for its user.
const PATIENCE: Duration = Duration::from_secs(300);
/// Keys of one user.
const KEYS: usize = 12;
/// Longest name of a key, in bytes.
const NAME: usize = 64;
/// Longest answer that is looked at, in bytes.
const ANSWER: usize = 32 * 1024;
const HANDLE_LABEL: &[u8] = b"sotto v1 webauthn user handle";

/// Asks and checks for one origin.
pub struct RelyingParty {
    core: WebauthnCore,
    origin: String,
    key: Zeroizing<[u8; 32]>,
}

/// What a key is asked, and what to know again when it answers.
pub struct Challenge {
    /// JSON, for `navigator.credentials` or a native client.
    pub options: Vec<u8>,
    /// The library's own state, JSON.
    pub state: Bytes,
}

/// What a key's answer comes down to. Either way the record must be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This one has signed.
    Proven(FactorId),
    /// Its counter went backwards: there may be a copy of it.
    Cloned,
}

impl RelyingParty {
    /// For the origin under which browsers reach the gateway; `gateway` is the
    /// key that signs for it.
    ///
    /// # Errors
    /// What to change about the origin.
    pub fn new(gateway: &SigningKey, origin: &str) -> Result<Self, &'static str> {
        let origin = Url::parse(origin).map_err(|_| {
            "the gateway's origin does not read; write `origin = \"https://name:port\"` into server.toml"
        })?;
        let Some(Host::Domain(rp_id)) = origin.host() else {
            return Err(
                "passkeys belong to a DNS name, and `public_host` in server.toml is an IP address; set a name there",
            );
        };
        if origin.scheme() != "https" {
            return Err("passkeys need https; set `origin` in server.toml to a URL that has it");
        }
        let core = WebauthnCore::new_unsafe_experts_only(
            "Sotto",
            rp_id,
            vec![origin.clone()],
            PATIENCE,
            Some(false),
            Some(false),
        );
        Ok(Self {
            core,
            origin: origin.origin().ascii_serialization(),
            key: derive(gateway, HANDLE_LABEL),
        })
    }

    /// The origin, without a slash at its end.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Asks for a new key of a user. For FIDO2 it must be one that is carried
    /// around; which kind it really is cannot be known without an attestation.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub fn ask_for_new(
        &self,
        (org, user): (&OrgName, &UserName),
        factor: Factor,
        stored: Option<&FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
    ) -> Result<Challenge, Refusal> {
        let account = format!("{user}@{org}");
        let known = stored.into_iter().flat_map(|record| &record.credentials);
        let known: Vec<_> = known
            .filter(|known| FactorId::try_from(&known.id).is_ok_and(&is_enrolled))
            .filter_map(|known| Some(credential(known).ok()?.cred_id))
            .collect();
        let attachment =
            (factor == Factor::Fido2).then_some(AuthenticatorAttachment::CrossPlatform);
        let builder = self
            .core
            .new_challenge_register_builder(&self.handle(org, user), &account, &account)
            .map_err(broken)?
            .attestation(AttestationConveyancePreference::None)
            .user_verification_policy(UserVerificationPolicy::Required)
            .authenticator_attachment(attachment)
            .require_resident_key(false)
            .exclude_credentials(Some(known));
        let (options, state) = self
            .core
            .generate_challenge_register(builder)
            .map_err(broken)?;
        Challenge::of(&options, &state)
    }

    /// Adds the new key to what is stored of its user.
    ///
    /// # Errors
    /// [`Refusal::Denied`] when it is not what was asked for,
    /// [`Refusal::TooMany`].
    pub fn add(
        &self,
        new: CredentialRecord,
        answer: &[u8],
        state: &[u8],
        stored: Option<FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
    ) -> Result<FactorsRecord, Refusal> {
        let answer: RegisterPublicKeyCredential = read(answer)?;
        let state: RegistrationState =
            serde_json::from_slice(state).map_err(Refusal::unavailable)?;
        let credential = self.core.register_credential(&answer, &state, None);
        let credential = credential.map_err(refused)?;
        let mut record = stored.unwrap_or_default();
        record.version = VERSION;
        // What an enrolment that was never completed has left behind.
        record
            .credentials
            .retain(|known| FactorId::try_from(&known.id).is_ok_and(&is_enrolled));
        if record.credentials.len() >= KEYS {
            return Err(Refusal::TooMany(format!(
                "a user has at most {KEYS} passkeys and security keys: remove one first"
            )));
        }
        record.credentials.push(CredentialRecord {
            credential: stored_form(&credential)?,
            ..new
        });
        Ok(record)
    }

    /// Asks for a signature by one of a user's keys of this factor.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is none.
    pub fn ask_for_proof(
        &self,
        factor: Factor,
        stored: Option<&FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
    ) -> Result<Challenge, Refusal> {
        let known = stored.into_iter().flat_map(|record| &record.credentials);
        let usable: Vec<Credential> = known
            .filter(|known| is_usable(known, factor, &is_enrolled))
            .map(credential)
            .collect::<Result<_, _>>()?;
        if usable.is_empty() {
            return Err(Refusal::NotFound(format!(
                "there is no such key: run `sotto factor enrol {factor}` first"
            )));
        }
        let builder = self
            .core
            .new_challenge_authenticate_builder(usable, Some(UserVerificationPolicy::Required))
            .map_err(broken)?;
        let (options, state) = self
            .core
            .generate_challenge_authenticate(builder)
            .map_err(broken)?;
        Challenge::of(&options, &state)
    }

    /// Whether one of a user's keys has signed, counted on from what is stored
    /// of it now. What comes back must be stored before anybody hears of it.
    ///
    /// # Errors
    /// [`Refusal::Denied`] when it is not what was asked for.
    pub fn check(
        &self,
        factor: Factor,
        answer: &[u8],
        state: &[u8],
        stored: Option<FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
        now_ms: i64,
    ) -> Result<(FactorsRecord, Outcome), Refusal> {
        let answer: PublicKeyCredential = read(answer)?;
        let state: AuthenticationState =
            serde_json::from_slice(state).map_err(Refusal::unavailable)?;
        let mut record = stored.unwrap_or_default();
        let usable = record
            .credentials
            .iter_mut()
            .filter(|known| is_usable(known, factor, &is_enrolled));
        for known in usable {
            let mut credential = credential(known)?;
            if credential.cred_id.as_slice() != answer.raw_id.as_slice() {
                continue;
            }
            let checked = self
                .core
                .authenticate_single_credential(&answer, &state, &credential);
            let outcome = match checked {
                Ok(result) => {
                    credential.counter = result.counter();
                    credential.backup_state = result.backup_state();
                    known.credential = stored_form(&credential)?;
                    Outcome::Proven(FactorId::try_from(&known.id).map_err(Refusal::unavailable)?)
                }
                Err(WebauthnError::CredentialPossibleCompromise) => {
                    known.cloned_ms = now_ms;
                    Outcome::Cloned
                }
                Err(error) => return Err(refused(error)),
            };
            return Ok((record, outcome));
        }
        Err(Refusal::NotFound(
            "this key is not one of yours, or not any more: use another one, or enrol it"
                .to_owned(),
        ))
    }

    /// What a key knows the user by; tells nobody the name.
    fn handle(&self, org: &OrgName, user: &UserName) -> [u8; 32] {
        let mut handle = [0; 32];
        let who = [org.as_str().as_bytes(), b"\0", user.as_str().as_bytes()];
        // 32 bytes are always within HKDF's reach.
        let _ = Hkdf::<Sha256>::new(None, self.key.as_ref()).expand_multi_info(&who, &mut handle);
        handle
    }
}

impl Challenge {
    fn of(options: &impl serde::Serialize, state: &impl serde::Serialize) -> Result<Self, Refusal> {
        let state = serde_json::to_vec(state).map_err(Refusal::unavailable)?;
        Ok(Self {
            options: serde_json::to_vec(options).map_err(Refusal::unavailable)?,
            state: state.into(),
        })
    }
}

fn is_usable(
    known: &CredentialRecord,
    factor: Factor,
    is_enrolled: impl Fn(FactorId) -> bool,
) -> bool {
    let of_factor = known.factor == i32::from(sotto_proto::wire::Factor::from(factor));
    let enrolled = FactorId::try_from(&known.id).is_ok_and(is_enrolled);
    of_factor && enrolled && known.cloned_ms == 0
}

fn read<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, Refusal> {
    if answer.len() > ANSWER {
        return Err(Refusal::TooLarge(ANSWER));
    }
    serde_json::from_slice(answer).map_err(|_| Refusal::malformed("answer of the key"))
}

fn credential(record: &CredentialRecord) -> Result<Credential, Refusal> {
    serde_json::from_slice(&record.credential).map_err(Refusal::unavailable)
}

fn stored_form(credential: &Credential) -> Result<Bytes, Refusal> {
    let json = serde_json::to_vec(credential).map_err(Refusal::unavailable)?;
    Ok(json.into())
}

/// Which error it is: what it holds may be somebody's answer.
fn kind(error: &WebauthnError) -> Known<String> {
    let text = format!("{error:?}");
    Known(text.chars().take_while(|c| c.is_alphanumeric()).collect())
}

fn broken(error: WebauthnError) -> Refusal {
    Refusal::unavailable(kind(&error))
}

fn refused(error: WebauthnError) -> Refusal {
    sotto_log::debug!(kind = kind(&error), "an answer of a key was refused");
    let why = match error {
        WebauthnError::UserNotVerified | WebauthnError::UserNotPresent => {
            "the key did not check who you are: set a PIN or fingerprint for it and try again"
        }
        WebauthnError::InvalidRPOrigin
        | WebauthnError::InvalidRPIDHash
        | WebauthnError::CredentialCrossOrigin => {
            "the answer was made for another site: open the link that `sotto factor` shows, and no other"
        }
        _ => "the answer does not fit what was asked: start again with a new link",
    };
    Refusal::Denied(why.to_owned())
}
