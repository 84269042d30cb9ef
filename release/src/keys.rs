//! Keys as files: PKCS#8 in PEM, only for their owner to read, and beside it
//! the public half as it stands in a root of trust.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use sotto_service::private_files;
use sotto_update::publish::SigningKey;
use tough::schema::key::Key;
use zeroize::Zeroizing;

/// Longest key file, in bytes.
const KEY_MAX: u64 = 16 * 1024;

#[derive(Args)]
pub(crate) struct KeyArgs {
    /// The file to make.
    file: PathBuf,
}

#[expect(clippy::print_stdout, reason = "what was made")]
pub(crate) fn make(args: &KeyArgs) -> anyhow::Result<()> {
    ensure!(
        !args.file.exists(),
        "{} exists already, and is not overwritten",
        args.file.display()
    );
    let (key, pem) = SigningKey::generate()?;
    let public = beside(&args.file);
    private_files::write(&args.file, pem.as_bytes())?;
    let json = serde_json::to_vec(&key.public())?;
    fs::write(&public, json).with_context(|| format!("writing {}", public.display()))?;
    println!("{}", public.display());
    Ok(())
}

pub(crate) fn read(file: &Path) -> anyhow::Result<SigningKey> {
    let pem = Zeroizing::new(private_files::read_text(file, KEY_MAX)?);
    Ok(SigningKey::from_pem(&pem, &file.display().to_string())?)
}

pub(crate) fn read_all(files: &[PathBuf]) -> anyhow::Result<Vec<SigningKey>> {
    files.iter().map(|file| read(file)).collect()
}

pub(crate) fn read_public(file: &Path) -> anyhow::Result<Key> {
    let text = private_files::read_text(file, KEY_MAX)?;
    serde_json::from_str(&text).with_context(|| format!("{} is no public key", file.display()))
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}
