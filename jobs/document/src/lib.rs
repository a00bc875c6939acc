//! PDF documents by typst, in a crate of its own so that nothing else waits for it to build.
//!
//! A [`Template`] is typst source compiled into the binary; data reaches it as JSON through `sys.inputs` and is never
//! pasted into source, so nothing that a customer wrote can become code. The world a template sees holds its own
//! source, our fonts and nothing more: no file, no package, no network, no clock. Equal input gives equal bytes.
//!
//! Output is PDF/A-3a (ISO 19005-3: lasts, tagged, machine-readable copy attached) and PDF/UA-1 (ISO 14289-1: can be
//! read aloud).

mod fonts;
mod qr;
mod render;

pub use fonts::find_missing_sign;
pub use qr::{QrError, qr_svg};
pub use render::{Error, Options, Template, render};
