//! A real slapd of one test, on this machine, with a certificate authority of
//! its own.

use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sotto_faults::ports;
use sotto_ldap::Mapping;

const PATIENCE: Duration = Duration::from_secs(20);
pub const SUFFIX: &str = "dc=example,dc=org";
pub const ADMIN: &str = "cn=admin,dc=example,dc=org";
pub const PASSWORD: &str = "not a secret";

/// A certificate authority, and a certificate of it for a server.
pub struct Tls {
    pub ca_pem: String,
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

impl Tls {
    pub fn of(host: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        Self {
            ca_pem: authority.pem(),
            certificate,
            key,
        }
    }
}

pub struct Slapd {
    process: Child,
    folder: tempfile::TempDir,
    ldap: u16,
    ldaps: u16,
}

impl Slapd {
    /// Starts one that holds this LDIF; `settings` are lines of its database's
    /// configuration.
    pub fn start(settings: &str, ldif: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let tls = Tls::of("localhost");
        fs::write(path("ca.pem"), &tls.ca_pem).unwrap();
        fs::write(path("server.pem"), tls.certificate.pem()).unwrap();
        fs::write(path("server.key"), tls.key.serialize_pem()).unwrap();
        fs::create_dir(path("database")).unwrap();
        fs::write(path("slapd.conf"), configuration(folder.path(), settings)).unwrap();
        if !ldif.is_empty() {
            fs::write(path("start.ldif"), ldif).unwrap();
            add_offline(folder.path(), &path("start.ldif")).unwrap();
        }
        let [ldap, ldaps] = [(); 2].map(|()| ports::free().unwrap().port());
        let process = program("usr/sbin/slapd")
            .args(["-d", "0", "-h"])
            .arg(format!("ldap://localhost:{ldap} ldaps://localhost:{ldaps}"))
            .arg("-f")
            .arg(path("slapd.conf"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let slapd = Self {
            process,
            folder,
            ldap,
            ldaps,
        };
        slapd.await_ready();
        slapd
    }

    /// A mapping of its users and groups, in `[users]` and `[groups]` as in the
    /// documentation, with `rules` behind; `page_size` 100.
    pub fn mapping(&self, rules: &str) -> Mapping {
        let url = format!("ldaps://localhost:{}", self.ldaps);
        Mapping::parse(&self.mapping_text(&url, &self.authority(), rules)).unwrap()
    }

    pub fn start_tls_url(&self) -> String {
        format!("ldap://localhost:{}", self.ldap)
    }

    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn mapping_text(&self, url: &str, ca_file: &Path, rules: &str) -> String {
        mapping_text(url, ca_file, &format!("bind_dn = \"{ADMIN}\""), rules)
    }

    /// Runs ldapadd, or ldapmodify when the LDIF says what to change.
    pub fn modify(&self, ldif: &str) -> Result<(), String> {
        let path = self.folder.path().join("change.ldif");
        fs::write(&path, ldif).unwrap();
        let changes = ldif.lines().any(|line| line.starts_with("changetype:"));
        let tool = if changes { "ldapmodify" } else { "ldapadd" };
        run(program(&format!("usr/bin/{tool}"))
            .args(["-x", "-H"])
            .arg(self.start_tls_url())
            .args(["-D", ADMIN, "-w", PASSWORD, "-f"])
            .arg(path))
    }

    fn await_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("localhost", self.ldaps)).is_err() {
            assert!(Instant::now() < deadline, "slapd does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A mapping file for whatever server, in the form of [`Slapd::mapping`].
pub fn mapping_text(url: &str, ca_file: &Path, login: &str, rules: &str) -> String {
    format!(
        r#"
        [server]
        url = "{url}"
        ca_file = "{ca_file}"
        page_size = 100
        {login}
        [users]
        base = "ou=people,{SUFFIX}"
        filter = "(objectClass=inetOrgPerson)"
        name = "uid"
        title = "displayName"
        id = "entryUUID"
        [groups]
        base = "ou=groups,{SUFFIX}"
        filter = "(objectClass=groupOfNames)"
        name = "cn"
        title = "description"
        id = "entryUUID"
        member = "member"
        {rules}
        "#,
        ca_file = ca_file.display()
    )
}

/// Loads LDIF into an empty database by slapadd, which checks it as the server
/// would.
pub fn slapadd(ldif: &Path, suffix: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("database")).unwrap();
    // The configuration takes one level of backslashes away.
    let suffix = suffix.replace('\\', "\\\\");
    let configuration = configuration(folder.path(), "").replace(SUFFIX, &suffix);
    let without_tls: Vec<&str> = configuration
        .lines()
        .filter(|line| !line.starts_with("TLS"))
        .collect();
    fs::write(folder.path().join("slapd.conf"), without_tls.join("\n")).unwrap();
    add_offline(folder.path(), ldif)
}

fn add_offline(folder: &Path, ldif: &Path) -> Result<(), String> {
    run(program("usr/sbin/slapadd")
        .arg("-f")
        .arg(folder.join("slapd.conf"))
        .arg("-l")
        .arg(ldif))
}

fn configuration(folder: &Path, settings: &str) -> String {
    format!(
        "include {root}/etc/ldap/schema/core.schema\n\
         include {root}/etc/ldap/schema/cosine.schema\n\
         include {root}/etc/ldap/schema/inetorgperson.schema\n\
         modulepath {root}/usr/lib/ldap\n\
         moduleload back_mdb\n\
         TLSCACertificateFile {folder}/ca.pem\n\
         TLSCertificateFile {folder}/server.pem\n\
         TLSCertificateKeyFile {folder}/server.key\n\
         database mdb\n\
         suffix \"{SUFFIX}\"\n\
         rootdn \"{ADMIN}\"\n\
         rootpw \"{PASSWORD}\"\n\
         directory {folder}/database\n\
         dbnosync\n\
         {settings}\n",
        root = root().display(),
        folder = folder.display(),
    )
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let [out, err] = [output.stdout, output.stderr];
    Err(String::from_utf8_lossy(&[out, err].concat()).into_owned())
}

/// Where slapd's files are: unpacked by `cargo xtask setup`, or installed.
fn root() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/slapd");
    match std::env::var_os("SOTTO_SLAPD_ROOT") {
        Some(root) => root.into(),
        None if unpacked.exists() => unpacked,
        None => "/".into(),
    }
}

fn program(name: &str) -> Command {
    let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"];
    let libraries: OsString =
        std::env::join_paths(libraries.map(|path| root().join(path))).unwrap();
    let mut command = Command::new(root().join(name));
    command.env("LD_LIBRARY_PATH", libraries);
    command
}

/// The base entries, and this many people and groups: person `n` is in group
/// `n % groups` and, when `n` is even, below `ou=research`.
pub fn organisation(people: usize, groups: usize) -> String {
    let mut ldif = format!(
        "dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\n\
         dc: example\no: Example\n\n"
    );
    for ou in ["people", "groups"] {
        ldif += &format!("dn: ou={ou},{SUFFIX}\nobjectClass: organizationalUnit\nou: {ou}\n\n");
    }
    ldif += &format!(
        "dn: ou=research,ou=people,{SUFFIX}\nobjectClass: organizationalUnit\nou: research\n\n"
    );
    for n in 0..people {
        ldif += &person(n);
    }
    for group in 0..groups {
        ldif += &format!(
            "dn: cn=group-{group},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\n\
             cn: group-{group}\ndescription: The group {group}\n"
        );
        for n in (group..people).step_by(groups) {
            ldif += &format!("member: {}\n", person_dn(n));
        }
        ldif += "\n";
    }
    ldif
}

pub fn person(n: usize) -> String {
    format!(
        "dn: {}\nobjectClass: inetOrgPerson\nuid: person-{n}\ncn: Person {n}\nsn: {n}\n\
         displayName: Person {n}\n\n",
        person_dn(n)
    )
}

pub fn person_dn(n: usize) -> String {
    let research = if n.is_multiple_of(2) {
        "ou=research,"
    } else {
        ""
    };
    format!("uid=person-{n},{research}ou=people,{SUFFIX}")
}
