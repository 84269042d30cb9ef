//! The streams of an org (DESIGN section 6), but for the directory's own.

use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, Republish, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode};
use sotto_proto::{
    INBOX_STREAM, INBOX_STREAM_SUBJECTS, Shard, blob_stream, blob_stream_subjects, limits,
    mail_stream, mail_stream_subjects,
};
use sotto_service::awaiting_leaders;
use sotto_service::config::Limits;

use crate::fetch::PAYLOAD_MAX;

/// A stored message, headers included. What is left of a NATS message is for
/// the headers that republishing adds, or for the frame of catch-up.
const MESSAGE_MAX: usize = limits::PAYLOAD + 4_096;
const _: () = assert!(MESSAGE_MAX <= PAYLOAD_MAX);
/// How long the inbox is kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long a message id is remembered: a device that was killed before its
/// ack came sends again under the same id.
const DUPLICATES: Duration = Duration::from_secs(600);

/// Why an org's streams are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// nats-server does not make or change it.
    #[error("cannot make the stream {name}: {source}")]
    Refused {
        /// Which stream.
        name: String,
        /// Why.
        source: CreateStreamError,
    },
    /// Nobody answers for the streams: the nodes agree on no leader yet, or too
    /// few of them are there to keep a new stream.
    #[error("the cluster does not have the stream {name} yet: {why}")]
    NoLeader {
        /// Which stream.
        name: String,
        /// What was said instead.
        why: String,
    },
    /// nats-server says that it is something else than was demanded.
    #[error("the stream {name} is not what was demanded: {problem}")]
    Unsuitable {
        /// Which stream.
        name: String,
        /// In what.
        problem: &'static str,
    },
}

impl StreamError {
    fn of(name: &str, source: CreateStreamError) -> Self {
        let name = name.to_owned();
        let silent = matches!(
            source.kind(),
            CreateStreamErrorKind::TimedOut | CreateStreamErrorKind::Response
        );
        let passes = silent || awaiting_leaders::lacks_nodes(&source);
        match passes {
            true => Self::NoLeader {
                name,
                why: source.to_string(),
            },
            false => Self::Refused { name, source },
        }
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        _ => false,
    }
}

/// Makes the streams that are missing, on as many nodes as there are to be
/// `copies`, and changes those that differ.
///
/// # Errors
/// [`StreamError`].
pub async fn ensure(
    jetstream: &jetstream::Context,
    shards: impl IntoIterator<Item = Shard>,
    limits: &Limits,
    copies: usize,
) -> Result<(), StreamError> {
    let mut wanted = vec![inbox()];
    for shard in shards {
        wanted.push(mail(shard));
        wanted.push(blobs(shard, limits));
    }
    for config in wanted {
        let name = config.name.clone();
        // On how many nodes one is kept that is there is decided elsewhere. One
        // that nobody answers for is not one that is missing: it keeps its copies.
        let num_replicas = match jetstream.get_stream(&name).await {
            Ok(stream) => stream.cached_info().config.num_replicas,
            Err(error) if is_missing(&error) => copies,
            Err(error) => {
                let why = error.to_string();
                return Err(StreamError::NoLeader { name, why });
            }
        };
        let config = Config {
            num_replicas,
            ..config
        };
        let made = jetstream.create_or_update_stream(config.clone()).await;
        let made = made.map_err(|source| StreamError::of(&name, source))?;
        verify(&config, &made.config)
            .map_err(|problem| StreamError::Unsuitable { name, problem })?;
    }
    Ok(())
}

/// Messages and handshakes of a shard's rooms. Handshakes stay as long as their
/// room does; a message says itself how long it stays (`ingest`).
fn mail(shard: Shard) -> Config {
    let subjects = mail_stream_subjects(shard);
    Config {
        republish: Some(republish(subjects.clone(), format!("live.{subjects}"))),
        allow_message_ttl: true,
        ..stream(mail_stream(shard), subjects)
    }
}

/// Chunks of the files of a shard's rooms.
fn blobs(shard: Shard, org: &Limits) -> Config {
    let days = org.retention_days.map(u32::from);
    let retention = days.map_or(limits::FILE, |days| Duration::from_secs(24 * 3_600) * days);
    Config {
        max_age: retention.min(limits::FILE),
        ..stream(blob_stream(shard), blob_stream_subjects(shard))
    }
}

/// What is sent to devices outside any room.
fn inbox() -> Config {
    // The destination of a republish names its wildcards by number.
    let destination = "live.inbox.{{wildcard(1)}}".to_owned();
    Config {
        republish: Some(republish(INBOX_STREAM_SUBJECTS.to_owned(), destination)),
        max_age: KEPT,
        ..stream(INBOX_STREAM.to_owned(), INBOX_STREAM_SUBJECTS.to_owned())
    }
}

fn stream(name: String, subjects: String) -> Config {
    Config {
        name,
        subjects: vec![subjects],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_message_size: i32::try_from(MESSAGE_MAX).unwrap_or(i32::MAX),
        duplicate_window: DUPLICATES,
        allow_direct: true,
        ..Config::default()
    }
}

fn republish(source: String, destination: String) -> Republish {
    Republish {
        source,
        destination,
        headers_only: false,
    }
}

/// What an acknowledged message and catch-up depend on.
fn verify(wanted: &Config, made: &Config) -> Result<(), &'static str> {
    let demands = [
        (made.storage == StorageType::File, "it is not kept in files"),
        (!made.no_ack, "it does not acknowledge"),
        (
            made.persist_mode != Some(PersistenceMode::Async),
            "it acknowledges before it has stored",
        ),
        (
            made.discard == wanted.discard && made.retention == wanted.retention,
            "it deletes messages by itself",
        ),
        (
            made.duplicate_window == wanted.duplicate_window,
            "it remembers message ids for another time",
        ),
        (made.subjects == wanted.subjects, "it has other subjects"),
        (
            made.republish == wanted.republish,
            "it republishes elsewhere",
        ),
        (made.allow_direct, "it does not allow direct reads"),
        (
            made.max_message_size == wanted.max_message_size,
            "it takes longer messages",
        ),
        (
            made.max_age == wanted.max_age,
            "it keeps messages for another time",
        ),
        (
            made.allow_message_ttl == wanted.allow_message_ttl,
            "it treats message lifetimes differently",
        ),
    ];
    match demands.iter().find(|(met, _)| !met) {
        Some((_, problem)) => Err(problem),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: usize, err_code: u64) -> jetstream::Error {
        let said = serde_json::json!({"code": code, "err_code": err_code});
        serde_json::from_value(said).unwrap()
    }

    #[test]
    fn a_stream_is_missing_only_when_the_server_says_so() {
        let missing = |kind| is_missing(&GetStreamError::new(kind));
        assert!(missing(GetStreamErrorKind::JetStream(said(404, 10_059))));
        // Nobody answers, or no leader is known.
        assert!(!missing(GetStreamErrorKind::Request));
        assert!(!missing(GetStreamErrorKind::JetStream(said(503, 10_008))));
    }

    #[test]
    fn what_acknowledgements_depend_on_is_demanded() {
        let wanted = mail(Shard(0));
        assert_eq!(verify(&wanted, &wanted), Ok(()));
        let changes: [fn(&mut Config); 10] = [
            |made| made.storage = StorageType::Memory,
            |made| made.no_ack = true,
            |made| made.persist_mode = Some(PersistenceMode::Async),
            |made| made.discard = DiscardPolicy::Old,
            |made| made.retention = RetentionPolicy::Interest,
            |made| made.duplicate_window = Duration::from_secs(1),
            |made| made.republish = None,
            |made| made.allow_direct = false,
            |made| made.max_age = Duration::from_secs(1),
            |made| made.allow_message_ttl = false,
        ];
        for change in changes {
            let mut made = wanted.clone();
            change(&mut made);
            assert!(verify(&wanted, &made).is_err(), "{made:?}");
        }
    }

    #[test]
    fn silence_is_no_refusal() {
        let of = |kind| StreamError::of("INBOX", CreateStreamError::new(kind));
        for passes in [
            CreateStreamErrorKind::TimedOut,
            CreateStreamErrorKind::JetStream(said(503, 10_008)),
            CreateStreamErrorKind::JetStream(said(500, 10_009)),
            CreateStreamErrorKind::JetStream(said(400, 10_005)),
        ] {
            assert!(matches!(of(passes), StreamError::NoLeader { .. }));
        }
        let full = CreateStreamErrorKind::JetStream(said(500, 10_047));
        assert!(matches!(of(full), StreamError::Refused { .. }));
    }
}
