//! Reading from a real slapd, and what is said when it does not go well.

use std::time::Instant;

use sotto_ldap::Mapping;
use sotto_ldap::import::{FetchError, Member, fetch};

use crate::slapd::{ADMIN, PASSWORD, SUFFIX, Slapd, Tls, organisation, person_dn};

#[tokio::test]
async fn twelve_hundred_people_come_in_pages_of_a_hundred() {
    let slapd = Slapd::start("", &organisation(1_200, 7));
    let rule = format!(
        "[[rules]]\nou = \"ou=research,ou=people,{SUFFIX}\"\nproject = \"research\"\nrole = \"user\""
    );
    let started = Instant::now();
    let entries = fetch(&slapd.mapping(&rule), PASSWORD).await.unwrap();
    eprintln!("1,200 people in {:?}", started.elapsed());
    assert_eq!(entries.users.len(), 1_200);
    let last = entries
        .users
        .iter()
        .find(|user| user.dn == person_dn(1_199).parse().unwrap())
        .unwrap();
    assert_eq!(last.name.as_deref(), Some("person-1199"));
    assert_eq!(last.title.as_deref(), Some("Person 1199"));
    assert_eq!(last.id.as_ref().unwrap().len(), 36);
    assert_eq!(entries.groups.len(), 7);
    let members: usize = entries.groups.iter().map(|group| group.members.len()).sum();
    assert_eq!(members, 1_200);
    let member = Member::Dn(person_dn(0).parse().unwrap());
    assert!(entries.groups[0].members.contains(&member));
    let [unit] = entries.units.as_slice() else {
        panic!("{:?}", entries.units);
    };
    assert_eq!(unit.name.as_deref(), Some("research"));
    assert!(unit.id.is_some());
}

#[tokio::test]
async fn start_tls_is_as_good() {
    let slapd = Slapd::start("", &organisation(3, 1));
    let text = slapd.mapping_text(&slapd.start_tls_url(), &slapd.authority(), "");
    let entries = fetch(&Mapping::parse(&text).unwrap(), PASSWORD)
        .await
        .unwrap();
    assert_eq!(entries.users.len(), 3);
}

#[tokio::test]
async fn nobody_else_may_be_the_server() {
    let slapd = Slapd::start("", &organisation(3, 1));
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, Tls::of("localhost").ca_pem).unwrap();
    for url in [
        slapd.start_tls_url(),
        slapd.start_tls_url().replace("ldap:", "ldaps:"),
    ] {
        let text = slapd.mapping_text(&url, &other, "");
        let error = fetch(&Mapping::parse(&text).unwrap(), PASSWORD)
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::Tls(_)), "{error}");
    }
    let by_address = slapd.start_tls_url().replace("localhost", "127.0.0.1");
    let text = slapd.mapping_text(&by_address, &slapd.authority(), "");
    let error = fetch(&Mapping::parse(&text).unwrap(), PASSWORD)
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Tls(_)), "{error}");

    std::fs::write(&other, "no certificate").unwrap();
    let text = slapd.mapping_text(&by_address, &other, "");
    let error = fetch(&Mapping::parse(&text).unwrap(), PASSWORD)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("holds no certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn a_login_that_fails_is_named() {
    let slapd = Slapd::start("", &organisation(3, 1));
    let error = fetch(&slapd.mapping(""), "wrong").await.unwrap_err();
    assert!(matches!(error, FetchError::WrongPassword), "{error}");
    // An empty password would be an anonymous login, and a success.
    let error = fetch(&slapd.mapping(""), "").await.unwrap_err();
    assert!(matches!(error, FetchError::NoPassword), "{error}");
}

#[tokio::test]
async fn a_cut_list_is_no_list() {
    let slapd = Slapd::start("limits * size.prtotal=150", &organisation(300, 1));
    let url = slapd.start_tls_url();
    let anonymous = crate::slapd::mapping_text(&url, &slapd.authority(), "", "");
    let error = fetch(&Mapping::parse(&anonymous).unwrap(), "")
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Partial(_)), "{error}");
    // The limits are not for the root of the database.
    let entries = fetch(&slapd.mapping(""), PASSWORD).await.unwrap();
    assert_eq!(entries.users.len(), 300);
}

#[tokio::test]
async fn an_empty_list_is_no_list() {
    let slapd = Slapd::start("", &organisation(0, 0));
    let error = fetch(&slapd.mapping(""), PASSWORD).await.unwrap_err();
    assert!(matches!(error, FetchError::Nothing(_)), "{error}");

    let hidden = Slapd::start("access to * by * none", &organisation(3, 1));
    let url = hidden.start_tls_url();
    let anonymous = crate::slapd::mapping_text(&url, &hidden.authority(), "", "");
    let error = fetch(&Mapping::parse(&anonymous).unwrap(), "")
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::NoSuchEntry(_)), "{error}");
}

#[tokio::test]
async fn what_the_mapping_names_must_be_there() {
    let slapd = Slapd::start("", &organisation(3, 1));
    let rule = format!("[[rules]]\nou = \"ou=reserch,ou=people,{SUFFIX}\"");
    let error = fetch(&slapd.mapping(&rule), PASSWORD).await.unwrap_err();
    assert!(
        error.to_string().contains("ou=reserch,ou=people"),
        "{error}"
    );
}

#[tokio::test]
async fn a_part_on_another_server_is_named() {
    let referral = format!(
        "dn: ou=elsewhere,ou=people,{SUFFIX}\nobjectClass: referral\nobjectClass: extensibleObject\n\
         ou: elsewhere\nref: ldap://other.example/ou=people,{SUFFIX}\n\n"
    );
    let slapd = Slapd::start("", &(organisation(3, 1) + &referral));
    let error = fetch(&slapd.mapping(""), PASSWORD).await.unwrap_err();
    assert!(matches!(error, FetchError::Elsewhere { .. }), "{error}");
    assert!(error.to_string().contains("other.example"), "{error}");
}

#[tokio::test]
async fn a_server_that_demands_a_login_is_quoted() {
    let slapd = Slapd::start("require authc", &organisation(3, 1));
    let url = slapd.start_tls_url();
    let anonymous = crate::slapd::mapping_text(&url, &slapd.authority(), "", "");
    let error = fetch(&Mapping::parse(&anonymous).unwrap(), "")
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
    assert!(!error.to_string().contains(ADMIN));
}
