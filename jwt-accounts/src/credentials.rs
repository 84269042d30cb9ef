//! `.creds` files: a user's JWT and the seed that belongs to it, byte for byte
//! as `nsc` writes them. Format: <https://github.com/nats-io/jwt>, package
//! `v2`, `FormatUserConfig`.
//!
//! A seed is never shown in `Debug` or in an error.

use std::fmt;

use nkeys::{KeyPair, KeyPairType};
use zeroize::Zeroizing;

use crate::claims::Claims;
use crate::nsc::NscUserClaims;

/// Longest file that is read, in bytes: the longest JWT and what is around it.
pub(crate) const CREDENTIALS_MAX: usize = 1024 * 1024 + 4_096;

const JWT: &str = "NATS USER JWT";
const SEED: &str = "USER NKEY SEED";

/// A creds file: a user's JWT and the seed that belongs to it. `Debug` hides it.
pub struct Credentials {
    jwt: String,
    seed: Zeroizing<String>,
    file: Zeroizing<String>,
}

/// Why a text is not a creds file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Longer than any creds file.
    #[error("the creds file is longer than {CREDENTIALS_MAX} bytes: name another file")]
    TooLong,
    /// A block is missing or damaged.
    #[error(
        "the creds file has no whole block `{0}`: issue it again, e.g. with `nsc generate creds`"
    )]
    Block(&'static str),
    /// The JWT is damaged or no user's.
    #[error("the JWT in the creds file is not a user's, or was changed: issue the file again")]
    Jwt,
    /// The seed is damaged or no user's.
    #[error("the seed in the creds file is not a user's, or was changed: issue the file again")]
    Seed,
    /// The two are not of one user.
    #[error("the seed in the creds file is not that of the JWT's user: issue the file again")]
    Strangers,
}

impl Credentials {
    /// Of a user with this JWT and seed.
    pub fn new(jwt: String, seed: Zeroizing<String>) -> Self {
        let file = Zeroizing::new(format!(
            "-----BEGIN {JWT}-----\n{jwt}\n------END {JWT}------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used to sign and prove identity.\n\
             NKEYs are sensitive and should be treated as secrets.\n\n\
             -----BEGIN {SEED}-----\n{}\n------END {SEED}------\n\n\
             *************************************************************\n",
            *seed
        ));
        Self { jwt, seed, file }
    }

    /// Reads a creds file: the JWT and the seed in their blocks, whatever is
    /// between those. Checks that the JWT is whole and that the seed is its
    /// user's; neither its time nor its issuer's rights.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn parse(file: &str) -> Result<Self, CredentialsError> {
        if file.len() > CREDENTIALS_MAX {
            return Err(CredentialsError::TooLong);
        }
        let jwt = block(file, JWT)?;
        let seed = block(file, SEED)?;
        let user = Claims::<NscUserClaims>::verify(jwt).map_err(|_| CredentialsError::Jwt)?;
        let key = KeyPair::from_seed(seed).map_err(|_| CredentialsError::Seed)?;
        if key.key_pair_type() != KeyPairType::User {
            return Err(CredentialsError::Seed);
        }
        if key.public_key() != user.claims.subject {
            return Err(CredentialsError::Strangers);
        }
        Ok(Self::new(jwt.to_owned(), Zeroizing::new(seed.to_owned())))
    }

    /// The user's JWT.
    pub fn jwt(&self) -> &str {
        &self.jwt
    }

    /// The user's seed. A secret.
    pub fn seed(&self) -> &str {
        &self.seed
    }

    /// The file's text. A secret: write it to a 0600 file only.
    pub fn expose(&self) -> &str {
        &self.file
    }
}

/// The one line of a block.
fn block<'a>(file: &'a str, name: &'static str) -> Result<&'a str, CredentialsError> {
    let mut lines = file
        .lines()
        .map(str::trim)
        .skip_while(|line| !is_edge(line, "BEGIN", name));
    match (lines.next(), lines.next(), lines.next()) {
        (Some(_), Some(text), Some(end)) if is_edge(end, "END", name) => Ok(text),
        _ => Err(CredentialsError::Block(name)),
    }
}

fn is_edge(line: &str, edge: &str, name: &str) -> bool {
    let words = line.trim_matches('-').split_once(' ');
    line.starts_with("---") && line.ends_with("---") && words == Some((edge, name))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::claims::User;
    use crate::grants;

    const OF_NSC: &str = include_str!("../tests/fixtures/TestUser.creds");

    fn made(user: u8, name: &str, at_s: i64) -> Credentials {
        let account = KeyPair::new_from_raw(KeyPairType::Account, [1; 32]).unwrap();
        let user = KeyPair::new_from_raw(KeyPairType::User, [user; 32]).unwrap();
        let claims = Claims {
            subject: user.public_key(),
            name: name.to_owned(),
            expires_s: None,
            nats: User {
                issuer_account: account.public_key(),
                rights: Some(grants::relay(1)),
            },
        };
        let jwt = claims.sign(&account, at_s).unwrap();
        Credentials::new(jwt, Zeroizing::new(user.seed().unwrap()))
    }

    #[test]
    fn a_file_by_nsc_comes_back_byte_for_byte() {
        let credentials = Credentials::parse(OF_NSC).unwrap();
        assert_eq!(credentials.expose(), OF_NSC);
        let key = KeyPair::from_seed(credentials.seed()).unwrap();
        let user = Claims::<NscUserClaims>::verify(credentials.jwt()).unwrap();
        assert_eq!(user.claims.subject, key.public_key());
        assert_eq!(user.claims.name, "TestUser");
    }

    #[test]
    fn line_ends_and_what_is_between_the_blocks_do_not_matter() {
        let of_windows = OF_NSC.replace('\n', "\r\n");
        let mut bare: Vec<&str> = OF_NSC.lines().collect();
        bare.retain(|line| line.starts_with("--") || line.len() > 56 && !line.contains([' ', '*']));
        for text in [of_windows, bare.join("\n")] {
            assert_eq!(Credentials::parse(&text).unwrap().expose(), OF_NSC);
        }
    }

    #[test]
    fn what_is_no_creds_file_is_refused_and_said() {
        let other = made(3, "other", 1_000);
        let own = Credentials::parse(OF_NSC).unwrap();
        let account = KeyPair::new_account().seed().unwrap();
        let cases = [
            (String::new(), CredentialsError::Block(JWT)),
            ("x".repeat(CREDENTIALS_MAX + 1), CredentialsError::TooLong),
            (
                OF_NSC.replace("BEGIN USER", "BEGIN OPERATOR"),
                CredentialsError::Block(SEED),
            ),
            (
                OF_NSC.replace("------END NATS", "END NATS"),
                CredentialsError::Block(JWT),
            ),
            (OF_NSC.replace(".bp2-", ".bp3-"), CredentialsError::Jwt),
            (
                OF_NSC.replace("\nSUACH75", "\nSUACH76"),
                CredentialsError::Seed,
            ),
            (OF_NSC.replace(own.seed(), &account), CredentialsError::Seed),
            (
                OF_NSC.replace(own.seed(), other.seed()),
                CredentialsError::Strangers,
            ),
        ];
        for (text, error) in cases {
            assert_eq!(Credentials::parse(&text).unwrap_err(), error);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(user in 0u8..32, name in ".{0,40}", at_s in 0i64..1 << 40) {
            let credentials = made(user, &name, at_s);
            let again = Credentials::parse(credentials.expose()).unwrap();
            prop_assert_eq!(again.expose(), credentials.expose());
            prop_assert_eq!(again.jwt(), credentials.jwt());
            prop_assert_eq!(again.seed(), credentials.seed());
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", at in 0usize..900) {
            let _ = Credentials::parse(&text);
            let cut: String = OF_NSC.chars().take(at).collect();
            let spliced = format!("{cut}{text}");
            if let Ok(read) = Credentials::parse(&spliced) {
                prop_assert_eq!(read.expose(), OF_NSC);
            }
        }
    }
}
