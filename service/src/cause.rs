//! What an error comes down to.

use std::error::Error;

/// The innermost cause in words: it says what happened, those around it only
/// where.
pub fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
