//! Tokens by which machines join: good once, for a while. On disk is only the
//! hash of each, so that who reads the file cannot join with it.

use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sotto_service::Layout;
use sotto_service::cluster::NodeName;
use sotto_service::private_files::{self, FileError};
use zeroize::Zeroizing;

/// Length of the secret part, in bytes.
const SECRET: usize = 32;
/// Tokens that are kept at most.
const TOKENS_MAX: usize = 64;
/// Longest file of tokens, in bytes.
const FILE_MAX: u64 = 64 * 1024;
/// How long a token that was used or ran out is remembered, so that who comes
/// with it learns why it is refused.
const REMEMBERED_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// What a machine joins with: a secret, and the fingerprint of the cluster's
/// authority. Hexadecimal of both: a token is typed behind `--token`, where
/// base64url would now and then begin with a dash.
pub struct Token {
    /// Known to nobody else.
    pub secret: Zeroizing<[u8; SECRET]>,
    /// SHA-256 of the authority's certificate.
    pub authority: [u8; 32],
}

/// What a token lets a machine be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted {
    /// A gateway, with the sealed key store.
    pub gateway: bool,
    /// In the place of a node that was lost.
    pub replaces: Option<NodeName>,
}

/// Why nobody joins with a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is no token.
    #[error("this is no token: copy the whole line that `sotto-relay cluster token` printed")]
    Malformed,
    /// Nobody made it here.
    #[error("this token was not made here: make one with `sotto-relay cluster token` on that node")]
    Unknown,
    /// It is used up.
    #[error("this token was used already: make another with `sotto-relay cluster token`")]
    Used,
    /// It is too old.
    #[error("this token has run out: make another with `sotto-relay cluster token`")]
    Expired,
    /// A later one is good in its place.
    #[error("another token was made for the same lost node after this one: use that")]
    Superseded,
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not read.
    #[error("the file of tokens does not read: remove cluster/tokens.json and make new tokens")]
    Damaged,
}

sotto_log::log_safe!(TokenError);

#[derive(Serialize, Deserialize)]
struct Kept {
    /// SHA-256 of the secret, hexadecimal.
    hash: String,
    expires_ms: i64,
    gateway: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<NodeName>,
    used: bool,
    /// Another was made for the same lost node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    superseded: bool,
}

/// Makes a token that is good until `expires_ms`. Of those for one lost node
/// only the last is good: one machine takes its place.
///
/// # Errors
/// When the file does not read or write.
pub fn make(
    layout: &Layout,
    authority: [u8; 32],
    permitted: Permitted,
    now_ms: i64,
    expires_ms: i64,
) -> Result<Token, TokenError> {
    let secret = Zeroizing::new(rand::random::<[u8; SECRET]>());
    // Who makes tokens and who uses them are two processes.
    let _locked = private_files::lock(&layout.cluster())?;
    let mut tokens = read(layout)?;
    tokens.retain(|kept| kept.expires_ms.saturating_add(REMEMBERED_MS) > now_ms);
    tokens.truncate(TOKENS_MAX - 1);
    if permitted.replaces.is_some() {
        for kept in &mut tokens {
            kept.superseded |= kept.replaces == permitted.replaces;
        }
    }
    tokens.insert(
        0,
        Kept {
            hash: hash(&*secret),
            expires_ms,
            gateway: permitted.gateway,
            replaces: permitted.replaces,
            used: false,
            superseded: false,
        },
    );
    write(layout, &tokens)?;
    Ok(Token { secret, authority })
}

/// What a token permits. It is as good as it was.
///
/// # Errors
/// Why it is not good.
pub fn check(layout: &Layout, secret: &str, now_ms: i64) -> Result<Permitted, TokenError> {
    good(&mut read(layout)?, secret, now_ms).map(|kept| kept.permitted())
}

/// Uses a token up: it is good no more when this returns, whatever happens
/// after.
///
/// # Errors
/// Why it is not good.
pub fn consume(layout: &Layout, secret: &str, now_ms: i64) -> Result<Permitted, TokenError> {
    let _locked = private_files::lock(&layout.cluster())?;
    let mut tokens = read(layout)?;
    let kept = good(&mut tokens, secret, now_ms)?;
    kept.used = true;
    let permitted = kept.permitted();
    write(layout, &tokens)?;
    Ok(permitted)
}

fn good<'a>(tokens: &'a mut [Kept], secret: &str, now_ms: i64) -> Result<&'a mut Kept, TokenError> {
    let secret = HEXLOWER.decode(secret.as_bytes());
    let secret = Zeroizing::new(secret.map_err(|_| TokenError::Malformed)?);
    let hash = hash(&secret);
    // What is compared is a hash of a random secret: time tells nothing of it.
    let kept = tokens.iter_mut().find(|kept| kept.hash == hash);
    let kept = kept.ok_or(TokenError::Unknown)?;
    if kept.used {
        return Err(TokenError::Used);
    }
    if kept.superseded {
        return Err(TokenError::Superseded);
    }
    if kept.expires_ms <= now_ms {
        return Err(TokenError::Expired);
    }
    Ok(kept)
}

impl Kept {
    fn permitted(&self) -> Permitted {
        Permitted {
            gateway: self.gateway,
            replaces: self.replaces.clone(),
        }
    }
}

fn hash(secret: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(secret))
}

fn read(layout: &Layout) -> Result<Vec<Kept>, TokenError> {
    let path = layout.cluster_tokens();
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = private_files::read_text(&path, FILE_MAX)?;
    serde_json::from_str(&text).map_err(|_| TokenError::Damaged)
}

fn write(layout: &Layout, tokens: &[Kept]) -> Result<(), TokenError> {
    let json = serde_json::to_vec(tokens).map_err(|_| TokenError::Damaged)?;
    Ok(private_files::write(&layout.cluster_tokens(), &json)?)
}

impl Token {
    /// As text, for a person to carry.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([*self.secret, self.authority].concat());
        Zeroizing::new(HEXLOWER.encode(&bytes))
    }

    /// The secret alone, as it is shown to the keeper.
    pub fn secret_text(&self) -> String {
        HEXLOWER.encode(&*self.secret)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = HEXLOWER.decode(text.trim().as_bytes());
        let bytes = Zeroizing::new(bytes.map_err(|_| TokenError::Malformed)?);
        let parts = bytes.split_first_chunk::<SECRET>();
        let (secret, authority) = parts.ok_or(TokenError::Malformed)?;
        Ok(Self {
            secret: Zeroizing::new(*secret),
            authority: authority.try_into().map_err(|_| TokenError::Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_has_one_spelling(text in " {0,2}[0-9a-f]{126,130}|.{0,130}") {
            if let Ok(token) = text.parse::<Token>() {
                let again = token.to_text();
                prop_assert_eq!(again.as_str(), text.trim());
            }
        }
    }

    const GATEWAY: Permitted = Permitted {
        gateway: true,
        replaces: None,
    };

    fn layout() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        private_files::create_dir(&layout.cluster()).unwrap();
        (folder, layout)
    }

    #[test]
    fn a_token_is_good_once() {
        let (_folder, layout) = layout();
        let token = make(&layout, [7; 32], GATEWAY, 0, 100).unwrap();
        let token: Token = token.to_text().parse().unwrap();
        assert_eq!(token.authority, [7; 32]);
        let secret = token.secret_text();
        assert_eq!(check(&layout, &secret, 1).unwrap(), GATEWAY);
        assert_eq!(consume(&layout, &secret, 1).unwrap(), GATEWAY);
        for again in [consume(&layout, &secret, 1), check(&layout, &secret, 1)] {
            assert!(matches!(again, Err(TokenError::Used)), "{again:?}");
        }
    }

    #[test]
    fn of_tokens_for_one_lost_node_only_the_last_is_good() {
        let (_folder, layout) = layout();
        let make = |replaces: Option<&str>| {
            let permitted = Permitted {
                gateway: false,
                replaces: replaces.map(|name| name.parse().unwrap()),
            };
            let token = make(&layout, [7; 32], permitted, 0, 100).unwrap();
            token.secret_text()
        };
        let [plain, first, other, last] = [None, Some("n3"), Some("n2"), Some("n3")].map(make);
        let of_first = check(&layout, &first, 1);
        assert!(matches!(of_first, Err(TokenError::Superseded)));
        let replaced = |secret: &str| check(&layout, secret, 1).unwrap().replaces;
        assert_eq!(replaced(&plain), None);
        assert_eq!(replaced(&other), Some("n2".parse().unwrap()));
        assert_eq!(replaced(&last), Some("n3".parse().unwrap()));
    }

    #[test]
    fn an_old_or_strange_token_is_not_good() {
        let (_folder, layout) = layout();
        let token = make(&layout, [7; 32], GATEWAY, 0, 100).unwrap();
        let used = consume(&layout, &token.secret_text(), 100);
        assert!(matches!(used, Err(TokenError::Expired)));
        let strange = HEXLOWER.encode(&[1; SECRET]);
        assert!(matches!(
            consume(&layout, &strange, 1),
            Err(TokenError::Unknown)
        ));
        assert!(matches!(
            consume(&layout, "?", 1),
            Err(TokenError::Malformed)
        ));
        for text in ["", "x", &HEXLOWER.encode(&[0; 63])] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_secret_is_not_on_disk() {
        let (_folder, layout) = layout();
        let token = make(&layout, [7; 32], GATEWAY, 0, 100).unwrap();
        let kept = std::fs::read_to_string(layout.cluster_tokens()).unwrap();
        assert!(!kept.contains(&token.secret_text()));
    }
}
