//! The whole directory, read from the server and verified here: what lists and
//! explanations are made of. Only who manages the organisation may read it.

use std::io;

use sotto_jwt_accounts::directory::State;

use crate::device::{Context, Device};

/// What takes a moment.
const READING: &str = "Reading and verifying the directory";

/// What the log adds up to now. What this device has verified before is not
/// read again.
///
/// # Errors
/// When the server refuses or is away, or an entry does not verify.
pub async fn state(context: &Context) -> anyhow::Result<State> {
    let device = context.open()?;
    let state = state_at(context, &device).await?;
    device.session.stop().await;
    Ok(state)
}

/// The same on a device at work.
///
/// # Errors
/// As [`state`].
pub async fn state_at(context: &Context, device: &Device) -> anyhow::Result<State> {
    let kept = context.home.kept_directory();
    let reading = device.session.directory(&kept);
    Ok(context.output.patiently(READING, reading).await?)
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
    let reading = device.session.read_directory(sink);
    let state = context.output.patiently(READING, reading).await?;
    device.session.stop().await;
    Ok(state)
}
