//! Why a connection is refused, and the alert that says so.

use tls_parser::{TlsAlertDescription as Alert, TlsRecordType};

/// Why a connection ends before it begins. Each has the alert that RFC 8446
/// or RFC 6066 has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// What came is not a handshake record, or the message is another one.
    #[error("something else than a hello")]
    UnexpectedMessage,
    /// A record is longer than 2^14 bytes.
    #[error("a record that is too long")]
    RecordOverflow,
    /// The hello does not read, or is larger than [`crate::hello::HELLO_MAX`].
    #[error("a hello that does not read")]
    Malformed,
    /// The hello reads, but says what it must not.
    #[error("a hello that contradicts itself")]
    IllegalParameter,
    /// TLS 1.3 is not offered, or not selected.
    #[error("another version than TLS 1.3")]
    Version,
    /// There is no server name.
    #[error("no server name")]
    NoName,
    /// Nobody may announce the name.
    #[error("an unknown name")]
    UnknownName,
    /// Whoever may announce the name is not there.
    #[error("nobody behind the name")]
    Unreachable,
    /// The org, or the whole public end, has as many connections as it may.
    #[error("too many connections")]
    Full,
    /// The org has passed as many bytes as it may.
    #[error("the day's bytes are used up")]
    QuotaUsed,
    /// The private side sent something else than TLS.
    #[error("a server that does not speak TLS")]
    NotTls,
}

impl Refusal {
    /// The alert (RFC 8446, 6; RFC 6066, 3).
    pub fn alert(self) -> Alert {
        match self {
            Self::UnexpectedMessage => Alert::UnexpectedMessage,
            Self::RecordOverflow => Alert::RecordOverflow,
            Self::Malformed => Alert::DecodeError,
            Self::IllegalParameter => Alert::IllegalParameter,
            Self::Version => Alert::ProtocolVersion,
            Self::NoName => Alert::MissingExtension,
            Self::UnknownName => Alert::UnrecognizedName,
            Self::Unreachable | Self::Full | Self::QuotaUsed | Self::NotTls => Alert::InternalError,
        }
    }

    /// The record that carries the alert: fatal, in clear (RFC 8446, 5.1 and 6).
    pub fn record(self) -> [u8; 7] {
        [TlsRecordType::Alert.0, 3, 3, 0, 2, 2, self.alert().0]
    }

    /// What metrics call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnexpectedMessage => "unexpected_message",
            Self::RecordOverflow => "record_overflow",
            Self::Malformed => "malformed",
            Self::IllegalParameter => "illegal_parameter",
            Self::Version => "version",
            Self::NoName => "no_name",
            Self::UnknownName => "unknown_name",
            Self::Unreachable => "unreachable",
            Self::Full => "full",
            Self::QuotaUsed => "quota_used",
            Self::NotTls => "not_tls",
        }
    }
}
