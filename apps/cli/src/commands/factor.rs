//! `sotto factor`: what a person can prove beyond holding a device. A proof
//! counts on this device, for as long as each policy allows.

mod key;

use std::io;

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;
use sotto_proto::{FactorId, wire};

use crate::commands::admin::names::Named;
use crate::device::{Context, Device};
use crate::table::Table;
use crate::{prompt, qr, times};

/// What can be typed after `sotto factor`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Which factors are demanded, and where, is the policy's: when something is refused for want of one,
the message names the command that proves it.

Examples:
  sotto factor enrol totp
  sotto factor enrol webauthn --name laptop --open
  sotto factor prove totp 123456
  sotto factor prove fido2
  sotto factor prove password")]
pub enum Factor {
    /// List what is enrolled, and what is proven on this device.
    List,
    /// Enrol a factor.
    #[command(subcommand)]
    Enrol(Enrol),
    /// Prove a factor on this device.
    #[command(subcommand)]
    Prove(Prove),
    /// Take a factor away, such as that of a lost phone.
    Remove {
        /// Its id, as `sotto factor list` shows it.
        id: FactorId,
    },
}

/// What can be enrolled.
#[derive(Debug, Subcommand)]
pub enum Enrol {
    /// An app that shows a new code every 30 seconds. Shows a QR code for it,
    /// then asks for the first code (or reads it from standard input).
    Totp,
    /// A telephone number, to which codes are sent as text messages. Asks for
    /// the first code (or reads it from standard input).
    Sms {
        /// With its country, such as +4930123456.
        number: String,
    },
    /// A passkey or security key, in a browser: shows a link to it, and waits.
    Webauthn {
        #[command(flatten)]
        name: key::Name,
        #[command(flatten)]
        browser: key::Browser,
    },
    /// A security key that is plugged in here, without a browser.
    Fido2 {
        #[command(flatten)]
        name: key::Name,
        #[command(flatten)]
        asking: key::Asking,
    },
}

/// What can be proven.
#[derive(Debug, Subcommand)]
pub enum Prove {
    /// The account's password; it does not leave this device.
    Password,
    /// A code of your app.
    Totp {
        /// The code it shows now; asked for (or read from standard input) without it.
        code: Option<String>,
        /// Of just this factor; also completes its enrolment.
        #[arg(long, value_name = "ID")]
        id: Option<FactorId>,
    },
    /// A code by text message.
    Sms {
        /// The code; without it one is sent to you, and asked for (or read from
        /// standard input).
        code: Option<String>,
        /// Of just this number; also completes its enrolment.
        #[arg(long, value_name = "ID")]
        id: Option<FactorId>,
    },
    /// A passkey or security key, in a browser: shows a link to it, and waits.
    Webauthn {
        #[command(flatten)]
        browser: key::Browser,
    },
    /// A security key that is plugged in here, without a browser.
    Fido2 {
        #[command(flatten)]
        asking: key::Asking,
    },
}

pub async fn run(context: &Context, command: Factor) -> anyhow::Result<()> {
    let device = context.open()?;
    match command {
        Factor::List => list(context, &device).await?,
        Factor::Enrol(Enrol::Totp) => enrol_totp(context, &device).await?,
        Factor::Prove(Prove::Password) => prove_password(context, &device).await?,
        Factor::Prove(Prove::Totp { code, id }) => {
            let code = match code {
                Some(code) => code,
                None => typed_code()?,
            };
            prove_totp(context, &device, &code, id).await?;
        }
        Factor::Enrol(Enrol::Sms { number }) => enrol_sms(context, &device, &number).await?,
        Factor::Prove(Prove::Sms { code, id }) => {
            prove_sms(context, &device, code, id).await?;
        }
        Factor::Enrol(Enrol::Webauthn { name, browser }) => {
            key::in_browser(context, &device, Some(name), browser).await?;
        }
        Factor::Prove(Prove::Webauthn { browser }) => {
            key::in_browser(context, &device, None, browser).await?;
        }
        Factor::Enrol(Enrol::Fido2 { name, asking }) => {
            key::plugged_in(context, &device, Some(name), asking).await?;
        }
        Factor::Prove(Prove::Fido2 { asking }) => {
            key::plugged_in(context, &device, None, asking).await?;
        }
        Factor::Remove { id } => remove(context, &device, id).await?,
    }
    device.session.stop().await;
    Ok(())
}

async fn list(context: &Context, device: &Device) -> anyhow::Result<()> {
    let asked = device.session.factors();
    let factors = context.output.patiently("Asking the server", asked).await?;
    let mut table = Table::new(["FACTOR", "NAME", "ENROLLED", "PROVEN HERE", "ID"]);
    for factor in factors {
        table.row(
            json!({
                "event": "factor", "factor": factor.factor().name(), "id": id(&factor.id),
                "name": factor.name, "cloned_ms": moment(factor.cloned_ms),
                "enrolled_ms": moment(factor.enrolled_ms), "proven_ms": moment(factor.proven_ms),
            }),
            [
                factor.factor().name(),
                factor.name.clone(),
                shown(factor.enrolled_ms),
                match moment(factor.cloned_ms) {
                    None => shown(factor.proven_ms),
                    Some(_) => "BLOCKED: may be a copy".to_owned(),
                },
                id(&factor.id).unwrap_or_default(),
            ],
        );
    }
    table.show(
        context.output,
        "Nothing is enrolled: `sotto factor enrol totp` adds a code generator.",
    )?;
    Ok(())
}

async fn enrol_totp(context: &Context, device: &Device) -> anyhow::Result<()> {
    let output = context.output;
    let asked = device.session.enrol_totp();
    let enrolment = output.patiently("Asking the server", asked).await?;
    let factor = FactorId::try_from(&enrolment.id)?;
    let url = enrolment.url.as_str();
    output.say(
        &json!({ "event": "enrolment", "factor": "totp", "id": factor, "url": url }),
        format_args!(
            "{}\nScan this with your authenticator app, or open this link there:\n  {url}",
            qr::code(url)?
        ),
    )?;
    let code = typed_code();
    let Ok(code) = code else {
        bail!("not completed: run `sotto factor prove totp CODE --id {factor}` with a code of it");
    };
    prove_totp(context, device, &code, Some(factor)).await
}

async fn prove_totp(
    context: &Context,
    device: &Device,
    code: &str,
    factor: Option<FactorId>,
) -> anyhow::Result<()> {
    let id = factor.map(|factor| factor.to_bytes());
    let asked = device.session.prove_totp(code, id);
    let at = context.output.patiently("Asking the server", asked).await?;
    Ok(proven(context, wire::Factor::Totp, at.0)?)
}

async fn enrol_sms(context: &Context, device: &Device, number: &str) -> anyhow::Result<()> {
    let output = context.output;
    // As people write numbers.
    let number = number.replace([' ', '-', '(', ')', '/'], "");
    let asked = device.session.enrol_sms(&number);
    let sent = output.patiently("Asking the server", asked).await?;
    let factor = FactorId::try_from(&sent.id)?;
    say_sent(context, &sent)?;
    let Ok(code) = typed_code() else {
        bail!("not completed: run `sotto factor prove sms CODE --id {factor}` with the code");
    };
    prove_sms(context, device, Some(code), Some(factor)).await
}

async fn prove_sms(
    context: &Context,
    device: &Device,
    code: Option<String>,
    factor: Option<FactorId>,
) -> anyhow::Result<()> {
    let output = context.output;
    let id = factor.map(|factor| factor.to_bytes());
    let code = match code {
        Some(code) => code,
        None => {
            let asked = device.session.send_sms(id.clone());
            let sent = output.patiently("Asking the server", asked).await?;
            say_sent(context, &sent)?;
            typed_code()?
        }
    };
    let asked = device.session.prove_sms(&code, id);
    let at = output.patiently("Asking the server", asked).await?;
    Ok(proven(context, wire::Factor::Sms, at.0)?)
}

fn say_sent(context: &Context, sent: &wire::SmsSent) -> anyhow::Result<()> {
    let factor = FactorId::try_from(&sent.id)?;
    let hint = &sent.hint;
    let said = context.output.say(
        &json!({
            "event": "sms_sent", "id": factor, "hint": hint, "expires_ms": sent.expires_ms,
        }),
        format_args!("A code was sent to the number that ends in {hint}; it counts for 5 minutes."),
    );
    Ok(said?)
}

async fn prove_password(context: &Context, device: &Device) -> anyhow::Result<()> {
    let password = context.password().ask()?;
    let asked = device.session.prove_password(&password);
    let at = context.output.patiently("Asking the server", asked).await?;
    Ok(proven(context, wire::Factor::Password, at.0)?)
}

fn proven(context: &Context, factor: wire::Factor, at_ms: i64) -> io::Result<()> {
    let factor = factor.name();
    context.output.say(
        &json!({ "event": "proven", "factor": factor, "proven_ms": at_ms }),
        format_args!("{factor} is proven on this device."),
    )
}

async fn remove(context: &Context, device: &Device, factor: FactorId) -> anyhow::Result<()> {
    let asked = device.session.remove_factor(factor.to_bytes());
    context.output.patiently("Asking the server", asked).await?;
    context.output.say(
        &json!({ "event": "factor_removed", "id": factor }),
        "It is no longer asked for, nor believed.",
    )?;
    Ok(())
}

/// A code as a person types it: spaces in the middle are common.
fn typed_code() -> anyhow::Result<String> {
    let typed = prompt::line("Code")?;
    match typed.replace(' ', "") {
        code if code.is_empty() => bail!("no code was typed: give one after `totp`"),
        code => Ok(code),
    }
}

/// The password has none.
fn id(bytes: &bytes::Bytes) -> Option<String> {
    FactorId::try_from(bytes).ok().map(|id| id.to_string())
}

fn moment(ms: i64) -> Option<i64> {
    Some(ms).filter(|&ms| ms > 0)
}

fn shown(ms: i64) -> String {
    moment(ms).map_or_else(|| "-".to_owned(), |ms| times::minute(&times::local(ms)))
}
