//! Releases, the keys that sign them, a mirror, and a machine that updates.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sotto_update::publish::{self, Expiry, Keyholders, NewArtifact, Releases, Roles, SigningKey};
use sotto_update::{Checked, Pace, Program, Source, TrustFile, UpdateError, check};
use tempfile::TempDir;
use tough::schema::{Root, Signed};

use crate::mirror::Mirror;

pub const PROGRAM: &str = "sotto-relay";
pub const PLATFORM: &str = "x86_64-linux";

/// Two of three for root and for releases, one online key for the rest.
pub struct Keys {
    pub offline: [SigningKey; 3],
    pub online: SigningKey,
}

impl Keys {
    pub fn new() -> Self {
        let key = || SigningKey::generate().unwrap().0;
        Self {
            offline: [key(), key(), key()],
            online: key(),
        }
    }

    /// A root that names them, signed by all the offline ones.
    pub fn root(&self, version: u64, threshold: u64) -> Signed<Root> {
        let version = NonZeroU64::new(version).unwrap();
        let mut root = publish::root(version, later(), &self.roles(threshold)).unwrap();
        for key in &self.offline {
            publish::sign(&mut root, key).unwrap();
        }
        root
    }

    fn roles(&self, threshold: u64) -> Roles {
        let offline = Keyholders {
            keys: self.offline.iter().map(SigningKey::public).collect(),
            threshold: NonZeroU64::new(threshold).unwrap(),
        };
        let online = Keyholders {
            keys: vec![self.online.public()],
            threshold: NonZeroU64::MIN,
        };
        Roles {
            root: offline.clone(),
            targets: offline,
            snapshot: online.clone(),
            timestamp: online,
        }
    }
}

/// A machine and a mirror.
pub struct Case {
    pub folder: TempDir,
    pub keys: Keys,
    pub releases: Releases,
    pub mirror: Mirror,
    pub trust: TrustFile,
}

impl Case {
    /// Version 0.2.0 is released, and nothing was installed yet.
    pub async fn new() -> Self {
        sotto_service::tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new();
        let base = folder.path().join("releases");
        let releases = Releases::create(&base, keys.root(1, 2)).unwrap();
        let mirror = Mirror::start(base).await;
        let trust = TrustFile::new(&folder.path().join("state"));
        trust.pin(&releases.first_root()).unwrap();
        let case = Self {
            folder,
            keys,
            releases,
            mirror,
            trust,
        };
        case.release(&case.releases, "0.2.0");
        case
    }

    pub fn base(&self) -> PathBuf {
        self.folder.path().join("releases")
    }

    /// Another folder with the same root, for histories that did not happen.
    pub fn other_history(&self, name: &str) -> Releases {
        let base = self.folder.path().join(name);
        Releases::create(&base, self.keys.root(1, 2)).unwrap()
    }

    /// Releases with all the keys there are.
    pub fn release(&self, releases: &Releases, version: &str) {
        self.release_at(releases, version, Timestamp::now());
    }

    /// The same, as if it were another time.
    pub fn release_at(&self, releases: &Releases, version: &str, time: Timestamp) {
        release(self.folder.path(), releases, (version, time), &self.keys);
    }

    /// What a machine hears that runs this version.
    pub async fn check(&self, running: &str) -> Result<Checked, UpdateError> {
        self.check_for(PROGRAM, PLATFORM, running).await
    }

    pub async fn check_for(
        &self,
        name: &str,
        platform: &str,
        running: &str,
    ) -> Result<Checked, UpdateError> {
        let pace = Pace {
            idle: Duration::from_secs(10),
            floor: 1000,
            grace: Duration::from_millis(500),
        };
        let source = Source::new(&self.mirror.address, None, pace).map_err(UpdateError::Source)?;
        let program = Program {
            name: name.to_owned(),
            platform: platform.to_owned(),
            version: running.parse().unwrap(),
        };
        check(&self.trust, &source, &program).await
    }

    /// Checks and fetches; the content.
    pub async fn fetch(&self, running: &str) -> Result<Vec<u8>, UpdateError> {
        let Checked::Newer(offer) = self.check(running).await? else {
            panic!("nothing newer");
        };
        let path = self.folder.path().join("fetched");
        let _ = std::fs::remove_file(&path);
        offer.download(&path, |_| ()).await?;
        Ok(std::fs::read(path).unwrap())
    }
}

/// What the program of a release consists of.
pub fn content(program: &str, version: &str) -> Vec<u8> {
    format!("{program} {version} ").repeat(1000).into_bytes()
}

pub fn release(
    folder: &Path,
    releases: &Releases,
    (version, time): (&str, Timestamp),
    keys: &Keys,
) {
    let files: Vec<NewArtifact> = [PROGRAM, "sotto-gateway"]
        .map(|program| {
            let path = folder.join(format!("built-{program}"));
            std::fs::write(&path, content(program, version)).unwrap();
            NewArtifact {
                program: program.to_owned(),
                platform: PLATFORM.to_owned(),
                path,
            }
        })
        .into();
    let version = version.parse().unwrap();
    let drafted = releases.draft(version, time, &files, later());
    drafted.unwrap();
    for key in &keys.offline {
        publish::sign_file(&releases.draft_file(), key).unwrap();
    }
    make_visible(releases, &keys.online);
}

fn make_visible(releases: &Releases, online: &SigningKey) {
    let expires = Expiry {
        targets: later(),
        timestamp: later(),
    };
    // Keys are not copied about.
    releases
        .publish(std::slice::from_ref(online), expires)
        .unwrap();
}

pub fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24)
}
