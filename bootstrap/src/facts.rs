//! What a machine says of itself. Read with suspicion: it may be another
//! machine than the user thinks, and what it says decides what is done to it.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::SocketAddr;

use data_encoding::BASE64;
use procfs::net::{TcpNetEntries, TcpState};
use procfs::{ExplicitSystemInfo, FromBufReadSI};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sotto_service::ServerConfig;
use sotto_service::cluster::{Members, Node};
use sotto_service::listeners::exclude_each_other;
use sotto_update::Digest;

/// What runs on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `sotto-relay`, with nats-server.
    Relay,
    /// `sotto-gateway`.
    Gateway,
}

impl Role {
    /// In the order in which they are started.
    pub const ALL: [Self; 2] = [Self::Relay, Self::Gateway];

    /// The name of its program's file.
    pub fn program(self) -> &'static str {
        match self {
            Self::Relay => "sotto-relay",
            Self::Gateway => "sotto-gateway",
        }
    }

    /// The name of its unit.
    pub fn unit(self) -> String {
        format!("{}.service", self.program())
    }

    /// The name of the unit that updates it daily.
    pub fn timer(self) -> String {
        format!("{}-update.timer", self.program())
    }

    /// The port for which its unit is printed in the facts, of two, that needs
    /// the same privileges as this one.
    pub(crate) fn like(port: u16) -> &'static str {
        match port {
            ..1024 => "443",
            1024.. => "8443",
        }
    }

    fn of(text: &str) -> Option<Self> {
        match text {
            "relay" => Some(Self::Relay),
            "gateway" => Some(Self::Gateway),
            _ => None,
        }
    }
}

/// One machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `uname -s`.
    pub system: String,
    /// `uname -m`.
    pub machine: String,
    /// Seconds since 1970, by its clock.
    pub clock: i64,
    /// Whether systemd runs it.
    pub systemd: bool,
    /// Tools that are needed and missing.
    pub lacks: Vec<String>,
    /// Whether there is the user that the programs run as.
    pub user: bool,
    /// SHA-256 of the programs that are there.
    pub programs: BTreeMap<String, String>,
    /// The server's folder.
    pub folder: Folder,
    /// `server.toml`.
    pub config: Option<ServerConfig>,
    /// `cluster/node.json`.
    pub node: Option<Node>,
    /// `cluster/members.json`.
    pub members: Option<Members>,
    /// Whether the key store is there.
    pub keys: bool,
    /// Whether the passphrase that opens it is there.
    pub passphrase: bool,
    /// The fingerprint of the root of trust that is pinned.
    pub pinned: Option<Digest>,
    /// Sum of the authorities of the releases' source.
    pub authorities: Option<Digest>,
    /// The units.
    pub units: BTreeMap<Role, Unit>,
    /// Where anything listens.
    pub listening: Vec<SocketAddr>,
}

/// The server's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    /// Whether it is there.
    pub exists: bool,
    /// Whose it is.
    pub owner: String,
    /// Whether something is in it.
    pub filled: bool,
}

/// A unit of systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Whether it runs, or is about to.
    pub active: bool,
    /// Whether it starts with the machine.
    pub enabled: bool,
    /// For which of two ports its file is what the program prints.
    pub(crate) like: Vec<String>,
    /// Whether the unit that updates its program, and its timer, are what that
    /// prints for the source that is wanted.
    pub updater_printed: bool,
    /// Whether that timer runs, and starts with the machine.
    pub timer_runs: bool,
}

impl Unit {
    /// Whether its file is what its program prints when it listens on `port`.
    pub fn is_for(&self, port: u16) -> bool {
        self.like.iter().any(|like| like == Role::like(port))
    }
}

/// What a machine says makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// A line.
    #[error("its answer is not understood (`{0}`): is it a machine like any other?")]
    Answer(String),
    /// It ended early.
    #[error("its answer is cut off")]
    CutOff,
    /// A file of the server.
    #[error("{file} there does not read: {problem}")]
    Damaged {
        /// Which.
        file: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Facts {
    /// What the script said.
    ///
    /// # Errors
    /// See [`FactsError`].
    pub fn parse(output: &[u8]) -> Result<Self, FactsError> {
        let text = String::from_utf8_lossy(output);
        let mut facts = Self::default();
        let mut ended = false;
        for line in text.lines() {
            let (key, value) = line.split_once(' ').ok_or_else(|| answer(line))?;
            ended = key == "end";
            facts.take(key, value)?;
        }
        match ended {
            true => Ok(facts),
            false => Err(FactsError::CutOff),
        }
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), FactsError> {
        let pair = || value.split_once(' ').ok_or_else(|| answer(value));
        let text = || value.to_owned();
        match key {
            "system" => self.system = text(),
            "machine" => self.machine = text(),
            "clock" => self.clock = value.parse().map_err(|_| answer(value))?,
            "systemd" => self.systemd = true,
            "lacks" => self.lacks.push(text()),
            "user" => self.user = true,
            "program" => {
                let (name, sum) = pair()?;
                self.programs.insert(name.to_owned(), sum.to_owned());
            }
            "folder" => self.folder.exists = true,
            "owner" => self.folder.owner = text(),
            "filled" => self.folder.filled = true,
            "config" => self.config = Some(config(&decoded(value)?)?),
            "node" => self.node = Some(json("cluster/node.json", &decoded(value)?)?),
            "members" => self.members = Some(json("cluster/members.json", &decoded(value)?)?),
            "keys" => self.keys = true,
            "passphrase" => self.passphrase = true,
            "active" => {
                let (unit, state) = self.unit(pair()?)?;
                unit.active = matches!(state, "active" | "activating" | "reloading");
            }
            "enabled" => {
                let (unit, state) = self.unit(pair()?)?;
                unit.enabled = state == "enabled";
            }
            "unit" => {
                let (unit, port) = self.unit(pair()?)?;
                unit.like.push(port.to_owned());
            }
            "trust" => {
                let trust: Trust = json("the root of trust", &decoded(value)?)?;
                self.pinned = Some(trust.pinned);
            }
            "authorities" => self.authorities = Some(value.parse().map_err(|_| answer(value))?),
            "updater" => {
                let (unit, is) = self.unit(pair()?)?;
                match is {
                    "printed" => unit.updater_printed = true,
                    "runs" => unit.timer_runs = true,
                    other => return Err(answer(other)),
                }
            }
            "listening" => self.listening.extend(listening(&decoded(value)?)?),
            "end" => {}
            _ => return Err(answer(key)),
        }
        Ok(())
    }

    fn unit<'a>(
        &mut self,
        (role, value): (&str, &'a str),
    ) -> Result<(&mut Unit, &'a str), FactsError> {
        let role = Role::of(role).ok_or_else(|| answer(role))?;
        Ok((self.units.entry(role).or_default(), value))
    }

    /// The unit of a role; one that was never heard of is neither active nor
    /// enabled.
    pub fn unit_of(&self, role: Role) -> Unit {
        self.units.get(&role).cloned().unwrap_or_default()
    }

    /// Whether somebody listens there already.
    pub fn is_taken(&self, address: SocketAddr) -> bool {
        let mut others = self.listening.iter();
        others.any(|other| exclude_each_other(*other, address))
    }
}

/// What `sotto-relay update status` says, as far as it is of interest.
#[derive(Deserialize)]
struct Trust {
    pinned: Digest,
}

fn answer(text: &str) -> FactsError {
    FactsError::Answer(text.chars().take(60).collect())
}

fn decoded(value: &str) -> Result<Vec<u8>, FactsError> {
    BASE64.decode(value.as_bytes()).map_err(|_| answer(value))
}

fn config(bytes: &[u8]) -> Result<ServerConfig, FactsError> {
    let damaged = |problem: String| FactsError::Damaged {
        file: "server.toml",
        problem,
    };
    let text = std::str::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
    toml::from_str(text).map_err(|error| damaged(error.message().to_owned()))
}

fn json<T: DeserializeOwned>(file: &'static str, bytes: &[u8]) -> Result<T, FactsError> {
    serde_json::from_slice(bytes).map_err(|error| FactsError::Damaged {
        file,
        problem: error.to_string(),
    })
}

fn listening(table: &[u8]) -> Result<Vec<SocketAddr>, FactsError> {
    // Of this only the order of bytes counts, and servers are little-endian.
    let system = ExplicitSystemInfo {
        boot_time_secs: 0,
        ticks_per_second: 100,
        page_size: 4096,
        is_little_endian: true,
    };
    let entries = TcpNetEntries::from_buf_read(BufReader::new(table), &system);
    let TcpNetEntries(entries) = entries.map_err(|_| answer("/proc/net/tcp"))?;
    let listening = entries
        .into_iter()
        .filter(|entry| entry.state == TcpState::Listen);
    Ok(listening.map(|entry| entry.local_address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Result<Facts, FactsError> {
        Facts::parse(lines.join("\n").as_bytes())
    }

    #[test]
    fn an_answer_that_is_not_whole_or_not_ours_is_refused() {
        assert!(lines(&["system Linux", "end yes"]).is_ok());
        assert_eq!(lines(&["system Linux"]), Err(FactsError::CutOff));
        assert_eq!(lines(&["end yes", "user yes"]), Err(FactsError::CutOff));
        for wrong in [
            "hello world",
            "x",
            "clock noon",
            "program relay",
            "active cat yes",
            "config %",
        ] {
            let error = lines(&[wrong, "end yes"]).unwrap_err();
            assert!(matches!(error, FactsError::Answer(_)), "{wrong}: {error}");
        }
        let node = format!("node {}", BASE64.encode(b"{}"));
        let error = lines(&[&node, "end yes"]).unwrap_err();
        assert!(error.to_string().contains("cluster/node.json"), "{error}");
    }

    #[test]
    fn who_listens_is_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 15 1 0 100 0 0 10 0\n   \
            1: 0100007F:20FC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 16 1 0 100 0 0 10 0\n";
        let line = format!("listening {}", BASE64.encode(table.as_bytes()));
        let facts = lines(&[&line, "end yes"]).unwrap();
        let taken = |address: &str| facts.is_taken(address.parse().unwrap());
        assert!(taken("0.0.0.0:8443") && taken("10.1.2.3:8443") && taken("[::]:8443"));
        assert!(taken("0.0.0.0:8444") && !taken("10.1.2.3:8444"));
        assert!(!taken("0.0.0.0:8445"));
    }

    #[test]
    fn a_unit_is_right_for_ports_of_one_kind() {
        let facts = lines(&[
            "active relay active",
            "enabled relay disabled",
            "unit relay 8443",
            "end yes",
        ]);
        let unit = facts.unwrap().unit_of(Role::Relay);
        assert!(unit.active && !unit.enabled);
        assert!(unit.is_for(4222) && !unit.is_for(443));
    }

    #[test]
    fn whom_a_machine_trusts_is_read_or_an_error() {
        let sum = Digest::of(b"root");
        let status = format!(r#"{{"program":"sotto-relay","pinned":"{sum}"}}"#);
        let trust =
            |status: &[u8]| lines(&[&format!("trust {}", BASE64.encode(status)), "end yes"]);
        assert_eq!(trust(status.as_bytes()).unwrap().pinned, Some(sum));
        let error = trust(b"").unwrap_err();
        assert!(error.to_string().contains("root of trust"), "{error}");
        let facts = lines(&["updater gateway runs", "end yes"]).unwrap();
        let unit = facts.unit_of(Role::Gateway);
        assert!(unit.timer_runs && !unit.updater_printed);
        assert!(lines(&["updater gateway walks", "end yes"]).is_err());
    }
}
