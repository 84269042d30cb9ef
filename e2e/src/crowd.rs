//! People who are there only so that a room is large: each with several
//! devices, in memory, which do no more than what lets others add them.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use prost::Message;
use rand::rngs::OsRng;
use sotto_client_core::account::Account;
use sotto_client_core::engine::Engine;
use sotto_client_core::io::{Command, Grants, Input, Output, Timestamp};
use sotto_client_core::link::{NewDevice, OldDevice};
use sotto_client_core::pace::Pace;
use sotto_client_core::signup;
use sotto_client_core::vault::Vault;
use sotto_client_native::clock::Clock;
use sotto_client_native::gateway::Gateway;
use sotto_client_native::session::Session;
use sotto_proto::api::Call;
use sotto_proto::{InviteLink, InviteToken, RoomId, UserName, limits, wire};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::person::Person;
use crate::session::online;

/// Between two who sign up: the gateway lets one address do so much.
const APART: Duration = Duration::from_millis(1_200);

/// Lets `owner` invite so many devices into the room, of as few new users as
/// may have them.
///
/// # Errors
/// When the server or the owner's device refuses anything.
pub fn fill(owner: &Person, room: &str, devices: usize) -> anyhow::Result<()> {
    let room: RoomId = room.parse()?;
    online(owner, async |session| {
        let users = enrol(session, devices).await?;
        for user in users {
            let role = wire::Role::User;
            let invite = Command::Invite { room, user, role };
            session.command(invite).await.done().await?;
        }
        Ok(session.settled().await?)
    })
}

/// Signs users up until they have so many devices in all.
async fn enrol(owner: &Session, devices: usize) -> anyhow::Result<Vec<UserName>> {
    let address = owner.look(|engine, _| engine.account().gateway.clone());
    let gateway = Gateway::new(address.await?, Clock::default())?;
    // They keep nothing, so that one key will do.
    let (vault, _) = Vault::create("passphrase", &mut OsRng)?;
    let mut signing_up = JoinSet::new();
    let mut users = Vec::new();
    for first in (0..devices).step_by(limits::DEVICES_PER_USER) {
        let user: UserName = format!("one-of-many-{first}").parse()?;
        let request = wire::InviteCreate {
            role: wire::Role::User.into(),
            project: "field".to_owned(),
            valid_seconds: 3_600,
        };
        let created = owner.call(&request).await?;
        let link = InviteLink {
            gateway: gateway.address().clone(),
            invite: InviteToken::try_from(&created.invite)?,
        };
        let own = (devices - first).min(limits::DEVICES_PER_USER);
        let (gateway, vault) = (gateway.clone(), vault.clone());
        users.push(user.clone());
        signing_up.spawn(async move { sign_up(&gateway, &link, user, own, &vault).await });
        sleep(APART).await;
    }
    while let Some(signed_up) = signing_up.join_next().await {
        signed_up??;
    }
    Ok(users)
}

async fn sign_up(
    gateway: &Gateway,
    link: &InviteLink,
    user: UserName,
    devices: usize,
    vault: &Vault,
) -> anyhow::Result<()> {
    let org = link.gateway.org.to_string();
    let server = gateway.call(&wire::ServerInfoRequest { org }, None).await?;
    let now = Timestamp(server.now_ms);
    let (starting, start) = signup::start(link, user, "password", &mut OsRng)?;
    let started = gateway.call(&start, None).await?;
    let (account, finish) = starting.finish(&started, &server, now, &mut OsRng)?;
    let session = gateway.call(&finish, None).await?;
    for _ in 1..devices {
        let (new, link) = NewDevice::start(account.gateway.clone(), &mut OsRng)?;
        let (old, commitment) = OldDevice::start(&link, &account)?;
        let (new, nonce) = new.answer(&commitment)?;
        let (old, reveal, _) = old.nonce(&nonce, &account, now)?;
        let (new, code) = new.reveal(&reveal)?;
        let (enrolment, payload) = old.confirm(&code.to_string())?;
        let linked_session = gateway.call(&enrolment, Some(&session)).await?;
        let linked = new.payload(&payload, &server)?;
        can_be_added(gateway, linked, &linked_session, vault).await?;
    }
    can_be_added(gateway, account, &session, vault).await
}

/// Gives the gateway the key packages of a device.
async fn can_be_added(
    gateway: &Gateway,
    account: Account,
    session: &wire::Session,
    vault: &Vault,
) -> anyhow::Result<()> {
    let mut engine = Engine::create(account, vault.clone(), &mut OsRng)?;
    let now = Clock::default().now();
    let online = Input::Online {
        grants: Grants::default(),
        pace: Pace::ORDINARY,
    };
    engine.handle(online, now, &mut OsRng)?;
    let asks = |engine: &mut Engine, wanted: &str| {
        let outputs = std::iter::from_fn(|| engine.poll_output());
        let mut calls = outputs.filter_map(|output| match output {
            Output::Call { id, path, body } if path == wanted => Some((id, body)),
            _ => None,
        });
        calls.next().with_context(|| format!("no call of {wanted}"))
    };
    let (id, _) = asks(&mut engine, wire::MeRequest::PATH)?;
    // As if few were left: fewer are made than of a device that has none.
    let me = wire::Me {
        key_packages: limits::KEY_PACKAGES / 2 - 1,
        ..wire::Me::default()
    };
    let answer: Result<Bytes, _> = Ok(me.encode_to_vec().into());
    engine.handle(Input::Answered { id, answer }, now, &mut OsRng)?;
    let path = wire::KeyPackagesUpload::PATH;
    let (_, body) = asks(&mut engine, path)?;
    ensure!(!body.is_empty(), "no key packages were made");
    gateway.post(path, body, Some(session)).await?;
    Ok(())
}
