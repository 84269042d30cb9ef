//! Passwords and passphrases: from a file, from the environment, or typed.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::{env, io};

use anyhow::{Context, bail};
use zeroize::Zeroizing;

/// Longest secret, in bytes.
const LENGTH: u64 = 1_024;

/// A secret that a person knows.
#[derive(Debug, Clone, Copy)]
pub struct Secret<'a> {
    what: &'static str,
    file: Option<&'a Path>,
    file_flag: &'static str,
    variable: &'static str,
}

impl<'a> Secret<'a> {
    /// What opens the folder of this device.
    pub fn passphrase(file: Option<&'a Path>) -> Self {
        Self {
            what: "Passphrase of this device",
            file,
            file_flag: "--passphrase-file",
            variable: "SOTTO_PASSPHRASE",
        }
    }

    /// The account's password.
    pub fn password(file: Option<&'a Path>) -> Self {
        Self {
            what: "Password of the account",
            file,
            file_flag: "--password-file",
            variable: "SOTTO_PASSWORD",
        }
    }

    /// What a security key wants to know.
    pub fn pin(file: Option<&'a Path>) -> Self {
        Self {
            what: "PIN of the security key",
            file,
            file_flag: "--pin-file",
            variable: "SOTTO_KEY_PIN",
        }
    }

    /// What opens the LDAP server.
    pub fn ldap(file: Option<&'a Path>) -> Self {
        Self {
            what: "Password for the LDAP server",
            file,
            file_flag: "--ldap-password-file",
            variable: "SOTTO_LDAP_PASSWORD",
        }
    }

    /// One that exists.
    pub fn ask(self) -> anyhow::Result<Zeroizing<String>> {
        match self.given()? {
            Some(secret) => Ok(secret),
            None => self.typed(self.what),
        }
    }

    /// One that is to be, typed twice.
    pub fn choose(self) -> anyhow::Result<Zeroizing<String>> {
        if let Some(secret) = self.given()? {
            return Ok(secret);
        }
        let secret = self.typed(&format!("{} (new)", self.what))?;
        if *secret != *self.typed(&format!("{} (again)", self.what))? {
            bail!("the two are not the same: start again");
        }
        Ok(secret)
    }

    /// From the file, else from the environment.
    fn given(self) -> anyhow::Result<Option<Zeroizing<String>>> {
        let secret = match (self.file, env::var(self.variable)) {
            (Some(file), _) => read(file)?,
            (None, Ok(text)) => Zeroizing::new(text),
            (None, Err(_)) => return Ok(None),
        };
        self.check(secret).map(Some)
    }

    fn typed(self, prompt: &str) -> anyhow::Result<Zeroizing<String>> {
        if !io::stdin().is_terminal() {
            let Self {
                what,
                file_flag,
                variable,
                ..
            } = self;
            bail!("there is no terminal to ask for the {what}: set {variable} or give {file_flag}");
        }
        let typed = rpassword::prompt_password(format!("{prompt}: "));
        self.check(Zeroizing::new(typed.context("cannot read what is typed")?))
    }

    fn check(self, secret: Zeroizing<String>) -> anyhow::Result<Zeroizing<String>> {
        match secret.is_empty() {
            true => bail!("the {} is empty: choose one", self.what.to_lowercase()),
            false => Ok(secret),
        }
    }
}

/// The first line of a file.
fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(LENGTH).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let line = text.lines().next().unwrap_or_default();
    Ok(Zeroizing::new(line.to_owned()))
}
