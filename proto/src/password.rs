//! The OPAQUE suite (RFC 9807) by which a user's password is proven without
//! the server ever seeing it. Client and gateway must agree on every byte of
//! it, so every choice stands here; changing one locks every user out.

use opaque_ke::{CipherSuite, Ristretto255, TripleDh};
use sha2::Sha512;

use crate::{OrgName, UserName};

/// Ristretto255, triple Diffie-Hellman with SHA-512, Argon2id with the
/// parameters that its crate calls default (19 MiB, 2 passes, 1 lane).
#[derive(Debug, Clone, Copy)]
pub struct PasswordSuite;

impl CipherSuite for PasswordSuite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, Sha512>;
    type Ksf = argon2::Argon2<'static>;
}

/// The application context that both sides of a login name. No identities are
/// passed to OPAQUE besides it and the [`credential_identifier`].
pub const CONTEXT: &[u8] = b"sotto v1";

/// What the gateway derives a user's OPRF key from.
pub fn credential_identifier(org: &OrgName, user: &UserName) -> Vec<u8> {
    format!("{org}/{user}").into_bytes()
}

#[cfg(test)]
mod tests {
    use opaque_ke::{
        ClientLogin, ClientLoginFinishParameters, ClientRegistration,
        ClientRegistrationFinishParameters, ServerLogin, ServerLoginParameters, ServerRegistration,
        ServerSetup,
    };
    use rand::rngs::OsRng;

    use super::*;

    type Suite = PasswordSuite;

    fn context() -> ServerLoginParameters<'static, 'static> {
        ServerLoginParameters {
            context: Some(CONTEXT),
            ..Default::default()
        }
    }

    /// Signs up with one password, logs in with another; the export keys.
    fn export_keys(signup: &[u8], login: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let setup = ServerSetup::<Suite>::new(&mut OsRng);
        let id = credential_identifier(&"acme".parse().unwrap(), &"alice".parse().unwrap());

        let start = ClientRegistration::<Suite>::start(&mut OsRng, signup).unwrap();
        let answer = ServerRegistration::start(&setup, start.message, &id).unwrap();
        let client = ClientRegistrationFinishParameters::default();
        let finish = start
            .state
            .finish(&mut OsRng, signup, answer.message, client)
            .unwrap();
        let record = ServerRegistration::finish(finish.message);

        let start = ClientLogin::<Suite>::start(&mut OsRng, login).unwrap();
        let answer = ServerLogin::start(
            &mut OsRng,
            &setup,
            Some(record),
            start.message,
            &id,
            context(),
        )
        .unwrap();
        let parameters = ClientLoginFinishParameters::new(
            Some(CONTEXT),
            opaque_ke::Identifiers::default(),
            None,
        );
        let logged_in = start
            .state
            .finish(&mut OsRng, login, answer.message, parameters)
            .ok()?;
        answer.state.finish(logged_in.message, context()).unwrap();
        Some((finish.export_key.to_vec(), logged_in.export_key.to_vec()))
    }

    #[test]
    fn the_password_gives_the_same_export_key_again() {
        let (signup, login) = export_keys(b"correct horse", b"correct horse").unwrap();
        assert_eq!(signup, login);
    }

    #[test]
    fn another_password_gives_nothing() {
        assert_eq!(export_keys(b"correct horse", b"correct horsf"), None);
    }

    #[test]
    fn users_have_distinct_identifiers() {
        let id = |org: &str, user: &str| {
            credential_identifier(&org.parse().unwrap(), &user.parse().unwrap())
        };
        assert_eq!(id("acme", "alice"), b"acme/alice");
        assert_ne!(id("a", "cme"), id("ac", "me"));
    }
}
