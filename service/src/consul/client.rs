//! One agent's HTTP API, as far as it is used here. Every request ends in time,
//! every answer is bounded before it is kept, and nothing is followed anywhere
//! else. The token is never shown in a log or an error.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, Response, StatusCode, Url};
use serde_json::json;
use zeroize::Zeroizing;

use super::answers::{self, SessionId};
use super::error::ConsulError;
use super::registration::Service;
use super::settings::{Address, ConsulConfig, Prefix};
use crate::cause::innermost;
use crate::cluster::Endpoint;
use crate::private_files;

/// How long a request may take that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request may take that takes a program out.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long an agent may take to answer the call.
const CONNECTING: Duration = Duration::from_secs(2);
/// How long a blocking query waits for a change, by what Consul is asked; it
/// adds a sixteenth by itself, and then it is late.
const WAIT: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(15);
/// Longest answer to what is answered in a few words, in bytes.
const WORDS: usize = 4 * 1024;
/// Longest list of services, in bytes.
const LIST: usize = 512 * 1024;
/// Longest file with a token or certificates, in bytes.
const FILE: u64 = 64 * 1024;

const TOKEN: &str = "X-Consul-Token";
const INDEX: &str = "X-Consul-Index";

/// An agent.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    address: Address,
    token: Option<HeaderValue>,
    prefix: Prefix,
}

/// What is asked.
struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    body: Vec<u8>,
    patience: Duration,
    longest: usize,
}

impl<'a> Call<'a> {
    fn put(path: &'a [&'a str], body: Vec<u8>) -> Self {
        Self {
            method: Method::PUT,
            path,
            query: &[],
            body,
            patience: PATIENCE,
            longest: WORDS,
        }
    }

    fn get(path: &'a [&'a str], query: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            method: Method::GET,
            query,
            ..Self::put(path, Vec::new())
        }
    }
}

/// A key's value, when Consul said so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// Nothing when there is no such key.
    pub(super) value: Option<Vec<u8>>,
    /// What the next query waits after.
    pub(super) index: u64,
}

impl Client {
    /// The agent that is configured; it is not asked yet.
    ///
    /// # Errors
    /// When a file does not read.
    pub(super) fn new(config: &ConsulConfig) -> Result<Self, ConsulError> {
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .http1_only()
            .https_only(config.address.is_https())
            .connect_timeout(CONNECTING)
            .pool_max_idle_per_host(2);
        if let Some(file) = &config.ca_file {
            let pem = private_files::read_text(file, FILE)?;
            let authorities = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|_| ConsulError::Certificates(file.display().to_string()))?;
            http = http.tls_certs_only(authorities);
        } else if !config.address.is_https() {
            // The system's need not be there.
            http = http.tls_certs_only([]);
        }
        let token = config.token_file.as_deref().map(|file| {
            let text = Zeroizing::new(private_files::read_text(file, FILE)?);
            let token = Some(text.trim()).filter(|token| !token.is_empty());
            let header = token.and_then(|token| HeaderValue::from_str(token).ok());
            let mut header =
                header.ok_or_else(|| ConsulError::Token(file.display().to_string()))?;
            header.set_sensitive(true);
            Ok::<_, ConsulError>(header)
        });
        Ok(Self {
            http: http
                .build()
                .map_err(|error| ConsulError::Setup(innermost(&error)))?,
            address: config.address.clone(),
            token: token.transpose()?,
            prefix: config.prefix.clone(),
        })
    }

    /// Says where a program is, and with which state its check begins.
    pub(super) async fn register(
        &self,
        service: &Service,
        serves: bool,
    ) -> Result<(), ConsulError> {
        let body = service.registration(serves).to_string().into_bytes();
        let path = ["agent", "service", "register"];
        self.words(Call::put(&path, body)).await.map(drop)
    }

    /// Says whether a program serves, and if not why not.
    pub(super) async fn update(&self, check: &str, reasons: &[String]) -> Result<(), ConsulError> {
        let (status, output) = match reasons {
            [] => ("passing", "serving".to_owned()),
            reasons => ("critical", reasons.join("\n")),
        };
        let body = json!({ "Status": status, "Output": output }).to_string();
        let path = ["agent", "check", "update", check];
        self.words(Call::put(&path, body.into_bytes()))
            .await
            .map(drop)
    }

    /// Takes a program out; one that is not there is fine.
    pub(super) async fn deregister(&self, id: &str) -> Result<(), ConsulError> {
        let path = ["agent", "service", "deregister", id];
        let call = Call {
            patience: GOODBYE,
            ..Call::put(&path, Vec::new())
        };
        match self.words(call).await {
            Err(ConsulError::Refused { status: 404, .. }) => Ok(()),
            told => told.map(drop),
        }
    }

    /// Makes a session, which ends when it is not renewed for so long.
    pub(super) async fn open_session(
        &self,
        name: &str,
        ttl: Duration,
    ) -> Result<SessionId, ConsulError> {
        let body = json!({
            "Name": name,
            "TTL": format!("{}s", ttl.as_secs()),
            "Behavior": "release",
            // What is done once may be done twice: nobody need wait.
            "LockDelay": "1s",
        });
        let path = ["session", "create"];
        let answer = self
            .words(Call::put(&path, body.to_string().into_bytes()))
            .await?;
        answers::session(&answer)
    }

    /// Keeps a session.
    pub(super) async fn renew_session(&self, session: &SessionId) -> Result<(), ConsulError> {
        let path = ["session", "renew", session.as_str()];
        self.words(Call::put(&path, Vec::new())).await.map(drop)
    }

    /// Ends a session, and with it what it holds.
    pub(super) async fn close_session(&self, session: &SessionId) -> Result<(), ConsulError> {
        let path = ["session", "destroy", session.as_str()];
        let call = Call {
            patience: GOODBYE,
            ..Call::put(&path, Vec::new())
        };
        self.words(call).await.map(drop)
    }

    /// Whether the session has the lock now, because it had it or took it.
    pub(super) async fn acquire(
        &self,
        key: &str,
        session: &SessionId,
        owner: &str,
    ) -> Result<bool, ConsulError> {
        let path = self.key(key);
        let path: Vec<&str> = path.split('/').collect();
        let call = Call {
            query: &[("acquire", session.as_str())],
            ..Call::put(&path, owner.as_bytes().to_vec())
        };
        answers::yes_or_no(&self.words(call).await?)
    }

    /// The value of one of our keys once it is another one than at `after`, or
    /// after a minute. One of more than `longest` bytes is empty.
    pub(super) async fn read(
        &self,
        key: &str,
        after: u64,
        longest: usize,
    ) -> Result<Read, ConsulError> {
        let path = self.key(key);
        let path: Vec<&str> = path.split('/').collect();
        let (after, wait) = (after.to_string(), format!("{}s", WAIT.as_secs()));
        let query = [
            ("raw", ""),
            ("index", after.as_str()),
            ("wait", wait.as_str()),
        ];
        let answer = self
            .send(&Call {
                patience: WAIT + WAIT / 16 + LATE,
                ..Call::get(&path, &query)
            })
            .await?;
        let index = answer
            .headers()
            .get(INDEX)
            .and_then(|index| index.to_str().ok());
        let index = index.and_then(|index| index.parse().ok());
        // What has none is another server, or a page of an error.
        let index = index.ok_or(ConsulError::NotConsul("no index"));
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(Read {
                value: None,
                index: index?,
            }),
            StatusCode::OK => {
                let value = match body(answer, longest).await {
                    // As good as nothing, which no setting is.
                    Err(ConsulError::Endless) => Vec::new(),
                    value => value?,
                };
                Ok(Read {
                    index: index?,
                    value: Some(value),
                })
            }
            _ => Err(refused(answer).await),
        }
    }

    /// Where nodes let others in, as far as their checks pass.
    pub(super) async fn admissions(&self, service: &str) -> Result<Vec<Endpoint>, ConsulError> {
        let path = ["health", "service", service];
        let call = Call {
            longest: LIST,
            ..Call::get(&path, &[("passing", "true")])
        };
        answers::admissions(&self.words(call).await?)
    }

    fn key(&self, key: &str) -> String {
        format!("kv/{}{key}", self.prefix.as_str())
    }

    /// What is said, if it is yes.
    async fn words(&self, call: Call<'_>) -> Result<Vec<u8>, ConsulError> {
        let longest = call.longest;
        let answer = self.send(&call).await?;
        match answer.status().is_success() {
            true => body(answer, longest).await,
            false => Err(refused(answer).await),
        }
    }

    async fn send(&self, call: &Call<'_>) -> Result<Response, ConsulError> {
        let mut request = self
            .http
            .request(call.method.clone(), self.url(call))
            .timeout(call.patience);
        if call.method == Method::PUT {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(call.body.clone());
        }
        if let Some(token) = &self.token {
            request = request.header(TOKEN, token);
        }
        request.send().await.map_err(ConsulError::unreachable)
    }

    fn url(&self, call: &Call<'_>) -> Url {
        let mut url = self.address.url().clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().push("v1").extend(call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        url
    }
}

/// The body, unless it is longer.
async fn body(mut answer: Response, longest: usize) -> Result<Vec<u8>, ConsulError> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(ConsulError::unreachable)? {
        if body.len() + piece.len() > longest {
            return Err(ConsulError::Endless);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

async fn refused(answer: Response) -> ConsulError {
    let status = answer.status().as_u16();
    let said = body(answer, WORDS).await.unwrap_or_default();
    ConsulError::refused(status, &said)
}

#[cfg(test)]
mod tests;
