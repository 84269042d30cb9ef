//! Each connection is an open file, at either end.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sotto_log::Known;

/// Has the system let this process open as many as it may.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        sotto_log::warn!(error = Known(error), "the number of open files stays low");
    }
}
