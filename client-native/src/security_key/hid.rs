//! CTAPHID (CTAP 2.1, section 11.2): messages in reports of 64 bytes, on a
//! channel that the key hands out. What comes from a key is believed in
//! nothing: lengths and order are checked, reports of other channels passed
//! over, and a silent key is given up.

use std::io;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rand::RngCore;
use rand::rngs::OsRng;
use webauthn_authenticator_rs::error::{CtapError, WebauthnCError};
use webauthn_authenticator_rs::transport;
use webauthn_authenticator_rs::ui::UiCallback;
use webauthn_rs_proto::AuthenticatorTransport;

use super::omitted;

/// Bytes in a report.
pub const REPORT: usize = 64;
/// One report, without a number before it.
pub type Report = [u8; REPORT];

/// The way to one key.
pub trait Reports: Send + Sync {
    /// Sends one report.
    ///
    /// # Errors
    /// When the key is gone.
    fn write(&mut self, report: &Report) -> io::Result<()>;

    /// Receives one report within `patience`.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], or when the key is gone.
    fn read(&mut self, patience: Duration) -> io::Result<Report>;
}

impl<R: Reports> Reports for &mut R {
    fn write(&mut self, report: &Report) -> io::Result<()> {
        R::write(self, report)
    }

    fn read(&mut self, patience: Duration) -> io::Result<Report> {
        R::read(self, patience)
    }
}

/// How long a key may be silent; while it works it says so ten times a second.
const SILENCE: Duration = Duration::from_secs(3);
/// How long it may take in all: keys give up a touch after half a minute.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a first report holds of the message, and each after it.
const FIRST: usize = REPORT - 7;
const NEXT: usize = REPORT - 5;
/// Longest message, in bytes.
const MESSAGE: usize = FIRST + 128 * NEXT;
const BROADCAST: u32 = 0xffff_ffff;
const INIT: u8 = 0x86;
const CBOR: u8 = 0x90;
const CANCEL: u8 = 0x91;
const KEEPALIVE: u8 = 0xbb;
const ERROR: u8 = 0xbf;
/// In a keep-alive: the key wants to be touched.
const TOUCH: u8 = 2;
/// In the answer to INIT: the key knows CTAP2.
const CAPABILITY_CBOR: u8 = 0x04;

/// One key, as the library wants to speak to it.
pub(super) struct Token<R> {
    reports: R,
    channel: Option<u32>,
}

impl<R: Reports> Token<R> {
    pub(super) fn new(reports: R) -> Self {
        Self {
            reports,
            channel: None,
        }
    }

    fn open(&mut self) -> Result<(), WebauthnCError> {
        if self.channel.is_some() {
            return Ok(());
        }
        let mut nonce = [0; 8];
        OsRng.fill_bytes(&mut nonce);
        self.send(BROADCAST, INIT, &nonce)?;
        let started = Instant::now();
        // Others may be asking for channels of their own at this moment.
        while started.elapsed() < SILENCE {
            let (command, answer) = self.receive(BROADCAST)?;
            let Some((echoed, rest)) = answer.split_at_checked(nonce.len()) else {
                continue;
            };
            let [
                a,
                b,
                c,
                d,
                _version,
                _major,
                _minor,
                _build,
                capabilities,
                ..,
            ] = rest
            else {
                continue;
            };
            if command == INIT && echoed == nonce {
                if capabilities & CAPABILITY_CBOR == 0 {
                    return Err(WebauthnCError::NotSupported);
                }
                self.channel = Some(u32::from_be_bytes([*a, *b, *c, *d]));
                return Ok(());
            }
        }
        Err(WebauthnCError::Internal)
    }

    fn exchange(
        &mut self,
        request: &[u8],
        ui: &impl UiCallback,
    ) -> Result<Vec<u8>, WebauthnCError> {
        let channel = self.channel.ok_or(WebauthnCError::Internal)?;
        self.send(channel, CBOR, request)?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let (command, answer) = self.receive(channel)?;
            match (command, answer.split_first()) {
                (KEEPALIVE, Some((&TOUCH, _))) => ui.request_touch(),
                (KEEPALIVE, _) => ui.processing(),
                (CBOR, Some((&status, data))) => {
                    return match CtapError::from(status) {
                        CtapError::Ok => Ok(data.to_vec()),
                        error => Err(WebauthnCError::Ctap(error)),
                    };
                }
                (ERROR, Some((&code, _))) => {
                    return Err(WebauthnCError::Ctap(CtapError::from(code)));
                }
                _ => return Err(WebauthnCError::Internal),
            }
        }
        Err(WebauthnCError::Ctap(CtapError::Ctap1Timeout))
    }

    fn send(&mut self, channel: u32, command: u8, message: &[u8]) -> Result<(), WebauthnCError> {
        for report in reports_of(channel, command, message)? {
            self.reports.write(&report).map_err(gone)?;
        }
        Ok(())
    }

    fn receive(&mut self, channel: u32) -> Result<(u8, Vec<u8>), WebauthnCError> {
        let mut assembly = Assembly::new(channel);
        let started = Instant::now();
        while started.elapsed() < SILENCE {
            let report = self.reports.read(SILENCE).map_err(gone)?;
            if let Some(message) = assembly.take(&report)? {
                return Ok(message);
            }
        }
        Err(WebauthnCError::Ctap(CtapError::Ctap1Timeout))
    }
}

impl<R> std::fmt::Debug for Token<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// The library calls these on a thread that may block.
#[async_trait]
impl<R: Reports> transport::Token for Token<R> {
    type Id = ();

    fn get_transport(&self) -> AuthenticatorTransport {
        AuthenticatorTransport::Usb
    }

    async fn transmit_raw<U: UiCallback>(
        &mut self,
        cbor: &[u8],
        ui: &U,
    ) -> Result<Vec<u8>, WebauthnCError> {
        let answer = self.exchange(cbor, ui)?;
        Ok(omitted::filled_in(cbor, answer))
    }

    async fn cancel(&mut self) -> Result<(), WebauthnCError> {
        match self.channel {
            Some(channel) => self.send(channel, CANCEL, &[]),
            None => Ok(()),
        }
    }

    async fn init(&mut self) -> Result<(), WebauthnCError> {
        self.open()
    }

    async fn close(&mut self) -> Result<(), WebauthnCError> {
        Ok(())
    }
}

fn gone(error: io::Error) -> WebauthnCError {
    match error.kind() {
        io::ErrorKind::TimedOut => WebauthnCError::Ctap(CtapError::Ctap1Timeout),
        _ => WebauthnCError::ApduTransmission,
    }
}

/// A message in reports.
fn reports_of(channel: u32, command: u8, message: &[u8]) -> Result<Vec<Report>, WebauthnCError> {
    if message.len() > MESSAGE {
        return Err(WebauthnCError::MessageTooLarge);
    }
    let length = u16::try_from(message.len()).map_err(|_| WebauthnCError::MessageTooLarge)?;
    let (first, rest) = message.split_at(message.len().min(FIRST));
    let header = [
        &channel.to_be_bytes()[..],
        &[command],
        &length.to_be_bytes(),
    ]
    .concat();
    let next = (0u8..).zip(rest.chunks(NEXT)).map(|(sequence, part)| {
        let header = [&channel.to_be_bytes()[..], &[sequence]].concat();
        report(&header, part)
    });
    Ok(std::iter::once(report(&header, first))
        .chain(next)
        .collect())
}

fn report(header: &[u8], part: &[u8]) -> Report {
    let mut report = [0; REPORT];
    let bytes = header.iter().chain(part);
    report
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    report
}

/// A message that comes in.
struct Assembly {
    channel: u32,
    command: u8,
    length: usize,
    /// The number of the report that comes next; `None`: the first.
    next: Option<u8>,
    message: Vec<u8>,
}

impl Assembly {
    fn new(channel: u32) -> Self {
        Self {
            channel,
            command: 0,
            length: 0,
            next: None,
            message: Vec::new(),
        }
    }

    /// The command and the message, when it is whole.
    fn take(&mut self, report: &Report) -> Result<Option<(u8, Vec<u8>)>, WebauthnCError> {
        let Some((channel, rest)) = report.split_first_chunk::<4>() else {
            return Ok(None);
        };
        if u32::from_be_bytes(*channel) != self.channel {
            return Ok(None);
        }
        let part = match (self.next, rest) {
            (None, [command, high, low, part @ ..]) if command & 0x80 != 0 => {
                self.command = *command;
                self.length = usize::from(u16::from_be_bytes([*high, *low]));
                if self.length > MESSAGE {
                    return Err(WebauthnCError::MessageTooLarge);
                }
                self.next = Some(0);
                part
            }
            // What is left of a message that was given up.
            (None, _) => return Ok(None),
            (Some(next), [sequence, part @ ..]) if *sequence == next => {
                self.next = Some(next.saturating_add(1));
                part
            }
            (Some(_), _) => return Err(WebauthnCError::InvalidMessageLength),
        };
        let missing = self.length.saturating_sub(self.message.len());
        self.message.extend(part.iter().take(missing));
        let whole = self.message.len() == self.length;
        Ok(whole.then(|| (self.command, std::mem::take(&mut self.message))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assemble(channel: u32, reports: &[Report]) -> Vec<(u8, Vec<u8>)> {
        let mut assembly = Assembly::new(channel);
        let messages = reports.iter().filter_map(|report| {
            let whole = assembly.take(report).unwrap()?;
            assembly = Assembly::new(channel);
            Some(whole)
        });
        messages.collect()
    }

    proptest! {
        #[test]
        fn a_message_survives_its_reports(message in prop::collection::vec(any::<u8>(), 0..=MESSAGE)) {
            let reports = reports_of(7, CBOR, &message).unwrap();
            prop_assert_eq!(assemble(7, &reports), [(CBOR, message)]);
            prop_assert!(assemble(8, &reports).is_empty());
        }

        #[test]
        fn nothing_that_a_key_sends_is_too_much(
            reports in prop::collection::vec(prop::collection::vec(0u8..=3, REPORT), 0..300),
        ) {
            let mut assembly = Assembly::new(0x0101_0101);
            for bytes in reports {
                let mut report = [1; REPORT];
                report[4..].copy_from_slice(&bytes[4..]);
                report[4] = report[4].wrapping_mul(0x7f);
                let _ = assembly.take(&report);
                prop_assert!(assembly.message.len() <= MESSAGE);
            }
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused() {
        assert!(reports_of(1, CBOR, &[0; MESSAGE]).is_ok());
        assert!(reports_of(1, CBOR, &[0; MESSAGE + 1]).is_err());
        let mut report = [0; REPORT];
        report[4..7].copy_from_slice(&[CBOR, 0xff, 0xff]);
        assert!(Assembly::new(0).take(&report).is_err());
    }

    #[test]
    fn a_report_out_of_order_is_noticed() {
        let reports = reports_of(1, CBOR, &[9; 300]).unwrap();
        let mut assembly = Assembly::new(1);
        assert!(assembly.take(&reports[0]).unwrap().is_none());
        assert!(assembly.take(&reports[2]).is_err());
    }
}
