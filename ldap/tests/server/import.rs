//! The whole way of an import, again and again, while the server changes.

use std::time::Instant;

use sotto_jwt_accounts::directory::{COMMANDS_MAX, Role, Scope, State, UserStatus};
use sotto_ldap::Mapping;
use sotto_ldap::import::fetch;
use sotto_ldap::plan::{Plan, PlanOptions, plan};

use crate::export::{apply, org};
use crate::slapd::{PASSWORD, SUFFIX, Slapd, organisation, person, person_dn};

fn rules() -> String {
    format!(
        "[[rules]]\nou = \"ou=research,ou=people,{SUFFIX}\"\nproject = \"research\"\nrole = \"user\"\n\
         [[rules]]\ngroup = \"cn=group-0,ou=groups,{SUFFIX}\"\nrole = \"owner\"\n"
    )
}

async fn import(mapping: &Mapping, state: &mut State, remove_missing: bool) -> Plan {
    let entries = fetch(mapping, PASSWORD).await.unwrap();
    let options = PlanOptions { remove_missing };
    let started = Instant::now();
    let plan = plan(&entries, mapping, state, options).unwrap();
    eprintln!(
        "{} changes planned in {:?}",
        plan.commands.len(),
        started.elapsed()
    );
    for commands in plan.commands.chunks(COMMANDS_MAX) {
        let commands = commands
            .iter()
            .cloned()
            .map(|command| command.try_into().unwrap());
        apply(state, commands.collect());
    }
    plan
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.diff.steps.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn twelve_hundred_people_are_imported_once() {
    let slapd = Slapd::start("", &organisation(1_200, 7));
    let mapping = slapd.mapping(&rules());
    let mut state = org();
    let first = import(&mapping, &mut state, false).await;
    assert!(first.diff.refused.is_empty(), "{}", first.diff);
    assert_eq!(state.users().count(), 1_200);
    // Each person, their group, and research for half of them; seven groups,
    // research, its project, and two roles.
    assert_eq!(first.commands.len(), 1_200 + 1_200 + 600 + 8 + 1 + 2);
    let research = Scope::Project("research".parse().unwrap());
    let role = |n: usize| state.effective_role(&format!("person-{n}").parse().unwrap(), &research);
    assert_eq!(
        [role(0), role(1), role(2)],
        [Some(Role::Owner), None, Some(Role::User)]
    );

    for remove_missing in [false, true] {
        let again = import(&mapping, &mut state, remove_missing).await;
        assert_eq!(lines(&again), Vec::<String>::new());
        assert!(again.diff.kept.is_empty());
    }
}

#[tokio::test]
async fn changes_on_the_server_are_followed() {
    let slapd = Slapd::start("", &organisation(9, 3));
    let mapping = slapd.mapping(&rules());
    let mut state = org();
    import(&mapping, &mut state, false).await;

    // Renamed, moved into research, and somebody new.
    slapd.modify(&person(10)).unwrap();
    slapd
        .modify(&format!(
            "dn: {dn}\nchangetype: modify\nreplace: displayName\ndisplayName:: w4Vsb2RpZQ==\n\n\
             dn: {dn}\nchangetype: moddn\nnewrdn: uid=renamed\ndeleteoldrdn: 1\n\
             newsuperior: ou=research,ou=people,{SUFFIX}\n",
            dn = person_dn(1),
        ))
        .unwrap();
    let plan = import(&mapping, &mut state, true).await;
    assert_eq!(
        lines(&plan),
        [
            "+ user person-10 (Person 10)",
            "~ user person-1 is called Ålodie",
            "+ user person-1 in group research",
            "+ user person-10 in group research",
            // slapd does not follow names in groups.
            "- user person-1 in group group-1",
        ]
    );

    // Somebody and a group go.
    slapd
        .modify(&format!(
            "dn: {}\nchangetype: delete\n\ndn: cn=group-2,ou=groups,{SUFFIX}\nchangetype: delete\n",
            person_dn(3)
        ))
        .unwrap();
    let kept = import(&mapping, &mut state, false).await;
    assert!(kept.commands.is_empty());
    assert_eq!(kept.diff.kept.len(), 2, "{}", kept.diff);
    let removed = import(&mapping, &mut state, true).await;
    assert_eq!(lines(&removed), ["- user person-3", "- group group-2"]);
    let gone = state.user(&"person-3".parse().unwrap()).unwrap();
    assert_eq!(gone.status, UserStatus::Revoked);
    assert!(import(&mapping, &mut state, true).await.commands.is_empty());
}
