//! Messages of every kind: what is refused of them, the window, people, files by link.

use super::*;

fn text(to: &str) -> Value {
    json!({ "messaging_product": "whatsapp", "to": to, "type": "text", "text": { "body": "Good day" } })
}

fn of(kind: &str, content: Value) -> Value {
    let mut message = json!({ "messaging_product": "whatsapp", "to": ASHA, "type": kind });
    message[kind] = content;
    message
}

fn interactive(mut content: Value) -> Value {
    content["body"] = json!({ "text": "Pick one" });
    of("interactive", content)
}

async fn upload(stand: &Stand, mime: &str, bytes: Vec<u8>) -> Value {
    let part = reqwest::multipart::Part::bytes(bytes).file_name("a").mime_str(mime).expect("a type");
    let form = reqwest::multipart::Form::new().text("messaging_product", "whatsapp").part("file", part);
    let request = stand.http.post(stand.url(&format!("{}/media", Options::NUMBER))).bearer_auth(TOKEN).multipart(form);
    Stand::answer(request).await.1
}

#[tokio::test]
async fn every_kind_of_message_is_taken_and_its_mistakes_are_not() {
    let stand = Stand::open().await;
    stand.hear_from(ASHA, "Hello").await;
    let png = upload(&stand, "image/png", vec![1; 40]).await["id"].clone();
    let pdf = upload(&stand, "application/pdf", b"%PDF /Type /Page ".to_vec()).await["id"].clone();
    let button = |id: &str, title: &str| json!({ "type": "reply", "reply": { "id": id, "title": title } });
    let row = |id: &str| json!({ "id": id, "title": "INV-1042", "description": "₹1,180" });
    let list = |rows: Vec<Value>| {
        json!({ "type": "list", "action": { "button": "Open", "sections": [{ "title": "June",
        "rows": rows }] } })
    };
    let buttons = |list: Vec<Value>| json!({ "type": "button", "action": { "buttons": list } });
    let good = [
        text(ASHA),
        of("image", json!({ "id": png, "caption": "See" })),
        of("document", json!({ "id": pdf, "filename": "INV-1042.pdf", "caption": "Your bill" })),
        of("location", json!({ "latitude": 28.6, "longitude": "77.2", "name": "Karol Bagh" })),
        of("contacts", json!([{ "name": { "formatted_name": "Ravi" } }])),
        of("reaction", json!({ "message_id": "wamid.X", "emoji": "👍" })),
        interactive(buttons(vec![button("yes", "Yes"), button("no", "No")])),
        interactive(list(vec![row("1"), row("2")])),
        interactive(json!({ "type": "cta_url", "action": { "parameters": { "display_text": "Open",
                "url": "https://shop.example" } } })),
        interactive(json!({ "type": "button", "header": { "type": "document", "document": { "id": pdf } }, "footer": {
                "text": "f" }, "action": { "buttons": [button("a", "A")] } })),
    ];
    for message in &good {
        let answer = stand.send(message).await;
        assert_eq!(answer.0, 200, "{message} {}", answer.1);
        assert_eq!(answer.1["contacts"][0], json!({ "input": ASHA, "wa_id": "919812345678" }));
    }
    stand.ears.until("ten read", |ears| (ears.of_status("read").len() == 10).then_some(())).await;

    let long = |n: usize| "x".repeat(n);
    let bad = [
        (json!([1]), 100),
        (json!({ "messaging_product": "sms" }), 100),
        (json!({ "messaging_product": "whatsapp", "type": "text", "text": { "body": "x" } }), 131_008),
        (json!({ "messaging_product": "whatsapp", "to": 9, "type": "text" }), 131_009),
        (json!({ "messaging_product": "whatsapp", "to": ASHA }), 131_008),
        (json!({ "messaging_product": "whatsapp", "to": ASHA, "type": "text" }), 131_008),
        (
            json!({ "messaging_product": "whatsapp", "to": ASHA, "type": "text", "recipient_type": "crowd", "text": {
                "body": "x" } }),
            131_009,
        ),
        (
            json!({ "messaging_product": "whatsapp", "to": ASHA, "type": "text", "text": { "body": "x" }, "context": {
                "message_id": "X" } }),
            131_009,
        ),
        (of("text", json!({ "body": "" })), 131_008),
        (of("text", json!({ "body": long(4097) })), 100),
        (of("poem", json!({ "body": "x" })), 131_051),
        (of("image", json!({})), 131_008),
        (of("image", json!({ "id": "1" })), 100),
        (of("image", json!({ "id": png, "link": "https://x.example/a.png" })), 100),
        (of("image", json!({ "link": "ftp://x.example/a.png" })), 131_009),
        (of("image", json!({ "id": png, "caption": long(1025) })), 100),
        (of("image", json!({ "id": png, "filename": "a.png" })), 100),
        (of("audio", json!({ "id": png, "caption": "x" })), 100),
        (of("location", json!({ "latitude": 91, "longitude": 0 })), 131_008),
        (of("contacts", json!([])), 131_008),
        (of("reaction", json!({ "emoji": "👍" })), 131_008),
        (interactive(json!({ "type": "carousel", "action": {} })), 131_009),
        (interactive(json!({ "type": "button" })), 131_008),
        (interactive(buttons(vec![])), 131_009),
        (interactive(buttons(vec![button("a", "A"), button("b", "B"), button("c", "C"), button("d", "D")])), 131_009),
        (interactive(buttons(vec![button("a", "A"), button("a", "B")])), 131_009),
        (interactive(buttons(vec![button("a", &long(21))])), 100),
        (interactive(buttons(vec![button(&long(257), "A")])), 100),
        (interactive(list(vec![])), 131_009),
        (interactive(list((0..11).map(|n| row(&n.to_string())).collect())), 131_009),
        (interactive(list(vec![row("1"), row("1")])), 131_009),
        (interactive(list(vec![row(&long(201))])), 100),
        (interactive(json!({ "type": "list", "action": { "button": long(21), "sections": [] } })), 100),
        (
            interactive(json!({ "type": "list", "header": { "type": "image", "image": { "id": png } }, "action": {
                    "button": "x", "sections": [] } })),
            131_009,
        ),
        (
            interactive(json!({ "type": "button", "footer": { "text": long(61) }, "action": { "buttons": [button("a",
                    "A")] } })),
            100,
        ),
        (
            interactive(json!({ "type": "cta_url", "action": { "parameters": { "display_text": "x",
                    "url": "shop.example" } } })),
            131_009,
        ),
    ];
    for (message, expected) in &bad {
        let answer = stand.send(message).await;
        assert_eq!((answer.0, code(&answer).0), (400, *expected), "{message}");
    }
    // A picture sent as a film is taken, and found out afterwards.
    assert_eq!(stand.send(&of("video", json!({ "id": png }))).await.0, 200);
    let failed = stand.ears.until("the failure", |ears| ears.of_status("failed").pop()).await;
    assert_eq!(failed["errors"][0]["code"], 131_053);
}

#[tokio::test]
async fn templates_take_every_header_and_button_and_no_other() {
    let stand = Stand::open().await;
    let paths = format!("{}/message_templates", Options::ACCOUNT);
    let make = async |name: &str, components: Value| {
        let template = json!({ "name": name, "language": "en", "category": "MARKETING", "components": components });
        let answer = stand.post(&paths, &template).await;
        assert_eq!(answer.0, 200, "{name} {}", answer.1);
        stand.control("templates", &json!({ "name": name, "status": "APPROVED", "silently": true })).await;
    };
    let body = json!({ "type": "BODY", "text": "Good day to you from all of us at the shop" });
    make(
        "a_text",
        json!([{ "type": "HEADER", "format": "TEXT", "text": "Hello {{1}} there", "example": {
        "header_text": ["x"] } }, body]),
    )
    .await;
    make("a_place", json!([{ "type": "HEADER", "format": "LOCATION" }, body])).await;
    make(
        "a_number",
        json!([{ "type": "BODY", "text": "Your bill number {{1}} is ready for you at the counter now",
        "example": { "body_text": [["x"]] } }]),
    )
    .await;
    make(
        "a_button",
        json!([body, { "type": "BUTTONS", "buttons": [
        { "type": "QUICK_REPLY", "text": "Stop" },
        { "type": "URL", "text": "Go", "url": "https://shop.example/{{1}}", "example": ["https://shop.example/1"] },
        { "type": "PHONE_NUMBER", "text": "Call", "phone_number": "+919800000001" },
        { "type": "COPY_CODE", "example": "DIWALI25" }] }]),
    )
    .await;
    let one = |kind: &str, text: &str| json!({ "type": kind, "parameters": [{ "type": "text", "text": text }] });
    let url = |index: Value, text: &str| {
        json!({ "type": "button", "sub_type": "url", "index": index, "parameters": [{
        "type": "text", "text": text }] })
    };
    let copy = |code: &str| {
        json!({ "type": "button", "sub_type": "copy_code", "index": 3, "parameters": [{
        "type": "coupon_code", "coupon_code": code }] })
    };
    let reply = |payload: &str| {
        json!({ "type": "button", "sub_type": "quick_reply", "index": "0", "parameters": [{
        "type": "payload", "payload": payload }] })
    };
    let place = json!({ "type": "header", "parameters": [{ "type": "location", "location": { "latitude": 28.6,
        "longitude": 77.2, "name": "x" } }] });
    let cases = [
        ("a_text", json!([one("header", "Asha")]), 0),
        ("a_text", json!([]), 132_000),
        ("a_text", json!([one("header", &"x".repeat(60))]), 132_005),
        ("a_text", json!([one("header", "")]), 132_018),
        ("a_place", json!([place]), 0),
        ("a_place", json!([{ "type": "header", "parameters": [{ "type": "location", "location": {} }] }]), 131_008),
        ("a_place", json!([one("header", "x")]), 132_012),
        ("a_number", json!([one("body", "INV-1")]), 0),
        ("a_number", json!([one("header", "x"), one("body", "INV-1")]), 132_000),
        ("a_number", json!([one("body", "two\nlines")]), 132_018),
        ("a_number", json!([one("body", "four     spaces")]), 132_018),
        ("a_number", json!([one("body", &"x".repeat(1024))]), 132_005),
        ("a_number", json!([{ "type": "body", "parameters": [{ "type": "image" }] }]), 132_012),
        ("a_number", json!({ "body": 1 }), 100),
        ("a_button", json!([url(json!("1"), "b/1"), copy("DIWALI25"), reply("OPTOUT:mk")]), 0),
        ("a_button", json!([url(json!(1), "b/1"), copy("DIWALI25")]), 0),
        ("a_button", json!([copy("DIWALI25")]), 131_008),
        ("a_button", json!([url(json!(1), "b/1")]), 131_008),
        ("a_button", json!([url(json!(0), "b/1"), copy("DIWALI25")]), 132_012),
        ("a_button", json!([url(json!(1), "b/1"), copy("TOOLONGFORACODE1")]), 131_009),
        ("a_button", json!([url(json!(1), &"x".repeat(2001)), copy("DIWALI25")]), 132_005),
        ("a_button", json!([url(json!(1), "b/1"), copy("DIWALI25"), reply(&"x".repeat(257))]), 131_009),
        (
            "approval_link_v1",
            json!([{ "type": "body", "parameters": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }, {
                "type": "text", "text": "c" }] }]),
            100,
        ),
        ("nobody_made_it", json!([]), 132_001),
    ];
    for (name, components, expected) in cases {
        let answer = stand.send(&message(ASHA, name, &components)).await;
        assert_eq!(code(&answer).0, expected, "{name} {components} {}", answer.1);
    }
    let mut nameless = link(ASHA);
    nameless["template"]["language"] = Value::Null;
    assert_eq!(code(&stand.send(&nameless).await).0, 131_008);
    let mut other = link(ASHA);
    other["template"]["language"] = json!({ "code": "en_US" });
    assert_eq!(code(&stand.send(&other).await), (132_001, None));
}

#[tokio::test]
async fn the_window_opens_when_she_writes_and_closes_after_a_day() {
    let stand = Stand::open().await;
    let closed = stand.send(&text(ASHA)).await;
    assert_eq!((closed.0, code(&closed)), (400, (131_047, None)));
    let wamid = stand.hear_from(ASHA, "Where is my invoice?").await;
    let heard = stand
        .ears
        .until("her words", |ears| ears.of("messages").into_iter().find(|value| value["messages"].is_array()))
        .await;
    let words = &heard["messages"][0];
    assert_eq!(
        (&words["from"], &words["text"]["body"], &words["id"]),
        (&json!("919812345678"), &json!("Where is my invoice?"), &json!(wamid))
    );
    assert_eq!(stand.send(&text(ASHA)).await.0, 200);
    // Read, and an answer is being typed.
    let seen = json!({ "messaging_product": "whatsapp", "status": "read", "message_id": wamid, "typing_indicator": {
        "type": "text" } });
    assert_eq!(stand.send(&seen).await, (200, json!({ "success": true })));
    for (wrong, expected) in [
        (json!({ "messaging_product": "whatsapp", "status": "read", "message_id": "wamid.X" }), 131_009),
        (json!({ "messaging_product": "whatsapp", "status": "read" }), 131_008),
        (json!({ "messaging_product": "whatsapp", "status": "unread", "message_id": wamid }), 131_009),
        (
            json!({ "messaging_product": "whatsapp", "status": "read", "message_id": wamid, "typing_indicator": {
                "type": "dance" } }),
            131_009,
        ),
    ] {
        assert_eq!(code(&stand.send(&wrong).await).0, expected);
    }
    stand.advance(24 * 3600 + 1).await;
    assert_eq!(code(&stand.send(&text(ASHA)).await), (131_047, None));
    // As it is told by other pages of the carrier: taken first.
    assert_eq!(stand.control("behaviour", &json!({ "window": "failed" })).await, 204);
    assert_eq!(stand.send(&text(ASHA)).await.0, 200);
    let failed = stand.ears.until("the failure", |ears| ears.of_status("failed").pop()).await;
    assert_eq!(failed["errors"][0]["code"], 131_047);
    assert_eq!(stand.control("behaviour", &json!({ "window": "open" })).await, 204);
    assert_eq!(stand.send(&text(ASHA)).await.0, 200);
}

#[tokio::test]
async fn people_are_reached_by_number_or_by_their_scoped_id_or_not_at_all() {
    let stand = Stand::open().await;
    let scoped = |id: &str| {
        let mut message = link(ASHA);
        message.as_object_mut().expect("a map").remove("to");
        message["recipient"] = json!(id);
        message
    };
    for wrong in ["919812345678", "in.1", "IN.", "IN.a b", "IND.12"] {
        assert_eq!(code(&stand.send(&scoped(wrong)).await), (131_009, None), "{wrong}");
    }
    // Nobody knows her: found out afterwards.
    assert_eq!(stand.send(&scoped("IN.ENT.12345")).await.0, 200);
    let failed = stand.ears.until("the failure", |ears| ears.of_status("failed").pop()).await;
    assert_eq!((&failed["errors"][0]["code"], failed.get("recipient_id")), (&json!(131_026), None));
    stand.control("phones", &json!({ "phone": ASHA, "hidden": true })).await;
    stand.hear_from(ASHA, "It is me").await;
    let heard = stand
        .ears
        .until("her words", |ears| ears.of("messages").into_iter().find(|value| value["messages"].is_array()))
        .await;
    let id = heard["contacts"][0]["user_id"].as_str().expect("an id").to_owned();
    assert!(heard["messages"][0].get("from").is_none() && heard["contacts"][0].get("wa_id").is_none(), "{heard}");
    let answer = stand.send(&scoped(&id)).await;
    assert_eq!(answer.1["contacts"][0], json!({ "input": id, "user_id": id }));
    assert_eq!(stand.oracle().await["recipients"]["919812345678"].as_array().map(Vec::len), Some(1));
    let mut code_by_id = message(
        ASHA,
        "sign_in_code_v1",
        &json!([
        { "type": "body", "parameters": [{ "type": "text", "text": "123456" }] },
        { "type": "button", "sub_type": "url", "index": "0", "parameters": [{ "type": "text", "text": "123456" }] }]),
    );
    assert_eq!(stand.send(&code_by_id).await.0, 200);
    code_by_id.as_object_mut().expect("a map").remove("to");
    code_by_id["recipient"] = json!(id);
    assert_eq!(code(&stand.send(&code_by_id).await), (131_062, None));

    // Not on WhatsApp; another key than before.
    stand.control("phones", &json!({ "phone": "919812300000", "absent": true })).await;
    assert_eq!(stand.send(&link("+919812300000")).await.0, 200);
    stand.ears.until("another failure", |ears| (ears.of_status("failed").len() == 2).then_some(())).await;
    stand.control("phones", &json!({ "phone": ASHA, "identity": "new" })).await;
    let mut bound = link(ASHA);
    bound["recipient_identity_key_hash"] = json!("old");
    assert_eq!(code(&stand.send(&bound).await), (137_000, None));
    bound["recipient_identity_key_hash"] = json!("new");
    assert_eq!(stand.send(&bound).await.0, 200);
}

#[tokio::test]
async fn a_file_by_link_is_fetched_afterwards_and_kept_for_ten_minutes() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let stand = Stand::open().await;
    stand.hear_from(ASHA, "Hello").await;
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let pdf = |mime: &'static str| ([("content-type", mime)], b"%PDF /Type /Page ".to_vec());
    let shop = Router::new()
        .route(
            "/bill.pdf",
            get(move || {
                count.fetch_add(1, Ordering::SeqCst);
                async move { pdf("application/pdf; charset=binary") }
            }),
        )
        .route("/bill.exe", get(move || async move { pdf("application/x-msdownload") }))
        .route("/moved", get(|| async { axum::response::Redirect::temporary("/bill.pdf") }))
        .route("/broken", get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/big.png", get(|| async { ([("content-type", "image/png")], vec![0_u8; 5 * 1024 * 1024 + 1]) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, shop).await });
    let bill = |link: String| of("document", json!({ "link": link, "filename": "INV-1042.pdf" }));
    for expected in [1, 1, 2] {
        let before = stand.ears.of_status("read").len();
        assert_eq!(stand.send(&bill(format!("http://{at}/bill.pdf"))).await.0, 200);
        stand.ears.until("it is read", |ears| (ears.of_status("read").len() > before).then_some(())).await;
        assert_eq!(fetched.load(Ordering::SeqCst), expected);
        stand.advance(if expected == 1 { 5 * 60 + 1 } else { 0 }).await;
    }
    let shown = &stand.oracle().await["recipients"]["919812345678"][0];
    assert!(shown["media_id"].is_string() && shown["filename"] == "INV-1042.pdf", "{shown}");
    let bad = [
        bill(format!("http://{at}/bill.exe")),
        bill(format!("http://{at}/moved")),
        bill(format!("http://{at}/broken")),
        bill(format!("http://{at}/none")),
        bill("https://shop.example/bill.pdf".to_owned()),
        of("image", json!({ "link": format!("http://{at}/big.png") })),
        of("image", json!({ "link": format!("http://{at}/bill.pdf?1") })),
    ];
    for (index, message) in bad.iter().enumerate() {
        assert_eq!(stand.send(message).await.0, 200, "{message}");
        let failed = stand.ears.until("the failure", |ears| ears.of_status("failed").get(index).cloned()).await;
        assert_eq!(failed["errors"][0]["code"], 131_053, "{message}");
    }
}

#[tokio::test]
async fn files_have_their_types_sizes_and_lives() {
    let stand = Stand::open().await;
    let upload = async |mime: &str, size: usize| upload(&stand, mime, vec![0; size]).await;
    for (mime, size) in [
        ("application/octet-stream", 9),
        ("image/gif", 9),
        ("image/png", 5 * 1024 * 1024 + 1),
        ("image/webp", 500 * 1024 + 1),
        ("application/pdf", 0),
    ] {
        assert_eq!(upload(mime, size).await["error"]["code"], 100, "{mime}");
    }
    let id = upload("application/pdf", 30).await["id"].as_str().expect("an id").to_owned();
    let shown = stand.get(&format!("{id}?phone_number_id={}", Options::NUMBER)).await.1;
    assert_eq!((&shown["mime_type"], &shown["file_size"]), (&json!("application/pdf"), &json!("30")));
    assert_eq!(code(&stand.get(&format!("{id}?phone_number_id=1")).await), (100, Some(33)));
    let url = shown["url"].as_str().expect("a url");
    let fetch =
        async |token: &str| stand.http.get(url).bearer_auth(token).send().await.expect("an answer").status().as_u16();
    assert_eq!((fetch(TOKEN).await, fetch("stolen").await), (200, 401));
    stand.advance(5 * 60 + 1).await;
    assert_eq!(fetch(TOKEN).await, 404);
    let values = ["customer_name", "business_name", "invoice_number", "amount"]
        .map(|name| json!({ "type": "text", "parameter_name": name, "text": "x" }));
    let bill = message(
        ASHA,
        "tax_invoice_v1",
        &json!([
        { "type": "header", "parameters": [{ "type": "document", "document": { "id": id } }] },
        { "type": "body", "parameters": values }]),
    );
    assert_eq!(stand.send(&bill).await.0, 200);
    stand.advance(30 * 24 * 3600).await;
    assert_eq!(code(&stand.send(&bill).await), (100, None));
    let fresh = upload("application/pdf", 30).await["id"].as_str().expect("an id").to_owned();
    assert_eq!(stand.delete(&fresh).await, (200, json!({ "success": true })));
    assert_eq!(code(&stand.delete(&fresh).await), (100, Some(33)));
}
