//! What the gateway counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sotto_proto::api::{self, Call};
use sotto_proto::wire::{DeviceEnrol, LoginFinish, SessionOpen, SignupFinish};

use crate::refusal::Refusal;

/// Bounds of the buckets of how long answers take, in seconds.
const SECONDS: [f64; 8] = [0.005, 0.02, 0.05, 0.2, 1.0, 5.0, 30.0, 120.0];
/// Where somebody logs in who has no session yet.
const LOGIN: [&str; 2] = ["login", "session"];
/// Why that is refused, mostly.
const LOGIN_REASONS: [&str; 5] = [
    "wrong_password",
    "too_many",
    "denied",
    "clock_off",
    "unavailable",
];

/// By what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPath {
    /// [`subject`].
    pub path: &'static str,
}

/// By what was asked for, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfAnswer {
    /// [`subject`].
    pub path: &'static str,
    /// [`class`].
    pub status: &'static str,
}

/// By what was asked for, and why it was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfRefusal {
    /// [`subject`].
    pub path: &'static str,
    /// [`reason`].
    pub reason: &'static str,
}

/// By what opened a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OpenedBy {
    /// `signup`, `password`, `enrolment` or `device`.
    pub by: &'static str,
}

/// What the gateway counts, over all orgs.
#[derive(Debug)]
pub struct Metrics {
    /// Requests that were answered.
    pub requests: Family<OfAnswer, Counter>,
    /// How long the answers took.
    pub seconds: Family<OfPath, Histogram>,
    /// Requests that are being answered.
    pub in_flight: Gauge,
    /// Calls that were refused.
    pub refused: Family<OfRefusal, Counter>,
    /// Sessions that were opened.
    pub sessions: Family<OpenedBy, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let refused = Family::<OfRefusal, Counter>::default();
        // From the start: who watches logins sees the first that is refused.
        for path in LOGIN {
            for reason in LOGIN_REASONS {
                drop(refused.get_or_create(&OfRefusal { path, reason }));
            }
        }
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Gauge::default(),
            refused,
            sessions: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds them all.
    pub fn register(&self, all: &mut Registry) {
        all.register(
            "requests",
            "Requests that were answered, by subject of the API and class of status",
            self.requests.clone(),
        );
        all.register(
            "request_seconds",
            "Time from the head of a request to the head of its answer",
            self.seconds.clone(),
        );
        all.register(
            "requests_in_flight",
            "Requests that are being answered",
            self.in_flight.clone(),
        );
        all.register(
            "refused",
            "Calls that were refused, by subject of the API and reason",
            self.refused.clone(),
        );
        all.register(
            "sessions_opened",
            "Sessions that were opened, by what opened them",
            self.sessions.clone(),
        );
    }
}

/// The subject of the API that a path belongs to, or what else it is: one of a
/// fixed number, whatever is asked for.
pub fn subject(path: &str) -> &'static str {
    let known = api::PATHS.iter().find(|(known, _)| *known == path);
    if let Some((known, _)) = known {
        let call = known.strip_prefix("/v1/").unwrap_or(known);
        return call.split('/').next().unwrap_or(call);
    }
    let others = ["webauthn", "releases", "healthz", "readyz"];
    let first = path.split('/').nth(1);
    let other = others.into_iter().find(|other| first == Some(*other));
    other.unwrap_or("unknown")
}

/// `2xx`, and so on.
pub fn class(status: u16) -> &'static str {
    match status {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

/// What a call opens a session by that is answered as it wished.
pub fn opens(path: &str) -> Option<&'static str> {
    match path {
        SignupFinish::PATH => Some("signup"),
        LoginFinish::PATH => Some("password"),
        DeviceEnrol::PATH => Some("enrolment"),
        SessionOpen::PATH => Some("device"),
        _ => None,
    }
}

/// What a refusal is counted as.
pub fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed(_) => "malformed",
        Refusal::TooLarge(_) => "too_large",
        Refusal::UnknownCall => "unknown_call",
        Refusal::WrongPassword => "wrong_password",
        Refusal::InviteInvalid => "invite_invalid",
        Refusal::InviteExpired => "invite_expired",
        Refusal::NameTaken => "name_taken",
        Refusal::SessionExpired => "session_expired",
        Refusal::ClockOff => "clock_off",
        Refusal::Denied(_) => "denied",
        Refusal::FactorNeeded { .. } => "factor_needed",
        Refusal::WrongCode => "wrong_code",
        Refusal::NotFound(_) => "not_found",
        Refusal::Conflict(_) => "conflict",
        Refusal::TooMany(_) => "too_many",
        Refusal::NotYet(_) => "not_yet",
        Refusal::Unavailable => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_asked_for_is_one_of_few() {
        let subjects: BTreeSet<_> = api::PATHS.iter().map(|(path, _)| subject(path)).collect();
        assert!(subjects.len() < 20, "{subjects:?}");
        assert!(!subjects.contains("unknown"));
        for (path, expected) in [
            ("/v1/login/start", "login"),
            ("/v1/key-packages/claim", "key-packages"),
            ("/v1/login/start/", "unknown"),
            ("/v1/alice", "unknown"),
            ("/webauthn/page.js", "webauthn"),
            ("/releases/metadata/1.root.json", "releases"),
            ("/", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(subject(path), expected, "{path}");
        }
        for path in LOGIN {
            assert!(subjects.contains(path), "{path}");
        }
    }

    #[test]
    fn statuses_are_classes() {
        let classes = [101, 200, 204, 302, 404, 503, 999].map(class);
        assert_eq!(classes, ["1xx", "2xx", "2xx", "3xx", "4xx", "5xx", "5xx"]);
    }
}
