//! A security key in software, with a PIN, behind the reports of CTAPHID: what
//! a real one does on USB.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use soft_fido2_ctap::authenticator::AuthenticatorOptions;
use soft_fido2_ctap::callbacks::PlatformCallbacks;
use soft_fido2_ctap::{
    Authenticator, AuthenticatorConfig, CommandDispatcher, Credential, CredentialStorageCallbacks,
    StatusCode, UpResult, UserInteractionCallbacks, UvResult,
};
use sotto_client_native::security_key::{REPORT, Report, Reports};

const BROADCAST: [u8; 4] = [0xff; 4];
const CHANNEL: [u8; 4] = [1, 2, 3, 4];
const INIT: u8 = 0x86;
const CBOR: u8 = 0x90;
const KEEPALIVE: u8 = 0xbb;

/// One key; clones are the same key.
#[derive(Clone)]
pub struct SoftwareKey {
    dispatcher: Arc<Mutex<CommandDispatcher<Hand>>>,
    incoming: Vec<u8>,
    expected: usize,
    command: u8,
    outgoing: VecDeque<Report>,
}

impl SoftwareKey {
    /// One with this PIN, or none.
    pub fn new(pin: Option<&str>) -> Self {
        let options = AuthenticatorOptions {
            client_pin: Some(pin.is_some()),
            uv: None,
            ..AuthenticatorOptions::new()
        };
        let config = AuthenticatorConfig::new().with_options(options);
        let mut key = Authenticator::new(config, Hand);
        if let Some(pin) = pin {
            key.set_pin(pin).unwrap();
        }
        Self {
            dispatcher: Arc::new(Mutex::new(CommandDispatcher::new(key))),
            incoming: Vec::new(),
            expected: 0,
            command: 0,
            outgoing: VecDeque::new(),
        }
    }

    fn answer(&mut self, channel: [u8; 4]) {
        let message = std::mem::take(&mut self.incoming);
        match self.command {
            INIT => {
                let rest = [&CHANNEL[..], &[2, 1, 0, 0, 0x04]].concat();
                self.say(channel, INIT, &[message, rest].concat());
            }
            CBOR => {
                // Somebody else's, and one that asks for a touch: both are usual.
                self.say([9; 4], CBOR, &[0x11]);
                self.say(channel, KEEPALIVE, &[2]);
                let done = self.dispatcher.lock().unwrap().dispatch(&message);
                let answer = match done {
                    Ok(data) => [&[0][..], &data].concat(),
                    Err(status) => vec![status.to_u8()],
                };
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
            parts.push([&channel[..], &[sequence], part].concat());
        }
        for mut part in parts {
            part.resize(REPORT, 0);
            self.outgoing.push_back(part.try_into().unwrap());
        }
    }
}

impl Reports for SoftwareKey {
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
            self.answer(channel);
        }
        Ok(())
    }

    fn read(&mut self, _: Duration) -> io::Result<Report> {
        self.outgoing
            .pop_front()
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

/// Whose hand is always on the key, which stores nothing: its credentials are
/// in their ids.
struct Hand;

impl PlatformCallbacks for Hand {
    fn get_timestamp_ms(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        since_1970.unwrap().as_millis() as u64
    }
}

impl UserInteractionCallbacks for Hand {
    fn request_up(&self, _: &str, _: Option<&str>, _: &str) -> Result<UpResult, StatusCode> {
        Ok(UpResult::Accepted)
    }

    fn request_uv(&self, _: &str, _: Option<&str>, _: &str) -> Result<UvResult, StatusCode> {
        Ok(UvResult::Denied)
    }

    fn select_credential(&self, _: &str, _: &[String]) -> Result<usize, StatusCode> {
        Ok(0)
    }
}

impl CredentialStorageCallbacks for Hand {
    fn write_credential(&self, _: &Credential) -> Result<(), StatusCode> {
        Err(StatusCode::KeyStoreFull)
    }

    fn delete_credential(&self, _: &[u8]) -> Result<(), StatusCode> {
        Err(StatusCode::NoCredentials)
    }

    fn read_credentials(&self, _: &str, _: Option<&[u8]>) -> Result<Vec<Credential>, StatusCode> {
        Ok(Vec::new())
    }

    fn credential_exists(&self, _: &[u8]) -> Result<bool, StatusCode> {
        Ok(false)
    }

    fn get_credential(&self, _: &[u8]) -> Result<Credential, StatusCode> {
        Err(StatusCode::NoCredentials)
    }

    fn update_credential(&self, _: &Credential) -> Result<(), StatusCode> {
        Ok(())
    }

    fn enumerate_rps(&self) -> Result<Vec<(String, Option<String>, usize)>, StatusCode> {
        Ok(Vec::new())
    }

    fn credential_count(&self) -> Result<usize, StatusCode> {
        Ok(0)
    }
}
