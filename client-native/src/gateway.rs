//! HTTPS calls to the gateway: one protobuf message out, one back.
//!
//! Whatever answers is not trusted to be sane: bodies are bounded before they
//! are read, and anything unexpected is one clear error.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use rustls::CertificateError;
use sotto_client_core::io::FactorNeeded;
use sotto_proto::api::{self, Call};
use sotto_proto::{GatewayAddress, limits, wire};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::poor_link::{self, Patience};

/// A connection attempt ends after this, if the call that it is for has not
/// before: a TLS handshake is 5 KB, which take half a minute at 2 kbit/s, and
/// longer when some are lost.
const CONNECT: Duration = Duration::from_secs(120);

/// The next part of an answer that stays silent this long does not come.
const SILENCE: Duration = Duration::from_secs(45);

/// While an answer is waited for, the connection is asked so often whether it
/// is alive, and is given up when it does not say so for so long: else the next
/// call would wait on it, too.
const ASK_ALIVE: Duration = Duration::from_secs(15);
const ALIVE: Duration = Duration::from_secs(40);

/// Longest sentence of a gateway that is shown to a person, in characters.
const SENTENCE: usize = 300;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No connection, or it broke.
    #[error(
        "the server at {server} cannot be reached ({reason}): check the network, and that the server is running"
    )]
    Unreachable {
        /// Host and port.
        server: String,
        /// From the operating system or the HTTP library.
        reason: String,
    },
    /// The TLS handshake failed: it is not the server that the link was made
    /// for.
    #[error(
        "the server at {server} is not the one that the link was made for ({reason}): ask your administrator for a new link, and do not go on if this is unexpected"
    )]
    Impostor {
        /// Host and port.
        server: String,
        /// From the certificate check.
        reason: String,
    },
    /// Its certificate is not good now, by the clock of this device.
    #[error(
        "the certificate of the server at {server} is not good at this time ({reason}): set the clock of this device right; if it is, tell your administrator"
    )]
    Untimely {
        /// Host and port.
        server: String,
        /// From the certificate check.
        reason: String,
    },
    /// The answer is none of a Sotto gateway.
    #[error(
        "the server at {server} does not answer like a Sotto gateway ({reason}): check the address, or ask your administrator whether its version fits"
    )]
    Garbage {
        /// Host and port.
        server: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The gateway said no.
    #[error("{}", sentence(&.0.message))]
    Refused(wire::ApiError),
    /// The gateway says no until factors are proven.
    #[error("{}", sentence(&.0.sentence))]
    FactorNeeded(FactorNeeded),
}

impl From<wire::ApiError> for GatewayError {
    fn from(error: wire::ApiError) -> Self {
        match FactorNeeded::of(&error) {
            Some(needed) => Self::FactorNeeded(needed),
            None => Self::Refused(error),
        }
    }
}

/// A gateway to call. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    http: reqwest::Client,
    address: GatewayAddress,
    /// How long an answer is waited for, with the connection that it may take.
    patience: Arc<Mutex<Patience>>,
}

impl Gateway {
    /// Prepares calls; nothing is sent yet.
    ///
    /// # Errors
    /// When TLS or HTTP cannot be set up on this machine.
    pub fn new(address: GatewayAddress, clock: Clock) -> Result<Self, GatewayError> {
        let unusable = |reason: String| GatewayError::Unreachable {
            server: server(&address),
            reason,
        };
        let mut tls = sotto_tls::pinned_client(address.authority, Arc::new(clock))
            .map_err(|error| unusable(error.to_string()))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(ASK_ALIVE)
            .http2_keep_alive_timeout(ALIVE)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let patience = Arc::new(Mutex::new(Patience::for_an_answer()));
        Ok(Self {
            http,
            address,
            patience,
        })
    }

    /// Where the gateway is.
    pub fn address(&self) -> &GatewayAddress {
        &self.address
    }

    /// Makes one call. `session` is the token; calls that need none ignore it.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn call<C: Call>(
        &self,
        request: &C,
        session: Option<&wire::Session>,
    ) -> Result<C::Answer, GatewayError> {
        let session = session.filter(|_| C::SESSION);
        let body = request.encode_to_vec().into();
        let answer = self.post(C::PATH, body, session).await?;
        self.decode::<C>(answer)
    }

    pub(crate) fn decode<C: Call>(&self, answer: Bytes) -> Result<C::Answer, GatewayError> {
        C::Answer::decode(answer).map_err(|_| self.garbage("the answer does not decode"))
    }

    /// The error of a call that is cut short by the end of this program.
    pub(crate) fn stopping(&self) -> GatewayError {
        GatewayError::Unreachable {
            server: server(&self.address),
            reason: "this program is stopping".to_owned(),
        }
    }

    /// Posts an encoded request to `path`; the encoded answer.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn post(
        &self,
        path: &str,
        body: Bytes,
        session: Option<&wire::Session>,
    ) -> Result<Bytes, GatewayError> {
        let upload = poor_link::time_for(body.len());
        let mut request = self
            .http
            .post(format!("{}{path}", self.address.base_url()))
            .header(CONTENT_TYPE, api::CONTENT_TYPE)
            .body(body);
        if let Some(session) = session {
            request = request.header(AUTHORIZATION, self.bearer(session)?);
        }
        tracing::trace!(path, "calls");
        let patience = self.patience.lock().await.duration();
        let began = Instant::now();
        let answer = self.heard(patience + upload, request.send()).await;
        let taken = began.elapsed().saturating_sub(upload);
        match &answer {
            Ok(_) => self.patience.lock().await.took(taken),
            Err(_) => self.patience.lock().await.failed_after(taken),
        }
        let answer = answer?;
        let status = answer.status();
        let kind = answer.headers().get(CONTENT_TYPE);
        if kind.is_none_or(|kind| kind != api::CONTENT_TYPE) {
            return Err(self.garbage("the answer is of another type"));
        }
        let body = self.bounded_body(answer, answer_limit(path)).await?;
        tracing::trace!(path, bytes = body.len(), "is answered");
        if status.is_success() {
            return Ok(body);
        }
        match wire::ApiError::decode(body) {
            Ok(error) => Err(error.into()),
            Err(_) => Err(self.garbage("its error does not decode")),
        }
    }

    async fn bounded_body(
        &self,
        mut answer: reqwest::Response,
        limit: usize,
    ) -> Result<Bytes, GatewayError> {
        let mut body = BytesMut::new();
        while let Some(part) = self.heard(SILENCE, answer.chunk()).await? {
            if body.len() + part.len() > limit {
                return Err(self.garbage("the answer is too long"));
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    }

    /// What comes within `patience`.
    async fn heard<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, GatewayError> {
        match timeout(patience, answer).await {
            Ok(heard) => heard.map_err(|error| self.failed(&error)),
            Err(_) => Err(GatewayError::Unreachable {
                server: server(&self.address),
                reason: "it does not answer".to_owned(),
            }),
        }
    }

    fn bearer(&self, session: &wire::Session) -> Result<HeaderValue, GatewayError> {
        let token = Zeroizing::new(BASE64URL_NOPAD.encode(&session.token));
        let header = Zeroizing::new(format!("Bearer {}", *token));
        let mut value = HeaderValue::from_str(&header)
            .map_err(|_| self.garbage("the session is no header value"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn garbage(&self, reason: &'static str) -> GatewayError {
        GatewayError::Garbage {
            server: server(&self.address),
            reason,
        }
    }

    fn failed(&self, error: &reqwest::Error) -> GatewayError {
        let server = server(&self.address);
        match certificate_error(error) {
            Some(problem) => {
                let reason = problem.to_string();
                match is_of_time(problem) {
                    true => GatewayError::Untimely { server, reason },
                    false => GatewayError::Impostor { server, reason },
                }
            }
            None => GatewayError::Unreachable {
                server,
                reason: root_cause(error).to_string(),
            },
        }
    }
}

/// Why the server's certificate was refused, if that is behind an error.
fn certificate_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(problem)) = error.downcast_ref() {
        return Some(problem);
    }
    // An `io::Error` around another error skips it in `source`.
    let inside = error.downcast_ref().and_then(io::Error::get_ref);
    match inside {
        Some(inside) => certificate_error(inside),
        None => certificate_error(error.source()?),
    }
}

fn is_of_time(problem: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        problem,
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
    )
}

fn root_cause<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

fn server(address: &GatewayAddress) -> String {
    format!("{}:{}", address.host, address.port)
}

/// Longest answer to a call, in bytes.
fn answer_limit(path: &str) -> usize {
    match path {
        wire::RoomJoin::PATH => 2 * limits::RATCHET_TREE + limits::HTTP_BODY,
        _ => limits::HTTP_BODY,
    }
}

/// The gateway's own sentence, of bounded length.
fn sentence(message: &str) -> String {
    let text: String = message.chars().take(SENTENCE).collect();
    match text.is_empty() {
        true => "the server refused without saying why: try again later".to_owned(),
        false => text,
    }
}
