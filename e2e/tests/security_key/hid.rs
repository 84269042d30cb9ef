//! How a key in software is spoken to: in the reports of CTAPHID (CTAP 2.1,
//! section 11.2), with what a bus brings along.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sotto_client_native::security_key::{REPORT, Report, Reports};

use super::software_key::SoftwareKey;

const BROADCAST: [u8; 4] = [0xff; 4];
const CHANNEL: [u8; 4] = [1, 2, 3, 4];
const ELSEWHERE: [u8; 4] = [9; 4];
const INIT: u8 = 0x86;
const CBOR: u8 = 0x90;
const KEEPALIVE: u8 = 0xbb;
const PROCESSING: u8 = 1;
const TOUCH: u8 = 2;

/// Changes what a key answers, status and all; counts from zero.
pub type Spoil = Box<dyn FnMut(usize, Vec<u8>) -> Vec<u8> + Send + Sync>;

/// The wire to one key.
pub struct Wire {
    key: Arc<Mutex<SoftwareKey>>,
    command: u8,
    expected: usize,
    incoming: Vec<u8>,
    outgoing: VecDeque<Report>,
    answers: usize,
    spoil: Spoil,
}

impl Wire {
    pub fn to(key: &Arc<Mutex<SoftwareKey>>) -> Self {
        Self {
            key: key.clone(),
            command: 0,
            expected: 0,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            answers: 0,
            spoil: Box::new(|_, answer| answer),
        }
    }

    pub fn spoiled(self, spoil: Spoil) -> Self {
        Self { spoil, ..self }
    }

    fn key(&self) -> MutexGuard<'_, SoftwareKey> {
        self.key.lock().unwrap()
    }

    fn message(&mut self, channel: [u8; 4]) {
        let message = std::mem::take(&mut self.incoming);
        match self.command {
            INIT => {
                // Somebody else asks at the same time.
                let rest = [&CHANNEL[..], &[2, 1, 0, 0, 0x04]].concat();
                self.say(
                    channel,
                    INIT,
                    &[&[7; 8][..], &ELSEWHERE, &rest[4..]].concat(),
                );
                self.say(channel, INIT, &[message, rest].concat());
            }
            CBOR => {
                self.say(ELSEWHERE, CBOR, &[0x11]);
                self.say(channel, KEEPALIVE, &[PROCESSING]);
                if matches!(message.first(), Some(1 | 2)) {
                    self.say(channel, KEEPALIVE, &[TOUCH]);
                    self.say(channel, KEEPALIVE, &[TOUCH]);
                }
                let answer = self.key().answer(&message);
                let answer = (self.spoil)(self.answers, answer);
                self.answers += 1;
                self.say(channel, CBOR, &answer);
            }
            _ => {}
        }
    }

    fn say(&mut self, channel: [u8; 4], command: u8, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        let (first, rest) = message.split_at(message.len().min(REPORT - 7));
        let mut parts = vec![[&channel[..], &[command], &length, first].concat()];
        for (sequence, part) in (0u8..).zip(rest.chunks(REPORT - 5)) {
            parts.push([&channel[..], &[sequence & 0x7f], part].concat());
        }
        for mut part in parts {
            part.resize(REPORT, 0);
            self.outgoing.push_back(part.try_into().unwrap());
        }
    }
}

impl Reports for Wire {
    fn write(&mut self, report: &Report) -> io::Result<()> {
        let channel: [u8; 4] = report[..4].try_into().unwrap();
        assert!(channel == BROADCAST || channel == CHANNEL);
        let part = if report[4] & 0x80 == 0 {
            &report[5..]
        } else {
            self.command = report[4];
            self.expected = usize::from(u16::from_be_bytes([report[5], report[6]]));
            self.incoming.clear();
            &report[7..]
        };
        let missing = self.expected - self.incoming.len();
        self.incoming.extend(&part[..missing.min(part.len())]);
        if self.incoming.len() == self.expected {
            self.message(channel);
        }
        Ok(())
    }

    fn read(&mut self, _: Duration) -> io::Result<Report> {
        let next = self.outgoing.pop_front();
        next.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}
