//! What people pass to each other as text or QR code: invitations to an org
//! and requests to link a device. Both carry the fingerprint of the org's own
//! certificate authority, so that no public CA is needed or trusted.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use url::Url;

use crate::{InviteToken, OrgName, RendezvousId};

/// Longest link that is looked at, in bytes.
const LINK_MAX: usize = 1_024;

/// Where an org's gateway is and by what it is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayAddress {
    /// Host name or IP address; IPv6 in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The org on that gateway.
    pub org: OrgName,
    /// SHA-256 of the DER certificate of the authority that signs the
    /// gateway's and the relays' certificates.
    pub authority: [u8; 32],
}

impl GatewayAddress {
    /// The start of every HTTP call's URL, without a trailing slash.
    pub fn base_url(&self) -> String {
        format!("https://{}:{}", self.host, self.port)
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host, port, org, ..
        } = self;
        write!(
            f,
            "sotto://{host}:{port}/{org}?ca={}",
            text(&self.authority)
        )
    }
}

impl FromStr for GatewayAddress {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        Ok(Parts::parse(text, "", "a gateway's address")?.gateway)
    }
}

/// "Sign up here, with this."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteLink {
    /// Where to sign up.
    pub gateway: GatewayAddress,
    /// What allows it, once.
    pub invite: InviteToken,
}

/// "I am a new device: reach me in this mailbox and seal to this key."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceLink {
    /// The gateway that holds the mailbox.
    pub gateway: GatewayAddress,
    /// The mailbox.
    pub rendezvous: RendezvousId,
    /// The new device's one-time X25519 public key.
    pub key: [u8; 32],
}

/// Why a link was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not a link of Sotto at all.
    #[error("this is not a Sotto link: it should start with sotto://; copy the whole line")]
    NotALink,
    /// A link of another kind.
    #[error("this link is not {0}")]
    OtherKind(&'static str),
    /// A part is missing or malformed.
    #[error("the link is damaged (its {0} does not read): copy it again")]
    Damaged(&'static str),
}

impl fmt::Display for InviteLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_head(f, &self.gateway, "invite")?;
        write!(f, "{}?ca={}", self.invite, text(&self.gateway.authority))
    }
}

impl FromStr for InviteLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let parts = Parts::parse(text, "invite", "an invitation")?;
        Ok(Self {
            invite: parts.id.parse().map_err(|_| LinkError::Damaged("invite"))?,
            gateway: parts.gateway,
        })
    }
}

impl fmt::Display for DeviceLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_head(f, &self.gateway, "link")?;
        write!(
            f,
            "{}?ca={}",
            self.rendezvous,
            text(&self.gateway.authority)
        )?;
        write!(f, "&key={}", text(&self.key))
    }
}

impl FromStr for DeviceLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let parts = Parts::parse(text, "link", "a device link")?;
        Ok(Self {
            rendezvous: parts
                .id
                .parse()
                .map_err(|_| LinkError::Damaged("rendezvous"))?,
            key: parts.key.ok_or(LinkError::Damaged("key"))?,
            gateway: parts.gateway,
        })
    }
}

fn write_head(f: &mut fmt::Formatter<'_>, gateway: &GatewayAddress, kind: &str) -> fmt::Result {
    let GatewayAddress {
        host, port, org, ..
    } = gateway;
    write!(f, "sotto://{host}:{port}/{org}/{kind}/")
}

/// What every kind of link consists of: `sotto://host:port/org/kind/id?ca=…[&key=…]`,
/// where the address of a gateway has neither kind nor id.
struct Parts {
    gateway: GatewayAddress,
    id: String,
    key: Option<[u8; 32]>,
}

impl Parts {
    fn parse(text: &str, kind: &str, kind_name: &'static str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > LINK_MAX || !text.starts_with("sotto://") {
            return Err(LinkError::NotALink);
        }
        let url = Url::parse(text).map_err(|_| LinkError::NotALink)?;
        let path: Vec<&str> = url
            .path_segments()
            .map(Iterator::collect)
            .unwrap_or_default();
        let (org, id) = match *path.as_slice() {
            [org, found, id] if found == kind => (org, id),
            [org] if kind.is_empty() => (org, ""),
            [_, "invite" | "link", _] => return Err(LinkError::OtherKind(kind_name)),
            _ => return Err(LinkError::Damaged("path")),
        };
        let query = |name: &str| {
            let value = url.query_pairs().find(|(key, _)| key == name)?.1;
            bytes32(&value)
        };
        Ok(Self {
            gateway: GatewayAddress {
                host: url
                    .host_str()
                    .filter(|h| !h.is_empty())
                    .ok_or(LinkError::Damaged("host"))?
                    .to_owned(),
                port: url.port().ok_or(LinkError::Damaged("port"))?,
                org: org
                    .parse()
                    .map_err(|_| LinkError::Damaged("organisation"))?,
                authority: query("ca").ok_or(LinkError::Damaged("fingerprint"))?,
            },
            id: id.to_owned(),
            key: query("key"),
        })
    }
}

fn text(bytes: &[u8; 32]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn bytes32(text: &str) -> Option<[u8; 32]> {
    let bytes = BASE32_NOPAD
        .decode(text.to_ascii_uppercase().as_bytes())
        .ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gateway(host: &str) -> GatewayAddress {
        GatewayAddress {
            host: host.to_owned(),
            port: 4443,
            org: "acme".parse().unwrap(),
            authority: [7; 32],
        }
    }

    #[test]
    fn links_survive_text() {
        for host in ["127.0.0.1", "chat.example.org", "[::1]"] {
            let address = gateway(host);
            assert_eq!(
                address.to_string().parse::<GatewayAddress>().unwrap(),
                address
            );
            let invite = InviteLink {
                gateway: gateway(host),
                invite: InviteToken::try_from(&[3u8; 16][..]).unwrap(),
            };
            assert_eq!(invite.to_string().parse::<InviteLink>().unwrap(), invite);
            let link = DeviceLink {
                gateway: gateway(host),
                rendezvous: RendezvousId::try_from(&[4u8; 16][..]).unwrap(),
                key: [9; 32],
            };
            assert_eq!(link.to_string().parse::<DeviceLink>().unwrap(), link);
            assert_eq!(
                link.to_string().parse::<InviteLink>(),
                Err(LinkError::OtherKind("an invitation"))
            );
            assert_eq!(
                invite.to_string().parse::<GatewayAddress>(),
                Err(LinkError::OtherKind("a gateway's address"))
            );
        }
    }

    #[test]
    fn a_link_cut_anywhere_is_refused() {
        let invite = InviteLink {
            gateway: gateway("127.0.0.1"),
            invite: InviteToken::try_from(&[3u8; 16][..]).unwrap(),
        };
        let whole = invite.to_string();
        for end in 0..whole.len() {
            assert!(
                whole[..end].parse::<InviteLink>().is_err(),
                "{}",
                &whole[..end]
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(tail in ".{0,200}") {
            let _ = format!("sotto://{tail}").parse::<InviteLink>();
            let _ = format!("sotto://h:1/acme/link/{tail}").parse::<DeviceLink>();
        }
    }
}
