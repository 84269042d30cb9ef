//! Addresses on which programs listen, compared.

use std::net::{IpAddr, SocketAddr};

/// Whether who listens on the one keeps others from listening on the other.
pub fn exclude_each_other(one: SocketAddr, other: SocketAddr) -> bool {
    let same = one.ip() == other.ip();
    // `::` takes IPv4 in as well.
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let covered = covers(one.ip(), other.ip()) || covers(other.ip(), one.ip());
    one.port() == other.port() && (same || covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_exclude_each_other_are_known() {
        let exclude = |one: &str, other: &str| {
            exclude_each_other(one.parse().unwrap(), other.parse().unwrap())
        };
        assert!(exclude("127.0.0.1:1", "127.0.0.1:1"));
        assert!(exclude("0.0.0.0:1", "127.0.0.1:1"));
        assert!(exclude("127.0.0.1:1", "[::]:1"));
        assert!(!exclude("0.0.0.0:1", "[::1]:1"));
        assert!(!exclude("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!exclude("127.0.0.1:1", "127.0.0.1:2"));
    }
}
