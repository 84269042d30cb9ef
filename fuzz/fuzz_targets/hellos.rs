//! What a client or a server sends first through a tunnel, cut into packets
//! wherever, and the file that says who may announce which name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sotto_tunnel::hello::HelloReader;
use sotto_tunnel::name::{HostName, Pattern};
use sotto_tunnel::server_hello::ServerHelloReader;
use sotto_tunnel::table::NameTable;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let size = usize::from(cut).max(1);
    let mut reader = HelloReader::default();
    let mut so_far = 0;
    for piece in bytes.chunks(size) {
        so_far += piece.len();
        match reader.push(piece) {
            Ok(None) => {}
            Ok(Some(hello)) => {
                assert_eq!([hello.bytes, hello.rest].concat(), bytes[..so_far]);
                assert_eq!(
                    HostName::from_wire(hello.name.as_str().as_bytes()),
                    Some(hello.name)
                );
                break;
            }
            Err(_) => break,
        }
    }

    let mut reader = ServerHelloReader::default();
    let mut passed = Vec::new();
    for piece in bytes.chunks(size) {
        match reader.push(piece) {
            Ok(more) => passed.extend(more),
            Err(_) => break,
        }
    }
    assert!(bytes.starts_with(&passed));

    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = NameTable::parse(text);
        if let Ok(pattern) = text.parse::<Pattern>() {
            assert_eq!(pattern.to_string(), text);
        }
    }
});
