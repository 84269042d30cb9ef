//! A security key in software (CTAP 2.1, section 6): what a real one does, at
//! its strictest. Takes canonical CBOR alone, and nothing that is longer than
//! it said.

use ciborium::Value;

use super::cbor::{bytes_of, find, map, number_of, read, text_of, write};
use super::credential::{AAGUID, Credential, ES256};
use super::pin::{Permission, Pin};

/// What an error says (CTAP 2.1, section 8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    InvalidCommand = 0x01,
    InvalidParameter = 0x02,
    InvalidLength = 0x03,
    InvalidCbor = 0x12,
    MissingParameter = 0x14,
    LimitExceeded = 0x15,
    CredentialExcluded = 0x19,
    UnsupportedAlgorithm = 0x26,
    NoCredentials = 0x2e,
    UserActionTimeout = 0x2f,
    PinInvalid = 0x31,
    PinBlocked = 0x32,
    PinAuthInvalid = 0x33,
    PinAuthBlocked = 0x34,
    PinRequired = 0x36,
    InvalidSubcommand = 0x3e,
}

/// What differs between makes of keys.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    pub versions: &'static [&'static str],
    pub pin_protocols: &'static [u64],
    /// Hands out tokens for one purpose and one site alone.
    pub permissions: bool,
    /// Leaves out of an answer which credential it is of when there was just
    /// one to choose from.
    pub terse: bool,
}

/// Longest message, and most credentials in a list, as most keys have it.
pub const MESSAGE: usize = 1_200;
pub const LIST: usize = 8;

pub const CTAP_2_1: Model = Model {
    versions: &["FIDO_2_0", "FIDO_2_1"],
    pin_protocols: &[2, 1],
    permissions: true,
    terse: false,
};
pub const CTAP_2_0: Model = Model {
    versions: &["U2F_V2", "FIDO_2_0"],
    pin_protocols: &[1],
    permissions: false,
    terse: true,
};

/// One key. A clone is a copy that nobody was ever to make.
#[derive(Clone)]
pub struct SoftwareKey {
    model: Model,
    pub pin: Option<Pin>,
    credentials: Vec<Credential>,
    counter: u32,
    /// Whether somebody touches it.
    pub is_touched: bool,
    /// Signs for this site, whatever it was asked.
    pub answers_for: Option<String>,
}

impl SoftwareKey {
    pub fn new(model: Model, pin: Option<&str>) -> Self {
        Self {
            model,
            pin: pin.map(Pin::new),
            credentials: Vec::new(),
            counter: 0,
            is_touched: true,
            answers_for: None,
        }
    }

    pub fn tries_left(&self) -> u8 {
        self.pin.as_ref().unwrap().tries_left()
    }

    /// The id of the newest credential.
    pub fn newest(&self) -> Vec<u8> {
        self.credentials.last().unwrap().id.clone()
    }

    /// A command and its CBOR; a status and its CBOR.
    pub fn answer(&mut self, message: &[u8]) -> Vec<u8> {
        match self.dispatch(message) {
            Ok(value) => [&[0][..], &write(&value)].concat(),
            Err(status) => vec![status as u8],
        }
    }

    fn dispatch(&mut self, message: &[u8]) -> Result<Value, Status> {
        if message.len() > MESSAGE {
            return Err(Status::InvalidLength);
        }
        let (&command, request) = message.split_first().ok_or(Status::InvalidLength)?;
        if command == 4 {
            return match request {
                [] => Ok(self.info()),
                _ => Err(Status::InvalidLength),
            };
        }
        let request = read(request).ok_or(Status::InvalidCbor)?;
        match (command, &mut self.pin) {
            (1, _) => self.make_credential(&request),
            (2, _) => self.assert(&request),
            (6, Some(pin)) => pin.answer(&request, self.model.pin_protocols),
            _ => Err(Status::InvalidCommand),
        }
    }

    fn info(&self) -> Value {
        let mut options = vec![
            ("up", true.into()),
            ("plat", false.into()),
            ("clientPin", self.pin.is_some().into()),
        ];
        if self.model.permissions {
            options.push(("pinUvAuthToken", true.into()));
        }
        let versions = self.model.versions.iter().map(|&name| name.into());
        let protocols = self.model.pin_protocols.iter().map(|&number| number.into());
        map([
            (1, Value::Array(versions.collect())),
            (3, Value::Bytes(AAGUID.to_vec())),
            (4, map(options)),
            (5, (MESSAGE as u64).into()),
            (6, Value::Array(protocols.collect())),
            (7, (LIST as u64).into()),
            (8, 128.into()),
            (9, Value::Array(vec!["usb".into()])),
        ])
    }

    fn make_credential(&mut self, request: &Value) -> Result<Value, Status> {
        let hash = bytes_of(request, 1).ok_or(Status::MissingParameter)?;
        let party = find(request, 2).and_then(|party| text_of(party, "id"));
        let party = party.ok_or(Status::MissingParameter)?;
        let user = find(request, 3).and_then(|user| bytes_of(user, "id"));
        user.ok_or(Status::MissingParameter)?;
        let algorithms = find(request, 4).and_then(Value::as_array);
        let algorithms = algorithms.ok_or(Status::MissingParameter)?;
        let es256 = Value::from(ES256);
        if !algorithms
            .iter()
            .any(|one| find(one, "alg") == Some(&es256))
        {
            return Err(Status::UnsupportedAlgorithm);
        }
        self.permits(Permission::MakeCredential, party, hash, request, (8, 9))?;
        let excluded = self.known(find(request, 5), party)?.is_some();
        self.waits_for_touch()?;
        if excluded {
            return Err(Status::CredentialExcluded);
        }
        let party = self.answers_for.as_deref().unwrap_or(party);
        let credential = Credential::new(party);
        self.counter += 1;
        let said = credential.attested(self.counter);
        let signature = credential.sign(&said, hash);
        // As real keys have it, with a certificate that names their maker;
        // whoever reads this one finds no certificate.
        let statement = map([
            ("alg", ES256.into()),
            ("sig", Value::Bytes(signature)),
            ("x5c", Value::Array(vec![Value::Bytes(AAGUID.to_vec())])),
        ]);
        self.credentials.push(credential);
        Ok(map([
            (1, "packed".into()),
            (2, Value::Bytes(said)),
            (3, statement),
        ]))
    }

    fn assert(&mut self, request: &Value) -> Result<Value, Status> {
        let party = text_of(request, 1).ok_or(Status::MissingParameter)?;
        let hash = bytes_of(request, 2).ok_or(Status::MissingParameter)?;
        self.permits(Permission::GetAssertion, party, hash, request, (6, 7))?;
        let list = find(request, 3);
        let known = self.known(list, party)?.cloned();
        let listed = list.and_then(Value::as_array).map_or(0, Vec::len);
        self.waits_for_touch()?;
        let mut credential = known.ok_or(Status::NoCredentials)?;
        if let Some(party) = &self.answers_for {
            credential.party.clone_from(party);
        }
        self.counter += 1;
        let said = credential.asserted(self.counter);
        let signature = credential.sign(&said, hash);
        let which = map([
            ("id", Value::Bytes(credential.id)),
            ("type", "public-key".into()),
        ]);
        let mut answer = vec![(2, Value::Bytes(said)), (3, Value::Bytes(signature))];
        if !(self.model.terse && listed == 1) {
            answer.push((1, which));
        }
        Ok(map(answer))
    }

    fn permits(
        &self,
        permission: Permission,
        party: &str,
        hash: &[u8],
        request: &Value,
        (proof, protocol): (i64, i64),
    ) -> Result<(), Status> {
        let Some(pin) = &self.pin else {
            return Ok(());
        };
        let proof = bytes_of(request, proof);
        pin.permits(permission, party, hash, proof, number_of(request, protocol))
    }

    /// One of its own out of a list.
    fn known(&self, list: Option<&Value>, party: &str) -> Result<Option<&Credential>, Status> {
        let list = list.and_then(Value::as_array);
        let list = list.map(Vec::as_slice).unwrap_or_default();
        if list.len() > LIST {
            return Err(Status::LimitExceeded);
        }
        let is_listed = |id: &[u8]| list.iter().any(|one| bytes_of(one, "id") == Some(id));
        let mut own = self.credentials.iter();
        Ok(own.find(|own| own.party == party && is_listed(&own.id)))
    }

    fn waits_for_touch(&self) -> Result<(), Status> {
        match self.is_touched {
            true => Ok(()),
            false => Err(Status::UserActionTimeout),
        }
    }
}
