//! The server's side of OPAQUE: a password is registered and proven without
//! ever being here. Pure; nothing is kept between the two calls of a login:
//! what the gateway must remember goes to the client and back, sealed, so that
//! any gateway can finish what another one started.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use opaque_ke::{
    CredentialFinalization, CredentialRequest, RegistrationRequest, RegistrationUpload,
    ServerLogin, ServerLoginParameters, ServerRegistration, ServerSetup,
};
use prost::Message;
use rand::{CryptoRng, RngCore};
use sha2::Sha256;
use sotto_proto::password::{CONTEXT, PasswordSuite, credential_identifier};
use sotto_proto::{OrgName, UserName};
use zeroize::Zeroizing;

use crate::refusal::Refusal;

/// How long a login may take between its two calls, in ms.
const LOGIN_MS: i64 = 60_000;
/// A sealed login in progress, in bytes; more is not looked at.
const TICKET_MAX: usize = 1_024;
const NONCE: usize = 12;
const TICKET_LABEL: &[u8] = b"sotto v1 login in progress";

/// The gateway's OPAQUE keys. All gateways of a server have the same.
pub struct Passwords {
    setup: ServerSetup<PasswordSuite>,
    tickets: ChaCha20Poly1305,
}

/// What the stored set-up should be, but is not.
#[derive(Debug, thiserror::Error)]
#[error("the OPAQUE set-up does not read: restore the `gateway` folder from a backup")]
pub struct SetupError;

impl Passwords {
    /// Draws new keys. With other keys no password fits any more.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self::new(ServerSetup::new(rng))
    }

    /// Reads what [`Self::to_text`] wrote.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_text(text: &str) -> Result<Self, SetupError> {
        let bytes = HEXLOWER.decode(text.trim().as_bytes());
        let bytes = Zeroizing::new(bytes.map_err(|_| SetupError)?);
        let setup = ServerSetup::deserialize(&bytes).map_err(|_| SetupError)?;
        Ok(Self::new(setup))
    }

    /// The keys as text, for a file that only the gateways read.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.setup.serialize().to_vec());
        Zeroizing::new(HEXLOWER.encode(&bytes))
    }

    fn new(setup: ServerSetup<PasswordSuite>) -> Self {
        let secret = Zeroizing::new(setup.serialize().to_vec());
        let mut key = Zeroizing::new([0; 32]);
        // 32 bytes are always within HKDF's reach.
        let _ = Hkdf::<Sha256>::new(None, &secret).expand(TICKET_LABEL, key.as_mut());
        Self {
            setup,
            tickets: ChaCha20Poly1305::new(key.as_ref().into()),
        }
    }

    /// Answers a client that registers a password.
    ///
    /// # Errors
    /// When the request is not one of OPAQUE.
    pub fn start_signup(
        &self,
        org: &OrgName,
        user: &UserName,
        request: &[u8],
    ) -> Result<Bytes, Refusal> {
        let request = RegistrationRequest::deserialize(request).map_err(|_| malformed())?;
        let id = credential_identifier(org, user);
        let started = ServerRegistration::<PasswordSuite>::start(&self.setup, request, &id)
            .map_err(|_| malformed())?;
        Ok(Bytes::copy_from_slice(&started.message.serialize()))
    }

    /// The registration record to store, from the client's last message.
    ///
    /// # Errors
    /// When the message is not one of OPAQUE.
    pub fn registration(upload: &[u8]) -> Result<Bytes, Refusal> {
        let upload = RegistrationUpload::<PasswordSuite>::deserialize(upload);
        let record = ServerRegistration::finish(upload.map_err(|_| malformed())?);
        Ok(Bytes::copy_from_slice(&record.serialize()))
    }

    /// Answers a client that wants to log in: the sealed login in progress and
    /// OPAQUE's response. Without a registration the answer looks the same.
    ///
    /// # Errors
    /// When the request is not one of OPAQUE.
    pub fn start_login(
        &self,
        (org, user): (&OrgName, &UserName),
        registration: Option<&[u8]>,
        request: &[u8],
        now_ms: i64,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Bytes, Bytes), Refusal> {
        let registration = registration
            .map(ServerRegistration::deserialize)
            .transpose()
            .map_err(|_| Refusal::unavailable("a stored registration does not read"))?;
        let request = CredentialRequest::deserialize(request).map_err(|_| malformed())?;
        let started = ServerLogin::<PasswordSuite>::start(
            rng,
            &self.setup,
            registration,
            request,
            &credential_identifier(org, user),
            parameters(),
        )
        .map_err(|_| malformed())?;
        let login = LoginInProgress {
            org: org.to_string(),
            user: user.to_string(),
            expires_ms: now_ms.saturating_add(LOGIN_MS),
            state: started.state.serialize().to_vec(),
        };
        let response = Bytes::copy_from_slice(&started.message.serialize());
        Ok((self.seal(login, rng)?, response))
    }

    /// Who has proven their password.
    ///
    /// # Errors
    /// [`Refusal::WrongPassword`], whatever the reason.
    pub fn finish_login(
        &self,
        login: &[u8],
        finalization: &[u8],
        now_ms: i64,
    ) -> Result<(OrgName, UserName), Refusal> {
        let wrong = || Refusal::WrongPassword;
        let login = self.open(login).ok_or_else(wrong)?;
        if now_ms > login.expires_ms {
            return Err(wrong());
        }
        let state = Zeroizing::new(login.state);
        let state = ServerLogin::<PasswordSuite>::deserialize(&state).map_err(|_| wrong())?;
        let finalization =
            CredentialFinalization::deserialize(finalization).map_err(|_| wrong())?;
        state
            .finish(finalization, parameters())
            .map_err(|_| wrong())?;
        Ok((
            login.org.parse().map_err(|_| wrong())?,
            login.user.parse().map_err(|_| wrong())?,
        ))
    }

    fn seal(&self, login: LoginInProgress, rng: &mut impl RngCore) -> Result<Bytes, Refusal> {
        let plaintext = Zeroizing::new(login.encode_to_vec());
        drop(Zeroizing::new(login.state));
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let payload = Payload {
            msg: &plaintext,
            aad: TICKET_LABEL,
        };
        let sealed = self
            .tickets
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| Refusal::unavailable("a ticket cannot be sealed"))?;
        Ok([&nonce[..], &sealed].concat().into())
    }

    fn open(&self, ticket: &[u8]) -> Option<LoginInProgress> {
        if ticket.len() > TICKET_MAX {
            return None;
        }
        let (nonce, sealed) = ticket.split_at_checked(NONCE)?;
        let payload = Payload {
            msg: sealed,
            aad: TICKET_LABEL,
        };
        let plaintext = self.tickets.decrypt(Nonce::from_slice(nonce), payload);
        LoginInProgress::decode(Zeroizing::new(plaintext.ok()?).as_slice()).ok()
    }
}

/// What the gateway must know again at the second call of a login.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct LoginInProgress {
    #[prost(string, tag = "1")]
    org: String,
    #[prost(string, tag = "2")]
    user: String,
    #[prost(int64, tag = "3")]
    expires_ms: i64,
    /// OPAQUE's own state; a secret.
    #[prost(bytes = "vec", tag = "4")]
    state: Vec<u8>,
}

impl std::fmt::Debug for LoginInProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginInProgress(..)")
    }
}

fn parameters() -> ServerLoginParameters<'static, 'static> {
    ServerLoginParameters {
        context: Some(CONTEXT),
        ..Default::default()
    }
}

fn malformed() -> Refusal {
    Refusal::malformed("password message")
}

#[cfg(test)]
mod tests {
    use opaque_ke::{
        ClientLogin, ClientLoginFinishParameters, ClientRegistration,
        ClientRegistrationFinishParameters, CredentialResponse, Identifiers, RegistrationResponse,
    };
    use proptest::prelude::*;
    use rand::rngs::OsRng;

    use super::*;

    fn alice() -> (OrgName, UserName) {
        ("acme".parse().unwrap(), "alice".parse().unwrap())
    }

    fn sign_up(passwords: &Passwords, password: &[u8]) -> Bytes {
        let (org, user) = alice();
        let start = ClientRegistration::<PasswordSuite>::start(&mut OsRng, password).unwrap();
        let answer = passwords
            .start_signup(&org, &user, &start.message.serialize())
            .unwrap();
        let finish = start.state.finish(
            &mut OsRng,
            password,
            RegistrationResponse::deserialize(&answer).unwrap(),
            ClientRegistrationFinishParameters::default(),
        );
        Passwords::registration(&finish.unwrap().message.serialize()).unwrap()
    }

    /// The login in progress and the client's last message; `None` when the
    /// client itself sees that the password is wrong.
    fn log_in(
        passwords: &Passwords,
        registration: Option<&[u8]>,
        password: &[u8],
    ) -> (Bytes, usize, Option<Vec<u8>>) {
        let (org, user) = alice();
        let start = ClientLogin::<PasswordSuite>::start(&mut OsRng, password).unwrap();
        let request = start.message.serialize();
        let (login, response) = passwords
            .start_login((&org, &user), registration, &request, 0, &mut OsRng)
            .unwrap();
        let finish = start.state.finish(
            &mut OsRng,
            password,
            CredentialResponse::deserialize(&response).unwrap(),
            ClientLoginFinishParameters::new(Some(CONTEXT), Identifiers::default(), None),
        );
        let finalization = finish.ok().map(|done| done.message.serialize().to_vec());
        (login, response.len(), finalization)
    }

    #[test]
    fn the_right_password_logs_in_even_at_another_gateway() {
        let passwords = Passwords::generate(&mut OsRng);
        let record = sign_up(&passwords, b"correct horse");
        let (login, _, finalization) = log_in(&passwords, Some(&record), b"correct horse");
        let other = Passwords::from_text(&passwords.to_text()).unwrap();
        let who = other.finish_login(&login, &finalization.unwrap(), LOGIN_MS);
        assert_eq!(who, Ok(alice()));
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_look_the_same() {
        let passwords = Passwords::generate(&mut OsRng);
        let record = sign_up(&passwords, b"correct horse");
        let (wrong, wrong_length, none) = log_in(&passwords, Some(&record), b"battery staple");
        assert_eq!(none, None);
        let (unknown, unknown_length, none) = log_in(&passwords, None, b"correct horse");
        assert_eq!(none, None);
        assert_eq!(wrong_length, unknown_length);
        assert_eq!(wrong.len(), unknown.len());
        for login in [wrong, unknown] {
            let refused = passwords.finish_login(&login, &[7; 64], 0);
            assert_eq!(refused, Err(Refusal::WrongPassword));
        }
    }

    #[test]
    fn a_login_ends_after_a_minute() {
        let passwords = Passwords::generate(&mut OsRng);
        let record = sign_up(&passwords, b"correct horse");
        let (login, _, finalization) = log_in(&passwords, Some(&record), b"correct horse");
        let late = passwords.finish_login(&login, &finalization.unwrap(), LOGIN_MS + 1);
        assert_eq!(late, Err(Refusal::WrongPassword));
    }

    #[test]
    fn a_login_of_another_server_or_a_changed_one_is_refused() {
        let passwords = Passwords::generate(&mut OsRng);
        let record = sign_up(&passwords, b"correct horse");
        let (login, _, finalization) = log_in(&passwords, Some(&record), b"correct horse");
        let finalization = finalization.unwrap();
        let refused = Err(Refusal::WrongPassword);
        let other = Passwords::generate(&mut OsRng);
        assert_eq!(other.finish_login(&login, &finalization, 0), refused);
        for at in 0..login.len() {
            let mut changed = login.to_vec();
            changed[at] ^= 1;
            assert_eq!(passwords.finish_login(&changed, &finalization, 0), refused);
        }
    }

    #[test]
    fn a_damaged_set_up_is_noticed() {
        let text = Passwords::generate(&mut OsRng).to_text();
        assert!(Passwords::from_text(&text[2..]).is_err());
        assert!(Passwords::from_text("").is_err());
        assert!(Passwords::from_text("zz").is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let passwords = Passwords::generate(&mut OsRng);
            let (org, user) = alice();
            let signup = passwords.start_signup(&org, &user, &bytes);
            // The first 32 bytes may happen to be a group element.
            prop_assert!(bytes.len() >= 32 || signup.is_err());
            prop_assert!(
                passwords.finish_login(&bytes, &bytes, 0) == Err(Refusal::WrongPassword)
            );
        }
    }
}
