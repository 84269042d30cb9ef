//! A question as Cedar sees it: a request, a context, and which policies forbid.

use std::cell::OnceCell;

use cedar_policy::{
    AuthorizationError, Context, Entities, EntityUid, PolicyId, PolicySet, Request, Response,
    RestrictedExpression as Value,
};
use jiff::Timestamp;

use super::Asking;
use super::demand::{ActionKind, INTRODUCTIONS_WINDOW};
use super::denied::Why;
use super::entities::{self, level_uid};
use super::factor::{Factor, Proven};
use super::facts::{Facts, Level};
use super::level::Compiled;
use super::model::{self, Model, model};

/// May this user do this to this object?
pub(super) struct Question<'a> {
    model: &'static Model,
    facts: &'a Facts<'a>,
    kind: ActionKind,
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    entities: OnceCell<Result<Entities, Broken>>,
    user: OnceCell<Result<Entities, Broken>>,
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

impl Broken {
    pub(super) fn new(error: impl ToString) -> Self {
        Self(error.to_string())
    }
}

impl From<Broken> for Why {
    fn from(Broken(error): Broken) -> Self {
        Self::Broken(error)
    }
}

impl<'a> Question<'a> {
    pub(super) fn new(facts: &'a Facts<'a>, kind: ActionKind) -> Result<Self, Broken> {
        let model = model().map_err(Broken::new)?;
        let object = facts.object();
        let object = object.ok_or_else(|| Broken::new("no object"))?;
        Ok(Self {
            model,
            facts,
            kind,
            principal: model.uid(model::Entity::User, facts.user),
            action: model.action(kind),
            resource: level_uid(model, facts, object),
            entities: OnceCell::new(),
            user: OnceCell::new(),
        })
    }

    /// What the levels forbid. A policy that fails forbids.
    pub(super) fn forbids(&self, world: World<'_>) -> Result<Vec<Forbid>, Broken> {
        let mut forbids = Vec::new();
        for (index, level) in self.facts.levels.iter().enumerate() {
            let Some(policy) = level.policy else { continue };
            let compiled = policy.compiled().map_err(Broken::new)?;
            let context = self.context(compiled, level, world)?;
            let nothing = Entities::empty();
            let entities = match (compiled.asks_user, compiled.asks_object) {
                (_, true) => self.entities()?,
                (true, false) => self.user()?,
                (false, false) => &nothing,
            };
            let response = self.ask(&compiled.policies, context, entities)?;
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
        world: World<'_>,
        supposed: &[Factor],
    ) -> Result<Vec<Forbid>, Broken> {
        let mut proven = world.proven.clone();
        for factor in supposed {
            proven = proven.with(*factor, world.now_ms);
        }
        self.forbids(World {
            proven: &proven,
            now_ms: world.now_ms,
            introduced: supposed.contains(&Factor::Introductions),
        })
    }

    /// What is asked about.
    pub(super) fn action(&self) -> ActionKind {
        self.kind
    }

    pub(super) fn facts(&self) -> &'a Facts<'a> {
        self.facts
    }

    pub(super) fn model(&self) -> &'static Model {
        self.model
    }

    /// The facts as entities; made when they are first looked at.
    pub(super) fn entities(&self) -> Result<&Entities, Broken> {
        let made = self
            .entities
            .get_or_init(|| entities::entities(self.model, self.facts));
        made.as_ref().map_err(Broken::clone)
    }

    /// Of these, the user.
    fn user(&self) -> Result<&Entities, Broken> {
        let made = self
            .user
            .get_or_init(|| entities::user(self.model, self.facts));
        made.as_ref().map_err(Broken::clone)
    }

    pub(super) fn ask(
        &self,
        policies: &PolicySet,
        context: Context,
        entities: &Entities,
    ) -> Result<Response, Broken> {
        let request = Request::new(
            self.principal.clone(),
            self.action.clone(),
            self.resource.clone(),
            context,
            None,
        );
        let request = request.map_err(Broken::new)?;
        let authorizer = self.model.authorizer();
        Ok(authorizer.is_authorized(&request, policies, entities))
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
            let good = self.facts.good_introductions(level, world);
            context.push(("introductions".to_owned(), introductions(good)?));
        }
        Context::from_pairs(context).map_err(Broken::new)
    }
}

fn proven(world: World<'_>) -> Result<Value, Broken> {
    let proven = world.proven.iter().map(|(factor, at_ms)| {
        let age_ms = world.now_ms.saturating_sub(at_ms).max(0);
        // Rounded up: a proof is never younger than it is.
        let age_s = age_ms / 1_000 + i64::from(age_ms % 1_000 > 0);
        (factor.name().to_owned(), Value::new_long(age_s))
    });
    Value::new_record(proven).map_err(Broken::new)
}

fn now(now_ms: i64) -> Result<Value, Broken> {
    let now = Timestamp::from_second(now_ms.div_euclid(1_000)).map_err(Broken::new)?;
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
    Value::new_record(counts).map_err(Broken::new)
}
