//! Our words in Cedar: the schema, what roles allow, and the names of entities.

use std::fmt::Display;
use std::sync::LazyLock;

use cedar_policy::{
    Authorizer, EntityId, EntityTypeName, EntityUid, PolicyId, PolicySet, Schema, ValidationMode,
    Validator,
};

use super::demand::ActionKind;

/// What policies can speak about, for admins and for the tools of Cedar.
pub const SCHEMA: &str = include_str!("sotto.cedarschema");

/// What roles allow.
pub const ROLES: &str = include_str!("roles.cedar");

/// Of what Cedar finds wrong with a policy, so many characters are passed on.
const COMPLAINT: usize = 600;

/// Read once; the texts are this program's own, and a test reads them.
/// Unreadable, they would allow nothing.
static MODEL: LazyLock<Result<Model, String>> = LazyLock::new(Model::read);

/// Everything that is made once.
pub(super) struct Model {
    authorizer: Authorizer,
    roles: PolicySet,
    validator: Validator,
    types: Types,
}

struct Types {
    user: EntityTypeName,
    group: EntityTypeName,
    role: EntityTypeName,
    org: EntityTypeName,
    project: EntityTypeName,
    room: EntityTypeName,
    action: EntityTypeName,
}

/// A kind of entity.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entity {
    User,
    Group,
    Role,
    Org,
    Project,
    Room,
    Action,
}

/// The model.
///
/// # Errors
/// Only when this program was built wrongly.
pub(super) fn model() -> Result<&'static Model, &'static str> {
    MODEL.as_ref().map_err(String::as_str)
}

/// Fails when policies do not fit the schema, strictly, or can never apply.
///
/// # Errors
/// What Cedar says about them.
pub(super) fn validate(policies: &PolicySet) -> Result<(), String> {
    let result = model()?
        .validator
        .validate(policies, ValidationMode::Strict);
    if result.validation_passed_without_warnings() {
        return Ok(());
    }
    let errors = result.validation_errors().map(ToString::to_string);
    let warnings = result.validation_warnings().map(ToString::to_string);
    let complaints: Vec<_> = errors.chain(warnings).collect();
    Err(complaints.join("; ").chars().take(COMPLAINT).collect())
}

impl Model {
    /// # Errors
    /// What does not read.
    fn read() -> Result<Self, String> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(text)?;
        Ok(Self {
            authorizer: Authorizer::new(),
            roles: named(&ROLES.parse().map_err(text)?)?,
            validator: Validator::new(schema),
            types: Types {
                user: "Sotto::User".parse().map_err(text)?,
                group: "Sotto::Group".parse().map_err(text)?,
                role: "Sotto::Role".parse().map_err(text)?,
                org: "Sotto::Org".parse().map_err(text)?,
                project: "Sotto::Project".parse().map_err(text)?,
                room: "Sotto::Room".parse().map_err(text)?,
                action: "Sotto::Action".parse().map_err(text)?,
            },
        })
    }

    pub(super) fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// What roles allow.
    pub(super) fn roles(&self) -> &PolicySet {
        &self.roles
    }

    /// The Cedar of one of them.
    pub(super) fn role_text(&self, id: &PolicyId) -> String {
        let policy = self.roles.policy(id);
        policy.map(ToString::to_string).unwrap_or_default()
    }

    /// What an entity is called.
    pub(super) fn uid(&self, entity: Entity, id: &str) -> EntityUid {
        let name = match entity {
            Entity::User => &self.types.user,
            Entity::Group => &self.types.group,
            Entity::Role => &self.types.role,
            Entity::Org => &self.types.org,
            Entity::Project => &self.types.project,
            Entity::Room => &self.types.room,
            Entity::Action => &self.types.action,
        };
        EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
    }

    /// What an action is called.
    pub(super) fn action(&self, kind: ActionKind) -> EntityUid {
        self.uid(Entity::Action, kind.name())
    }
}

/// The same policies under what their `@id` says.
fn named(policies: &PolicySet) -> Result<PolicySet, String> {
    let named = policies.policies().map(|policy| {
        let id = policy.annotation("id").ok_or("a policy without an @id")?;
        Ok(policy.new_id(PolicyId::new(id)))
    });
    let named = named.collect::<Result<Vec<_>, String>>()?;
    PolicySet::from_policies(named).map_err(text)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
