//! The 20 plaintexts that the server must never see.

use rand::rngs::OsRng;
use sotto_e2e::markers::Marker;
use sotto_proto::limits;

/// What is said or sent, by what it is part of.
pub struct Plaintexts {
    markers: Vec<Marker>,
}

/// Which marker is in what; see [`Plaintexts::draw`].
pub const PASSWORD: usize = 0;
pub const ROOM_NAME: usize = 1;
pub const FILE_NAME: usize = 2;
pub const ALICE_SAYS: usize = 3;
pub const BOB_SAYS: usize = 4;
pub const ALICE_ASKS: usize = 5;
pub const BOB_ANSWERS: usize = 6;
pub const OTHER_ALPHABETS: usize = 7;
pub const LONGEST_START: usize = 8;
pub const LONGEST_END: usize = 9;
pub const CLIENT_QUEUED: usize = 10;
pub const CLIENT_SENDING: usize = 11;
pub const RELAY_KILLED: usize = 12;
pub const NATS_KILLED: usize = 13;
pub const SECOND_DEVICE: usize = 14;
pub const WITNESS: usize = 15;

impl Plaintexts {
    /// Random words for what is said, then four pieces of `file`: from its
    /// start, across the end of its first chunk, its middle and near its end.
    pub fn draw(file: &[u8]) -> anyhow::Result<Self> {
        let words = [
            "the password",
            "the room's name",
            "the file's name",
            "what alice says in a burst",
            "what bob says in a burst",
            "what alice asks",
            "what bob answers",
            "a text in several alphabets",
            "the start of the longest text",
            "the end of the longest text",
            "a text queued by a killed client",
            "a text sent by a killed client",
            "a text sent while the relay was killed",
            "a text sent while nats-server was killed",
            "what bob's second device says",
            "a text sent while strangers listen",
        ];
        let mut markers: Vec<Marker> = words
            .iter()
            .map(|name| Marker::word(name, &mut OsRng))
            .collect();
        let places = [0, limits::CHUNK - 16, file.len() / 2, file.len() * 9 / 10];
        for (index, offset) in places.into_iter().enumerate() {
            let name = format!("piece {} of the file", index + 1);
            markers.push(Marker::window(&name, file, offset)?);
        }
        Ok(Self { markers })
    }

    /// All of them, in the order of the constants.
    pub fn all(&self) -> &[Marker] {
        &self.markers
    }

    /// One of them as text.
    pub fn text(&self, which: usize) -> String {
        self.markers
            .get(which)
            .map(Marker::text)
            .unwrap_or_default()
    }
}
