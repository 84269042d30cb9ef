//! `sotto safety`: the number by which people make sure of each other.

use anyhow::Context as _;
use serde_json::json;
use sotto_proto::UserName;

use crate::device::Context;

pub async fn run(context: &Context, user: UserName) -> anyhow::Result<()> {
    let device = context.open()?;
    let whose = user.clone();
    let number = device
        .session
        .look(move |engine, _| engine.safety_number(&whose));
    let number = number.await?.with_context(|| {
        format!("this device does not know {user} yet: share a room first, then try again")
    })?;
    context.output.say(
        &json!({ "event": "safety_number", "user": user, "safety_number": number }),
        number,
    )?;
    Ok(())
}
