//! How long a check takes in an org of 100,000 users. Run it optimised, alone:
//! `cargo test --release --package sotto-jwt-accounts --lib speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::*;

const USERS: u32 = 100_000;
const CHECKS: usize = 20_000;

#[test]
#[ignore = "measures"]
fn a_check_is_fast() {
    let mut org = Org::new();
    for number in 0..USERS {
        let mut invite = [0; 32];
        invite[..4].copy_from_slice(&number.to_be_bytes());
        enrol(&mut org, &format!("u{number}"), InviteHash(invite));
    }
    let plain = org.clone();
    let demands = [
        factor(&[], Factor::Totp, 3_600),
        factor(&[], Factor::Password, 28_800),
    ];
    org.demand(Scope::Org, &demands);
    org.demand(in_field(), &demands);
    let forms = org.clone();
    let mut guests = forms.clone();
    guests.cedar(
        Scope::Room(closed()),
        "forbid (principal, action, resource) when { principal.guest };",
    );
    let measured = [
        ("no level demands anything", &plain),
        ("forms on two levels", &forms),
    ];
    for (what, org) in measured {
        let (median, slow) = measure(org);
        println!("{what}: p50 {median:?}, p99 {slow:?}");
        assert!(median < Duration::from_micros(20) && slow < Duration::from_micros(100));
    }
    // Such a level costs more: what it looks at is made into entities.
    let (median, slow) = measure(&guests);
    println!("and Cedar that looks at the user on a third: p50 {median:?}, p99 {slow:?}");
    assert!(slow < Duration::from_micros(100));
    let mut archived = forms;
    archived.cedar(
        Scope::Room(closed()),
        "forbid (principal, action, resource is Sotto::Room) when { resource.archived && !(principal in resource.owners) };",
    );
    let (median, slow) = measure(&archived);
    println!("or at the room and its owners: p50 {median:?}, p99 {slow:?}");
    assert!(median < Duration::from_micros(100));
}

/// Median and 99th percentile.
fn measure(org: &Org) -> (Duration, Duration) {
    let proven = Proven::all(NOW_MS);
    let users: Vec<_> = (0..CHECKS)
        .map(|number| user(&format!("u{}", (number * 7_919) % USERS as usize)))
        .collect();
    let mut times: Vec<_> = users
        .iter()
        .map(|user| {
            let asking = Asking {
                user,
                proven: &proven,
                now_ms: NOW_MS,
            };
            let start = Instant::now();
            let permit = check(&org.state, asking, Read, &closed());
            let took = start.elapsed();
            assert!(permit.is_ok());
            took
        })
        .collect();
    times.sort();
    (times[CHECKS / 2], times[CHECKS * 99 / 100])
}

fn enrol(org: &mut Org, name: &str, invite: InviteHash) {
    let issued = Change::InviteIssued {
        invite,
        expires_ms: NOW_MS,
        scope: Scope::Room(closed()),
        role: Role::User,
        for_user: None,
        guest_until_ms: None,
    };
    org.change(issued);
    org.change(Change::UserEnrolled {
        user: user(name),
        identity_key: key(1),
        invite,
    });
    org.grant(name, Scope::Room(closed()), Role::User);
}
