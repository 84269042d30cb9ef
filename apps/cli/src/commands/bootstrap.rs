//! `sotto bootstrap`: bare machines become a server. `sotto-bootstrap` decides
//! and does; this shows it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sotto_bootstrap::plan::{Action, Place, Plan, Step};
use sotto_bootstrap::{Fleet, Programs, Updates, Wish};

use crate::commands::doctor::DEVICE_VARIABLE;
use crate::device::Context;

/// How one goes on after it was cut off.
const GOES_ON: &str = "what is done stays, and the same command goes on with the rest";

pub async fn run(context: &Context, wish: Wish) -> anyhow::Result<()> {
    // So that the connections end, and their sockets go.
    tokio::select! {
        done = Box::pin(bootstrap(context, wish)) => done,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            bail!("interrupted: {GOES_ON}")
        }
    }
}

async fn bootstrap(context: &Context, mut wish: Wish) -> anyhow::Result<()> {
    let output = context.output;
    // The folder of a device that is named for all commands is not meant.
    let device = env::var_os(DEVICE_VARIABLE).map(PathBuf::from);
    wish.dir = wish.dir.filter(|dir| Some(dir) != device.as_ref());
    let programs = Programs::find(&folder(wish.programs.as_deref())?)?;
    let updates = Updates::read(&wish.updates)?;
    let connecting = |machine: &_| output.note(format_args!("Connecting to {machine}."));
    let fleet = Fleet::connect(&wish, connecting).await?;
    let machines = output.patiently("Asking the machines", fleet.look(&wish, updates.as_ref()));
    let plan = Plan::make(&wish, &programs, updates.as_ref(), &machines.await?)?;
    for note in &plan.notes {
        output.say(
            &json!({"event": "note", "text": note}),
            format_args!("Note: {note}."),
        )?;
    }
    for step in &plan.steps {
        let place = plan.places.get(step.machine).context("no such machine")?;
        if !wish.dry_run {
            let what = format!("{}: {}", place.destination, step.action);
            let doing = Box::pin(fleet.perform(&plan, &programs, step));
            let done = output.patiently(&what, doing).await;
            done.with_context(|| format!("not completed; {GOES_ON}"))?;
        }
        output.say(&fields(place, step, !wish.dry_run), line(place, step))?;
    }
    if wish.dry_run {
        without_updates(context, &plan);
        output.note("Nothing was changed: this is what would be done.");
        return Ok(());
    }
    let settling = Box::pin(fleet.settle(&plan));
    output
        .patiently("Waiting until everything is kept on all machines", settling)
        .await?;
    look_for_releases(context, &fleet, &plan).await?;
    announce(context, &fleet, &plan).await
}

/// Where a timer was started, tells what it will find: a source that cannot be
/// reached would not be noticed for a day.
async fn look_for_releases(context: &Context, fleet: &Fleet, plan: &Plan) -> anyhow::Result<()> {
    let output = context.output;
    for (number, place) in plan.places.iter().enumerate() {
        let starts_timer = |step: &Step| {
            step.machine == number && matches!(step.action, Action::StartTimer { .. })
        };
        if !plan.steps.iter().any(starts_timer) {
            continue;
        }
        let what = format!("{}: looking for releases", place.destination);
        let found = output.patiently(&what, fleet.newest_release(plan, number));
        let found = found.await.map_err(|error| error.to_string());
        let text = match &found {
            Ok(newest) => format!(
                "{} updates itself daily; the newest release that it finds is {newest}.",
                place.destination
            ),
            Err(problem) => {
                format!("Warning: there are no updates until this is changed: {problem}")
            }
        };
        output.say(
            &json!({
                "event": "updates", "machine": place.destination.as_str(),
                "newest": found.as_ref().ok(), "problem": found.as_ref().err(),
            }),
            text,
        )?;
    }
    Ok(())
}

/// Tells which machines stay as they are, and how that is changed.
fn without_updates(context: &Context, plan: &Plan) {
    let machines: Vec<&str> = plan.without_updates.iter().map(|m| m.as_str()).collect();
    if !machines.is_empty() {
        context.output.note(format_args!(
            "These machines do not update themselves: {}.\n  To change that, say --updates, --root-of-trust and --fingerprint, now or later.",
            machines.join(", ")
        ));
    }
}

/// Tells what there is now, and how the first admin gets in.
async fn announce(context: &Context, fleet: &Fleet, plan: &Plan) -> anyhow::Result<()> {
    let output = context.output;
    let invite = fleet.invitation(plan).await?.map(|link| link.to_string());
    let ports = plan.ports();
    let without: Vec<&str> = plan.without_updates.iter().map(|m| m.as_str()).collect();
    let done = match plan.steps.len() {
        0 => "Nothing had to be changed.".to_owned(),
        1 => "1 thing was done.".to_owned(),
        count => format!("{count} things were done."),
    };
    let first = match &invite {
        Some(invite) => format!("\n  its first admin:  sotto signup '{invite}' NAME"),
        None => String::new(),
    };
    let machines = match plan.places.len() {
        1 => "one machine".to_owned(),
        count => format!("{count} machines"),
    };
    output.say(
        &json!({
            "event": "ready", "changed": plan.steps.len(), "org": plan.org, "invite": invite,
            "machines": plan.places.len(), "ports": ports,
            "without_updates": without,
        }),
        format_args!("{done}\n{} is served by {machines}.{first}", plan.org),
    )?;
    without_updates(context, plan);
    let ports = ports.join("\n  ");
    output.note(format_args!(
        "No firewall was changed. These must be reachable:\n  {ports}"
    ));
    Ok(())
}

/// What was named, else where this program is.
fn folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let own = env::current_exe().context("cannot find where this program is")?;
    Ok(own.parent().unwrap_or(Path::new(".")).to_owned())
}

fn fields(place: &Place, step: &Step, done: bool) -> Value {
    json!({
        "event": "step", "machine": place.destination.as_str(), "node": place.node,
        "done": done, "step": step.action, "what": step.action.to_string(), "why": step.why,
    })
}

fn line(place: &Place, step: &Step) -> String {
    format!("{}: {} ({})", place.destination, step.action, step.why)
}
