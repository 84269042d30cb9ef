//! What a device reaches on NATS.

use super::*;

/// Alice is in all three rooms.
fn org() -> (Org, DeviceId) {
    let mut org = Org::new();
    let device = org.enrol("alice");
    for room in [closed(), open(), archived()] {
        org.grant("alice", Scope::Room(room), Role::User);
    }
    org.archive();
    (org, device)
}

fn access(org: &Org, device: DeviceId, proven: &Proven) -> NatsAccess {
    nats_access(&org.state, device, proven, NOW_MS).unwrap()
}

/// Each room that is granted, as number, whether to post, whether gated.
fn rooms(access: &NatsAccess) -> Vec<(u8, bool, bool)> {
    let rooms = access.rooms().iter();
    rooms
        .map(|room| (room.address.room.as_bytes()[0], room.post, room.gated))
        .collect()
}

#[test]
fn without_demands_a_device_has_its_rooms_for_an_hour() {
    let (org, device) = org();
    let access = access(&org, device, &Proven::none());
    let expected = [(1, true, false), (2, true, false), (3, false, false)];
    assert_eq!(rooms(&access), expected);
    assert_eq!(access.expires_ms(), NOW_MS + HOUR_MS);
    assert!(access.withheld().is_empty());
}

#[test]
fn a_gated_room_is_withheld_until_its_factor_is_proven() {
    let (mut org, device) = org();
    let demand = factor(&[], Factor::Totp, 3_600);
    org.demand(Scope::Room(closed()), &[demand]);
    let nothing = access(&org, device, &Proven::none());
    assert_eq!(rooms(&nothing), [(2, true, false), (3, false, false)]);
    let [(address, denied)] = nothing.withheld() else {
        panic!("{nothing:?}")
    };
    assert_eq!((address.room, denied.missing().len()), (closed(), 1));

    let mut lifetime_after = |minutes| {
        let proven = Proven::none().with(Factor::Totp, NOW_MS - minutes * MINUTE_MS);
        let access = access(&org, device, &proven);
        let gated = rooms(&access).contains(&(1, true, true));
        gated.then_some((access.expires_ms() - NOW_MS) / MINUTE_MS)
    };
    let minutes = [0, 1, 30, 31, 50, 51, 58, 59, 61].map(&mut lifetime_after);
    let expected = [60, 30, 30, 10, 10, 2, 2].map(Some);
    assert_eq!(minutes[..7], expected);
    assert_eq!(
        minutes[7..],
        [None, None],
        "it would end before the shortest"
    );
}

#[test]
fn a_room_may_be_read_and_not_posted_to() {
    let (mut org, device) = org();
    org.demand(
        Scope::Room(closed()),
        &[factor(&[ActionKind::Post], Factor::Sms, 0)],
    );
    let access = access(&org, device, &Proven::none());
    assert!(rooms(&access).contains(&(1, false, false)));
    let withheld: Vec<_> = access
        .withheld()
        .iter()
        .map(|(room, _)| room.room)
        .collect();
    assert_eq!(withheld, [closed()], "and not the archived one");
    assert_eq!(access.expires_ms(), NOW_MS + HOUR_MS);
}

#[test]
fn a_guests_jwt_ends_with_them() {
    let mut org = Org::new();
    let device = org.enrol_until("guest", Some(NOW_MS + MINUTE_MS));
    org.grant("guest", Scope::Room(closed()), Role::User);
    let access = access(&org, device, &Proven::none());
    assert_eq!(access.expires_ms(), NOW_MS + MINUTE_MS);
    assert_eq!(rooms(&access), [(1, true, false)]);
}

fn nats_key(number: u8) -> String {
    let key = KeyPair::new_from_raw(KeyPairType::User, [number; 32]);
    key.unwrap().public_key()
}

#[test]
fn keys_of_revoked_devices_and_restricted_users_are_void_while_their_jwts_live() {
    let mut org = Org::new();
    org.enrol("alice");
    org.enrol("bob");
    org.grant("bob", Scope::Room(open()), Role::User);
    let second = org.device_by("alice", 1, 77);
    org.change(Change::DeviceRevoked { device: second });
    let now_s = NOW_MS / 1_000;
    let void = revoked_nats_keys(&org.state, NOW_MS);
    assert_eq!(void, [(nats_key(77), now_s + 300)].into());
    org.change(Change::RoleRevoked {
        holder: Holder::User(user("bob")),
        scope: Scope::Room(open()),
    });
    let void = revoked_nats_keys(&org.state, NOW_MS);
    assert_eq!(
        void,
        [(nats_key(2), now_s), (nats_key(77), now_s + 300)].into()
    );
    let later_ms = NOW_MS + HOUR_MS + 301_000;
    assert!(revoked_nats_keys(&org.state, later_ms).is_empty());
}
