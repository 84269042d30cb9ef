//! What a security key, or what is plugged in in its place, says: its reports,
//! and its answers when it keeps to CTAPHID. The client has an answer or an
//! error.

#![no_main]

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sotto_client_native::security_key::{self, Person, Question, REPORT, Report, Reports};
use zeroize::Zeroizing;

const SITE: &str = "chat.example";
const ORIGIN: &str = "https://chat.example";
const ENROL: &[u8] = br#"{"publicKey":{"rp":{"name":"Sotto","id":"chat.example"},
    "user":{"id":"AAAA","name":"a","displayName":"a"},"challenge":"AAAA",
    "pubKeyCredParams":[{"type":"public-key","alg":-7}],
    "excludeCredentials":[{"type":"public-key","id":"AAAA"},{"type":"public-key","id":"BBBB"}],
    "authenticatorSelection":{"requireResidentKey":false,"userVerification":"required"}}}"#;
const PROVE: &[u8] = br#"{"publicKey":{"challenge":"AAAA","rpId":"chat.example",
    "allowCredentials":[{"type":"public-key","id":"AAAA"}],"userVerification":"required"}}"#;

struct Owner;

impl Person for Owner {
    fn pin(&self) -> Option<Zeroizing<String>> {
        Some(Zeroizing::new("1234".to_owned()))
    }

    fn touch(&self) {}
}

/// Says what it was given, whatever it hears.
struct Deaf(VecDeque<u8>);

impl Reports for Deaf {
    fn write(&mut self, _: &Report) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, _: Duration) -> io::Result<Report> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut report = [0; REPORT];
        report.iter_mut().for_each(|byte| *byte = self.0.pop_front().unwrap_or(0));
        Ok(report)
    }
}

/// Opens a channel as it should, and gives these answers.
struct Polite {
    answers: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Report>,
    /// Of the message that comes in: how many bytes are missing.
    missing: usize,
    nonce: Option<[u8; 8]>,
}

impl Polite {
    fn say(&mut self, channel: [u8; 4], command: u8, message: &[u8]) {
        let message = &message[..message.len().min(7_609)];
        let length = (message.len() as u16).to_be_bytes();
        let (first, rest) = message.split_at(message.len().min(REPORT - 7));
        let mut parts = vec![[&channel[..], &[command], &length, first].concat()];
        for (sequence, part) in (0u8..).zip(rest.chunks(REPORT - 5)) {
            parts.push([&channel[..], &[sequence], part].concat());
        }
        for mut part in parts {
            part.resize(REPORT, 0);
            self.outgoing.extend(<Report>::try_from(part));
        }
    }
}

impl Reports for Polite {
    fn write(&mut self, report: &Report) -> io::Result<()> {
        let took = if report[4] & 0x80 == 0 {
            REPORT - 5
        } else {
            self.missing = usize::from(u16::from_be_bytes([report[5], report[6]]));
            self.nonce = (report[4] == 0x86).then(|| report[7..15].try_into().unwrap());
            REPORT - 7
        };
        self.missing = self.missing.saturating_sub(took);
        if self.missing == 0 {
            match self.nonce.take() {
                Some(nonce) => {
                    let message = [&nonce[..], &[1, 2, 3, 4, 2, 1, 0, 0, 4]].concat();
                    self.say([0xff; 4], 0x86, &message);
                }
                None => {
                    let answer = self.answers.pop_front().unwrap_or_default();
                    self.say([1, 2, 3, 4], 0x90, &answer);
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, _: Duration) -> io::Result<Report> {
        self.outgoing.pop_front().ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, bytes)) = bytes.split_first() else {
        return;
    };
    let (question, options) = match how & 1 {
        0 => (Question::Enrol, ENROL),
        _ => (Question::Prove, PROVE),
    };
    if how & 2 == 0 {
        let key = Deaf(bytes.iter().copied().collect());
        let _ = security_key::answer(vec![key], question, SITE, (ORIGIN, options), &Owner);
        return;
    }
    // Each answer behind its length.
    let (mut rest, mut answers) = (bytes, VecDeque::new());
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (answer, after) = after.split_at(length);
        answers.push_back(answer.to_vec());
        rest = after;
    }
    let key = Polite {
        answers,
        outgoing: VecDeque::new(),
        missing: 0,
        nonce: None,
    };
    let _ = security_key::answer(vec![key], question, SITE, (ORIGIN, options), &Owner);
});
