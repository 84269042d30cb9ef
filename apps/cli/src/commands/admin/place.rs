//! Whom and where, as it is typed and shown: `bob` and `group:staff`; `org`,
//! `project:field` and `room:barn`.

use std::str::FromStr;

use sotto_jwt_accounts::directory::{Holder, Scope};
use sotto_proto::{NameError, ProjectName, RoomId, wire};

use crate::device::Device;

/// Where something holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The organisation.
    Org,
    /// One project of it.
    Project(ProjectName),
    /// One room.
    Room(RoomText),
}

/// A room's id, or its name as this device knows it: the server knows none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomText(String);

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("write `org`, `project:NAME` or `room:NAME-OR-ID`")]
    Form,
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        match text.split_once(':') {
            None if text == "org" => Ok(Self::Org),
            Some(("project", name)) => Ok(Self::Project(name.parse()?)),
            Some(("room", name)) if !name.is_empty() => Ok(Self::Room(RoomText(name.to_owned()))),
            _ => Err(PlaceError::Form),
        }
    }
}

impl FromStr for RoomText {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let name = text.strip_prefix("room:").unwrap_or(text);
        match name.is_empty() {
            true => Err(PlaceError::Form),
            false => Ok(Self(name.to_owned())),
        }
    }
}

/// Reads who has a role: a user, or `group:NAME`.
///
/// # Errors
/// When the name is none.
pub fn read_holder(text: &str) -> Result<Holder, NameError> {
    match text.strip_prefix("group:") {
        Some(group) => group.parse().map(Holder::Group),
        None => text.parse().map(Holder::User),
    }
}

/// Who has a role, as it can be typed.
pub fn holder(holder: &Holder) -> String {
    match holder {
        Holder::User(user) => user.to_string(),
        Holder::Group(group) => format!("group:{group}"),
    }
}

/// The fields `user` and `group` of a message, one of them empty.
pub fn holder_fields(holder: Holder) -> (String, String) {
    match holder {
        Holder::User(user) => (user.into(), String::new()),
        Holder::Group(group) => (String::new(), group.into()),
    }
}

impl Place {
    /// The place that is meant.
    ///
    /// # Errors
    /// When this device knows no room of that name, or several.
    pub async fn find(self, device: &mut Device) -> anyhow::Result<Scope> {
        Ok(match self {
            Self::Org => Scope::Org,
            Self::Project(project) => Scope::Project(project),
            Self::Room(room) => Scope::Room(room.find(device).await?),
        })
    }
}

impl RoomText {
    /// The room that is meant. An id need not be that of a room on this device.
    ///
    /// # Errors
    /// When this device knows no room of that name, or several.
    pub async fn find(&self, device: &mut Device) -> anyhow::Result<RoomId> {
        match self.0.parse() {
            Ok(room) => Ok(room),
            Err(_) => Ok(device.room(&self.0).await?.room),
        }
    }
}

/// A place as it can be typed.
pub fn place(scope: &Scope) -> String {
    match scope {
        Scope::Org => "org".to_owned(),
        Scope::Project(project) => format!("project:{project}"),
        Scope::Room(room) => format!("room:{room}"),
    }
}

/// A place of a message as it can be typed; `?` for one that makes no sense.
pub fn place_of(scope: Option<&wire::Scope>) -> String {
    let scope = Scope::try_from(scope.cloned());
    scope.map_or_else(|_| "?".to_owned(), |scope| place(&scope))
}

#[cfg(test)]
mod tests {
    use rand::rngs::OsRng;

    use super::*;

    #[test]
    fn places_and_holders_are_read_as_they_are_shown() {
        let room = RoomId::random(&mut OsRng);
        for scope in [
            Scope::Org,
            Scope::Project("field".parse().unwrap()),
            Scope::Room(room),
        ] {
            let shown = place(&scope);
            let read: Place = shown.parse().unwrap();
            match (read, scope) {
                (Place::Org, Scope::Org) => {}
                (Place::Project(read), Scope::Project(project)) => assert_eq!(read, project),
                (Place::Room(RoomText(read)), Scope::Room(room)) => {
                    assert_eq!(read.parse::<RoomId>().unwrap(), room);
                }
                (read, scope) => panic!("{read:?} for {scope:?}"),
            }
        }
        for text in ["bob", "group:staff"] {
            assert_eq!(holder(&read_holder(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "field",
            "Org",
            "project:",
            "project:A b",
            "room:",
            "user:bob",
            "org:x",
        ] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        for text in ["", "group:", "Bob", "user:bob", "group:a:b"] {
            assert!(read_holder(text).is_err(), "{text}");
        }
    }
}
