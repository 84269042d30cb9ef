//! Documents name only what exists: every file, test and function in
//! backticks, and every page that is linked; and the book has every page. What
//! a document says of them is for people to check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use crate::shell::{output, program, root, step};
use crate::wheels;

/// A name in backticks with one of these ends is a file of the project.
const SOURCES: [&str; 5] = [".rs", ".proto", ".cedar", ".cedarschema", ".md"];

/// What becomes a book.
const BOOK: &str = "docs/";
/// Its table of contents.
const SUMMARY: &str = "docs/SUMMARY.md";

/// Fails with every name and link that leads nowhere; then makes the book.
pub(crate) fn check() -> anyhow::Result<()> {
    let files = tracked()?;
    let words = words(&files)?;
    let mut wrong = Vec::new();
    for document in files.iter().filter(|file| file.ends_with(".md")) {
        let text = read(document)?;
        for (number, line) in (1..).zip(text.lines()) {
            let mut complain =
                |what: &str| wrong.push(format!("{document}:{number}: there is no {what}"));
            for code in line.split('`').skip(1).step_by(2) {
                for name in expand(code) {
                    if is_source(&name) && !files.iter().any(|file| is_named(file, &name)) {
                        complain(&name);
                    }
                    if is_long_name(&name) && !words.contains(&name) {
                        complain(&name);
                    }
                }
            }
            for target in links(line) {
                let file = beside(document, target);
                if !files.contains(&file) {
                    complain(target);
                }
                if document.starts_with(BOOK) && !file.starts_with(BOOK) {
                    complain(&format!("{target} in the book: say its name instead"));
                }
            }
        }
    }
    let summary = read(SUMMARY)?;
    let listed: BTreeSet<String> = summary
        .lines()
        .flat_map(links)
        .map(|target| beside(SUMMARY, target))
        .collect();
    let pages = files
        .iter()
        .filter(|file| file.starts_with(BOOK) && file.ends_with(".md") && *file != SUMMARY);
    for page in pages.filter(|page| !listed.contains(*page)) {
        wrong.push(format!("{SUMMARY}: {page} is not in it"));
    }
    if !wrong.is_empty() {
        bail!("documents name what does not exist:\n{}", wrong.join("\n"));
    }
    wheels::mdbook()?;
    step("the book, in target/book", program("mdbook")?.arg("build"))
}

fn tracked() -> anyhow::Result<BTreeSet<String>> {
    let listed =
        output(program("git")?.args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let listed = listed.context("git is needed to list the project's files")?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Every identifier in the sources.
fn words(files: &BTreeSet<String>) -> anyhow::Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    let sources = files
        .iter()
        .filter(|file| !file.ends_with(".md") && SOURCES.iter().any(|end| file.ends_with(end)));
    for file in sources {
        let text = read(file)?;
        let identifiers = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.extend(
            identifiers
                .filter(|word| is_long_name(word))
                .map(str::to_owned),
        );
    }
    Ok(words)
}

/// Snake case of three words and more: not a field, a flag or an event of the
/// wire, of which documents speak in other ways.
fn is_long_name(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && name.matches('_').count() >= 2
        && !name.starts_with('_')
}

fn is_source(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    SOURCES.iter().any(|end| name.ends_with(end)) && name.chars().all(plain)
}

/// Whether a document may call a file by this name: the end of its path.
fn is_named(file: &str, name: &str) -> bool {
    file.strip_suffix(name)
        .is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// `a/{b,c}.rs` is two names.
fn expand(code: &str) -> Vec<String> {
    let inside = |text: &str| {
        let (before, rest) = text.split_once('{')?;
        let (choices, after) = rest.split_once('}')?;
        let names = choices
            .split(',')
            .map(|choice| format!("{before}{}{after}", choice.trim()));
        Some(names.collect())
    };
    inside(code).unwrap_or_else(|| vec![code.to_owned()])
}

/// The targets of a line's links that are files of the project.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|target| !target.is_empty() && !target.contains(':'))
}

fn beside(document: &str, target: &str) -> String {
    let mut path = PathBuf::new();
    let folder = Path::new(document).parent().unwrap_or(Path::new(""));
    for component in folder.join(target).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path.to_string_lossy().into_owned()
}

fn read(file: &str) -> anyhow::Result<String> {
    fs::read_to_string(root().join(file)).with_context(|| format!("reading {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_several_names() {
        assert_eq!(expand("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
        assert_eq!(expand("a.rs"), ["a.rs"]);
    }

    #[test]
    fn a_file_is_named_by_the_end_of_its_path() {
        assert!(is_named("relay/src/fetch/plan.rs", "plan.rs"));
        assert!(is_named(
            "relay/src/fetch/plan.rs",
            "relay/src/fetch/plan.rs"
        ));
        assert!(!is_named("relay/src/fetch/plan.rs", "an.rs"));
    }

    #[test]
    fn links_lead_from_where_the_document_is() {
        assert_eq!(
            beside("docs/adr/README.md", "../protocol/README.md"),
            "docs/protocol/README.md"
        );
        let line = "[a](b.md#part) and [c](https://example.org) and [d](#e)";
        assert_eq!(links(line).collect::<Vec<_>>(), ["b.md"]);
    }
}
