//! A Consul that lets in only whom it knows, and is spoken to over TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use sotto_faults::ports;
use sotto_service::consul::ConsulConfig;

use super::{Agent, PAUSE};
use crate::process::PATIENCE;

/// Whoever shows it may do everything; Consul wants a UUID.
const MANAGEMENT: &str = "8f246b77-f3e1-ff88-5b48-8ec93abf3e05";

/// An agent whose rule is no, and how to speak to it.
#[derive(Debug)]
pub struct Guarded {
    /// What the tests themselves see of it.
    pub agent: Agent,
    address: String,
    ca_file: PathBuf,
    folder: PathBuf,
}

impl Guarded {
    /// Starts one, with its files in `folder`.
    ///
    /// # Errors
    /// When it does not answer in the end.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let path = |name: &str| folder.join(name);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        let certificate = params.signed_by(&key, &authority)?;
        fs::write(path("consul-ca.pem"), authority.pem())?;
        fs::write(path("consul.pem"), certificate.pem())?;
        fs::write(path("consul.key"), key.serialize_pem())?;
        let https = ports::free()?;
        let settings = format!(
            "cert_file = {:?}\nkey_file = {:?}\n\
             acl {{\n enabled = true\n default_policy = \"deny\"\n \
             tokens {{\n master = \"{MANAGEMENT}\"\n }}\n}}\n",
            path("consul.pem"),
            path("consul.key"),
        );
        Ok(Self {
            agent: Agent::start_with(Some(MANAGEMENT), Some(https), &settings)?,
            address: format!("https://{https}"),
            ca_file: path("consul-ca.pem"),
            folder: folder.to_owned(),
        })
    }

    /// How a program speaks to it that may do what `rules` say (HCL).
    ///
    /// # Errors
    /// When Consul does not take the rules.
    pub fn lets_in(&self, name: &str, rules: &str) -> anyhow::Result<ConsulConfig> {
        let policy = json!({ "Name": name, "Rules": rules });
        // It cannot for a moment after it was made.
        let started = Instant::now();
        while let Err(error) = self.makes("/v1/acl/policy", &policy) {
            ensure!(started.elapsed() < PATIENCE, "no policy: {error}");
            thread::sleep(PAUSE);
        }
        let token = json!({ "Policies": [{ "Name": name }] });
        let made = self.makes("/v1/acl/token", &token)?;
        let secret = made.get("SecretID").and_then(Value::as_str);
        let file = self.folder.join(format!("consul-token-{name}"));
        fs::write(&file, secret.context("no token")?)?;
        Ok(ConsulConfig {
            token_file: Some(file),
            ca_file: Some(self.ca_file.clone()),
            ..ConsulConfig::at(self.address.parse()?)
        })
    }

    fn makes(&self, path: &str, what: &Value) -> anyhow::Result<Value> {
        let (status, said) = self.agent.ask("PUT", path, &what.to_string())?;
        ensure!(status == 200, "{path}: {status} {said}");
        Ok(serde_json::from_str(&said)?)
    }
}
