//! The other side: makes the folder that updaters read. Keys belong to roles
//! (root, targets, snapshot, timestamp), and each role says how many of its
//! keys must sign. A release is drafted, signed by as many people as it takes,
//! each on a machine of their own, and then published.
//!
//! Never used by what is updated; it is here so that the format is in one place.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use jiff::Timestamp;
use semver::Version;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::schema::key::Key;
use tough::schema::{
    Hashes, Metafile, Role, RoleKeys, RoleType, Root, Signature, Signed, Snapshot, Target, Targets,
    Timestamp as TimestampRole,
};
use tough::sign::Sign;
use tough::{TargetName, schema};
use zeroize::Zeroizing;

use crate::Digest;
use crate::log::{Artifact, LOG_TARGET, ReleaseLog};

/// The version of the specification that is written.
const SPECIFICATION: &str = "1.0.0";
/// What a PEM file of a key is called.
const PEM_TAG: &str = "PRIVATE KEY";
/// The release that waits for signatures.
const DRAFT: &str = "draft.json";

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The key does not read.
    #[error("{0} is no Ed25519 key in PKCS#8")]
    Key(String),
    /// The key is not one of the role's.
    #[error("that key may not sign the {0}")]
    NotItsKey(RoleType),
    /// A document does not read.
    #[error("{path} is not what it should be: {problem}")]
    Document {
        /// Which.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The log refuses the release.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    /// Too few signatures, or those of others.
    #[error("the {0} needs more signatures: {1}")]
    Unsigned(RoleType, String),
    /// No folder of releases.
    #[error("there is no root of trust in {0}")]
    NoRoot(String),
    /// The new root does not follow.
    #[error("the new root must have the version {0}")]
    RootVersion(u64),
    /// The library said no.
    #[error("{0}")]
    Other(String),
}

type Result<T> = std::result::Result<T, PublishError>;

/// A key that signs for a role. Zeroized by the library when it is dropped.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// Whose signatures a role needs, and how many.
#[derive(Debug, Clone)]
pub struct Keyholders {
    /// Public keys.
    pub keys: Vec<Key>,
    /// How many of them must sign.
    pub threshold: NonZeroU64,
}

/// Of every role.
#[derive(Debug, Clone)]
pub struct Roles {
    /// Who may change all of this.
    pub root: Keyholders,
    /// Who may release.
    pub targets: Keyholders,
    /// Who says which documents belong together.
    pub snapshot: Keyholders,
    /// Who says that nothing newer exists.
    pub timestamp: Keyholders,
}

/// Until when what is signed now is good.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// Of the release and the list of documents.
    pub targets: Timestamp,
    /// Of the statement that there is nothing newer: days, not months.
    pub timestamp: Timestamp,
}

/// A file of a release.
#[derive(Debug, Clone)]
pub struct NewArtifact {
    /// `sotto-relay`
    pub program: String,
    /// As [`platform`](crate::platform) says.
    pub platform: String,
    /// Where it is.
    pub path: PathBuf,
}

/// A folder of releases: `metadata/` and `targets/`.
#[derive(Debug)]
pub struct Releases {
    base: PathBuf,
    root: Signed<Root>,
}

impl SigningKey {
    /// A new one, and its PKCS#8 in PEM, which is all there is of it.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<(Self, Zeroizing<String>)> {
        let failed = |_| PublishError::Other("no randomness".to_owned());
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(failed)?;
        let encoded = pem::encode(&pem::Pem::new(PEM_TAG, document.as_ref().to_vec()));
        let encoded = Zeroizing::new(encoded);
        Ok((Self::from_pem(&encoded, "the new key")?, encoded))
    }

    /// Reads PKCS#8 in PEM; `name` is for the error.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pem(text: &str, name: &str) -> Result<Self> {
        let refused = || PublishError::Key(name.to_owned());
        let block = pem::parse(text).map_err(|_| refused())?;
        let contents = Zeroizing::new(block.into_contents());
        let pair = Ed25519KeyPair::from_pkcs8(&contents).map_err(|_| refused())?;
        Ok(Self { pair })
    }

    /// Its public half, as it stands in a root.
    pub fn public(&self) -> Key {
        self.pair.tuf_key()
    }

    /// 64 bytes of Ed25519.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// A root of trust that nobody has signed yet.
///
/// # Errors
/// When a key cannot be named.
pub fn root(version: NonZeroU64, expires: Timestamp, roles: &Roles) -> Result<Signed<Root>> {
    let mut keys = HashMap::new();
    let mut named = HashMap::new();
    for (role, holders) in [
        (RoleType::Root, &roles.root),
        (RoleType::Targets, &roles.targets),
        (RoleType::Snapshot, &roles.snapshot),
        (RoleType::Timestamp, &roles.timestamp),
    ] {
        let mut keyids = Vec::new();
        for key in &holders.keys {
            let id = key.key_id().map_err(other)?;
            keys.insert(id.clone(), key.clone());
            keyids.push(id);
        }
        let threshold = holders.threshold;
        if threshold.get() > keyids.len() as u64 {
            let problem = format!("{threshold} are asked for, {} are named", keyids.len());
            return Err(PublishError::Unsigned(role, problem));
        }
        let role_keys = RoleKeys {
            keyids,
            threshold,
            _extra: HashMap::new(),
        };
        named.insert(role, role_keys);
    }
    Ok(Signed {
        signed: Root {
            spec_version: SPECIFICATION.to_owned(),
            consistent_snapshot: true,
            version,
            expires,
            keys,
            roles: named,
            _extra: HashMap::new(),
        },
        signatures: Vec::new(),
    })
}

/// Adds one key's signature, instead of an earlier one of the same key.
///
/// # Errors
/// When the document cannot be written in its canonical form.
pub fn sign<T: Role>(document: &mut Signed<T>, key: &SigningKey) -> Result<()> {
    let message = document.signed.canonical_form().map_err(other)?;
    let keyid = key.public().key_id().map_err(other)?;
    document.signatures.retain(|there| there.keyid != keyid);
    document.signatures.push(Signature {
        keyid,
        sig: key.sign(&message).into(),
    });
    Ok(())
}

impl Releases {
    /// A new folder, which trusts `root`.
    ///
    /// # Errors
    /// When the root is not signed as it says, or the disk says no.
    pub fn create(base: &Path, root: Signed<Root>) -> Result<Self> {
        verified(&root.signed, &root)?;
        let releases = Self {
            base: base.to_owned(),
            root,
        };
        for folder in ["metadata", "targets"] {
            let path = base.join(folder);
            fs::create_dir_all(&path).map_err(|source| PublishError::File { path, source })?;
        }
        releases.write_root()?;
        Ok(releases)
    }

    /// One that exists.
    ///
    /// # Errors
    /// When it has no root that reads.
    pub fn open(base: &Path) -> Result<Self> {
        let named = |version: u64| base.join(format!("metadata/{version}.root.json"));
        let newest = (1..).take_while(|version| named(*version).exists()).last();
        let newest = newest.ok_or_else(|| PublishError::NoRoot(base.display().to_string()))?;
        Ok(Self {
            base: base.to_owned(),
            root: read(&named(newest))?,
        })
    }

    /// What is trusted now.
    pub fn root(&self) -> &Signed<Root> {
        &self.root
    }

    /// `metadata/` and `targets/` are here.
    pub fn folder(&self) -> &Path {
        &self.base
    }

    /// The release that waits for signatures, which [`sign_file`] adds.
    pub fn draft_file(&self) -> PathBuf {
        self.base.join(DRAFT)
    }

    /// Where the first root is, which updaters pin.
    pub fn first_root(&self) -> PathBuf {
        self.metadata("1.root.json")
    }

    /// Changes keys: `root` must be signed by enough of the old root keys and
    /// enough of the new ones.
    ///
    /// # Errors
    /// When it is not, or does not follow the newest.
    pub fn change_root(&mut self, root: Signed<Root>) -> Result<()> {
        let next = self.root.signed.version.get() + 1;
        if root.signed.version.get() != next {
            return Err(PublishError::RootVersion(next));
        }
        verified(&self.root.signed, &root)?;
        verified(&root.signed, &root)?;
        self.root = root;
        self.write_root()
    }

    /// Copies the files in, appends to the log, and leaves a draft that waits
    /// for signatures.
    ///
    /// # Errors
    /// When the log refuses it, or the disk says no.
    pub fn draft(
        &self,
        version: Version,
        released: Timestamp,
        files: &[NewArtifact],
        expires: Timestamp,
    ) -> Result<()> {
        let newest = self.newest_targets()?;
        let mut text = match &newest {
            Some(targets) => self.read_log(targets)?,
            None => String::new(),
        };
        let mut log = ReleaseLog::parse(&text)?;
        let mut targets = Targets::new(
            SPECIFICATION.to_owned(),
            next(newest.as_ref().map(|targets| targets.signed.version)),
            expires,
        );
        targets.delegations = None;
        if let Some(newest) = newest {
            targets.targets = newest.signed.targets;
        }
        let mut artifacts = Vec::new();
        for file in files {
            let target = format!("{}-{version}-{}", file.program, file.platform);
            let (sha256, length) = Digest::of_file(&file.path).map_err(at(&file.path))?;
            let path = self.target(&sha256, &target);
            fs::copy(&file.path, &path).map_err(at(&path))?;
            describe(&mut targets, &target, sha256, length)?;
            artifacts.push(Artifact {
                program: file.program.clone(),
                platform: file.platform.clone(),
                target,
                length,
                sha256,
            });
        }
        text.push_str(&log.append(version, released, artifacts)?);
        let sha256 = Digest::of(text.as_bytes());
        let path = self.target(&sha256, LOG_TARGET);
        fs::write(&path, &text).map_err(at(&path))?;
        describe(&mut targets, LOG_TARGET, sha256, text.len() as u64)?;
        let draft = Signed {
            signed: targets,
            signatures: Vec::new(),
        };
        write(&self.draft_file(), &draft).map(drop)
    }

    /// Publishes the draft, with the keys that say what belongs together and
    /// what is newest. The last file that is written makes it visible.
    ///
    /// # Errors
    /// When the draft lacks signatures, or the keys are not enough.
    pub fn publish(&self, keys: &[SigningKey], expires: Expiry) -> Result<()> {
        let draft = self.draft_file();
        let targets: Signed<Targets> = read(&draft)?;
        verified(&self.root.signed, &targets)?;
        let targets_version = targets.signed.version;
        let path = self.metadata(&format!("{targets_version}.targets.json"));
        let targets_file = write(&path, &targets)?;
        let before = self.newest_snapshot()?;
        let version = next(before.map(|snapshot| snapshot.signed.version));
        let mut snapshot = Snapshot::new(SPECIFICATION.to_owned(), version, expires.targets);
        snapshot.meta.insert(
            "targets.json".to_owned(),
            metafile(targets_version, &targets_file),
        );
        let snapshot = self.signed(snapshot, keys)?;
        let path = self.metadata(&format!("{version}.snapshot.json"));
        let snapshot_file = write(&path, &snapshot)?;
        self.write_timestamp(metafile(version, &snapshot_file), keys, expires.timestamp)?;
        fs::remove_file(&draft).map_err(at(&draft))
    }

    /// Says anew that there is nothing newer, which has to be said before the
    /// last time it was said expires.
    ///
    /// # Errors
    /// When nothing was published, or the keys are not enough.
    pub fn refresh(&self, keys: &[SigningKey], expires: Timestamp) -> Result<()> {
        let timestamp: Signed<TimestampRole> = read(&self.metadata("timestamp.json"))?;
        let meta = timestamp.signed.meta.get("snapshot.json").cloned();
        let meta = meta.ok_or_else(|| PublishError::Other("nothing is published".to_owned()))?;
        self.write_timestamp(meta, keys, expires)
    }

    fn write_timestamp(
        &self,
        snapshot: Metafile,
        keys: &[SigningKey],
        expires: Timestamp,
    ) -> Result<()> {
        let path = self.metadata("timestamp.json");
        let before: Option<Signed<TimestampRole>> =
            path.exists().then(|| read(&path)).transpose()?;
        let version = next(before.map(|timestamp| timestamp.signed.version));
        let mut timestamp = TimestampRole::new(SPECIFICATION.to_owned(), version, expires);
        timestamp.meta.insert("snapshot.json".to_owned(), snapshot);
        let timestamp = self.signed(timestamp, keys)?;
        write(&path, &timestamp).map(drop)
    }

    fn signed<T: Role>(&self, document: T, keys: &[SigningKey]) -> Result<Signed<T>> {
        let mut document = Signed {
            signed: document,
            signatures: Vec::new(),
        };
        let role = self.root.signed.roles.get(&T::TYPE);
        for key in keys {
            let keyid = key.public().key_id().map_err(other)?;
            if role.is_some_and(|role| role.keyids.contains(&keyid)) {
                sign(&mut document, key)?;
            }
        }
        verified(&self.root.signed, &document)?;
        Ok(document)
    }

    fn newest_snapshot(&self) -> Result<Option<Signed<Snapshot>>> {
        let path = self.metadata("timestamp.json");
        if !path.exists() {
            return Ok(None);
        }
        let timestamp: Signed<TimestampRole> = read(&path)?;
        let Some(meta) = timestamp.signed.meta.get("snapshot.json") else {
            return Ok(None);
        };
        read(&self.metadata(&format!("{}.snapshot.json", meta.version))).map(Some)
    }

    fn newest_targets(&self) -> Result<Option<Signed<Targets>>> {
        let Some(snapshot) = self.newest_snapshot()? else {
            return Ok(None);
        };
        let Some(meta) = snapshot.signed.meta.get("targets.json") else {
            return Ok(None);
        };
        read(&self.metadata(&format!("{}.targets.json", meta.version))).map(Some)
    }

    fn read_log(&self, targets: &Signed<Targets>) -> Result<String> {
        let name = TargetName::new(LOG_TARGET).map_err(other)?;
        let Some(target) = targets.signed.targets.get(&name) else {
            return Ok(String::new());
        };
        let sum = data_encoding::HEXLOWER.encode(&target.hashes.sha256);
        let path = self.base.join(format!("targets/{sum}.{LOG_TARGET}"));
        fs::read_to_string(&path).map_err(at(&path))
    }

    fn write_root(&self) -> Result<()> {
        let name = format!("{}.root.json", self.root.signed.version);
        write(&self.metadata(&name), &self.root).map(drop)
    }

    fn metadata(&self, name: &str) -> PathBuf {
        self.base.join("metadata").join(name)
    }

    fn target(&self, sha256: &Digest, name: &str) -> PathBuf {
        self.base.join("targets").join(format!("{sha256}.{name}"))
    }
}

fn describe(targets: &mut Targets, name: &str, sha256: Digest, length: u64) -> Result<()> {
    let target = Target {
        length,
        hashes: hashes(&sha256),
        custom: HashMap::new(),
        _extra: HashMap::new(),
    };
    let name = TargetName::new(name).map_err(other)?;
    targets.targets.insert(name, target);
    Ok(())
}

fn metafile(version: NonZeroU64, bytes: &[u8]) -> Metafile {
    Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(hashes(&Digest::of(bytes))),
        version,
        _extra: HashMap::new(),
    }
}

fn hashes(sha256: &Digest) -> Hashes {
    Hashes {
        sha256: sha256.as_bytes().to_vec().into(),
        _extra: HashMap::new(),
    }
}

fn verified<T: Role + Serialize>(root: &Root, document: &Signed<T>) -> Result<()> {
    let verified = root.verify_role(document);
    verified.map_err(|error| PublishError::Unsigned(T::TYPE, error.to_string()))
}

fn next(version: Option<NonZeroU64>) -> NonZeroU64 {
    version.map_or(NonZeroU64::MIN, |version| version.saturating_add(1))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(at(path))?;
    serde_json::from_slice(&bytes).map_err(|error| PublishError::Document {
        path: path.display().to_string(),
        problem: error.to_string(),
    })
}

/// Writes beside and renames, so that a server never hands out half a file.
fn write<T: Serialize>(path: &Path, document: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(document).map_err(other)?;
    bytes.push(b'\n');
    let beside = path.with_extension("new");
    fs::write(&beside, &bytes).map_err(at(&beside))?;
    fs::rename(&beside, path).map_err(at(path))?;
    Ok(bytes)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PublishError {
    let path = path.to_owned();
    move |source| PublishError::File { path, source }
}

fn other(error: impl std::fmt::Display) -> PublishError {
    PublishError::Other(error.to_string())
}

/// A document of any role, to which a signature may be added without knowing
/// which it is.
///
/// # Errors
/// When it is none, or the disk says no.
pub fn sign_file(path: &Path, key: &SigningKey) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "_type")]
        role: RoleType,
    }
    fn add<T: Role + DeserializeOwned>(path: &Path, key: &SigningKey) -> Result<()> {
        let mut document: schema::Signed<T> = read(path)?;
        sign(&mut document, key)?;
        write(path, &document).map(drop)
    }
    let kind: Signed<Kind> = read(path)?;
    match kind.signed.role {
        RoleType::Root => add::<Root>(path, key),
        RoleType::Targets => add::<Targets>(path, key),
        RoleType::Snapshot => add::<Snapshot>(path, key),
        RoleType::Timestamp => add::<TimestampRole>(path, key),
        role @ RoleType::DelegatedTargets => Err(PublishError::NotItsKey(role)),
    }
}
