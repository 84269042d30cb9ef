use rand::rngs::OsRng;

use super::*;

const NOW_MS: i64 = 1_790_000_000_000;
const STEP_MS: i64 = 30_000;

fn totps() -> Totps {
    Totps::new(&SigningKey::from_bytes(&[7; 32]))
}

fn alice() -> (OrgName, UserName) {
    ("acme".parse().unwrap(), "alice".parse().unwrap())
}

/// What the app shows at a time.
fn code(app: &NewApp, now_ms: i64) -> String {
    let totp = Totp::from_url(app.url.as_str()).unwrap();
    totp.generate(now_ms as u64 / 1_000).to_string()
}

fn enrol(stored: Option<FactorsRecord>, now_ms: i64) -> Result<(FactorsRecord, NewApp), Refusal> {
    let (org, user) = alice();
    let id = FactorId::random(&mut OsRng);
    totps().enrol((&org, &user), id, stored, |_| true, now_ms, &mut OsRng)
}

fn prove(
    record: &FactorsRecord,
    only: Option<FactorId>,
    code: &str,
    now_ms: i64,
) -> Result<(FactorsRecord, Outcome), Refusal> {
    let (org, user) = alice();
    let stored = Some(record.clone());
    totps().prove((&org, &user), stored, |_| true, (only, code), now_ms)
}

/// A six-digit code that is none of the app's around a time.
fn wrong(app: &NewApp, now_ms: i64) -> String {
    let right: Vec<_> = (-1..=1).map(|n| code(app, now_ms + n * STEP_MS)).collect();
    let mut codes = (0..4).map(|n| format!("00000{n}"));
    codes.find(|code| !right.contains(code)).unwrap()
}

#[test]
fn a_code_counts_once_and_older_ones_no_more() {
    let (record, app) = enrol(None, NOW_MS).unwrap();
    let (used, outcome) = prove(&record, None, &code(&app, NOW_MS), NOW_MS).unwrap();
    assert_eq!(outcome, Outcome::Right(app.id));
    for before in [NOW_MS, NOW_MS - STEP_MS] {
        let (_, outcome) = prove(&used, None, &code(&app, before), NOW_MS).unwrap();
        assert_eq!(outcome, Outcome::Wrong);
    }
    let next = NOW_MS + STEP_MS;
    let (_, outcome) = prove(&used, None, &code(&app, next), NOW_MS).unwrap();
    assert_eq!(outcome, Outcome::Right(app.id));
}

#[test]
fn a_code_is_good_for_a_minute_and_a_half() {
    let (record, app) = enrol(None, NOW_MS).unwrap();
    for (steps, good) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
        let shown = code(&app, NOW_MS + steps * STEP_MS);
        let (_, outcome) = prove(&record, None, &shown, NOW_MS).unwrap();
        assert_eq!(outcome != Outcome::Wrong, good, "{steps}");
    }
    let right = code(&app, NOW_MS);
    for odd in [
        "",
        "1",
        &format!("{right} "),
        &format!("+{right}"),
        "abcdef",
    ] {
        let (_, outcome) = prove(&record, None, odd, NOW_MS).unwrap();
        assert_eq!(outcome, Outcome::Wrong, "{odd}");
    }
}

#[test]
fn wrong_codes_make_the_next_wait() {
    let (mut record, app) = enrol(None, NOW_MS).unwrap();
    let mut now_ms = NOW_MS;
    for n in 1..FREE_GUESSES {
        let (after, outcome) = prove(&record, None, &wrong(&app, now_ms), now_ms).unwrap();
        assert_eq!((outcome, after.wrong), (Outcome::Wrong, n));
        assert_eq!(after.wait_until_ms, 0);
        record = after;
    }
    let mut waits = Vec::new();
    for _ in 0..10 {
        (record, _) = prove(&record, None, &wrong(&app, now_ms), now_ms).unwrap();
        waits.push((record.wait_until_ms - now_ms) / 1_000);
        // Even the right code is not looked at.
        let refused = prove(&record, None, &code(&app, now_ms), record.wait_until_ms - 1);
        assert!(matches!(refused, Err(Refusal::TooMany(_))), "{refused:?}");
        now_ms = record.wait_until_ms;
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    let (record, outcome) = prove(&record, None, &code(&app, now_ms), now_ms).unwrap();
    assert_eq!(outcome, Outcome::Right(app.id));
    assert_eq!((record.wrong, record.wait_until_ms), (0, 0));
}

#[test]
fn an_app_that_the_directory_does_not_know_counts_only_by_name_and_only_for_a_while() {
    let (record, app) = enrol(None, NOW_MS).unwrap();
    let (org, user) = alice();
    let prove = |only, now_ms| {
        let asked = (only, code(&app, now_ms));
        let asked = (asked.0, asked.1.as_str());
        totps().prove(
            (&org, &user),
            Some(record.clone()),
            |_| false,
            asked,
            now_ms,
        )
    };
    assert!(matches!(prove(None, NOW_MS), Err(Refusal::NotFound(_))));
    assert!(matches!(
        prove(Some(FactorId::try_from(&[9u8; 16][..]).unwrap()), NOW_MS),
        Err(Refusal::NotFound(_))
    ));
    let (_, outcome) = prove(Some(app.id), NOW_MS + ENROLMENT_MS).unwrap();
    assert_eq!(outcome, Outcome::Right(app.id));
    assert!(matches!(
        prove(Some(app.id), NOW_MS + ENROLMENT_MS + 1),
        Err(Refusal::NotFound(_))
    ));
}

#[test]
fn there_are_only_so_many_apps_and_forgotten_enrolments_make_room() {
    let mut record = None;
    for _ in 0..APPS {
        record = Some(enrol(record, NOW_MS).unwrap().0);
    }
    let refused = enrol(record.clone(), NOW_MS).map(|_| ());
    assert!(matches!(refused, Err(Refusal::TooMany(_))), "{refused:?}");
    let (org, user) = alice();
    let later = NOW_MS + ENROLMENT_MS + 1;
    let owner = (&org, &user);
    let id = FactorId::random(&mut OsRng);
    let made = totps().enrol(owner, id, record, |_| false, later, &mut OsRng);
    assert_eq!(made.unwrap().0.totps.len(), 1);
}

#[test]
fn a_secret_opens_only_where_it_was_put() {
    let (record, app) = enrol(None, NOW_MS).unwrap();
    let (org, user) = alice();
    let right = code(&app, NOW_MS);
    let open = |totps: &Totps, org: &str, user: &str, record: &FactorsRecord| {
        let (org, user) = (org.parse().unwrap(), user.parse().unwrap());
        let asked = (None, right.as_str());
        totps
            .prove((&org, &user), Some(record.clone()), |_| true, asked, NOW_MS)
            .map(|(_, outcome)| outcome)
    };
    let (org, user) = (org.as_str(), user.as_str());
    let unavailable = Err(Refusal::Unavailable);
    assert_eq!(
        open(&totps(), org, user, &record),
        Ok(Outcome::Right(app.id))
    );
    assert_eq!(open(&totps(), "other", user, &record), unavailable);
    assert_eq!(open(&totps(), org, "bob", &record), unavailable);
    let strange = Totps::new(&SigningKey::from_bytes(&[8; 32]));
    assert_eq!(open(&strange, org, user, &record), unavailable);
    let sealed = record.totps[0].sealed.clone();
    for at in 0..sealed.len() {
        let mut changed = sealed.to_vec();
        changed[at] ^= 1;
        let mut record = record.clone();
        record.totps[0].sealed = changed.into();
        assert_eq!(open(&totps(), org, user, &record), unavailable, "{at}");
    }
    let secret = Totp::from_url(app.url.as_str()).unwrap();
    let secret = secret.secret().as_bytes();
    assert!(!sealed.windows(SECRET).any(|window| window == secret));
}

#[test]
fn the_url_says_whose_and_of_what() {
    let (_, app) = enrol(None, NOW_MS).unwrap();
    let totp = Totp::from_url(app.url.as_str()).unwrap();
    assert_eq!(totp.issuer(), Some("Sotto acme"));
    assert_eq!(totp.account_name(), "alice");
    assert_eq!((totp.digits(), totp.step()), (6, 30));
}
