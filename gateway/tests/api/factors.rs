//! Factors: enrolled, proven once per code, and forgotten.

use std::time::Duration;

use bytes::Bytes;
use sotto_gateway::clock::Clock;
use sotto_proto::wire::{
    ApiError, ApiErrorCode, Factor, FactorProven, FactorRemove, FactorStanding, FactorsRequest,
    PasswordProve, TotpEnrol, TotpProve,
};
use totp_rs::Totp;

use super::person::{Device, Login, PASSWORD, Person, log_in};
use super::server::{Server, code};

/// An authenticator app.
pub struct App {
    pub id: Bytes,
    totp: Totp,
}

impl App {
    /// Enrols an app of this person, up to its first code.
    pub async fn begin(server: &Server, person: &Person) -> Result<Self, ApiError> {
        let enrolled = person.call(server, &TotpEnrol {}).await?;
        Ok(Self {
            id: enrolled.id,
            totp: Totp::from_url(&enrolled.url).unwrap(),
        })
    }

    /// Enrols an app of this person.
    pub async fn enrol(server: &Server, person: &Person) -> Self {
        let app = Self::begin(server, person).await.unwrap();
        let first = TotpProve {
            code: app.code(server),
            id: app.id.clone(),
        };
        person.call(server, &first).await.unwrap();
        app
    }

    /// What it shows now.
    pub fn code(&self, server: &Server) -> String {
        let now_s = server.clock.now_ms() as u64 / 1_000;
        self.totp.generate(now_s).to_string()
    }

    /// Proves it with the next code.
    pub async fn prove(&self, server: &Server, person: &Person) -> Result<FactorProven, ApiError> {
        server.clock.advance(Duration::from_secs(30));
        self.prove_with(server, person, self.code(server)).await
    }

    async fn prove_with(
        &self,
        server: &Server,
        person: &Person,
        code: String,
    ) -> Result<FactorProven, ApiError> {
        let id = Bytes::new();
        person.call(server, &TotpProve { code, id }).await
    }

    /// Six digits that it does not show around now.
    fn wrong(&self, server: &Server) -> String {
        let now_s = server.clock.now_ms() as u64 / 1_000;
        let shown = [now_s - 30, now_s, now_s + 30].map(|at| self.totp.generate(at).to_string());
        let mut codes = (0..4).map(|n| format!("00000{n}"));
        codes.find(|code| !shown.contains(code)).unwrap()
    }
}

async fn standing(server: &Server, person: &Person) -> Vec<FactorStanding> {
    person
        .call(server, &FactorsRequest {})
        .await
        .unwrap()
        .factors
}

fn proven(standing: &[FactorStanding], factor: Factor) -> Option<i64> {
    let found = standing.iter().find(|found| found.factor() == factor);
    found.map(|found| found.proven_ms)
}

#[tokio::test]
async fn an_app_is_enrolled_by_its_first_code_and_each_code_counts_once() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let app = App::begin(&server, &alice).await.unwrap();
    let before = standing(&server, &alice).await;
    assert_eq!(proven(&before, Factor::Totp), None);
    // Not by its secret alone: the first code must name it.
    let unnamed = app.prove_with(&server, &alice, app.code(&server)).await;
    assert_eq!(code(unnamed), ApiErrorCode::NotFound);

    let first = TotpProve {
        code: app.code(&server),
        id: app.id.clone(),
    };
    let proof = alice.call(&server, &first).await.unwrap();
    assert_eq!(proof.proven_ms, server.clock.now_ms());
    let after = standing(&server, &alice).await;
    assert_eq!(proven(&after, Factor::Totp), Some(proof.proven_ms));
    assert_eq!(after[1].id, app.id);
    assert_eq!(after[1].enrolled_ms, proof.proven_ms);

    let again = alice.call(&server, &first).await;
    assert_eq!(code(again), ApiErrorCode::Denied);
    app.prove(&server, &alice).await.unwrap();
    // It is this device that has proven it.
    let second = alice.on_another_device(&server).await;
    let there = standing(&server, &second).await;
    assert_eq!(proven(&there, Factor::Totp), Some(0));
    assert_eq!(proven(&there, Factor::Password), Some(0));
}

#[tokio::test]
async fn of_one_code_at_two_gateways_at_once_one_counts() {
    let one = Server::start().await;
    let two = Server::start_on(one.directory.clone()).await;
    let alice = Person::first(&one, "acme", "alice").await;
    let app = App::enrol(&one, &alice).await;
    for _ in 0..5 {
        one.clock.advance(Duration::from_secs(30));
        let ahead = one.clock.now_ms() - two.clock.now_ms();
        two.clock
            .advance(Duration::from_millis(ahead.max(0) as u64));
        let shown = app.code(&one);
        let at_one = (0..4).map(|_| app.prove_with(&one, &alice, shown.clone()));
        let at_two = (0..4).map(|_| app.prove_with(&two, &alice, shown.clone()));
        let answers = futures::future::join_all(at_one.chain(at_two)).await;
        let counted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(counted, 1, "{answers:?}");
        // Seven wrong ones: wait, and start over.
        one.clock.advance(Duration::from_secs(3_600));
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_at_all_gateways_together() {
    let one = Server::start().await;
    let two = Server::start_on(one.directory.clone()).await;
    let alice = Person::first(&one, "acme", "alice").await;
    let app = App::enrol(&one, &alice).await;
    let second = alice.on_another_device(&one).await;
    let wrong = app.wrong(&one);
    let mut refusals = Vec::new();
    for n in 0..8 {
        let (server, person) = match n % 2 {
            0 => (&one, &alice),
            _ => (&two, &second),
        };
        refusals.push(code(app.prove_with(server, person, wrong.clone()).await));
    }
    assert_eq!(refusals[..5], [ApiErrorCode::Denied; 5]);
    assert_eq!(refusals[5..], [ApiErrorCode::TooMany; 3]);
    // Another user is not held up, and neither is the password.
    let bob = alice.invite_new(&one, "bob").await;
    App::enrol(&one, &bob).await;
    alice.prove_password(&one, &alice.user).await.unwrap();
    one.clock.advance(Duration::from_secs(31));
    app.prove_with(&one, &alice, app.code(&one)).await.unwrap();
}

#[tokio::test]
async fn changing_factors_needs_a_fresh_proof() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let needed = |refused: Result<_, ApiError>| {
        let error = refused.err().unwrap();
        assert_eq!(error.code(), ApiErrorCode::FactorNeeded, "{error:?}");
        let demand = error.missing[0].demand.clone().unwrap();
        assert!(error.missing[0].enrolled);
        demand.factor()
    };
    // Signing up was such a proof, for ten minutes.
    server.clock.advance(Duration::from_secs(601));
    let refused = App::begin(&server, &alice).await.map(drop);
    assert_eq!(needed(refused), Factor::Password);
    alice.prove_password(&server, &alice.user).await.unwrap();
    let first = App::enrol(&server, &alice).await;

    // From now on the password is not enough.
    server.clock.advance(Duration::from_secs(601));
    alice.prove_password(&server, &alice.user).await.unwrap();
    let refused = App::begin(&server, &alice).await.map(drop);
    assert_eq!(needed(refused), Factor::Totp);
    let remove = FactorRemove {
        id: first.id.clone(),
    };
    assert_eq!(
        needed(alice.call(&server, &remove).await.map(drop)),
        Factor::Totp
    );
    first.prove(&server, &alice).await.unwrap();
    let second = App::enrol(&server, &alice).await;
    server.clock.advance(Duration::from_secs(30));
    second.prove(&server, &alice).await.unwrap();
    alice.call(&server, &remove).await.unwrap();

    assert_eq!(
        code(first.prove(&server, &alice).await),
        ApiErrorCode::Denied
    );
    assert_eq!(
        code(alice.call(&server, &remove).await),
        ApiErrorCode::NotFound
    );
    second.prove(&server, &alice).await.unwrap();
    let left = standing(&server, &alice).await;
    assert_eq!(left.len(), 2);
    assert_eq!(left[1].id, second.id);
}

#[tokio::test]
async fn an_owner_takes_away_what_somebody_lost() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let carol = alice.invite_new(&server, "carol").await;
    let lost = App::enrol(&server, &bob).await;
    let remove = FactorRemove {
        id: lost.id.clone(),
    };
    let refused = carol.call(&server, &remove).await;
    assert_eq!(code(refused), ApiErrorCode::Denied);
    lost.prove(&server, &bob).await.unwrap();

    alice.call(&server, &remove).await.unwrap();
    let refused = lost.prove(&server, &bob).await;
    assert_eq!(code(refused), ApiErrorCode::NotFound);
    assert_eq!(
        proven(&standing(&server, &bob).await, Factor::Totp),
        None,
        "a proof of what was removed"
    );
    bob.prove_password(&server, &bob.user).await.unwrap();
    App::enrol(&server, &bob).await;
    let unknown = FactorRemove {
        id: Bytes::from_static(&[9; 16]),
    };
    for nothing in [unknown, FactorRemove::default()] {
        let refused = code(alice.call(&server, &nothing).await);
        let expected = match nothing.id.len() {
            16 => ApiErrorCode::NotFound,
            _ => ApiErrorCode::Malformed,
        };
        assert_eq!(refused, expected);
    }
}

#[tokio::test]
async fn the_password_is_proven_by_its_own_user_only() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let signed_up = server.clock.now_ms();
    let at = |standing: Vec<FactorStanding>| proven(&standing, Factor::Password);
    assert_eq!(at(standing(&server, &bob).await), Some(signed_up));
    server.clock.advance(Duration::from_secs(100));
    // Alice knows hers, but sits at Bob's device.
    let refused = bob.prove_password(&server, &alice.user).await;
    assert_eq!(code(refused), ApiErrorCode::WrongPassword);
    let forged = PasswordProve {
        login: Bytes::from_static(&[1; 300]),
        opaque_finalization: Bytes::from_static(&[7; 64]),
    };
    let refused = bob.call(&server, &forged).await;
    assert_eq!(code(refused), ApiErrorCode::WrongPassword);
    assert_eq!(at(standing(&server, &bob).await), Some(signed_up));
    let proof = bob.prove_password(&server, &bob.user).await.unwrap();
    assert_eq!(at(standing(&server, &bob).await), Some(proof.proven_ms));
}

#[tokio::test]
async fn a_device_that_the_password_enrolled_has_proven_it_then() {
    let server = Server::start().await;
    let mut alice = Person::first(&server, "acme", "alice").await;
    let login = log_in(&server, ("acme", "alice"), PASSWORD, Duration::ZERO).await;
    let Login::Finished(Ok(finished)) = login else {
        panic!("{login:?}");
    };
    let logged_in = server.clock.now_ms();
    server.clock.advance(Duration::from_secs(7_200));
    alice.token = finished.session.unwrap().token;
    let second = Device::new();
    alice.token = alice.enrol(&server, &second).await.unwrap().token;
    let there = standing(&server, &alice).await;
    assert_eq!(proven(&there, Factor::Password), Some(logged_in));
}
