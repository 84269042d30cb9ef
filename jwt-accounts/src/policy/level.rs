//! What one level demands beyond the levels above it.

use sotto_proto::wire;

use super::demand::{BadDemand, Demand};

/// Demands of one level at most.
const DEMANDS: usize = 16;

/// The Cedar text of one level at most, in bytes.
const CEDAR_BYTES: usize = 16 * 1024;

/// The policy of one level: demands in the form, and Cedar beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelPolicy {
    demands: Vec<Demand>,
    cedar: String,
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// Too many demands.
    #[error("a level has at most {DEMANDS} demands: put some of them together")]
    TooManyDemands,
    /// Too much Cedar.
    #[error("the Cedar of a level has at most {CEDAR_BYTES} bytes: shorten it")]
    CedarTooLong,
    /// One of its demands.
    #[error(transparent)]
    Demand(#[from] BadDemand),
}

impl LevelPolicy {
    /// The demands, in the order in which they were made.
    pub fn demands(&self) -> &[Demand] {
        &self.demands
    }

    /// The same on the wire.
    pub fn to_wire(&self) -> wire::Policy {
        wire::Policy {
            demands: self.demands.iter().map(wire::Demand::from).collect(),
            cedar: self.cedar.clone(),
        }
    }
}

impl TryFrom<wire::Policy> for LevelPolicy {
    type Error = BadPolicy;

    fn try_from(policy: wire::Policy) -> Result<Self, BadPolicy> {
        if policy.demands.len() > DEMANDS {
            return Err(BadPolicy::TooManyDemands);
        }
        if policy.cedar.len() > CEDAR_BYTES {
            return Err(BadPolicy::CedarTooLong);
        }
        let demands = policy.demands.iter().map(Demand::try_from);
        Ok(Self {
            demands: demands.collect::<Result<_, _>>()?,
            cedar: policy.cedar,
        })
    }
}
