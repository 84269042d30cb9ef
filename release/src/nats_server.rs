//! The nats-server that `sotto-relay` carries: what it consists of, as Go wrote
//! it into the binary, and under which licences that may be passed on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use sotto_update::Digest;

/// Those texts, for people.
pub(crate) const LICENCES: &str = include_str!("../licences/nats-server.txt");
/// Largest binary that is read, in bytes.
const FILE_MAX: u64 = 64 * 1024 * 1024;
const SERVER: &str = "github.com/nats-io/nats-server/v2";
/// SPDX, of every module whose text is in [`LICENCES`].
const KNOWN: [(&str, &str); 10] = [
    (SERVER, "Apache-2.0"),
    ("github.com/antithesishq/antithesis-sdk-go", "MIT"),
    ("github.com/klauspost/compress", "BSD-3-Clause"),
    ("github.com/minio/highwayhash", "Apache-2.0"),
    ("github.com/nats-io/jwt/v2", "Apache-2.0"),
    ("github.com/nats-io/nkeys", "Apache-2.0"),
    ("github.com/nats-io/nuid", "Apache-2.0"),
    ("golang.org/x/crypto", "BSD-3-Clause"),
    ("golang.org/x/sys", "BSD-3-Clause"),
    ("golang.org/x/time", "BSD-3-Clause"),
];

/// A binary of nats-server.
#[derive(Debug)]
pub(crate) struct NatsServer {
    pub(crate) sha256: Digest,
    /// nats-server itself.
    pub(crate) server: Module,
    /// What it needs.
    pub(crate) needs: Vec<Module>,
}

/// A Go module.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) path: String,
    /// As in `v2.15.1`.
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) licence: &'static str,
}

impl Module {
    /// What a bill of materials calls it.
    pub(crate) fn reference(&self) -> String {
        format!("{}@{}", self.path, self.version)
    }
}

impl NatsServer {
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let length = fs::metadata(file).with_context(|| format!("reading {shown}"))?;
        ensure!(
            length.len() <= FILE_MAX,
            "{shown} is too large to be nats-server"
        );
        let binary = fs::read(file).with_context(|| format!("reading {shown}"))?;
        let mut found = Self::modules(&binary)?;
        let server = found.iter().position(|module| module.path == SERVER);
        let server = server.with_context(|| format!("{shown} is no nats-server"))?;
        Ok(Self {
            sha256: Digest::of(&binary),
            server: found.remove(server),
            needs: found,
        })
    }

    /// Go writes a line for each: `mod` or `dep`, path, version and sum.
    fn modules(binary: &[u8]) -> anyhow::Result<Vec<Module>> {
        let text = String::from_utf8_lossy(binary);
        let fields = text.lines().filter_map(|line| {
            let mut fields = line.split('\t');
            let kind = fields.next()?;
            let (path, version) = (fields.next()?, fields.next()?);
            (matches!(kind, "mod" | "dep") && version.starts_with('v')).then_some((path, version))
        });
        // It is there more than once.
        let fields: BTreeSet<(&str, &str)> = fields.collect();
        let modules = fields.into_iter().map(|(path, version)| {
            let known = KNOWN.iter().find(|(known, _)| *known == path);
            let &(_, licence) = known.with_context(|| {
                format!(
                    "nats-server has {path} in it, whose licence is neither in \
                     release/licences/nats-server.txt nor in release/src/nats_server.rs"
                )
            })?;
            Ok(Module {
                path: path.to_owned(),
                version: version.to_owned(),
                licence,
            })
        });
        modules.collect()
    }

    /// Whether a relay carries this very binary: it says its sum.
    pub(crate) fn is_in(&self, relay: &Path) -> anyhow::Result<bool> {
        let program = fs::read(relay).with_context(|| format!("reading {}", relay.display()))?;
        let sum = self.sha256.to_string();
        Ok(program
            .windows(sum.len())
            .any(|bytes| bytes == sum.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(binary: &str) -> anyhow::Result<NatsServer> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(&file, binary)?;
        NatsServer::read(file.path())
    }

    #[test]
    fn go_says_what_is_in_it() {
        let info = "path\tgithub.com/nats-io/nats-server/v2\n\
            mod\tgithub.com/nats-io/nats-server/v2\tv2.15.1\t\n\
            dep\tgolang.org/x/sys\tv0.48.0\th1:bbX/i/6MgT9B=\n\
            build\t-compiler=gc\n";
        let found = read(&format!("\0code\u{1}\n{info}\0more\n{info}")).unwrap();
        assert_eq!(found.server.version, "v2.15.1");
        assert_eq!(found.needs.len(), 1);
        assert_eq!(found.needs[0].licence, "BSD-3-Clause");

        let unknown = read(&format!("{info}dep\texample.org/new\tv1.0.0\th1:a=\n"));
        let error = unknown.unwrap_err().to_string();
        assert!(error.contains("example.org/new"), "{error}");
        assert!(read("mod\tgolang.org/x/sys\tv0.48.0\t\n").is_err());
    }

    #[test]
    fn every_module_is_in_the_text() {
        for (path, licence) in KNOWN {
            let name = path.strip_prefix("golang.org").unwrap_or(path);
            let line = LICENCES
                .lines()
                .find(|line| line.contains(name) && line.ends_with(licence));
            assert!(line.is_some(), "{path}");
        }
    }
}
