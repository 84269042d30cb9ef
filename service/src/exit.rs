//! How a program ends.

use std::fmt::Display;
use std::process::ExitCode;

/// The code of a program that ended so, after it has said why.
#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that failed"
)]
pub fn code<E: Display>(program: &str, ended: Result<(), E>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
