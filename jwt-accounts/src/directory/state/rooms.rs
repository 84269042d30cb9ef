//! Rooms. What a room is called is for its members only.

use std::sync::Arc;

use sotto_proto::wire::JoinRule;
use sotto_proto::{ProjectName, RoomAddress, RoomId, Shard};

use super::super::rule::Rule;
use super::super::terms::{Scope, Status};
use super::State;
use super::taken::Covered;

/// A room that is not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Where it is on NATS, for ever: the project in it is the one that it was
    /// made in.
    pub address: RoomAddress,
    /// The project that it inherits from.
    pub project: ProjectName,
    /// Who may join.
    pub join_rule: JoinRule,
    /// Active or archived; [`State::is_archived`] looks at its project, too.
    pub status: Status,
}

impl State {
    /// The rooms that are not deleted, by id.
    pub fn rooms(&self) -> impl Iterator<Item = (RoomId, &Room)> {
        let rooms = self.rooms.iter().map(|(id, room)| (*id, room.as_ref()));
        rooms.filter(|(_, room)| room.status != Status::Deleted)
    }

    /// A room that is not deleted.
    pub fn room(&self, room: RoomId) -> Option<&Room> {
        let found = self.rooms.get(&room)?;
        (found.status != Status::Deleted).then_some(found.as_ref())
    }

    /// Whether there is or ever was such a room.
    pub fn was_room(&self, room: RoomId) -> bool {
        self.rooms.contains_key(&room)
    }

    /// Whether a place is archived, itself or by what it is in.
    pub fn is_archived(&self, scope: &Scope) -> bool {
        let archived = |project| {
            let project = self.project(project);
            project.is_some_and(|project| project.status == Status::Archived)
        };
        match scope {
            Scope::Org => false,
            Scope::Project(project) => archived(project),
            Scope::Room(room) => self
                .room(*room)
                .is_some_and(|room| room.status == Status::Archived || archived(&room.project)),
        }
    }

    /// Fails where there is no such place.
    pub(super) fn check_scope(&self, scope: &Scope) -> Result<(), Rule> {
        match scope {
            Scope::Org => Ok(()),
            Scope::Project(project) => self.known_project(project).map(drop),
            Scope::Room(room) => self.room(*room).map(drop).ok_or(Rule::UnknownRoom),
        }
    }

    /// Fails where there is no such place, or nothing new happens.
    pub(super) fn check_active(&self, scope: &Scope) -> Result<(), Rule> {
        self.check_scope(scope)?;
        if self.is_archived(scope) {
            return Err(Rule::Archived(scope.clone()));
        }
        Ok(())
    }

    pub(super) fn create_room(
        &mut self,
        room: RoomId,
        project: &ProjectName,
        shard: Shard,
        join_rule: JoinRule,
    ) -> Result<(), Rule> {
        self.check_active(&Scope::Project(project.clone()))?;
        if self.rooms.contains_key(&room) {
            return Err(Rule::RoomTaken);
        }
        let created = Room {
            address: RoomAddress {
                shard,
                project: project.clone(),
                room,
            },
            project: project.clone(),
            join_rule,
            status: Status::Active,
        };
        self.rooms.insert(room, Arc::new(created));
        Ok(())
    }

    pub(super) fn set_room_status(
        &mut self,
        room: RoomId,
        status: Status,
        at_ms: i64,
    ) -> Result<(), Rule> {
        if self.room(room).ok_or(Rule::UnknownRoom)?.status == status {
            return Err(Rule::Unchanged);
        }
        self.room_mut(room)?.status = status;
        if status != Status::Active {
            self.restrict(Covered::Scope(Scope::Room(room)), at_ms);
        }
        Ok(())
    }

    pub(super) fn move_room(
        &mut self,
        room: RoomId,
        project: &ProjectName,
        at_ms: i64,
    ) -> Result<(), Rule> {
        if self.room(room).ok_or(Rule::UnknownRoom)?.project == *project {
            return Err(Rule::Unchanged);
        }
        self.check_active(&Scope::Project(project.clone()))?;
        self.room_mut(room)?.project = project.clone();
        self.restrict(Covered::Scope(Scope::Room(room)), at_ms);
        Ok(())
    }

    fn room_mut(&mut self, room: RoomId) -> Result<&mut Room, Rule> {
        let found = self.rooms.get_mut(&room).ok_or(Rule::UnknownRoom)?;
        Ok(Arc::make_mut(found))
    }
}
