//! A room's messages and handshakes are two subjects of one stream, read page
//! by page each; this puts them back into the one order of the stream.

use std::collections::VecDeque;

use bytes::Bytes;

/// A message as the stream has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// In its stream.
    pub sequence: u64,
    /// In ms since 1970.
    pub stored_at_ms: i64,
    /// The body.
    pub payload: Bytes,
}

/// Consecutive messages of one subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// By rising sequence.
    pub messages: Vec<Stored>,
    /// Whether the subject may have messages after these.
    pub more: bool,
}

/// Which of a room's subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// `….msg`
    Messages,
    /// `….hs`
    Handshakes,
}

/// Merges the two subjects up to a sequence that both are known to hold
/// everything before: what was stored while one was read and the other was not
/// yet would otherwise come out of order.
#[derive(Debug)]
pub struct Merge {
    until: u64,
    messages: LaneState,
    handshakes: LaneState,
}

#[derive(Debug)]
struct LaneState {
    after: u64,
    waiting: VecDeque<Stored>,
    more: bool,
}

impl Merge {
    /// Everything after the two cursors and not after `until`.
    pub fn new(messages_after: u64, handshakes_after: u64, until: u64) -> Self {
        Self {
            until,
            messages: LaneState::new(messages_after, until),
            handshakes: LaneState::new(handshakes_after, until),
        }
    }

    /// The page to read next, if one is needed to go on: of this subject, after
    /// this sequence.
    pub fn wanted(&self) -> Option<(Lane, u64)> {
        let lanes = [
            (Lane::Messages, &self.messages),
            (Lane::Handshakes, &self.handshakes),
        ];
        let starved = |state: &LaneState| state.waiting.is_empty() && state.more;
        let mut wanted = lanes.into_iter().filter(|(_, state)| starved(state));
        wanted.next().map(|(lane, state)| (lane, state.after))
    }

    /// The next message; none at the end of the room, or while a page is
    /// wanted.
    pub fn pop(&mut self) -> Option<(Lane, Stored)> {
        if self.wanted().is_some() {
            return None;
        }
        let first = |state: &LaneState| state.waiting.front().map_or(u64::MAX, |m| m.sequence);
        let (lane, state) = if first(&self.messages) <= first(&self.handshakes) {
            (Lane::Messages, &mut self.messages)
        } else {
            (Lane::Handshakes, &mut self.handshakes)
        };
        state.waiting.pop_front().map(|message| (lane, message))
    }

    /// Takes in the page that [`Self::wanted`] named.
    pub fn handle_page(&mut self, lane: Lane, page: Page) {
        let until = self.until;
        let state = match lane {
            Lane::Messages => &mut self.messages,
            Lane::Handshakes => &mut self.handshakes,
        };
        let complete = page
            .messages
            .last()
            .is_none_or(|last| last.sequence >= until);
        state.more = page.more && !complete;
        for message in page.messages {
            if message.sequence > state.after && message.sequence <= until {
                state.after = message.sequence;
                state.waiting.push_back(message);
            }
        }
    }
}

impl LaneState {
    fn new(after: u64, until: u64) -> Self {
        Self {
            after,
            waiting: VecDeque::new(),
            more: after < until,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(sequence: u64) -> Stored {
        Stored {
            sequence,
            stored_at_ms: 0,
            payload: Bytes::new(),
        }
    }

    /// A subject of the model stream: which sequences it has.
    fn page(subject: &[u64], after: u64, size: usize) -> Page {
        let mut rest = subject.iter().copied().filter(|&s| s > after);
        Page {
            messages: rest.by_ref().take(size).map(stored).collect(),
            more: rest.next().is_some(),
        }
    }

    proptest! {
        #[test]
        fn both_subjects_come_out_in_stream_order(
            kinds in proptest::collection::vec(0..3u8, 0..60),
            cursors in (0..20u64, 0..20u64),
            until in 0..70u64,
            size in 1..5usize,
        ) {
            let of = |kind: u8| -> Vec<u64> {
                (1..).zip(&kinds).filter(|&(_, &k)| k == kind).map(|(s, _)| s).collect()
            };
            let (messages, handshakes) = (of(0), of(1));
            let mut merge = Merge::new(cursors.0, cursors.1, until);
            let mut seen = Vec::new();
            loop {
                while let Some((lane, after)) = merge.wanted() {
                    let subject = if lane == Lane::Messages { &messages } else { &handshakes };
                    merge.handle_page(lane, page(subject, after, size));
                }
                let Some((_, message)) = merge.pop() else { break };
                seen.push(message.sequence);
            }
            let mut expected: Vec<u64> = messages.into_iter().filter(|&s| s > cursors.0)
                .chain(handshakes.into_iter().filter(|&s| s > cursors.1))
                .filter(|&s| s <= until)
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_page_that_does_not_move_on_ends_the_reading() {
        let mut merge = Merge::new(5, u64::MAX, 10);
        assert_eq!(merge.wanted(), Some((Lane::Messages, 5)));
        merge.handle_page(
            Lane::Messages,
            Page {
                messages: vec![],
                more: true,
            },
        );
        assert_eq!((merge.wanted(), merge.pop()), (None, None));
    }
}
