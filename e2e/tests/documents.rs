//! What the documents show is what the programs take: each command with its
//! flags, each setting of `server.toml`; and a machine on which somebody types
//! what docs/install.md says to do by hand becomes a server that updates itself.
//!
//! `docs/policy-cookbook.md` is played by `cookbook.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sotto_e2e::machines::updating::SOURCE;
use sotto_e2e::machines::{self, Machines};
use sotto_e2e::process::binary;
use sotto_e2e::releases::Releases;
use sotto_service::{Layout, ServerConfig};
use sotto_update::Digest;

const PROGRAMS: [&str; 5] = [
    "sotto",
    "sotto-relay",
    "sotto-gateway",
    "sotto-tunnel",
    "sotto-release",
];

/// As whom a server's own files are seen.
const SUDO: [&str; 3] = ["sudo", "-u", "sotto"];

/// A block of a document.
struct Block {
    /// Under which heading.
    section: String,
    language: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn blocks(document: &Path) -> Vec<Block> {
    let (mut blocks, mut section): (Vec<Block>, _) = (Vec::new(), String::new());
    let mut open = false;
    for line in fs::read_to_string(document).unwrap().lines() {
        match (line.strip_prefix("```"), open) {
            (Some(_), true) => open = false,
            (Some(language), false) => {
                open = true;
                blocks.push(Block {
                    section: section.clone(),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (None, true) => {
                let text = &mut blocks.last_mut().unwrap().text;
                text.push_str(line);
                text.push('\n');
            }
            (None, false) => {
                if let Some(title) = line.strip_prefix("## ") {
                    section = title.to_owned();
                }
            }
        }
    }
    blocks
}

fn documents() -> Vec<PathBuf> {
    let mut documents = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        documents.extend((path.extension().is_some_and(|end| end == "md")).then_some(path));
    }
    documents
}

/// The commands of ours in a block, word by word.
fn commands(block: &Block) -> Vec<Vec<String>> {
    let text = block.text.replace("\\\n", " ");
    let lines = text.lines().filter_map(shlex::split);
    let ours = lines.filter_map(|words| {
        let words = words
            .strip_prefix(&SUDO.map(str::to_owned))
            .unwrap_or(&words);
        // Up to what is done with what it prints.
        let goes_on = |word: &&String| !["|", ">", "&&", ";"].contains(&word.as_str());
        let words = words.iter().take_while(goes_on).cloned();
        let words: Vec<String> = words.collect();
        let is_ours = PROGRAMS.contains(&words.first()?.as_str());
        is_ours.then_some(words)
    });
    ours.collect()
}

/// What a program says of one of its commands.
fn help(command: &[String]) -> String {
    let mut program = Command::new(binary(&command[0]).unwrap());
    let output = program.args(&command[1..]).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a command has; none when it takes something else.
fn subcommands(help: &str) -> Vec<&str> {
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_command_is_one_that_the_programs_take() {
    let mut helps: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let mut seen = 0;
    for document in documents() {
        for block in blocks(&document) {
            for command in commands(&block) {
                let shown = format!("{}: {}", document.display(), command.join(" "));
                let (mut name, mut flags) = (Vec::new(), Vec::new());
                let (mut wants_name, mut words) = (true, command.iter());
                while let Some(word) = words.next() {
                    if let Some(flag) = word.strip_prefix("--") {
                        let (flag, _) = flag.split_once('=').unwrap_or((flag, ""));
                        flags.push(flag);
                        let takes_value = format!("--{flag} <");
                        if wants_name && helps[&name].contains(&takes_value) {
                            words.next();
                        }
                    } else if wants_name && !word.starts_with('-') {
                        name.push(word.clone());
                        let known = helps.entry(name.clone());
                        let commands = subcommands(known.or_insert_with_key(|name| help(name)));
                        wants_name = !commands.is_empty();
                    }
                }
                let help = &helps[&name];
                for flag in flags {
                    assert!(help.contains(&format!("--{flag}")), "{shown}: --{flag}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 80, "{seen}");
}

/// A server's directory, of which nothing runs.
fn server(folder: &Path) -> Layout {
    let layout = Layout::new(folder.join("server"));
    let mut init = Command::new(binary("sotto-gateway").unwrap());
    init.args(["init", "--org", "acme", "--project", "field", "--dir"]);
    let made = init.arg(layout.root()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    layout
}

#[test]
fn every_setting_of_a_server_is_one_that_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let layout = server(folder.path());
    let whole = fs::read_to_string(layout.config()).unwrap();
    let mut seen = 0;
    // The others speak of files of their own.
    for name in ["consul.md", "factors.md", "updates.md", "watching.md"] {
        let document = root().join("docs").join(name);
        for block in blocks(&document) {
            if block.language != "toml" {
                continue;
            }
            let mut settings: toml::Table = whole.parse().unwrap();
            let shown: toml::Table = block.text.parse().unwrap();
            for (key, value) in shown {
                match (settings.get_mut(&key), value) {
                    (Some(toml::Value::Table(old)), toml::Value::Table(new)) => old.extend(new),
                    (_, value) => drop(settings.insert(key, value)),
                }
            }
            fs::write(layout.config(), settings.to_string()).unwrap();
            if let Err(error) = ServerConfig::load(&layout) {
                panic!("{name}: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn what_is_to_be_done_by_hand_makes_a_server_that_updates_itself() {
    let test = "what_is_to_be_done_by_hand_makes_a_server_that_updates_itself";
    if !machines::are_possible(test).unwrap() {
        return;
    }
    let machines = Machines::start(1).unwrap();
    for program in fs::read_dir(machines.programs()).unwrap() {
        let program = program.unwrap();
        let to = machines
            .disk(1)
            .join("usr/local/bin")
            .join(program.file_name());
        fs::copy(program.path(), to).unwrap();
    }
    let releases = Releases::create(&machines.folder().join("keys"), &machines.source(1)).unwrap();
    let updated = ["sotto-relay", "sotto-gateway"];
    machines.release(&releases, "0.1.0", &updated).unwrap();
    let root_of_trust = releases.root();
    let fingerprint = Digest::of_file(&root_of_trust).unwrap().0.to_string();
    fs::copy(&root_of_trust, machines.disk(1).join("root/1.root.json")).unwrap();

    let install = blocks(&root().join("docs/install.md"));
    let typed = |section: &str| {
        let of_section = install.iter().filter(|block| block.section == section);
        for block in of_section.filter(|block| block.language == "sh") {
            // What everybody has to put in for themselves.
            let text = block
                .text
                .replace("chat.example.org", &Machines::address(1))
                .replace("https://releases.example/sotto", SOURCE)
                .replace("SHA256", &fingerprint);
            machines
                .on(1, &format!("set -eu\ncd /root\n{text}"))
                .unwrap();
        }
    };
    typed("One machine, by hand");
    for name in updated {
        assert_eq!(machines.runs(1, name).unwrap(), "0.1.0");
    }
    let invite = machines.on(1, "cat /srv/sotto/first-invite-acme").unwrap();
    assert!(invite.starts_with("sotto://"), "{invite}");
    let [finding] = &machines.doctor_of_updates(1).unwrap()[..] else {
        panic!("the doctor says more than one thing")
    };
    assert_eq!(finding["level"], "ok", "{finding}");

    typed("Three machines, by hand");
    let status = "sudo -u sotto sotto-relay cluster status --json --dir /srv/sotto";
    let status = machines.on(1, status).unwrap();
    assert!(status.contains("\"n1\""), "{status}");
}
