//! `sotto login`: this device joins an account by its password, or renews its
//! session. Also what every way of getting an account ends with.

use anyhow::{Context as _, ensure};
use rand::rngs::OsRng;
use serde_json::json;
use sotto_client_core::io::Timestamp;
use sotto_client_core::login;
use sotto_client_native::gateway::{Gateway, GatewayError};
use sotto_client_native::home::Opened;
use sotto_proto::{GatewayAddress, UserName, wire};

use crate::device::Context;

pub async fn run(
    context: &Context,
    user: UserName,
    gateway: Option<GatewayAddress>,
) -> anyhow::Result<()> {
    match context.home.check_occupied() {
        Ok(()) => renew(context, &user).await,
        Err(_) => {
            let gateway = gateway.context(
                "this device does not know the server yet: give --gateway with the address that \
                 your administrator has (`sotto up` prints it)",
            )?;
            new_device(context, user, gateway).await
        }
    }
}

async fn new_device(
    context: &Context,
    user: UserName,
    address: GatewayAddress,
) -> anyhow::Result<()> {
    let password = context.password().ask()?;
    let gateway = Gateway::new(address.clone(), context.clock)?;
    let info = server_info(context, &gateway).await?;
    let (starting, request) = login::start(&address, user, &password, &mut OsRng)?;
    let started = gateway.call(&request, None).await?;
    let (finishing, request) = starting.finish(&started, &mut OsRng)?;
    let finished = gateway.call(&request, None).await?;
    // The server's time: this machine's clock may be wrong.
    let now = Timestamp(info.now_ms);
    let account = finishing.new_device(&finished, &info, now, &mut OsRng)?;
    let enrolment = account.enrolment();

    let passphrase = context.passphrase().choose()?;
    let mut opened = context.home.create(account, &passphrase)?;
    match gateway.call(&enrolment, finished.session.as_ref()).await {
        Ok(session) => {
            opened.engine.set_session(session, &mut OsRng)?;
            welcome(context, opened).await
        }
        Err(error) => {
            context.home.remove(opened)?;
            Err(error.into())
        }
    }
}

async fn renew(context: &Context, user: &UserName) -> anyhow::Result<()> {
    let device = context.open()?;
    let account = device.session.look(|engine, _| {
        let account = engine.account();
        (account.org.clone(), account.user.clone())
    });
    let (org, own) = account.await?;
    ensure!(
        own == *user,
        "this folder belongs to {own}: choose another one with --dir"
    );
    device.session.call(&wire::MeRequest {}).await?;
    context.output.say(
        &json!({ "event": "logged_in", "org": org, "user": own }),
        format_args!("You are logged in as {own} at {org}."),
    )?;
    Ok(())
}

/// What the gateway says about itself.
pub async fn server_info(
    context: &Context,
    gateway: &Gateway,
) -> Result<wire::ServerInfo, GatewayError> {
    let request = wire::ServerInfoRequest {
        org: gateway.address().org.to_string(),
    };
    let asked = gateway.call(&request, None);
    context.output.patiently("Asking the server", asked).await
}

/// First steps of a device that has just got its account: it says who it is,
/// and uploads what others need to let it into rooms.
pub async fn welcome(context: &Context, opened: Opened) -> anyhow::Result<()> {
    let account = opened.engine.account();
    let (org, user, id) = (account.org.clone(), account.user.clone(), account.device);
    let safety_number = account.safety_number();
    let mut device = context.start(opened)?;
    let settled = device.settle("Preparing this device").await;
    context.output.say(
        &json!({
            "event": "account", "org": org, "user": user, "device": id,
            "safety_number": safety_number,
        }),
        format_args!("This device belongs to {user} at {org} now.\nSafety number: {safety_number}"),
    )?;
    if let Err(error) = settled {
        context.output.note(format_args!(
            "Others cannot let this device into rooms yet ({error}): run `sotto sync`."
        ));
    }
    device.session.stop().await;
    Ok(())
}
