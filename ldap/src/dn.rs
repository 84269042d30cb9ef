//! Distinguished names (RFC 4514), in a form in which equal names are equal.
//! Never decides who somebody is: that is the entry's id.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::Deserialize;

/// Longest distinguished name that is read, in bytes.
const DN_MAX: usize = 4_096;

/// Why a text is no distinguished name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a distinguished name: write it like `ou=people,dc=example,dc=org`, with a \
     backslash before commas that belong to a value"
)]
pub struct BadDn(String);

/// A distinguished name. Types and values are compared without regard to case
/// and to the number of spaces, as almost every attribute is that names are
/// made of; `Display` gives that form.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Dn {
    /// Each normalised and escaped; the entry's own first.
    rdns: Vec<String>,
}

impl Dn {
    /// Whether the entry is somewhere below `base`, and not `base` itself.
    pub fn is_below(&self, base: &Self) -> bool {
        self.rdns.len() > base.rdns.len() && self.rdns.ends_with(&base.rdns)
    }

    /// Attribute and value that the entry itself is named by; `None` when it is
    /// named by several, or not by text.
    pub(crate) fn named_by(&self) -> Option<(&str, String)> {
        let own = self.rdns.first()?;
        let mut pairs = split(own, '+');
        let (kind, value) = pairs.next()?.split_once('=')?;
        if pairs.next().is_some() || value.starts_with('#') {
            return None;
        }
        Some((kind, String::from_utf8(unescape(value)?).ok()?))
    }
}

impl FromStr for Dn {
    type Err = BadDn;

    fn from_str(text: &str) -> Result<Self, BadDn> {
        let bad = || BadDn(shown(text));
        if text.len() > DN_MAX {
            return Err(bad());
        }
        if text.trim().is_empty() {
            return Ok(Self { rdns: Vec::new() });
        }
        let rdns = split(text, ',').map(|rdn| {
            let pairs = split(rdn, '+').map(|pair| normal_pair(pair).ok_or_else(bad));
            let mut pairs: Vec<String> = pairs.collect::<Result<_, _>>()?;
            pairs.sort();
            Ok(pairs.join("+"))
        });
        Ok(Self {
            rdns: rdns.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<String> for Dn {
    type Error = BadDn;

    fn try_from(text: String) -> Result<Self, BadDn> {
        text.parse()
    }
}

impl fmt::Display for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rdns.join(","))
    }
}

/// A value as it stands in a distinguished name.
pub(crate) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let edge_space = c == ' ' && (at == 0 || at == last);
        if edge_space || (c == '#' && at == 0) || ",+\"\\<>;=".contains(c) {
            escaped.push('\\');
            escaped.push(c);
        } else if c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                escaped.push_str(&format!("\\{byte:02x}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// What somebody else wrote, for an error: printable and short.
pub(crate) fn shown(text: &str) -> String {
    /// Characters of a foreign text that an error shows.
    const SHOWN: usize = 120;
    let mut shown = String::new();
    for c in text.chars().take(SHOWN) {
        match c {
            '\\' | '"' | '\'' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// The parts between separators that are not escaped.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let separates = c == separator && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
}

/// `type=value` in the one form that all ways to write it have.
fn normal_pair(pair: &str) -> Option<String> {
    let (kind, value) = pair.split_once('=')?;
    let kind = kind.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if kind.is_empty() || !kind.chars().all(allowed) {
        return None;
    }
    let kind = kind.to_ascii_lowercase();
    let value = value.trim_start();
    if let Some(hex) = value.strip_prefix('#') {
        let hex = hex.trim_end().to_ascii_lowercase();
        HEXLOWER.decode(hex.as_bytes()).ok()?;
        return (!hex.is_empty()).then(|| format!("{kind}=#{hex}"));
    }
    let value = match String::from_utf8(unescape(value)?) {
        Ok(text) => escape(&normal_value(&text)),
        // Not text, so it is compared byte by byte; `\x` begins no text's form.
        Err(bytes) => format!("\\x{}", HEXLOWER.encode(bytes.as_bytes())),
    };
    Some(format!("{kind}={value}"))
}

fn normal_value(value: &str) -> String {
    let words: Vec<String> = value.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

fn unescape(value: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => {
                let next = rest.next()?;
                if next.is_ascii_hexdigit() {
                    let pair = [next, rest.next()?].map(|c| c.to_ascii_lowercase());
                    bytes.extend(HEXLOWER.decode(&pair).ok()?);
                } else if next == b' ' || next.is_ascii_punctuation() {
                    bytes.push(next);
                } else {
                    return None;
                }
            }
            b'"' | b';' | b'<' | b'>' | 0 => return None,
            byte => bytes.push(byte),
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dn(text: &str) -> Dn {
        text.parse().unwrap()
    }

    #[test]
    fn ways_to_write_the_same_name_are_equal() {
        let plain = dn("cn=Doe\\, Jane,ou=People,dc=example,dc=org");
        for same in [
            "CN=doe\\, jane,OU=people,DC=example,DC=org",
            "cn=Doe\\2c  Jane , ou = People , dc=example,dc=org",
            "cn=Doe\\2C Jane,ou=People,dc=example,dc=org",
        ] {
            assert_eq!(dn(same), plain, "{same}");
        }
        assert_eq!(dn("a=1+b=2,c=3"), dn("B=2 + A=1,C=3"));
        assert_eq!(dn("cn=M\\C3\\BCller"), dn("cn=müller"));
        assert_ne!(dn("cn=a\\,b"), dn("cn=a,cn=b"));
        assert_ne!(dn("cn=\\ff"), dn("cn=\\fe"));
        assert_ne!(dn("cn=\\ff"), dn("cn=xff"));
    }

    #[test]
    fn below_means_deeper_and_under() {
        let base = dn("ou=people,dc=example");
        assert!(dn("uid=a,ou=people,dc=example").is_below(&base));
        assert!(dn("uid=a,ou=x,OU=People,dc=example").is_below(&base));
        assert!(!base.is_below(&base));
        assert!(!dn("uid=a,ou=nopeople,dc=example").is_below(&base));
        assert!(!dn("uid=a,ou=people,dc=example,dc=org").is_below(&base));
        assert!(!dn("uid=a\\,ou=people,dc=example").is_below(&base));
    }

    #[test]
    fn what_is_no_name_is_refused_and_shown_printable() {
        for bad in [
            "alice",
            "=a",
            "cn=a,",
            "cn=a,,dc=b",
            "cn=\\zz",
            "cn=\\4",
            "c n=a",
            "cn=#zz",
            "cn=a;b=c",
            "cn=#",
        ] {
            assert!(bad.parse::<Dn>().is_err(), "{bad} was accepted");
        }
        assert!("cn=a,".repeat(2_000).parse::<Dn>().is_err());
        let error = "evil\u{202e}\u{1b}[2J".parse::<Dn>().unwrap_err();
        assert!(error.to_string().contains("\\u{202e}\\u{1b}"), "{error}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_its_form_is_stable(text in "[a-zA-Z=,+\\\\ #é\u{0}0-9]{0,40}") {
            if let Ok(dn) = text.parse::<Dn>() && !dn.to_string().contains("\\x") {
                prop_assert_eq!(dn.to_string().parse::<Dn>().unwrap(), dn);
            }
        }

        #[test]
        fn whatever_is_escaped_is_read_back(value in "[^\u{0}]{1,40}") {
            let [one, other] = [&value, "other"].map(|value| dn(&format!("cn={},dc=x", escape(value))));
            prop_assert!(one.is_below(&dn("dc=x")));
            prop_assert_eq!(one == other, normal_value(&value) == "other");
        }
    }
}
