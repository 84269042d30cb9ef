//! What the person, or the program, at the other end sees.
//!
//! Results go to standard output, as text or as JSON lines; what is only worth
//! knowing meanwhile goes to standard error. Text of other people never
//! reaches a terminal with its control characters.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sotto_client_core::io::FactorNeeded;
use tokio::time::sleep;

use crate::advice;

/// What takes longer than this is shown to be under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where everything is printed.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// A result: as JSON, or as text.
    pub fn say(self, json: &Value, text: impl Display) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        match self.json {
            true => writeln!(stdout, "{json}")?,
            false => writeln!(stdout, "{}", printable(&text.to_string()))?,
        }
        stdout.flush()
    }

    /// A part of a result that is of use to a person only.
    pub fn say_text(self, text: impl Display) -> io::Result<()> {
        match self.json {
            true => Ok(()),
            false => self.say(&Value::Null, text),
        }
    }

    /// A result that is of use to a program only.
    pub fn say_json(self, json: &Value) -> io::Result<()> {
        match self.json {
            true => self.say(json, ""),
            false => Ok(()),
        }
    }

    /// Something worth knowing for a person.
    pub fn note(self, text: impl Display) {
        if !self.json {
            print_error(&text.to_string());
        }
    }

    /// Why the program ends with an error, and the factors that are missing if
    /// that is why.
    pub fn fail(self, text: &str, code: u8, needed: Option<&FactorNeeded>) {
        print_error(&format!("sotto: {text}"));
        let lines = needed.map(advice::lines).unwrap_or_default();
        lines.iter().for_each(|line| print_error(line));
        let json = json!({
            "event": "error", "message": text, "code": code, "missing": needed.map(advice::json),
        });
        // Nothing is left to do about a closed pipe.
        let _ = self.say_json(&json);
    }

    /// Shows what is waited for when it takes a while.
    pub async fn patiently<T>(self, what: &str, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        tokio::select! {
            result = &mut future => return result,
            () = sleep(PATIENCE) => {}
        }
        let spinner = self.spinner(what);
        let result = future.await;
        spinner.finish_and_clear();
        result
    }

    fn spinner(self, what: &str) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    /// Shows how many of `length` things are through.
    pub fn count(self, what: &str, length: u64) -> ProgressBar {
        if self.json || length == 1 {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg}  {bar:24} {pos} of {len}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length)
            .with_style(style)
            .with_message(what.to_owned())
    }

    /// Shows how many of `size` bytes are through.
    pub fn transfer(self, name: &str, size: u64) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let template = "{msg}  {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go";
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(size)
            .with_style(style)
            .with_message(printable(name))
    }
}

fn print_error(text: &str) {
    // Nothing is left to do about a closed standard error.
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// `text` without anything that could move the cursor, colour the screen or
/// turn the direction of the line; line breaks stay.
pub fn printable(text: &str) -> String {
    let confusing = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if confusing(c) { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_drive_the_terminal() {
        assert_eq!(
            printable("a\x1b[31mb\r\u{202e}c\u{9b}"),
            "a\u{fffd}[31mb\u{fffd}\u{fffd}c\u{fffd}"
        );
        assert_eq!(printable("Grüße\n日本語 🙂"), "Grüße\n日本語 🙂");
    }
}
