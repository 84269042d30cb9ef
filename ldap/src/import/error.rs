//! Why an import did not read what it was to read.

use std::time::Duration;

use ldap3::LdapError;

use crate::dn::Dn;
use crate::messages::BadMessage;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The file of authorities.
    #[error("cannot use `ca_file` {path}: {why}; it must hold PEM certificates")]
    Authorities {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection, or it broke.
    #[error("cannot talk to the LDAP server: {0}; check `url` and the network")]
    Unreachable(String),
    /// No TLS that can be trusted.
    #[error("no trusted TLS with the LDAP server: {0}; check `ca_file` and the host in `url`")]
    Tls(String),
    /// The server has no StartTLS.
    #[error("the LDAP server refuses StartTLS: use `ldaps://` in `url`, or have it set up there")]
    NoStartTls,
    /// It accepted the connection, and then nothing came.
    #[error("the LDAP server has been silent for {} s: it hangs, or `url` is no LDAP server", .0.as_secs())]
    Silent(Duration),
    /// It answers too slowly.
    #[error("the LDAP server took longer than {} s: set `patience_seconds` or narrow the filters", .0.as_secs())]
    Slow(Duration),
    /// It closed the connection before it was done.
    #[error(
        "the LDAP server closed the connection before it was done: try again, then see its log"
    )]
    Closed,
    /// It does not speak LDAP, or lies.
    #[error("the LDAP server cannot be believed: {0}; check that `url` is an LDAP server")]
    BadAnswer(#[from] BadMessage),
    /// It sends and sends.
    #[error("the LDAP server sends more than an import can be: narrow the bases and filters")]
    TooMuch,
    /// This machine.
    #[error("this machine cannot do it: {0}")]
    Local(#[source] std::io::Error),
    /// ldap3 could not.
    #[error("the LDAP library failed: {0}")]
    Library(#[from] LdapError),
    /// A `bind_dn` without a password would be an anonymous login (RFC 4513, 5.1.2).
    #[error("the password of `bind_dn` is empty: give it, or remove `bind_dn` to read anonymously")]
    NoPassword,
    /// The login.
    #[error("the LDAP server does not let `bind_dn` in: check it and the password")]
    WrongPassword,
    /// Something named in the mapping is not there.
    #[error(
        "the LDAP server has no entry `{0}`, or hides it: check the mapping and its access rules"
    )]
    NoSuchEntry(Dn),
    /// The list would be cut.
    #[error(
        "the LDAP server sends only a part of what is below `{0}`: lift its size and time limits \
         for this login (OpenLDAP: `limits … size.prtotal=unlimited`)"
    )]
    Partial(Dn),
    /// Whether the list is cut cannot be known.
    #[error("the LDAP server does not send pages (RFC 2696), so a cut list would not be noticed")]
    NotPaged,
    /// Any other refusal.
    #[error("the LDAP server refuses to read below `{base}`: {code}, `{text}`")]
    Refused {
        /// Where.
        base: Dn,
        /// RFC 4511 result code.
        code: u32,
        /// Its own words, shortened.
        text: String,
    },
    /// A part of it is on another server.
    #[error("a part of `{base}` is on another server, `{url}`: choose a narrower base")]
    Elsewhere {
        /// What was asked for.
        base: Dn,
        /// The other server.
        url: String,
    },
    /// An answer to another question.
    #[error("the LDAP server cannot be believed: it sent `{0}`, which was not asked for")]
    Unasked(String),
    /// The same entry twice.
    #[error("the LDAP server cannot be believed: it sent `{0}` twice; try again")]
    Twice(Dn),
    /// Active Directory's way to send only some of many members.
    #[error(
        "the LDAP server sends only some of the members of `{0}` at once: raise its limit of \
         values per answer (Active Directory: MaxValRange)"
    )]
    MembersCut(Dn),
    /// A list is empty.
    #[error("the LDAP server found nobody below `{0}`: check base, filter and its access rules")]
    Nothing(Dn),
}
