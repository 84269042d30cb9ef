//! Which machine, as ssh is told.

use std::fmt;
use std::str::FromStr;

/// `host`, `user@host` or `ssh://user@host:port`; `host` may be a name of the
/// user's ssh configuration. It never begins with a dash and holds nothing that
/// a shell takes for its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination(String);

/// It is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write HOST, USER@HOST or ssh://USER@HOST:PORT, as for ssh")]
pub struct NotADestination;

impl Destination {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Destination {
    type Err = NotADestination;

    fn from_str(text: &str) -> Result<Self, NotADestination> {
        let known = |c: char| c.is_ascii_alphanumeric() || "-._@:[]/%".contains(c);
        let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let host = host.strip_prefix("ssh://").unwrap_or(host);
        let fits = text.len() <= 512
            && text.chars().all(known)
            && [text, host]
                .iter()
                .all(|part| !part.is_empty() && !part.starts_with('-'));
        match fits {
            true => Ok(Self(text.to_owned())),
            false => Err(NotADestination),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_would_take_for_an_option_is_no_machine() {
        for right in ["m1", "root@m1", "root@[::1]", "ssh://root@m1.example:2222"] {
            assert!(right.parse::<Destination>().is_ok(), "{right}");
        }
        let wrong = [
            "",
            "-oProxyCommand=id",
            "root@",
            "root@-oProxyCommand=id",
            "ssh://-l",
            "a b",
            "$(id)",
            "`id`@m1",
            "m1\n",
        ];
        for wrong in wrong {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong:?}");
        }
    }
}
