//! Projects.

use sotto_proto::{ProjectName, Title};

use super::super::rule::Rule;
use super::super::terms::{Scope, Status};
use super::State;
use super::taken::Covered;

/// A project that is not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// What people read in place of its name.
    pub title: Option<Title>,
    /// Active or archived.
    pub status: Status,
}

impl State {
    /// The projects that are not deleted, by name.
    pub fn projects(&self) -> impl Iterator<Item = (&ProjectName, &Project)> {
        let projects = self.projects.iter();
        projects.filter(|(_, project)| project.status != Status::Deleted)
    }

    /// A project that is not deleted.
    pub fn project(&self, project: &ProjectName) -> Option<&Project> {
        let found = self.projects.get(project)?;
        (found.status != Status::Deleted).then_some(found)
    }

    pub(in super::super) fn known_project(&self, project: &ProjectName) -> Result<&Project, Rule> {
        let unknown = || Rule::UnknownProject(project.clone());
        self.project(project).ok_or_else(unknown)
    }

    pub(super) fn create_project(&mut self, project: &ProjectName) -> Result<(), Rule> {
        if self.projects.contains_key(project) {
            return Err(Rule::ProjectTaken(project.clone()));
        }
        let title_of = |other: &ProjectName| self.projects.get(other)?.title.as_ref();
        self.project_looks.check_name(project, title_of)?;
        self.project_looks.insert(project, None);
        let created = Project {
            title: None,
            status: Status::Active,
        };
        self.projects.insert(project.clone(), created);
        Ok(())
    }

    pub(super) fn set_project_title(
        &mut self,
        project: &ProjectName,
        title: Option<&Title>,
    ) -> Result<(), Rule> {
        self.project_looks.check_title(project, title)?;
        let unknown = || Rule::UnknownProject(project.clone());
        let found = self.projects.get_mut(project).ok_or_else(unknown)?;
        self.project_looks.remove(project, found.title.as_ref());
        self.project_looks.insert(project, title);
        found.title = title.cloned();
        Ok(())
    }

    pub(super) fn set_project_status(
        &mut self,
        project: &ProjectName,
        status: Status,
        at_ms: i64,
    ) -> Result<(), Rule> {
        if self.known_project(project)?.status == status {
            return Err(Rule::Unchanged);
        }
        if status == Status::Deleted && self.rooms().any(|(_, room)| room.project == *project) {
            return Err(Rule::ProjectHoldsRooms(project.clone()));
        }
        let unknown = || Rule::UnknownProject(project.clone());
        let found = self.projects.get_mut(project).ok_or_else(unknown)?;
        found.status = status;
        if status == Status::Deleted {
            let title = found.title.take();
            self.project_looks.remove(project, title.as_ref());
        }
        if status != Status::Active {
            self.restrict(Covered::Scope(Scope::Project(project.clone())), at_ms);
        }
        Ok(())
    }
}
