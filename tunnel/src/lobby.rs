//! Connections of strangers, who have yet to say what they want or who they
//! are. When there are too many, the one that has waited longest goes: whoever
//! means to fill the place only throws out themselves.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Who waits, the oldest first.
#[derive(Debug, Default)]
pub struct Lobby {
    waiting: BTreeMap<u64, CancellationToken>,
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
    evicted: CancellationToken,
}

impl Lobby {
    /// Lets one more in, of at most `most`; its token is cancelled when it is
    /// to go.
    pub fn enter(&mut self, most: u32, token: CancellationToken) -> u64 {
        let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
        while self.waiting.len() >= most && self.evict() {}
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, token);
        number
    }

    /// It has said what it wants, or is gone.
    pub fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Sends the oldest away; `false` when there is none.
    pub fn evict(&mut self) -> bool {
        let oldest = self.waiting.pop_first();
        if let Some((_, token)) = &oldest {
            token.cancel();
        }
        oldest.is_some()
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
    /// Takes a place, of at most `most`.
    pub fn enter(&self, most: u32) -> Place<'_> {
        self.admit(most, CancellationToken::new())
    }

    fn admit(&self, most: u32, evicted: CancellationToken) -> Place<'_> {
        Place {
            lobby: self,
            number: self.lobby().enter(most, evicted.clone()),
            evicted,
        }
    }

    /// Sends the oldest away.
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
        lobby.admit(most, self.evicted.clone())
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
    use super::*;

    #[test]
    fn the_oldest_goes_when_one_too_many_comes() {
        let mut lobby = Lobby::default();
        let [one, two, three] = [(); 3].map(|()| CancellationToken::new());
        let first = lobby.enter(2, one.clone());
        lobby.enter(2, two.clone());
        lobby.enter(2, three.clone());
        assert!(one.is_cancelled() && !two.is_cancelled() && !three.is_cancelled());
        lobby.leave(first);
        assert_eq!(lobby.len(), 2);
        assert!(lobby.evict() && two.is_cancelled());
    }
}
