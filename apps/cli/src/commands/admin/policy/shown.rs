//! `sotto admin policy show`.

use std::sync::Arc;

use serde_json::json;
use sotto_jwt_accounts::directory::{Scope, State};
use sotto_jwt_accounts::policy::LevelPolicy;

use super::form;
use crate::commands::admin::directory;
use crate::commands::admin::place::{Place, place};
use crate::device::Context;

pub async fn run(context: &Context, level: Option<Place>, cedar: bool) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let asked = match level {
        Some(level) => Some(level.find(&mut device).await?),
        None => None,
    };
    let state = directory::state_at(context, &device).await?;
    device.session.stop().await;
    match asked {
        Some(scope) => show(context, &scope, state.policy(&scope), cedar),
        None => show_all(context, &state, cedar),
    }
}

fn show_all(context: &Context, state: &State, cedar: bool) -> anyhow::Result<()> {
    let projects = state
        .projects()
        .map(|(name, _)| Scope::Project(name.clone()));
    let rooms = state.rooms().map(|(room, _)| Scope::Room(room));
    let levels = [Scope::Org].into_iter().chain(projects).chain(rooms);
    let mut any = false;
    for scope in levels {
        if let Some(policy) = state.policy(&scope) {
            show(context, &scope, Some(policy), cedar)?;
            any = true;
        }
    }
    if !any {
        context
            .output
            .note("No level has a policy: roles alone decide.");
    }
    Ok(())
}

fn show(
    context: &Context,
    scope: &Scope,
    policy: Option<&Arc<LevelPolicy>>,
    cedar: bool,
) -> anyhow::Result<()> {
    let place = place(scope);
    let wire = policy.map(|policy| policy.to_wire());
    let text = policy.filter(|_| cedar).map(|policy| policy.cedar_text());
    let mut lines = vec![place.clone()];
    match &wire {
        Some(wire) => lines.extend(form::sentences(wire).iter().map(|line| format!("  {line}"))),
        None => lines.push("  nothing of its own".to_owned()),
    }
    lines.extend(text.clone());
    context.output.say(
        &json!({
            "event": "policy", "place": place, "policy": wire.as_ref().map(form::json),
            "text": text,
        }),
        lines.join("\n").trim_end(),
    )?;
    Ok(())
}
