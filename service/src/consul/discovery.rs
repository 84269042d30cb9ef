//! Finding the nodes of a cluster. What is found are addresses to try, which
//! anybody may have put there: whoever joins a cluster knows it by the
//! certificate that its token names, as without Consul.

use std::path::{Path, PathBuf};

use super::client::Client;
use super::error::ConsulError;
use super::settings::{Address, ConsulConfig};
use crate::cluster::Endpoint;

/// What relays call themselves.
const RELAYS: &str = "sotto-relay";

/// The flags of a program that has no `server.toml` yet.
#[derive(Debug, Clone, clap::Args)]
pub struct ConsulArgs {
    /// Use Consul, by the agent on this machine or at this address, and go on
    /// using it: it goes into server.toml.
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "http://127.0.0.1:8500"
    )]
    consul: Option<Address>,

    /// A file with the token that opens Consul.
    #[arg(long, value_name = "FILE", requires = "consul")]
    consul_token_file: Option<PathBuf>,

    /// Authorities of the agent's certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "consul")]
    consul_ca_file: Option<PathBuf>,
}

impl ConsulArgs {
    /// What `[consul]` of `server.toml` is to say.
    ///
    /// # Errors
    /// When this process is in a folder that is not there any more.
    pub fn config(&self) -> Result<Option<ConsulConfig>, ConsulError> {
        let Some(address) = &self.consul else {
            return Ok(None);
        };
        let whole = |file: &Option<PathBuf>| file.as_deref().map(absolute).transpose();
        Ok(Some(ConsulConfig {
            token_file: whole(&self.consul_token_file)?,
            ca_file: whole(&self.consul_ca_file)?,
            ..ConsulConfig::at(address.clone())
        }))
    }
}

fn absolute(file: &Path) -> Result<PathBuf, ConsulError> {
    let whole = std::path::absolute(file);
    whole.map_err(|error| ConsulError::Flags(format!("{}: {error}", file.display())))
}

/// Where nodes let others in, of whichever clusters: 16 at most.
///
/// # Errors
/// [`ConsulError`].
pub async fn admissions(config: &ConsulConfig) -> Result<Vec<Endpoint>, ConsulError> {
    Client::new(config)?.admissions(RELAYS).await
}
