//! Where the real sender connects, and where not.

use std::{
    net::IpAddr,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use muneem::outbound::webhook::Lookup;
use muneem_jobs::outbound::webhook::{WebhookCall, WebhookFailure, WebhookOutcome, WebhookSender, WebhookUrl};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::*;

fn call(url: WebhookUrl) -> WebhookCall {
    let (id, signature) = ("evt_1".to_owned(), "v1,AAAA".to_owned());
    WebhookCall { url, id, timestamp: 1, signature, body: Bytes::from_static(b"{}") }
}

fn sender(loopback: bool, lookup: Option<Lookup>) -> Receivers {
    let total = Duration::from_secs(2);
    Receivers::new(SenderSettings { total, lookup, ..SenderSettings::new(loopback) }).expect("a client")
}

/// A resolver that answers its first question with the first list, and so on; the last stays.
fn resolver(answers: &[&[&str]]) -> (Lookup, Arc<AtomicUsize>) {
    let answers: Vec<Vec<IpAddr>> =
        answers.iter().map(|list| list.iter().map(|address| address.parse().expect("an address")).collect()).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_| {
        let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let answer = answers[at].clone();
        Box::pin(async move { Ok(answer) })
    });
    (lookup, asked)
}

async fn fails(sender: &Receivers, url: &str, loopback: bool) -> WebhookFailure {
    let url = WebhookUrl::parse(url, loopback).unwrap_or_else(|error| panic!("{url}: {error}"));
    let WebhookOutcome { answer, .. } = sender.post(&call(url)).await;
    answer.expect_err("nobody is reached")
}

#[tokio::test]
async fn atk_014_a_name_of_an_inner_network_is_refused_when_it_is_connected_to() {
    for inner in [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fd00:ec2::254",
        "224.0.0.1",
    ] {
        let (lookup, asked) = resolver(&[&[inner]]);
        let failure = fails(&sender(false, Some(lookup)), "https://hooks.example.in/", false).await;
        assert_eq!((failure, asked.load(Ordering::SeqCst)), (WebhookFailure::Address, 1), "{inner}");
    }
    let (lookup, _) = resolver(&[&[]]);
    assert_eq!(fails(&sender(false, Some(lookup)), "https://hooks.example.in/", false).await, WebhookFailure::Name);
}

#[tokio::test]
async fn atk_017_a_name_that_leads_elsewhere_a_moment_later_or_to_both_is_refused() {
    let receiver = Receiver::open().await;
    let url = format!("http://localhost:{}/", receiver.at.port());
    // Inner at the first look already, and again at each.
    for answers in
        [&["8.8.8.8", "10.0.0.1"][..], &["10.0.0.1", "8.8.8.8"], &["2606:4700:4700::1111", "::ffff:10.0.0.1"]]
    {
        let (lookup, _) = resolver(&[answers]);
        let failure = fails(&sender(false, Some(lookup)), "https://hooks.example.in/", false).await;
        assert_eq!(failure, WebhookFailure::Address, "{answers:?}");
    }
    // Good at the first connection, inner at the second: each is looked at by itself.
    let (lookup, asked) = resolver(&[&["127.0.0.1"], &["10.0.0.1"]]);
    let sender = sender(true, Some(lookup));
    receiver.always(receiver::Reply::Status(200, "connection: close\r\n"));
    let good = WebhookUrl::parse(&url, true).expect("a receiver here");
    let answer = sender.post(&call(good)).await.answer.expect("reached");
    assert_eq!((answer.status, receiver.count()), (200, 1));
    assert_eq!(fails(&sender, &url, true).await, WebhookFailure::Address);
    assert_eq!((receiver.connections(), asked.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn addresses_in_the_url_itself_are_looked_at_by_who_sends() {
    let receiver = Receiver::open().await;
    // As from a sandbox that became real: stored by laxer rules.
    let url = WebhookUrl::parse(&receiver.url(), true).expect("a receiver here");
    let outcome = sender(true, None).post(&call(url.clone())).await;
    assert_eq!(outcome.answer.expect("reached").status, 204);
    let outcome = sender(false, None).post(&call(url)).await;
    assert!(outcome.answer.is_err() && receiver.count() == 1, "plain http is not for production");
}

#[tokio::test]
async fn an_address_that_may_not_be_called_any_more_disables_its_endpoint() {
    let (shop, receiver) = (Shop::open().await, Receiver::open().await);
    let (endpoint, _) = shop.receiver(&receiver).await;
    let sending = Sending::new(Arc::new(sender(false, None)), Settings::DEFAULT);
    let Deps { db, clock, chance, objects, carrier, mailer, vault, messaging, .. } = &*shop.deps;
    let real = Arc::new(Deps {
        db: db.clone(),
        clock: Arc::clone(clock),
        chance: Arc::clone(chance),
        objects: Arc::clone(objects),
        carrier: Arc::clone(carrier),
        mailer: Arc::clone(mailer),
        vault: Arc::clone(vault),
        messaging: messaging.clone(),
        webhooks: sending,
    });
    shop.emit([1]).await;
    let job = shop.claim().await.pop().expect("a job");
    let steps = Arc::new(KillAt { step: None, died: Notify::new() });
    let ctx = JobContext { deps: real, ..shop.context(&job, steps) };
    let payload = json!({ "endpoint_id": endpoint }).to_string();
    Kind::of::<webhooks::Deliver>().run(&payload, &ctx).await.expect("it ends");
    let shown = shop.endpoint(endpoint).await;
    assert_eq!((shown.state.as_str(), shown.reason.as_deref()), ("disabled", Some("address")));
    assert_eq!((receiver.count(), shown.waiting), (0, 1));
}

#[tokio::test]
async fn no_proxy_of_the_environment_is_asked_and_nobody_there_is_told_apart() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    assert_eq!(fails(&sender(true, None), &format!("http://{nobody}/"), true).await, WebhookFailure::Connect);
}

/// Certificates by OpenSSL, as elsewhere: a root, and one for `localhost` below it.
fn certificates() -> Option<(tempfile::TempDir, reqwest::Certificate, tokio_rustls::TlsAcceptor)> {
    let dir = tempfile::tempdir().expect("a directory");
    let openssl = |arguments: &[&str]| Command::new("openssl").args(arguments).current_dir(dir.path()).output();
    if !openssl(&["version"]).is_ok_and(|output| output.status.success()) {
        return None;
    }
    let run = |line: &str| {
        let output = openssl(&line.split_whitespace().collect::<Vec<_>>()).expect("openssl runs");
        assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(dir.path().join("leaf.cnf"), "subjectAltName = DNS:localhost\n").expect("written");
    for name in ["root", "leaf"] {
        run(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"));
    }
    run("req -new -x509 -key root.key -subj /CN=Test-Root -days 30 -out root.pem");
    run("req -new -key leaf.key -subj /CN=localhost -out leaf.csr");
    run("x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 30 -extfile leaf.cnf -out leaf.pem");
    let root = std::fs::read(dir.path().join("root.pem")).expect("the root");
    let chain = CertificateDer::from_pem_file(dir.path().join("leaf.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.path().join("leaf.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a server");
    let root = reqwest::Certificate::from_pem(&root).expect("a root");
    Some((dir, root, tokio_rustls::TlsAcceptor::from(Arc::new(server))))
}

#[tokio::test]
async fn tls_is_checked_by_name_at_the_address_that_was_looked_at() {
    let Some((_dir, root, tls)) = certificates() else {
        eprintln!("skipped: openssl is not there (apt-get install openssl)");
        return;
    };
    let receiver = Receiver::open_tls(Some(tls)).await;
    let reach = async |host: &str, roots: Vec<reqwest::Certificate>| {
        let (lookup, _) = resolver(&[&["127.0.0.1"]]);
        let total = Duration::from_secs(5);
        let settings = SenderSettings { total, roots, lookup: Some(lookup), ..SenderSettings::new(true) };
        let sender = Receivers::new(settings).expect("a client");
        let url = WebhookUrl::parse(&format!("https://{host}:{}/", receiver.at.port()), true).expect("here");
        sender.post(&call(url)).await.answer
    };
    assert_eq!(reach("localhost", vec![root.clone()]).await.map(|answer| answer.status), Ok(204));
    assert_eq!(reach("localhost", Vec::new()).await, Err(WebhookFailure::Tls), "a root that nobody believes");
    assert_eq!(reach("127.0.0.1", vec![root]).await, Err(WebhookFailure::Tls), "a certificate of another name");
    assert_eq!(receiver.count(), 1);
}
