//! `muneem serve`, the built binary, on a database of its own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use muneem_jobs::{MIGRATOR, people::BusinessId, queue};
use muneem_postgres::testing::TestDb;
use muneem_tests::{PATIENCE, binary::Running, until};
use uuid::Uuid;

/// A collector of traces: hands over each request's head and body.
pub(crate) fn collector() -> (SocketAddr, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("an address");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some(request) = read_request(stream) {
                let _ = tell.send(request);
            }
        }
    });
    (at, told)
}

fn read_request(mut stream: TcpStream) -> Option<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        seen.extend_from_slice(&part[..read]);
        let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
        let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.trim().parse().ok()?;
        if seen.len() >= end + 4 + length {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
            return Some((head, seen[end + 4..].to_vec()));
        }
    }
}

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

async fn get(url: String) -> Option<(u16, String)> {
    let client = muneem::outbound::http::client(muneem::outbound::http::Timeouts::DEFAULT).expect("a client");
    let answer = client.get(url).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_their_own_process_run_jobs_show_metrics_send_traces_and_end_in_peace() {
    let db = TestDb::new(&MIGRATOR).await;
    let mut conn = db.pool().acquire().await.unwrap();
    muneem_jobs::schema::migrate(&mut conn).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let (collector, told) = collector();
    let watched = free_address();
    let running = Running::start(
        &["serve", "--only", "workers"],
        home.path(),
        &[
            ("DATABASE_URL", db.app_url()),
            ("MUNEEM__TELEMETRY__LISTEN", watched.to_string()),
            ("MUNEEM__TELEMETRY__OTLP_ENDPOINT", format!("http://{collector}/v1/traces")),
            ("MUNEEM__TELEMETRY__FORMAT", "json".to_owned()),
        ],
    );
    until("it is ready", || async {
        get(format!("http://{watched}/health/ready")).await.is_some_and(|(code, _)| code == 200)
    })
    .await;
    let business = BusinessId(Uuid::from_u128(1));
    sqlx::query("insert into muneem.people_businesses (business_id, handle, legal_name, created_at) values ($1, 'one', 'One', now())")
        .bind(business.0)
        .execute(&mut *conn)
        .await
        .unwrap();
    let job = queue::NewJob::of(business, &queue::ReapLeases {}).unwrap();
    let id = queue::enqueue(&mut conn, &job).await.unwrap();
    until("the job is done", || async {
        let mut conn = db.pool().acquire().await.unwrap();
        queue::find_job(&mut conn, id).await.unwrap().is_some_and(|job| job.state == queue::JobState::Done)
    })
    .await;
    let (_, metrics) = get(format!("http://{watched}/metrics")).await.unwrap();
    assert!(metrics.contains(r#"muneem_jobs_ended_total{kind="queue.reap_leases",outcome="done"} 1"#), "{metrics}");
    assert_eq!(get(format!("http://{watched}/v1/queue/jobs")).await.map(|(code, _)| code), Some(404), "no API here");

    let (in_peace, said) = running.terminate();
    assert!(in_peace, "{said}");
    let left: i64 =
        sqlx::query_scalar("select count(*) from muneem.queue_workers").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(left, 0, "it left its lease behind: {said}");
    let (head, body) =
        told.recv_timeout(PATIENCE.max(Duration::from_secs(1))).expect("the last traces are sent at the end");
    assert!(head.starts_with("post /v1/traces"), "{head}");
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("queue.reap_leases") && text.contains("muneem"), "{text}");
    for line in said.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not a JSON line: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_more_than_serve_does_not_serve() {
    let db = TestDb::new(&MIGRATOR).await;
    let home = tempfile::tempdir().unwrap();
    let refused = std::process::Command::new(muneem_tests::binary::path())
        .args(["serve", "--only", "workers"])
        .env_clear()
        .env("HOME", home.path())
        .env("DATABASE_URL", db.url())
        .current_dir(home.path())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("create role muneem_serve login password"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_owners_link_names_the_port_that_the_system_chose() {
    let db = TestDb::new(&MIGRATOR).await;
    muneem_jobs::schema::migrate(&mut db.pool().acquire().await.unwrap()).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(
        &["serve"],
        home.path(),
        &[("DATABASE_URL", db.app_url()), ("MUNEEM__SERVER__LISTEN", "127.0.0.1:0".to_owned())],
    );
    let file = home.path().join(".local/share/muneem/first-owner");
    let link = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the link is there", || async { link().ends_with('\n') }).await;
    let link = link().trim().replace("http://localhost:", "http://127.0.0.1:");
    assert!(!link.starts_with("http://127.0.0.1:0/"), "{link}");
    // Over the address it is led to the name, on the same port: there the pages of this console are.
    until("its pages are there", || async { get(link.clone()).await.is_some_and(|(code, _)| code == 200) }).await;
    let (in_peace, said) = running.terminate();
    assert!(in_peace, "{said}");
}
