//! Lists: a line of JSON per row for programs, aligned columns for people.

use std::io;

use serde_json::Value;

use crate::output::Output;

/// Between columns.
const GAP: usize = 2;

/// Rows under headings.
pub struct Table<const COLUMNS: usize> {
    headings: [&'static str; COLUMNS],
    rows: Vec<(Value, [String; COLUMNS])>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub fn new(headings: [&'static str; COLUMNS]) -> Self {
        Self {
            headings,
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, json: Value, cells: [String; COLUMNS]) {
        self.rows.push((json, cells));
    }

    /// Prints it; `empty` tells a person that there is nothing, and what to do.
    pub fn show(self, output: Output, empty: &str) -> io::Result<()> {
        if self.rows.is_empty() {
            output.note(empty);
            return Ok(());
        }
        let mut widths = self.headings.map(|heading| heading.chars().count());
        for (_, cells) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        output.say_text(aligned(&widths, &self.headings))?;
        for (json, cells) in &self.rows {
            output.say(json, aligned(&widths, cells))?;
        }
        Ok(())
    }
}

fn aligned(widths: &[usize], cells: &[impl AsRef<str>]) -> String {
    let padded = widths.iter().zip(cells).map(|(&width, cell)| {
        let cell = cell.as_ref();
        format!("{cell:<width$}{:GAP$}", "")
    });
    padded.collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        assert_eq!(aligned(&[5, 3], &["ab", "c"]), "ab     c");
        assert_eq!(aligned(&[5, 3], &["Grüße", "日"]), "Grüße  日");
        assert_eq!(aligned(&[5, 3], &["ab", ""]), "ab");
    }
}
