//! Security keys that are plugged in, spoken to without a browser (CTAP 2.0 to
//! 2.1, PIN protocols one and two, by `webauthn-authenticator-rs`).
//!
//! A PIN goes to the key, encrypted for it, and to nobody else. Everything here
//! blocks until the key or the person has answered: call it on a thread of its
//! own.

mod attestation;
mod hid;
mod hidraw;
mod lists;
mod omitted;
mod person;

use futures::executor::block_on;
use rustls_pki_types::ServerName;
use webauthn_authenticator_rs::WebauthnAuthenticator as _;
use webauthn_authenticator_rs::ctap2::commands::{
    ClientPinRequest, ClientPinSubCommand, GetInfoRequest,
};
use webauthn_authenticator_rs::ctap2::{CtapAuthenticator, GetInfoResponse};
use webauthn_authenticator_rs::error::{CtapError, WebauthnCError};
use webauthn_authenticator_rs::prelude::{
    CreationChallengeResponse, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse, Url,
};
use webauthn_authenticator_rs::transport::Token as _;

use person::Ui;

pub use hid::{REPORT, Report, Reports};
pub use hidraw::{Hidraw, plugged_in};
pub use person::Person;

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
    #[error("this security key is too old: use one that knows FIDO2")]
    TooOld,
    /// Its PIN is to be changed before anything else.
    #[error(
        "this security key wants its PIN to be changed first: do that with your system's or its maker's program"
    )]
    PinToChange,
    /// It has no PIN and no fingerprint reader in use.
    #[error(
        "this security key has no PIN yet: set one with your system's or its maker's program, then try again"
    )]
    NoPin,
    /// The person gave none.
    #[error(
        "the security key wants its PIN, and none was given: run the command again and type it"
    )]
    PinNotGiven,
    /// It cannot be the PIN of any key, and no try was spent on it.
    #[error(
        "a PIN has at least 4 characters and at most 63 bytes: try again; this one did not count"
    )]
    PinUnfit,
    /// The PIN is not its own.
    #[error("the PIN is wrong: {}", tries(*.left))]
    WrongPin {
        /// Tries that are left before it locks itself for good, if it says so.
        left: Option<u32>,
    },
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
    /// The gateway asks in the name of another site than its own.
    #[error(
        "the gateway asks for a signature for {asked}, but you know it as {known}: your key was not asked; if your admin tells you that both are right, add `--site {asked}`"
    )]
    OtherSite {
        /// Whose name it is, as far as it can be shown.
        asked: String,
        /// The name that the person knows.
        known: String,
    },
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
/// JSON, too. `site` is the name by which the person knows the gateway: what a
/// key signs for another one could be used there.
///
/// # Errors
/// [`KeyError`].
pub fn answer<R: Reports>(
    keys: Vec<R>,
    question: Question,
    site: &str,
    (origin, options): (&str, &[u8]),
    person: &dyn Person,
) -> Result<Vec<u8>, KeyError> {
    let mut keys = keys.into_iter();
    let mut reports = match (keys.next(), keys.next()) {
        (None, _) => return Err(KeyError::NoKey),
        (Some(_), Some(_)) => return Err(KeyError::SeveralKeys),
        (Some(reports), None) => reports,
    };
    let origin = Url::parse(origin).map_err(|_| KeyError::BadQuestion("origin"))?;
    check_site(site, origin.host_str().unwrap_or_default())?;
    let ui = Ui::new(person);
    let mut key = Key::find(&mut reports, &ui)?;
    let unreadable = |_| KeyError::BadQuestion("options");
    let answer = match question {
        Question::Enrol => {
            let options: CreationChallengeResponse =
                serde_json::from_slice(options).map_err(unreadable)?;
            check_site(site, &options.public_key.rp.id)?;
            serde_json::to_vec(&key.enrol(&origin, options)?)
        }
        Question::Prove => {
            let options: RequestChallengeResponse =
                serde_json::from_slice(options).map_err(unreadable)?;
            check_site(site, &options.public_key.rp_id)?;
            serde_json::to_vec(&key.prove(&origin, options)?)
        }
    };
    answer.map_err(|_| KeyError::Broken("its answer cannot be written".to_owned()))
}

/// A key binds what it signs to a DNS name, which the library takes for granted.
fn check_site(known: &str, asked: &str) -> Result<(), KeyError> {
    if !matches!(ServerName::try_from(asked), Ok(ServerName::DnsName(_))) {
        return Err(KeyError::BadQuestion("origin"));
    }
    match asked.eq_ignore_ascii_case(known) {
        true => Ok(()),
        false => Err(KeyError::OtherSite {
            asked: asked.to_owned(),
            known: known.to_owned(),
        }),
    }
}

/// A key that has said what it can do.
struct Key<'a, R> {
    reports: &'a mut R,
    ui: &'a Ui<'a>,
    info: GetInfoResponse,
}

impl<'a, R: Reports> Key<'a, R> {
    fn find(reports: &'a mut R, ui: &'a Ui<'a>) -> Result<Self, KeyError> {
        let asked = async {
            let mut token = hid::Token::new(&mut *reports);
            token.init().await?;
            token.transmit(GetInfoRequest {}, ui).await
        };
        let info = block_on(asked).map_err(|error| token_error(&error))?;
        match info.force_pin_change {
            true => Err(KeyError::PinToChange),
            false => Ok(Self { reports, ui, info }),
        }
    }

    fn enrol(
        &mut self,
        origin: &Url,
        mut options: CreationChallengeResponse,
    ) -> Result<RegisterPublicKeyCredential, KeyError> {
        let asked = &mut options.public_key;
        let mut portions = lists::of_excluded(asked, &self.info).into_iter();
        asked.exclude_credentials = portions.next();
        // Those that do not go into the question itself.
        for portion in portions {
            match self.sign(origin, lists::question(&options.public_key, portion)) {
                Ok(_) => return Err(KeyError::Enrolled),
                Err(KeyError::Unknown) => {}
                Err(error) => return Err(error),
            }
        }
        let made = self.with(|key| key.do_registration(origin.clone(), options))?;
        attestation::removed(made).ok_or_else(unreadable)
    }

    fn prove(
        &mut self,
        origin: &Url,
        options: RequestChallengeResponse,
    ) -> Result<PublicKeyCredential, KeyError> {
        for portion in lists::of_allowed(&options.public_key, &self.info) {
            let mut options = options.clone();
            options.public_key.allow_credentials = portion;
            match self.sign(origin, options) {
                Err(KeyError::Unknown) => {}
                outcome => return outcome,
            }
        }
        Err(KeyError::Unknown)
    }

    fn sign(
        &mut self,
        origin: &Url,
        options: RequestChallengeResponse,
    ) -> Result<PublicKeyCredential, KeyError> {
        self.with(|key| key.do_authentication(origin.clone(), options))
    }

    fn with<T>(
        &mut self,
        ask: impl FnOnce(&mut Library<'_, &mut R>) -> Result<T, WebauthnCError>,
    ) -> Result<T, KeyError> {
        let token = hid::Token::new(&mut *self.reports);
        let key = block_on(CtapAuthenticator::new(token, self.ui));
        let done = ask(&mut key.ok_or(KeyError::TooOld)?);
        done.map_err(|error| match (self.ui.trouble(), token_error(&error)) {
            (Some(trouble), _) => trouble,
            (None, KeyError::WrongPin { .. }) => KeyError::WrongPin {
                left: self.tries_left(),
            },
            (None, error) => error,
        })
    }

    fn tries_left(&mut self) -> Option<u32> {
        let protocols = self.info.pin_protocols.as_ref()?;
        let asked = ClientPinRequest {
            pin_uv_protocol: protocols.first().copied(),
            sub_command: ClientPinSubCommand::GetPinRetries,
            ..ClientPinRequest::default()
        };
        let mut token = hid::Token::new(&mut *self.reports);
        let asked = async {
            token.init().await.ok()?;
            token.transmit(asked, self.ui).await.ok()
        };
        block_on(asked)?.pin_retries
    }
}

type Library<'a, R> = CtapAuthenticator<'a, hid::Token<R>, Ui<'a>>;

fn tries(left: Option<u32>) -> String {
    match left {
        Some(1) => "the next wrong one locks this security key for good, so find out which it is \
                    before you try again"
            .to_owned(),
        Some(left) => {
            format!("try again, but mind that this key locks itself for good after {left} more")
        }
        None => {
            "try again, but mind that a key locks itself for good after eight wrong ones".to_owned()
        }
    }
}

fn unreadable() -> KeyError {
    KeyError::Broken("its answer does not read".to_owned())
}

fn token_error(error: &WebauthnCError) -> KeyError {
    match error {
        WebauthnCError::UserVerificationRequired => KeyError::NoPin,
        WebauthnCError::Cancelled => KeyError::NotTouched,
        WebauthnCError::NotSupported => KeyError::TooOld,
        WebauthnCError::Security => KeyError::BadQuestion("relying party"),
        WebauthnCError::Cbor => unreadable(),
        WebauthnCError::Ctap(error) => match error {
            CtapError::Ctap2PinInvalid | CtapError::Ctap2UserVerificationInvalid => {
                KeyError::WrongPin { left: None }
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
