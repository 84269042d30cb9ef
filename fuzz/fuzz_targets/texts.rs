//! Links, addresses, subjects and names: reading never panics, and what reads
//! has one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sotto_proto::{DeviceLink, GatewayAddress, InviteLink, RoomId, Subject, UserName};
use sotto_service::consul::{Address, Prefix};
use sotto_service::logging::{LEVELS_MAX, Levels};

fuzz_target!(|text: &str| {
    if let Ok(subject) = text.parse::<Subject>() {
        assert_eq!(subject.to_string(), text);
    }
    let _ = Subject::from_live(text);
    if let Ok(name) = text.parse::<UserName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(id) = text.parse::<RoomId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(link) = text.parse::<InviteLink>() {
        assert_eq!(link.to_string().parse(), Ok(link));
    }
    if let Ok(link) = text.parse::<DeviceLink>() {
        assert_eq!(link.to_string().parse(), Ok(link));
    }
    if let Ok(address) = text.parse::<GatewayAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(String::from(prefix.clone()).parse(), Ok(prefix));
    }
    if let Ok(levels) = text.parse::<Levels>() {
        assert!(levels.to_string().len() < 2 * LEVELS_MAX);
    }
});
