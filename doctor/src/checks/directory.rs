//! Whether the directory is its owner's alone, and what the settings name is
//! there.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::{env, fs, io};

use sotto_jwt_accounts::keystore::passphrase_file;
use sotto_service::SmsConfig;
use sotto_service::consul::ConsulConfig;

use crate::finding::{Check, Finding};
use crate::programs::Program;
use crate::server::Server;

/// Files that are looked at, at most.
const FILES_MAX: usize = 20_000;
/// Files that are named in one finding, at most.
const NAMED_MAX: usize = 3;

/// What was seen of one file or folder.
#[derive(Debug, Clone)]
struct Seen {
    /// Within the server's directory.
    path: PathBuf,
    is_dir: bool,
    mode: u32,
    owner: u32,
}

/// Looks at the files.
pub(crate) fn check(server: &Server) -> Vec<Finding> {
    let root = server.layout.root();
    let mut seen = Vec::new();
    let walked = walk(root, Path::new(""), &mut seen);
    let mut findings = judge(root, &seen);
    if let Err((path, error)) = walked {
        findings.push(Finding::problem(
            Check::Directory,
            format!("cannot read {}: {error}", path.display()),
            "run this as the user that the server runs as",
        ));
    }
    findings.extend(named_files(server));
    findings
}

fn walk(root: &Path, at: &Path, seen: &mut Vec<Seen>) -> Result<(), (PathBuf, io::Error)> {
    let path = root.join(at);
    let failed = |error| (path.clone(), error);
    let metadata = fs::symlink_metadata(&path).map_err(failed)?;
    // Somebody else's server may keep its streams under a name that leads away.
    let is_dir = metadata.is_dir();
    seen.push(Seen {
        path: at.to_owned(),
        is_dir,
        mode: metadata.mode() & 0o777,
        owner: metadata.uid(),
    });
    // What nats-server keeps in its folders is its own.
    let is_ours = at.components().count() < 2 || !at.starts_with("nats");
    if !is_dir || !is_ours || metadata.file_type().is_symlink() {
        return Ok(());
    }
    for entry in fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if seen.len() >= FILES_MAX {
            break;
        }
        match walk(root, &at.join(name), seen) {
            // The server works meanwhile, and its files come and go.
            Err((_, error)) if error.kind() == io::ErrorKind::NotFound => {}
            walked => walked?,
        }
    }
    Ok(())
}

fn judge(root: &Path, seen: &[Seen]) -> Vec<Finding> {
    let shown = root.display();
    let mut findings = Vec::new();
    let open = seen
        .iter()
        .filter(|seen| seen.mode & 0o077 != 0 && is_private(seen));
    if let Some(names) = names(open) {
        findings.push(Finding::problem(
            Check::Directory,
            format!("other users of this machine can get at {names}: folders must have mode 0700, files 0600"),
            format!("run `chmod -R go= {shown}`"),
        ));
    }
    let owner = seen.first().map(|root| root.owner);
    let strange = seen.iter().filter(|seen| Some(seen.owner) != owner);
    if let Some(names) = names(strange) {
        let owner = owner.unwrap_or_default();
        findings.push(Finding::problem(
            Check::Directory,
            format!("{names} does not belong to user {owner}, as the directory does: the server may not be able to read or write it"),
            format!("run `chown -R {owner} {shown}` as root, and start the server always as one user"),
        ));
    }
    if findings.is_empty() && !seen.is_empty() {
        let what = format!("only its owner can get at what is in {shown}");
        findings.push(Finding::ok(Check::Directory, what));
    }
    findings
}

/// Whether nobody else may have it: all but what is public anyway, and what
/// nats-server makes behind the door of its folder.
fn is_private(seen: &Seen) -> bool {
    let mut components = seen.path.components();
    let in_nats = components.next() == Some(Component::Normal("nats".as_ref()))
        && components.next().is_some();
    let extension = seen
        .path
        .extension()
        .and_then(|extension| extension.to_str());
    let is_public = !seen.is_dir && matches!(extension, Some("pem" | "pub"));
    !in_nats && !is_public
}

/// The first few of them, and how many more there are; nothing of none.
fn names<'a>(seen: impl Iterator<Item = &'a Seen>) -> Option<String> {
    let mut names: Vec<String> = seen
        .map(|seen| match seen.path.as_os_str().is_empty() {
            true => "the directory itself".to_owned(),
            false => seen.path.display().to_string(),
        })
        .collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    let named = names.join(", ");
    match (names.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named),
        (false, more) => Some(format!("{named} and {more} more")),
    }
}

/// The files that the settings name besides.
fn named_files(server: &Server) -> Vec<Finding> {
    let Some(settings) = &server.settings else {
        return Vec::new();
    };
    let named = settings.sms.iter().flat_map(SmsConfig::files);
    let named = named.chain(settings.gateway.releases.as_deref());
    let consul = settings.consul.iter().flat_map(ConsulConfig::files);
    let named = named.chain(consul);
    let mut findings: Vec<Finding> = named.filter_map(unreadable).collect();
    if server.keeps_keys() {
        // As the gateway was told when it was started, or as it would be from here.
        let gateway = server.programs.gateway;
        let environment = gateway.and_then(Program::environment);
        let variable = |name: &str| match &environment {
            Some(environment) => environment.get(OsStr::new(name)).cloned(),
            None => env::var_os(name),
        };
        let configured = settings.keys.passphrase_file.as_deref();
        let file = passphrase_file(&server.layout.accounts(), configured, variable);
        findings.extend(fs::File::open(&file).err().map(|error| {
            Finding::warning(
                Check::Directory,
                format!("the passphrase that opens the keys is not in {}: {error}", file.display()),
                "bring that file back, unless systemd gives sotto-gateway the passphrase as the credential sotto-unlock",
            )
        }));
    }
    findings
}

fn unreadable(file: &Path) -> Option<Finding> {
    let error = fs::File::open(file).err()?;
    let shown = file.display();
    Some(Finding::problem(
        Check::Directory,
        format!("server.toml names {shown}, which cannot be read: {error}"),
        format!("put {shown} back, or correct what names it in server.toml"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn seen(path: &str, is_dir: bool, mode: u32, owner: u32) -> Seen {
        Seen {
            path: path.into(),
            is_dir,
            mode,
            owner,
        }
    }

    fn judged(more: &[Seen]) -> Vec<Finding> {
        let root = seen("", true, 0o700, 7);
        judge(Path::new("/srv/sotto"), &[&[root], more].concat())
    }

    #[test]
    fn what_is_public_and_what_is_behind_a_door_may_be_open() {
        let fine = [
            seen("tls", true, 0o700, 7),
            seen("tls/ca.pem", false, 0o644, 7),
            seen("gateway/gateway.pub", false, 0o644, 7),
            seen("nats", true, 0o700, 7),
            seen("nats/nats.log", false, 0o640, 7),
            seen("nats/jetstream", true, 0o755, 7),
            seen("server.toml", false, 0o600, 7),
        ];
        let [finding] = &judged(&fine)[..] else {
            panic!()
        };
        assert_eq!(finding.level, Level::Ok);
    }

    #[test]
    fn what_is_open_is_named_with_the_command_that_closes_it() {
        for open in [
            seen("tls/server.key", false, 0o640, 7),
            seen("nats", true, 0o750, 7),
            seen("unlock", false, 0o604, 7),
            seen("creds.pem", true, 0o755, 7),
        ] {
            let name = open.path.display().to_string();
            let [finding] = &judged(&[open])[..] else {
                panic!()
            };
            assert_eq!(finding.level, Level::Problem);
            assert!(finding.what.contains(&name), "{}", finding.what);
            let advice = finding.advice.as_deref().unwrap();
            assert!(advice.contains("chmod -R go= /srv/sotto"), "{advice}");
        }
    }

    #[test]
    fn many_are_counted() {
        let open: Vec<Seen> = (0..5)
            .map(|n| seen(&format!("creds/{n}"), false, 0o666, 7))
            .collect();
        let what = &judged(&open)[0].what;
        assert!(what.contains("creds/2 and 2 more"), "{what}");
    }

    #[test]
    fn files_of_another_user_are_named() {
        let findings = judged(&[seen("run/relay.lock", false, 0o600, 0)]);
        assert_eq!(findings[0].level, Level::Problem);
        assert!(findings[0].what.contains("run/relay.lock"));
        assert!(
            findings[0]
                .advice
                .as_deref()
                .unwrap()
                .contains("chown -R 7")
        );
    }

    #[test]
    fn streams_are_not_walked_through() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("nats/jetstream/ACCOUNT");
        fs::create_dir_all(deep.join("streams")).unwrap();
        let mut found = Vec::new();
        walk(folder.path(), Path::new(""), &mut found).unwrap();
        let paths: Vec<_> = found
            .iter()
            .map(|seen| seen.path.to_str().unwrap())
            .collect();
        assert_eq!(paths, ["", "nats", "nats/jetstream"]);
    }
}
