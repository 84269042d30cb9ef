//! Text messages by an HTTPS request to whoever can send them: a provider, or
//! the org's own modem behind a small server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use serde_json::Value;
use sotto_service::{SmsConfig, private_files};
use zeroize::Zeroizing;

use super::number::Number;
use super::{NotSent, Provider};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest file with a secret or certificates, in bytes.
const FILE: u64 = 64 * 1024;

/// Posts JSON to one URL.
pub struct Webhook {
    http: reqwest::Client,
    url: reqwest::Url,
    bearer: Option<HeaderValue>,
    fields: BTreeMap<String, String>,
}

impl Webhook {
    /// As `[sms]` of server.toml says. Certificates are checked against
    /// `ca_file`, or else against the authorities that the system trusts.
    ///
    /// # Errors
    /// When a file does not read, or the URL is none of HTTPS.
    pub fn new(config: &SmsConfig) -> anyhow::Result<Self> {
        let url: reqwest::Url = config
            .url
            .parse()
            .context("`url` of [sms] in server.toml is no URL")?;
        ensure!(
            url.scheme() == "https",
            "`url` of [sms] in server.toml must begin with https://"
        );
        let bearer = config.bearer_file.as_deref().map(|file| {
            let token = Zeroizing::new(private_files::read_text(file, FILE)?);
            let header = Zeroizing::new(format!("Bearer {}", token.trim()));
            let mut header = HeaderValue::from_str(&header)
                .with_context(|| format!("{} holds no bearer token", file.display()))?;
            header.set_sensitive(true);
            anyhow::Ok(header)
        });
        let mut http = reqwest::Client::builder()
            .https_only(true)
            .redirect(Policy::none())
            .timeout(PATIENCE);
        if let Some(file) = &config.ca_file {
            let pem = private_files::read_text(file, FILE)?;
            let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .with_context(|| format!("{} holds no certificates in PEM", file.display()))?;
            http = http.tls_certs_only(authorities);
        }
        Ok(Self {
            http: http.build().context("cannot set up the way to [sms]")?,
            url,
            bearer: bearer.transpose()?,
            fields: config.fields.clone(),
        })
    }

    async fn post(&self, number: &Number, text: &str) -> Result<(), NotSent> {
        let filled = |template: &String| {
            // The text last: what it holds is not looked at again.
            let filled = template.replace("{number}", number.as_str());
            Value::from(filled.replace("{text}", text))
        };
        let fields = self.fields.iter();
        let body: Value = fields
            .map(|(name, value)| (name.clone(), filled(value)))
            .collect();
        let mut request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        // The URL may hold a secret, and the body holds the number.
        let answer = request
            .send()
            .await
            .map_err(|error| NotSent(error.without_url().to_string()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(NotSent(format!("the provider answered {status}"))),
        }
    }
}

impl Provider for Webhook {
    fn send<'a>(&'a self, number: &'a Number, text: &'a str) -> BoxFuture<'a, Result<(), NotSent>> {
        Box::pin(self.post(number, text))
    }
}
