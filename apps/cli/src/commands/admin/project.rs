//! `sotto admin project`.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::json;
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::wire::title_set::Of;
use sotto_proto::{ProjectName, Title, wire};

use super::change::{Change, How};
use super::{directory, title};
use crate::device::Context;
use crate::table::Table;

/// What can be typed after `sotto admin project`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sotto admin project create field --title 'Field work'
  sotto admin project archive field
  sotto admin project delete field --dry-run")]
pub enum Project {
    /// List the projects.
    List,
    /// Make a project.
    Create {
        /// Its name: it stays for ever, and is never used again.
        project: ProjectName,
        /// What people read in place of the name.
        #[arg(long)]
        title: Option<Title>,
        #[command(flatten)]
        how: How,
    },
    /// Change what people read in place of its name.
    Title {
        /// Which.
        project: ProjectName,
        /// The title; without it, the name is shown.
        title: Option<Title>,
        #[command(flatten)]
        how: How,
    },
    /// Let nothing new into its rooms; what is there can be read.
    Archive {
        /// Which.
        project: ProjectName,
        #[command(flatten)]
        how: How,
    },
    /// Take it out of the archive.
    Restore {
        /// Which.
        project: ProjectName,
        #[command(flatten)]
        how: How,
    },
    /// Delete it for good; it must hold no rooms.
    Delete {
        /// Which.
        project: ProjectName,
        #[command(flatten)]
        how: How,
    },
}

pub async fn run(context: &Context, command: Project) -> anyhow::Result<()> {
    let (change, how) = match command {
        Project::List => return list(context).await,
        Project::Create {
            project,
            title,
            how,
        } => (create(project, title), how),
        Project::Title {
            project,
            title,
            how,
        } => (Change::one(set_title(&project, title.as_ref())), how),
        Project::Archive { project, how } => (set_status(&project, wire::Status::Archived), how),
        Project::Restore { project, how } => (set_status(&project, wire::Status::Active), how),
        Project::Delete { project, how } => {
            let deletion = set_status(&project, wire::Status::Deleted);
            (deletion.for_good(), how)
        }
    };
    change.run(context, how).await
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let state = directory::state(context).await?;
    let mut rooms: BTreeMap<&ProjectName, usize> = BTreeMap::new();
    for (_, room) in state.rooms() {
        *rooms.entry(&room.project).or_default() += 1;
    }
    let mut table = Table::new(["PROJECT", "TITLE", "STATUS", "ROOMS"]);
    for (name, project) in state.projects() {
        let rooms = rooms.get(name).copied().unwrap_or_default();
        table.row(
            json!({
                "event": "project", "project": name,
                "title": project.title.as_ref().map(Title::as_str),
                "status": project.status.to_string(), "rooms": rooms,
            }),
            [
                name.to_string(),
                title::text(project.title.as_ref()).to_owned(),
                project.status.to_string(),
                rooms.to_string(),
            ],
        );
    }
    let empty = "No projects yet: make one with `sotto admin project create`.";
    Ok(table.show(context.output, empty)?)
}

fn create(project: ProjectName, title: Option<Title>) -> Change {
    let created = Ask::CreateProject(wire::ProjectCreated {
        project: project.to_string(),
    });
    let titled = title.map(|title| set_title(&project, Some(&title)));
    Change::all([created].into_iter().chain(titled))
}

fn set_title(project: &ProjectName, title: Option<&Title>) -> Ask {
    title::set(Of::Project(project.to_string()), title)
}

fn set_status(project: &ProjectName, status: wire::Status) -> Change {
    Change::one(Ask::SetProjectStatus(wire::ProjectStatusSet {
        project: project.to_string(),
        status: status.into(),
    }))
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn a_project_comes_with_its_title_or_without() {
        let field: ProjectName = "field".parse().unwrap();
        let created = Ask::CreateProject(wire::ProjectCreated {
            project: "field".to_owned(),
        });
        assert_eq!(
            create(field.clone(), None).asks(),
            slice::from_ref(&created)
        );
        let title = "Field work".parse().unwrap();
        let titled = Ask::SetTitle(wire::TitleSet {
            of: Some(Of::Project("field".to_owned())),
            title: "Field work".to_owned(),
        });
        assert_eq!(create(field, Some(title)).asks(), [created, titled]);
    }

    #[test]
    fn no_title_takes_the_title_away() {
        let Ask::SetTitle(set) = set_title(&"field".parse().unwrap(), None) else {
            panic!()
        };
        assert_eq!(set.title, "");
    }
}
