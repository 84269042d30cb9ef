//! The whole directory, read from the server and verified here: what lists and
//! explanations are made of. Only who manages the organisation may read it.

use std::io;

use sotto_jwt_accounts::directory::State;

use crate::device::{Context, Device};

/// What the log adds up to now.
///
/// # Errors
/// When the server refuses or is away, or an entry does not verify.
pub async fn state(context: &Context) -> anyhow::Result<State> {
    read(context, |_| Ok(())).await
}

/// The same on a device at work.
///
/// # Errors
/// As [`state`].
pub async fn state_at(context: &Context, device: &Device) -> anyhow::Result<State> {
    read_at(context, device, |_| Ok(())).await
}

/// Gives every entry to `sink`, in order and verified; what they add up to.
///
/// # Errors
/// As [`state`], or when `sink` fails.
pub async fn read(
    context: &Context,
    sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> anyhow::Result<State> {
    let device = context.open()?;
    let state = read_at(context, &device, sink).await?;
    device.session.stop().await;
    Ok(state)
}

async fn read_at(
    context: &Context,
    device: &Device,
    sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> anyhow::Result<State> {
    let reading = device.session.read_directory(sink);
    let what = "Reading and verifying the directory";
    Ok(context.output.patiently(what, reading).await?)
}
