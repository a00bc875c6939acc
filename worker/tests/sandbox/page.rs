//! The phone: what it shows, what is typed and tapped on it, and pictures of it for whoever looks
//! (`MUNEEM_SCREENSHOTS` names the directory).

use super::*;

const PNG: &[u8] = include_bytes!("shop.png");

struct Scene {
    stand: Stand,
    buttons: String,
    list: String,
}

/// Two shops, and a day of one customer.
async fn scene() -> Scene {
    let stand = Stand::with(|options| {
        let phone = muneem_jobs::outbound::Phone::parse("+919800000002").expect("a mobile");
        options.numbers.push(muneem::sandbox::Number::new("2001", "2000", "Verma Textiles", phone));
    })
    .await;
    let upload = async |mime: &str, bytes: &'static [u8]| {
        let part = reqwest::multipart::Part::bytes(bytes).file_name("a").mime_str(mime).expect("a type");
        let form = reqwest::multipart::Form::new().text("messaging_product", "whatsapp").part("file", part);
        let request =
            stand.http.post(stand.url(&format!("{}/media", Options::NUMBER))).bearer_auth(TOKEN).multipart(form);
        Stand::answer(request).await.1["id"].as_str().expect("an id").to_owned()
    };
    let (pdf, png) = (upload("application/pdf", b"%PDF-1.7 /Type /Page ").await, upload("image/png", PNG).await);
    stand.control("phones", &json!({ "phone": "919812345678", "name": "Asha Verma" })).await;
    let delivered = async |body: &Value| {
        let answer = stand.send(body).await;
        assert_eq!(answer.0, 200, "{body} {}", answer.1);
        let wamid = answer.1["messages"][0]["id"].as_str().expect("an id").to_owned();
        stand
            .ears
            .until("it is read", |ears| ears.of_status("read").into_iter().find(|one| one["id"] == wamid.as_str()))
            .await;
        wamid
    };
    let values = [
        ("customer_name", "आशा वर्मा"),
        ("business_name", "Sharma Mobiles"),
        ("invoice_number", "INV-1042"),
        ("amount", "₹1,180.00"),
    ]
    .map(|(name, text)| json!({ "type": "text", "parameter_name": name, "text": text }));
    let mut bill = message(
        ASHA,
        "tax_invoice_v1",
        &json!([
        { "type": "header", "parameters": [{ "type": "document", "document": { "id": pdf, "filename": "INV-1042.pdf" } }] },
        { "type": "body", "parameters": values }]),
    );
    bill["template"]["language"]["code"] = json!("hi");
    let bill = delivered(&bill).await;
    stand.hear_from(ASHA, "धन्यवाद! Is the *warranty* in it?").await;
    let text =
        |body: &str| json!({ "messaging_product": "whatsapp", "to": ASHA, "type": "text", "text": { "body": body } });
    let mut answer = text("Yes: *one year*, see https://shop.example/warranty. Your _serial number_ is ```A1-77```.");
    answer["context"] = json!({ "message_id": bill });
    delivered(&answer).await;
    delivered(&json!({ "messaging_product": "whatsapp", "to": ASHA, "type": "reaction", "reaction": {
        "message_id": bill, "emoji": "🙏" } }))
    .await;
    delivered(&json!({ "messaging_product": "whatsapp", "to": ASHA, "type": "image", "image": { "id": png,
        "caption": "New in the shop today" } }))
    .await;
    let button = |id: &str, title: &str| json!({ "type": "reply", "reply": { "id": id, "title": title } });
    let buttons = delivered(
        &json!({ "messaging_product": "whatsapp", "to": ASHA, "type": "interactive", "interactive": { "type": "button",
        "body": { "text": "Shall we send the invoice again?" }, "footer": { "text": "It costs you nothing" },
        "action": { "buttons": [button("resend:INV-1042", "Yes, please"), button("no", "No")] } } }),
    )
    .await;
    let list = delivered(&json!({ "messaging_product": "whatsapp", "to": ASHA, "type": "interactive", "interactive": {
        "type": "list",
        "header": { "type": "text", "text": "Bills" }, "body": { "text": "Which one do you mean?" },
        "action": { "button": "Open the list", "sections": [
            { "title": "November", "rows": [{ "id": "INV-1042", "title": "INV-1042", "description": "₹1,180 · phone cover" }] },
            { "title": "October", "rows": [{ "id": "INV-1007", "title": "INV-1007", "description": "₹14,999 · phone" }] }] } } })).await;
    delivered(&message(
        ASHA,
        "sign_in_code_v1",
        &json!([
        { "type": "body", "parameters": [{ "type": "text", "text": "482913" }] },
        { "type": "button", "sub_type": "url", "index": "0", "parameters": [{ "type": "text", "text": "482913" }] }]),
    ))
    .await;
    for to in ["+919812300000", "+919800011122"] {
        delivered(&link(to)).await;
    }
    stand
        .control("inbound", &json!({ "from": "919812345678", "number": "2001", "text": "Do you have blue silk?" }))
        .await;
    Scene { stand, buttons, list }
}

impl Stand {
    async fn page(&self, path: &str) -> String {
        let answer = self.http.get(format!("http://{}/sandbox{path}", self.at)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
        let html = answer.text().await.expect("text");
        assert!(!html.contains("<script"), "{path}");
        html
    }

    async fn form(&self, path: &str, form: &[(&str, &str)]) -> (u16, String) {
        let body = form
            .iter()
            .map(|(key, value)| format!("{key}={}", value.replace('=', "%3D").replace('+', "%2B").replace(' ', "+")))
            .collect::<Vec<_>>()
            .join("&");
        let request = self
            .http
            .post(format!("http://{}/sandbox/{path}", self.at))
            .header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(body).send().await.expect("an answer");
        let to = answer.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned();
        (answer.status().as_u16(), to)
    }
}

#[tokio::test]
async fn the_phone_shows_both_sides_and_answers_with_messages_of_their_kind() {
    let Scene { stand, buttons, list } = scene().await;
    let number = Options::NUMBER;
    let which = format!("?number={number}&phone=919812345678");
    let outer = stand.page(&which).await.replace("&#x3D;", "=").replace("&amp;", "&");
    assert!(
        outer.contains("Verma Textiles") && outer.contains("/sandbox/talk?number=106540352242922&phone=919812345678"),
        "{outer}"
    );
    let talk = stand.page(&format!("/talk{which}")).await;
    for part in [
        "INV-1042.pdf",
        "1 page · 21 B · PDF",
        "look-b\">one year",
        "href=\"https://shop.example/warranty\"",
        "<img src=\"/sandbox/media/",
        "Yes, please",
        "Open the list",
        "<code>482913</code>",
        "🙏",
        "class=\"quote\"",
        "lang=\"hi\"",
        "row mine",
    ] {
        assert!(talk.contains(part), "{part} is missing: {talk}");
    }
    let chats = stand.page(&format!("/chats{which}")).await;
    for part in [
        "Asha Verma",
        "+91 98123 45678 · Sharma Mobiles",
        "+91 98123 00000",
        "You: Do you have blue silk?",
        "chat-open",
    ] {
        assert!(chats.contains(part), "{part}");
    }
    assert!(stand.page(&format!("/reply{which}")).await.contains("Free until"));
    let pdf = talk.split("class=\"card\" href=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a link");
    let file = stand.http.get(format!("http://{}{pdf}", stand.at)).send().await.expect("an answer");
    assert_eq!((file.status().as_u16(), file.headers()["content-type"].to_str().ok()), (200, Some("application/pdf")));

    let back = format!("/sandbox/reply?number={number}&phone=919812345678");
    let typed = [("number", number), ("phone", "919812345678"), ("text", "Where <is> my invoice?")];
    assert_eq!(stand.form("reply", &typed).await, (303, back));
    let heard = stand
        .ears
        .until("her words", |ears| {
            ears.of("messages")
                .into_iter()
                .find(|value| value["messages"][0]["text"]["body"] == "Where <is> my invoice?")
        })
        .await;
    assert_eq!(
        (&heard["contacts"][0]["profile"]["name"], &heard["messages"][0]["from"]),
        (&json!("Asha Verma"), &json!("919812345678"))
    );
    assert!(stand.page(&format!("/talk{which}")).await.contains("Where &lt;is&gt; my invoice?"));
    let quick = [("number", number), ("phone", "919812345678"), ("text", ""), ("quick", "STOP")];
    assert_eq!(stand.form("reply", &quick).await.0, 303);
    stand
        .ears
        .until("the word", |ears| {
            ears.of("messages").into_iter().find(|value| value["messages"][0]["text"]["body"] == "STOP")
        })
        .await;

    assert_eq!(stand.form("tap", &[("wamid", &buttons), ("button", "0")]).await.0, 303);
    let reply = stand
        .ears
        .until("the tap", |ears| {
            ears.of("messages").into_iter().find(|value| value["messages"][0]["interactive"]["type"] == "button_reply")
        })
        .await;
    assert_eq!(
        (&reply["messages"][0]["interactive"]["button_reply"]["id"], &reply["messages"][0]["context"]["id"]),
        (&json!("resend:INV-1042"), &json!(buttons))
    );
    assert!(
        stand
            .page(&format!("/list?wamid={}", list.replace('=', "%3D").replace('+', "%2B")))
            .await
            .contains("₹14,999 · phone")
    );
    assert_eq!(
        stand.form("tap", &[("wamid", &list), ("row", "INV-1007")]).await,
        (303, format!("/sandbox?number={number}&phone=919812345678"))
    );
    let reply = stand
        .ears
        .until("the choice", |ears| {
            ears.of("messages").into_iter().find(|value| value["messages"][0]["interactive"]["type"] == "list_reply")
        })
        .await;
    assert_eq!(reply["messages"][0]["interactive"]["list_reply"]["title"], "INV-1007");
    for wrong in [
        [("wamid", "wamid.X"), ("button", "0")],
        [("wamid", list.as_str()), ("row", "none")],
        [("wamid", buttons.as_str()), ("button", "9")],
    ] {
        assert!(stand.form("tap", &wrong).await.0 >= 400, "{wrong:?}");
    }
    assert_eq!(stand.form("reply", &[("number", "1"), ("phone", "919812345678"), ("text", "x")]).await.0, 422);

    let set =
        async |what: &str| stand.form("set", &[("number", number), ("phone", "919812345678"), ("what", what)]).await.0;
    assert_eq!((set("stop").await, set("off").await, set("dance").await), (303, 303, 422));
    stand.ears.until("her wish", |ears| ears.of("user_preferences").pop()).await;
    let before = stand.ears.of_status("delivered").len();
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    assert!(stand.page(&format!("/reply{which}")).await.contains("Switch on"));
    assert_eq!(set("on").await, 303);
    stand.ears.until("what waited", |ears| (ears.of_status("delivered").len() > before).then_some(())).await;
}

#[tokio::test]
async fn a_template_s_quick_reply_and_unread_marks_work_from_the_phone() {
    let stand = Stand::with(|options| options.pace = Pace { read: None, ..Pace::INSTANT }).await;
    let template = json!({ "name": "news_v1", "language": "en", "category": "MARKETING", "components": [
        { "type": "BODY", "text": "New phones came in this week, come and look at them" }, { "type": "FOOTER", "text": "Reply STOP to stop" },
        { "type": "BUTTONS", "buttons": [{ "type": "QUICK_REPLY", "text": "No more" }, { "type": "URL", "text": "Look", "url": "https://shop.example/new" }] }] });
    assert_eq!(stand.post(&format!("{}/message_templates", Options::ACCOUNT), &template).await.0, 200);
    stand.control("templates", &json!({ "name": "news_v1", "status": "APPROVED" })).await;
    let button = json!({ "type": "button", "sub_type": "quick_reply", "index": "0", "parameters": [{ "type": "payload",
        "payload": "OPTOUT:mk" }] });
    let sent = stand.send(&message(ASHA, "news_v1", &json!([button]))).await.1;
    let wamid = sent["messages"][0]["id"].as_str().expect("an id").to_owned();
    stand.ears.until("it is delivered", |ears| ears.of_status("delivered").pop()).await;
    let which = format!("?number={}&phone=919812345678", Options::NUMBER);
    let talk = stand.page(&format!("/talk{which}")).await;
    assert!(
        talk.contains("Mark as read")
            && talk.contains("class=\"offer\"")
            && talk.contains("href=\"https://shop.example/new\"")
    );
    assert!(stand.page(&format!("/chats{which}")).await.contains("1 unread"));
    assert_eq!(stand.form("read", &[("phone", "919812345678"), ("number", Options::NUMBER)]).await.0, 303);
    stand.ears.until("it is read", |ears| ears.of_status("read").pop()).await;
    assert!(!stand.page(&format!("/talk{which}")).await.contains("Mark as read"));
    assert_eq!(stand.form("tap", &[("wamid", &wamid), ("button", "0")]).await.0, 303);
    let heard = stand
        .ears
        .until("the tap", |ears| ears.of("messages").into_iter().find(|value| value["messages"][0]["type"] == "button"))
        .await;
    assert_eq!(heard["messages"][0]["button"], json!({ "payload": "OPTOUT:mk", "text": "No more" }));
    // A page elsewhere that points its name at loopback gets nothing.
    let foreign = stand.http.get(format!("http://{}/sandbox", stand.at)).header("host", "evil.example").send().await;
    assert_eq!(foreign.expect("an answer").status(), 403);
}

/// Keeps pictures of the phone, wide and narrow.
#[tokio::test]
async fn the_phone_sits_for_its_picture() {
    let Some(dir) = std::env::var_os("MUNEEM_SCREENSHOTS").map(std::path::PathBuf::from) else { return };
    let Scene { stand, list, .. } = scene().await;
    let which = format!("?number={}&phone=919812345678", Options::NUMBER);
    let seen = json!({ "kind": "text", "phone": "919812300000" });
    stand.control("webhooks", &seen).await;
    let home = tempfile::tempdir().expect("a directory");
    for (name, path) in [
        ("phone", which.clone()),
        ("list", format!("/list?wamid={}", list.replace('=', "%3D").replace('+', "%2B"))),
        ("first", String::new()),
    ] {
        for (width, height) in [(1280, 900), (360, 740), (900, 1900)] {
            let picture = dir.join(format!("sandbox-{name}-{width}.png"));
            let ran = tokio::process::Command::new("chromium")
                .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--timeout=4000"])
                .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
                .arg(format!("--window-size={width},{height}"))
                .arg(format!("--screenshot={}", picture.display()))
                .arg(format!("http://{}/sandbox{path}", stand.at))
                .output()
                .await
                .expect("chromium runs");
            assert!(ran.status.success() && picture.exists(), "{name} {width}");
        }
    }
}
