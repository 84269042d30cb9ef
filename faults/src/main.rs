//! `sotto-faults`: a bad network between two programs, by hand.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use sotto_faults::door::{self, Door};
use sotto_faults::{Conditions, Link, Place};

/// A bad network between two programs.
#[derive(Debug, Parser)]
#[command(name = "sotto-faults", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Listen, and forward to a server over a bad link, until Ctrl-C.
    Proxy(Proxy),
    /// Let a network namespace out through sockets, and in: to be run in one.
    Doors {
        /// PLACE=PLACE: where programs connect, and where that leads; each is
        /// IP:PORT or unix:PATH.
        #[arg(required = true)]
        doors: Vec<Door>,
    },
}

#[derive(Debug, Args)]
struct Proxy {
    /// Where to listen: IP:PORT, or unix:PATH.
    #[arg(long, value_name = "PLACE")]
    listen: Place,
    /// The server, written the same way.
    #[arg(long, value_name = "PLACE")]
    to: Place,
    /// Bits per second each way; without it, as fast as the machine.
    #[arg(long, value_name = "BITS")]
    rate: Option<u32>,
    /// Round trip, in milliseconds.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    round_trip: u64,
    /// Up to so many milliseconds more, each way.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    jitter: u64,
    /// Share of segments that is lost and sent again, in percent.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..100), value_name = "PERCENT")]
    loss: u8,
    /// Connections live so many seconds on average.
    #[arg(long, value_name = "SECONDS")]
    life: Option<u64>,
    /// Share of broken connections that nobody is told about, in percent.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(..=100), value_name = "PERCENT")]
    half_open: u8,
    /// Decides what is lost when.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Proxy {
    fn conditions(&self) -> Conditions {
        Conditions {
            bits_per_second: self.rate,
            delay: Duration::from_millis(self.round_trip / 2),
            jitter: Duration::from_millis(self.jitter),
            loss: f64::from(self.loss) / 100.0,
            life: self.life.map(Duration::from_secs),
            half_open: f64::from(self.half_open) / 100.0,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
#[expect(
    clippy::print_stderr,
    reason = "a program for the terminal says what it does"
)]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Proxy(proxy) => {
            let link = Link::new(proxy.conditions(), proxy.seed);
            let (place, forwarding) = link
                .forward(&proxy.listen, proxy.to.clone())
                .await
                .with_context(|| format!("cannot listen at {}", proxy.listen))?;
            eprintln!("forwarding {place} to {}", proxy.to);
            forwarding.await?;
        }
        Command::Doors { doors } => {
            door::keep_open(doors, || eprintln!("open")).await?;
        }
    }
    Ok(())
}
