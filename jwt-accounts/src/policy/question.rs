//! A question as Cedar sees it: entities, context, and which policies answer.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    AuthorizationError, Context, Decision, Entities, Entity, EntityUid, PolicyId, PolicySet,
    Request, Response, RestrictedExpression as Value,
};
use jiff::Timestamp;

use super::Asking;
use super::demand::{ActionKind, INTRODUCTIONS_WINDOW};
use super::denied::Why;
use super::factor::{Factor, Proven};
use super::facts::{Facts, Level};
use super::level::Compiled;
use super::model::{self, Model, model};
use crate::directory::Scope;

/// May this user do this to this object?
pub(super) struct Question<'a> {
    model: &'static Model,
    facts: &'a Facts<'a>,
    kind: ActionKind,
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    entities: Entities,
}

/// What is the case beside the directory, or is supposed to be.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) proven: &'a Proven,
    pub(super) now_ms: i64,
    /// Suppose that whatever introductions are demanded were there.
    pub(super) introduced: bool,
}

impl<'a> From<Asking<'a>> for World<'a> {
    fn from(asking: Asking<'a>) -> Self {
        Self {
            proven: asking.proven,
            now_ms: asking.now_ms,
            introduced: false,
        }
    }
}

/// A policy that forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forbid {
    /// Its level by its place in the chain.
    pub(super) level: usize,
    pub(super) policy: PolicyId,
}

/// Something of this program's own is not as it must be, so nothing is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken(String);

impl From<Broken> for Why {
    fn from(Broken(error): Broken) -> Self {
        Self::Broken(error)
    }
}

impl<'a> Question<'a> {
    pub(super) fn new(facts: &'a Facts<'a>, kind: ActionKind) -> Result<Self, Broken> {
        let model = model().map_err(broken)?;
        let mut entities = Vec::with_capacity(4);
        let mut roles: HashSet<EntityUid> = HashSet::new();
        let mut above: Option<EntityUid> = None;
        for level in &facts.levels {
            let (uid, entity) = level_entity(model, facts.org, level, above, &mut roles)?;
            entities.push(entity);
            above = Some(uid);
        }
        let principal = model.entity(model::Entity::User, facts.user.as_str());
        let groups = facts.groups.iter();
        roles.extend(groups.map(|group| model.entity(model::Entity::Group, group)));
        let attributes = HashMap::from([
            ("name".to_owned(), Value::new_string(facts.user.to_string())),
            ("guest".to_owned(), Value::new_bool(facts.guest)),
        ]);
        let user = Entity::new(principal.clone(), attributes, roles).map_err(broken)?;
        entities.push(user);
        Ok(Self {
            model,
            facts,
            kind,
            principal,
            action: model
                .action(kind)
                .ok_or_else(|| broken("no such action"))?
                .clone(),
            resource: above.ok_or_else(|| broken("no object"))?,
            entities: Entities::from_entities(entities, None).map_err(broken)?,
        })
    }

    /// What roles say: by which policies it is allowed, or else what may be
    /// advised beside a role.
    pub(super) fn roles(&self) -> Result<Result<Vec<PolicyId>, Option<&'static str>>, Broken> {
        let roles = &self.model.roles;
        let response = self.ask(roles, Context::empty())?;
        let diagnostics = response.diagnostics();
        if let Some(error) = diagnostics.errors().next() {
            return Err(broken(error));
        }
        Ok(match response.decision() {
            Decision::Allow => Ok(diagnostics.reason().cloned().collect()),
            Decision::Deny => Err(diagnostics
                .reason()
                .find_map(|policy| roles.annotation(policy, "advice"))),
        })
    }

    /// What the levels forbid. A policy that fails forbids.
    pub(super) fn forbids(&self, world: World<'_>) -> Result<Vec<Forbid>, Broken> {
        let mut forbids = Vec::new();
        for (index, level) in self.facts.levels.iter().enumerate() {
            let Some(policy) = level.policy else { continue };
            let compiled = policy.compiled().map_err(broken)?;
            let context = self.context(compiled, level, world)?;
            let response = self.ask(&compiled.policies, context)?;
            let diagnostics = response.diagnostics();
            let failed = diagnostics
                .errors()
                .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id());
            let mut policies: Vec<_> = diagnostics.reason().chain(failed).cloned().collect();
            policies.sort();
            forbids.extend(policies.into_iter().map(|policy| Forbid {
                level: index,
                policy,
            }));
        }
        Ok(forbids)
    }

    /// The same, supposing that these factors were proven just now.
    pub(super) fn forbids_supposing(
        &self,
        asking: Asking<'_>,
        supposed: &[Factor],
    ) -> Result<Vec<Forbid>, Broken> {
        let mut proven = asking.proven.clone();
        for factor in supposed {
            proven = proven.with(*factor, asking.now_ms);
        }
        self.forbids(World {
            proven: &proven,
            now_ms: asking.now_ms,
            introduced: supposed.contains(&Factor::Introductions),
        })
    }

    /// What is asked about.
    pub(super) fn action(&self) -> ActionKind {
        self.kind
    }

    fn ask(&self, policies: &PolicySet, context: Context) -> Result<Response, Broken> {
        let request = Request::new(
            self.principal.clone(),
            self.action.clone(),
            self.resource.clone(),
            context,
            None,
        );
        let request = request.map_err(broken)?;
        Ok(self
            .model
            .authorizer
            .is_authorized(&request, policies, &self.entities))
    }

    fn context(
        &self,
        compiled: &Compiled,
        level: &Level<'_>,
        world: World<'_>,
    ) -> Result<Context, Broken> {
        let mut context = vec![("proven".to_owned(), proven(world)?)];
        if compiled.asks_now {
            context.push(("now".to_owned(), now(world.now_ms)?));
        }
        if compiled.asks_introductions {
            let good = self.facts.good_introductions(level, world.introduced);
            context.push(("introductions".to_owned(), introductions(good)?));
        }
        Context::from_pairs(context).map_err(broken)
    }
}

/// One level as an entity; the roles that the user holds there are added to
/// `held`.
fn level_entity(
    model: &Model,
    org: &str,
    level: &Level<'_>,
    above: Option<EntityUid>,
    held: &mut HashSet<EntityUid>,
) -> Result<(EntityUid, Entity), Broken> {
    let (kind, id) = match &level.scope {
        Scope::Org => (model::Entity::Org, org.to_owned()),
        Scope::Project(project) => (model::Entity::Project, project.to_string()),
        Scope::Room(room) => (model::Entity::Room, room.to_string()),
    };
    let role =
        |name: &str| model.entity(model::Entity::Role, &format!("{name} of {}", level.scope));
    let (owners, members) = (role("owners"), role("members"));
    if level.owner {
        held.insert(owners.clone());
    }
    if level.member {
        held.insert(members.clone());
    }
    let mut attributes = HashMap::from([
        ("owners".to_owned(), Value::new_entity_uid(owners)),
        ("members".to_owned(), Value::new_entity_uid(members)),
    ]);
    let mut attribute = |name: &str, value| attributes.insert(name.to_owned(), value);
    let parent = above.clone().map(Value::new_entity_uid);
    match (&level.scope, parent) {
        (Scope::Project(_), Some(org)) => {
            attribute("archived", Value::new_bool(level.archived));
            attribute("org", org);
        }
        (Scope::Room(_), Some(project)) => {
            attribute("archived", Value::new_bool(level.archived));
            attribute("open", Value::new_bool(level.open));
            attribute("project", project);
        }
        (Scope::Org, _) | (_, None) => {}
    }
    let uid = model.entity(kind, &id);
    let parents = above.into_iter().collect();
    let entity = Entity::new(uid.clone(), attributes, parents).map_err(broken)?;
    Ok((uid, entity))
}

fn proven(world: World<'_>) -> Result<Value, Broken> {
    let proven = world.proven.iter().map(|(factor, at_ms)| {
        let age_ms = world.now_ms.saturating_sub(at_ms).max(0);
        // Rounded up: a proof is never younger than it is.
        let age_s = age_ms / 1_000 + i64::from(age_ms % 1_000 > 0);
        (factor.name().to_owned(), Value::new_long(age_s))
    });
    Value::new_record(proven).map_err(broken)
}

fn now(now_ms: i64) -> Result<Value, Broken> {
    let now = Timestamp::from_second(now_ms.div_euclid(1_000)).map_err(broken)?;
    Ok(Value::new_datetime(
        now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    ))
}

/// How many of the newest 1, 2, … introductions are good.
fn introductions(good: [bool; INTRODUCTIONS_WINDOW as usize]) -> Result<Value, Broken> {
    let counts = (1..=INTRODUCTIONS_WINDOW)
        .zip(good)
        .scan(0, |count, (of, good)| {
            *count += i64::from(good);
            Some((format!("of{of}"), Value::new_long(*count)))
        });
    Value::new_record(counts).map_err(broken)
}

fn broken(error: impl ToString) -> Broken {
    Broken(error.to_string())
}
