//! What strangers, the carrier and the line itself try with webhooks; numbers as in `docs/security.md`.

use std::io::{Read, Write};

use super::*;

/// Statuses of the shop's number, as the carrier posts them.
fn statuses(number: &str, all: &[Value]) -> String {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": Options::ACCOUNT, "changes": [{ "field": "messages",
        "value": { "messaging_product": "whatsapp", "metadata": { "phone_number_id": number }, "statuses": all } }] }] })
    .to_string()
}

fn status(wamid: &str, status: &str, at: i64, reference: Option<&str>) -> Value {
    let mut told = json!({ "id": wamid, "status": status, "timestamp": at.to_string(), "recipient_id": ASHA });
    if let Some(reference) = reference {
        told["biz_opaque_callback_data"] = json!(reference);
    }
    if status == "failed" {
        told["errors"] = json!([{ "code": 131_026, "title": "Message undeliverable" }]);
    }
    told
}

/// Something that somebody wrote to the shop.
fn written(from: &str, wamid: &str, at: &Value, text: &str) -> String {
    json!({ "entry": [{ "id": Options::ACCOUNT, "changes": [{ "field": "messages", "value": {
        "metadata": { "phone_number_id": Options::NUMBER }, "messages": [{ "id": wamid, "from": from, "type": "text",
            "timestamp": at, "text": { "body": text } }] } }] }] })
    .to_string()
}

impl Shop {
    /// A message that the carrier took and of which nothing is heard; the reference of its attempt.
    async fn silent(&self, to: &str) -> (MessageId, String) {
        self.fault(json!("vanish")).await;
        let id = self.request(to, Policy::AtLeastOnce).await;
        self.until(id, State::Accepted).await;
        let reference = sqlx::query_scalar("select ref from muneem.messaging_attempts where message_id = $1")
            .bind(id.0)
            .fetch_one(&self.db.pool())
            .await
            .expect("an attempt");
        (id, reference)
    }

    async fn take_in(&self, body: &str) {
        assert_eq!(self.post_webhook(body, self.sign(body)).await, 200);
        self.run_due_jobs(None).await;
    }
}

#[tokio::test]
async fn atk_002_without_an_app_secret_no_webhook_is_believed() {
    let shop = Shop::open().await;
    let intake = |credentials| Intake {
        db: shop.deps.db.clone(),
        clock: Arc::clone(&shop.deps.clock),
        chance: Arc::clone(&shop.deps.chance),
        vault: Arc::clone(&shop.deps.vault),
        credentials,
        body_limit_bytes: 4 << 20,
    };
    let empty = Credentials { app_secrets: vec![String::new().into()], ..shop.credentials.clone() };
    for credentials in [None, Some(empty)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/webhooks/whatsapp", listener.local_addr().expect("bound"));
        let (app, until) = (routes(intake(credentials)), shop.end.clone());
        tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(until.cancelled_owned()).await });
        let body = statuses(Options::NUMBER, &[status("wamid.X", "sent", 1_764_000_000, None)]);
        // Signed with nothing, which is what an empty secret comes to; and with a secret that is somebody's.
        for secret in ["", "sandbox-app-secret"] {
            let signature = hex::encode(messaging::sign(&secret.to_owned().into(), body.as_bytes()));
            let request = shop.http.post(&url).header("x-hub-signature-256", format!("sha256={signature}"));
            let answer = request.body(body.clone()).send().await.expect("an answer");
            assert_eq!(answer.status(), 403, "{secret:?}");
        }
        let handshake = format!("{url}?hub.mode=subscribe&hub.verify_token=&hub.challenge=1");
        assert!(
            shop.http.get(handshake).send().await.expect("an answer").status() == 403,
            "an empty word is nobody's verify token"
        );
    }
    assert_eq!((shop.count("webhooks").await, shop.count("jobs").await), (0, 0));
}

#[tokio::test]
async fn atk_004_a_body_replayed_at_any_time_and_an_older_word_later_change_nothing() {
    let shop = Shop::open().await;
    let (id, reference) = shop.silent(ASHA).await;
    let now = shop.clock.now().timestamp();
    let read = statuses(Options::NUMBER, &[status("wamid.A", "read", now, Some(&reference))]);
    shop.take_in(&read).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Read);
    for later in [TimeDelta::seconds(1), TimeDelta::hours(1), TimeDelta::days(10)] {
        shop.advance(later).await;
        shop.take_in(&read).await;
        assert_eq!((shop.count("webhooks").await, shop.count("events").await), (1, 1), "{later}");
    }
    // The same event in another body, and older ones in bodies that are new.
    for (nth, word) in ["read", "delivered", "sent"].iter().enumerate() {
        let at = now - i64::try_from(nth).expect("few");
        let mut body: Value =
            serde_json::from_str(&statuses(Options::NUMBER, &[status("wamid.A", word, at, Some(&reference))]))
                .expect("JSON");
        body["entry"][0]["time"] = json!(now + 5);
        shop.take_in(&body.to_string()).await;
        assert_eq!(shop.timeline(id).await.message.state, State::Read, "{word}");
    }
    let timeline = shop.timeline(id).await;
    assert_eq!((timeline.events.len(), timeline.attempts.len()), (3, 1), "{:?}", timeline.events);
    assert_eq!(shop.evidence("messaging.message_delivered").await, 1);
}

#[tokio::test]
async fn atk_006_a_word_about_anothers_message_finds_nothing() {
    let other = Number::new("200000001", "300000001", "Kaveri Retail", Phone::parse("9800000002").expect("a mobile"));
    let shop = Shop::open_beside(None, vec![other.clone()]).await;
    let kaveri = BusinessId(shop.deps.chance.uuid_v7(shop.clock.now()));
    sqlx::query("insert into muneem.people_businesses values ($1, 'kaveri-retail', 'Kaveri Retail', now())")
        .bind(kaveri.0)
        .execute(&shop.db.pool())
        .await
        .expect("a business");
    let account = messaging::Account {
        business: kaveri,
        number: NumberId::parse(&other.id).expect("digits"),
        waba_id: other.waba_id.clone(),
        display_phone: other.display_phone,
    };
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    messaging::set_account(&mut conn, &account, &By::operator(shop.clock.now(), &OsChance)).await.expect("an account");
    drop(conn);
    let (id, reference) = shop.silent(ASHA).await;
    let now = shop.clock.now().timestamp();
    // Under the number of another business, with the right reference; then under a number that is nobody's.
    let told = [status("wamid.A", "read", now, Some(&reference)), status("wamid.A", "failed", now, Some(&reference))];
    for number in [other.id.as_str(), "999999999"] {
        shop.take_in(&statuses(number, &told)).await;
        let timeline = shop.timeline(id).await;
        assert_eq!((timeline.message.state, timeline.events.len()), (State::Accepted, 0), "{number}");
    }
    // A reference that nobody gave, on the right number.
    shop.take_in(&statuses(Options::NUMBER, &[status("wamid.Z", "failed", now, Some("w1.nobody.1.x"))])).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Accepted);
    let (kept, unmatched): (i64, i64) =
        sqlx::query_as("select count(*), count(*) filter (where state = 'unmatched') from muneem.messaging_webhooks")
            .fetch_one(&shop.db.pool())
            .await
            .expect("counts");
    assert_eq!((kept, unmatched), (3, 1), "every body is kept, and the one of nobody says so");
}

#[tokio::test]
async fn atk_007_statuses_in_any_order_only_ever_lead_forward() {
    let shop = Shop::open().await;
    let now = shop.clock.now().timestamp();
    for (place, (told, end)) in [
        (&["read"][..], State::Read),
        (&["delivered", "sent"], State::Delivered),
        (&["read", "delivered", "sent", "sent"], State::Read),
        (&["delivered", "failed"], State::Delivered),
        (&["read", "failed", "sent"], State::Read),
        (&["sent", "failed", "sent"], State::Failed),
        (&["failed", "delivered"], State::Delivered),
        (&["sent", "teleported"], State::Sent),
    ]
    .into_iter()
    .enumerate()
    {
        let (id, reference) = shop.silent(&format!("91982000{place:04}")).await;
        for (nth, word) in told.iter().enumerate() {
            let at = now + i64::try_from(nth).expect("few");
            let wamid = format!("wamid.{place}");
            shop.take_in(&statuses(Options::NUMBER, &[status(&wamid, word, at, Some(&reference))])).await;
        }
        let timeline = shop.timeline(id).await;
        assert_eq!((timeline.message.state, timeline.attempts.len()), (end, 1), "{told:?}");
        // Contradictions are kept as they were told.
        let mut different: Vec<_> = told.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(timeline.events.len(), different.len(), "{told:?}: {:?}", timeline.events);
    }
}

/// Posts raw bytes, and answers the first line that comes back.
async fn raw(at: SocketAddr, head: String, body: impl Iterator<Item = Vec<u8>> + Send + 'static) -> String {
    tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(at).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        // Who is refused meanwhile may find the line closed.
        let mut open = stream.write_all(head.as_bytes()).is_ok();
        for part in body {
            open = open && stream.write_all(&part).is_ok();
        }
        let mut answer = Vec::new();
        let mut part = [0; 512];
        while !answer.contains(&b'\n') {
            match stream.read(&mut part) {
                Ok(read) if read > 0 => answer.extend_from_slice(&part[..read]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    })
    .await
    .expect("it ends")
}

fn kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_009_bodies_and_heads_without_end_are_refused_and_cost_little() {
    let shop = Shop::open().await;
    let head = |more: &str| format!("POST /webhooks/whatsapp HTTP/1.1\r\nhost: x\r\n{more}\r\n\r\n");
    let before = kilobytes();
    let signed = format!("x-hub-signature-256: sha256={}\r\n", "0".repeat(64));
    // Without a signature, or too long by its own word: refused unread.
    let unsigned = raw(shop.receiver, head("content-length: 1000"), std::iter::empty()).await;
    assert!(unsigned.contains(" 401 "), "{unsigned}");
    let hundred = head(&format!("{signed}content-length: 104857600"));
    let hundred = raw(shop.receiver, hundred, std::iter::empty()).await;
    assert!(hundred.contains(" 413 "), "{hundred}");
    // Not said how long: read as far as the limit. Who goes on writing may find the line closed before the answer.
    let endless = (0..100).map(|_| [&b"100000\r\n"[..], &[b'x'; 1 << 20], b"\r\n"].concat());
    let chunked = raw(shop.receiver, head(&format!("{signed}transfer-encoding: chunked")), endless).await;
    assert!(chunked.is_empty() || chunked.contains(" 413 "), "{chunked}");
    let grown = kilobytes() - before;
    assert!(grown < 64 * 1024, "{grown} kB for what was refused");
    let lines: String = (0..10_000).map(|line| format!("x-{line}: y\r\n")).collect();
    let many = raw(shop.receiver, head(lines.trim_end()), std::iter::empty()).await;
    assert!(many.contains(" 431") || many.contains(" 400"), "{many}");
    assert_eq!(shop.count("webhooks").await, 0);
    // And whoever comes next is served.
    shop.hear_something("wamid.NEXT").await;
    assert_eq!(shop.count("webhooks").await, 1);
}

#[tokio::test]
async fn atk_010_a_compressed_body_is_taken_as_the_bytes_it_is() {
    let shop = Shop::open().await;
    // A gzip stream that says of itself that it holds a gigabyte; nobody looks inside.
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    bomb.extend([0xed, 0xc1, 1, 1].repeat(64));
    bomb.extend([0, 0, 0, 0, 0, 0, 0, 0x40]);
    let before = kilobytes();
    let signature = hex::encode(messaging::sign(&shop.credentials.app_secrets[0], &bomb));
    for encoding in ["gzip", "br", "zstd"] {
        let url = format!("http://{}/webhooks/whatsapp", shop.receiver);
        let request = shop.http.post(url).header("x-hub-signature-256", format!("sha256={signature}"));
        let answer = request.header("content-encoding", encoding).body(bomb.clone()).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{encoding}");
    }
    assert!(kilobytes() - before < 16 * 1024);
    let states: Vec<String> = sqlx::query_scalar("select state from muneem.messaging_webhooks")
        .fetch_all(&shop.db.pool())
        .await
        .expect("rows");
    assert_eq!(states, ["unreadable"], "kept once as it came, for a person to look at");
}

#[tokio::test]
async fn atk_013_times_that_cannot_be_bind_nobody() {
    let shop = Shop::open().await;
    let now = shop.clock.now().timestamp();
    // A word to stop that says that it was written tomorrow does not outweigh what she writes after it.
    let tomorrow = json!((now + 86_400).to_string());
    shop.take_in(&written(RAVI, "wamid.STOP", &tomorrow, "STOP")).await;
    let stopped = shop.request(RAVI, Policy::AtLeastOnce).await;
    assert_eq!(shop.until(stopped, State::Skipped).await.message.skipped_because.as_deref(), Some("stopped"));
    shop.advance(TimeDelta::seconds(2)).await;
    shop.take_in(&written(RAVI, "wamid.START", &json!((now + 2).to_string()), "START")).await;
    let again = shop.request(RAVI, Policy::AtLeastOnce).await;
    shop.until(again, State::Read).await;
    // None, no number, milliseconds, before everything: heard when it came.
    let hours = [json!("0"), json!("-5"), json!("1764000000000"), json!("soon"), json!(1e300), Value::Null];
    for (place, at) in hours.iter().enumerate() {
        let from = format!("91982111{place:04}");
        shop.take_in(&written(&from, &format!("wamid.{place}"), at, "STOP")).await;
        let id = shop.request(&from, Policy::AtLeastOnce).await;
        let message = shop.until(id, State::Skipped).await.message;
        assert_eq!(message.skipped_because.as_deref(), Some("stopped"), "{at}");
    }
    // Of a status both are kept: the carrier's time, and ours.
    let (id, reference) = shop.silent(ASHA).await;
    let day = now + 86_400;
    shop.take_in(&statuses(Options::NUMBER, &[status("wamid.A", "delivered", day, Some(&reference))])).await;
    let event = shop.timeline(id).await.events.pop().expect("an event");
    assert_eq!(event.at.timestamp(), day);
    assert!((event.received_at - shop.clock.now()).abs() < TimeDelta::minutes(1), "{event:?}");
}

#[tokio::test]
async fn atk_022_what_somebody_sends_is_never_fetched_by_the_address_in_it() {
    let shop = Shop::open().await;
    let trap = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    trap.set_nonblocking(true).expect("it may");
    let inside = format!("http://{}/latest/meta-data/", trap.local_addr().expect("bound"));
    let now = shop.clock.now().timestamp().to_string();
    let messages: Vec<_> = ["image", "document", "audio", "video", "sticker"]
        .iter()
        .map(|kind| {
            json!({ "id": format!("wamid.{kind}"), "from": RAVI, "type": kind, "timestamp": now,
                kind.to_owned(): { "id": "77", "url": inside, "link": inside, "caption": inside, "mime_type": "text/html" },
                "referral": { "source_url": inside, "image_url": inside } })
        })
        .collect();
    let body = json!({ "entry": [{ "id": Options::ACCOUNT, "changes": [{ "field": "messages", "value": {
        "metadata": { "phone_number_id": Options::NUMBER }, "messages": messages } }] }] });
    shop.take_in(&body.to_string()).await;
    assert_eq!(shop.count("events").await, 5);
    assert!(trap.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "somebody called");
}

#[tokio::test]
async fn atk_101_nothing_that_a_table_holds_in_clear_spells_a_recipient() {
    let shop = Shop::open().await;
    shop.fault(json!({ "refuse": { "code": 131_026 } })).await;
    let id = shop.request(RAVI, Policy::AtLeastOnce).await;
    shop.until(id, State::Failed).await;
    shop.take_in(&written(RAVI, "wamid.STOP", &json!(shop.clock.now().timestamp().to_string()), "STOP")).await;
    for table in ["messages", "attempts", "events", "webhooks", "contacts", "suppressions", "pairs"] {
        let statement = format!("select count(*) from muneem.messaging_{table} t where t::text like '%' || $1 || '%'");
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .bind(&RAVI[2..])
            .fetch_one(&shop.db.pool())
            .await
            .expect("a count");
        assert_eq!(found, 0, "muneem.messaging_{table}");
    }
}
