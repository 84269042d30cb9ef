//! `docs/policy-cookbook.md` and `docs/admin.md` work as they are written: every
//! file is saved under the name in its first line, and every command is run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::path::Path;

use serde_json::Value;
use sotto_e2e::case::Case;
use sotto_e2e::person::Person;

/// The blocks of a page, each with its language.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}

/// Whether bob could do it now, as `policy explain` says.
fn bob_may(alice: &Person, what: &str) -> bool {
    let args = ["admin", "policy", "explain", "bob", what, "room:barn"];
    let said = alice.does(&args).unwrap();
    let allowed = said.iter().find_map(|line| line.get("allowed"));
    allowed.and_then(Value::as_bool).unwrap()
}

/// Does what a page says, on the side of alice; `after` sees each command that
/// was done. How many there were.
fn plays(case: &Case, page: &str, mut after: impl FnMut(&str)) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(page);
    let page = fs::read_to_string(path).unwrap();
    let mut commands = 0;
    for (language, block) in blocks(&page) {
        if language == "cedar" {
            let name = block.lines().next().unwrap().trim_start_matches("// ");
            fs::write(case.folder().join(name), block).unwrap();
            continue;
        }
        assert_eq!(language, "sh");
        for line in block.lines() {
            let words = shlex::split(line.strip_prefix("sotto ").unwrap()).unwrap();
            let is_file = |word: &str| word.ends_with(".cedar") || word.ends_with(".log");
            let args = words.into_iter().map(|word| match is_file(&word) {
                true => case.folder().join(word).to_str().unwrap().to_owned(),
                false => word,
            });
            let args: Vec<String> = args.collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            case.alice.does(&args).unwrap();
            after(line);
            commands += 1;
        }
    }
    commands
}

#[test]
fn every_recipe_is_taken_and_what_it_forbids_is_forbidden() {
    let case = Case::new().unwrap();
    let alice = &case.alice;
    case.member(case.device("bob").unwrap(), "bob").unwrap();
    alice
        .does(&["admin", "group", "create", "pickers"])
        .unwrap();
    assert!(bob_may(alice, "post"));
    let commands = plays(&case, "policy-cookbook.md", |command| {
        if command.contains("announcements.cedar") {
            assert!(!bob_may(alice, "post"), "only owners write");
        }
    });
    assert!(commands > 10, "{commands}");
    assert!(bob_may(alice, "post"), "everything was cleared");
}

#[test]
fn an_organisation_is_looked_after_as_it_is_written() {
    let case = Case::new().unwrap();
    case.member(case.device("bob").unwrap(), "bob").unwrap();
    let commands = plays(&case, "admin.md", |_| {});
    assert!(commands > 15, "{commands}");
    assert!(case.folder().join("acme.log").is_file());
    assert!(!bob_may(&case.alice, "read"), "bob has left");
}
