//! Policies that would take an org from its owners.

use super::*;

/// An org that alice owns, with this policy on a level.
fn holds(enrolled: &[Factor], scope: &Scope, demands: &[wire::Demand], cedar: &str) -> bool {
    let mut org = Org::new();
    org.enrol("alice");
    org.grant("alice", Scope::Org, Role::Owner);
    org.enrol("bob");
    org.grant("bob", Scope::Org, Role::User);
    for factor in enrolled {
        org.enrol_factor("alice", *factor);
    }
    org.set(scope.clone(), demands, cedar);
    lockout(&org.state, scope, NOW_MS).is_ok()
}

#[test]
fn an_owner_must_be_able_to_prove_what_is_demanded() {
    let totp = [factor(&[], Factor::Totp, 60)];
    assert!(!holds(&[], &Scope::Org, &totp, ""));
    assert!(holds(&[Factor::Totp], &Scope::Org, &totp, ""));
    let password = [factor(&[ActionKind::Manage], Factor::Password, 60)];
    assert!(holds(&[], &Scope::Org, &password, ""));
    assert!(!holds(&[], &Scope::Org, &[introductions(&[], 1, 1)], ""));
    let posting = [factor(&[ActionKind::Post], Factor::Fido2, 60)];
    assert!(holds(&[], &Scope::Org, &posting, ""));
}

#[test]
fn a_lower_level_must_stay_manageable_too() {
    let nobody = "forbid (principal, action == Sotto::Action::\"manage\", resource);";
    for scope in [Scope::Org, in_field(), Scope::Room(closed())] {
        assert!(!holds(&[], &scope, &[], nobody), "{scope}");
    }
    let but_owners =
        "forbid (principal, action, resource) unless { principal in resource.owners };";
    assert!(holds(&[], &Scope::Org, &[], but_owners));
}

#[test]
fn some_time_of_the_week_is_enough_but_not_once() {
    let at_night =
        "forbid (principal, action, resource) when { context.now.toTime() > duration(\"1h\") };";
    assert!(holds(&[], &Scope::Org, &[], at_night));
    let until =
        "forbid (principal, action, resource) when { context.now > datetime(\"2028-01-01\") };";
    assert!(!holds(&[], &Scope::Org, &[], until));
}

#[test]
fn an_owner_who_is_gone_does_not_count() {
    let mut org = Org::new();
    for name in ["alice", "bob"] {
        org.enrol(name);
        org.grant(name, Scope::Org, Role::Owner);
    }
    org.enrol_factor("alice", Factor::Totp);
    org.demand(Scope::Org, &[factor(&[], Factor::Totp, 0)]);
    assert_eq!(lockout(&org.state, &Scope::Org, NOW_MS), Ok(()));
    org.change(Change::UserRevoked {
        user: user("alice"),
    });
    let locked = lockout(&org.state, &Scope::Org, NOW_MS).unwrap_err();
    assert!(locked.to_string().contains("could manage the organisation"));
}
