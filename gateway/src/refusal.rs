//! Why a call is not answered: each reason with its code, its HTTP status and
//! one sentence for the person at the other end.

use axum::http::StatusCode;
use sotto_jwt_accounts::directory::{self, Malformed, Rule};
use sotto_jwt_accounts::policy::Denied;
use sotto_log::LogSafe;
use sotto_proto::wire::{ApiError, ApiErrorCode, MissingFactor};
use sotto_proto::{IdError, NameError};

/// A refused call. What it says may reach anyone: it never tells a secret, nor
/// whether a user exists to somebody who is not logged in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The request does not read, or breaks a limit.
    #[error("the request is not valid ({0}): update Sotto and try again")]
    Malformed(String),
    /// The body is longer than this call allows.
    #[error("the request is longer than the {0} bytes that it may have")]
    TooLarge(usize),
    /// The path is none of the API's.
    #[error("the gateway does not know this call: update Sotto, or ask your admin to")]
    UnknownCall,
    /// The password, the user name, or a login that took too long.
    #[error("the user name or the password is wrong: check both and log in again")]
    WrongPassword,
    /// No such invite, or it was used.
    #[error("this invitation is not valid or was used already: ask for a new one")]
    InviteInvalid,
    /// The invite's time is over.
    #[error("this invitation has expired: ask for a new one")]
    InviteExpired,
    /// The user name belongs to somebody.
    #[error("this user name is taken: choose another one")]
    NameTaken,
    /// No session, an unknown one, or one whose time or device is gone.
    #[error("the session is not valid any more: log in again")]
    SessionExpired,
    /// The proof's time is too far from the gateway's.
    #[error("the clock of this device is off: set it right and try again")]
    ClockOff,
    /// Not allowed; says what is missing where.
    #[error("{0}")]
    Denied(String),
    /// Not allowed until the user proves more.
    #[error("{sentence}")]
    FactorNeeded {
        /// Which factors, and for what.
        sentence: String,
        /// All of them, for a client that asks for them.
        missing: Vec<MissingFactor>,
    },
    /// A code of an authenticator app that is none, or was used.
    #[error("this code is wrong or was used already: wait for the next one and try again")]
    WrongCode,
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// Somebody else was first, or it exists already with another content.
    #[error("{0}")]
    Conflict(String),
    /// A limit of number or rate.
    #[error("{0}")]
    TooMany(String),
    /// What is asked for is allowed but not there yet.
    #[error("{0}")]
    NotYet(String),
    /// The gateway cannot reach its own storage.
    #[error("the gateway is not able to answer now: try again in a moment")]
    Unavailable,
}

impl Refusal {
    /// A request that does not read; `what` names the field.
    pub fn malformed(what: impl ToString) -> Self {
        Self::Malformed(what.to_string())
    }

    /// Something behind the gateway failed: logged here, not told.
    pub fn unavailable(error: impl LogSafe) -> Self {
        sotto_log::error!(error, "a call could not be answered");
        Self::Unavailable
    }

    /// What stands in the answer.
    pub fn to_wire(&self) -> ApiError {
        ApiError {
            code: self.code().into(),
            message: self.to_string(),
            missing: match self {
                Self::FactorNeeded { missing, .. } => missing.clone(),
                _ => Vec::new(),
            },
        }
    }

    /// The HTTP status that goes with it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::WrongPassword | Self::SessionExpired | Self::ClockOff => StatusCode::UNAUTHORIZED,
            Self::InviteInvalid
            | Self::InviteExpired
            | Self::Denied(_)
            | Self::FactorNeeded { .. }
            | Self::WrongCode => StatusCode::FORBIDDEN,
            Self::UnknownCall | Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::NameTaken | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotYet(_) | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(&self) -> ApiErrorCode {
        match self {
            Self::Malformed(_) | Self::TooLarge(_) => ApiErrorCode::Malformed,
            Self::WrongPassword => ApiErrorCode::WrongPassword,
            Self::InviteInvalid => ApiErrorCode::InviteInvalid,
            Self::InviteExpired => ApiErrorCode::InviteExpired,
            Self::NameTaken => ApiErrorCode::NameTaken,
            Self::SessionExpired | Self::ClockOff => ApiErrorCode::SessionExpired,
            Self::Denied(_) | Self::WrongCode => ApiErrorCode::Denied,
            Self::FactorNeeded { .. } => ApiErrorCode::FactorNeeded,
            Self::UnknownCall | Self::NotFound(_) => ApiErrorCode::NotFound,
            Self::Conflict(_) => ApiErrorCode::Conflict,
            Self::TooMany(_) => ApiErrorCode::TooMany,
            Self::NotYet(_) | Self::Unavailable => ApiErrorCode::Unavailable,
        }
    }
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        Self::malformed(error)
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::malformed(error)
    }
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        Self::malformed(error)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let sentence = denied.to_string();
        match denied.missing() {
            [] => Self::Denied(sentence),
            missing => Self::FactorNeeded {
                sentence,
                missing: missing.iter().map(Into::into).collect(),
            },
        }
    }
}

impl From<directory::Refusal> for Refusal {
    fn from(refusal: directory::Refusal) -> Self {
        match refusal {
            directory::Refusal::Denied(denied) => denied.into(),
            directory::Refusal::Rule(rule) => rule.into(),
            directory::Refusal::Policy(policy) => Self::malformed(policy),
            directory::Refusal::LockedOut(locked) => Self::Conflict(locked.to_string()),
            directory::Refusal::Nth { number, refusal } => match Self::from(*refusal) {
                Self::Denied(why) => Self::Denied(format!("command {number}: {why}")),
                Self::NotFound(why) => Self::NotFound(format!("command {number}: {why}")),
                Self::Conflict(why) => Self::Conflict(format!("command {number}: {why}")),
                Self::TooMany(why) => Self::TooMany(format!("command {number}: {why}")),
                Self::Malformed(why) => Self::Malformed(format!("command {number}: {why}")),
                Self::FactorNeeded { sentence, missing } => Self::FactorNeeded {
                    sentence: format!("command {number}: {sentence}"),
                    missing,
                },
                other => other,
            },
        }
    }
}

impl From<Rule> for Refusal {
    fn from(rule: Rule) -> Self {
        let sentence = rule.to_string();
        match rule {
            Rule::InviteInvalid => Self::InviteInvalid,
            Rule::InviteExpired => Self::InviteExpired,
            Rule::UserTaken(_) => Self::NameTaken,
            Rule::UnknownProject(_)
            | Rule::UnknownUser(_)
            | Rule::UnknownGroup(_)
            | Rule::UnknownDevice
            | Rule::UnknownFactor
            | Rule::UnknownRoom => Self::NotFound(sentence),
            Rule::TooManyDevices | Rule::TooManyFactors | Rule::TooManyAtOnce => {
                Self::TooMany(sentence)
            }
            Rule::Certificate(_)
            | Rule::InviteForAnother
            | Rule::InviteOutlived
            | Rule::UserExpected(_)
            | Rule::IntroductionByAnother
            | Rule::Intervention
            | Rule::FactorOfGateway => Self::Denied(sentence),
            Rule::OrgOnce
            | Rule::ProjectTaken(_)
            | Rule::DeviceTaken
            | Rule::RoomTaken
            | Rule::InviteTaken
            | Rule::ProjectHoldsRooms(_)
            | Rule::UserRevoked(_)
            | Rule::UserNotEnrolled(_)
            | Rule::GroupTaken(_)
            | Rule::AlreadyMember
            | Rule::NotMember
            | Rule::ExternalIdTaken(_)
            | Rule::Confusable(_)
            | Rule::Archived(_)
            | Rule::Unchanged
            | Rule::Guest
            | Rule::Introduction
            | Rule::FactorTaken
            | Rule::RoleHeld
            | Rule::NoRole
            | Rule::LastOwner => Self::Conflict(sentence),
        }
    }
}
