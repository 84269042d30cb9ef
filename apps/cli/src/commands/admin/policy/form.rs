//! A level's policy in the simple form: as it is typed after `policy set`, as
//! it is shown, and as JSON.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Value, json};
use sotto_proto::wire;

use crate::arguments;
use crate::commands::admin::names::Named;
use crate::times;

/// Demands in the order in which they were typed. `--within` and `--for`
/// belong to the demand before them, which is why clap's own order of things
/// does not do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demands(pub Vec<wire::Demand>);

/// One thing that was typed.
#[derive(Debug, Clone)]
enum Part {
    Need(wire::Factor),
    Introductions { at_least: u32, of: u32 },
    Within(u32),
    For(Vec<wire::PolicyAction>),
}

const NEED: &str = "need";
const INTRODUCTIONS: &str = "introductions";
const WITHIN: &str = "within";
const FOR: &str = "for";

impl Args for Demands {
    fn augment_args(command: Command) -> Command {
        let part = |name: &'static str, value: &'static str, parser: ValueParser| {
            Arg::new(name)
                .long(name)
                .value_name(value)
                .value_parser(parser)
                .action(ArgAction::Append)
        };
        command
            .arg(part(NEED, "FACTOR", ValueParser::new(need)).help(
                "Demand this factor: password or totp. Once for each demand",
            ))
            .arg(
                part(INTRODUCTIONS, "KofN", ValueParser::new(introductions)).help(
                    "Demand that K of the user's newest N introductions are by members in good standing",
                ),
            )
            .arg(part(WITHIN, "TIME", ValueParser::new(within)).help(
                "The demand before this: proven not longer ago than this, such as 8h; without it, ever",
            ))
            .arg(part(FOR, "ACTIONS", ValueParser::new(actions)).help(
                "The demand before this: only for these actions, such as read,post; without it, for all",
            ))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Demands {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut parts = Vec::new();
        for name in [NEED, INTRODUCTIONS, WITHIN, FOR] {
            let indices = matches.indices_of(name).into_iter().flatten();
            let values = matches.get_many::<Part>(name).into_iter().flatten();
            parts.extend(indices.zip(values.cloned()));
        }
        parts.sort_by_key(|(index, _)| *index);
        let mut demands = Self::default();
        for (_, part) in parts {
            demands.take(part).map_err(|problem| {
                clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, problem)
            })?;
        }
        Ok(demands)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Demands {
    fn take(&mut self, part: Part) -> Result<(), &'static str> {
        const FIRST: &str = "--within and --for come once each after the --need or --introductions they belong to\n";
        match part {
            Part::Need(factor) => self.0.push(wire::Demand {
                factor: factor.into(),
                ..wire::Demand::default()
            }),
            Part::Introductions { at_least, of } => self.0.push(wire::Demand {
                factor: wire::Factor::Introductions.into(),
                at_least,
                of,
                ..wire::Demand::default()
            }),
            Part::Within(seconds) => {
                let demand = self.0.last_mut().ok_or(FIRST)?;
                if demand.factor() == wire::Factor::Introductions {
                    return Err("introductions do not age: leave out --within\n");
                }
                if demand.max_age_seconds != 0 {
                    return Err(FIRST);
                }
                demand.max_age_seconds = seconds;
            }
            Part::For(actions) => {
                let demand = self.0.last_mut().ok_or(FIRST)?;
                if !demand.actions.is_empty() {
                    return Err(FIRST);
                }
                demand.actions = actions.into_iter().map(i32::from).collect();
            }
        }
        Ok(())
    }
}

fn need(text: &str) -> Result<Part, String> {
    match wire::Factor::named(text)? {
        wire::Factor::Introductions => Err("say how many with --introductions 2of5".to_owned()),
        factor => Ok(Part::Need(factor)),
    }
}

fn introductions(text: &str) -> Result<Part, String> {
    let numbers = text.split_once("of");
    let numbers = numbers.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    match numbers {
        Some((at_least, of)) if 0 < at_least && at_least <= of => {
            Ok(Part::Introductions { at_least, of })
        }
        _ => Err("write such as 2of5: how many of the newest how many".to_owned()),
    }
}

fn within(text: &str) -> Result<Part, String> {
    let time = arguments::duration(text)?;
    let seconds = u32::try_from(time.as_secs());
    seconds.map(Part::Within).map_err(|_| "too long".to_owned())
}

fn actions(text: &str) -> Result<Part, String> {
    let actions = text.split(',').map(wire::PolicyAction::named);
    Ok(Part::For(actions.collect::<Result<_, _>>()?))
}

/// Every demand as a sentence, and that there is Cedar besides.
pub fn sentences(policy: &wire::Policy) -> Vec<String> {
    let mut sentences: Vec<String> = policy.demands.iter().map(sentence).collect();
    if !policy.cedar.is_empty() {
        let lines = policy.cedar.lines().count();
        sentences.push(format!("Cedar of {lines} lines"));
    }
    if sentences.is_empty() {
        sentences.push("nothing of its own".to_owned());
    }
    sentences
}

/// `totp proven within 8h, to read and post`.
pub fn sentence(demand: &wire::Demand) -> String {
    let mut text = match demand.factor() {
        wire::Factor::Introductions => format!(
            "{} of the newest {} introductions by members in good standing",
            demand.at_least, demand.of
        ),
        factor => factor.name(),
    };
    if demand.max_age_seconds > 0 {
        let span = times::span(demand.max_age_seconds.into());
        text.push_str(&format!(" proven within {span}"));
    }
    let actions: Vec<_> = demand.actions().map(wire::PolicyAction::name).collect();
    match actions.is_empty() {
        true => text.push_str(", for everything"),
        false => text.push_str(&format!(", to {}", actions.join(", "))),
    }
    text
}

/// The policy for programs.
pub fn json(policy: &wire::Policy) -> Value {
    let demands: Vec<_> = policy.demands.iter().map(demand_json).collect();
    let cedar = Some(policy.cedar.as_str()).filter(|cedar| !cedar.is_empty());
    json!({ "demands": demands, "cedar": cedar })
}

/// A demand for programs: `actions` null means all, `within_seconds` null
/// however long ago.
pub fn demand_json(demand: &wire::Demand) -> Value {
    let actions: Vec<_> = demand.actions().map(wire::PolicyAction::name).collect();
    let positive = |number: u32| Some(number).filter(|&number| number > 0);
    json!({
        "factor": demand.factor().name(),
        "within_seconds": positive(demand.max_age_seconds),
        "actions": Some(actions).filter(|actions| !actions.is_empty()),
        "at_least": positive(demand.at_least),
        "of": positive(demand.of),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Vec<wire::Demand>, String> {
        let command = Demands::augment_args(Command::new("set").no_binary_name(true));
        let matches = command
            .try_get_matches_from(line.split_whitespace())
            .map_err(|error| error.to_string())?;
        let demands = Demands::from_arg_matches(&matches);
        demands
            .map(|demands| demands.0)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_time_and_action_belongs_to_the_demand_before_it() {
        let demands = read(
            "--need totp --within 8h --for read,post --need password --for manage \
             --introductions 2of5",
        );
        let demands = demands.unwrap();
        let sentences: Vec<_> = demands.iter().map(sentence).collect();
        assert_eq!(
            sentences,
            [
                "totp proven within 8h, to read, post",
                "password, to manage",
                "2 of the newest 5 introductions by members in good standing, for everything",
            ]
        );
    }

    #[test]
    fn what_belongs_to_nothing_is_refused() {
        for line in [
            "--within 8h",
            "--for read",
            "--need totp --within 8h --within 9h",
            "--need totp --for read --for post",
            "--need introductions",
            "--introductions 2of5 --within 8h",
            "--need pin",
            "--introductions 5of2",
            "--introductions 0of2",
            "--introductions 2",
            "--need totp --within 0h",
            "--need totp --within 99999999d",
            "--need totp --for fly",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn nothing_is_nothing_in_json_too() {
        let [demand] = &read("--need fido2").unwrap()[..] else {
            panic!()
        };
        assert_eq!(
            demand_json(demand),
            json!({
                "factor": "fido2", "within_seconds": null, "actions": null, "at_least": null,
                "of": null,
            })
        );
    }
}
