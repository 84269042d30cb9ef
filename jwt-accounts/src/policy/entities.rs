//! The facts of a question as Cedar's entities, in the shape that
//! `sotto.cedarschema` gives them.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Entities, Entity, EntityUid, RestrictedExpression as Value};

use super::facts::{Facts, Level};
use super::model::{self, Model};
use super::question::Broken;
use crate::directory::Scope;

/// The user, with their groups and roles, and the object's chain.
pub(super) fn entities(model: &Model, facts: &Facts<'_>) -> Result<Entities, Broken> {
    let mut entities = Vec::with_capacity(facts.levels.len() + 1);
    let mut above: Option<EntityUid> = None;
    for level in &facts.levels {
        entities.push(level_entity(model, facts, level, above)?);
        above = Some(level_uid(model, facts, level));
    }
    entities.push(user_entity(model, facts)?);
    Entities::from_entities(entities, None).map_err(Broken::new)
}

/// The user alone, for policies that do not look into the object.
pub(super) fn user(model: &Model, facts: &Facts<'_>) -> Result<Entities, Broken> {
    Entities::from_entities([user_entity(model, facts)?], None).map_err(Broken::new)
}

fn user_entity(model: &Model, facts: &Facts<'_>) -> Result<Entity, Broken> {
    let mut held: HashSet<EntityUid> = HashSet::new();
    for level in &facts.levels {
        let (owners, members) = roles(model, level);
        held.extend(level.owner.then_some(owners));
        held.extend(level.member.then_some(members));
    }
    let groups = facts.groups.iter();
    held.extend(groups.map(|group| model.uid(model::Entity::Group, group.as_str())));
    let attributes = HashMap::from([
        ("name".to_owned(), Value::new_string(facts.user.to_owned())),
        ("guest".to_owned(), Value::new_bool(facts.guest)),
    ]);
    let user = model.uid(model::Entity::User, facts.user);
    Entity::new(user, attributes, held).map_err(Broken::new)
}

/// What the owners and the members of a level are called.
fn roles(model: &Model, level: &Level<'_>) -> (EntityUid, EntityUid) {
    let role = |name: &str| {
        let id = format!("{name} of {}", level.scope);
        model.uid(model::Entity::Role, &id)
    };
    (role("owners"), role("members"))
}

/// What a level is called.
pub(super) fn level_uid(model: &Model, facts: &Facts<'_>, level: &Level<'_>) -> EntityUid {
    match &level.scope {
        Scope::Org => model.uid(model::Entity::Org, facts.org),
        Scope::Project(project) => model.uid(model::Entity::Project, project.as_str()),
        Scope::Room(room) => model.uid(model::Entity::Room, &room.to_string()),
    }
}

/// One level.
fn level_entity(
    model: &Model,
    facts: &Facts<'_>,
    level: &Level<'_>,
    above: Option<EntityUid>,
) -> Result<Entity, Broken> {
    let (owners, members) = roles(model, level);
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
    let uid = level_uid(model, facts, level);
    Entity::new(uid, attributes, above.into_iter().collect()).map_err(Broken::new)
}
