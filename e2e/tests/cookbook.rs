//! `docs/policy-cookbook.md` works as it is written: every file is saved under
//! the name in its first line, and every command is run.

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

#[test]
fn every_recipe_is_taken_and_what_it_forbids_is_forbidden() {
    let case = Case::new().unwrap();
    let alice = &case.alice;
    case.member(case.device("bob").unwrap(), "bob").unwrap();
    alice
        .does(&["admin", "group", "create", "pickers"])
        .unwrap();
    assert!(bob_may(alice, "post"));

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy-cookbook.md");
    let page = fs::read_to_string(page).unwrap();
    let mut commands = 0;
    for (language, block) in blocks(&page) {
        if language == "cedar" {
            let name = block.lines().next().unwrap().trim_start_matches("// ");
            fs::write(case.folder().join(name), block).unwrap();
            continue;
        }
        assert_eq!(language, "sh");
        for line in block.lines() {
            let line = line.strip_prefix("sotto ").unwrap();
            let args = line
                .split(' ')
                .map(|word| match word.strip_suffix(".cedar") {
                    Some(_) => case.folder().join(word).to_str().unwrap().to_owned(),
                    None => word.to_owned(),
                });
            let args: Vec<String> = args.collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            alice.does(&args).unwrap();
            commands += 1;
            if line.contains("announcements.cedar") {
                assert!(!bob_may(alice, "post"), "only owners write");
            }
        }
    }
    assert!(commands > 10, "{commands}");
    assert!(bob_may(alice, "post"), "everything was cleared");
}
