//! An org with people in it, and their devices' connections.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures::StreamExt;
use prost::Message;
use rand::rngs::OsRng;
use sotto_jwt_accounts::directory::{
    Actor, Command, DirectoryWriter, Holder, InviteHash, Role, Scope, State,
};
use sotto_jwt_accounts::policy;
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{self, FetchFrame, FetchRequest, JoinRule};
use sotto_proto::{DeviceId, InviteToken, RoomAddress, RoomId, Subject, UserName, reply_prefix};
use sotto_service::tls;

use crate::server::{GATEWAY_SEED, PATIENCE, Server, now_ms, within};

/// The org of a [`Server`], written to as its gateway does.
pub struct Org<'a> {
    server: &'a Server,
    writer: DirectoryWriter,
}

/// A device of a user, with its keys.
pub struct Device {
    pub id: DeviceId,
    pub user: UserName,
    nkey: Arc<nkeys::KeyPair>,
}

impl<'a> Org<'a> {
    /// Founds the org; a relay must serve.
    pub async fn found(server: &'a Server) -> Self {
        let js = jetstream::new(server.gateway().await);
        let key = SigningKey::from_bytes(&GATEWAY_SEED);
        let gateway_key = key.verifying_key();
        let writer = DirectoryWriter::open(&js, 1, server.org(), key, None)
            .await
            .unwrap();
        let org = Self { server, writer };
        let found = Command::CreateOrg {
            org: server.org(),
            gateway_key,
        };
        org.append(&Actor::Gateway, found).await;
        let project = "field".parse().unwrap();
        org.append(&Actor::Gateway, Command::CreateProject { project })
            .await;
        org
    }

    /// Founds the org, with alice and a room of hers.
    pub async fn with_alice(server: &'a Server) -> (Self, Device, RoomAddress) {
        let org = Self::found(server).await;
        let alice = org.sign_up("alice").await;
        let room = org.room(&alice).await;
        (org, alice, room)
    }

    /// Signs up a user with one device; owners of the org may make rooms.
    pub async fn sign_up(&self, name: &str) -> Device {
        let user: UserName = name.parse().unwrap();
        let invite = InviteToken::random(&mut OsRng);
        let issue = Command::IssueInvite {
            invite: InviteHash::from(&invite),
            expires_ms: now_ms() + 60_000,
            scope: Scope::Org,
            role: Role::Owner,
            for_user: None,
            guest_until_ms: None,
        };
        self.append(&Actor::Gateway, issue).await;
        let identity = SigningKey::generate(&mut OsRng);
        let nkey = nkeys::KeyPair::new_user();
        let id = DeviceId::random(&mut OsRng);
        let certificate = DeviceCertificate {
            org: self.server.org(),
            user: user.clone(),
            device: id,
            identity_key: identity.verifying_key(),
            signature_key: SigningKey::generate(&mut OsRng).verifying_key(),
            nats_key: nkey.public_key(),
            not_before_ms: now_ms() - 1_000,
            not_after_ms: now_ms() + 3_600_000,
        };
        let enrol = Command::Enrol {
            invite: InviteHash::from(&invite),
            certificate: certificate.sign(&identity),
        };
        self.append(&Actor::User(user.clone()), enrol).await;
        Device {
            id,
            user,
            nkey: Arc::new(nkey),
        }
    }

    /// Makes a room that the user owns.
    pub async fn room(&self, owner: &Device) -> RoomAddress {
        let room = RoomId::random(&mut OsRng);
        let create = Command::CreateRoom {
            room,
            project: "field".parse().unwrap(),
            join_rule: JoinRule::Invite,
            shards: self.server.config.shards,
        };
        let state = self.append(&Actor::User(owner.user.clone()), create).await;
        state.room(room).unwrap().address.clone()
    }

    /// Gives somebody a role in a room.
    pub async fn admit(&self, user: &Device, room: &RoomAddress) {
        let grant = Command::GrantRole {
            holder: Holder::User(user.user.clone()),
            scope: Scope::Room(room.room),
            role: Role::User,
        };
        self.append(&Actor::Gateway, grant).await;
    }

    /// Connects as a device, with the grants that it has now.
    pub async fn connect(&self, device: &Device) -> Client {
        self.connect_having(device, &policy::Proven::none()).await
    }

    /// Connects as a device that has proven these factors.
    pub async fn connect_having(&self, device: &Device, proven: &policy::Proven) -> Client {
        let state = self.writer.log().state().unwrap();
        let access = policy::nats_access(&state, device.id, proven, now_ms()).unwrap();
        let signer = self.server.keys.account_signer(&self.server.org()).unwrap();
        let jwt = signer.device_jwt(&access, now_ms()).unwrap().jwt;
        let nkey = Arc::clone(&device.nkey);
        let sign = move |nonce: Vec<u8>| {
            let signature = nkey.sign(&nonce).map_err(async_nats::AuthError::new);
            async move { signature }
        };
        ConnectOptions::with_jwt(jwt, sign)
            .custom_inbox_prefix(reply_prefix(device.id))
            .tls_client_config(tls::client_config(&self.server.layout).unwrap())
            .tls_first()
            .connect(self.server.config.nats_url())
            .await
            .unwrap()
    }

    /// From now on reading a room takes a TOTP code.
    pub async fn gate(&self, room: &RoomAddress) {
        let demand = wire::Demand {
            actions: vec![wire::PolicyAction::Read.into()],
            factor: wire::Factor::Totp.into(),
            max_age_seconds: 3_600,
            ..wire::Demand::default()
        };
        let policy = wire::Policy {
            demands: vec![demand],
            cedar: String::new(),
        };
        let policy = policy::LevelPolicy::try_from(policy).unwrap();
        let gate = Command::SetPolicy {
            scope: Scope::Room(room.room),
            policy: Some(Arc::new(policy)),
        };
        self.append(&Actor::Gateway, gate).await;
    }

    /// Takes a device out of the directory; a connection that it has lives on.
    pub async fn revoke(&self, device: &Device) {
        let revoke = Command::RevokeDevice { device: device.id };
        self.append(&Actor::User(device.user.clone()), revoke).await;
    }

    async fn append(&self, actor: &Actor, command: Command) -> Arc<State> {
        let by = actor.clone().into();
        let appended = self.writer.append(&by, command, now_ms()).await;
        appended.unwrap().state
    }
}

/// Where this device submits what is to be stored under a subject.
pub fn submission(client: &Client, subject: &Subject) -> String {
    let inbox = client.new_inbox();
    let device = inbox.split('.').nth(1).unwrap();
    format!("in.{device}.{subject}")
}

/// Submits something and waits until it is stored; the sequence.
pub async fn store(client: &Client, subject: &Subject, payload: impl Into<Bytes>) -> u64 {
    let js = jetstream::new(client.clone());
    let ack = js
        .publish(submission(client, subject), payload.into())
        .await
        .unwrap();
    within(ack).await.unwrap().sequence
}

/// Asks the relay and collects the frames until the last.
pub async fn fetch(client: &Client, device: &Device, request: &FetchRequest) -> Vec<FetchFrame> {
    fetch_raw(client, device, request.encode_to_vec().into()).await
}

pub async fn fetch_raw(client: &Client, device: &Device, request: Bytes) -> Vec<FetchFrame> {
    let subject = Subject::Fetch(device.id);
    let answer = try_fetch(client, &subject, request, PATIENCE).await;
    answer.expect("the relay does not answer to the end")
}

/// As a device does while the server may be gone: none when no one hears, or
/// nothing comes for so long.
pub async fn try_fetch(
    client: &Client,
    subject: &Subject,
    request: Bytes,
    patience: Duration,
) -> Option<Vec<FetchFrame>> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client
        .publish_with_reply(subject.to_string(), inbox, request)
        .await
        .unwrap();
    let mut frames: Vec<FetchFrame> = Vec::new();
    loop {
        let answer = tokio::time::timeout(patience, answers.next())
            .await
            .ok()??;
        if answer.status.is_some() {
            return None;
        }
        assert!(answer.length <= sotto_proto::limits::NATS_MESSAGE);
        let frame = FetchFrame::decode(answer.payload).unwrap();
        assert_eq!(frame.part as usize, frames.len());
        let last = frame.last;
        frames.push(frame);
        if last {
            return Some(frames);
        }
    }
}
