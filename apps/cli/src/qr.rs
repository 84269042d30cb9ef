//! QR codes on a terminal.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// The code of a text, as lines of block characters. Light on dark, as most
/// terminals are; scanners take both.
pub fn code(text: &str) -> anyhow::Result<String> {
    let code = QrCode::new(text)?
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Ok(code)
}
