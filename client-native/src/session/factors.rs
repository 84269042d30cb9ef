//! Factors beyond holding a device: what is enrolled, and proving it. A proof
//! may open rooms, so new grants are asked for after each.

use bytes::Bytes;
use rand::rngs::OsRng;
use sotto_client_core::account::AccountError;
use sotto_client_core::io::Timestamp;
use sotto_client_core::login;
use sotto_proto::wire;
use zeroize::Zeroizing;

use super::{CommandError, Session};
use crate::gateway::GatewayError;

/// How long one call may wait for a browser, in ms.
const CEREMONY_WAIT_MS: u32 = 20_000;

/// A TOTP generator that the gateway has drawn and that no code has confirmed yet.
pub struct TotpEnrolment {
    /// Which, for [`Session::prove_totp`] and [`Session::remove_factor`]; 16 bytes.
    pub id: Bytes,
    /// `otpauth://…`, for the generator: a secret.
    pub url: Zeroizing<String>,
}

/// Why a factor was not proven.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The gateway, or the way to it.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The password, or what the gateway says about it.
    #[error(transparent)]
    Password(#[from] AccountError),
    /// The session has ended.
    #[error(transparent)]
    Session(#[from] CommandError),
}

impl Session {
    /// What this user has enrolled, and what is proven on this device.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn factors(&self) -> Result<Vec<wire::FactorStanding>, GatewayError> {
        Ok(self.call(&wire::FactorsRequest {}).await?.factors)
    }

    /// Begins to enrol a TOTP generator; [`Session::prove_totp`] with its id
    /// and its first code completes that.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn enrol_totp(&self) -> Result<TotpEnrolment, GatewayError> {
        let wire::TotpEnrolled { id, url } = self.call(&wire::TotpEnrol {}).await?;
        let url = Zeroizing::new(url);
        Ok(TotpEnrolment { id, url })
    }

    /// Proves a generator by a code of it, on this device: the one with `id`,
    /// or any that is enrolled. When that was, by the gateway's clock.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn prove_totp(
        &self,
        code: &str,
        id: Option<Bytes>,
    ) -> Result<Timestamp, GatewayError> {
        let request = wire::TotpProve {
            code: code.to_owned(),
            id: id.unwrap_or_default(),
        };
        let proven = self.call(&request).await?;
        self.refresh_grants().await;
        Ok(Timestamp(proven.proven_ms))
    }

    /// Begins to enrol a telephone number, to which a code is sent;
    /// [`Session::prove_sms`] with its id and that code completes that.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn enrol_sms(&self, number: &str) -> Result<wire::SmsSent, GatewayError> {
        let number = number.to_owned();
        self.call(&wire::SmsEnrol { number }).await
    }

    /// Has a code sent to the number with `id`, or to the newest that is
    /// enrolled.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn send_sms(&self, id: Option<Bytes>) -> Result<wire::SmsSent, GatewayError> {
        let id = id.unwrap_or_default();
        self.call(&wire::SmsSend { id }).await
    }

    /// Proves a number by the code that was sent to it, on this device. When
    /// that was, by the gateway's clock.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn prove_sms(
        &self,
        code: &str,
        id: Option<Bytes>,
    ) -> Result<Timestamp, GatewayError> {
        let request = wire::SmsProve {
            code: code.to_owned(),
            id: id.unwrap_or_default(),
        };
        let proven = self.call(&request).await?;
        self.refresh_grants().await;
        Ok(Timestamp(proven.proven_ms))
    }

    /// Proves the user's password, on this device, without sending it. When
    /// that was, by the gateway's clock.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn prove_password(&self, password: &str) -> Result<Timestamp, ProveError> {
        let (gateway, user) = self
            .look(|engine, _| {
                let account = engine.account();
                (account.gateway.clone(), account.user.clone())
            })
            .await?;
        let (starting, request) = login::start(&gateway, user, password, &mut OsRng)?;
        let opaque_request = request.opaque_request;
        let started = self
            .call(&wire::PasswordProveStart { opaque_request })
            .await?;
        // Argon2 takes a moment, and memory.
        let proof = tokio::task::block_in_place(|| starting.prove(&started, &mut OsRng))?;
        let proven = self.call(&proof).await?;
        self.refresh_grants().await;
        Ok(Timestamp(proven.proven_ms))
    }

    /// Begins a ceremony that enrols a passkey or security key called `enrol`,
    /// or proves one: with [`wire::Factor::Webauthn`] in a browser, at the URL
    /// of the answer, with [`wire::Factor::Fido2`] here.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn begin_ceremony(
        &self,
        factor: wire::Factor,
        enrol: Option<String>,
    ) -> Result<wire::CeremonyBegun, GatewayError> {
        let request = wire::CeremonyBegin {
            factor: factor.into(),
            enrol,
        };
        self.call(&request).await
    }

    /// Waits until a browser has gone on with a ceremony, for some seconds at
    /// most: how far it is.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn ceremony(&self, ticket: Bytes) -> Result<wire::CeremonyStanding, GatewayError> {
        let request = wire::CeremonyWait {
            ticket,
            wait_ms: CEREMONY_WAIT_MS,
        };
        let standing = self.call(&request).await?;
        if standing.proven_ms != 0 {
            self.refresh_grants().await;
        }
        Ok(standing)
    }

    /// Ends a ceremony with what a security key has answered here. When that
    /// was, by the gateway's clock.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn finish_ceremony(
        &self,
        ticket: Bytes,
        credential: Bytes,
    ) -> Result<Timestamp, GatewayError> {
        let request = wire::CeremonyFinish { ticket, credential };
        let proven = self.call(&request).await?;
        self.refresh_grants().await;
        Ok(Timestamp(proven.proven_ms))
    }

    /// Takes a factor of this user away.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn remove_factor(&self, id: Bytes) -> Result<(), GatewayError> {
        self.call(&wire::FactorRemove { id }).await?;
        Ok(())
    }
}
