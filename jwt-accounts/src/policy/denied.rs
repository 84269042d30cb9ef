//! Why something is denied, and what would help.

use std::fmt;

use sotto_proto::wire;

use super::demand::{ActionKind, Demand};
use crate::directory::Scope;

/// Who may not do what, where, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{actor} may not {action} in {place}: {why}")]
pub struct Denied {
    actor: String,
    action: &'static str,
    place: Scope,
    why: Why,
}

/// A factor that would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is demanded.
    pub demand: Demand,
    /// Which level demands it.
    pub level: Scope,
    /// Whether the user has such a factor, and could prove it now.
    pub enrolled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// A role, or something else that only others can give.
    Needs(&'static str),
    /// These factors would be enough.
    Missing(Vec<Missing>),
    /// A policy of this level forbids it whatever is proven.
    Forbidden { level: Scope, policy: String },
    /// A level's policy does not read.
    Broken(String),
}

impl Denied {
    pub(super) fn new(actor: String, action: ActionKind, place: Scope, why: Why) -> Self {
        Self {
            actor,
            action: action.phrase(),
            place,
            why,
        }
    }

    /// What only whoever runs the server can.
    pub(super) fn gateway_only(actor: String, action: &'static str) -> Self {
        Self {
            actor,
            action,
            place: Scope::Org,
            why: Why::Needs("only whoever runs the server can"),
        }
    }

    /// Who changes their own factors must have proven this one just now.
    pub(super) fn stale(actor: String, missing: Missing) -> Self {
        Self {
            actor,
            action: "change factors",
            place: Scope::Org,
            why: Why::Missing(vec![missing]),
        }
    }

    /// What must be proven, all of it, for the answer to be another one. Empty
    /// when proving factors would not help.
    pub fn missing(&self) -> &[Missing] {
        match &self.why {
            Why::Missing(missing) => missing,
            Why::Needs(_) | Why::Forbidden { .. } | Why::Broken(_) => &[],
        }
    }
}

impl From<&Missing> for wire::MissingFactor {
    fn from(missing: &Missing) -> Self {
        Self {
            demand: Some((&missing.demand).into()),
            level: Some((&missing.level).into()),
            enrolled: missing.enrolled,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Needs(needs) => f.write_str(needs),
            Self::Missing(missing) => {
                f.write_str("prove ")?;
                let mut separator = "";
                for factor in missing {
                    write!(f, "{separator}{factor}")?;
                    separator = ", and ";
                }
                Ok(())
            }
            Self::Forbidden { level, policy } => write!(
                f,
                "policy {policy} of {level} forbids it; ask an owner of {level}"
            ),
            Self::Broken(error) => write!(
                f,
                "a policy cannot be asked ({error}); ask an owner to set it again"
            ),
        }
    }
}

/// "totp within 8 h (project field demands it)".
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = &self.level;
        write!(f, "{} ({level} demands it", self.demand)?;
        match (self.enrolled, self.demand.introductions()) {
            (true, _) => f.write_str(")"),
            (false, None) => f.write_str("; set it up first)"),
            (false, Some(_)) => f.write_str("; ask members to introduce you)"),
        }
    }
}
