//! Names of the directory from what an LDAP server calls somebody.
//!
//! The rules, which an admin can rely on: letters become lower case and lose
//! their accents (`é` is `e`); `ä ö ü` too, `ß` is `ss`, `æ` is `ae`, `œ` is
//! `oe`, `ø` is `o`, `ł` is `l`, `đ` and `ð` are `d`, `þ` is `th`; dots,
//! underscores, spaces, `@`, `+` and apostrophes become `-`, several of them
//! one; at the ends they go. Anything else is refused, for a name once used
//! stays for ever: the mapping file can give such an entry a name.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// `text` by the rules above; `None` when a character has no equivalent.
/// Length is not looked at: the types of `sotto_proto` do that.
pub(crate) fn transliterate(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let lower = text.trim().to_lowercase();
    for c in lower.nfkd().filter(|&c| !is_combining_mark(c)) {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            'ß' => name.push_str("ss"),
            'æ' => name.push_str("ae"),
            'œ' => name.push_str("oe"),
            'ø' => name.push('o'),
            'ł' => name.push('l'),
            'đ' | 'ð' => name.push('d'),
            'þ' => name.push_str("th"),
            '-' | '.' | '_' | ' ' | '@' | '+' | '\'' | '’' => {
                if !name.is_empty() && !name.ends_with('-') {
                    name.push('-');
                }
            }
            _ => return None,
        }
    }
    let length = name.trim_end_matches('-').len();
    name.truncate(length);
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sotto_proto::UserName;

    use super::*;

    #[test]
    fn what_has_an_equivalent_is_written_with_it() {
        for (ldap, ours) in [
            ("alice", "alice"),
            ("J.Doe", "j-doe"),
            (" Zoë  van_der Wal ", "zoe-van-der-wal"),
            ("Groß", "gross"),
            ("Łukasz", "lukasz"),
            ("Þór", "thor"),
            ("alice@example.org", "alice-example-org"),
            ("-_.x._-", "x"),
            ("ｆｕｌｌ", "full"),
            ("O'Brien", "o-brien"),
        ] {
            assert_eq!(transliterate(ldap).as_deref(), Some(ours), "{ldap}");
        }
    }

    #[test]
    fn what_has_none_is_refused() {
        for ldap in [
            "алиса",
            "愛",
            "a*",
            "a>b",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\0",
        ] {
            assert_eq!(transliterate(ldap), None, "{ldap:?}");
        }
    }

    proptest! {
        #[test]
        fn the_outcome_is_a_name_or_too_long_or_empty(text: String) {
            if let Some(name) = transliterate(&text) {
                prop_assert_eq!(name.parse::<UserName>().is_ok(), (1..=32).contains(&name.len()));
                prop_assert_eq!(transliterate(&name), Some(name));
            }
        }
    }
}
