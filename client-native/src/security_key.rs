//! Security keys that are plugged in, spoken to without a browser (CTAP 2.0 to
//! 2.1, PIN protocols one and two, by `webauthn-authenticator-rs`).
//!
//! A PIN goes to the key, encrypted for it, and to nobody else. Everything here
//! blocks until the key or the person has answered: call it on a thread of its
//! own.

mod hid;
mod hidraw;

use std::fmt;

use futures::executor::block_on;
use rustls_pki_types::ServerName;
use webauthn_authenticator_rs::WebauthnAuthenticator as _;
use webauthn_authenticator_rs::ctap2::CtapAuthenticator;
use webauthn_authenticator_rs::error::{CtapError, WebauthnCError};
use webauthn_authenticator_rs::prelude::{
    CreationChallengeResponse, RequestChallengeResponse, Url,
};
use webauthn_authenticator_rs::transport::Token as _;
use webauthn_authenticator_rs::types::{CableRequestType, CableState, EnrollSampleStatus};
use webauthn_authenticator_rs::ui::UiCallback;
use zeroize::Zeroizing;

pub use hid::{REPORT, Report, Reports};
pub use hidraw::{Hidraw, plugged_in};

/// The person in front of the key.
pub trait Person: Send + Sync {
    /// The key's PIN; `None`: they would rather not.
    fn pin(&self) -> Option<Zeroizing<String>>;
    /// The key waits to be touched; called again and again until it was.
    fn touch(&self);
}

/// Why a key did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// None is there.
    #[error(
        "no security key is plugged in: plug one in and try again, or use a browser with `sotto factor prove webauthn`"
    )]
    NoKey,
    /// More than one is there.
    #[error("more than one security key is plugged in: leave just the one that you want to use")]
    SeveralKeys,
    /// The operating system does not let this user speak to it.
    #[error(
        "this user may not speak to the security key at {0}: install your system's rules for security keys (udev: libfido2 or systemd 252 bring them) and plug it in again"
    )]
    Forbidden(String),
    /// It went away, or answers what no key answers.
    #[error("the security key cannot be spoken to ({0}): unplug it, plug it in and try again")]
    Broken(String),
    /// It knows nothing of CTAP2.
    #[error(
        "this security key is too old, or has a PIN to be changed first: use one that knows FIDO2"
    )]
    TooOld,
    /// It has no PIN and no fingerprint reader in use.
    #[error(
        "this security key has no PIN yet: set one with your system's or its maker's program, then try again"
    )]
    NoPin,
    /// The PIN is not its own.
    #[error(
        "the PIN is wrong: try again, but mind that a key locks itself for good after eight wrong ones"
    )]
    WrongPin,
    /// Too many wrong PINs.
    #[error(
        "this security key takes no PIN any more: unplug it and plug it in; if that does not help it must be reset, which destroys what is on it"
    )]
    PinBlocked,
    /// Nobody touched it, or somebody said no.
    #[error("the security key was not touched in time, or it was refused: try again")]
    NotTouched,
    /// It is enrolled already.
    #[error("this security key is enrolled already: use another one")]
    Enrolled,
    /// It was never enrolled.
    #[error("this security key is not one of yours here: plug in one that you have enrolled")]
    Unknown,
    /// The gateway asks for what no key must be asked.
    #[error(
        "the gateway's question does not fit its name ({0}): do not trust it, and ask your admin"
    )]
    BadQuestion(&'static str),
}

/// What is asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Make a key pair.
    Enrol,
    /// Sign with one.
    Prove,
}

/// Has the only key of `keys` answer what the gateway at `origin` asks;
/// `options` is what `navigator.credentials` would take, JSON. The answer is
/// JSON, too.
///
/// # Errors
/// [`KeyError`].
pub fn answer<R: Reports>(
    keys: Vec<R>,
    question: Question,
    (origin, options): (&str, &[u8]),
    person: &dyn Person,
) -> Result<Vec<u8>, KeyError> {
    let mut keys = keys.into_iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => return Err(KeyError::NoKey),
        (Some(_), Some(_)) => return Err(KeyError::SeveralKeys),
        (Some(key), None) => key,
    };
    let origin = Url::parse(origin).map_err(|_| KeyError::BadQuestion("origin"))?;
    check_origin(&origin)?;
    let ui = Ui(person);
    let mut token = hid::Token::new(key);
    block_on(token.init()).map_err(|error| token_error(&error))?;
    let key = block_on(CtapAuthenticator::new(token, &ui));
    let mut key = key.ok_or(KeyError::TooOld)?;
    let unreadable = |_| KeyError::BadQuestion("options");
    let answer = match question {
        Question::Enrol => {
            let options: CreationChallengeResponse =
                serde_json::from_slice(options).map_err(unreadable)?;
            let made = key.do_registration(origin, options);
            serde_json::to_vec(&made.map_err(|error| token_error(&error))?)
        }
        Question::Prove => {
            let options: RequestChallengeResponse =
                serde_json::from_slice(options).map_err(unreadable)?;
            let signed = key.do_authentication(origin, options);
            serde_json::to_vec(&signed.map_err(|error| token_error(&error))?)
        }
    };
    answer.map_err(|_| KeyError::Broken("its answer cannot be written".to_owned()))
}

/// A key binds what it signs to a DNS name, which the library takes for granted.
fn check_origin(origin: &Url) -> Result<(), KeyError> {
    let name = origin.host_str().map(ServerName::try_from);
    match name {
        Some(Ok(ServerName::DnsName(_))) => Ok(()),
        _ => Err(KeyError::BadQuestion("origin")),
    }
}

fn token_error(error: &WebauthnCError) -> KeyError {
    match error {
        WebauthnCError::UserVerificationRequired => KeyError::NoPin,
        WebauthnCError::Cancelled => KeyError::NotTouched,
        WebauthnCError::PinTooShort
        | WebauthnCError::PinTooLong
        | WebauthnCError::PinContainsNull => KeyError::WrongPin,
        WebauthnCError::NotSupported => KeyError::TooOld,
        WebauthnCError::Security => KeyError::BadQuestion("relying party"),
        WebauthnCError::Ctap(error) => match error {
            CtapError::Ctap2PinInvalid | CtapError::Ctap2UserVerificationInvalid => {
                KeyError::WrongPin
            }
            CtapError::Ctap2PinBlocked
            | CtapError::Ctap2PinAuthBlocked
            | CtapError::Ctap2UserVerificationBlocked => KeyError::PinBlocked,
            CtapError::Ctap2PinNotSet => KeyError::NoPin,
            CtapError::Ctap2CredentialExcluded => KeyError::Enrolled,
            CtapError::Ctap2NoCredentials => KeyError::Unknown,
            CtapError::Ctap2OperationDenied
            | CtapError::Ctap2UserActionTimeout
            | CtapError::Ctap2ActionTimeout
            | CtapError::Ctap2KeepAliveCancel
            | CtapError::Ctap1Timeout => KeyError::NotTouched,
            other => KeyError::Broken(format!("{other:?}")),
        },
        other => KeyError::Broken(other.to_string()),
    }
}

/// What the library wants to tell and ask; of that only two things happen here.
struct Ui<'a>(&'a dyn Person);

impl fmt::Debug for Ui<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ui(..)")
    }
}

impl UiCallback for Ui<'_> {
    fn request_pin(&self) -> Option<String> {
        self.0.pin().map(|pin| pin.to_string())
    }

    fn request_touch(&self) {
        self.0.touch();
    }

    fn processing(&self) {}

    fn fingerprint_enrollment_feedback(&self, _: u32, _: Option<EnrollSampleStatus>) {}

    fn cable_qr_code(&self, _: CableRequestType, _: String) {}

    fn dismiss_qr_code(&self) {}

    fn cable_status_update(&self, _: CableState) {}
}
