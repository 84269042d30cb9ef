//! The release log that a server hands out: read or refused, and what is read
//! goes on from each of its own beginnings.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sotto_update::ReleaseLog;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let Ok(log) = ReleaseLog::parse(text) else {
        return;
    };
    let mut beginning = String::new();
    for line in text.split_inclusive('\n') {
        beginning.push_str(line);
        let shorter = ReleaseLog::parse(&beginning).expect("the beginning of a log is one");
        let head = shorter.head().expect("it has a line");
        assert!(log.extends(&head));
    }
    for release in log.releases() {
        for artifact in &release.artifacts {
            assert!(!artifact.target.contains('/'), "safe as a part of a path");
        }
    }
});
