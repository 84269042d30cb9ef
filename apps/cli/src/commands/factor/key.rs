//! Passkeys and security keys: in a browser, behind a link that is good once
//! and for this device, or plugged in here.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use clap::Args;
use serde_json::json;
use sotto_client_native::security_key::{self, Person, Question};
use sotto_proto::wire;
use zeroize::Zeroizing;

use super::proven;
use crate::commands::admin::names::Named;
use crate::device::{Context, Device};
use crate::output::Output;
use crate::secrets::Secret;
use crate::times;

/// Longest name of a key, in bytes.
const NAME: usize = 64;

/// What a new key is called.
#[derive(Debug, Args)]
pub struct Name {
    /// What to call it, such as `laptop` or `blue key`.
    #[arg(long, default_value = "security key", value_parser = name)]
    name: String,
}

fn name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the name is empty: leave `--name` out, or say one".to_owned()),
        text if text.len() > NAME => Err(format!("a name has at most {NAME} bytes: shorten it")),
        text if text.chars().any(char::is_control) => {
            Err("a name has no control characters: leave them out".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

/// How the link gets to a browser.
#[derive(Debug, Args)]
pub struct Browser {
    /// Open the link in this computer's browser, too.
    #[arg(long)]
    open: bool,
}

/// How a key that is plugged in is asked.
#[derive(Debug, Args)]
pub struct Asking {
    /// Read the key's PIN from this file (or from SOTTO_KEY_PIN); asked for without it.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// The name that browsers know the gateway by, if it is not the one in the
    /// invitation; your admin knows.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
}

/// Enrols a key of this name, or proves one, in a browser.
pub async fn in_browser(
    context: &Context,
    device: &Device,
    enrol: Option<Name>,
    browser: Browser,
) -> anyhow::Result<()> {
    let output = context.output;
    let factor = wire::Factor::Webauthn;
    let asked = device
        .session
        .begin_ceremony(factor, enrol.map(|enrol| enrol.name));
    let begun = output.patiently("Asking the server", asked).await?;
    let (url, code) = (&begun.url, &begun.code);
    output.say(
        &json!({
            "event": "ceremony", "factor": factor.name(), "url": url, "code": code,
            "expires_ms": begun.expires_ms,
        }),
        format_args!(
            "Open this link in a browser that has your key; it is for you alone, and good until {}:\n  \
             {url}\nGo on there only if the page shows this code: {code}",
            times::minute(&times::local(begun.expires_ms)),
        ),
    )?;
    if browser.open {
        open(output, url);
    }
    let waiting = wait(output, device, &begun);
    let at_ms = output.patiently("Waiting for the browser", waiting).await?;
    Ok(proven(context, factor, at_ms)?)
}

async fn wait(output: Output, device: &Device, begun: &wire::CeremonyBegun) -> anyhow::Result<i64> {
    let mut trouble = String::new();
    loop {
        let standing = device.session.ceremony(begun.ticket.clone()).await?;
        if standing.proven_ms != 0 {
            return Ok(standing.proven_ms);
        }
        if standing.trouble != trouble {
            output.note(&standing.trouble);
            trouble = standing.trouble;
        }
    }
}

/// Whoever cannot open a browser can still copy the link.
fn open(output: Output, url: &str) {
    let program = match cfg!(target_os = "macos") {
        true => "open",
        false => "xdg-open",
    };
    let mut command = Command::new(program);
    let started = command
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = started {
        output.note(format_args!(
            "`{program}` cannot be started ({error}): copy the link into a browser"
        ));
    }
}

/// Enrols a key of this name, or proves one, that is plugged in here.
pub async fn plugged_in(
    context: &Context,
    device: &Device,
    enrol: Option<Name>,
    Asking { pin_file, site }: Asking,
) -> anyhow::Result<()> {
    let output = context.output;
    let factor = wire::Factor::Fido2;
    let question = match &enrol {
        Some(_) => Question::Enrol,
        None => Question::Prove,
    };
    let keys = security_key::plugged_in()?;
    if keys.is_empty() {
        bail!(security_key::KeyError::NoKey);
    }
    let known = device.session.look(|engine, _| {
        let gateway = &engine.account().gateway;
        gateway.host.clone()
    });
    let site = site.unwrap_or(known.await?);
    let asked = device
        .session
        .begin_ceremony(factor, enrol.map(|enrol| enrol.name));
    let begun = output.patiently("Asking the server", asked).await?;
    let (origin, options) = (begun.origin, begun.options);
    let person = AtTerminal {
        output,
        pin_file,
        told: AtomicBool::new(false),
    };
    let answering = tokio::task::spawn_blocking(move || {
        security_key::answer(keys, question, &site, (&origin, &options), &person)
    });
    let answer = answering.await??;
    let asked = device.session.finish_ceremony(begun.ticket, answer.into());
    let at = output.patiently("Asking the server", asked).await?;
    Ok(proven(context, factor, at.0)?)
}

struct AtTerminal {
    output: Output,
    pin_file: Option<PathBuf>,
    told: AtomicBool,
}

impl Person for AtTerminal {
    fn pin(&self) -> Option<Zeroizing<String>> {
        let pin = Secret::pin(self.pin_file.as_deref()).ask();
        pin.inspect_err(|error| self.output.note(error)).ok()
    }

    fn touch(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            self.output.note("Touch your security key now.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys_are_checked_before_the_server_is_asked() {
        assert_eq!(name("blue key"), Ok("blue key".to_owned()));
        for bad in ["", "a\u{7}b", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
