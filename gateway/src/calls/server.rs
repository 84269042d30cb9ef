//! What anyone may know of the server.

use sotto_proto::signed;
use sotto_proto::wire::{ServerInfo, ServerInfoRequest};

use crate::caller::Anyone;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;

impl Serve for ServerInfoRequest {
    type Caller = Anyone;

    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<ServerInfo, Refusal> {
        gateway.org(&self.org)?;
        let server = gateway.server();
        Ok(ServerInfo {
            server_name: server.name.clone(),
            nats_urls: server.nats_urls.borrow().clone(),
            gateway_key: signed::key_bytes(&gateway.key().verifying_key()),
            now_ms: gateway.now_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}
