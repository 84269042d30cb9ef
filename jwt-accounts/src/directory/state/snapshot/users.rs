//! Reads the record of a user, of which a snapshot is mostly made. Needs nothing
//! of the other records, so that it can be done beside putting them together.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use prost::Message;
use sotto_proto::signed::{self, DeviceCertificate, SignedError};
use sotto_proto::wire::{self, Signed};
use sotto_proto::{DeviceId, FactorId, UserName};

use super::super::UserStatus;
use super::super::users::{Device, User};
use super::record::{RoleRecord, UserRecord};
use crate::directory::wire::{Malformed, unless_empty};
use crate::directory::{Role, Scope};
use crate::policy::Factor;

/// The user and their name.
pub(super) fn user(record: UserRecord) -> Result<(UserName, User), Malformed> {
    let name: UserName = record.user.parse()?;
    let mut user = User::new(match record.status {
        0 => UserStatus::Added,
        1 => UserStatus::Active,
        2 => UserStatus::Revoked,
        _ => return Err(Malformed::Part("status")),
    });
    if !record.identity_key.is_empty() {
        user.identity_key = Some(signed::public_key(&record.identity_key)?);
    }
    user.title = unless_empty(&record.title)?;
    user.guest_until_ms = record.guest_until_ms;
    user.external_id = unless_empty(&record.external_id)?;
    user.roles = roles(record.roles)?;
    for group in record.groups {
        user.groups.insert(group.parse()?);
    }
    for signed in record.devices {
        user.insert_device(device(&name, user.identity_key.as_ref(), signed)?);
    }
    for by in record.introductions {
        user.introductions.push(by.parse()?);
    }
    for factor in record.factors {
        let kind = Factor::try_from(factor.factor())?;
        user.factors.insert(FactorId::try_from(&factor.id)?, kind);
    }
    Ok((name, user))
}

/// Signatures were checked when the device came into the log.
fn device(
    user: &UserName,
    identity_key: Option<&VerifyingKey>,
    signed: Signed,
) -> Result<Device, Malformed> {
    let statement = wire::DeviceCertificate::decode(signed.statement.clone())
        .map_err(|_| SignedError::Malformed)?;
    let identity_key = identity_key
        .filter(|key| key.as_bytes() == statement.identity_key.as_ref())
        .ok_or(Malformed::Part("identity key"))?;
    let certificate = DeviceCertificate {
        org: statement.org.parse()?,
        user: user.clone(),
        device: DeviceId::try_from(&statement.device)?,
        identity_key: *identity_key,
        signature_key: signed::public_key(&statement.signature_key)?,
        nats_key: statement.nats_key,
        not_before_ms: statement.not_before_ms,
        not_after_ms: statement.not_after_ms,
    };
    Ok(Device {
        certificate,
        signed,
    })
}

/// The roles of a user or a group.
pub(super) fn roles(records: Vec<RoleRecord>) -> Result<BTreeMap<Scope, Role>, Malformed> {
    let role = |record: RoleRecord| {
        let role = Role::try_from(record.role())?;
        Ok((Scope::try_from(record.scope)?, role))
    };
    records.into_iter().map(role).collect()
}
