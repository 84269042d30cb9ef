//! Requests in, frames out. At most [`ACTIVE`] requests are read for at a time
//! and each holds a few pages, so memory is bounded however many devices ask.

use std::sync::Arc;

use async_nats::{Client, Message};
use bytes::Bytes;
use sotto_jwt_accounts::directory::{DirectoryLog, LogError};
use sotto_proto::DeviceId;
use sotto_proto::wire::FetchRefusal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::direct_get::Reader;
use super::exchange::{self, Exchange};
use super::plan::{self, Origin, Plan};
use super::turns::Turns;
use crate::clock::now_ms;
use crate::intake::{ConnectionClosed, Intake};
use crate::metrics::Metrics;

/// What every device asks on: the common subjects, and those of gated rooms.
const SUBJECTS: [&str; 2] = ["fetch.*", "fetch.*.*"];
/// Requests that are being read for.
const ACTIVE: usize = 16;

/// Answers the catch-up requests of one org's devices.
pub struct FetchService {
    requests: Intake,
    answerer: Arc<Answerer>,
}

/// What answering takes.
struct Answerer {
    devices: Client,
    reader: Reader,
    directory: Arc<DirectoryLog>,
    metrics: Arc<Metrics>,
}

impl FetchService {
    /// Requests that arrive from now on will be answered by [`Self::run`].
    /// `devices` is connected to the account of the org's devices, `org` to
    /// the one that holds the streams.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn start(
        devices: Client,
        org: Client,
        directory: Arc<DirectoryLog>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConnectionClosed> {
        let requests = Intake::start(&devices, &SUBJECTS).await?;
        let answerer = Arc::new(Answerer {
            devices,
            reader: Reader::new(org),
            directory,
            metrics,
        });
        Ok(Self { requests, answerer })
    }

    /// Answers until `retire`, and then what was asked until then. Dropping it
    /// ends every answer where it is; devices ask again.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn run(mut self, retire: CancellationToken) -> Result<(), ConnectionClosed> {
        let mut running: JoinSet<DeviceId> = JoinSet::new();
        let mut turns = Turns::new();
        while !self.requests.has_ended() || !running.is_empty() {
            tokio::select! {
                Some(done) = running.join_next() => {
                    // A panic names no device: forget them all rather than count wrong.
                    match done {
                        Ok(device) => turns.done(device),
                        Err(_) => turns.forget_readings(),
                    }
                }
                request = self.requests.next(&retire), if !self.requests.has_ended() => {
                    let Some(request) = request? else { continue };
                    let Some((origin, reply)) = address(&request) else { continue };
                    let asked = (origin, reply, request.payload);
                    if let Err((_, reply, _)) = turns.wait(origin.device, asked) {
                        let refusal = Answer::refusal(FetchRefusal::Unavailable);
                        // What cannot be sent is asked for again.
                        let _ = exchange::send(&self.answerer.devices, &reply, &refusal).await;
                    }
                }
            }
            while running.len() < ACTIVE
                && let Some((device, (origin, reply, request))) = turns.next()
            {
                let answerer = Arc::clone(&self.answerer);
                running.spawn(async move {
                    answerer.answer(origin, &reply, &request).await;
                    device
                });
            }
        }
        let devices = &self.answerer.devices;
        devices.flush().await.map_err(|_| ConnectionClosed)
    }
}

/// Who asks, and where the answer goes. What is not addressed as it should be
/// is not answered at all: the answer could reach someone else.
fn address(request: &Message) -> Option<(Origin, String)> {
    let origin = Origin::of(&request.subject)?;
    let reply = request.reply.as_ref()?;
    plan::is_own_reply(origin.device, reply).then(|| (origin, reply.to_string()))
}

impl Answerer {
    async fn answer(&self, origin: Origin, reply: &str, request: &Bytes) {
        let device = origin.device;
        let answered = match self.plan(origin, request).await {
            Ok(plan) => {
                let exchange = Exchange::new(&self.devices, &self.reader, device, reply, &plan);
                exchange.run(plan).await
            }
            Err(refusal) => {
                sotto_log::debug!(
                    device,
                    refusal = refusal.as_str_name(),
                    "refused a catch-up request"
                );
                exchange::send(&self.devices, reply, &Answer::refusal(refusal)).await
            }
        };
        self.metrics.answered(answered.is_ok());
        if let Err(error) = answered {
            // The device notices that the end is missing and asks again.
            sotto_log::warn!(device, error, "a catch-up answer was not sent");
        }
    }

    /// What to read. Before anything is refused, the directory is read to its
    /// end: it may just have been granted.
    async fn plan(&self, origin: Origin, request: &Bytes) -> Result<Plan, FetchRefusal> {
        let known = self.directory.state().map_err(unavailable)?;
        match plan::plan(origin, request, &known, now_ms()) {
            Ok(plan) if plan.refused_rooms.is_empty() => Ok(plan),
            Err(FetchRefusal::Malformed) => Err(FetchRefusal::Malformed),
            _ => {
                let known = self.directory.refresh().await.map_err(unavailable)?;
                plan::plan(origin, request, &known, now_ms())
            }
        }
    }
}

fn unavailable(error: LogError) -> FetchRefusal {
    sotto_log::error!(error, "the directory cannot be used");
    FetchRefusal::Unavailable
}
