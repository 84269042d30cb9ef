//! A device's connection to nats-server.

use std::sync::Arc;

use async_nats::{Client, ConnectOptions, Event, ServerError};
use nkeys::KeyPair;
use sotto_proto::reply_prefix;
use sotto_service::tls;
use tokio::sync::mpsc;

use super::person::Device;
use super::server::Server;

/// Connects with a JWT and a key; the refusals that the server reports.
pub async fn connect(
    server: &Server,
    device: &Device,
    jwt: &str,
    key: Arc<KeyPair>,
) -> Result<(Client, mpsc::UnboundedReceiver<String>), async_nats::ConnectError> {
    let (refused, refusals) = mpsc::unbounded_channel();
    let client = ConnectOptions::with_jwt(jwt.to_owned(), move |nonce| {
        let key = Arc::clone(&key);
        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
    })
    .custom_inbox_prefix(reply_prefix(device.id))
    .tls_client_config(tls::client_config(&server.directory.layout).unwrap())
    .tls_first()
    .event_callback(move |event| {
        if let Event::ServerError(ServerError::Other(error)) = event {
            let _ = refused.send(error);
        }
        async {}
    })
    .connect(server.directory.config.nats_url())
    .await?;
    Ok((client, refusals))
}
