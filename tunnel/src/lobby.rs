//! Connections of which no whole ClientHello has come yet. When there are too
//! many, the one that has waited longest goes: whoever means to fill the
//! place only throws out themselves.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

/// Who waits, the oldest first.
#[derive(Debug, Default)]
pub struct Lobby {
    waiting: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl Lobby {
    /// Lets one more in, of at most `most`; its token is cancelled when it is
    /// to go.
    pub fn enter(&mut self, most: u32) -> (u64, CancellationToken) {
        let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
        while self.waiting.len() >= most && self.evict() {}
        let number = self.next;
        self.next += 1;
        let token = CancellationToken::new();
        self.waiting.insert(number, token.clone());
        (number, token)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_one_too_many_comes() {
        let mut lobby = Lobby::default();
        let (first, one) = lobby.enter(2);
        let (_, two) = lobby.enter(2);
        let (_, three) = lobby.enter(2);
        assert!(one.is_cancelled() && !two.is_cancelled() && !three.is_cancelled());
        lobby.leave(first);
        assert_eq!(lobby.len(), 2);
        assert!(lobby.evict() && two.is_cancelled());
    }
}
