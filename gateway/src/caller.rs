//! Who makes a call, found out before anything else is looked at.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use sotto_jwt_accounts::directory::{Actor, By, State, UserStatus};
use sotto_jwt_accounts::policy::{Asking, Proven};
use sotto_proto::{DeviceId, UserName, limits};

use crate::gateway::Gateway;
use crate::org::Org;
use crate::proofs::Proofs;
use crate::refusal::Refusal;
use crate::sessions::{Opened, Token};

/// Longest body of somebody who is not logged in, in bytes.
const ANYONE_BODY: usize = 64 * 1024;
/// Longest `Authorization` header that is looked at.
const AUTHORIZATION_MAX: usize = 128;

/// A kind of caller.
pub trait Caller: Sized + Send {
    /// Whether it takes a session.
    const SESSION: bool;
    /// Longest request body, in bytes, unless a call says otherwise.
    const BODY: usize;

    /// Who asks.
    fn identify(
        gateway: &Gateway,
        headers: &HeaderMap,
        address: IpAddr,
        cost: u32,
    ) -> impl Future<Output = Result<Self, Refusal>> + Send;
}

/// Somebody unknown, within the limit of their address.
#[derive(Debug, Clone, Copy)]
pub struct Anyone;

impl Caller for Anyone {
    const SESSION: bool = false;
    const BODY: usize = ANYONE_BODY;

    async fn identify(
        gateway: &Gateway,
        _: &HeaderMap,
        address: IpAddr,
        cost: u32,
    ) -> Result<Self, Refusal> {
        if gateway.allow(address, cost) {
            Ok(Self)
        } else {
            let advice = "too many calls from this network: wait a minute and try again";
            Err(Refusal::TooMany(advice.to_owned()))
        }
    }
}

/// A user who has proven the password or a device.
#[derive(Clone)]
pub struct LoggedIn {
    /// The user's org.
    pub org: Arc<Org>,
    /// The user, who is in the directory.
    pub user: UserName,
    /// What opened the session.
    pub opened: Opened,
}

impl Caller for LoggedIn {
    const SESSION: bool = true;
    const BODY: usize = limits::HTTP_BODY;

    async fn identify(
        gateway: &Gateway,
        headers: &HeaderMap,
        _: IpAddr,
        _: u32,
    ) -> Result<Self, Refusal> {
        let token = bearer(headers).ok_or(Refusal::SessionExpired)?;
        let mut orgs = gateway.orgs();
        let org = orgs
            .find(|org| token.is_of(org.name()))
            .ok_or(Refusal::SessionExpired)?;
        let (user, opened) = token.find(org, gateway.now_ms()).await?;
        check_standing(org, &user, opened).await?;
        Ok(Self {
            org: org.clone(),
            user,
            opened,
        })
    }
}

/// A caller, and where the call came from.
pub struct Located<C> {
    /// Who.
    pub caller: C,
    /// The address.
    pub address: IpAddr,
}

impl<C: Caller> Caller for Located<C> {
    const SESSION: bool = C::SESSION;
    const BODY: usize = C::BODY;

    async fn identify(
        gateway: &Gateway,
        headers: &HeaderMap,
        address: IpAddr,
        cost: u32,
    ) -> Result<Self, Refusal> {
        let caller = C::identify(gateway, headers, address, cost).await?;
        Ok(Self { caller, address })
    }
}

/// Fails when the user, or the device, is not in the directory any more.
async fn check_standing(org: &Org, user: &UserName, opened: Opened) -> Result<(), Refusal> {
    let is_theirs = |state: &State| match opened {
        Opened::Device(device) => state
            .device(device)
            .is_some_and(|found| found.certificate.user == *user),
        Opened::Password { .. } => state
            .user(user)
            .is_some_and(|found| found.status == UserStatus::Active),
    };
    let found = org.state_where(is_theirs).await?;
    found.map(drop).ok_or(Refusal::SessionExpired)
}

/// One of a user's enrolled devices.
#[derive(Clone)]
pub struct EnrolledDevice {
    /// The user's org.
    pub org: Arc<Org>,
    /// The user.
    pub user: UserName,
    /// The device, which is in the directory and not revoked.
    pub device: DeviceId,
    /// What the user has proven on it.
    pub proven: Proven,
}

impl EnrolledDevice {
    /// The device for which somebody acts who holds a ticket of it.
    ///
    /// # Errors
    /// [`Refusal::SessionExpired`] when it is not enrolled any more.
    pub async fn of(org: &Arc<Org>, user: UserName, device: DeviceId) -> Result<Self, Refusal> {
        check_standing(org, &user, Opened::Device(device)).await?;
        Self::with_proofs(Arc::clone(org), user, device).await
    }

    async fn with_proofs(org: Arc<Org>, user: UserName, device: DeviceId) -> Result<Self, Refusal> {
        let proofs = Proofs::of(&org, &user, device).await?;
        let proven = proofs.proven(&*org.state()?, &user);
        Ok(Self {
            org,
            user,
            device,
            proven,
        })
    }

    /// The caller, as the directory wants to know.
    pub fn by(&self) -> By {
        By {
            actor: Actor::User(self.user.clone()),
            proven: self.proven.clone(),
        }
    }

    /// The caller, as the policy wants to know.
    pub fn asking(&self, now_ms: i64) -> Asking<'_> {
        Asking {
            user: &self.user,
            proven: &self.proven,
            now_ms,
        }
    }
}

impl Caller for EnrolledDevice {
    const SESSION: bool = true;
    const BODY: usize = limits::HTTP_BODY;

    async fn identify(
        gateway: &Gateway,
        headers: &HeaderMap,
        address: IpAddr,
        cost: u32,
    ) -> Result<Self, Refusal> {
        let LoggedIn { org, user, opened } =
            LoggedIn::identify(gateway, headers, address, cost).await?;
        let Opened::Device(device) = opened else {
            let advice = "a login by password can only enrol a device: enrol this device first";
            return Err(Refusal::Denied(advice.to_owned()));
        };
        Self::with_proofs(org, user, device).await
    }
}

fn bearer(headers: &HeaderMap) -> Option<Token> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    if value.len() > AUTHORIZATION_MAX {
        return None;
    }
    let text = value.strip_prefix(b"Bearer ")?;
    let decoded = BASE64URL_NOPAD
        .decode(text)
        .or_else(|_| BASE64URL.decode(text));
    Token::new(&zeroize::Zeroizing::new(decoded.ok()?))
}
