//! What `sotto recv` prints, as values to compare.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use crate::person::Person;

/// One thing said in a room, as a device shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Said {
    /// Its place in the room's stream.
    pub sequence: u64,
    /// Its place in what the sending device said in this room, from 1.
    pub counter: u64,
    /// By whom.
    pub user: String,
    /// With which device.
    pub device: String,
    /// When, in ms since 1970 by the sender's clock.
    pub sent_at: i64,
    /// Whether it came after what its sender said later.
    pub late: bool,
    /// The words, of a text.
    pub text: Option<String>,
    /// The file, of a file.
    pub file: Option<SentFile>,
}

/// A file as the room shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SentFile {
    /// What to ask for.
    pub file: String,
    /// What it is called.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of the content, hexadecimal.
    pub sha256: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.sent_at / 1_000 % 86_400;
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{hours:02}:{minutes:02}:{seconds:02} {:>5}: ", self.user)?;
        match (&self.text, &self.file) {
            (Some(text), _) => {
                let printable = |c: char| if c.is_control() { '\u{b7}' } else { c };
                let shown: String = text.chars().take(80).map(printable).collect();
                let more = text.chars().count().saturating_sub(80);
                write!(f, "{shown}")?;
                if more > 0 {
                    write!(f, "\u{2026} ({more} more characters)")?;
                }
                Ok(())
            }
            (None, Some(file)) => write!(f, "[file {}, {} bytes]", file.name, file.size),
            (None, None) => write!(f, "[something else]"),
        }
    }
}

/// Everything that a device has of a room, oldest first, without asking the
/// server for more.
///
/// # Errors
/// When it cannot be read.
pub fn history(person: &Person, room: &str) -> anyhow::Result<Vec<Said>> {
    let lines = person.does(&["recv", room, "--all"])?;
    said(&lines)
}

/// The messages among a command's output.
///
/// # Errors
/// When a message does not look like one.
pub fn said(lines: &[Value]) -> anyhow::Result<Vec<Said>> {
    let messages = lines.iter().filter(|line| line.get("counter").is_some());
    messages
        .map(|line| Said::deserialize(line).with_context(|| format!("reading {line}")))
        .collect()
}

/// How the texts of `seen` that start with `prefix` differ from `expected`,
/// which must be there in this order, once each; `None` when they do not.
pub fn difference(seen: &[Said], prefix: &str, expected: &[String]) -> Option<String> {
    let texts = seen.iter().filter_map(|said| said.text.as_ref());
    let found: Vec<&String> = texts.filter(|text| text.starts_with(prefix)).collect();
    if found.iter().copied().eq(expected) {
        return None;
    }
    let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
    expected
        .iter()
        .for_each(|text| *counts.entry(text).or_default() += 1);
    found
        .iter()
        .for_each(|text| *counts.entry(text).or_default() -= 1);
    let missing = counts.values().filter(|&&count| count > 0).count();
    let extra = counts.values().filter(|&&count| count < 0).count();
    Some(match (missing, extra) {
        (0, 0) => "all there, in another order".to_owned(),
        _ => format!(
            "{} of {}: {missing} missing, {extra} too often",
            found.len(),
            expected.len()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(texts: &[&str]) -> Vec<Said> {
        let one = |(index, text): (usize, &&str)| Said {
            sequence: index as u64,
            counter: index as u64 + 1,
            user: "alice".to_owned(),
            device: "d".to_owned(),
            sent_at: 3_723_000,
            late: false,
            text: Some((*text).to_owned()),
            file: None,
        };
        texts.iter().enumerate().map(one).collect()
    }

    #[test]
    fn differences_are_told_apart() {
        let expected = ["a1".to_owned(), "a2".to_owned()];
        let difference = |texts: &[&str]| difference(&said(texts), "a", &expected);
        assert_eq!(difference(&["a1", "b", "a2"]), None);
        assert!(difference(&["a2", "a1"]).unwrap().contains("order"));
        assert!(
            difference(&["a1"])
                .unwrap()
                .contains("1 missing, 0 too often")
        );
        assert!(
            difference(&["a1", "a2", "a2"])
                .unwrap()
                .contains("1 too often")
        );
    }

    #[test]
    fn a_line_of_the_transcript_is_safe_to_print() {
        let [said] = &said(&["two\nlines\u{1b}[31m"])[..] else {
            panic!()
        };
        assert_eq!(said.to_string(), "01:02:03 alice: two\u{b7}lines\u{b7}[31m");
    }
}
