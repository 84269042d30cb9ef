//! What a mistyped key probably meant.

/// Below this, two words have nothing to do with each other.
const ALIKE: f64 = 0.75;

/// The error in words, with the known key that is nearest to an unknown one.
pub(super) fn explain(error: &toml::de::Error) -> String {
    let text = error.to_string();
    // serde says: unknown field `a`, expected one of `b`, `c`
    let Some((_, rest)) = error.message().split_once("unknown field `") else {
        return text;
    };
    let mut names = rest.split('`').step_by(2);
    let Some(unknown) = names.next() else {
        return text;
    };
    match nearest(unknown, names) {
        Some(known) => format!("{}\ndid you mean `{known}`?", text.trim_end()),
        None => text,
    }
}

fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|known| (strsim::jaro_winkler(unknown, known), known));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= ALIKE)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServerConfig;

    fn explained(text: &str) -> String {
        explain(&toml::from_str::<ServerConfig>(text).unwrap_err())
    }

    #[test]
    fn the_nearest_key_is_named_at_every_depth() {
        let top = explained("server_nmae = \"a\"");
        assert!(top.contains("did you mean `server_name`?"), "{top}");
        let inner = explained("[gateway]\norigni = \"a\"");
        assert!(inner.contains("did you mean `origin`?"), "{inner}");
        assert!(inner.contains("line 2"), "{inner}");
    }

    #[test]
    fn what_is_like_nothing_is_only_named() {
        let text = explained("zzz = 1");
        assert!(text.contains("zzz"), "{text}");
        assert!(!text.contains("did you mean"), "{text}");
    }

    #[test]
    fn another_error_stays_as_it_is() {
        let text = explained("shards = \"many\"");
        assert!(text.contains("line 1") && !text.contains("did you mean"));
    }
}
