//! The form of a policy: "for these actions, this factor, proven not longer
//! ago than this".

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;

use sotto_proto::wire;

use super::factor::{Factor, UnknownFactor};

/// What of the newest introductions a demand may look at.
pub const INTRODUCTIONS_WINDOW: u8 = 16;

/// The kinds of [`Action`](super::Action), by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// [`Read`](super::Read).
    Read,
    /// [`Post`](super::Post).
    Post,
    /// [`Join`](super::Join).
    Join,
    /// [`Invite`](super::Invite).
    Invite,
    /// [`Manage`](super::Manage).
    Manage,
    /// [`CreateInvite`](super::CreateInvite).
    CreateInvite,
    /// [`CreateRoom`](super::CreateRoom).
    CreateRoom,
    /// [`CreateProject`](super::CreateProject).
    CreateProject,
    /// [`Introduce`](super::Introduce).
    Introduce,
}

impl ActionKind {
    /// Every kind there is.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Post,
        Self::Join,
        Self::Invite,
        Self::Manage,
        Self::CreateInvite,
        Self::CreateRoom,
        Self::CreateProject,
        Self::Introduce,
    ];

    /// What it is called in Cedar and in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Post => "post",
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Manage => "manage",
            Self::CreateInvite => "create-invite",
            Self::CreateRoom => "create-room",
            Self::CreateProject => "create-project",
            Self::Introduce => "introduce",
        }
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One demand of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    actions: BTreeSet<ActionKind>,
    needs: Needs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Factor {
        factor: Factor,
        max_age_s: Option<NonZeroU32>,
    },
    Introductions {
        at_least: u8,
        of: u8,
    },
}

impl Demand {
    /// The actions it is made for; empty: every action.
    pub fn actions(&self) -> &BTreeSet<ActionKind> {
        &self.actions
    }

    /// What must be proven.
    pub fn factor(&self) -> Factor {
        match self.needs {
            Needs::Factor { factor, .. } => factor,
            Needs::Introductions { .. } => Factor::Introductions,
        }
    }

    /// How long ago it may have been proven, in seconds; `None`: however long.
    pub fn max_age_s(&self) -> Option<NonZeroU32> {
        match self.needs {
            Needs::Factor { max_age_s, .. } => max_age_s,
            Needs::Introductions { .. } => None,
        }
    }

    /// For introductions: how many of how many of the newest must be by
    /// members in good standing.
    pub fn introductions(&self) -> Option<(u8, u8)> {
        match self.needs {
            Needs::Factor { .. } => None,
            Needs::Introductions { at_least, of } => Some((at_least, of)),
        }
    }
}

impl Demand {
    /// This factor for one action, however long ago it was proven; `None` for
    /// introductions, which need numbers.
    pub(super) fn of_any_age(action: ActionKind, factor: Factor) -> Option<Self> {
        (factor != Factor::Introductions).then(|| Self {
            actions: BTreeSet::from([action]),
            needs: Needs::Factor {
                factor,
                max_age_s: None,
            },
        })
    }

    /// This factor, one that a session can prove, for every action.
    pub(super) fn within(factor: Factor, max_age_s: NonZeroU32) -> Self {
        Self {
            actions: BTreeSet::new(),
            needs: Needs::Factor {
                factor,
                max_age_s: Some(max_age_s),
            },
        }
    }

    /// What it comes down to.
    pub(super) fn cedar(&self) -> String {
        let actions = self.actions.iter();
        let actions: Vec<_> = actions
            .map(|action| format!("Sotto::Action::\"{action}\""))
            .collect();
        let action = match actions.as_slice() {
            [] => "action".to_owned(),
            actions => format!("action in [{}]", actions.join(", ")),
        };
        let unless = match self.needs {
            Needs::Factor {
                factor,
                max_age_s: None,
            } => format!("context.proven has {factor}"),
            Needs::Factor {
                factor,
                max_age_s: Some(max_age_s),
            } => format!("context.proven has {factor} && context.proven.{factor} <= {max_age_s}"),
            Needs::Introductions { at_least, of } => {
                format!("context.introductions.of{of} >= {at_least}")
            }
        };
        let factor = self.factor();
        format!(
            "@factor(\"{factor}\")\nforbid (principal, {action}, resource)\nunless {{ {unless} }};\n"
        )
    }
}

/// "totp, proven within 8 h", "introductions by 2 of the newest 5".
impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.needs {
            Needs::Factor { factor, max_age_s } => match max_age_s {
                None => factor.fmt(f),
                Some(max_age_s) => write!(f, "{factor} within {}", Age(max_age_s.get())),
            },
            Needs::Introductions { at_least, of } => {
                write!(f, "introductions {at_least} of {of}")
            }
        }
    }
}

/// A time in the largest unit that tells it in full.
struct Age(u32);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
        let unit = units
            .into_iter()
            .find(|(seconds, _)| self.0.is_multiple_of(*seconds));
        match unit {
            Some((seconds, unit)) => write!(f, "{} {unit}", self.0 / seconds),
            None => write!(f, "{} s", self.0),
        }
    }
}

/// Why a demand is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDemand {
    /// Its factor.
    #[error(transparent)]
    Factor(#[from] UnknownFactor),
    /// One of its actions.
    #[error(
        "an action is missing or newer than this version: name one of those that exist, or update Sotto"
    )]
    Action,
    /// An age for introductions, or numbers for another factor.
    #[error(
        "introductions have numbers and no age, every other factor an age and no numbers: leave the others out"
    )]
    Mixed,
    /// The numbers of introductions.
    #[error(
        "introductions are demanded as K of N with 1 <= K <= N <= {INTRODUCTIONS_WINDOW}: choose such numbers"
    )]
    Window,
}

impl TryFrom<&wire::Demand> for Demand {
    type Error = BadDemand;

    fn try_from(demand: &wire::Demand) -> Result<Self, BadDemand> {
        // Not the generated accessor: it leaves unknown ones out.
        let actions = demand.actions.iter().map(|action| {
            let action = wire::PolicyAction::try_from(*action).map_err(|_| BadDemand::Action)?;
            ActionKind::try_from(action)
        });
        Ok(Self {
            actions: actions.collect::<Result<_, _>>()?,
            needs: Needs::try_from(demand)?,
        })
    }
}

impl TryFrom<&wire::Demand> for Needs {
    type Error = BadDemand;

    fn try_from(demand: &wire::Demand) -> Result<Self, BadDemand> {
        let max_age_s = NonZeroU32::new(demand.max_age_seconds);
        match Factor::try_from(demand.factor())? {
            Factor::Introductions if max_age_s.is_some() => Err(BadDemand::Mixed),
            Factor::Introductions => {
                let of = u8::try_from(demand.of).map_err(|_| BadDemand::Window)?;
                let at_least = u8::try_from(demand.at_least).map_err(|_| BadDemand::Window)?;
                if (1..=of).contains(&at_least) && of <= INTRODUCTIONS_WINDOW {
                    Ok(Self::Introductions { at_least, of })
                } else {
                    Err(BadDemand::Window)
                }
            }
            _ if demand.at_least != 0 || demand.of != 0 => Err(BadDemand::Mixed),
            factor => Ok(Self::Factor { factor, max_age_s }),
        }
    }
}

impl From<&Demand> for wire::Demand {
    fn from(demand: &Demand) -> Self {
        let actions = demand.actions.iter();
        let (at_least, of) = demand.introductions().unwrap_or_default();
        Self {
            actions: actions
                .map(|action| wire::PolicyAction::from(*action).into())
                .collect(),
            factor: wire::Factor::from(demand.factor()).into(),
            max_age_seconds: demand.max_age_s().map_or(0, NonZeroU32::get),
            at_least: at_least.into(),
            of: of.into(),
        }
    }
}

impl TryFrom<wire::PolicyAction> for ActionKind {
    type Error = BadDemand;

    fn try_from(action: wire::PolicyAction) -> Result<Self, BadDemand> {
        Ok(match action {
            wire::PolicyAction::Unspecified => return Err(BadDemand::Action),
            wire::PolicyAction::Read => Self::Read,
            wire::PolicyAction::Post => Self::Post,
            wire::PolicyAction::Join => Self::Join,
            wire::PolicyAction::Invite => Self::Invite,
            wire::PolicyAction::Manage => Self::Manage,
            wire::PolicyAction::CreateInvite => Self::CreateInvite,
            wire::PolicyAction::CreateRoom => Self::CreateRoom,
            wire::PolicyAction::CreateProject => Self::CreateProject,
            wire::PolicyAction::Introduce => Self::Introduce,
        })
    }
}

impl From<ActionKind> for wire::PolicyAction {
    fn from(action: ActionKind) -> Self {
        match action {
            ActionKind::Read => Self::Read,
            ActionKind::Post => Self::Post,
            ActionKind::Join => Self::Join,
            ActionKind::Invite => Self::Invite,
            ActionKind::Manage => Self::Manage,
            ActionKind::CreateInvite => Self::CreateInvite,
            ActionKind::CreateRoom => Self::CreateRoom,
            ActionKind::CreateProject => Self::CreateProject,
            ActionKind::Introduce => Self::Introduce,
        }
    }
}
