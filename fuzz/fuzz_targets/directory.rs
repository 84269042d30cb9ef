//! Events and commands of the directory: reading never panics, and what reads
//! is written as it was meant.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use sotto_jwt_accounts::directory::{Command, Event, State};
use sotto_proto::{Title, wire};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = wire::DirectoryEvent::decode(bytes)
        && let Ok(event) = Event::try_from(event)
    {
        let again = Event::try_from(wire::DirectoryEvent::from(&event));
        assert_eq!(again.as_ref(), Ok(&event));
        let mut state = State::default();
        if state.apply(&event).is_err() {
            assert_eq!(state, State::default());
        }
    }
    if let Ok(command) = wire::DirectoryCommand::decode(bytes) {
        let _ = Command::try_from(command);
    }
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(title) = text.parse::<Title>()
    {
        assert_eq!(title.as_str(), text);
    }
});
