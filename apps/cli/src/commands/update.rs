//! `sotto update`: this program, by the rules of `docs/updates.md`.

use sotto_update::command::tool;

use crate::arguments::Update;
use crate::device::{Context, data_directory};

/// What releases call this program.
const NAME: &str = "sotto";

pub async fn run(context: &Context, Update { state, what }: Update) -> anyhow::Result<()> {
    let state = match state {
        Some(state) => state,
        None => data_directory("sotto-update")?,
    };
    let version = env!("CARGO_PKG_VERSION");
    tool::run(what, &state, context.global.json, (NAME, version)).await
}
