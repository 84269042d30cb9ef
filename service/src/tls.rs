//! TLS 1.3 with a post-quantum key exchange, under the server's own
//! certificate authority. No public authority is asked or trusted: clients
//! recognise the server by the fingerprint in the link they were given.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SubjectPublicKeyInfo,
};
use rustls::RootCertStore;
use rustls::version::TLS13;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use sotto_tls::provider;
use zeroize::Zeroizing;

use crate::Layout;
use crate::private_files::{self, FileError};

pub use sotto_tls::install_provider;

/// Longest PEM file that is read, in bytes.
pub(crate) const PEM_MAX: u64 = 64 * 1024;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Certificates are valid from a day ago, for machines whose clock is behind.
const BACKDATED: Duration = DAY;
const VALIDITY: Duration = Duration::from_secs(3_650 * 24 * 3_600);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the `tls` folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate cannot be made, for instance for such a host name.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file of the `tls` folder does not hold what it should.
    #[error("{0} does not hold the expected PEM: restore the `tls` folder from a backup")]
    Pem(String),
    /// The certificate and the key cannot be used.
    #[error("the server's certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Makes the certificate authority of a new server: `ca.pem` and `ca.key`.
///
/// # Errors
/// When the files cannot be written.
pub fn create_authority(layout: &Layout, server_name: &str) -> Result<(), TlsError> {
    let mut params = params(format!("Sotto authority of {server_name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = Zeroizing::new(authority.key().serialize_pem());
    private_files::write(&layout.authority_key(), key.as_bytes())?;
    private_files::write(&layout.authority(), authority.pem().as_bytes())?;
    Ok(())
}

/// Issues the server's certificate for these host names and IP addresses:
/// `server.pem`, with the authority's behind it, and `server.key`.
///
/// # Errors
/// When the authority is missing or a host is not one.
pub fn issue_server_certificate(layout: &Layout, hosts: &[String]) -> Result<(), TlsError> {
    let key = KeyPair::generate()?;
    let chain = sign_server_certificate(layout, &key, hosts)?;
    let key = Zeroizing::new(key.serialize_pem());
    private_files::write(&layout.server_key(), key.as_bytes())?;
    private_files::write(&layout.server_certificate(), chain.as_bytes())?;
    Ok(())
}

/// As [`issue_server_certificate`], for the public key, PEM, of another
/// machine: the certificate with the authority's behind it, PEM.
///
/// # Errors
/// When the authority is missing, the key is none or a host is not one.
pub fn certify_server(
    layout: &Layout,
    public_key: &str,
    hosts: &[String],
) -> Result<String, TlsError> {
    sign_server_certificate(layout, &SubjectPublicKeyInfo::from_pem(public_key)?, hosts)
}

fn sign_server_certificate(
    layout: &Layout,
    public_key: &impl PublicKeyData,
    hosts: &[String],
) -> Result<String, TlsError> {
    let authority = private_files::read_text(&layout.authority(), PEM_MAX)?;
    let authority_key = secret(&layout.authority_key())?;
    let issuer = Issuer::from_ca_cert_pem(&authority, KeyPair::from_pem(&authority_key)?)?;
    let mut params = params("Sotto server".to_owned());
    params.subject_alt_names = CertificateParams::new(hosts)?.subject_alt_names;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params.signed_by(public_key, &issuer)?.pem() + &authority)
}

/// SHA-256 of the authority's DER certificate: `GatewayAddress::authority`.
///
/// # Errors
/// When `ca.pem` does not read.
pub fn authority_fingerprint(layout: &Layout) -> Result<[u8; 32], TlsError> {
    Ok(Sha256::digest(authority(layout)?).into())
}

/// What a listener of this server offers: TLS 1.3, HTTP/2 and HTTP/1.1.
///
/// # Errors
/// When the certificate or its key does not read.
pub fn server_config(layout: &Layout) -> Result<rustls::ServerConfig, TlsError> {
    let path = layout.server_certificate();
    let damaged = || TlsError::Pem(path.display().to_string());
    let chain = private_files::read_text(&path, PEM_MAX)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| damaged())?;
    let key_path = layout.server_key();
    let key = secret(&key_path)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| TlsError::Pem(key_path.display().to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What a process of this server demands of the others: TLS 1.3 and a
/// certificate by this server's own authority.
///
/// # Errors
/// When `ca.pem` does not read.
pub fn client_config(layout: &Layout) -> Result<rustls::ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority(layout)?)?;
    Ok(
        rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

fn secret(path: &Path) -> Result<Zeroizing<String>, FileError> {
    private_files::read_text(path, PEM_MAX).map(Zeroizing::new)
}

fn authority(layout: &Layout) -> Result<CertificateDer<'static>, TlsError> {
    let path = layout.authority();
    let pem = private_files::read_text(&path, PEM_MAX)?;
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| TlsError::Pem(path.display().to_string()))
}

pub(crate) fn params(common_name: String) -> CertificateParams {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name;
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + VALIDITY).into();
    params
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, NamedGroup, ProtocolVersion, ServerConnection};

    use super::*;

    fn layout(hosts: &[&str]) -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create().unwrap();
        create_authority(&layout, "test").unwrap();
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        issue_server_certificate(&layout, &hosts).unwrap();
        (folder, layout)
    }

    /// A handshake in memory; the client's view of it.
    fn handshake(
        client: rustls::ClientConfig,
        server: rustls::ServerConfig,
        host: &'static str,
    ) -> Result<ClientConnection, rustls::Error> {
        let host = host.try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(client), host).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = wire.as_slice();
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok(client)
    }

    #[test]
    fn our_own_meet_on_tls_13_with_a_hybrid_key_exchange() {
        let (_folder, layout) = layout(&["localhost", "127.0.0.1", "chat.example"]);
        for host in ["localhost", "127.0.0.1", "chat.example"] {
            let (client, server) = (client_config(&layout), server_config(&layout));
            let client = handshake(client.unwrap(), server.unwrap(), host).unwrap();
            assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            let group = client.negotiated_key_exchange_group().unwrap().name();
            assert_eq!(group, NamedGroup::X25519MLKEM768);
            let chain = client.peer_certificates().unwrap();
            let fingerprint: [u8; 32] = Sha256::digest(&chain[1]).into();
            assert_eq!(fingerprint, authority_fingerprint(&layout).unwrap());
        }
    }

    #[test]
    fn another_authority_or_host_is_refused() {
        let (_folder, ours) = layout(&["localhost"]);
        let (_folder, other) = layout(&["localhost"]);
        let (client, server) = (client_config(&other), server_config(&ours));
        assert!(handshake(client.unwrap(), server.unwrap(), "localhost").is_err());
        let (client, server) = (client_config(&ours), server_config(&ours));
        assert!(handshake(client.unwrap(), server.unwrap(), "elsewhere").is_err());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let (_folder, layout) = layout(&["localhost"]);
        std::fs::write(layout.server_key(), "nonsense").unwrap();
        let error = server_config(&layout).unwrap_err().to_string();
        assert!(error.contains("server.key"), "{error}");
    }
}
