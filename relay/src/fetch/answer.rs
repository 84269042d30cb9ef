//! Messages become frames: each small enough to survive a poor link, none
//! longer than a NATS message may be.

use prost::Message;
use sotto_proto::wire::{ChunkSpan, FetchFrame, FetchRefusal, StoredMessage, StreamEnd};
use sotto_proto::{RoomId, limits};

/// A frame goes out once it holds a quarter of what was asked for, within
/// these bounds, in encoded bytes: what a broken connection loses at most,
/// beside one longer message. Who asks for little is behind a slow link.
const FRAME_MIN: usize = 2 * 1024;
const FRAME_MAX: usize = 64 * 1024;
/// `part`, `last`, `more` and `refusal`, encoded, at most.
const FRAME_FIELDS: usize = 16;

/// The answer to one request while it grows.
#[derive(Debug)]
pub struct Answer {
    part: u32,
    frame: FetchFrame,
    encoded: usize,
    /// When it goes out.
    frame_target: usize,
    payload_left: usize,
    empty: bool,
}

/// What became of a message.
#[derive(Debug, PartialEq)]
pub enum Pushed {
    /// It will be in a later frame.
    Kept,
    /// It will be in a later frame; this one is complete, send it.
    Frame(FetchFrame),
    /// The request's limit is reached: [`Answer::finish`] with `more`.
    Full,
}

impl Answer {
    /// An answer of at most `max_bytes` of payload, or of one message when the
    /// first is longer than that: an answer that brings nothing would be asked
    /// for for ever.
    pub fn new(max_bytes: usize, refused_rooms: &[RoomId]) -> Self {
        let frame = FetchFrame {
            refused_rooms: refused_rooms.iter().map(|room| room.to_bytes()).collect(),
            ..FetchFrame::default()
        };
        Self {
            part: 0,
            encoded: frame.encoded_len() + FRAME_FIELDS,
            frame,
            frame_target: (max_bytes / 4).clamp(FRAME_MIN, FRAME_MAX),
            payload_left: max_bytes,
            empty: true,
        }
    }

    /// The one frame of an answer that is a refusal.
    pub fn refusal(refusal: FetchRefusal) -> FetchFrame {
        FetchFrame {
            last: true,
            refusal: refusal.into(),
            ..FetchFrame::default()
        }
    }

    /// The stream of a room ends before what the device has read there.
    pub fn rewound(&mut self, room: RoomId, last_sequence: u64) {
        let end = StreamEnd {
            room: room.to_bytes(),
            last_sequence,
        };
        let length = end.encoded_len();
        self.encoded += length + prost::length_delimiter_len(length) + 1;
        self.frame.rewound.push(end);
    }

    /// Adds a message.
    pub fn push(&mut self, message: StoredMessage) -> Pushed {
        if message.payload.len() > self.payload_left && !self.empty {
            return Pushed::Full;
        }
        self.empty = false;
        self.payload_left = self.payload_left.saturating_sub(message.payload.len());

        let length = message.encoded_len();
        let length = length + prost::length_delimiter_len(length) + 1;
        let frame = &self.frame;
        let begun = !frame.messages.is_empty()
            || !frame.refused_rooms.is_empty()
            || !frame.rewound.is_empty();
        let complete = begun && self.encoded + length > self.frame_target;
        let sent = complete.then(|| self.take_frame());
        self.encoded += length;
        self.frame.messages.push(message);
        sent.map_or(Pushed::Kept, Pushed::Frame)
    }

    /// Says which chunks are there. Nothing else is in such an answer, so that
    /// it fits: half as many spans as a file has chunks, of 14 bytes.
    pub fn stored(&mut self, spans: Vec<ChunkSpan>) {
        self.frame.stored = spans;
    }

    /// The last frame.
    pub fn finish(mut self, more: bool, refusal: FetchRefusal) -> FetchFrame {
        FetchFrame {
            last: true,
            more,
            refusal: refusal.into(),
            ..self.take_frame()
        }
    }

    fn take_frame(&mut self) -> FetchFrame {
        let mut frame = std::mem::take(&mut self.frame);
        frame.part = self.part;
        self.part += 1;
        self.encoded = FRAME_FIELDS;
        frame
    }
}

/// The longest payload that fits into a frame of its own, in bytes; the
/// streams take nothing longer.
pub const PAYLOAD_MAX: usize = limits::NATS_MESSAGE - FRAME_FIELDS - MESSAGE_FIELDS;

/// A stored message without its payload, encoded, at most: two ids of 18
/// bytes, two numbers of 11, two of 6, and two lengths.
const MESSAGE_FIELDS: usize = 96;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use sotto_proto::wire::StoredKind;

    use super::*;

    fn message(sequence: u64, length: usize) -> StoredMessage {
        StoredMessage {
            kind: StoredKind::Blob.into(),
            room: Bytes::from_static(&[0xff; 16]),
            sequence,
            stored_at_ms: i64::MAX,
            payload: vec![0; length].into(),
            file: Bytes::from_static(&[0xff; 16]),
            index: u32::MAX,
        }
    }

    fn room(number: u16) -> RoomId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        RoomId::try_from(&bytes[..]).unwrap()
    }

    /// Pushes all, or until full.
    fn answer(
        max_bytes: usize,
        refused: &[RoomId],
        rewound: usize,
        lengths: &[usize],
    ) -> Vec<FetchFrame> {
        let mut answer = Answer::new(max_bytes, refused);
        for number in 0..rewound {
            answer.rewound(room(number as u16), u64::MAX);
        }
        let mut frames = Vec::new();
        let mut more = false;
        for (sequence, &length) in (1..).zip(lengths) {
            match answer.push(message(sequence, length)) {
                Pushed::Kept => {}
                Pushed::Frame(frame) => frames.push(frame),
                Pushed::Full => {
                    more = true;
                    break;
                }
            }
        }
        frames.push(answer.finish(more, FetchRefusal::None));
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn frames_hold_everything_in_order_within_the_limits(
            lengths in proptest::collection::vec(
                prop_oneof![0..2_000usize, 0..=PAYLOAD_MAX], 0..40),
            max_bytes in 0..4_000_000usize,
            refused in 0..=limits::FETCH_ROOMS as u16,
        ) {
            let refused: Vec<RoomId> = (0..refused).map(room).collect();
            // As many as a request may name in all.
            let rewound = limits::FETCH_ROOMS - refused.len();
            let frames = answer(max_bytes, &refused, rewound, &lengths);
            for (part, frame) in (0..).zip(&frames) {
                prop_assert_eq!(frame.part, part);
                prop_assert!(frame.encoded_len() <= limits::NATS_MESSAGE);
                prop_assert_eq!(frame.last, part as usize == frames.len() - 1);
            }
            let sequences: Vec<u64> =
                frames.iter().flat_map(|f| &f.messages).map(|m| m.sequence).collect();
            let count = sequences.len();
            prop_assert_eq!(&sequences, &(1..=count as u64).collect::<Vec<_>>());
            let sum: usize = lengths[..count].iter().sum();
            prop_assert!(sum <= max_bytes || count == 1);
            prop_assert_eq!(frames.last().unwrap().more, count < lengths.len());
            if !lengths.is_empty() {
                prop_assert!(count > 0, "an answer must bring something");
            }
            let rooms = frames.iter().map(|f| f.refused_rooms.len()).sum::<usize>();
            prop_assert_eq!(rooms, refused.len());
            let named = frames.iter().map(|f| f.rewound.len()).sum::<usize>();
            prop_assert_eq!(named, rewound);
        }
    }

    #[test]
    fn a_frame_is_sent_before_it_is_long() {
        let frames = answer(usize::MAX, &[], 0, &[1_000; 640]);
        assert!(frames.len() > 9, "{}", frames.len());
        assert!(frames.iter().all(|f| f.encoded_len() <= FRAME_MAX));
    }

    #[test]
    fn who_asks_for_little_gets_small_frames() {
        let frames = answer(8 * 1024, &[], 0, &[500; 64]);
        assert_eq!(frames.len(), 6);
        assert!(frames.iter().all(|f| f.encoded_len() <= FRAME_MIN));
    }

    #[test]
    fn every_legal_payload_fits() {
        const { assert!(limits::PAYLOAD < PAYLOAD_MAX) };
    }
}
