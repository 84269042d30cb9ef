//! What was measured, with the goal where there is one.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Everything that was measured, in order.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl Figures {
    /// Notes a figure.
    pub(crate) fn note(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
    ) {
        self.figures.push(Figure {
            what: what.into(),
            value,
            unit,
            goal,
        });
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Figure {
            what,
            value,
            unit,
            goal,
        } in &self.figures
        {
            write!(f, "{what:<58} {value:>12.2} {unit:<6}")?;
            if let Some(goal) = goal {
                let (sign, bound) = match goal {
                    Goal::AtMost(bound) => ("<=", bound),
                    Goal::AtLeast(bound) => (">=", bound),
                };
                let met = if goal.is_met(*value) { "met" } else { "missed" };
                write!(f, "  goal {sign} {bound}: {met}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The value below which this share of the samples lies, in microseconds.
pub(crate) fn percentile(samples: &mut [Duration], share: f64) -> f64 {
    samples.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list"
    )]
    let place = (samples.len().saturating_sub(1) as f64 * share).round() as usize;
    samples
        .get(place)
        .map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e6)
}
