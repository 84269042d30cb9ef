//! Packs the nats-server that a release build carries, when the feature
//! `bundled-nats` is on, and writes down what it is
//! (`src/nats_server/carried.rs`).

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::{env, fs};

use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// Names the file.
const INPUT: &str = "SOTTO_BUNDLED_NATS_SERVER";
const NAME: &str = "nats-server";
/// Largest file that is taken, in bytes.
const FILE_MAX: u64 = 64 * 1024 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={INPUT}");
    let out = env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    let out = Path::new(&out);
    let carried = match env::var_os("CARGO_FEATURE_BUNDLED_NATS") {
        Some(_) => pack(out)?,
        None => "None".to_owned(),
    };
    fs::write(out.join("carried.rs"), carried)?;
    Ok(())
}

/// The same bytes for the same file. Answers with Rust.
fn pack(out: &Path) -> Result<String, Box<dyn Error>> {
    let input = env::var(INPUT).map_err(|_| {
        format!(
            "the feature bundled-nats packs a nats-server into sotto-relay: name its file in \
             {INPUT}, or have `cargo xtask release` do it"
        )
    })?;
    println!("cargo::rerun-if-changed={input}");
    let length = fs::metadata(&input)
        .map_err(|error| format!("{INPUT} names {input}: {error}"))?
        .len();
    if length == 0 || length > FILE_MAX {
        return Err(format!("{input} has {length} bytes, and can be no nats-server").into());
    }
    let file = fs::read(&input)?;
    let sha256 = HEXLOWER.encode(&Sha256::digest(&file));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&file)?;
    fs::write(out.join(format!("{NAME}.gz")), gzip.finish()?)?;
    Ok(format!(
        "Some(Carried {{ name: {NAME:?}, compressed: include_bytes!(\"{NAME}.gz\"), \
         length: {length}, sha256: {sha256:?} }})"
    ))
}
