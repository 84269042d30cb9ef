//! File names that others chose.

/// Longest name that is made, in bytes; file systems take 255.
const LENGTH: usize = 200;

/// A name for a received file that stays in its folder, is not hidden, and
/// shows in a terminal as what it is.
pub fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut safe = String::new();
    for c in last.trim_start_matches('.').chars() {
        let c = if is_plain(c) { c } else { '_' };
        if safe.len() + c.len_utf8() > LENGTH {
            break;
        }
        safe.push(c);
    }
    match safe.trim() {
        "" => "file".to_owned(),
        safe => safe.to_owned(),
    }
}

/// Neither a control character nor one that changes the direction of text.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stay_as_they_are_when_they_are_harmless() {
        for name in ["report.pdf", "Grüße aus Köln.txt", "日本語", "a b"] {
            assert_eq!(safe_name(name), name);
        }
    }

    #[test]
    fn names_cannot_leave_hide_or_lie() {
        assert_eq!(safe_name("../../etc/passwd"), "passwd");
        assert_eq!(safe_name("..\\evil.exe"), "evil.exe");
        assert_eq!(safe_name(".bashrc"), "bashrc");
        assert_eq!(safe_name("a\u{202e}gpj.exe"), "a_gpj.exe");
        assert_eq!(safe_name("a\x1b[2Jb"), "a_[2Jb");
        for nothing in ["", "..", "/", "a/", " "] {
            assert_eq!(safe_name(nothing), "file");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_one_normal_component(name: String) {
            let safe = safe_name(&name);
            let components: Vec<_> = Path::new(&safe).components().collect();
            prop_assert!(matches!(components.as_slice(), [Component::Normal(_)]));
            prop_assert!(safe.len() <= LENGTH);
        }
    }
}
