//! `sotto admin policy explain` and `matrix`: what the policy answers, worked
//! out here from the verified directory, by the code that the server uses.

use std::time::Duration;

use serde_json::{Value, json};
use sotto_jwt_accounts::directory::Scope;
use sotto_jwt_accounts::policy::{self, Asking, Cell, DecidingRule, Factor, Missing, Proven};
use sotto_proto::{UserName, wire};

use crate::advice;
use crate::commands::admin::directory;
use crate::commands::admin::names::Named;
use crate::commands::admin::place::{Place, place};
use crate::device::Context;

/// Who would like to do what, with what proven how long ago.
pub struct Question {
    pub user: UserName,
    pub action: wire::PolicyAction,
    pub object: Place,
    pub proven: Vec<(wire::Factor, Duration)>,
}

pub async fn explain(context: &Context, question: Question) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let object = question.object.find(&mut device).await?;
    let state = directory::state_at(context, &device).await?;
    device.session.stop().await;
    let now_ms = context.clock.now().0;
    let asking = Asking {
        user: &question.user,
        proven: &proven(&question.proven, now_ms)?,
        now_ms,
    };
    let explanation = policy::explain(&state, asking, question.action.try_into()?, &object);
    let text = explanation.to_string();
    context.output.say(
        &json!({
            "event": "explanation", "user": question.user, "action": question.action.name(),
            "place": place(&object), "allowed": explanation.allowed(),
            "rules": explanation.rules.iter().map(rule_json).collect::<Vec<_>>(),
            "missing": explanation.missing().iter().map(missing_json).collect::<Vec<_>>(),
            "text": text,
        }),
        text.trim_end(),
    )?;
    Ok(())
}

fn proven(factors: &[(wire::Factor, Duration)], now_ms: i64) -> anyhow::Result<Proven> {
    let mut proven = Proven::none();
    for (factor, ago) in factors {
        let ago_ms = i64::try_from(ago.as_millis())?;
        proven = proven.with(Factor::try_from(*factor)?, now_ms.saturating_sub(ago_ms));
    }
    Ok(proven)
}

fn rule_json(rule: &DecidingRule) -> Value {
    json!({
        "place": rule.level.as_ref().map(place), "id": rule.id, "forbids": rule.forbids,
        "cedar": rule.cedar,
    })
}

fn missing_json(missing: &Missing) -> Value {
    advice::missing_json(&missing.into())
}

pub async fn matrix(context: &Context, object: Option<Place>) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let asked = match object {
        Some(object) => Some(object.find(&mut device).await?),
        None => None,
    };
    let state = directory::state_at(context, &device).await?;
    device.session.stop().await;
    let objects = match asked {
        Some(object) => vec![object],
        None => {
            let projects = state
                .projects()
                .map(|(name, _)| Scope::Project(name.clone()));
            [Scope::Org].into_iter().chain(projects).collect()
        }
    };
    let now_ms = context.clock.now().0;
    for object in objects {
        let matrix = policy::matrix(&state, &object, now_ms);
        let rows = matrix.rows.iter().map(|row| {
            json!({
                "action": wire::PolicyAction::from(row.action).name(), "place": place(&row.object),
                "cells": row.cells.iter().map(cell_json).collect::<Vec<_>>(),
            })
        });
        let text = matrix.to_string();
        context.output.say(
            &json!({
                "event": "matrix", "place": place(&object), "standings": matrix.standings,
                "rows": rows.collect::<Vec<_>>(), "text": text,
            }),
            format_args!("{}\n\n{text}", place(&object)),
        )?;
    }
    Ok(())
}

/// What must be proven, or null for "whatever is proven, no".
fn cell_json(cell: &Cell) -> Value {
    match cell {
        Cell::Yes => json!([]),
        Cell::With(missing) => missing.iter().map(missing_json).collect(),
        Cell::No => Value::Null,
    }
}
