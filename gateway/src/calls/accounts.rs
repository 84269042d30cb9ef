//! What nats-server knows of an org's accounts.

use sotto_jwt_accounts::directory::Scope;
use sotto_jwt_accounts::policy::{self, Manage};
use sotto_jwt_accounts::{AccountVersion, HeldAccount};
use sotto_proto::wire::{self, AccountHeld, AccountStanding, Accounts, AccountsRequest};

use crate::caller::EnrolledDevice;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;

impl Serve for AccountsRequest {
    type Caller = EnrolledDevice;

    async fn serve(self, gateway: &Gateway, caller: EnrolledDevice) -> Result<Accounts, Refusal> {
        let org = &caller.org;
        let state = org.newest().await?;
        let asking = caller.asking(gateway.now_ms());
        let _permit = policy::check(&state, asking, Manage, &Scope::Org)?;
        let standing = gateway.accounts().standing(org.name()).await;
        let accounts = standing.map_err(Refusal::unavailable)?.into_iter();
        let accounts = accounts.map(|standing| AccountStanding {
            name: standing.name,
            account: standing.id,
            stored: Some(version(standing.stored)),
            held: standing.held.into_iter().map(held).collect(),
        });
        Ok(Accounts {
            accounts: accounts.collect(),
        })
    }
}

fn held(held: HeldAccount) -> AccountHeld {
    AccountHeld {
        server: held.server,
        version: held.version.map(version),
    }
}

fn version(version: AccountVersion) -> wire::AccountVersion {
    wire::AccountVersion {
        issued_s: version.issued_s,
        hash: version.hash,
    }
}
