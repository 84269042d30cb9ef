//! Somebody who should not get in, with a client of their own making: valid
//! credentials, got the way everybody gets them, and no good manners.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_nats::{AuthError, Client, ConnectOptions, Event, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use prost::Message;
use rand::rngs::OsRng;
use sotto_client_core::account::Account;
use sotto_client_core::signup;
use sotto_client_native::clock::Clock;
use sotto_client_native::gateway::{Gateway, GatewayError};
use sotto_client_native::tls;
use sotto_proto::api::Call;
use sotto_proto::wire::{self, FetchFrame, FetchRequest, RoomCursor};
use sotto_proto::{
    DeviceId, FileId, GatewayAddress, InviteLink, RoomAddress, Subject, Submission, mail_stream,
    reply_prefix,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// How long an answer is waited for. A refusal takes milliseconds.
const ANSWER: Duration = Duration::from_secs(5);

/// What strangers are after.
#[derive(Debug, Clone)]
pub struct Target {
    /// A room that they are not in.
    pub room: RoomAddress,
    /// A device of a member.
    pub member: DeviceId,
}

/// One thing that was tried.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// What.
    pub what: String,
    /// Whether the server said no.
    pub refused: bool,
    /// What it said.
    pub answer: String,
}

/// A device that was signed up properly and then behaves badly.
#[derive(Debug)]
pub struct Stranger {
    account: Arc<Account>,
    gateway: Gateway,
    session: wire::Session,
    nats: Nats,
    listening: Vec<Subscriber>,
}

#[derive(Debug)]
struct Nats {
    client: Client,
    errors: UnboundedReceiver<String>,
}

impl Stranger {
    /// Signs up with an invitation and connects to NATS with the JWT that the
    /// gateway gives.
    ///
    /// # Errors
    /// When any of that is refused.
    pub async fn sign_up(invite: &str, user: &str, password: &str) -> anyhow::Result<Self> {
        let link: InviteLink = invite.parse().context("the invitation")?;
        let clock = Clock::from_environment();
        let gateway = Gateway::new(link.gateway.clone(), clock)?;
        let server = server_info(&gateway).await?;
        let (starting, start) = signup::start(&link, user.parse()?, password, &mut OsRng)?;
        let started = gateway.call(&start, None).await?;
        let (account, finish) = starting.finish(&started, &server, clock.now(), &mut OsRng)?;
        let session = gateway.call(&finish, None).await?;
        let jwt = gateway.call(&wire::JwtRequest {}, Some(&session)).await?;
        let account = Arc::new(account);
        let key = account.clone();
        let sign = move |nonce: Vec<u8>| {
            let signed = key.sign_nats_nonce(&nonce).map_err(AuthError::new);
            async move { signed }
        };
        let options = ConnectOptions::with_jwt(jwt.jwt, sign)
            .custom_inbox_prefix(reply_prefix(account.device));
        let nats = Nats::connect(options, &link.gateway, &server).await?;
        Ok(Self {
            account,
            gateway,
            session,
            nats,
            listening: Vec::new(),
        })
    }

    /// Tries to write to the room, to read it, to fetch its history, and to
    /// get the gateway to help. Subscriptions stay open for [`Self::heard`].
    ///
    /// # Errors
    /// When the stranger cannot even ask.
    pub async fn try_everything(&mut self, target: &Target) -> anyhow::Result<Vec<Attempt>> {
        let mut attempts = Vec::new();
        let room = &target.room;
        let file = FileId::random(&mut OsRng);
        let stream = mail_stream(room.shard);
        for subject in [
            room.messages().to_string(),
            room.handshakes().to_string(),
            room.blob(file, 0).to_string(),
            self.submission(room.messages()),
            self.submission(room.blob(file, 0)),
            Submission {
                device: target.member,
                subject: room.messages(),
            }
            .to_string(),
            room.messages().live(),
            Subject::Fetch(target.member).to_string(),
            format!("$JS.API.DIRECT.GET.{stream}"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}"),
            format!("$JS.API.STREAM.PURGE.{stream}"),
        ] {
            attempts.push(self.nats.publish(subject).await?);
        }
        for subject in [
            room.live_wildcard(),
            format!("r.{room}.*"),
            format!("blob.{room}.*.*"),
            "in.>".to_owned(),
            ">".to_owned(),
            Subject::Inbox(target.member).live(),
            format!("{}.>", reply_prefix(target.member)),
        ] {
            let (attempt, subscriber) = self.nats.subscribe(subject).await?;
            attempts.push(attempt);
            self.listening.push(subscriber);
        }
        attempts.push(self.fetch(target).await?);
        attempts.extend(self.ask_gateway(target).await);
        Ok(attempts)
    }

    /// Has something allowed acknowledged *into the room*: whoever publishes
    /// names the subject of the answer. Returns when that would have happened;
    /// nothing may be stored.
    ///
    /// # Errors
    /// When the stranger cannot write to its own inbox either.
    pub async fn misdirect_acknowledgements(&self, target: &Target) -> anyhow::Result<()> {
        let client = &self.nats.client;
        let inbox = self.submission(Subject::Inbox(self.account.device));
        let room = &target.room;
        for reply in [
            room.messages(),
            room.handshakes(),
            Subject::Inbox(target.member),
        ] {
            client
                .publish_with_reply(inbox.clone(), reply.to_string(), "let me in".into())
                .await?;
        }
        // Acknowledgements come in order: when this one is here, so are those.
        let own = client.request(inbox, "let me in".into());
        timeout(ANSWER, own)
            .await
            .context("no acknowledgement")?
            .context("the own inbox")?;
        Ok(())
    }

    /// Where the stranger submits what is to be stored under a subject.
    fn submission(&self, subject: Subject) -> String {
        let device = self.account.device;
        Submission { device, subject }.to_string()
    }

    /// How many messages came through the refused subscriptions.
    ///
    /// # Errors
    /// When the connection is gone, so that silence would prove nothing.
    pub async fn heard(&mut self) -> anyhow::Result<usize> {
        self.nats
            .client
            .flush()
            .await
            .context("the stranger's connection")?;
        let next = |open: &mut Subscriber| open.next().now_or_never().flatten();
        Ok(self
            .listening
            .iter_mut()
            .map(|open| std::iter::from_fn(|| next(open)).count())
            .sum())
    }

    /// The one request that a device may always make. That it is answered at
    /// all shows that the connection works.
    async fn fetch(&self, target: &Target) -> anyhow::Result<Attempt> {
        let room = target.room.room.to_bytes();
        let cursor = RoomCursor {
            room: room.clone(),
            ..RoomCursor::default()
        };
        let request = FetchRequest {
            rooms: vec![cursor],
            max_bytes: 1 << 20,
            ..Default::default()
        };
        let frames = self.nats.fetch(self.account.device, &request).await?;
        let stored: usize = frames.iter().map(|frame| frame.messages.len()).sum();
        let named = frames
            .iter()
            .any(|frame| frame.refused_rooms.contains(&room));
        let refused = stored == 0 && named;
        let answer = format!("{stored} messages, room refused by name: {named}");
        Ok(Attempt {
            what: "fetch the room's history".to_owned(),
            refused,
            answer,
        })
    }

    async fn ask_gateway(&self, target: &Target) -> Vec<Attempt> {
        let room = target.room.room.to_bytes();
        let join = wire::RoomJoin { room: room.clone() };
        let claim = wire::KeyPackagesClaim {
            room: room.clone(),
            devices: vec![self.account.device.to_bytes()],
        };
        let grant = wire::RoomGrant {
            room: room.clone(),
            user: self.account.user.to_string(),
            role: wire::Role::Owner.into(),
        };
        let replace = wire::GroupInfoPut {
            room,
            ..wire::GroupInfoPut::default()
        };
        vec![
            self.call(&join).await,
            self.call(&claim).await,
            self.call(&grant).await,
            self.call(&replace).await,
        ]
    }

    async fn call<C: Call>(&self, request: &C) -> Attempt {
        refusal::<C>(self.gateway.call(request, Some(&self.session)).await)
    }
}

/// What somebody gets who knows where the servers are and nothing else.
///
/// # Errors
/// When the gateway does not even say where NATS is.
pub async fn without_credentials(address: &GatewayAddress) -> anyhow::Result<Vec<Attempt>> {
    let gateway = Gateway::new(address.clone(), Clock::from_environment())?;
    let server = server_info(&gateway).await?;
    let forged = nkeys::KeyPair::new_user();
    let forged_jwt = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.AAAA".to_owned();
    let sign = move |nonce: Vec<u8>| {
        let signed = forged.sign(&nonce).map_err(AuthError::new);
        async move { signed }
    };
    let mut attempts = Vec::new();
    for (what, options) in [
        ("connect to NATS without credentials", ConnectOptions::new()),
        (
            "connect to NATS with a forged JWT",
            ConnectOptions::with_jwt(forged_jwt, sign),
        ),
    ] {
        let connected = Nats::connect(options, address, &server).await;
        attempts.push(Attempt {
            what: what.to_owned(),
            refused: connected.is_err(),
            answer: connected
                .err()
                .map_or("connected".to_owned(), |error| format!("{error:#}")),
        });
    }
    let nobody = wire::Session {
        token: Bytes::from_static(&[7; 32]),
        ..Default::default()
    };
    attempts.push(refusal::<wire::MeRequest>(
        gateway.call(&wire::MeRequest {}, None).await,
    ));
    attempts.push(refusal::<wire::JwtRequest>(
        gateway.call(&wire::JwtRequest {}, Some(&nobody)).await,
    ));
    Ok(attempts)
}

fn refusal<C: Call>(answer: Result<C::Answer, GatewayError>) -> Attempt {
    let what = format!("POST {}", C::PATH);
    match answer {
        Ok(_) => Attempt {
            what,
            refused: false,
            answer: "done".to_owned(),
        },
        Err(error) => Attempt {
            what,
            refused: matches!(error, GatewayError::Refused(_)),
            answer: error.to_string(),
        },
    }
}

async fn server_info(gateway: &Gateway) -> anyhow::Result<wire::ServerInfo> {
    let org = gateway.address().org.to_string();
    Ok(gateway.call(&wire::ServerInfoRequest { org }, None).await?)
}

impl Nats {
    async fn connect(
        options: ConnectOptions,
        address: &GatewayAddress,
        server: &wire::ServerInfo,
    ) -> anyhow::Result<Self> {
        let (sender, errors) = unbounded_channel();
        let tls = tls::pinned_client(address.authority, Arc::new(Clock::from_environment()))?;
        let client = options
            .tls_client_config(tls)
            .tls_first()
            .max_reconnects(1)
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    // Ignored: nobody asks any more.
                    sender.send(error.to_string()).ok();
                }
                std::future::ready(())
            })
            .connect(server.nats_urls.as_slice())
            .await?;
        Ok(Self { client, errors })
    }

    async fn publish(&mut self, subject: String) -> anyhow::Result<Attempt> {
        self.client
            .publish(subject.clone(), "let me in".into())
            .await?;
        self.client.flush().await?;
        self.refusal("publish", &subject).await
    }

    async fn subscribe(&mut self, subject: String) -> anyhow::Result<(Attempt, Subscriber)> {
        let subscriber = self.client.subscribe(subject.clone()).await?;
        self.client.flush().await?;
        Ok((self.refusal("subscribe", &subject).await?, subscriber))
    }

    /// The server names the subject that it refuses.
    async fn refusal(&mut self, verb: &str, subject: &str) -> anyhow::Result<Attempt> {
        let quoted = format!("\"{}\"", subject.to_lowercase());
        let named = async {
            while let Some(error) = self.errors.recv().await {
                if error.to_lowercase().contains(&quoted) {
                    return Ok(error);
                }
            }
            bail!("the connection is gone")
        };
        let answer = timeout(ANSWER, named).await.ok().transpose()?;
        Ok(Attempt {
            what: format!("{verb} {subject}"),
            refused: answer.is_some(),
            answer: answer.unwrap_or_else(|| "not refused".to_owned()),
        })
    }

    async fn fetch(
        &self,
        device: DeviceId,
        request: &FetchRequest,
    ) -> anyhow::Result<Vec<FetchFrame>> {
        let reply = self.client.new_inbox();
        let mut answers = self.client.subscribe(reply.clone()).await?;
        let subject = Subject::Fetch(device).to_string();
        let body = request.encode_to_vec().into();
        self.client.publish_with_reply(subject, reply, body).await?;
        let mut frames: Vec<FetchFrame> = Vec::new();
        while frames.last().is_none_or(|frame| !frame.last) {
            let answer = timeout(ANSWER, answers.next())
                .await
                .context("no answer to a fetch")?;
            let answer = answer.context("the connection is gone")?;
            frames.push(FetchFrame::decode(answer.payload).context("a fetch frame")?);
            ensure!(frames.len() <= 1_000, "an answer without an end");
        }
        Ok(frames)
    }
}
