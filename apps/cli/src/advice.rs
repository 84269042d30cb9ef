//! What to do when factors must be proven first: which, at which level, and
//! the command that proves it.

use serde_json::{Value, json};
use sotto_client_core::io::FactorNeeded;
use sotto_client_native::gateway::GatewayError;
use sotto_client_native::session::{CommandError, DirectoryReadError, ProveError};
use sotto_proto::wire;

use crate::commands::admin::place::place_of;
use crate::commands::admin::policy::form;

/// The factors that an error is about, if that is what it is about.
pub fn needed(error: &anyhow::Error) -> Option<&FactorNeeded> {
    let gateway = match error.downcast_ref() {
        Some(DirectoryReadError::Gateway(gateway)) => Some(gateway),
        _ => error.downcast_ref(),
    };
    let gateway = match error.downcast_ref() {
        Some(ProveError::Gateway(gateway)) => Some(gateway),
        _ => gateway,
    };
    match (gateway, error.downcast_ref()) {
        (Some(GatewayError::FactorNeeded(needed)), _)
        | (_, Some(CommandError::FactorNeeded(needed))) => Some(needed),
        _ => None,
    }
}

/// One line for each factor.
pub fn lines(needed: &FactorNeeded) -> Vec<String> {
    needed.missing.iter().map(line).collect()
}

/// The same for programs.
pub fn json(needed: &FactorNeeded) -> Vec<Value> {
    needed.missing.iter().map(missing_json).collect()
}

/// One factor for programs.
pub fn missing_json(missing: &wire::MissingFactor) -> Value {
    let demand = missing.demand.clone().unwrap_or_default();
    json!({
        "demand": form::demand_json(&demand),
        "place": place_of(missing.level.as_ref()),
        "enrolled": missing.enrolled,
        "command": command(missing),
    })
}

fn line(missing: &wire::MissingFactor) -> String {
    let demand = missing.demand.clone().unwrap_or_default();
    let place = place_of(missing.level.as_ref());
    let demanded = format!("{place} demands {}", form::sentence(&demand));
    match (command(missing), demand.factor()) {
        (Some(command), _) => format!("{demanded}: run `{command}`"),
        (None, wire::Factor::Introductions) => {
            format!("{demanded}: ask members to run `sotto admin user introduce` with your name")
        }
        (None, _) => {
            format!("{demanded}: this program cannot prove that; ask an owner for another way")
        }
    }
}

/// What proves the factor, or makes it possible to.
fn command(missing: &wire::MissingFactor) -> Option<&'static str> {
    let factor = missing.demand.as_ref()?.factor();
    match (factor, missing.enrolled) {
        (wire::Factor::Password, _) => Some("sotto factor prove password"),
        (wire::Factor::Totp, true) => Some("sotto factor prove totp"),
        (wire::Factor::Totp, false) => Some("sotto factor enrol totp"),
        (wire::Factor::Sms, true) => Some("sotto factor prove sms"),
        (wire::Factor::Sms, false) => Some("sotto factor enrol sms NUMBER"),
        (wire::Factor::Webauthn, true) => Some("sotto factor prove webauthn --open"),
        (wire::Factor::Webauthn, false) => Some("sotto factor enrol webauthn --open"),
        (wire::Factor::Fido2, true) => Some("sotto factor prove fido2"),
        (wire::Factor::Fido2, false) => Some("sotto factor enrol fido2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn totp(enrolled: bool) -> FactorNeeded {
        FactorNeeded {
            sentence: "no".to_owned(),
            missing: vec![wire::MissingFactor {
                demand: Some(wire::Demand {
                    actions: vec![wire::PolicyAction::Read.into()],
                    factor: wire::Factor::Totp.into(),
                    max_age_seconds: 28_800,
                    ..wire::Demand::default()
                }),
                level: Some(wire::Scope {
                    place: Some(wire::scope::Place::Project("field".to_owned())),
                }),
                enrolled,
            }],
        }
    }

    #[test]
    fn the_command_that_helps_is_named() {
        assert_eq!(
            lines(&totp(true)),
            ["project:field demands totp proven within 8h, to read: run `sotto factor prove totp`"]
        );
        assert!(lines(&totp(false))[0].contains("`sotto factor enrol totp`"));
        let [json] = &json(&totp(true))[..] else {
            panic!()
        };
        assert_eq!(json["place"], "project:field");
        assert_eq!(json["demand"]["factor"], "totp");
        assert_eq!(json["command"], "sotto factor prove totp");
    }

    #[test]
    fn the_factors_are_found_whatever_is_around_them() {
        let of_call = anyhow::Error::new(GatewayError::FactorNeeded(totp(true)));
        let of_command = anyhow::Error::new(CommandError::FactorNeeded(totp(true)));
        let of_read = DirectoryReadError::Gateway(GatewayError::FactorNeeded(totp(true)));
        let of_proof = ProveError::Gateway(GatewayError::FactorNeeded(totp(true)));
        for error in [of_call, of_command, of_read.into(), of_proof.into()] {
            assert!(needed(&error).is_some(), "{error}");
        }
        let within: Result<(), _> = Err(GatewayError::FactorNeeded(totp(true)));
        assert!(needed(&within.context("while").unwrap_err()).is_some());
        assert!(needed(&anyhow::anyhow!("something else")).is_none());
    }
}
