//! The gateway: accounts, logins, devices, key packages, rooms and NATS JWTs
//! over HTTPS, as `sotto_proto::api` says.
//!
//! It decides nothing by itself: who may do what is the policy's and the
//! directory's of `sotto-jwt-accounts`. It keeps nothing in memory that
//! matters, so that several gateways can serve the same orgs. It never learns
//! a password, an identity key or anything said in a room, and must never log
//! who asks for what.

mod accounts;
pub mod accounts_cli;
pub mod break_glass;
mod caller;
mod calls;
mod client_address;
pub mod clock;
mod factors;
mod first_start;
pub mod gateway;
mod grant;
mod group_infos;
pub mod guests;
mod http;
mod key_packages;
mod limiter;
mod metrics;
mod nodes;
mod orders;
pub mod org;
mod passwords;
mod proofs;
mod provable;
pub mod provision;
mod records;
pub mod refusal;
mod releases;
pub mod revocations;
pub mod run;
mod sealing;
pub mod server;
mod sessions;
mod signing;
mod sms;
mod storage;
mod throttle;
mod totp;
pub mod webauthn;
