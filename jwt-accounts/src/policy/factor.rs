//! What a user can prove beyond holding a device, and what a session has proven.

use std::collections::BTreeMap;
use std::fmt;

use sotto_proto::wire;

/// The one place where a factor is added: with its name in Cedar and in texts.
/// A test then demands it in the schema, too.
macro_rules! factors {
    ($($(#[$doc:meta])* $factor:ident = $name:literal,)*) => {
        /// A way of proving who one is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Factor {
            $($(#[$doc])* $factor,)*
        }

        impl Factor {
            /// Every factor there is.
            pub const ALL: &[Self] = &[$(Self::$factor,)*];

            /// What it is called in Cedar and in texts.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$factor => $name,)*
                }
            }
        }

        impl From<Factor> for wire::Factor {
            fn from(factor: Factor) -> Self {
                match factor {
                    $(Factor::$factor => Self::$factor,)*
                }
            }
        }

        impl TryFrom<wire::Factor> for Factor {
            type Error = UnknownFactor;

            fn try_from(factor: wire::Factor) -> Result<Self, UnknownFactor> {
                match factor {
                    $(wire::Factor::$factor => Ok(Self::$factor),)*
                    wire::Factor::Unspecified => Err(UnknownFactor),
                }
            }
        }
    };
}

factors! {
    /// The password, by OPAQUE.
    Password = "password",
    /// A code generator (RFC 6238).
    Totp = "totp",
    /// A code by text message.
    Sms = "sms",
    /// A passkey or security key in a browser.
    Webauthn = "webauthn",
    /// A security key at a native client.
    Fido2 = "fido2",
    /// Members who vouch for the user: proven by the directory, never by a session.
    Introductions = "introductions",
}

/// No factor is named, or one that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the factor is missing or newer than this version: name one of those that exist, or update Sotto"
)]
pub struct UnknownFactor;

sotto_log::log_safe!(UnknownFactor);

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The factors that a session has proven, each with the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proven(BTreeMap<Factor, i64>);

impl Proven {
    /// Nothing but the device itself.
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Every factor that a session can prove, at this time in ms since 1970.
    pub fn all(at_ms: i64) -> Self {
        let factors = Factor::ALL.iter().copied();
        factors.fold(Self::none(), |proven, factor| proven.with(factor, at_ms))
    }

    /// The same, with this factor proven at a time in ms since 1970; the later
    /// time counts. Introductions are left out: a session cannot prove them.
    pub fn with(mut self, factor: Factor, at_ms: i64) -> Self {
        if factor != Factor::Introductions {
            let known = self.0.entry(factor).or_insert(at_ms);
            *known = at_ms.max(*known);
        }
        self
    }

    /// When this factor was proven last, in ms since 1970.
    pub fn at_ms(&self, factor: Factor) -> Option<i64> {
        self.0.get(&factor).copied()
    }

    /// The factors that were proven, each with its time in ms since 1970.
    pub fn iter(&self) -> impl Iterator<Item = (Factor, i64)> {
        self.0.iter().map(|(factor, at_ms)| (*factor, *at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_proof_counts_and_introductions_are_none() {
        let proven = Proven::none().with(Factor::Totp, 20).with(Factor::Totp, 10);
        assert_eq!(proven.at_ms(Factor::Totp), Some(20));
        let all = Proven::all(7);
        assert_eq!(all.at_ms(Factor::Fido2), Some(7));
        assert_eq!(all.at_ms(Factor::Introductions), None);
    }

    #[test]
    fn factors_survive_the_wire() {
        for &factor in Factor::ALL {
            assert_eq!(Factor::try_from(wire::Factor::from(factor)), Ok(factor));
        }
    }
}
