//! A program that updates itself, for the tests. Its version, and how it
//! behaves, stand behind its own end: `append` writes them there.

#![allow(clippy::print_stdout, reason = "a program for tests")]

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, process, thread};

use anyhow::Context;
use clap::{Parser, Subcommand};
use sotto_service::readiness;
use sotto_update::command::{self, UpdateArgs};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a copy with another version and behaviour.
    Append {
        copy: PathBuf,
        version: String,
        behaviour: String,
    },
    /// Say that it is ready, and wait.
    Run { ready_file: PathBuf },
    /// As every program of Sotto.
    Update(UpdateArgs),
}

const MARK: &[u8] = b"\nTRIAL ";

fn main() -> anyhow::Result<()> {
    sotto_service::tls::install_provider();
    let (version, behaviour) = trailer()?;
    if env::args().nth(1).as_deref() == Some("--version") {
        println!("trial {version}");
        return Ok(());
    }
    match Args::parse().command {
        Command::Append {
            copy,
            version,
            behaviour,
        } => {
            fs::copy(env::current_exe()?, &copy)?;
            let mut file = fs::OpenOptions::new().append(true).open(copy)?;
            file.write_all(MARK)?;
            Ok(write!(file, "{version} {behaviour}")?)
        }
        Command::Run { ready_file } => {
            if behaviour == "crashes" {
                process::exit(1);
            }
            let _ready = readiness::announce(&ready_file, format!("trial://{version}"))?;
            thread::sleep(Duration::from_secs(300));
            Ok(())
        }
        Command::Update(args) => {
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(command::run(args, "trial", &version))
        }
    }
}

fn trailer() -> anyhow::Result<(String, String)> {
    let mut file = fs::File::open(env::current_exe()?)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(64)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let mark = end.windows(MARK.len()).rposition(|window| window == MARK);
    let text = mark.and_then(|mark| end.get(mark + MARK.len()..));
    let text = String::from_utf8(text.unwrap_or(b"0.0.0 serves").to_vec())?;
    let (version, behaviour) = text.split_once(' ').context("no behaviour")?;
    Ok((version.to_owned(), behaviour.to_owned()))
}
