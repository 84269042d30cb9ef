//! Role changes appended by one gateway and seen by another, beside the same
//! number of messages of the same size in a plain stream of the same server.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use sotto_jwt_accounts::directory::{
    Actor, By, Command, DirectoryLog, DirectoryWriter, Holder, InviteHash, Role, Scope,
};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::{DeviceId, OrgName, ProjectName, UserName};

use crate::figures::{Figures, percentile};
use crate::nats::NatsServer;

/// About what one role change weighs in the log, in bytes.
const ENTRY: usize = 180;

pub(crate) async fn measure(changes: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let server = NatsServer::start()?;
    let raw = raw(&server, changes).await?;
    figures.note("raw JetStream, one at a time, synced", raw, "/s", None);

    let key = SigningKey::generate(&mut ChaCha20Rng::seed_from_u64(3));
    let org: OrgName = "acme".parse()?;
    let first = jetstream::new(server.connect().await?);
    let second = jetstream::new(server.connect().await?);
    let writer = DirectoryWriter::open(&first, 1, org.clone(), key.clone(), None).await?;
    let user = begin(&writer, &key, &org).await?;
    let reader = DirectoryLog::open(&second, 1, org, key.verifying_key(), None).await?;

    let seen = tokio::spawn(watch(
        reader,
        changes as u64 + writer.log().state()?.head().length,
    ));
    let mut appended = Vec::with_capacity(changes);
    let mut took = Vec::with_capacity(changes);
    let started = Instant::now();
    for number in 0..changes {
        let scope = Scope::Project(project()?);
        let holder = Holder::User(user.clone());
        let command = if number % 2 == 0 {
            Command::GrantRole {
                holder,
                scope,
                role: Role::Owner,
            }
        } else {
            Command::RevokeRole { holder, scope }
        };
        let begun = Instant::now();
        let done = writer.append(&gateway(), command, now_ms()).await?;
        took.push(begun.elapsed());
        appended.push((done.state.head().length, Instant::now()));
    }
    let elapsed = started.elapsed().as_secs_f64();
    let seen = seen.await??;
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let rate = changes as f64 / elapsed;
    figures.note("role changes, one after the other", rate, "/s", None);
    figures.note("  of raw JetStream", rate / raw, "", None);
    figures.note("  p50", percentile(&mut took, 0.50), "us", None);
    figures.note("  p99", percentile(&mut took, 0.99), "us", None);
    let mut lags: Vec<Duration> = appended
        .iter()
        .filter_map(|(length, at)| {
            let place = seen.partition_point(|(known, _)| known < length);
            seen.get(place)
                .map(|(_, seen)| seen.saturating_duration_since(*at))
        })
        .collect();
    figures.note(
        "seen by a second gateway after, p50",
        percentile(&mut lags, 0.50),
        "us",
        None,
    );
    figures.note(
        "seen by a second gateway after, p99",
        percentile(&mut lags, 0.99),
        "us",
        None,
    );
    Ok(())
}

/// When the second gateway knew the log up to which length.
async fn watch(reader: DirectoryLog, last: u64) -> anyhow::Result<Vec<(u64, Instant)>> {
    let mut known = reader.subscribe();
    let mut seen = Vec::new();
    loop {
        let length = known
            .borrow_and_update()
            .as_ref()
            .map_err(Clone::clone)?
            .head()
            .length;
        seen.push((length, Instant::now()));
        if length >= last {
            return Ok(seen);
        }
        known.changed().await.context("the directory ended")?;
    }
}

/// Messages of the size of a role change, one at a time, per second.
async fn raw(server: &NatsServer, messages: usize) -> anyhow::Result<f64> {
    let js = jetstream::new(server.connect().await?);
    js.create_stream(stream::Config {
        name: "RAW".to_owned(),
        subjects: vec!["raw".to_owned()],
        allow_direct: true,
        ..stream::Config::default()
    })
    .await?;
    let payload = Bytes::from(vec![7; ENTRY]);
    let started = Instant::now();
    for _ in 0..messages {
        js.publish("raw", payload.clone()).await?.await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    Ok(messages as f64 / started.elapsed().as_secs_f64())
}

/// The first events of an org, with two owners, one of whom stays.
async fn begin(
    writer: &DirectoryWriter,
    key: &SigningKey,
    org: &OrgName,
) -> anyhow::Result<UserName> {
    let mut commands = vec![
        Command::CreateOrg {
            org: org.clone(),
            gateway_key: key.verifying_key(),
        },
        Command::CreateProject {
            project: project()?,
        },
    ];
    let invite = InviteHash([1; 32]);
    commands.push(Command::IssueInvite {
        invite,
        expires_ms: i64::MAX,
        scope: Scope::Org,
        role: Role::Owner,
        for_user: None,
        guest_until_ms: None,
    });
    for command in commands {
        writer.append(&gateway(), command, now_ms()).await?;
    }
    let user: UserName = "alice".parse()?;
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let identity = SigningKey::generate(&mut rng);
    let certificate = DeviceCertificate {
        org: org.clone(),
        user: user.clone(),
        device: DeviceId::random(&mut rng),
        identity_key: identity.verifying_key(),
        signature_key: SigningKey::generate(&mut rng).verifying_key(),
        nats_key: nkeys::KeyPair::new_user().public_key(),
        not_before_ms: now_ms(),
        not_after_ms: now_ms() + 1_000_000_000,
    };
    let enrol = Command::Enrol {
        invite,
        certificate: certificate.sign(&identity),
    };
    let by = By::from(Actor::User(user.clone()));
    writer.append(&by, enrol, now_ms()).await?;
    Ok(user)
}

fn gateway() -> By {
    By::from(Actor::Gateway)
}

fn project() -> anyhow::Result<ProjectName> {
    Ok("field".parse()?)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}
