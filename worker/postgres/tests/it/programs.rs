//! Programs that end badly, and two programs at once. The programs are this test binary, run again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use muneem_postgres::testing::{TestDb, seed};
use muneem_postgres::{Error, Server};

use super::{folder, options, sql, wait_until};

const DIR: &str = "MUNEEM_POSTGRES_TEST_DIR";
const END: &str = "MUNEEM_POSTGRES_TEST_END";

/// Not a test but the program: starts a server, says so, and waits for its end.
#[test]
fn program() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let server = Server::start(&options(Path::new(&dir))).unwrap();
    sql(&server, &["create table kept (id int)", "insert into kept values (1)"], "select 'written'");
    println!("\nready {}", server.pid().unwrap());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    std::process::abort();
}

/// Not a test but a test process: takes a database, says where, and waits to be killed.
#[tokio::test]
async fn test_process() {
    if std::env::var_os(END).is_none() {
        return;
    }
    let db = TestDb::empty().await;
    println!("\nready {}", db.url());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// Runs this binary (or a copy of it) as one of the above; returns what it said when it was ready.
fn start(exe: &Path, test: &str, variable: &str, value: &Path) -> (Child, String) {
    let mut child = Command::new(exe)
        .args(["--exact", test, "--nocapture"])
        .env(variable, value)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this binary runs");
    let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
    let ready = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
    (child, ready.expect("the program starts"))
}

fn program_in(dir: &Path) -> (Child, String) {
    seed(&dir.join("postgres"));
    start(&std::env::current_exe().expect("a path"), "programs::program", DIR, dir)
}

fn gone(pid: &str) -> bool {
    !fs::exists(format!("/proc/{pid}/cwd")).unwrap_or(false)
}

#[test]
fn a_second_program_is_refused_and_the_first_is_not_disturbed() {
    let dir = folder();
    let (mut first, server_pid) = program_in(dir.path());
    let error = Server::start(&options(dir.path())).unwrap_err();
    assert!(matches!(&error, Error::InUse { holder, .. } if *holder == first.id().to_string()), "{error}");
    assert!(!gone(&server_pid));
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_killed_program_takes_its_server_along_and_the_next_start_works_at_once() {
    let dir = folder();
    let (mut killed, server_pid) = program_in(dir.path());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let server = Server::start(&options(dir.path())).unwrap();
    assert!(gone(&server_pid) && server.pid().unwrap().to_string() != server_pid);
    assert_eq!(sql(&server, &[], "select count(*)::text from kept"), "1");
}

#[test]
fn an_aborted_program_leaves_no_server() {
    let dir = folder();
    let (mut aborted, server_pid) = program_in(dir.path());
    drop(aborted.stdin.take());
    assert!(!aborted.wait().unwrap().success());
    wait_until("the server's end", || gone(&server_pid));
}

#[test]
fn a_killed_test_process_leaves_nothing() {
    let dir = folder();
    let copy = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    // The tag makes this a test run with a server of its own.
    fs::write(dir.path().join("CACHEDIR.TAG"), "").unwrap();
    let (mut process, url) = start(&copy, "programs::test_process", END, dir.path());
    let base = Path::new(url.split_once("host=").unwrap().1).ancestors().nth(2).unwrap().to_owned();
    assert!(base.join("server/data").exists(), "{}", base.display());
    process.kill().unwrap();
    process.wait().unwrap();
    wait_until("the end of the folder", || !base.exists());
}
