//! What one level demands beyond the levels above it.
//!
//! Demands and Cedar text come down to one set of `forbid` policies, so a level
//! can only tighten, whatever it says.

use std::sync::OnceLock;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet};
use serde_json::Value as Json;
use sotto_proto::wire;

use super::demand::{BadDemand, Demand};
use super::model;

/// Demands of one level at most.
const DEMANDS: usize = 16;

/// The Cedar text of one level at most, in bytes.
const CEDAR_BYTES: usize = 16 * 1024;

/// Policies in the Cedar text of one level at most.
const CEDAR_POLICIES: usize = 64;

/// The policy of one level: demands in the form, and Cedar beside it. Equal
/// when both are, to the letter.
#[derive(Clone)]
pub struct LevelPolicy {
    demands: Vec<Demand>,
    cedar: String,
    /// Made when it is first asked: most of a large org's never are.
    compiled: OnceLock<Result<Compiled, BadPolicy>>,
}

/// A level's `forbid` policies, ready to be asked.
#[derive(Clone)]
pub(super) struct Compiled {
    pub(super) policies: PolicySet,
    /// Whether it looks into the user, or into the object and what is above it:
    /// entities cost to make.
    pub(super) asks_user: bool,
    pub(super) asks_object: bool,
    /// Whether the text speaks of the time; it costs to tell.
    pub(super) asks_now: bool,
    /// Whether it speaks of introductions.
    pub(super) asks_introductions: bool,
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
    /// Too many policies.
    #[error(
        "the Cedar of a level has at most {CEDAR_POLICIES} policies: put some of them together"
    )]
    TooManyPolicies,
    /// One of its demands.
    #[error(transparent)]
    Demand(#[from] BadDemand),
    /// The text is no Cedar.
    #[error("the Cedar does not read: {0}; correct it and try again")]
    Syntax(String),
    /// It would allow something.
    #[error("the Cedar holds a `permit`: a level can only forbid; give a role instead")]
    Permit,
    /// It holds a template.
    #[error("the Cedar holds a template (`?principal` or `?resource`): name what is meant")]
    Template,
    /// It speaks of what there is not.
    #[error(
        "the Cedar does not fit the schema: {0}; `sotto.cedarschema` says what policies can speak about"
    )]
    Schema(String),
}

impl LevelPolicy {
    /// The demands, in the order in which they were made.
    pub fn demands(&self) -> &[Demand] {
        &self.demands
    }

    /// Everything it says, as Cedar: what the demands come down to, then the
    /// level's own text.
    pub fn cedar_text(&self) -> String {
        let demands = self.demands.iter().map(Demand::cedar);
        let own = Some(self.cedar.clone()).filter(|own| !own.is_empty());
        demands.chain(own).collect::<Vec<_>>().join("\n")
    }

    /// The same on the wire.
    pub fn to_wire(&self) -> wire::Policy {
        wire::Policy {
            demands: self.demands.iter().map(wire::Demand::from).collect(),
            cedar: self.cedar.clone(),
        }
    }

    /// Fails when the Cedar is not just `forbid` policies that fit the schema.
    ///
    /// Not part of parsing: what an older version accepted into the log must
    /// still be read. A level that does not compile forbids everything.
    ///
    /// # Errors
    /// [`BadPolicy`].
    pub fn validate(&self) -> Result<(), BadPolicy> {
        let compiled = self.compiled()?;
        model::validate(&compiled.policies).map_err(BadPolicy::Schema)
    }

    /// # Errors
    /// What is wrong with the Cedar, each time the same.
    pub(super) fn compiled(&self) -> Result<&Compiled, BadPolicy> {
        let compiled = self.compiled.get_or_init(|| self.compile());
        compiled.as_ref().map_err(BadPolicy::clone)
    }

    fn compile(&self) -> Result<Compiled, BadPolicy> {
        let syntax = |error: &dyn std::error::Error| BadPolicy::Syntax(error.to_string());
        let mut policies = PolicySet::new();
        for (index, demand) in self.demands.iter().enumerate() {
            let id = PolicyId::new(demand_id(index));
            let policy = Policy::parse(Some(id), demand.cedar());
            let policy = policy.map_err(|error| syntax(&error))?;
            policies.add(policy).map_err(|error| syntax(&error))?;
        }
        let own: PolicySet = self.cedar.parse().map_err(|error| syntax(&error))?;
        if own.num_of_templates() > 0 {
            return Err(BadPolicy::Template);
        }
        if own.num_of_policies() > CEDAR_POLICIES {
            return Err(BadPolicy::TooManyPolicies);
        }
        for (index, policy) in own.policies().enumerate() {
            if policy.effect() != Effect::Forbid {
                return Err(BadPolicy::Permit);
            }
            let policy = policy.new_id(PolicyId::new(format!("cedar-{}", index + 1)));
            policies.add(policy).map_err(|error| syntax(&error))?;
        }
        Ok(Compiled {
            asks_user: own.policies().any(|policy| looks_into(policy, "principal")),
            asks_object: own.policies().any(|policy| looks_into(policy, "resource")),
            asks_now: speaks_of(&own, "now"),
            asks_introductions: speaks_of(&policies, "introductions"),
            policies,
        })
    }

    /// Whether its answer changes with the time alone.
    pub(super) fn asks_now(&self) -> bool {
        self.compiled().is_ok_and(|compiled| compiled.asks_now)
    }

    /// The Cedar of one policy of the compiled set.
    pub(super) fn text(&self, id: &PolicyId) -> Option<String> {
        let policy = self.compiled().ok()?.policies.policy(id)?;
        Some(policy.to_string())
    }

    /// The demand that a policy of the compiled set stands for.
    pub(super) fn demand(&self, id: &PolicyId) -> Option<&Demand> {
        let mut demands = self.demands.iter().enumerate();
        demands.find_map(|(index, demand)| (id.as_ref() == demand_id(index)).then_some(demand))
    }
}

fn demand_id(index: usize) -> String {
    format!("demand-{}", index + 1)
}

/// Whether more of a policy's `principal` or `resource` counts than which it
/// is. Too often yes does no harm, and a wrong no would only forbid.
fn looks_into(policy: &Policy, variable: &str) -> bool {
    let Ok(json) = policy.to_json() else {
        return true;
    };
    let scope = json.get(variable).map(ToString::to_string);
    scope.is_some_and(|scope| scope.contains("\"in\""))
        || json
            .get("conditions")
            .is_none_or(|of| speaks_into(of, variable))
}

/// Whether an expression speaks of a variable, or looks into an entity that it
/// names itself; of those only objects are worth naming.
fn speaks_into(json: &Json, variable: &str) -> bool {
    let names_entity = |of: &Json| variable == "resource" && of.to_string().contains("__entity");
    match json {
        Json::String(text) => text == variable,
        Json::Array(parts) => parts.iter().any(|part| speaks_into(part, variable)),
        Json::Object(parts) => parts.iter().any(|(operator, part)| {
            let looks = [".", "has", "getTag", "hasTag"].contains(&operator.as_str());
            let left = part.get("left").unwrap_or(part);
            // What stands left of `in` is looked into for what it is in.
            let looks = looks || operator == "in";
            speaks_into(part, variable) || (looks && names_entity(left))
        }),
        _ => false,
    }
}

/// Whether a name stands anywhere in the policies, however it is written.
fn speaks_of(policies: &PolicySet, name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    policies.policies().any(|policy| {
        let json = policy.to_json();
        json.is_ok_and(|json| json.to_string().contains(&quoted))
    })
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
            compiled: OnceLock::new(),
        })
    }
}

impl PartialEq for LevelPolicy {
    fn eq(&self, other: &Self) -> bool {
        (&self.demands, &self.cedar) == (&other.demands, &other.cedar)
    }
}

impl Eq for LevelPolicy {}

impl std::fmt::Debug for LevelPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LevelPolicy")
            .field("demands", &self.demands)
            .field("cedar", &self.cedar)
            .finish_non_exhaustive()
    }
}
