//! The cluster's own certificate authority, and the TLS between nodes. It is
//! another than the one that clients know the server by: what it signs opens
//! routes between nats-servers and what nodes ask of each other.

use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::DefaultTimeProvider;
use rustls::version::TLS13;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::Layout;
use crate::private_files;
use crate::tls::{self, PEM_MAX, TlsError};

/// By this name a node knows one that keeps the keys, wherever it is.
pub const KEEPER: &str = "keys.cluster.sotto.internal";
/// And by this one any node.
pub const NODE: &str = "node.cluster.sotto.internal";

/// The key of a node that is made: it never leaves the node.
pub struct NodeKey(KeyPair);

/// A node's public key with the certificate that it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedKey {
    /// The certificate, PEM.
    pub certificate: String,
    /// SHA-256 of its DER, 64 hexadecimal digits.
    pub fingerprint: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo, the same way.
    pub key: String,
}

impl NodeKey {
    /// Draws one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, TlsError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// The public half, PEM.
    pub fn public(&self) -> String {
        self.0.public_key_pem()
    }

    /// Writes the private half to `path`, PEM, durably.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TlsError> {
        let key = Zeroizing::new(self.0.serialize_pem());
        Ok(private_files::write(path, key.as_bytes())?)
    }
}

/// Makes the authority of a new cluster.
///
/// # Errors
/// When the files cannot be written.
pub fn create_authority(layout: &Layout, server_name: &str) -> Result<(), TlsError> {
    let mut params = tls::params(format!("Sotto cluster of {server_name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = Zeroizing::new(authority.key().serialize_pem());
    private_files::write(&layout.cluster_authority_key(), key.as_bytes())?;
    private_files::write(&layout.cluster_authority(), authority.pem().as_bytes())?;
    Ok(())
}

/// Makes the key and the certificate of the cluster's first node.
///
/// # Errors
/// When the authority does not read, or a file cannot be written.
pub fn issue_own(layout: &Layout, host: &str) -> Result<AdmittedKey, TlsError> {
    let key = NodeKey::generate()?;
    let admitted = admit(layout, &key.public(), host, true)?;
    key.save(&layout.node_key())?;
    private_files::write(&layout.node_certificate(), admitted.certificate.as_bytes())?;
    Ok(admitted)
}

/// Gives a node's public key, PEM, a certificate for the host by which the
/// other nodes reach it.
///
/// # Errors
/// When the authority's key is not here, or the public key is none.
pub fn admit(
    layout: &Layout,
    public_key: &str,
    host: &str,
    keeps_keys: bool,
) -> Result<AdmittedKey, TlsError> {
    let public_key = SubjectPublicKeyInfo::from_pem(public_key)?;
    let issuer = issuer(&layout.cluster_authority(), &layout.cluster_authority_key())?;
    let mut hosts = vec![host.to_owned(), NODE.to_owned()];
    if keeps_keys {
        hosts.push(KEEPER.to_owned());
    }
    let mut params = tls::params("Sotto node".to_owned());
    params.subject_alt_names = CertificateParams::new(hosts)?.subject_alt_names;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&public_key, &issuer)?;
    Ok(AdmittedKey {
        fingerprint: fingerprint(certificate.der()),
        key: HEXLOWER.encode(&Sha256::digest(public_key.subject_public_key_info())),
        certificate: certificate.pem(),
    })
}

/// What a relay offers to other nodes: TLS 1.3; who has a certificate of the
/// cluster may show it.
///
/// # Errors
/// When the cluster's files do not read.
pub fn server_config(layout: &Layout) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(sotto_tls::provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(layout)?),
        Arc::clone(&provider),
    )
    .allow_unauthenticated()
    .build()
    .map_err(|error| TlsError::Unusable(rustls::Error::General(error.to_string())))?;
    let (mut chain, key) = own(layout)?;
    // Who joins knows the authority by its fingerprint only.
    chain.push(certificate(&layout.cluster_authority())?);
    Ok(rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?)
}

/// What a node demands of the one that keeps the keys, and shows to it.
/// Connect with the name [`KEEPER`].
///
/// # Errors
/// When the cluster's files do not read.
pub fn client_config(layout: &Layout) -> Result<rustls::ClientConfig, TlsError> {
    let (chain, key) = own(layout)?;
    Ok(
        rustls::ClientConfig::builder_with_provider(Arc::new(sotto_tls::provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots(layout)?)
            .with_client_auth_cert(chain, key)?,
    )
}

/// What a node that joins demands: that the chain ends in the authority with
/// this SHA-256 fingerprint.
///
/// # Errors
/// Never with the provider of this build.
pub fn joining_config(authority: [u8; 32]) -> Result<rustls::ClientConfig, TlsError> {
    Ok(sotto_tls::pinned_client(
        authority,
        Arc::new(DefaultTimeProvider),
    )?)
}

/// SHA-256 of a DER certificate, 64 hexadecimal digits.
pub fn fingerprint(certificate: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(certificate))
}

/// SHA-256 of the authority's certificate.
///
/// # Errors
/// When the file does not read.
pub fn authority_fingerprint(layout: &Layout) -> Result<[u8; 32], TlsError> {
    Ok(Sha256::digest(certificate(&layout.cluster_authority())?).into())
}

fn issuer(certificate: &Path, key: &Path) -> Result<Issuer<'static, KeyPair>, TlsError> {
    let certificate = private_files::read_text(certificate, PEM_MAX)?;
    let key = Zeroizing::new(private_files::read_text(key, PEM_MAX)?);
    Ok(Issuer::from_ca_cert_pem(
        &certificate,
        KeyPair::from_pem(&key)?,
    )?)
}

fn own(
    layout: &Layout,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let path = layout.node_key();
    let key = Zeroizing::new(private_files::read_text(&path, PEM_MAX)?);
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| TlsError::Pem(path.display().to_string()))?;
    Ok((vec![certificate(&layout.node_certificate())?], key))
}

fn roots(layout: &Layout) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&layout.cluster_authority())?)?;
    Ok(roots)
}

fn certificate(path: &Path) -> Result<CertificateDer<'static>, TlsError> {
    let pem = private_files::read_text(path, PEM_MAX)?;
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| TlsError::Pem(path.display().to_string()))
}
