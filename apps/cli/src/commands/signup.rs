//! `sotto signup`: a new account, with this as its first device.

use rand::rngs::OsRng;
use sotto_client_core::io::Timestamp;
use sotto_client_core::signup;
use sotto_client_native::gateway::{Gateway, GatewayError};
use sotto_proto::{InviteLink, UserName, wire};

use crate::commands::login;
use crate::device::Context;

pub async fn run(context: &Context, invite: &InviteLink, user: UserName) -> anyhow::Result<()> {
    context.home.check_vacant()?;
    let password = context.password().choose()?;
    let passphrase = context.passphrase().choose()?;
    let gateway = Gateway::new(invite.gateway.clone(), context.clock)?;

    let info = login::server_info(context, &gateway).await?;
    let (starting, request) = signup::start(invite, user, &password, &mut OsRng)?;
    let started = gateway.call(&request, None).await?;
    // The server's time: this machine's clock may be wrong.
    let now = Timestamp(info.now_ms);
    let (account, request) = starting.finish(&started, &info, now, &mut OsRng)?;

    // The keys are on the disk before the account exists.
    let mut opened = context.home.create(account, &passphrase)?;
    match gateway.call::<wire::SignupFinish>(&request, None).await {
        Ok(session) => {
            opened.engine.set_session(session, &mut OsRng)?;
            login::welcome(context, opened).await
        }
        Err(error @ GatewayError::Unreachable { .. }) => {
            let directory = context.home.directory().display();
            let advice = format!(
                "whether the account was made is not known; when the server is there again, run \
                 `sotto sync`, and if that says that this device is not known, remove {directory} \
                 and sign up again"
            );
            Err(anyhow::Error::new(error).context(advice))
        }
        Err(error) => {
            context.home.remove(opened)?;
            Err(error.into())
        }
    }
}
