//! A person with devices, as a real client would be: OPAQUE, certificates,
//! proofs.

use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use nkeys::KeyPair;
use opaque_ke::{
    ClientLogin, ClientLoginFinishParameters, ClientLoginStartResult, ClientRegistration,
    ClientRegistrationFinishParameters, CredentialResponse, Identifiers, RegistrationResponse,
};
use rand::rngs::OsRng;
use sotto_gateway::clock::Clock;
use sotto_proto::api::Call;
use sotto_proto::password::{CONTEXT, PasswordSuite};
use sotto_proto::signed::{self, DeviceCertificate};
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::wire::{
    ApiError, DeviceEnrol, DirectoryChange, DirectoryChanged, DirectoryCommand, FactorProven,
    InviteCreate, LoginFinish, LoginFinished, LoginStart, LoginStarted, PasswordProve,
    PasswordProveStart, Role, RoomCreate, RoomGrant, Session, SessionOpen, SessionStatement,
    Signed, SignupFinish, SignupStart,
};
use sotto_proto::{DeviceId, InviteToken, OrgName, RoomId, UserName, limits, wire};

use super::server::Server;

pub const PASSWORD: &str = "correct horse battery staple";

/// A device's own keys.
pub struct Device {
    pub id: DeviceId,
    pub signature_key: SigningKey,
    pub nats: KeyPair,
}

impl Device {
    pub fn new() -> Self {
        Self {
            id: DeviceId::random(&mut OsRng),
            signature_key: SigningKey::generate(&mut OsRng),
            nats: KeyPair::new_user(),
        }
    }
}

/// A user, with the device that is in use.
pub struct Person {
    pub org: OrgName,
    pub user: UserName,
    pub identity: SigningKey,
    pub device: Device,
    pub token: Bytes,
}

impl Person {
    /// Signs up with an invite and [`PASSWORD`].
    pub async fn sign_up(
        server: &Server,
        org: &str,
        user: &str,
        invite: &InviteToken,
    ) -> Result<Self, ApiError> {
        let mut person = Self::new(org, user);
        let finish = person.signup(server, invite, PASSWORD).await?;
        person.token = server.call(None, &finish).await?.token;
        Ok(person)
    }

    /// The first owner of an org.
    pub async fn first(server: &Server, org: &str, user: &str) -> Self {
        let invite = server.first_token(org);
        Self::sign_up(server, org, user, &invite).await.unwrap()
    }

    /// Somebody whom this person invites to the project `field`.
    pub async fn invite_new(&self, server: &Server, user: &str) -> Self {
        let invite = self.invite(server, "field").await;
        Self::sign_up(server, self.org.as_str(), user, &invite)
            .await
            .unwrap()
    }

    /// Nobody yet.
    pub fn new(org: &str, user: &str) -> Self {
        Self {
            org: org.parse().unwrap(),
            user: user.parse().unwrap(),
            identity: SigningKey::generate(&mut OsRng),
            device: Device::new(),
            token: Bytes::new(),
        }
    }

    /// The first call of a sign-up; what the second would be.
    pub async fn signup(
        &self,
        server: &Server,
        invite: &InviteToken,
        password: &str,
    ) -> Result<SignupFinish, ApiError> {
        let password = password.as_bytes();
        let start = ClientRegistration::<PasswordSuite>::start(&mut OsRng, password).unwrap();
        let call = SignupStart {
            org: self.org.to_string(),
            invite: invite.to_bytes(),
            user: self.user.to_string(),
            opaque_request: Bytes::copy_from_slice(&start.message.serialize()),
        };
        let started = server.call(None, &call).await?;
        let response = RegistrationResponse::deserialize(&started.opaque_response).unwrap();
        let parameters = ClientRegistrationFinishParameters::default();
        let finish = start
            .state
            .finish(&mut OsRng, password, response, parameters)
            .unwrap();
        Ok(SignupFinish {
            org: self.org.to_string(),
            invite: invite.to_bytes(),
            user: self.user.to_string(),
            opaque_upload: Bytes::copy_from_slice(&finish.message.serialize()),
            identity_backup: self.backup(),
            certificate: Some(self.certificate(server, &self.device)),
        })
    }

    /// Stands for the sealed identity key.
    pub fn backup(&self) -> Bytes {
        format!("backup of {}", self.user).into()
    }

    /// What this person's identity key says of a device.
    pub fn certificate(&self, server: &Server, device: &Device) -> Signed {
        let now_ms = server.clock.now_ms();
        DeviceCertificate {
            org: self.org.clone(),
            user: self.user.clone(),
            device: device.id,
            identity_key: self.identity.verifying_key(),
            signature_key: device.signature_key.verifying_key(),
            nats_key: device.nats.public_key(),
            not_before_ms: now_ms,
            not_after_ms: now_ms + limits::DEVICE_CERTIFICATE.as_millis() as i64,
        }
        .sign(&self.identity)
    }

    /// One call with this person's session.
    pub async fn call<C: Call>(&self, server: &Server, call: &C) -> Result<C::Answer, ApiError> {
        server.call(Some(&self.token), call).await
    }

    /// An invite to a project, or with "" to the org.
    pub async fn invite(&self, server: &Server, project: &str) -> InviteToken {
        let call = InviteCreate {
            role: Role::User.into(),
            project: project.to_owned(),
            valid_seconds: 600,
        };
        let created = self.call(server, &call).await.unwrap();
        InviteToken::try_from(&created.invite).unwrap()
    }

    /// Enrols one more device; the session of that one.
    pub async fn enrol(&self, server: &Server, device: &Device) -> Result<Session, ApiError> {
        let certificate = Some(self.certificate(server, device));
        self.call(server, &DeviceEnrol { certificate }).await
    }

    /// A proof of the device's key, `off` from the server's time.
    pub fn proof(&self, server: &Server, off_s: i64) -> SessionStatement {
        SessionStatement {
            org: self.org.to_string(),
            server_name: "test".to_owned(),
            device: self.device.id.to_bytes(),
            now_ms: server.clock.now_ms() + off_s * 1_000,
        }
    }

    /// Opens a session by proof.
    pub async fn open_session(
        &self,
        server: &Server,
        proof: &SessionStatement,
    ) -> Result<Session, ApiError> {
        let statement = Some(signed::sign(proof, &self.device.signature_key));
        server.call(None, &SessionOpen { statement }).await
    }

    /// Proves the password of `of` on this person's device.
    pub async fn prove_password(
        &self,
        server: &Server,
        of: &UserName,
    ) -> Result<FactorProven, ApiError> {
        let (started, finalization) = if *of == self.user {
            self.start_proof(server, PASSWORD).await?
        } else {
            start_login(server, (self.org.as_str(), of.as_str()), PASSWORD).await?
        };
        let call = PasswordProve {
            login: started.login,
            opaque_finalization: finalization.unwrap(),
        };
        self.call(server, &call).await
    }

    /// Begins to prove a password on this person's device; `None` when the
    /// client itself sees that it is wrong.
    pub async fn start_proof(
        &self,
        server: &Server,
        password: &str,
    ) -> Result<(LoginStarted, Option<Bytes>), ApiError> {
        let start = opaque_start(password);
        let call = PasswordProveStart {
            opaque_request: request(&start),
        };
        let started = self.call(server, &call).await?;
        let finalization = opaque_finish(start, &started, password);
        Ok((started, finalization))
    }

    /// Has the directory carry out commands.
    pub async fn change(
        &self,
        server: &Server,
        asks: impl IntoIterator<Item = Ask>,
    ) -> Result<DirectoryChanged, ApiError> {
        let asks = asks.into_iter();
        let call = DirectoryChange {
            commands: asks
                .map(|ask| DirectoryCommand { ask: Some(ask) })
                .collect(),
            dry_run: false,
        };
        self.call(server, &call).await
    }

    /// The same person on one more device.
    pub async fn on_another_device(&self, server: &Server) -> Self {
        let device = Device::new();
        let token = self.enrol(server, &device).await.unwrap().token;
        Self {
            org: self.org.clone(),
            user: self.user.clone(),
            identity: self.identity.clone(),
            device,
            token,
        }
    }

    /// A new room in `field`.
    pub async fn create_room(&self, server: &Server, join_rule: wire::JoinRule) -> RoomId {
        let room = RoomId::random(&mut OsRng);
        let call = RoomCreate {
            project: "field".to_owned(),
            room: room.to_bytes(),
            join_rule: join_rule.into(),
        };
        self.call(server, &call).await.unwrap();
        room
    }

    /// Gives somebody a role in a room.
    pub async fn grant(
        &self,
        server: &Server,
        room: RoomId,
        to: &Person,
        role: Role,
    ) -> Result<wire::RoomGranted, ApiError> {
        let call = RoomGrant {
            room: room.to_bytes(),
            user: to.user.to_string(),
            role: role.into(),
        };
        self.call(server, &call).await
    }
}

/// How far a login got.
#[derive(Debug)]
pub enum Login {
    /// The client itself saw that the password is wrong.
    WrongAtClient(LoginStarted),
    /// The gateway answered the last message.
    Finished(Result<LoginFinished, ApiError>),
}

/// Logs in by password; waits `between` the two calls by the server's clock.
pub async fn log_in(
    server: &Server,
    (org, user): (&str, &str),
    password: &str,
    between: Duration,
) -> Login {
    let (started, finalization) = start_login(server, (org, user), password).await.unwrap();
    let Some(opaque_finalization) = finalization else {
        return Login::WrongAtClient(started);
    };
    server.clock.advance(between);
    let call = LoginFinish {
        login: started.login,
        opaque_finalization,
    };
    Login::Finished(server.call(None, &call).await)
}

/// The first call of a login, and the client's last message if the password is
/// right.
pub async fn start_login(
    server: &Server,
    (org, user): (&str, &str),
    password: &str,
) -> Result<(LoginStarted, Option<Bytes>), ApiError> {
    let start = opaque_start(password);
    let call = LoginStart {
        org: org.to_owned(),
        user: user.to_owned(),
        opaque_request: request(&start),
    };
    let started = server.call(None, &call).await?;
    let finalization = opaque_finish(start, &started, password);
    Ok((started, finalization))
}

fn opaque_start(password: &str) -> ClientLoginStartResult<PasswordSuite> {
    ClientLogin::start(&mut OsRng, password.as_bytes()).unwrap()
}

fn request(start: &ClientLoginStartResult<PasswordSuite>) -> Bytes {
    Bytes::copy_from_slice(&start.message.serialize())
}

fn opaque_finish(
    start: ClientLoginStartResult<PasswordSuite>,
    started: &LoginStarted,
    password: &str,
) -> Option<Bytes> {
    let response = CredentialResponse::deserialize(&started.opaque_response).unwrap();
    let parameters = ClientLoginFinishParameters::new(Some(CONTEXT), Identifiers::default(), None);
    let finish = start
        .state
        .finish(&mut OsRng, password.as_bytes(), response, parameters);
    let finish = finish.ok()?;
    Some(Bytes::copy_from_slice(&finish.message.serialize()))
}
