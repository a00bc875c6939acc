//! Heads of the evidence log laid down outside, for real: an authority by OpenSSL, an S3 store by moto, a mail server by
//! the sandbox; and what somebody who holds them can tell from them alone.

mod authority;
mod mails;
mod objects;
mod timestamps;
mod whole;

/// Says that a test is left out for want of a program, and fails where completeness is asked for.
#[expect(clippy::print_stdout, reason = "whoever reads the tests' output must see it")]
fn skipped(needs: &str) {
    println!("SKIPPED: needs {needs}");
    assert!(std::env::var_os("MUNEEM_TESTS_COMPLETE").is_none(), "needs {needs}");
}
