//! A private server behind somebody else's public address.
//!
//! `sotto-tunnel serve` stands on a public machine, `sotto-tunnel dial` beside
//! the private servers. The public end reads a connection's ClientHello to see
//! whom it is for, and passes the bytes on as they are: it has no certificate of
//! the org, ends no TLS but that of its own links, and learns names, sizes,
//! times and addresses.
//!
//! | part | what | I/O |
//! |---|---|---|
//! | `records`, `hello`, `server_hello`, `refusal` | what a client wants, what a server answers, and what is said to those who are refused | none |
//! | `name`, `table`, `registry`, `budget`, `lobby` | who may announce what, over which link a connection goes, how much may pass | none |
//! | `auth`, `endpoint` | how the two ends know each other | none |
//! | `frame`, `ahead`, `link`, `splice`, `closing` | bytes on a link | streams |
//! | `public`, `front`, `reception`, `serve` | the public end | sockets |
//! | `dial`, `private` | the private end | sockets |

mod ahead;
pub mod auth;
pub mod budget;
mod closing;
pub mod dial;
pub mod endpoint;
mod frame;
mod front;
pub mod hello;
mod link;
pub mod lobby;
mod metrics;
pub mod name;
mod open_files;
mod private;
mod public;
mod reception;
mod records;
pub mod refusal;
pub mod registry;
pub mod serve;
pub mod server_hello;
mod splice;
pub mod table;

use sotto_service::handover::HandoverArgs;
use sotto_service::logging::LogArgs;
use sotto_service::watch::Loopback;

/// The flags that both ends have.
#[derive(Debug, clap::Args)]
pub struct CommonArgs {
    /// Where `GET /healthz`, `/readyz` and `/metrics` answer, in clear: a
    /// loopback address. Without it nowhere.
    #[arg(
        long,
        alias = "monitor",
        env = "SOTTO_TUNNEL_METRICS",
        value_name = "IP:PORT"
    )]
    pub metrics: Option<Loopback>,

    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,

    /// Stop when standard input ends, which it does when the parent is gone.
    #[arg(long)]
    pub exit_with_parent: bool,

    /// How a successor takes over.
    #[command(flatten)]
    pub handover: HandoverArgs,
}

/// What an operator calls the address at which an end is watched.
const METRICS: &str = "--metrics";
