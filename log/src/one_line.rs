//! What is shown on the one line of its event, whatever it holds.

use std::fmt::{self, Display, Write};

use tracing::field::{self, DisplayValue};

/// A value that says by `Display` how it is logged; a control character in it is
/// escaped.
pub fn display<T: Display>(value: T) -> DisplayValue<OneLine<T>> {
    field::display(OneLine(value))
}

/// See [`display`].
#[derive(Debug)]
pub struct OneLine<T>(T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut parts = text.split_inclusive(char::is_control);
        parts.try_for_each(|part| {
            let end = part.chars().next_back().filter(|c| c.is_control());
            self.0
                .write_str(part.trim_end_matches(|c| Some(c) == end))?;
            end.map_or(Ok(()), |c| write!(self.0, "{}", c.escape_default()))
        })
    }
}
