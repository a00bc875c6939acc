//! The muneem binary.
fn main() {}
