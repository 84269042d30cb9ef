//! Which commands make the directory say what the LDAP server says.
//!
//! Pure. Entries are matched by their ids alone, so that a new name is a new
//! title and never a new user, and a second import of the same entries asks for
//! nothing. Every command is tried on a copy of the state first: what the
//! directory's rules refuse is reported and left out. Nothing is ever taken
//! that did not come from the same server, and nothing at all unless that is
//! asked for.

mod draft;
mod identity;
mod members;
mod step;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;
use sotto_jwt_accounts::directory::{Holder, Scope, State};
use sotto_proto::wire::DirectoryCommand;

use crate::dn::Dn;
use crate::import::Entries;
use crate::mapping::{Mapping, Whose};

use draft::Draft;
use identity::{Groups, Identified, Users};
use members::Wanted;

pub use step::Step;

/// Rounds after which a plan is as good as it gets; the last one finds nothing
/// more to do.
const ROUNDS_MAX: usize = 8;

/// How far a plan goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Whether users, groups and memberships that came from this server and are
    /// not there any more are taken away.
    pub remove_missing: bool,
}

/// What to ask of the directory, and what to tell the admin before.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In this order; a gateway takes at most 500 at once.
    pub commands: Vec<DirectoryCommand>,
    /// The same for people and scripts, with what is not done and why.
    pub diff: Diff,
}

/// A plan in words: `Display` for people, `Serialize` for scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// What the commands do, one each.
    pub steps: Vec<Step>,
    /// What would be taken away besides, with `remove_missing`.
    pub kept: Vec<Step>,
    /// What is not done.
    pub refused: Vec<Remark>,
    /// What is done in part.
    pub remarks: Vec<Remark>,
}

/// Something about an entry or a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The entry's name on the server, or the step.
    pub about: String,
    /// What about it, and what to do.
    pub why: String,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No users at all: far more likely a mistake than the truth.
    #[error("the LDAP server named no users: check [users] and its access rules")]
    Nobody,
    /// A rule is for a group that was not read.
    #[error("a rule names the group `{0}`, which is not among those that [groups] finds")]
    NoSuchGroup(Dn),
    /// Who is missing cannot be told.
    #[error(
        "{0} entries have no usable id, so nobody can be told to be missing: correct `id` in \
         [users] and [groups], or import without removing"
    )]
    Unidentified(usize),
    /// Groups in groups add up to more than can be meant.
    #[error(
        "the groups have more than {max} members in all: narrow the filter of [groups]",
        max = members::MEMBERSHIPS_MAX
    )]
    TooManyMembers,
}

/// Compares what the server says with what the directory says.
///
/// # Errors
/// When the entries cannot be all of it, or do not fit the mapping.
pub fn plan(
    entries: &Entries,
    mapping: &Mapping,
    state: &State,
    options: PlanOptions,
) -> Result<Plan, PlanError> {
    if entries.users.is_empty() {
        return Err(PlanError::Nobody);
    }
    let mut draft = Draft::new(state);
    for _ in 0..ROUNDS_MAX {
        let steps_before = draft.begin_round();
        plan_round(entries, mapping, options, &mut draft)?;
        if draft.steps() == steps_before {
            break;
        }
    }
    let diff = draft.finish();
    Ok(Plan {
        commands: diff.steps.iter().map(DirectoryCommand::from).collect(),
        diff,
    })
}

/// Everything once. What one step makes way for, such as a title that becomes
/// free, may come before it: that is for the next round.
fn plan_round(
    entries: &Entries,
    mapping: &Mapping,
    options: PlanOptions,
    draft: &mut Draft,
) -> Result<(), PlanError> {
    create_projects(mapping, draft);
    let users = entries.users.iter();
    let users: Identified<'_, Users> = Identified::new(users, mapping, draft);
    let groups = entries.groups.iter().map(|group| &group.entry);
    let groups = groups.chain(&entries.units);
    let groups: Identified<'_, Groups> = Identified::new(groups, mapping, draft);
    let unidentified = users.unidentified + groups.unidentified;
    if options.remove_missing && unidentified > 0 {
        return Err(PlanError::Unidentified(unidentified));
    }
    users.add_new(draft);
    groups.add_new(draft);
    users.set_titles(draft);
    groups.set_titles(draft);

    let wanted = Wanted::new(entries, &users, &groups, draft)?;
    wanted.add(draft);
    grant_roles(entries, mapping, &groups, draft)?;

    let missing = wanted.missing(mapping, &users, &groups, draft.state());
    if options.remove_missing {
        for step in missing {
            draft.attempt(step.to_string(), step);
        }
    } else {
        draft.keep(missing);
    }
    Ok(())
}

fn create_projects(mapping: &Mapping, draft: &mut Draft) {
    for rule in &mapping.rules {
        if let Some(grant) = &rule.grant
            && let Scope::Project(project) = &grant.scope
            && draft.state().project(project).is_none()
        {
            let project = project.clone();
            draft.attempt(rule.whose.dn(), Step::CreateProject { project });
        }
    }
}

fn grant_roles(
    entries: &Entries,
    mapping: &Mapping,
    groups: &Identified<'_, Groups>,
    draft: &mut Draft,
) -> Result<(), PlanError> {
    for rule in &mapping.rules {
        let dn = rule.whose.dn();
        let is_group = matches!(rule.whose, Whose::Group(_));
        if is_group && !entries.groups.iter().any(|group| group.entry.dn == *dn) {
            return Err(PlanError::NoSuchGroup(dn.clone()));
        }
        let (Some(grant), Some(group)) = (&rule.grant, groups.named(dn)) else {
            continue;
        };
        let holder = Holder::Group(group.clone());
        let held = draft.state().own_role(&holder, &grant.scope);
        // A group that was refused is reported already.
        if held < Some(grant.role) && draft.state().group(group).is_some() {
            draft.attempt(
                dn,
                Step::grant_role(group.clone(), &grant.scope, grant.role),
            );
        }
    }
    Ok(())
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for step in &self.kept {
            writeln!(f, "(kept, but gone from LDAP) {step}")?;
        }
        for Remark { about, why } in &self.remarks {
            writeln!(f, "? {about}: {why}")?;
        }
        for Remark { about, why } in &self.refused {
            writeln!(f, "! {about}: {why}")?;
        }
        write!(
            f,
            "{} changes, {} kept although gone from LDAP, {} refused",
            self.steps.len(),
            self.kept.len(),
            self.refused.len()
        )
    }
}
