//! Events of the directory as people and programs read them: those of the log,
//! and those that a command would append.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::directory_event::Body;
use sotto_proto::wire::operator_intervened::What;
use sotto_proto::wire::{self, title_set};
use sotto_proto::{DeviceId, FactorId, RoomId};

use super::names::Named;
use super::place::place_of;
use super::policy::form;
use crate::times;

/// One event as fields: when, who and what.
pub fn fields(event: &wire::DirectoryEvent) -> Map<String, Value> {
    let (change, fields, _) = described(event);
    let mut shown = Map::new();
    shown.insert("index".to_owned(), event.index.into());
    shown.insert("at_ms".to_owned(), event.at_ms.into());
    shown.insert("actor".to_owned(), some(&event.actor));
    shown.insert("change".to_owned(), change.into());
    if let Value::Object(fields) = fields {
        shown.extend(fields);
    }
    shown
}

/// One event as a line: `12  2026-11-20 16:03  alice made project field`.
pub fn line(event: &wire::DirectoryEvent) -> String {
    let at = times::minute(&times::local(event.at_ms));
    format!("{:>6}  {at}  {}", event.index, sentence(event))
}

/// Who did what.
pub fn sentence(event: &wire::DirectoryEvent) -> String {
    let (_, _, text) = described(event);
    match event.actor.as_str() {
        "" => format!("the gateway {text}"),
        user => format!("{user} {text}"),
    }
}

/// What the event is called, its own fields, and the rest of a sentence about it.
fn described(event: &wire::DirectoryEvent) -> (&'static str, Value, String) {
    let Some(body) = &event.body else {
        let text = "did what this version of sotto does not know".to_owned();
        return ("unknown", json!({}), text);
    };
    match body {
        Body::OrgCreated(of) => (
            "org_created",
            json!({ "org": of.org, "gateway_key": HEXLOWER.encode(&of.gateway_key) }),
            format!("made the organisation {}", of.org),
        ),
        Body::ProjectCreated(of) => (
            "project_created",
            json!({ "project": of.project }),
            format!("made project {}", of.project),
        ),
        Body::ProjectStatusSet(of) => (
            "project_status_set",
            json!({ "project": of.project, "status": of.status().name() }),
            format!("{} project {}", verb(of.status()), of.project),
        ),
        Body::RoomCreated(of) => {
            let (room, open) = (room(&of.room), of.join_rule() == wire::JoinRule::Open);
            let kind = if open { "open room" } else { "room" };
            let text = format!("made {kind} {room} in project {}", of.project);
            let fields = json!({ "room": room, "project": of.project, "open": open });
            ("room_created", fields, text)
        }
        Body::RoomStatusSet(of) => {
            let room = room(&of.room);
            let text = format!("{} room {room}", verb(of.status()));
            let fields = json!({ "room": room, "status": of.status().name() });
            ("room_status_set", fields, text)
        }
        Body::RoomMoved(of) => {
            let room = room(&of.room);
            let text = format!("moved room {room} to project {}", of.project);
            let fields = json!({ "room": room, "project": of.project });
            ("room_moved", fields, text)
        }
        Body::TitleSet(of) => title_set(of),
        Body::RoleGranted(of) => {
            let (role, place) = (of.role().name(), place_of(of.scope.as_ref()));
            let text = format!("made {} {role} of {place}", holder(&of.user, &of.group));
            let fields = json!({
                "user": some(&of.user), "group": some(&of.group), "role": role, "place": place,
            });
            ("role_granted", fields, text)
        }
        Body::RoleRevoked(of) => {
            let place = place_of(of.scope.as_ref());
            let holder = holder(&of.user, &of.group);
            let fields = json!({
                "user": some(&of.user), "group": some(&of.group), "place": place,
            });
            let text = format!("took the role in {place} from {holder}");
            ("role_revoked", fields, text)
        }
        Body::PolicySet(of) => policy_set(of),
        Body::InviteIssued(of) => invite_issued(of),
        Body::UserAdded(of) => (
            "user_added",
            json!({
                "user": of.user, "title": some(&of.title), "external_id": some(&of.external_id),
            }),
            format!("added {}{}", of.user, titled(&of.title)),
        ),
        Body::UserEnrolled(of) => (
            "user_enrolled",
            json!({ "user": of.user, "identity_key": HEXLOWER.encode(&of.identity_key) }),
            "signed up".to_owned(),
        ),
        Body::UserRevoked(of) => (
            "user_revoked",
            json!({ "user": of.user }),
            format!("revoked {}, for good", of.user),
        ),
        Body::GuestUntilSet(of) => guest_until_set(of),
        Body::DeviceAdded(of) => {
            let certificate = of.certificate.as_ref().map(DeviceCertificate::verify);
            let device = match certificate {
                Some(Ok(certificate)) => certificate.device.to_string(),
                Some(Err(_)) | None => "?".to_owned(),
            };
            let text = format!("added the device {device}");
            ("device_added", json!({ "device": device }), text)
        }
        Body::DeviceRevoked(of) => {
            let device = DeviceId::try_from(&of.device).map(|device| device.to_string());
            let device = device.unwrap_or_else(|_| "?".to_owned());
            let text = format!("revoked the device {device}");
            ("device_revoked", json!({ "device": device }), text)
        }
        Body::GroupCreated(of) => (
            "group_created",
            json!({
                "group": of.group, "title": some(&of.title), "external_id": some(&of.external_id),
            }),
            format!("made the group {}{}", of.group, titled(&of.title)),
        ),
        Body::GroupDeleted(of) => (
            "group_deleted",
            json!({ "group": of.group }),
            format!("deleted the group {}", of.group),
        ),
        Body::GroupMemberAdded(of) => (
            "group_member_added",
            json!({ "group": of.group, "user": of.user }),
            format!("put {} into the group {}", of.user, of.group),
        ),
        Body::GroupMemberRemoved(of) => (
            "group_member_removed",
            json!({ "group": of.group, "user": of.user }),
            format!("took {} out of the group {}", of.user, of.group),
        ),
        Body::IntroductionGiven(of) => (
            "introduction_given",
            json!({ "user": of.user, "by": of.by }),
            match of.by == event.actor {
                true => format!("introduced {}", of.user),
                false => format!("let {} introduce {}", of.by, of.user),
            },
        ),
        Body::IntroductionWithdrawn(of) => (
            "introduction_withdrawn",
            json!({ "user": of.user, "by": of.by }),
            format!("took back the introduction of {} by {}", of.user, of.by),
        ),
        Body::FactorEnrolled(of) => (
            "factor_enrolled",
            json!({
                "user": of.user, "factor": of.factor().name(), "id": factor(&of.id),
            }),
            format!("enrolled {} for {}", of.factor().name(), of.user),
        ),
        Body::FactorRemoved(of) => (
            "factor_removed",
            json!({ "user": of.user, "id": factor(&of.id) }),
            format!("removed a factor of {}", of.user),
        ),
        Body::OperatorIntervened(of) => intervened(of),
    }
}

fn intervened(of: &wire::OperatorIntervened) -> (&'static str, Value, String) {
    let (fields, what) = match &of.what {
        Some(What::FactorsOf(user)) => (
            json!({ "factors_of": user, "reason": of.reason }),
            format!("forgot every factor of {user}"),
        ),
        Some(What::PolicyOf(scope)) => {
            let place = place_of(Some(scope));
            let fields = json!({ "policy_of": place, "reason": of.reason });
            (fields, format!("lifted the policy of {place}"))
        }
        None => (
            json!({ "reason": of.reason }),
            "did what this version of sotto does not know".to_owned(),
        ),
    };
    let reason = &of.reason;
    let text = format!("{what} for whoever runs the server, who says: {reason}");
    ("operator_intervened", fields, text)
}

fn title_set(of: &wire::TitleSet) -> (&'static str, Value, String) {
    let title = some(&of.title);
    let (fields, what) = match &of.of {
        Some(title_set::Of::Org(_)) => (
            json!({ "org": true, "title": title }),
            "the organisation".to_owned(),
        ),
        Some(title_set::Of::Project(project)) => (
            json!({ "project": project, "title": title }),
            format!("project {project}"),
        ),
        Some(title_set::Of::User(user)) => (json!({ "user": user, "title": title }), user.clone()),
        Some(title_set::Of::Group(group)) => (
            json!({ "group": group, "title": title }),
            format!("the group {group}"),
        ),
        None => (json!({ "title": title }), "something".to_owned()),
    };
    let text = match of.title.as_str() {
        "" => format!("took the title from {what}"),
        title => format!("gave {what} the title {title:?}"),
    };
    ("title_set", fields, text)
}

fn policy_set(of: &wire::PolicySet) -> (&'static str, Value, String) {
    let place = place_of(of.scope.as_ref());
    let text = match &of.policy {
        None => format!("cleared the policy of {place}"),
        Some(policy) => format!(
            "set the policy of {place}: {}",
            form::sentences(policy).join("; ")
        ),
    };
    let policy = of.policy.as_ref().map(form::json);
    let fields = json!({ "place": place, "policy": policy });
    ("policy_set", fields, text)
}

fn invite_issued(of: &wire::InviteIssued) -> (&'static str, Value, String) {
    let place = place_of(of.scope.as_ref());
    let role = of.role().name();
    let whom = match of.for_user.as_str() {
        "" => "somebody",
        user => user,
    };
    let guest = (of.guest_until_ms > 0).then_some(of.guest_until_ms);
    let fields = json!({
        "for_user": some(&of.for_user), "role": role, "place": place,
        "expires_ms": of.expires_ms, "guest_until_ms": guest,
    });
    let until = times::minute(&times::local(of.expires_ms));
    let text = format!("invited {whom} as {role} of {place}, until {until}");
    ("invite_issued", fields, text)
}

fn guest_until_set(of: &wire::GuestUntilSet) -> (&'static str, Value, String) {
    let until = (of.until_ms > 0).then_some(of.until_ms);
    let text = match until {
        Some(until) => {
            let until = times::minute(&times::local(until));
            format!("made {} a guest until {until}", of.user)
        }
        None => format!("made {} a guest no more", of.user),
    };
    let fields = json!({ "user": of.user, "until_ms": until });
    ("guest_until_set", fields, text)
}

fn verb(status: wire::Status) -> &'static str {
    match status {
        wire::Status::Active => "restored",
        wire::Status::Archived => "archived",
        wire::Status::Deleted => "deleted",
        wire::Status::Unspecified => "changed",
    }
}

/// As it is typed.
fn holder(user: &str, group: &str) -> String {
    match group {
        "" => user.to_owned(),
        group => format!("group:{group}"),
    }
}

fn room(room: &bytes::Bytes) -> String {
    RoomId::try_from(room).map_or_else(|_| "?".to_owned(), |room| room.to_string())
}

fn factor(id: &bytes::Bytes) -> String {
    FactorId::try_from(id).map_or_else(|_| "?".to_owned(), |id| id.to_string())
}

/// The text, or null where protobuf has none.
fn some(text: &str) -> Value {
    match text {
        "" => Value::Null,
        text => text.into(),
    }
}

fn titled(title: &str) -> String {
    match title {
        "" => String::new(),
        title => format!(" ({title:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: Body) -> wire::DirectoryEvent {
        wire::DirectoryEvent {
            index: 7,
            at_ms: 1_000,
            actor: "alice".to_owned(),
            body: Some(body),
            ..wire::DirectoryEvent::default()
        }
    }

    #[test]
    fn an_event_reads_as_a_sentence_and_as_fields() {
        let granted = event(Body::RoleGranted(wire::RoleGranted {
            group: "staff".to_owned(),
            scope: Some(wire::Scope {
                place: Some(wire::scope::Place::Project("field".to_owned())),
            }),
            role: wire::Role::Owner.into(),
            ..wire::RoleGranted::default()
        }));
        assert_eq!(
            sentence(&granted),
            "alice made group:staff owner of project:field"
        );
        assert_eq!(
            Value::Object(fields(&granted)),
            json!({
                "index": 7, "at_ms": 1_000, "actor": "alice", "change": "role_granted",
                "user": null, "group": "staff", "role": "owner", "place": "project:field",
            })
        );
    }

    #[test]
    fn the_gateway_and_what_is_newer_are_named() {
        let mut newer = event(Body::UserRevoked(wire::UserRevoked::default()));
        newer.body = None;
        newer.actor.clear();
        assert!(sentence(&newer).starts_with("the gateway did what this version"));
        let fields = fields(&newer);
        assert_eq!(fields["change"], "unknown");
        assert_eq!(fields["actor"], Value::Null);
    }

    #[test]
    fn titles_are_quoted_so_that_they_cannot_look_like_the_sentence() {
        let set = event(Body::TitleSet(wire::TitleSet {
            title: "x\" and made bob owner".to_owned(),
            of: Some(title_set::Of::User("mallory".to_owned())),
        }));
        assert_eq!(
            sentence(&set),
            r#"alice gave mallory the title "x\" and made bob owner""#
        );
    }
}
