//! Signed statements, NATS tokens, entries of the directory log, padding and
//! every protobuf message that comes from outside.

#![no_main]

use data_encoding::BASE64URL_NOPAD;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use sotto_jwt_accounts::claims::{Account, Claims, Operator, User};
use sotto_jwt_accounts::directory::State;
use sotto_proto::refusals::PublishAnswer;
use sotto_proto::signed::{DeviceCertificate, JoinGrant, RemovalOrder, public_key};
use sotto_proto::{padding, wire};

/// Of every NATS JWT: `{"typ":"JWT","alg":"ed25519-nkey"}`.
const HEADER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signed) = wire::Signed::decode(bytes) {
        let _ = DeviceCertificate::verify(&signed);
        if let Ok(key) = public_key(bytes.get(..32).unwrap_or_default()) {
            let _ = JoinGrant::verify(&signed, &key);
            let _ = RemovalOrder::verify(&signed, &key);
            let _ = State::default().advance(bytes, &key);
        }
    }
    let _ = padding::unpad(bytes);
    let _ = wire::Frame::decode(bytes);
    let _ = wire::InboxMessage::decode(bytes);
    let _ = wire::FetchRequest::decode(bytes);
    let _ = wire::FetchFrame::decode(bytes);
    let _ = wire::RoomRules::decode(bytes);
    let _ = wire::RoomNotice::decode(bytes);
    let _ = wire::CommitAuthenticatedData::decode(bytes);
    let _ = wire::Beacon::decode(bytes);
    let _ = wire::Presence::decode(bytes);
    let _ = wire::CopyRequest::decode(bytes);
    let _ = wire::LinkPayload::decode(bytes);
    let _ = wire::ResentEntries::decode(bytes);
    let _ = wire::Me::decode(bytes);
    let _ = wire::RoomJoinable::decode(bytes);
    let _ = wire::RoomGranted::decode(bytes);
    let _ = wire::RoomsChecked::decode(bytes);
    let _ = wire::KeyPackagesClaimed::decode(bytes);
    let _ = wire::ApiError::decode(bytes);
    let _ = PublishAnswer::from_json(bytes);
    // Claims are read before their signature is checked.
    let payload = BASE64URL_NOPAD.encode(bytes);
    let token = format!("{HEADER}.{payload}.AAAA");
    assert!(Claims::<Operator>::verify(&token).is_err());
    assert!(Claims::<Account>::verify(&token).is_err());
    assert!(Claims::<User>::verify(&token).is_err());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Claims::<Operator>::verify(text);
        let _ = Claims::<Account>::verify(text);
        let _ = Claims::<User>::verify(text);
    }
});
