//! How fast a tunnel is on this machine, beside other tunnels in the same run:
//! `cargo run --release --package sotto-tunnel --example speed -- --sotto … --rathole …`.
//! Nothing here asserts a time: figures are for people to compare.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a program for those who measure: what goes wrong ends it"
)]

mod load;
mod tunnels;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::tunnels::{Protection, Tunnel};

/// Measures a tunnel beside others.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program to measure: target/release/sotto-tunnel.
    #[arg(long)]
    sotto: PathBuf,
    /// Another build of it, to be compared.
    #[arg(long)]
    before: Option<PathBuf>,
    /// socat, if it is to be measured, too.
    #[arg(long)]
    socat: Option<PathBuf>,
    /// rathole. With TLS it needs openssl, too.
    #[arg(long)]
    rathole: Option<PathBuf>,
    /// What protects its link.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "plain,noise,tls"
    )]
    rathole_links: Vec<Protection>,
    /// bore.
    #[arg(long)]
    bore: Option<PathBuf>,
    /// chisel.
    #[arg(long)]
    chisel: Option<PathBuf>,
    /// What is measured; without it, everything.
    #[arg(long, value_enum, value_delimiter = ',')]
    figures: Vec<Figures>,
    /// How long each figure is measured.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Streams where there are many.
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// Full streams beside which delay is measured.
    #[arg(long, default_value_t = 4)]
    beside: usize,
    /// Connections that are idle when memory is read; a link of ours takes 4,096.
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    /// Links of the dialer.
    #[arg(long, default_value_t = 2)]
    links: u8,
    /// A network namespace for the private ends, behind whatever wire is to be
    /// measured.
    #[arg(long, requires_all = ["public_at", "server_at"])]
    private_in: Option<String>,
    /// Where private ends reach public ones.
    #[arg(long, default_value = "127.0.0.1")]
    public_at: IpAddr,
    /// Where private ends reach the server.
    #[arg(long, default_value = "127.0.0.1")]
    server_at: IpAddr,
    /// Rounds; each figure is the median.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Some of what can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figures {
    /// Memory of idle connections.
    Memory,
    /// Delay on an idle tunnel, and beside full streams.
    Delay,
    /// Connections made.
    Rate,
    /// One full stream.
    One,
    /// Many full streams.
    Many,
}

impl Arguments {
    fn measures(&self, figures: Figures) -> bool {
        self.figures.is_empty() || self.figures.contains(&figures)
    }
}

/// What starts a tunnel.
type Start<'a> = Box<dyn Fn() -> Tunnel + 'a>;

#[tokio::main]
async fn main() {
    sotto_service::tls::install_provider();
    let arguments = &Arguments::parse();
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let hello = load::hello();
    let server = load::server(arguments.server_at, hello.len()).await;
    let mut tunnels: Vec<(&str, Start<'_>)> = Vec::new();
    let mut add = |name, start| tunnels.push((name, start));
    let sotto = |program| move || Tunnel::sotto(arguments, program, server);
    add("sotto-tunnel", Box::new(sotto(&arguments.sotto)));
    if let Some(program) = &arguments.before {
        add("before", Box::new(sotto(program)));
    }
    if let Some(program) = &arguments.socat {
        let start = move || Tunnel::socat(arguments, program, server);
        add("socat", Box::new(start));
    }
    if let Some(program) = &arguments.rathole {
        for &protection in &arguments.rathole_links {
            let start = move || Tunnel::rathole(arguments, program, protection, server);
            add(protection.rathole(), Box::new(start));
        }
    }
    if let Some(program) = &arguments.bore {
        let start = move || Tunnel::bore(arguments, program, server);
        add("bore", Box::new(start));
    }
    if let Some(program) = &arguments.chisel {
        let start = move || Tunnel::chisel(arguments, program, server);
        add("chisel", Box::new(start));
    }
    let mut figures: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    let mut rows = Vec::new();
    for round in 1..=arguments.runs {
        for (name, start) in &tunnels {
            let measured = load::measure(arguments, &start(), &hello).await;
            eprintln!(
                "{name}, round {round} of {}: {measured:.1?}",
                arguments.runs
            );
            rows = measured.iter().map(|(row, _)| *row).collect();
            for (row, value) in measured {
                let values = figures.entry(name).or_default().entry(row).or_default();
                values.push(value);
            }
        }
    }
    if arguments.json {
        println!(
            "{}",
            json!({ "runs": arguments.runs, "links": arguments.links, "idle": arguments.idle, "figures": figures })
        );
        return;
    }
    let median = |name: &str, row: &str| {
        let mut values = figures[name][row].clone();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let names: Vec<&str> = tunnels.iter().map(|(name, _)| *name).collect();
    println!(
        "| what | {} |\n|---|{}",
        names.join(" | "),
        "---:|".repeat(names.len())
    );
    for row in rows {
        let cells = names.iter().map(|name| format!("{:.1}", median(name, row)));
        println!("| {row} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}
