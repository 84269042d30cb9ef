//! Connections of strangers, who have yet to say what they want or who they
//! are. When there are too many, one of those goes that come from the network
//! with the most of them, the oldest: whoever means to fill the place only
//! throws out themselves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sotto_service::network::network;
use tokio_util::sync::CancellationToken;

/// Who waits.
#[derive(Debug, Default)]
pub struct Lobby {
    waiting: BTreeMap<u64, (IpAddr, CancellationToken)>,
    networks: BTreeMap<IpAddr, BTreeSet<u64>>,
    /// The networks by how many of each wait; of as many, the one whose oldest
    /// has waited longest is last.
    by_size: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
    next: u64,
}

/// A lobby that connections share.
#[derive(Debug, Default)]
pub struct SharedLobby(Mutex<Lobby>);

/// A place in a lobby, until this is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    lobby: &'a SharedLobby,
    number: u64,
    from: IpAddr,
    evicted: CancellationToken,
}

impl Lobby {
    /// Lets one more in, of at most `most`; its token is cancelled when it is
    /// to go.
    pub fn enter(&mut self, most: u32, from: IpAddr, token: CancellationToken) -> u64 {
        let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
        while self.waiting.len() >= most && self.evict() {}
        let number = self.next;
        self.next += 1;
        let network = network(from);
        self.waiting.insert(number, (network, token));
        self.change(network, |numbers| {
            numbers.insert(number);
        });
        number
    }

    /// It has said what it wants, or is gone.
    pub fn leave(&mut self, number: u64) {
        self.take(number);
    }

    /// Sends the oldest of the largest network away; `false` when there is none.
    pub fn evict(&mut self) -> bool {
        let oldest = self.by_size.last().map(|&(_, Reverse(oldest), _)| oldest);
        let gone = oldest.and_then(|oldest| self.take(oldest));
        if let Some(token) = &gone {
            token.cancel();
        }
        gone.is_some()
    }

    fn take(&mut self, number: u64) -> Option<CancellationToken> {
        let (network, token) = self.waiting.remove(&number)?;
        self.change(network, |numbers| {
            numbers.remove(&number);
        });
        Some(token)
    }

    /// Changes who waits of a network, and its place among the others.
    fn change(&mut self, network: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let numbers = self.networks.entry(network).or_default();
        let size = |numbers: &BTreeSet<u64>| {
            let oldest = numbers.first()?;
            Some((numbers.len(), Reverse(*oldest), network))
        };
        if let Some(before) = size(numbers) {
            self.by_size.remove(&before);
        }
        change(numbers);
        match size(numbers) {
            Some(now) => drop(self.by_size.insert(now)),
            None => drop(self.networks.remove(&network)),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl SharedLobby {
    /// Takes a place, of at most `most`, for whoever comes from there.
    pub fn enter(&self, most: u32, from: IpAddr) -> Place<'_> {
        self.admit(most, from, CancellationToken::new())
    }

    fn admit(&self, most: u32, from: IpAddr, evicted: CancellationToken) -> Place<'_> {
        Place {
            lobby: self,
            number: self.lobby().enter(most, from, evicted.clone()),
            from,
            evicted,
        }
    }

    /// Sends one away.
    pub fn evict(&self) {
        self.lobby().evict();
    }

    fn lobby(&self) -> MutexGuard<'_, Lobby> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Takes a place elsewhere, too; when either is needed, both are lost.
    pub fn also_in<'a>(&self, lobby: &'a SharedLobby, most: u32) -> Place<'a> {
        lobby.admit(most, self.from, self.evicted.clone())
    }

    /// What comes of waiting here; `None` when the place is needed before.
    pub async fn hold<F: Future>(&self, waiting: F) -> Option<F::Output> {
        self.evicted.run_until_cancelled(waiting).await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.lobby.lobby().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lets some in, each from an address, and says who had to go.
    fn gone(most: u32, from: &[&str]) -> Vec<usize> {
        let mut lobby = Lobby::default();
        let tokens: Vec<_> = from.iter().map(|_| CancellationToken::new()).collect();
        for (from, token) in from.iter().zip(&tokens) {
            lobby.enter(most, from.parse().unwrap(), token.clone());
        }
        let cancelled =
            |(index, token): (usize, &CancellationToken)| token.is_cancelled().then_some(index);
        tokens.iter().enumerate().filter_map(cancelled).collect()
    }

    #[test]
    fn the_oldest_goes_when_one_too_many_comes() {
        assert_eq!(gone(2, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]), [0]);
        assert_eq!(gone(2, &["10.0.0.1"; 4]), [0, 1]);
    }

    #[test]
    fn whoever_has_most_there_makes_room() {
        assert_eq!(
            gone(
                3,
                &["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.3"]
            ),
            [1, 2]
        );
        // Of one network: half an address of IPv6, and an address of IPv4
        // however it is written.
        assert_eq!(
            gone(2, &["10.0.0.1", "2001:db8::1", "2001:db8::2", "::1"]),
            [0, 1]
        );
        assert_eq!(
            gone(3, &["::1", "10.0.0.2", "::ffff:10.0.0.2", "10.0.0.2"]),
            [1]
        );
    }

    proptest! {
        #[test]
        fn what_it_knows_of_networks_is_who_waits(
            steps in proptest::collection::vec((0_u8..4, any::<bool>()), 0..60),
        ) {
            let mut lobby = Lobby::default();
            let mut numbers = Vec::new();
            for (from, enters) in steps {
                if enters {
                    let token = CancellationToken::new();
                    numbers.push(lobby.enter(8, IpAddr::from([10, 0, 0, from]), token));
                } else if let Some(number) = numbers.get(usize::from(from)) {
                    lobby.leave(*number);
                }
                prop_assert!(lobby.len() <= 8);
                let counted: usize = lobby.networks.values().map(BTreeSet::len).sum();
                prop_assert_eq!(counted, lobby.len());
                prop_assert_eq!(lobby.by_size.len(), lobby.networks.len());
            }
            while lobby.evict() {}
            prop_assert!(lobby.is_empty() && lobby.networks.is_empty());
        }
    }
}
