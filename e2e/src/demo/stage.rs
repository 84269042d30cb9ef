//! What every step of the story has at hand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};
use sotto_e2e::conversation::{Said, history};
use sotto_e2e::person::Person;
use sotto_e2e::process;
use sotto_e2e::report::Report;
use sotto_e2e::server::Server;
use sotto_e2e::tap::Tap;

use crate::plaintexts::{FILE_NAME, PASSWORD, Plaintexts};

/// Lines of the transcript that are shown.
const SHOWN: usize = 40;

/// The org that the story is about.
pub const ORG: &str = "acme";
/// Its project.
pub const PROJECT: &str = "field";
/// Another org on the same server.
pub const OTHER_ORG: &str = "globex";

/// The server, the people and what they know.
pub struct Stage {
    /// Everything is below.
    pub folder: PathBuf,
    /// The private server.
    pub server: Server,
    /// Listens to NATS in [`ORG`].
    pub tap: Tap,
    /// Alice's only device.
    pub alice: Person,
    /// Bob's first device.
    pub bob: Person,
    /// Bob's second device.
    pub phone: Person,
    /// The id of the room that they share; empty before it is made.
    pub room: String,
    /// What nobody else may see.
    pub plaintexts: Plaintexts,
    /// The file to send.
    pub file: PathBuf,
    /// SHA-256 of its content, hexadecimal.
    pub file_hash: String,
}

impl Stage {
    /// Starts the server and the tap.
    pub async fn set(
        folder: &Path,
        file: Option<&Path>,
        report: &mut Report,
    ) -> anyhow::Result<Self> {
        report.step("0  a private server with two organisations, and a tap on one of them");
        let mut server = Server::create(&folder.join("server"), ORG, PROJECT)?;
        report.check("`sotto up` serves", true, server.gateway());
        let stopped = server.stop()?;
        report.check(
            "Ctrl-C stops it cleanly",
            stopped.status.success(),
            stopped.status,
        );
        server.add_org(OTHER_ORG, "main")?;
        server.start()?;
        let tap = Tap::open(server.layout(), &ORG.parse()?, &folder.join("tap")).await?;
        report.check(
            "it starts again with a second organisation",
            true,
            server.gateway(),
        );

        let source = match file {
            Some(file) => file.to_owned(),
            None => process::nats_server()?,
        };
        let content = fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
        let plaintexts = Plaintexts::draw(&content)?;
        let file = folder.join(format!("{}.bin", plaintexts.text(FILE_NAME)));
        fs::write(&file, &content).context("copying the file to send")?;
        let password = plaintexts.text(PASSWORD);
        // For whoever keeps the folder and looks into the devices' stores.
        fs::write(folder.join("password"), &password).context("noting the password down")?;
        let person = |name| Person::new(folder.join("devices").join(name), &password);
        Ok(Self {
            folder: folder.to_owned(),
            alice: person("alice")?,
            bob: person("bob")?,
            phone: person("bob-phone")?,
            room: String::new(),
            file_hash: data_encoding::HEXLOWER.encode(&Sha256::digest(&content)),
            server,
            tap,
            plaintexts,
            file,
        })
    }

    /// Everything that a device has of the room, without asking for more.
    pub fn history(&self, person: &Person) -> anyhow::Result<Vec<Said>> {
        history(person, &self.room)
    }

    /// Lets a device ask for everything new; its history then.
    pub fn synced_history(&self, person: &Person) -> anyhow::Result<Vec<Said>> {
        person.does(&["sync"])?;
        self.history(person)
    }

    /// Types `texts` into one `sotto send --stdin`, one a line.
    pub fn send(&self, person: &Person, texts: &[String]) -> anyhow::Result<process::Running> {
        person.starts(&["send", &self.room, "--stdin"], Some(texts.join("\n")))
    }

    /// Writes what bob reads to a file, shows its first lines.
    pub fn transcript(&self, report: &Path) -> anyhow::Result<()> {
        let said = self.history(&self.bob)?;
        println!("\nWhat bob reads:\n");
        said.iter()
            .take(SHOWN)
            .for_each(|said| println!("  {said}"));
        let path = report.join("transcript.txt");
        let lines: Vec<String> = said.iter().map(|said| format!("{said}\n")).collect();
        fs::write(&path, lines.concat()).context("writing the transcript")?;
        println!(
            "  … and {} more, in {}",
            said.len().saturating_sub(SHOWN),
            path.display()
        );
        Ok(())
    }

    /// Where decrypted things go that are no device's own.
    pub fn decrypted(&self) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join("decrypted");
        fs::create_dir_all(&folder).context("making a folder for what is decrypted")?;
        Ok(folder)
    }

    /// Writes all that bob can see of the room to [`Self::decrypted`].
    pub fn decrypt_everything(&self) -> anyhow::Result<PathBuf> {
        let folder = self.decrypted()?;
        let history = self.bob.does(&["recv", &self.room, "--all"])?;
        let rooms = self.bob.does(&["rooms"])?;
        for (name, lines) in [("history", history), ("rooms", rooms)] {
            let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(folder.join(name), lines.concat()).context("writing what is decrypted")?;
        }
        Ok(folder)
    }
}
