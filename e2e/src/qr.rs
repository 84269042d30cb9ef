//! Reads a QR code off a terminal, as a camera would.

use anyhow::Context;
use rqrr::PreparedImage;

/// Pixels of a module's side.
const SCALE: usize = 4;
/// Modules of light around the code, which a dark terminal's edge is not.
const MARGIN: usize = 4;

/// What the QR code among these lines says.
///
/// # Errors
/// When there is none, or it does not read.
pub fn scan(screen: &[String]) -> anyhow::Result<String> {
    let is_code =
        |line: &&String| line.contains(LIGHT) && line.chars().all(|c| halves(c).is_some());
    let rows: Vec<Vec<bool>> = screen
        .iter()
        .filter(is_code)
        .flat_map(|line| rows(line))
        .collect();
    let columns = rows
        .iter()
        .map(Vec::len)
        .max()
        .context("no QR code is shown")?;
    let (width, height) = (columns + 2 * MARGIN, rows.len() + 2 * MARGIN);
    let light = |x: usize, y: usize| {
        let module = (y / SCALE)
            .checked_sub(MARGIN)
            .zip((x / SCALE).checked_sub(MARGIN));
        let light = module.and_then(|(row, column)| rows.get(row)?.get(column).copied());
        light.unwrap_or(true)
    };
    let grey = |x, y| if light(x, y) { 255 } else { 0 };
    let mut image = PreparedImage::prepare_from_greyscale(width * SCALE, height * SCALE, grey);
    let grid = image
        .detect_grids()
        .into_iter()
        .next()
        .context("no QR code is recognised")?;
    let (_, text) = grid.decode().context("the QR code does not read")?;
    Ok(text)
}

const LIGHT: char = '\u{2588}';

/// Whether the upper and the lower half of a character are light.
fn halves(character: char) -> Option<(bool, bool)> {
    match character {
        LIGHT => Some((true, true)),
        '\u{2580}' => Some((true, false)),
        '\u{2584}' => Some((false, true)),
        ' ' => Some((false, false)),
        _ => None,
    }
}

/// The two rows of modules in a line of text.
fn rows(line: &str) -> [Vec<bool>; 2] {
    let (upper, lower) = line.chars().filter_map(halves).unzip();
    [upper, lower]
}

#[cfg(test)]
mod tests {
    use qrcode::QrCode;
    use qrcode::render::unicode::Dense1x2;

    use super::*;

    #[test]
    fn a_code_on_a_dark_terminal_is_read() {
        let text = "sotto://127.0.0.1:4443/acme/link/".repeat(6);
        let shown = QrCode::new(&text)
            .unwrap()
            .render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build();
        let mut screen: Vec<String> = shown.lines().map(str::to_owned).collect();
        screen.push("scan this".to_owned());
        assert_eq!(scan(&screen).unwrap(), text);
        assert!(scan(&["nothing".to_owned()]).is_err());
    }
}
