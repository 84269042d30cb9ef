//! Gateway calls of an enrolled device: the session comes along, and is opened
//! anew, by proof of the device's key, whenever the gateway has forgotten it.

use std::sync::Arc;

use bytes::Bytes;
use sotto_client_core::io::Timestamp;
use sotto_proto::api::{self, Call};
use sotto_proto::{OrgName, wire};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::gateway::{Gateway, GatewayError};

/// What only the holder of the device's keys can do.
pub(crate) enum KeyRequest {
    /// Sign a statement that opens a session; `now` is the server's time.
    OpenSession {
        now: Timestamp,
        answer: oneshot::Sender<wire::SessionOpen>,
    },
    /// Sign the nonce of a NATS server.
    SignNonce {
        nonce: Vec<u8>,
        answer: oneshot::Sender<Option<Vec<u8>>>,
    },
    /// Store this session with the account.
    KeepSession(wire::Session),
}

/// Makes calls with a session. Cheap to clone; all clones share the session.
#[derive(Clone)]
pub struct Access {
    gateway: Gateway,
    org: OrgName,
    session: Arc<Mutex<Option<wire::Session>>>,
    keys: mpsc::Sender<KeyRequest>,
}

impl Access {
    pub(crate) fn new(
        gateway: Gateway,
        session: Option<wire::Session>,
        keys: mpsc::Sender<KeyRequest>,
    ) -> Self {
        Self {
            org: gateway.address().org.clone(),
            gateway,
            session: Arc::new(Mutex::new(session)),
            keys,
        }
    }

    /// Makes one call.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn call<C: Call>(&self, request: &C) -> Result<C::Answer, GatewayError> {
        let answer = self.post(C::PATH, request.encode_to_vec().into()).await?;
        self.gateway.decode::<C>(answer)
    }

    /// Posts an encoded request; the encoded answer.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn post(&self, path: &str, body: Bytes) -> Result<Bytes, GatewayError> {
        if api::PATHS.contains(&(path, false)) {
            return self.gateway.post(path, body, None).await;
        }
        let session = self.session(None).await?;
        match self.gateway.post(path, body.clone(), Some(&session)).await {
            Err(GatewayError::Refused(error)) if is_session_expired(&error) => {
                let session = self.session(Some(session)).await?;
                self.gateway.post(path, body, Some(&session)).await
            }
            answer => answer,
        }
    }

    /// What the gateway says about itself.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn server_info(&self) -> Result<wire::ServerInfo, GatewayError> {
        let org = self.org.to_string();
        let request = wire::ServerInfoRequest { org };
        self.gateway.call(&request, None).await
    }

    pub(crate) fn keys(&self) -> &mpsc::Sender<KeyRequest> {
        &self.keys
    }

    /// The session; a new one when there is none besides `stale`.
    async fn session(&self, stale: Option<wire::Session>) -> Result<wire::Session, GatewayError> {
        let mut current = self.session.lock().await;
        if let Some(session) = &*current
            && stale.is_none_or(|stale| stale.token != session.token)
        {
            return Ok(session.clone());
        }
        let now = Timestamp(self.server_info().await?.now_ms);
        let (answer, statement) = oneshot::channel();
        let asked = KeyRequest::OpenSession { now, answer };
        // Errors mean that this program is stopping.
        let _ = self.keys.send(asked).await;
        let statement = statement.await.map_err(|_| self.gateway.stopping())?;
        let session = self.gateway.call(&statement, None).await?;
        let _ = self
            .keys
            .send(KeyRequest::KeepSession(session.clone()))
            .await;
        *current = Some(session.clone());
        Ok(session)
    }
}

fn is_session_expired(error: &wire::ApiError) -> bool {
    error.code == i32::from(wire::ApiErrorCode::SessionExpired)
}
