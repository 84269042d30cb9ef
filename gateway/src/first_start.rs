//! The beginning of an org: its first events, and the invite by which its
//! first owner signs up, in a file that is there until that has happened.

use std::path::PathBuf;

use rand::rngs::OsRng;
use sotto_jwt_accounts::directory::{
    Actor, AppendError, By, Command, InviteHash, Refusal, Role, Rule, Scope,
};
use sotto_proto::{GatewayAddress, InviteLink, InviteToken, ProjectName};
use sotto_service::private_files::{self, FileError};

use crate::org::Org;

/// How long the first invite is valid.
const INVITE_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// Longest invite file, in bytes.
const INVITE_FILE_MAX: u64 = 4_096;

/// Why an org could not begin.
#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] AppendError),
    /// The invite's file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Appends what is missing of the org's first events. Several gateways may do
/// it at once.
///
/// # Errors
/// [`FirstStartError::Directory`].
pub async fn create(
    org: &Org,
    gateway_key: ed25519_dalek::VerifyingKey,
    project: &ProjectName,
    now_ms: i64,
) -> Result<(), FirstStartError> {
    let commands = [
        Command::CreateOrg {
            org: org.name().clone(),
            gateway_key,
        },
        Command::CreateProject {
            project: project.clone(),
        },
    ];
    for command in commands {
        let by = By::from(Actor::Gateway);
        match org.directory().append(&by, command, now_ms).await {
            Ok(_) => {}
            Err(AppendError::Refused(Refusal::Rule(Rule::OrgOnce | Rule::ProjectTaken(_)))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The file with the first owner's invite.
#[derive(Debug)]
pub struct FirstInvite {
    path: PathBuf,
}

impl FirstInvite {
    /// Makes sure that somebody can become the org's first owner: while there
    /// is none, `path` holds an invite that works.
    ///
    /// # Errors
    /// [`FirstStartError`].
    pub async fn offer(
        org: &Org,
        path: PathBuf,
        address: &GatewayAddress,
        now_ms: i64,
    ) -> Result<Self, FirstStartError> {
        let file = Self { path };
        let state = org.directory().log().state().map_err(AppendError::from)?;
        let offered = file.read().is_some_and(|link| {
            let issued = state.invite(&InviteHash::from(&link.invite));
            link.gateway == *address && issued.is_some_and(|invite| invite.expires_ms > now_ms)
        });
        if state.has_owner() || offered {
            return Ok(file);
        }
        let link = InviteLink {
            gateway: address.clone(),
            invite: InviteToken::random(&mut OsRng),
        };
        let issue = Command::IssueInvite {
            invite: InviteHash::from(&link.invite),
            expires_ms: now_ms.saturating_add(INVITE_MS),
            scope: Scope::Org,
            role: Role::Owner,
            for_user: None,
            guest_until_ms: None,
        };
        let by = By::from(Actor::Gateway);
        org.directory().append(&by, issue, now_ms).await?;
        private_files::write(&file.path, format!("{link}\n").as_bytes())?;
        Ok(file)
    }

    /// Waits until somebody owns the org, then removes the file.
    pub async fn withdraw_when_used(self, org: &Org) {
        let mut known = org.directory().log().subscribe();
        let owned = known.wait_for(|known| known.as_ref().is_ok_and(|state| state.has_owner()));
        if owned.await.is_ok()
            && let Err(error) = private_files::remove(&self.path)
        {
            sotto_log::warn!(error, "the used first invite stays behind");
        }
    }

    fn read(&self) -> Option<InviteLink> {
        let text = private_files::read_text(&self.path, INVITE_FILE_MAX).ok()?;
        text.parse().ok()
    }
}
