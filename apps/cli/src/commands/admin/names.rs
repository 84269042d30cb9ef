//! What the kinds of the wire are called on the command line and in JSON:
//! `FACTOR_TOTP` is `totp`.

use sotto_proto::wire;

/// A kind of the wire with a name of its own.
pub trait Named: Copy + TryFrom<i32> + 'static {
    /// What every name of the wire begins with.
    const PREFIX: &'static str;
    /// For messages: what this is.
    const WHAT: &'static str;

    /// As protobuf calls it.
    fn long_name(self) -> &'static str;

    /// As people do.
    fn name(self) -> String {
        let name = self.long_name();
        let name = name.strip_prefix(Self::PREFIX).unwrap_or(name);
        name.to_ascii_lowercase().replace('_', "-")
    }

    /// Every kind that can be meant: 0 is nothing in particular.
    fn all() -> impl Iterator<Item = Self> {
        (1..).map_while(|number| Self::try_from(number).ok())
    }

    /// The kind of this name.
    ///
    /// # Errors
    /// With the names there are.
    fn named(text: &str) -> Result<Self, String> {
        Self::all().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::all().map(Self::name).collect();
            format!("`{text}` is no {}: use {}", Self::WHAT, names.join(", "))
        })
    }
}

macro_rules! named {
    ($($type:ident, $prefix:literal, $what:literal;)*) => {
        $(impl Named for wire::$type {
            const PREFIX: &'static str = $prefix;
            const WHAT: &'static str = $what;

            fn long_name(self) -> &'static str {
                self.as_str_name()
            }
        })*
    };
}

named! {
    Factor, "FACTOR_", "factor";
    PolicyAction, "POLICY_ACTION_", "action";
    Role, "ROLE_", "role";
    Status, "STATUS_", "status";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for factor in wire::Factor::all() {
            assert_eq!(wire::Factor::named(&factor.name()), Ok(factor));
        }
        assert_eq!(
            wire::PolicyAction::named("create-room"),
            Ok(wire::PolicyAction::CreateRoom)
        );
        assert_eq!(wire::Role::all().count(), 2);
        let error = wire::Factor::named("pin").unwrap_err();
        assert!(error.contains("password, totp, sms"), "{error}");
        assert!(wire::Factor::named("unspecified").is_err());
    }
}
