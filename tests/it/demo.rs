//! `muneem demo --exit`, the built binary, from an empty directory to its end.

use std::process::{Command, Stdio};

#[test]
fn the_demo_tells_its_story_and_ends_with_status_0_only_if_all_of_it_happened() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let told = Command::new(muneem_tests::binary::path())
        .args(["demo", "--exit", "--dir"])
        .arg(home.path().join("demo"))
        .env_remove("DATABASE_URL")
        .env("XDG_DATA_HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let story = String::from_utf8_lossy(&told.stdout);
    let complaints = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{}\n{story}\n{complaints}", told.status);

    let mut rest = &*story;
    for part in [
        "buys a phone and a tempered glass for ₹15,298: order 1001, payment and job ",
        "The invoice SM/26-27/00001 is checked and recorded",
        "Its PDF is made",
        "It is posted to WhatsApp",
        "A signed webhook says: delivered",
        "kill -9",
        "The last of the invoices is read",
        "held     13 of 13 invoices delivered and read, both stored",
        "held     13 messages on the phones, each once",
        "held     13 PDFs read page by page",
        "held     numbers without a gap: SM/26-27/00001 to SM/26-27/00013",
        "held     0 jobs left, 0 dead",
        "held     a worker was killed with",
    ] {
        let Some(at) = rest.find(part) else { panic!("`{part}` is missing or out of order:\n{story}\n{complaints}") };
        rest = &rest[at..];
    }
    assert!(!story.contains("NOT HELD"), "{story}");
    assert!(complaints.is_empty(), "{complaints}");
}
