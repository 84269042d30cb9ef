//! A server that is known by nothing but the fingerprint of its authority: the
//! org that an invitation names, or the node that another one joins. No public
//! authority is asked or trusted.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest, Sha256};

/// TLS 1.3 to a server whose chain ends in the authority with this SHA-256
/// fingerprint. The chain must hold that authority's certificate.
///
/// # Errors
/// When the provider lacks TLS 1.3, which it does not.
pub fn pinned_client(
    authority: [u8; 32],
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(crate::provider());
    let verifier = PinnedAuthority {
        fingerprint: authority,
        provider: Arc::clone(&provider),
    };
    Ok(ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Finds the pinned authority in the chain that the server sends, and lets
/// webpki decide everything else with it as the only root.
#[derive(Debug)]
struct PinnedAuthority {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Sha256::digest(certificate).as_slice() == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::time_provider::DefaultTimeProvider;
    use rustls::{ClientConnection, NamedGroup, ServerConfig, ServerConnection};

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn fingerprint(authority: &Authority) -> [u8; 32] {
        Sha256::digest(authority.der()).into()
    }

    /// A server that `signer` has certified, and that shows `shown` behind its
    /// certificate.
    fn server(signer: &Authority, shown: &[&Authority]) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let own = params.signed_by(&key, signer).unwrap();
        let chain = std::iter::once(own.der().clone())
            .chain(shown.iter().map(|authority| authority.der().clone()));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(crate::provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key)
            .unwrap()
    }

    #[derive(Debug)]
    struct At(u64);

    impl TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
        }
    }

    /// A handshake in memory: the key exchange, or what the client says of it.
    fn meet(
        client: ClientConfig,
        server: ServerConfig,
        name: &'static str,
    ) -> Result<NamedGroup, Error> {
        let mut client = ClientConnection::new(Arc::new(client), name.try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
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
        Ok(client.negotiated_key_exchange_group().unwrap().name())
    }

    fn pinned(authority: &Authority) -> ClientConfig {
        pinned_client(fingerprint(authority), Arc::new(DefaultTimeProvider)).unwrap()
    }

    #[test]
    fn the_authority_s_server_is_taken_with_a_hybrid_key_exchange() {
        let (ours, other) = (authority(), authority());
        for shown in [&[&ours][..], &[&other, &ours]] {
            let group = meet(pinned(&ours), server(&ours, shown), "localhost");
            assert_eq!(group, Ok(NamedGroup::X25519MLKEM768));
        }
    }

    #[test]
    fn whoever_else_answers_is_refused() {
        let (ours, other) = (authority(), authority());
        let refused = |met| matches!(met, Err(Error::InvalidCertificate(_)));
        for (signer, shown) in [
            (&other, &[&other][..]),
            // Shows our authority, which has not signed it.
            (&other, &[&ours]),
            // Does not show who has signed it.
            (&ours, &[]),
        ] {
            let met = meet(pinned(&ours), server(signer, shown), "localhost");
            assert!(refused(met));
        }
        let elsewhere = meet(pinned(&ours), server(&ours, &[&ours]), "elsewhere");
        assert!(refused(elsewhere));
    }

    #[test]
    fn a_certificate_counts_as_long_as_the_given_clock_says() {
        let ours = authority();
        for (seconds, expected) in [(0, false), (1_800_000_000, true), (100_000_000_000, false)] {
            let client = pinned_client(fingerprint(&ours), Arc::new(At(seconds))).unwrap();
            let met = meet(client, server(&ours, &[&ours]), "localhost");
            assert_eq!(met.is_ok(), expected, "{seconds}: {met:?}");
        }
    }
}
