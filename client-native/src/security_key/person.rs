//! Between the library and the person in front of the key: what it wants to
//! know and to tell. A PIN that no key can have is not tried, since tries are
//! few.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use unicode_normalization::UnicodeNormalization;
use webauthn_authenticator_rs::types::{CableRequestType, CableState, EnrollSampleStatus};
use webauthn_authenticator_rs::ui::UiCallback;
use zeroize::Zeroizing;

use super::KeyError;

/// Shortest PIN, in characters, and longest, in bytes (CTAP 2.1, section 6.5.1).
const SHORTEST: usize = 4;
const LONGEST: usize = 63;

/// The person in front of the key.
pub trait Person: Send + Sync {
    /// The key's PIN; `None`: they would rather not.
    fn pin(&self) -> Option<Zeroizing<String>>;
    /// The key waits to be touched; called again and again until it was.
    fn touch(&self);
}

/// What the library wants to tell and ask; of that only two things happen here.
pub(super) struct Ui<'a> {
    person: &'a dyn Person,
    /// Typed once, however often the key has to be asked.
    pin: Mutex<Option<Zeroizing<String>>>,
    /// Why there was no PIN, which the library does not pass on.
    trouble: Mutex<Option<KeyError>>,
}

impl<'a> Ui<'a> {
    pub(super) fn new(person: &'a dyn Person) -> Self {
        Self {
            person,
            pin: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// Why there was no PIN.
    pub(super) fn trouble(&self) -> Option<KeyError> {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.take()
    }
}

/// The PIN as keys compare it.
fn normal(typed: &str) -> Result<Zeroizing<String>, KeyError> {
    let pin: Zeroizing<String> = Zeroizing::new(typed.nfc().collect());
    match pin.chars().count() >= SHORTEST && pin.len() <= LONGEST && !pin.contains('\0') {
        true => Ok(pin),
        false => Err(KeyError::PinUnfit),
    }
}

impl fmt::Debug for Ui<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ui(..)")
    }
}

impl UiCallback for Ui<'_> {
    fn request_pin(&self) -> Option<String> {
        let mut known = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            let typed = self.person.pin().ok_or(KeyError::PinNotGiven);
            match typed.and_then(|typed| normal(&typed)) {
                Ok(pin) => *known = Some(pin),
                Err(error) => {
                    let trouble = self.trouble.lock();
                    *trouble.unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        }
        known.as_ref().map(|pin| pin.to_string())
    }

    fn request_touch(&self) {
        self.person.touch();
    }

    fn processing(&self) {}

    fn fingerprint_enrollment_feedback(&self, _: u32, _: Option<EnrollSampleStatus>) {}

    fn cable_qr_code(&self, _: CableRequestType, _: String) {}

    fn dismiss_qr_code(&self) {}

    fn cable_status_update(&self, _: CableState) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_normal_and_may_be_one() {
        assert_eq!(*normal("abe\u{301}d").unwrap(), "ab\u{e9}d");
        assert_eq!(*normal("1234").unwrap(), "1234");
        assert!(normal(&"1".repeat(63)).is_ok());
        for unfit in ["", "123", "e\u{301}12", "12\u{0}4", &"1".repeat(64)] {
            assert!(
                matches!(normal(unfit), Err(KeyError::PinUnfit)),
                "{unfit:?}"
            );
        }
    }
}
