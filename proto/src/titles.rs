//! What people read in place of a name: free text of one line that cannot pass
//! for another. Names stand in subjects and certificates; a title never does.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use unicode_normalization::char::is_combining_mark;
use unicode_normalization::is_nfc;
use unicode_security::mixed_script::AugmentedScriptSet;

/// Longest title, in characters.
const CHARACTERS_MAX: usize = 64;
/// Longest title, in bytes of UTF-8.
const BYTES_MAX: usize = 256;
/// Marks on one letter; living scripts need no more.
const MARKS_MAX: usize = 4;

/// What people read in place of a name: 1 to 64 characters and at most 256
/// bytes, in Unicode's composed form (NFC), nothing in it invisible, its
/// scripts ones that are written together (UTS 39, "highly restrictive").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Title(String);

/// Why a text is no title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TitleError {
    /// Nothing is there.
    #[error("a title must not be empty: write at least one letter")]
    Empty,
    /// It is too long.
    #[error("a title has at most {CHARACTERS_MAX} characters and {BYTES_MAX} bytes: shorten it")]
    TooLong,
    /// A character that is not seen, or changes how others are seen.
    #[error(
        "a title must not hold the character U+{code:04X} ({why}): remove it",
        code = u32::from(*.character)
    )]
    Character {
        /// The first one.
        character: char,
        /// What is wrong with it.
        why: Unfit,
    },
    /// A space at an end, or two in a row.
    #[error("a title must not begin or end with a space or have two in a row: remove the spaces")]
    Spaces,
    /// A mark without a letter, or too many on one.
    #[error(
        "a title must not begin with a combining mark or have more than {MARKS_MAX} on one letter: remove the marks"
    )]
    Marks,
    /// Not in the composed form.
    #[error("a title must be in Unicode's composed form (NFC): convert it")]
    NotComposed,
    /// Scripts that nobody writes together.
    #[error(
        "a title must not mix scripts that are not written together, such as Latin and Cyrillic: use one of them"
    )]
    MixedScripts,
}

/// Why a character may not stand in a title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Moves the cursor, or worse.
    #[error("a control character")]
    Control,
    /// Changes the direction of what follows.
    #[error("it changes the direction of writing")]
    Bidi,
    /// Has no width.
    #[error("it has no width")]
    ZeroWidth,
    /// Is not shown where it is not understood.
    #[error("it is invisible")]
    Ignorable,
    /// Ends a line.
    #[error("it ends the line")]
    LineSeparator,
    /// Looks like a space and is none.
    #[error("it is a blank other than the space")]
    Blank,
    /// Means what each font likes, or nothing yet.
    #[error("it has no meaning in Unicode")]
    Unassigned,
}

impl Title {
    /// The title as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the title looks like; see [`skeleton`].
    pub fn skeleton(&self) -> String {
        skeleton(&self.0)
    }
}

impl FromStr for Title {
    type Err = TitleError;

    fn from_str(text: &str) -> Result<Self, TitleError> {
        if text.is_empty() {
            return Err(TitleError::Empty);
        }
        if text.len() > BYTES_MAX || text.chars().count() > CHARACTERS_MAX {
            return Err(TitleError::TooLong);
        }
        let unfit = text.chars().find_map(|c| Some((c, unfit(c)?)));
        if let Some((character, why)) = unfit {
            return Err(TitleError::Character { character, why });
        }
        if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
            return Err(TitleError::Spaces);
        }
        if has_stray_marks(text) {
            return Err(TitleError::Marks);
        }
        if !is_nfc(text) {
            return Err(TitleError::NotComposed);
        }
        if mixes_scripts(text) {
            return Err(TitleError::MixedScripts);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a text looks like: two texts with the same skeleton are taken for each
/// other (UTS 39, "confusable"), whatever their case. It is for comparing only.
pub fn skeleton(text: &str) -> String {
    if text.is_ascii() {
        return text.bytes().filter_map(ascii_prototype).flatten().collect();
    }
    // In this order: a capital I looks like an l, a small i does not.
    let prototype: String = unicode_security::skeleton(text).collect();
    prototype.to_lowercase()
}

/// The same for one ASCII character, looked up once per program: names are
/// ASCII, and there are many.
fn ascii_prototype(c: u8) -> Option<std::str::Chars<'static>> {
    static PROTOTYPES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let characters = (0..128_u8).map(char::from);
        let prototypes = characters.map(|c| {
            let prototype: String =
                unicode_security::skeleton(c.encode_utf8(&mut [0; 4])).collect();
            prototype.to_lowercase()
        });
        prototypes.collect()
    });
    PROTOTYPES
        .get(usize::from(c))
        .map(|prototype| prototype.chars())
}

fn unfit(c: char) -> Option<Unfit> {
    match c {
        ' '..='~' => None,
        '\u{85}' | '\u{2028}' | '\u{2029}' | '\n' | '\r' => Some(Unfit::LineSeparator),
        c if c.is_control() => Some(Unfit::Control),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(Unfit::Bidi)
        }
        '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => Some(Unfit::ZeroWidth),
        c if is_ignorable(c) => Some(Unfit::Ignorable),
        '\u{2800}' => Some(Unfit::Blank),
        c if c.is_whitespace() => Some(Unfit::Blank),
        // Unassigned, private use and noncharacters belong to no script.
        c if AugmentedScriptSet::for_char(c).is_empty() => Some(Unfit::Unassigned),
        _ => None,
    }
}

/// Unicode's `Default_Ignorable_Code_Point`, and what annotates or replaces.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{2061}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

fn has_stray_marks(text: &str) -> bool {
    // As if a letter with all the marks it can have came before.
    let mut marks = MARKS_MAX;
    text.chars().any(|c| {
        marks = if is_combining_mark(c) { marks + 1 } else { 0 };
        marks > MARKS_MAX
    })
}

/// Whether its scripts are neither one, nor Latin with those of Chinese,
/// Japanese or Korean.
fn mixes_scripts(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    let latin = AugmentedScriptSet::for_char('a').base;
    let mut all = AugmentedScriptSet::default();
    let mut beside_latin = AugmentedScriptSet::default();
    for c in text.chars() {
        let scripts = AugmentedScriptSet::for_char(c);
        all.intersect_with(scripts);
        if scripts.base != latin {
            beside_latin.intersect_with(scripts);
        }
    }
    let east_asian = beside_latin.hanb || beside_latin.jpan || beside_latin.kore;
    all.is_empty() && !east_asian
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    fn why_not(text: &str) -> TitleError {
        text.parse::<Title>().expect_err(text)
    }

    #[test]
    fn titles_of_many_languages_are_read() {
        for good in [
            "A",
            "Alice Smith",
            "Söğüt & Co. (EU)",
            "Σωκράτης",
            "Наташа",
            "東京 office",
            "ソットー room 2",
            "서울 team",
            "محمد",
            "देवनागरी",
            "R&D – phase 1/2",
            "Ops 🚒",
            &"x".repeat(64),
            &"語".repeat(64),
        ] {
            assert_eq!(good.parse::<Title>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn each_kind_of_trouble_has_its_reason() {
        assert_eq!(why_not(""), TitleError::Empty);
        assert_eq!(why_not(&"x".repeat(65)), TitleError::TooLong);
        assert_eq!(why_not(&"🚒".repeat(65)), TitleError::TooLong);
        for (character, why) in [
            ('\0', Unfit::Control),
            ('\u{1b}', Unfit::Control),
            ('\n', Unfit::LineSeparator),
            ('\u{2028}', Unfit::LineSeparator),
            ('\u{202e}', Unfit::Bidi),
            ('\u{2066}', Unfit::Bidi),
            ('\u{200f}', Unfit::Bidi),
            ('\u{200b}', Unfit::ZeroWidth),
            ('\u{200d}', Unfit::ZeroWidth),
            ('\u{feff}', Unfit::ZeroWidth),
            ('\u{ad}', Unfit::Ignorable),
            ('\u{3164}', Unfit::Ignorable),
            ('\u{fe0f}', Unfit::Ignorable),
            ('\u{e0041}', Unfit::Ignorable),
            ('\u{a0}', Unfit::Blank),
            ('\u{3000}', Unfit::Blank),
            ('\u{2800}', Unfit::Blank),
            ('\u{e000}', Unfit::Unassigned),
            ('\u{378}', Unfit::Unassigned),
            ('\u{1ffff}', Unfit::Unassigned),
        ] {
            let text = format!("a{character}b");
            assert_eq!(why_not(&text), TitleError::Character { character, why });
        }
        for spaced in [" a", "a ", "a  b", " "] {
            assert_eq!(why_not(spaced), TitleError::Spaces, "{spaced:?}");
        }
        assert_eq!(why_not("\u{301}a"), TitleError::Marks);
        assert_eq!(
            why_not("x\u{316}\u{317}\u{318}\u{319}\u{31c}"),
            TitleError::Marks
        );
        assert_eq!(why_not("e\u{301}"), TitleError::NotComposed);
        assert_eq!(why_not("\u{212b}ngström"), TitleError::NotComposed);
        // A Cyrillic а among Latin letters; Greek among Cyrillic.
        assert_eq!(why_not("p\u{430}ypal"), TitleError::MixedScripts);
        assert_eq!(why_not("Наташα"), TitleError::MixedScripts);
        assert_eq!(why_not("Tokyo東京Москва"), TitleError::MixedScripts);
    }

    #[test]
    fn a_refused_character_is_named_by_its_code() {
        assert_eq!(
            why_not("a\u{202e}b").to_string(),
            "a title must not hold the character U+202E (it changes the direction of writing): remove it"
        );
    }

    #[test]
    fn what_looks_alike_has_one_skeleton() {
        for (one, other) in [
            ("Alice", "A1ice"),
            ("Alice", "alice"),
            ("Alice", "АӀісе"),
            ("rnodern", "modern"),
            ("O2", "02"),
        ] {
            assert_eq!(skeleton(one), skeleton(other), "{one} {other}");
        }
        assert_ne!(skeleton("Alice"), skeleton("Alicia"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text: String) {
            if let Ok(title) = text.parse::<Title>() {
                prop_assert_eq!(title.as_str(), &text);
                prop_assert_eq!(text.nfc().collect::<String>(), text);
            }
        }

        #[test]
        fn ascii_is_looked_up_as_it_would_be_worked_out(text in "[ -~]{0,20}") {
            let prototype: String = unicode_security::skeleton(&text).collect();
            prop_assert_eq!(skeleton(&text), prototype.to_lowercase());
        }

        #[test]
        fn latin_letters_digits_and_single_spaces_always_make_a_title(
            text in "[A-Za-z0-9à-öø-ÿ]{1,8}( [A-Za-z0-9]{1,8}){0,5}"
        ) {
            prop_assert!(text.parse::<Title>().is_ok());
        }
    }
}
