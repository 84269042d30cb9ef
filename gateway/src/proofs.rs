//! What was proven on each device, and when. A proof counts on the device that
//! it was made on, and as long as what it proves is enrolled and believed; how old
//! it may be is the policy's matter.

use bytes::Bytes;
use sotto_jwt_accounts::directory::State;
use sotto_jwt_accounts::policy::{Factor, Proven};
use sotto_proto::{DeviceId, FactorId, UserName, wire};

use crate::factors;
use crate::org::Org;
use crate::records::{ProofRecord, ProofsRecord, VERSION};
use crate::refusal::Refusal;

/// Proofs that are kept of a device; the oldest goes.
const PROOFS: usize = 32;

/// Which factor of a user was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Everybody has just one.
    Password,
    /// One that was enrolled.
    Factor(Factor, FactorId),
}

impl Which {
    fn factor(self) -> wire::Factor {
        match self {
            Self::Password => wire::Factor::Password,
            Self::Factor(factor, _) => factor.into(),
        }
    }

    fn id(self) -> Bytes {
        match self {
            Self::Password => Bytes::new(),
            Self::Factor(_, id) => id.to_bytes(),
        }
    }

    fn is(self, proof: &ProofRecord) -> bool {
        proof.factor == i32::from(self.factor()) && proof.id == self.id()
    }
}

/// What was proven on one device.
#[derive(Debug, Clone, Default)]
pub struct Proofs(Vec<ProofRecord>);

impl Proofs {
    /// What was proven on a user's device. What a key said of which there may
    /// be a copy does not count any more: either of them may have said it.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn of(org: &Org, user: &UserName, device: DeviceId) -> Result<Self, Refusal> {
        let record: Option<ProofsRecord> = org.buckets().proofs.get(&device.to_string()).await?;
        let mut proofs = record.unwrap_or_default().proofs;
        if proofs.iter().any(ProofRecord::is_by_key) {
            let known = factors::stored(org, user).await?.credentials;
            let cloned = known.iter().filter(|key| key.cloned_ms != 0);
            proofs.retain(|proof| cloned.clone().all(|key| key.id != proof.id));
        }
        Ok(Self(proofs))
    }

    /// When this factor was proven last, in ms since 1970.
    pub fn proven_ms(&self, factor: wire::Factor, id: &[u8]) -> Option<i64> {
        let mut proofs = self.0.iter();
        let found = proofs.find(|proof| proof.factor == i32::from(factor) && proof.id == id);
        found.map(|proof| proof.proven_ms)
    }

    /// What of it counts: the password, and what the directory says that the
    /// user has enrolled.
    pub fn proven(&self, state: &State, user: &UserName) -> Proven {
        let password = self.proven_ms(wire::Factor::Password, &[]);
        let password = password.map(|at_ms| (Factor::Password, at_ms));
        let enrolled = state.user(user).into_iter().flat_map(|user| user.factors());
        let others = enrolled.filter_map(|(id, factor)| {
            let at_ms = self.proven_ms(factor.into(), id.as_bytes())?;
            Some((factor, at_ms))
        });
        let proven = password.into_iter().chain(others);
        proven.fold(Proven::none(), |proven, (factor, at_ms)| {
            proven.with(factor, at_ms)
        })
    }
}

/// Remembers that a factor was proven on a device, before anybody is told.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub async fn remember(
    org: &Org,
    device: DeviceId,
    which: Which,
    proven_ms: i64,
) -> Result<(), Refusal> {
    let decide = |stored: Option<ProofsRecord>| {
        let mut record = stored.unwrap_or_default();
        record.version = VERSION;
        record.add(which, proven_ms);
        Ok((Some(record), ()))
    };
    let bucket = &org.buckets().proofs;
    bucket.change(&device.to_string(), decide).await
}

impl ProofRecord {
    fn is_by_key(&self) -> bool {
        let keys = [wire::Factor::Webauthn, wire::Factor::Fido2];
        keys.map(i32::from).contains(&self.factor)
    }
}

impl ProofsRecord {
    fn add(&mut self, which: Which, proven_ms: i64) {
        let known = self.proofs.iter_mut().find(|proof| which.is(proof));
        if let Some(known) = known {
            known.proven_ms = known.proven_ms.max(proven_ms);
            return;
        }
        self.proofs.push(ProofRecord {
            factor: which.factor().into(),
            id: which.id(),
            proven_ms,
        });
        let newest_first = |proof: &ProofRecord| std::cmp::Reverse(proof.proven_ms);
        self.proofs.sort_by_key(newest_first);
        self.proofs.truncate(PROOFS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_proof_of_each_factor_is_kept() {
        let mut record = ProofsRecord::default();
        let id = |n: u8| FactorId::try_from(&[n; 16][..]).unwrap();
        let app = |n| Which::Factor(Factor::Totp, id(n));
        for (which, at_ms) in [(Which::Password, 5), (app(1), 7), (Which::Password, 3)] {
            record.add(which, at_ms);
        }
        let proofs = Proofs(record.proofs.clone());
        let totp = |n| proofs.proven_ms(wire::Factor::Totp, id(n).as_bytes());
        assert_eq!(proofs.proven_ms(wire::Factor::Password, &[]), Some(5));
        assert_eq!((totp(1), totp(2)), (Some(7), None));
        for n in 0..100 {
            record.add(app(n), 100 + i64::from(n));
        }
        assert_eq!(record.proofs.len(), PROOFS);
        let kept = Proofs(record.proofs);
        let newest = kept.proven_ms(wire::Factor::Totp, id(99).as_bytes());
        assert_eq!(newest, Some(199));
    }
}
