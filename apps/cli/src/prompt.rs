//! Questions to the person at the keyboard, or to the program that writes to
//! our standard input. Secrets are asked for elsewhere.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::Context as _;

/// Longest answer, in bytes.
const LENGTH: u64 = 1_024;

/// One line, trimmed; the question is shown at a terminal only.
pub fn line(question: &str) -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question}: ")?;
        stderr.flush()?;
    }
    let mut typed = String::new();
    io::stdin()
        .lock()
        .take(LENGTH)
        .read_line(&mut typed)
        .context("cannot read what is typed")?;
    Ok(typed.trim().to_owned())
}

/// Whether a person says yes; `None` where there is no terminal to ask at.
pub fn agreed(question: &str) -> anyhow::Result<Option<bool>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let typed = line(&format!("{question} [y/N]"))?;
    Ok(Some(matches!(
        typed.to_ascii_lowercase().as_str(),
        "y" | "yes"
    )))
}
