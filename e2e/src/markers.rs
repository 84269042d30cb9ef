//! Looking for plaintexts where none may be: every marker is searched in
//! whole files, raw and in the usual encodings, each half by itself, so that
//! a cut between two records hides at most one half.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use anyhow::{Context, ensure};
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use rand::RngCore;

/// Bytes of a marker taken out of a file.
const WINDOW: usize = 32;
/// Different byte values that a half must have to be told from padding.
const VARIETY: usize = 10;

/// A plaintext to look for.
#[derive(Debug, Clone)]
pub struct Marker {
    /// What a person calls it.
    pub name: String,
    /// Itself.
    pub bytes: Vec<u8>,
}

impl Marker {
    /// A random word that stands nowhere else.
    pub fn word(name: &str, rng: &mut impl RngCore) -> Self {
        let mut bytes = [0; 20];
        rng.fill_bytes(&mut bytes);
        let word = BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        Self {
            name: name.to_owned(),
            bytes: word.into_bytes(),
        }
    }

    /// A window of a file, at or after `offset`, that is varied enough.
    ///
    /// # Errors
    /// When there is none.
    pub fn window(name: &str, file: &[u8], offset: usize) -> anyhow::Result<Self> {
        let rest = file.get(offset..).unwrap_or_default();
        let varied = |half: &[u8]| half.iter().collect::<BTreeSet<_>>().len() >= VARIETY;
        let window = rest
            .windows(WINDOW)
            .find(|window| window.chunks(WINDOW / 2).all(varied))
            .with_context(|| format!("nothing after byte {offset} can serve as a marker"))?;
        Ok(Self {
            name: name.to_owned(),
            bytes: window.to_vec(),
        })
    }

    /// Itself as text; lossy for a window of a file.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Where a marker was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// Which of the markers searched for.
    pub marker: usize,
    /// The file.
    pub path: PathBuf,
}

/// What a search went through and found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Each marker at most once per file.
    pub hits: BTreeSet<Hit>,
}

impl Findings {
    /// Which of the markers were found anywhere.
    pub fn markers(&self) -> BTreeSet<usize> {
        self.hits.iter().map(|hit| hit.marker).collect()
    }
}

/// All markers in all their forms.
#[derive(Debug)]
pub struct Search {
    matcher: AhoCorasick,
    /// Whose form each pattern is.
    owners: Vec<usize>,
}

impl Search {
    /// Prepares to look for these.
    ///
    /// # Errors
    /// When a marker is so short that its halves would be found by chance.
    pub fn new(markers: &[Marker]) -> anyhow::Result<Self> {
        let mut patterns = Vec::new();
        let mut owners = Vec::new();
        for (index, marker) in markers.iter().enumerate() {
            ensure!(
                marker.bytes.len() >= 20,
                "the marker `{}` is too short",
                marker.name
            );
            let (first, second) = marker.bytes.split_at(marker.bytes.len() / 2);
            for form in [first, second].into_iter().flat_map(forms) {
                patterns.push(form);
                owners.push(index);
            }
        }
        let matcher = AhoCorasick::new(&patterns).context("preparing the search")?;
        Ok(Self { matcher, owners })
    }

    /// Searches a file, or every file below a folder, names included.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn look_in(&self, path: &Path, findings: &mut Findings) -> anyhow::Result<()> {
        let context = || format!("searching {}", path.display());
        let metadata = fs::symlink_metadata(path).with_context(context)?;
        for found in self.matcher.find_iter(path.as_os_str().as_encoded_bytes()) {
            self.note(found.pattern().as_usize(), path, findings);
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(path).with_context(context)? {
                self.look_in(&entry.with_context(context)?.path(), findings)?;
            }
        } else if metadata.is_file() {
            let file = BufReader::with_capacity(1 << 20, File::open(path).with_context(context)?);
            for found in self.matcher.stream_find_iter(file) {
                self.note(
                    found.with_context(context)?.pattern().as_usize(),
                    path,
                    findings,
                );
            }
            findings.files += 1;
            findings.bytes += metadata.len();
        }
        Ok(())
    }

    fn note(&self, pattern: usize, path: &Path, findings: &mut Findings) {
        if let Some(&marker) = self.owners.get(pattern) {
            findings.hits.insert(Hit {
                marker,
                path: path.to_owned(),
            });
        }
    }
}

/// Bytes as they are, in hexadecimal, and as the part of a base64 text that
/// does not depend on what stands around them.
fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        bytes.to_vec(),
        HEXLOWER.encode(bytes).into_bytes(),
        HEXUPPER.encode(bytes).into_bytes(),
    ];
    for before in 0..3 {
        let mut shifted = vec![0; before];
        shifted.extend_from_slice(bytes);
        let own = own_characters(before, bytes.len());
        for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
            let text = encoding.encode(&shifted);
            forms.extend(text.as_bytes().get(own.clone()).map(<[u8]>::to_vec));
        }
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// The base64 characters that stand for nothing but `length` bytes after `before` others.
fn own_characters(before: usize, length: usize) -> Range<usize> {
    (before * 8).div_ceil(6)..(before + length) * 8 / 6
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(marker: &Marker, content: &[u8]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), content).unwrap();
        let mut findings = Findings::default();
        let search = Search::new(std::slice::from_ref(marker)).unwrap();
        search.look_in(folder.path(), &mut findings).unwrap();
        assert_eq!((findings.files, findings.bytes), (1, content.len() as u64));
        !findings.hits.is_empty()
    }

    fn marker() -> Marker {
        Marker {
            name: "m".to_owned(),
            bytes: b"yh3k7qv5w2nd4xr6tzcj".to_vec(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_marker_is_found_in_every_form(
            before: Vec<u8>,
            after in prop::collection::vec(any::<u8>(), 3..100),
            form in 0usize..5,
        ) {
            let content = [&before[..], &marker().bytes, &after].concat();
            let content = match form {
                0 => content,
                1 => HEXLOWER.encode(&content).into_bytes(),
                2 => HEXUPPER.encode(&content).into_bytes(),
                3 => BASE64_NOPAD.encode(&content).into_bytes(),
                _ => BASE64URL_NOPAD.encode(&content).into_bytes(),
            };
            prop_assert!(found(&marker(), &content));
        }

        #[test]
        fn a_cut_anywhere_does_not_hide_it(cut in 0usize..=20) {
            let marker = marker();
            let (first, second) = marker.bytes.split_at(cut);
            let content = [first, b"--record boundary--", second].concat();
            prop_assert!(found(&marker, &content));
        }

        #[test]
        fn what_is_not_there_is_not_found(content: Vec<u8>) {
            prop_assert!(!found(&marker(), &content));
        }
    }

    #[test]
    fn names_are_searched_too() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(marker().text())).unwrap();
        let mut findings = Findings::default();
        Search::new(&[marker()])
            .unwrap()
            .look_in(folder.path(), &mut findings)
            .unwrap();
        assert_eq!(findings.markers().len(), 1);
    }

    #[test]
    fn windows_are_varied() {
        let mut file = vec![0; 1_000];
        assert!(Marker::window("zeros", &file, 0).is_err());
        file.extend(0..100u8);
        let window = Marker::window("mixed", &file, 10).unwrap();
        assert!(file.windows(WINDOW).any(|part| part == window.bytes));
        assert!(window.bytes[WINDOW / 2 - 1] != 0);
    }
}
