use qrcode::{Color, EcLevel, QrCode};
use std::fmt::Write as _;

/// The text is too long for a QR code.
#[derive(Debug, thiserror::Error)]
#[error("could not make a QR code of {length} bytes")]
pub struct QrError {
    length: usize,
    #[source]
    source: qrcode::types::QrError,
}

/// A QR code as one SVG path in a square of its own, with the quiet zone of four modules that readers need.
///
/// # Errors
/// When the text is longer than the largest code holds (about 2,300 bytes at level M).
pub fn qr_svg(text: &str) -> Result<String, QrError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M)
        .or_else(|_| QrCode::with_error_correction_level(text, EcLevel::L))
        .map_err(|source| QrError { length: text.len(), source })?;
    let width = code.width();
    let side = width + 8;
    let mut path = String::new();
    for (row, colors) in code.to_colors().chunks(width).enumerate() {
        let mut column = 0;
        while column < width {
            let run = colors[column..].iter().take_while(|color| **color == Color::Dark).count();
            if run > 0 {
                let _ = write!(path, "M{} {}h{run}v1h-{run}z", column + 4, row + 4);
            }
            column += run.max(1);
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
    ))
}
