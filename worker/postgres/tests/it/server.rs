//! Start, stop, and what a crash or a stranger left in the directory.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::sync::{Arc, Mutex};

use muneem_postgres::testing::seed;
use muneem_postgres::{Error, Search, Server};

use super::{folder, is_root, options, seeded, skip, sql};

#[test]
fn a_restart_keeps_the_data_and_the_settings_are_safe() {
    let dir = folder();
    let mut options = options(dir.path());
    options.durable = true;
    options.extra_settings.push(("work_mem".into(), "5MB".into()));
    let server = Server::start(&options).unwrap();
    assert_eq!(sql(&server, &["create table kept (id int)", "insert into kept values (1)"], "show fsync"), "on");
    let pid = server.pid().unwrap();
    drop(server);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    assert!(!fs::exists(dir.path().join("postgres/data/postmaster.pid")).unwrap());

    let server = Server::start(&options).unwrap();
    assert_eq!(sql(&server, &[], "select count(*)::text from kept"), "1");
    assert_eq!(sql(&server, &[], "show synchronous_commit"), "on");
    assert_eq!(sql(&server, &[], "show full_page_writes"), "on");
    assert_eq!(sql(&server, &[], "show listen_addresses"), "");
    assert_eq!(sql(&server, &[], "show work_mem"), "5MB");
    assert_eq!(fs::metadata(server.socket_dir()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let dir = folder();
    let options = seeded(dir.path());
    let server = std::thread::spawn(move || Server::start(&options).unwrap()).join().unwrap();
    assert_eq!(sql(&server, &[], "select 'here'"), "here");
    assert!(server.is_running());
}

#[test]
fn an_interrupted_initdb_is_begun_again() {
    let dir = folder();
    let half = dir.path().join("postgres/data.new/base");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("half"), "written").unwrap();
    let server = Server::start(&options(dir.path())).unwrap();
    assert_eq!(sql(&server, &[], "select 'fresh'"), "fresh");
    assert!(!fs::exists(dir.path().join("postgres/data.new")).unwrap());
}

#[test]
fn a_killed_server_recovers_and_a_stale_pid_of_a_living_stranger_is_no_obstacle() {
    let dir = folder();
    let mut options = seeded(dir.path());
    options.durable = true;
    let mut server = Server::start(&options).unwrap();
    sql(&server, &["create table kept (id int)", "insert into kept values (1), (2)"], "select 'written'");
    server.kill();
    drop(server);
    // As after a reboot: the number in the file now belongs to another process, which lives (this one).
    let pid_file = dir.path().join("postgres/data/postmaster.pid");
    let stale = fs::read_to_string(&pid_file).unwrap();
    let rest = stale.split_once('\n').unwrap().1;
    fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();
    let server = Server::start(&options).unwrap();
    assert_eq!(sql(&server, &[], "select count(*)::text from kept"), "2");
}

#[test]
fn a_path_too_long_for_a_socket_gets_a_short_one() {
    let dir = folder();
    let mut options = options(dir.path());
    options.dir = dir.path().join("long".repeat(30)).join("postgres");
    seed(&options.dir);
    let server = Server::start(&options).unwrap();
    assert!(server.socket_dir().as_os_str().len() < 90, "{}", server.socket_dir().display());
    assert_eq!(sql(&server, &[], "select 'reached'"), "reached");
    let socket_dir = server.socket_dir().to_owned();
    drop(server);
    assert!(!fs::exists(socket_dir).unwrap());
}

#[test]
fn data_of_another_major_version_is_refused_with_the_mend() {
    let dir = folder();
    let options = seeded(dir.path());
    drop(Server::start(&options).unwrap());
    fs::write(dir.path().join("postgres/data/PG_VERSION"), "14\n").unwrap();
    let error = Server::start(&options).unwrap_err();
    assert!(matches!(error, Error::WrongMajor { wanted: 14, .. }), "{error}");
    assert!(error.to_string().contains("apt-get install postgresql-14"), "{error}");
}

#[test]
fn a_machine_without_postgres_is_told_what_to_install() {
    let dir = folder();
    let mut options = options(dir.path());
    options.search = Search::nowhere();
    let error = Server::start(&options).unwrap_err().to_string();
    assert!(error.contains("apt-get install postgresql") && error.contains("PG_BIN_DIR"), "{error}");

    options.search.bin_dir = Some(dir.path().to_owned());
    let error = Server::start(&options).unwrap_err();
    assert!(matches!(error, Error::BadBinDir { .. }), "{error}");
}

#[test]
fn a_setting_the_server_refuses_is_quoted() {
    let dir = folder();
    let mut options = seeded(dir.path());
    options.extra_settings.push(("shared_buffers".into(), "plenty".into()));
    let error = Server::start(&options).unwrap_err().to_string();
    assert!(error.contains("shared_buffers"), "{error}");
}

#[test]
fn a_directory_closed_to_roots_user_is_replaced_and_said() {
    if !is_root() {
        println!("as a normal user there is nobody to lend to");
        return;
    }
    let dir = folder();
    let closed = dir.path().join("closed");
    fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let mut options = options(&closed);
    options.root_dir = dir.path().join("instead");
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let hear = Arc::clone(&said);
    options.say = Some(Arc::new(move |line| hear.lock().unwrap().push(line.to_owned())));
    let server = Server::start(&options).unwrap();
    assert!(server.dir().starts_with(&options.root_dir));
    assert_eq!(sql(&server, &["create table kept (id int)"], "select 'here'"), "here");
    let line = said.lock().unwrap().iter().find(|line| line.contains("is closed to")).cloned();
    assert!(line.is_some_and(|line| line.contains(&server.dir().display().to_string())));
    drop(server);
    // Opened later: the data that exists is used, not a new and empty one.
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::start(&options).unwrap();
    assert_eq!(sql(&server, &[], "select count(*)::text from kept"), "0");
}

#[test]
fn all_of_it_works_for_a_normal_user() {
    const NOBODY: &str = "65534";
    if !is_root() {
        println!("the other tests showed it");
        return;
    }
    if std::process::Command::new("setpriv").arg("--version").output().is_err() {
        return skip("setpriv (apt-get install util-linux)");
    }
    let dir = folder();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let copy = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    // The tag makes this a test run with a server of its own.
    fs::write(dir.path().join("CACHEDIR.TAG"), "").unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(&copy)
        .args(["a_restart_keeps", "a_killed_program", "the_app_login"])
        .current_dir("/")
        .env("HOME", dir.path())
        .env("TMPDIR", dir.path())
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("3 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
