//! Which factors this server can have proven, from how it is set up. A policy
//! must not demand what nobody could prove: the one place that looks is here.

use sotto_jwt_accounts::directory::Command;
use sotto_jwt_accounts::policy::{Factor, LevelPolicy};

use crate::refusal::Refusal;
use crate::sms::Sms;
use crate::webauthn::RelyingParty;

/// What can be proven here, and by what; of the rest, why not.
pub struct Provable {
    /// Codes by text message.
    pub sms: Result<Sms, &'static str>,
    /// Passkeys and security keys.
    pub webauthn: Result<RelyingParty, &'static str>,
}

impl Provable {
    /// Fails when this server cannot have a factor proven.
    ///
    /// # Errors
    /// [`Refusal::Denied`], which says what is missing.
    pub fn check(&self, factor: Factor) -> Result<(), Refusal> {
        let can = match factor {
            Factor::Password | Factor::Totp | Factor::Introductions => Ok(()),
            Factor::Sms => self.sms.as_ref().map(drop),
            Factor::Webauthn | Factor::Fido2 => self.webauthn.as_ref().map(drop),
        };
        can.map_err(|why| cannot(factor, why))
    }

    /// What sends codes by text message.
    ///
    /// # Errors
    /// [`Refusal::Denied`], which says what is missing.
    pub fn sms(&self) -> Result<&Sms, Refusal> {
        let sms = self.sms.as_ref();
        sms.map_err(|why| cannot(Factor::Sms, why))
    }

    /// What checks passkeys and security keys.
    ///
    /// # Errors
    /// [`Refusal::Denied`], which says what is missing.
    pub fn relying_party(&self) -> Result<&RelyingParty, Refusal> {
        let party = self.webauthn.as_ref();
        party.map_err(|why| cannot(Factor::Webauthn, why))
    }

    /// Fails when a command sets a policy that demands such a factor.
    ///
    /// # Errors
    /// [`Refusal::Denied`].
    pub fn check_demands(&self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::All(commands) => commands
                .iter()
                .try_for_each(|command| self.check_demands(command)),
            Command::SetPolicy { policy, .. } => {
                let demands = policy
                    .iter()
                    .flat_map(|policy| LevelPolicy::demands(policy));
                let mut factors = demands.map(|demand| demand.factor());
                factors.try_for_each(|factor| self.check(factor))
            }
            _ => Ok(()),
        }
    }
}

fn cannot(factor: Factor, why: &str) -> Refusal {
    Refusal::Denied(format!("this server cannot have {factor} proven: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sotto_jwt_accounts::directory::Scope;
    use sotto_proto::wire;

    use super::*;

    fn demanding(factors: &[Factor]) -> Command {
        let demand = |factor: &Factor| wire::Demand {
            factor: wire::Factor::from(*factor).into(),
            ..wire::Demand::default()
        };
        let policy = LevelPolicy::try_from(wire::Policy {
            demands: factors.iter().map(demand).collect(),
            cedar: String::new(),
        });
        Command::All(vec![Command::SetPolicy {
            scope: Scope::Org,
            policy: Some(Arc::new(policy.unwrap())),
        }])
    }

    #[test]
    fn what_nobody_can_prove_here_is_not_demanded() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let provable = Provable {
            sms: Err("set up [sms]"),
            webauthn: RelyingParty::new(&key, "https://chat.example"),
        };
        let can = [Factor::Totp, Factor::Webauthn, Factor::Fido2];
        assert_eq!(provable.check_demands(&demanding(&can)), Ok(()));
        let refused = provable.check_demands(&demanding(&[Factor::Totp, Factor::Sms]));
        let sentence = refused.unwrap_err().to_string();
        assert_eq!(sentence, "this server cannot have sms proven: set up [sms]");
    }
}
