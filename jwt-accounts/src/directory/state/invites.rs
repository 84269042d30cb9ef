//! Invitations to sign up.

use std::sync::Arc;

use sotto_proto::UserName;

use super::super::event::InviteHash;
use super::super::rule::Rule;
use super::super::terms::{Actor, Role, Scope};
use super::State;
use super::roles::fits_guest;

/// An invitation that nobody has used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Not accepted after, in ms since 1970.
    pub expires_ms: i64,
    /// Where the new user gets a role.
    pub scope: Scope,
    /// Which role.
    pub role: Role,
    /// Only this user may use it; `None`: any new one.
    pub for_user: Option<UserName>,
    /// Whoever uses it is a guest until then, in ms since 1970.
    pub guest_until_ms: Option<i64>,
    /// Who issued it; it ends with them.
    pub issued_by: Actor,
}

impl State {
    /// An invitation that nobody has used yet; it may have expired.
    pub fn invite(&self, invite: &InviteHash) -> Option<&Invite> {
        self.invites.get(invite).map(Arc::as_ref)
    }

    pub(super) fn issue_invite(&mut self, invite: InviteHash, issued: Invite) -> Result<(), Rule> {
        self.check_active(&issued.scope)?;
        if issued.guest_until_ms.is_some() && !fits_guest(&issued.scope, issued.role) {
            return Err(Rule::Guest);
        }
        if self.invites.contains_key(&invite) {
            return Err(Rule::InviteTaken);
        }
        self.invites.insert(invite, Arc::new(issued));
        Ok(())
    }

    /// The invite that a user may use now.
    pub(super) fn check_invite(
        &self,
        invite: &InviteHash,
        user: &UserName,
        at_ms: i64,
    ) -> Result<Arc<Invite>, Rule> {
        let issued = self.invites.get(invite).ok_or(Rule::InviteInvalid)?;
        if at_ms > issued.expires_ms {
            return Err(Rule::InviteExpired);
        }
        if issued.for_user.as_ref().is_some_and(|whose| whose != user) {
            return Err(Rule::InviteForAnother);
        }
        Ok(Arc::clone(issued))
    }

    /// Ends the invites that a user issued, and those that are for them.
    pub(super) fn withdraw_invites_of(&mut self, user: &UserName) {
        let issuer = Actor::User(user.clone());
        let invites = self.invites.iter();
        let theirs = invites.filter(|(_, invite)| {
            invite.issued_by == issuer || invite.for_user.as_ref() == Some(user)
        });
        let theirs: Vec<InviteHash> = theirs.map(|(hash, _)| *hash).collect();
        for invite in theirs {
            self.invites.remove(&invite);
        }
    }
}
