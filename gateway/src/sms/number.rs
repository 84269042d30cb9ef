//! A telephone number, E.164.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

/// Digits that a number has (E.164, section 6: at most 15).
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// A number with its country, as `+4930123456`. Never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Number(Zeroizing<String>);

/// It is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no telephone number: write `+`, the country and the number, such as +4930123456")]
pub struct NotANumber;

sotto_log::log_safe!(NotANumber);

impl Number {
    /// As it is dialled.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough for its owner to know it by.
    pub fn hint(&self) -> String {
        let end = self.0.len().saturating_sub(2);
        format!("…{}", self.0.get(end..).unwrap_or_default())
    }
}

impl FromStr for Number {
    type Err = NotANumber;

    fn from_str(text: &str) -> Result<Self, NotANumber> {
        let digits = text.strip_prefix('+').ok_or(NotANumber)?;
        let all_digits = digits.bytes().all(|c| c.is_ascii_digit());
        if all_digits && DIGITS.contains(&digits.len()) && !digits.starts_with('0') {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(NotANumber)
        }
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Number(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_with_a_country_are_numbers() {
        for good in ["+4930123456", "+1234567", "+123456789012345"] {
            assert_eq!(good.parse::<Number>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "+",
            "4930123456",
            "+049301234",
            "+123456",
            "+1234567890123456",
            "+49 30 1234",
            "+49\u{660}301234",
            "+49301234;x",
        ] {
            assert_eq!(bad.parse::<Number>(), Err(NotANumber), "{bad}");
        }
    }

    #[test]
    fn a_number_does_not_show() {
        let number: Number = "+4930123456".parse().unwrap();
        assert_eq!(format!("{number:?}"), "Number(..)");
        assert_eq!(number.hint(), "…56");
    }
}
