//! Policies of levels: whatever an admin or a log says, it is a policy or it is
//! refused, and one comes back from the wire as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use sotto_jwt_accounts::policy::LevelPolicy;
use sotto_proto::wire;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = wire::Policy::decode(bytes) {
        check(policy);
    }
    if let Ok(cedar) = str::from_utf8(bytes) {
        check(wire::Policy {
            cedar: cedar.to_owned(),
            ..wire::Policy::default()
        });
    }
});

fn check(policy: wire::Policy) {
    let Ok(level) = LevelPolicy::try_from(policy) else {
        return;
    };
    let again = LevelPolicy::try_from(level.to_wire());
    assert_eq!(again.as_ref(), Ok(&level));
    if level.validate().is_ok() {
        // What the demands come down to fits the schema, too.
        let whole = wire::Policy {
            cedar: level.cedar_text(),
            ..wire::Policy::default()
        };
        if let Ok(whole) = LevelPolicy::try_from(whole) {
            assert_eq!(whole.validate(), Ok(()));
        }
    }
}
