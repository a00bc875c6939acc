//! A migration is compiled in: editing one builds this crate anew.
fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
