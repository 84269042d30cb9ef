//! What levels demand, by form and in Cedar.

use proptest::prelude::*;

use super::*;

const FIDO2: &str = r#"forbid (principal, action == Sotto::Action::"post", resource)
unless { context.proven has fido2 && context.proven.fido2 <= 900 };"#;

/// Alice is in the closed room; bob and carol are users of the org.
fn org() -> Org {
    let mut org = Org::new();
    org.enrol("alice");
    org.grant("alice", Scope::Room(closed()), Role::User);
    for name in ["bob", "carol"] {
        org.enrol(name);
        org.grant(name, Scope::Org, Role::User);
    }
    org
}

fn totp(at_ms: i64) -> Proven {
    Proven::none().with(Factor::Totp, at_ms)
}

#[test]
fn a_demand_says_what_is_missing_and_where() {
    let mut org = org();
    let demand = factor(&[ActionKind::Read], Factor::Totp, 8 * 3_600);
    org.demand(in_field(), &[demand]);
    let denied = org.denied("alice", Read, &closed());
    let [missing] = denied.missing() else {
        panic!("{denied:?}")
    };
    assert_eq!(missing.demand.factor(), Factor::Totp);
    assert_eq!(missing.demand.max_age_s(), NonZeroU32::new(8 * 3_600));
    assert_eq!((&missing.level, missing.enrolled), (&in_field(), false));
    assert!(
        denied
            .to_string()
            .ends_with("prove totp within 8 h (project field demands it; set it up first)"),
        "{denied}"
    );
    org.enrol_factor("alice", Factor::Totp);
    assert!(org.denied("alice", Read, &closed()).missing()[0].enrolled);
    assert!(org.ask("alice", &Proven::none(), Post, &closed()).is_ok());
}

#[test]
fn a_proof_counts_until_it_is_too_old() {
    let mut org = org();
    org.demand(Scope::Org, &[factor(&[], Factor::Totp, 60)]);
    let reads = |at_ms| org.ask("alice", &totp(at_ms), Read, &closed()).is_ok();
    assert!(reads(NOW_MS - MINUTE_MS));
    assert!(!reads(NOW_MS - MINUTE_MS - 1));
    assert!(reads(NOW_MS + HOUR_MS), "the clocks of two gateways differ");
}

#[test]
fn every_demand_of_the_chain_is_missing_at_once() {
    let mut org = org();
    org.demand(Scope::Org, &[factor(&[], Factor::Totp, 0)]);
    org.demand(in_field(), &[factor(&[], Factor::Totp, 60)]);
    let room = [factor(&[], Factor::Password, 0), introductions(&[], 1, 1)];
    org.demand(Scope::Room(closed()), &room);
    org.demand(Scope::Room(open()), &[factor(&[], Factor::Sms, 0)]);
    let denied = org.denied("alice", Read, &closed());
    let missing = denied.missing().iter();
    let missing: Vec<_> = missing.map(|missing| missing.demand.to_string()).collect();
    let expected = [
        "totp",
        "totp within 1 min",
        "password",
        "introductions 1 of 1",
    ];
    assert_eq!(missing, expected);
}

#[test]
fn cedar_of_an_admin_says_what_is_missing_too() {
    let mut org = org();
    org.cedar(Scope::Room(closed()), FIDO2);
    let denied = org.denied("alice", Post, &closed());
    let [missing] = denied.missing() else {
        panic!("{denied:?}")
    };
    assert_eq!(missing.demand.factor(), Factor::Fido2);
    assert_eq!(missing.level, Scope::Room(closed()));
    let fresh = Proven::none().with(Factor::Fido2, NOW_MS - 15 * MINUTE_MS);
    assert!(org.ask("alice", &fresh, Post, &closed()).is_ok());
    assert!(org.ask("alice", &Proven::none(), Read, &closed()).is_ok());
}

#[test]
fn of_two_factors_that_would_do_the_enrolled_one_is_asked_for() {
    let mut org = org();
    org.enrol_factor("alice", Factor::Webauthn);
    org.cedar(
        Scope::Org,
        "forbid (principal, action, resource) unless { context.proven has fido2 || context.proven has webauthn };",
    );
    let denied = org.denied("alice", Read, &closed());
    let missing: Vec<_> = denied
        .missing()
        .iter()
        .map(|missing| missing.demand.factor())
        .collect();
    assert_eq!(missing, [Factor::Webauthn]);
}

#[test]
fn where_no_factor_helps_the_rule_is_named() {
    let mut org = org();
    org.cedar(
        in_field(),
        "forbid (principal == Sotto::User::\"alice\", action, resource);",
    );
    let denied = org.denied("alice", Read, &closed());
    assert!(denied.missing().is_empty());
    assert!(
        denied
            .to_string()
            .contains("policy cedar-1 of project field"),
        "{denied}"
    );
}

#[test]
fn a_policy_that_fails_forbids() {
    let mut org = org();
    org.cedar(
        Scope::Org,
        "forbid (principal, action, resource) when { context.proven has totp && context.proven.totp + 9223372036854775807 < 0 };",
    );
    assert!(org.ask("alice", &Proven::none(), Read, &closed()).is_ok());
    assert!(
        org.ask("alice", &totp(NOW_MS - 1), Read, &closed())
            .is_err()
    );
}

#[test]
fn cedar_can_speak_of_all_that_the_schema_has() {
    let mut org = org();
    org.cedar(
        Scope::Org,
        r#"forbid (principal in Sotto::Group::"crew", action, resource is Sotto::Org);
           forbid (principal, action == Sotto::Action::"read", resource in Sotto::Project::"field")
           unless { principal.name like "a*" && !principal.guest && context.introductions.of16 >= 0
                    && principal in resource.members && !(principal in resource.project.org.owners)
                    && !resource.archived && context.now.toTime() < duration("1d") };"#,
    );
    assert!(org.ask("alice", &Proven::none(), Read, &closed()).is_ok());
    org.grant("bob", Scope::Room(closed()), Role::User);
    org.denied("bob", Read, &closed());
}

#[test]
fn introductions_count_when_they_are_new_and_by_members_in_good_standing() {
    let mut org = org();
    org.enrol_until("visitor", Some(NOW_MS + HOUR_MS));
    org.enrol("loner");
    org.demand(Scope::Org, &[introductions(&[], 2, 3)]);
    let reads = |org: &Org| {
        org.ask("alice", &Proven::all(NOW_MS), Read, &closed())
            .is_ok()
    };
    for by in ["bob", "visitor", "loner"] {
        org.introduce("alice", by);
        assert!(!reads(&org), "{by}");
    }
    let denied = org.denied("alice", Read, &closed());
    assert_eq!(denied.missing()[0].demand.introductions(), Some((2, 3)));
    org.introduce("alice", "carol");
    assert!(!reads(&org), "the one by bob is the fourth now");
    org.grant("loner", Scope::Org, Role::User);
    assert!(reads(&org));
    org.change(Change::UserRevoked {
        user: user("carol"),
    });
    // Without carol's, bob's is the third again.
    assert!(reads(&org));
    org.change(Change::UserRevoked { user: user("bob") });
    assert!(!reads(&org));
}

#[test]
fn an_introduction_needs_a_role_on_the_level_that_demands_it() {
    let mut org = org();
    org.enrol("dave");
    org.grant("dave", Scope::Room(open()), Role::User);
    org.introduce("alice", "dave");
    org.demand(Scope::Room(closed()), &[introductions(&[], 1, 1)]);
    org.denied("alice", Read, &closed());
    org.grant("dave", Scope::Room(closed()), Role::User);
    assert!(org.ask("alice", &Proven::none(), Read, &closed()).is_ok());
}

#[test]
fn standing_supposes_factors_and_no_introductions() {
    let mut org = org();
    org.demand(in_field(), &[factor(&[], Factor::Fido2, 60)]);
    let stands = |org: &Org| standing(&org.state, &user("alice"), NOW_MS, Read, &closed()).is_ok();
    assert!(stands(&org));
    org.demand(Scope::Room(closed()), &[introductions(&[], 1, 5)]);
    assert!(!stands(&org));
}

#[test]
fn a_form_shows_its_cedar() {
    let policy = policy(
        &[
            factor(&[ActionKind::Read, ActionKind::Post], Factor::Totp, 28_800),
            factor(&[], Factor::Password, 0),
            introductions(&[ActionKind::Join], 2, 5),
        ],
        FIDO2,
    );
    let expected = format!(
        r#"@factor("totp")
forbid (principal, action in [Sotto::Action::"read", Sotto::Action::"post"], resource)
unless {{ context.proven has totp && context.proven.totp <= 28800 }};

@factor("password")
forbid (principal, action, resource)
unless {{ context.proven has password }};

@factor("introductions")
forbid (principal, action in [Sotto::Action::"join"], resource)
unless {{ context.introductions.of5 >= 2 }};

{FIDO2}"#
    );
    assert_eq!(policy.unwrap().cedar_text(), expected);
}

#[test]
fn what_a_level_cannot_say_is_refused() {
    let refused = |cedar: &str| {
        let policy = policy(&[], cedar);
        policy.and_then(|policy| policy.validate()).unwrap_err()
    };
    let permit = "permit (principal, action, resource);";
    assert_eq!(refused(permit), BadPolicy::Permit);
    let template = "forbid (principal == ?principal, action, resource);";
    assert_eq!(refused(template), BadPolicy::Template);
    assert!(matches!(refused("forbid (principal"), BadPolicy::Syntax(_)));
    let one = "forbid (principal, action, resource);";
    assert_eq!(refused(&one.repeat(65)), BadPolicy::TooManyPolicies);
    assert_eq!(refused(&" ".repeat(16_385)), BadPolicy::CedarTooLong);
    let demand = factor(&[], Factor::Totp, 0);
    assert_eq!(
        policy(&vec![demand; 17], ""),
        Err(BadPolicy::TooManyDemands)
    );
    for unknown in [
        "forbid (principal, action == Sotto::Action::\"fly\", resource);",
        "forbid (principal, action, resource) when { principal.age > 3 };",
        "forbid (principal, action, resource) when { context.proven.totp > 3 };",
        "forbid (principal, action == Sotto::Action::\"read\", resource is Sotto::Org);",
        "forbid (principal is Sotto::Room, action, resource);",
    ] {
        assert!(
            matches!(refused(unknown), BadPolicy::Schema(_)),
            "{unknown}"
        );
    }
}

#[test]
fn what_a_form_cannot_say_is_refused() {
    let refused = |demand| policy(&[demand], "").unwrap_err();
    let bad = |bad| BadPolicy::Demand(bad);
    let totp = || factor(&[], Factor::Totp, 0);
    assert_eq!(
        refused(wire::Demand {
            actions: vec![99],
            ..totp()
        }),
        bad(BadDemand::Action)
    );
    assert_eq!(
        refused(wire::Demand {
            actions: vec![0],
            ..totp()
        }),
        bad(BadDemand::Action)
    );
    assert_eq!(
        refused(wire::Demand {
            factor: 99,
            ..totp()
        }),
        bad(BadDemand::Factor(UnknownFactor))
    );
    assert_eq!(
        refused(wire::Demand { of: 1, ..totp() }),
        bad(BadDemand::Mixed)
    );
    let aged = wire::Demand {
        max_age_seconds: 1,
        ..introductions(&[], 1, 1)
    };
    assert_eq!(refused(aged), bad(BadDemand::Mixed));
    for (at_least, of) in [(0, 1), (2, 1), (1, 17), (1, 257)] {
        assert_eq!(
            refused(introductions(&[], at_least, of)),
            bad(BadDemand::Window)
        );
    }
}

#[test]
fn an_unreadable_policy_forbids_everything() {
    let mut org = org();
    let broken = policy(&[], "forbid (").unwrap();
    org.change(Change::PolicySet {
        scope: Scope::Org,
        policy: Some(Arc::new(broken)),
    });
    let denied = org.denied("alice", Read, &closed());
    assert!(denied.missing().is_empty() && denied.to_string().contains("set it again"));
}

#[test]
fn the_schema_names_every_factor() {
    for factor in Factor::ALL {
        let line = match factor {
            Factor::Introductions => "introductions: Introductions,".to_owned(),
            factor => format!("{factor}?: Long,"),
        };
        assert!(SCHEMA.contains(&line), "add `{line}` to sotto.cedarschema");
    }
}

#[test]
fn an_explanation_names_the_deciding_rules() {
    let mut org = org();
    org.cedar(Scope::Room(closed()), FIDO2);
    let proven = Proven::none();
    let asking = Asking {
        user: &user("alice"),
        proven: &proven,
        now_ms: NOW_MS,
    };
    let explain = |action| explain(&org.state, asking, action, &Scope::Room(closed()));
    let post = explain(ActionKind::Post);
    assert!(!post.allowed() && post.missing().len() == 1);
    let rules = post
        .rules
        .iter()
        .map(|rule| (rule.id.as_str(), rule.forbids));
    let expected = [("members-take-part", false), ("cedar-1", true)];
    assert_eq!(rules.collect::<Vec<_>>(), expected);
    assert!(
        post.to_string()
            .contains("cedar-1 of room aeaqcaibaeaqcaibaeaqcaibae forbids it")
    );
    assert!(
        explain(ActionKind::Read)
            .to_string()
            .starts_with("alice may read in room")
    );
    assert!(!explain(ActionKind::CreateProject).allowed());
}

fn demands() -> impl Strategy<Value = wire::Demand> {
    let actions = proptest::sample::subsequence(ActionKind::ALL.to_vec(), 0..=3);
    let needs = prop_oneof![
        (0..5usize, 0..100u32).prop_map(|(index, age)| factor(&[], Factor::ALL[index], age)),
        (1..=16u32, 0..16u32).prop_map(|(of, less)| introductions(&[], of - less.min(of - 1), of)),
    ];
    (actions, needs).prop_map(|(actions, needs)| wire::Demand {
        actions: wire_actions(&actions),
        ..needs
    })
}

fn proofs() -> impl Strategy<Value = Proven> {
    proptest::collection::vec((0..5usize, 0..100_000i64), 0..4).prop_map(|proofs| {
        let proofs = proofs.into_iter();
        proofs.fold(Proven::none(), |proven, (factor, age_ms)| {
            proven.with(Factor::ALL[factor], NOW_MS - age_ms)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A level takes and never gives; and what is said to be missing is enough.
    #[test]
    fn levels_only_tighten_and_the_missing_factors_help(
        upper in proptest::collection::vec(demands(), 0..3),
        lower in proptest::collection::vec(demands(), 0..3),
        proven in proofs(),
    ) {
        let mut org = org();
        org.demand(in_field(), &upper);
        let before = org.ask("alice", &proven, Post, &closed());
        org.demand(Scope::Room(closed()), &lower);
        let after = org.ask("alice", &proven, Post, &closed());
        prop_assert!(before.is_ok() || after.is_err());
        if let Err(denied) = after {
            prop_assert!(!denied.missing().is_empty());
            let mut helped = proven;
            for missing in denied.missing() {
                helped = helped.with(missing.demand.factor(), NOW_MS);
            }
            for (number, by) in ["i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9", "ia",
                "ib", "ic", "id", "ie", "if", "ig"].into_iter().enumerate() {
                org.users = 100 + u8::try_from(number).unwrap();
                org.enrol(by);
                org.grant(by, in_field(), Role::Owner);
                org.introduce("alice", by);
            }
            prop_assert!(org.ask("alice", &helped, Post, &closed()).is_ok());
        }
    }

    #[test]
    fn policies_survive_the_wire(
        demands in proptest::collection::vec(demands(), 0..16),
        cedar in ".{0,40}",
    ) {
        let parsed = policy(&demands, &cedar).unwrap();
        prop_assert_eq!(&parsed, &LevelPolicy::try_from(parsed.to_wire()).unwrap());
        // Compiling never panics, and forms always fit the schema.
        let _ = parsed.validate();
        prop_assert_eq!(policy(&demands, "").unwrap().validate(), Ok(()));
    }
}
