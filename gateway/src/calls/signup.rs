//! Signing up with an invite, in two calls, and making invites.
//!
//! The account record is stored before the directory knows the user; only the
//! directory's event makes it count. Both calls may be repeated: an answer that
//! got lost on the way must not cost the invite.

use bytes::Bytes;
use sotto_jwt_accounts::directory::{
    self, Actor, By, Command, InviteHash, Scope, State, UserStatus,
};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{
    InviteCreate, InviteCreated, Session, Signed, SignupFinish, SignupStart, SignupStarted,
};
use sotto_proto::{InviteToken, UserName};

use crate::caller::{Anyone, EnrolledDevice};
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::org::Org;
use crate::passwords::Passwords;
use crate::proofs::{self, Which};
use crate::refusal::Refusal;
use crate::sessions::Opened;
use crate::{accounts, sessions};

/// Longest lifetime of an invite, in seconds.
const INVITE_SECONDS: u32 = 30 * 24 * 3_600;

impl Serve for SignupStart {
    type Caller = Anyone;
    const COST: u32 = 10;

    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<SignupStarted, Refusal> {
        let org = gateway.org(&self.org)?;
        let user: UserName = self.user.parse()?;
        check_invite(org, &self.invite, gateway.now_ms()).await?;
        let state = org.state()?;
        let taken = state.user(&user);
        if taken.is_some_and(|user| user.status != UserStatus::Added) {
            return Err(Refusal::NameTaken);
        }
        let passwords = gateway.passwords();
        let opaque_response = passwords.start_signup(org.name(), &user, &self.opaque_request)?;
        Ok(SignupStarted { opaque_response })
    }
}

impl Serve for SignupFinish {
    type Caller = Anyone;
    const COST: u32 = 10;

    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<Session, Refusal> {
        let org = gateway.org(&self.org)?;
        let user: UserName = self.user.parse()?;
        let signed = self.certificate.unwrap_or_default();
        let certificate = DeviceCertificate::verify(&signed).map_err(Refusal::malformed)?;
        if certificate.org != *org.name() || certificate.user != user {
            return Err(Refusal::malformed("name in the certificate"));
        }
        let registration = Passwords::registration(&self.opaque_upload)?;
        let record = accounts::record(registration, self.identity_backup)?;

        let identity_key = &certificate.identity_key;
        let now_ms = gateway.now_ms();
        let state = org.state()?;
        if is_enrolled(&state, &certificate, &signed) {
            // Others know the certificate, so alone it proves nothing.
            if !accounts::is_stored(org, &user, identity_key, &record).await? {
                return Err(Refusal::NameTaken);
            }
        } else {
            let by = By::from(Actor::User(user.clone()));
            let enrol = Command::Enrol {
                invite: check_invite(org, &self.invite, now_ms).await?,
                certificate: signed,
            };
            // What the directory would refuse must leave no record behind.
            directory::decide(&*org.state()?, &by, enrol.clone(), now_ms)?;
            accounts::store(org, &user, identity_key, &record).await?;
            org.append(&by, enrol, now_ms).await?;
            // Who registers a password knows it.
            proofs::remember(org, certificate.device, Which::Password, now_ms).await?;
        }
        sessions::open(org, &user, Opened::Device(certificate.device), now_ms).await
    }
}

fn is_enrolled(state: &State, certificate: &DeviceCertificate, signed: &Signed) -> bool {
    let device = state.device(certificate.device);
    device.is_some_and(|device| device.signed == *signed)
}

/// Whether an invite could be used now. Only the directory can say that it was.
async fn check_invite(org: &Org, invite: &Bytes, now_ms: i64) -> Result<InviteHash, Refusal> {
    let invite = InviteToken::try_from(invite).map_err(|_| Refusal::InviteInvalid)?;
    let hash = InviteHash::from(&invite);
    let state = org.state_where(|state| state.invite(&hash).is_some());
    let state = state.await?.ok_or(Refusal::InviteInvalid)?;
    match state.invite(&hash) {
        Some(issued) if now_ms <= issued.expires_ms => Ok(hash),
        Some(_) => Err(Refusal::InviteExpired),
        None => Err(Refusal::InviteInvalid),
    }
}

impl Serve for InviteCreate {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<InviteCreated, Refusal> {
        if !(1..=INVITE_SECONDS).contains(&self.valid_seconds) {
            return Err(Refusal::malformed("lifetime of the invite"));
        }
        let role = self.role().try_into()?;
        let scope = match self.project.as_str() {
            "" => Scope::Org,
            project => Scope::Project(project.parse()?),
        };
        let now_ms = gateway.now_ms();
        let invite = InviteToken::random(&mut rand::rngs::OsRng);
        let expires_ms = now_ms.saturating_add(i64::from(self.valid_seconds) * 1_000);
        let issue = Command::IssueInvite {
            invite: InviteHash::from(&invite),
            expires_ms,
            scope,
            role,
            for_user: None,
            guest_until_ms: None,
        };
        caller.org.append(&caller.by(), issue, now_ms).await?;
        Ok(InviteCreated {
            invite: invite.to_bytes(),
            expires_ms,
        })
    }
}
