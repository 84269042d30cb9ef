//! Making the data directory of a new server, and adding an org to one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use rand::rngs::OsRng;
use sotto_jwt_accounts::grants::{SYSTEM_INBOX, Services};
use sotto_jwt_accounts::keystore::{KeyStore, KeyStoreError};
use sotto_jwt_accounts::nsc::{self, NscStore};
use sotto_jwt_accounts::push_account;
use sotto_proto::{OrgName, ProjectName};
use sotto_service::config::{GatewayConfig, KeysConfig, LimitsConfig, NatsConfig, RelayConfig};
use sotto_service::readiness::Ready;
use sotto_service::{Layout, OrgConfig, ServerConfig, nats, private_files, tls};
use zeroize::Zeroizing;

use crate::clock::{Clock, SystemClock};
use crate::passwords::Passwords;
use crate::storage::BUCKETS;

/// Longest of the small files read here, in bytes.
const FILE_MAX: u64 = 4_096;

/// What a new server is to be.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The directory to make.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR")]
    pub dir: PathBuf,

    /// An organisation to serve; may be repeated, each with a --project.
    #[arg(long = "org", value_name = "NAME", required = true)]
    pub orgs: Vec<OrgName>,

    /// The first project of the --org at the same place.
    #[arg(long = "project", value_name = "NAME", required = true)]
    pub projects: Vec<ProjectName>,

    /// The server's name: letters, digits and -._:
    #[arg(long, default_value = "sotto", value_name = "NAME")]
    pub server_name: String,

    /// Host name or IP address by which people reach the server.
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    pub public_host: String,

    /// Where the gateway listens (HTTPS).
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "IP:PORT")]
    pub gateway_listen: SocketAddr,

    /// Where nats-server listens (TLS).
    #[arg(long, default_value = "127.0.0.1:4222", value_name = "IP:PORT")]
    pub nats_listen: SocketAddr,

    /// How many streams each organisation's rooms are spread over.
    #[arg(long, default_value = "1", value_name = "N")]
    pub shards: NonZeroU8,

    /// Be under the operator in this folder by nsc, with `stores` and `keys` in
    /// it, instead of a new one. Needs its own seed and that of a signing key.
    #[arg(long, value_name = "NSC_DIR")]
    pub nsc: Option<PathBuf>,

    /// Which operator of --nsc, when there are several.
    #[arg(long, value_name = "NAME", requires = "nsc")]
    pub nsc_operator: Option<String>,
}

/// Which org to add.
#[derive(Debug, clap::Args)]
pub struct OrgAddArgs {
    /// The organisation.
    pub name: OrgName,

    /// The server's data directory.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR")]
    pub dir: PathBuf,

    /// Its first project.
    #[arg(long, value_name = "NAME")]
    pub project: ProjectName,
}

/// Makes the directory of a new server. `server.toml` is written last: without
/// it nothing has ever been served from there, so that an interrupted `init`
/// can simply be run again.
///
/// # Errors
/// When there is a server already, or a file cannot be written.
pub fn init(args: &InitArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&args.dir);
    ensure!(
        !layout.is_initialised(),
        "there is a server in {} already: choose another --dir, or add to it with `sotto-gateway org add`",
        args.dir.display()
    );
    ensure!(
        args.orgs.len() == args.projects.len(),
        "each --org needs a --project: {} and {} were given",
        args.orgs.len(),
        args.projects.len()
    );
    let orgs = args.orgs.iter().zip(&args.projects);
    let config = ServerConfig {
        sms: None,
        consul: None,
        server_name: args.server_name.clone(),
        public_host: args.public_host.clone(),
        shards: args.shards,
        gateway: GatewayConfig {
            listen: args.gateway_listen,
            origin: None,
            releases: None,
            metrics: None,
            proxy_protocol_from: BTreeSet::new(),
        },
        keys: KeysConfig::default(),
        nats: NatsConfig {
            listen: args.nats_listen,
        },
        relay: RelayConfig::default(),
        limits: LimitsConfig::default(),
        orgs: orgs.map(org_config).collect(),
    };

    let adopted = match &args.nsc {
        Some(from) => Some(nsc::import(from, args.nsc_operator.as_deref())?),
        None => None,
    };
    private_files::create_dir(layout.root())?;
    let now_ms = SystemClock.now_ms();
    let keys = operator_keys(&layout, adopted.as_ref(), now_ms)?;
    layout.create()?;
    tls::create_authority(&layout, &config.server_name)?;
    tls::issue_server_certificate(&layout, &config.certificate_hosts())?;
    create_gateway_secrets(&layout)?;
    issue_system_credentials(&layout, &keys)?;
    for org in &config.orgs {
        create_org(&layout, &keys, &config, &org.name)?;
    }
    config.save(&layout)?;
    Ok(())
}

/// Adds an org to a server, running or not.
///
/// # Errors
/// When there is one of this name, or the running server does not take it.
pub async fn add_org(args: &OrgAddArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&args.dir);
    let mut config = ServerConfig::load(&layout)?;
    if config.orgs.iter().any(|org| org.name == args.name) {
        bail!("the server has an organisation `{}` already", args.name);
    }
    let keys = open_keys(&layout, &config)?;
    create_org(&layout, &keys, &config, &args.name)?;
    // A running nats-server is told now; one that does not run finds the
    // accounts when the relay starts it.
    if relay_runs(&layout) {
        let login = nats::Login {
            name: "sotto-gateway org add",
            credentials: &layout.system_creds(),
            inbox_prefix: SYSTEM_INBOX,
        };
        let system = nats::connect(&layout, &config, login).await?;
        for account in keys.account_jwts(&args.name)? {
            push_account(&system, &account).await?;
        }
    }
    config.orgs.push(org_config((&args.name, &args.project)));
    config.save(&layout)?;
    Ok(())
}

/// The key store of a server.
///
/// # Errors
/// When a file is missing, exposed or damaged.
pub fn open_keys(layout: &Layout, config: &ServerConfig) -> Result<KeyStore, KeyStoreError> {
    let keys = KeyStore::open(&layout.accounts())?;
    Ok(keys.with_passphrase_file(config.keys.passphrase_file.clone()))
}

/// The key that signs grants and the directory.
///
/// # Errors
/// When the file does not read.
pub fn read_gateway_key(layout: &Layout) -> anyhow::Result<SigningKey> {
    let path = layout.gateway_key();
    let text = Zeroizing::new(private_files::read_text(&path, FILE_MAX)?);
    let seed = HEXLOWER.decode(text.trim().as_bytes()).map(Zeroizing::new);
    let seed = seed.ok().and_then(|seed| {
        let seed: Result<[u8; 32], _> = seed.as_slice().try_into();
        seed.ok().map(Zeroizing::new)
    });
    let seed = seed.with_context(|| {
        let path = path.display();
        format!("{path} does not hold a key: restore the `gateway` folder from a backup")
    })?;
    Ok(SigningKey::from_bytes(&seed))
}

/// OPAQUE's keys.
///
/// # Errors
/// When the file does not read.
pub fn read_passwords(layout: &Layout) -> anyhow::Result<Passwords> {
    let text = private_files::read_text(&layout.opaque_setup(), FILE_MAX)?;
    Ok(Passwords::from_text(&Zeroizing::new(text))?)
}

/// The server's key store, under a new operator or an adopted one. It makes its
/// folder itself, whole or not at all; one that an interrupted `init` made is
/// taken.
fn operator_keys(
    layout: &Layout,
    adopted: Option<&NscStore>,
    now_ms: i64,
) -> anyhow::Result<KeyStore> {
    let path = layout.accounts();
    let keys = match adopted {
        _ if path.exists() => KeyStore::open(&path)?,
        Some(store) => KeyStore::create_from_nsc(&path, store, now_ms)?,
        None => KeyStore::create(&path, now_ms)?,
    };
    if let Some(store) = adopted {
        ensure!(
            keys.operator_id() == store.operator.id,
            "{} has the keys of another operator: remove that folder, or leave out --nsc",
            path.display()
        );
    }
    Ok(keys)
}

fn create_gateway_secrets(layout: &Layout) -> anyhow::Result<()> {
    let key = SigningKey::generate(&mut OsRng);
    let seed = Zeroizing::new(HEXLOWER.encode(key.as_bytes()));
    private_files::write(&layout.gateway_key(), seed.as_bytes())?;
    let public = HEXLOWER.encode(key.verifying_key().as_bytes());
    private_files::write(&layout.gateway_public_key(), public.as_bytes())?;
    let setup = Passwords::generate(&mut OsRng).to_text();
    private_files::write(&layout.opaque_setup(), setup.as_bytes())?;
    Ok(())
}

/// The org's account and the credentials of its relay and gateway.
fn create_org(
    layout: &Layout,
    keys: &KeyStore,
    config: &ServerConfig,
    org: &OrgName,
) -> anyhow::Result<()> {
    let now_ms = SystemClock.now_ms();
    if !keys.orgs()?.contains(org) {
        keys.add_org(org, services(config), now_ms)?;
    }
    issue_credentials(layout, keys, org)
}

/// What the relays and gateways of every org are there for.
pub fn services(config: &ServerConfig) -> Services<'static> {
    Services {
        shards: config.shards.get(),
        buckets: BUCKETS,
    }
}

/// New credentials in the system account, by the signing keys in use.
///
/// # Errors
/// When the keys do not read, or a file cannot be written.
pub fn issue_system_credentials(layout: &Layout, keys: &KeyStore) -> anyhow::Result<()> {
    let now_ms = SystemClock.now_ms();
    let admin = keys.system_credentials(now_ms)?;
    private_files::write(&layout.system_creds(), admin.expose().as_bytes())?;
    let gateway = keys.gateway_system_credentials(now_ms)?;
    let path = layout.gateway_system_creds();
    private_files::write(&path, gateway.expose().as_bytes())?;
    Ok(())
}

/// New credentials of the relay and the gateway of an org, by the signing keys
/// in use.
///
/// # Errors
/// When the keys do not read, or a file cannot be written.
pub fn issue_credentials(layout: &Layout, keys: &KeyStore, org: &OrgName) -> anyhow::Result<()> {
    let now_ms = SystemClock.now_ms();
    let signer = keys.account_signer(org)?;
    let relay = signer.relay(now_ms)?;
    private_files::write(&layout.relay_creds(org), relay.expose().as_bytes())?;
    let answering = signer.relay_of_devices()?;
    private_files::write(
        &layout.relay_devices_creds(org),
        answering.expose().as_bytes(),
    )?;
    let gateway = signer.gateway(now_ms)?;
    private_files::write(&layout.gateway_creds(org), gateway.expose().as_bytes())?;
    Ok(())
}

/// Whether the process that announced itself as the relay is still there.
pub(crate) fn relay_runs(layout: &Layout) -> bool {
    Ready::read(&layout.relay_ready())
        .is_some_and(|ready| Path::new("/proc").join(ready.pid.to_string()).exists())
}

fn org_config((name, project): (&OrgName, &ProjectName)) -> OrgConfig {
    OrgConfig {
        name: name.clone(),
        project: project.clone(),
        limits: LimitsConfig::default(),
    }
}
