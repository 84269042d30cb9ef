//! Submissions in, acknowledgements out: one task per org, which waits for
//! nothing but NATS, so that what comes is never left lying.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_TTL;
use async_nats::{Client, HeaderValue, Message, Subscriber, jetstream};
use bytes::Bytes;
use futures::StreamExt;
use sotto_jwt_accounts::directory::DirectoryLog;
use sotto_proto::refusals::{PublishAnswer, Refusal};
use sotto_proto::{DeviceId, RoomAddress, SUBMISSIONS, Subject};
use sotto_service::config::Limits;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::copy::{self, Asked, Copied, Copies};
use super::flight::{Flight, Outstanding, Reply};
use super::submission::{Addressed, Checked, EXPECTED};
use crate::intake::{ConnectionClosed, Intake};
use crate::metrics::Metrics;
use crate::nats_server::disk;
use crate::quota::{self, Counted, Counter, Ledger};

/// How often it is looked for what waits too long.
const LOOK: Duration = Duration::from_millis(500);

/// Takes in what the devices of one org submit.
pub struct IngestService {
    devices: Client,
    org: Client,
    submissions: Intake,
    acknowledgements: Subscriber,
    /// Below it JetStream answers.
    inbox: String,
    flight: Flight,
    ledger: Ledger,
    /// Rooms that are to be counted.
    to_count: mpsc::Sender<RoomAddress>,
    counted: mpsc::Receiver<Counted>,
    copies: Copies,
    copied: mpsc::Receiver<Copied>,
    /// How long streams keep messages, as the value of a header.
    kept: Option<HeaderValue>,
    /// Where nats-server keeps streams.
    store: PathBuf,
    metrics: Arc<Metrics>,
}

impl IngestService {
    /// Submissions that arrive from now on will be taken in by [`Self::run`],
    /// within these limits. Both connections are for this service alone:
    /// `devices` in the account of the org's devices, `org` in the one that
    /// holds the streams of so many shards. `directory` says what may be copied.
    ///
    /// # Errors
    /// When a connection is closed.
    pub async fn start(
        devices: Client,
        org: Client,
        directory: Arc<DirectoryLog>,
        shards: u8,
        limits: Limits,
        store: PathBuf,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConnectionClosed> {
        let closed = |_| ConnectionClosed;
        let inbox = org.new_inbox();
        let acknowledgements = org.subscribe(format!("{inbox}.*")).await.map_err(closed)?;
        org.flush().await.map_err(|_| ConnectionClosed)?;
        let submissions = Intake::start(&devices, &[SUBMISSIONS]).await?;
        let (to_count, rooms) = mpsc::channel(quota::ROOMS);
        let (counted_by, counted) = mpsc::channel(1);
        let jetstream = jetstream::new(org.clone());
        // Ends with this service, which holds the other ends.
        tokio::spawn(Counter::new(jetstream, shards, rooms, counted_by).run());
        let (copied_by, copied) = mpsc::channel(copy::CHUNKS);
        let copies = Copies::new(
            devices.clone(),
            org.clone(),
            directory,
            copied_by,
            Arc::clone(&metrics),
        );
        Ok(Self {
            devices,
            org,
            submissions,
            acknowledgements,
            inbox,
            flight: Flight::default(),
            ledger: Ledger::new(limits),
            to_count,
            counted,
            copies,
            copied,
            kept: limits.retention_days.map(lifetime),
            store,
            metrics,
        })
    }

    /// Takes in until `retire`, and acknowledges then what has come until then.
    /// What is on its way when this is dropped stays unanswered: devices submit
    /// it again under the same message ids.
    ///
    /// # Errors
    /// When a connection is closed.
    pub async fn run(mut self, retire: CancellationToken) -> Result<(), ConnectionClosed> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.submissions.has_ended() || !self.flight.is_empty() || !self.copies.is_idle() {
            let done = tokio::select! {
                // What comes seldom comes first, so that a flood cannot keep it
                // waiting; acknowledgements make room for submissions.
                biased;
                _ = look.tick() => self.give_up().await,
                Some(counted) = self.counted.recv() => {
                    self.ledger.counted(counted);
                    Ok(())
                }
                answer = self.acknowledgements.next() => match answer {
                    Some(answer) => self.answered(answer).await,
                    None => return Err(ConnectionClosed),
                },
                Some(copied) = self.copied.recv() => {
                    let Copied { device, chunk, answer } = copied;
                    self.take_in(device, Reply::Copy(answer), chunk).await
                }
                submitted = self.submissions.next(&retire), if !self.submissions.has_ended() => {
                    match submitted? {
                        Some(submitted) => self.submitted(submitted).await,
                        None => Ok(()),
                    }
                }
            };
            done?;
        }
        self.devices.flush().await.map_err(|_| ConnectionClosed)
    }

    async fn submitted(&mut self, message: Message) -> Result<(), ConnectionClosed> {
        let Some(addressed) = Addressed::of(message) else {
            return Ok(());
        };
        let (device, reply) = (addressed.device, addressed.reply.clone());
        match addressed.check() {
            Ok(checked) => match checked.subject {
                Subject::Copy { address: to, file } => {
                    let asked = Asked {
                        device,
                        reply: reply.clone(),
                        to,
                        file,
                        request: checked.payload,
                    };
                    match self.copies.begin(asked) {
                        Ok(()) => Ok(()),
                        Err(refusal) => self.refuse(Reply::Device(reply), refusal).await,
                    }
                }
                _ => self.take_in(device, Reply::Device(reply), checked).await,
            },
            Err(refusal) => self.refuse(Reply::Device(reply), refusal).await,
        }
    }

    /// Publishes what is within the limits.
    async fn take_in(
        &mut self,
        device: DeviceId,
        reply: Reply,
        mut checked: Checked,
    ) -> Result<(), ConnectionClosed> {
        let bytes = checked.payload.len();
        if !self.flight.fits(device, bytes) {
            return self.refuse(reply, Refusal::Busy).await;
        }
        let now = Instant::now();
        if let Some(room) = self.ledger.count_due(&checked.subject, now) {
            // When too many wait, this one is counted another time.
            match self.to_count.try_send(room.clone()) {
                Ok(()) => self.metrics.room_counted(),
                Err(_) => sotto_log::debug!("more rooms are to be counted than can be"),
            }
        }
        let admitted = self
            .ledger
            .admit(device, &checked.subject, bytes as u64, now);
        if let Err(refusal) = admitted {
            return self.refuse(reply, refusal).await;
        }
        if let (Subject::Messages(_), Some(kept)) = (&checked.subject, &self.kept) {
            checked.headers.insert(NATS_MESSAGE_TTL, kept.clone());
        }
        if matches!(checked.subject, Subject::Blob { .. }) {
            checked.headers.insert(EXPECTED, "0");
        }
        self.metrics.departed();
        let number = self.flight.depart(Outstanding {
            device,
            reply,
            subject: checked.subject.clone(),
            bytes,
            since: now,
        });
        self.publish(number, checked).await
    }

    async fn publish(&self, number: u64, checked: Checked) -> Result<(), ConnectionClosed> {
        let Checked {
            subject,
            headers,
            payload,
        } = checked;
        let (subject, reply) = (subject.to_string(), format!("{}.{number}", self.inbox));
        let published = if headers.is_empty() {
            self.org.publish_with_reply(subject, reply, payload).await
        } else {
            self.org
                .publish_with_reply_and_headers(subject, reply, headers, payload)
                .await
        };
        published.map_err(|_| ConnectionClosed)
    }

    async fn answered(&mut self, answer: Message) -> Result<(), ConnectionClosed> {
        let number = answer.subject.rsplit('.').next().map(str::parse);
        let Some(Ok(number)) = number else {
            return Ok(());
        };
        let Some(outstanding) = self.flight.arrive(number) else {
            return Ok(());
        };
        self.metrics.arrived();
        let bytes = outstanding.bytes as u64;
        let said = PublishAnswer::from_json(&answer.payload);
        let is_new = matches!(said, Some(PublishAnswer::Stored { duplicate, .. }) if !duplicate);
        self.ledger.arrived(&outstanding.subject, bytes, is_new);
        match said {
            Some(stored @ PublishAnswer::Stored { duplicate, .. }) => {
                self.metrics.stored(bytes, duplicate);
                self.reply(outstanding.reply, stored, answer.payload).await
            }
            Some(PublishAnswer::Refused(Refusal::WrongLastSequence))
                if matches!(outstanding.subject, Subject::Blob { .. }) =>
            {
                let sequence = PublishAnswer::last_sequence(&answer.payload);
                self.was_there(outstanding, sequence).await
            }
            Some(PublishAnswer::Refused(refusal)) => self.refuse(outstanding.reply, refusal).await,
            // No stream listens: it has no leader at the moment.
            None => self.refuse(outstanding.reply, Refusal::Busy).await,
        }
    }

    /// A chunk is stored once, whoever comes with another one later: the first
    /// is its sender's, as nobody else knows of the file before. Where it is
    /// the stream does not say while it is still being stored.
    async fn was_there(
        &self,
        outstanding: Outstanding,
        sequence: Option<u64>,
    ) -> Result<(), ConnectionClosed> {
        let Some(sequence) = sequence else {
            return self.refuse(outstanding.reply, Refusal::Busy).await;
        };
        self.metrics.stored(outstanding.bytes as u64, true);
        let answer = PublishAnswer::Stored {
            sequence,
            duplicate: true,
        };
        let json = answer.to_json("").into();
        self.reply(outstanding.reply, answer, json).await
    }

    /// A stream that says nothing may have stored the message all the same:
    /// the device submits it again, and it is stored once.
    async fn give_up(&mut self) -> Result<(), ConnectionClosed> {
        let now = Instant::now();
        self.ledger.sweep(now);
        let mut count = 0;
        while let Some(overdue) = self.flight.overdue(now) {
            self.metrics.arrived();
            let bytes = overdue.bytes as u64;
            self.ledger.arrived(&overdue.subject, bytes, false);
            // nats-server says nothing when it cannot write.
            let refusal = match disk::is_full(&self.store) {
                true => Refusal::DiskFull,
                false => Refusal::Busy,
            };
            self.refuse(overdue.reply, refusal).await?;
            count += 1;
        }
        if count > 0 {
            self.metrics.unacknowledged(count);
            sotto_log::warn!(count, "streams do not acknowledge what devices submitted");
        }
        Ok(())
    }

    async fn refuse(&self, to: Reply, refusal: Refusal) -> Result<(), ConnectionClosed> {
        sotto_log::debug!(code = refusal.code(), "refused a submission");
        if matches!(to, Reply::Device(_)) {
            self.metrics.refused(&refusal);
        }
        let answer = PublishAnswer::Refused(refusal);
        let json = answer.to_json("");
        self.reply(to, answer, json.into()).await
    }

    async fn reply(
        &self,
        to: Reply,
        answer: PublishAnswer,
        json: Bytes,
    ) -> Result<(), ConnectionClosed> {
        match to {
            Reply::Device(subject) => {
                let sent = self.devices.publish(subject, json).await;
                sent.map_err(|_| ConnectionClosed)
            }
            Reply::Copy(waiting) => {
                // A copy that has ended does not need to know.
                let _ = waiting.send(answer);
                Ok(())
            }
        }
    }
}

/// How long a stream keeps a message, as NATS ADR-43 writes it.
fn lifetime(days: u16) -> HeaderValue {
    HeaderValue::from(u64::from(days) * 24 * 3_600)
}
