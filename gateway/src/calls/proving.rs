//! What proving a factor by a code has in common, wherever the code comes
//! from. The code is used up first: whatever fails after that, it counts at
//! most once.

use sotto_jwt_accounts::directory::{self, Command};
use sotto_jwt_accounts::policy::Factor;
use sotto_proto::FactorId;
use sotto_proto::wire::FactorProven;

use crate::caller::EnrolledDevice;
use crate::factors;
use crate::proofs::{self, Which};
use crate::refusal::Refusal;

/// Longest code that is looked at, in bytes.
const CODE: usize = 16;

/// A factor that its user is about to prove, and by that to enrol if it is not.
pub struct Proving<'a> {
    caller: &'a EnrolledDevice,
    factor: Factor,
    /// Which one, if the user says so.
    pub only: Option<FactorId>,
    now_ms: i64,
}

impl<'a> Proving<'a> {
    /// Before the code is looked at: an enrolment that may not be completed
    /// uses up none.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], and what the directory refuses.
    pub fn begin(
        caller: &'a EnrolledDevice,
        factor: Factor,
        (only, code): (&[u8], &str),
        now_ms: i64,
    ) -> Result<Self, Refusal> {
        if code.len() > CODE {
            return Err(Refusal::malformed("length of the code"));
        }
        let only = only_factor(only)?;
        let proving = Self {
            caller,
            factor,
            only,
            now_ms,
        };
        if let Some(id) = only
            && !proving.is_enrolled(id)?
        {
            let state = caller.org.state()?;
            directory::decide(&state, &caller.by(), proving.enrolment(id), now_ms)?;
        }
        Ok(proving)
    }

    /// After the code of this factor was right.
    ///
    /// # Errors
    /// What the directory refuses, [`Refusal::Unavailable`].
    pub async fn complete(self, id: FactorId) -> Result<FactorProven, Refusal> {
        let (caller, now_ms) = (self.caller, self.now_ms);
        if !self.is_enrolled(id)? {
            let enrolment = self.enrolment(id);
            caller.org.append(&caller.by(), enrolment, now_ms).await?;
        }
        let which = Which::Factor(self.factor, id);
        proofs::remember(&caller.org, caller.device, which, now_ms).await?;
        Ok(FactorProven { proven_ms: now_ms })
    }

    fn is_enrolled(&self, id: FactorId) -> Result<bool, Refusal> {
        Ok(factors::is_enrolled(&self.caller.org, &self.caller.user)?(
            id,
        ))
    }

    fn enrolment(&self, id: FactorId) -> Command {
        Command::EnrolFactor {
            factor: self.factor,
            id,
        }
    }
}

/// The factor that a call names, if it names one.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn only_factor(id: &[u8]) -> Result<Option<FactorId>, Refusal> {
    match id {
        [] => Ok(None),
        id => Ok(Some(FactorId::try_from(id)?)),
    }
}
