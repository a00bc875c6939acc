//! Templates: what is refused, how they are paged, and what becomes of them.

use super::*;

fn named(name: &str, text: &str, examples: &[&str]) -> Value {
    let examples: Vec<_> = examples.iter().map(|one| json!({ "param_name": one, "example": "x" })).collect();
    json!({ "name": name, "language": "en", "category": "UTILITY", "parameter_format": "named",
        "components": [{ "type": "BODY", "text": text, "example": { "body_text_named_params": examples } }] })
}

fn paths() -> String {
    format!("{}/message_templates", Options::ACCOUNT)
}

const GOOD: &str = "Dear {{name}}, your bill {{number}} is ready for you at the counter. Thank you for coming.";

fn good(name: &str) -> Value {
    named(name, GOOD, &["name", "number"])
}

/// `good`, with one part of it changed.
fn but(path: &str, value: Value) -> Value {
    let mut changed = good("changed");
    *changed.pointer_mut(path).expect("a part") = value;
    changed
}

fn with(components: &[Value]) -> Value {
    let mut changed = good("changed");
    let list = changed["components"].as_array_mut().expect("a list");
    list.extend(components.iter().cloned());
    changed
}

fn buttons(list: Value) -> Value {
    let mut part = json!({ "type": "BUTTONS" });
    part["buttons"] = list;
    with(&[part])
}

#[tokio::test]
async fn what_the_carrier_refuses_of_a_template_is_refused_with_its_code() {
    let stand = Stand::open().await;
    let body = |text: &str| but("/components/0/text", json!(text));
    let header = |text: &str| with(&[json!({ "type": "HEADER", "format": "TEXT", "text": text })]);
    let reply = json!({ "type": "QUICK_REPLY", "text": "Stop" });
    let web = json!({ "type": "URL", "text": "Open", "url": "https://shop.example/b" });
    let auth = |components: Value| {
        json!({ "name": "code", "language": "en", "category": "AUTHENTICATION",
        "components": components })
    };
    let otp = json!({ "type": "BUTTONS", "buttons": [{ "type": "OTP", "otp_type": "COPY_CODE", "text": "Copy" }] });
    let cases = [
        (json!([]), 100, None),
        (json!({ "language": "en", "category": "UTILITY", "components": [] }), 100, None),
        (but("/name", json!("Bill")), 100, Some(2_388_046)),
        (but("/name", json!("x".repeat(513))), 100, Some(2_388_040)),
        (but("/language", json!("or")), 100, None),
        (but("/category", json!("SERVICE")), 100, None),
        (but("/parameter_format", json!("by_name")), 100, None),
        (but("/components", json!([{ "type": "FOOTER", "text": "x" }])), 100, None),
        (but("/components/0/type", json!("TEXT")), 100, None),
        (with(&[json!({ "type": "BODY", "text": "again" })]), 100, None),
        (body(&"x".repeat(1025)), 100, Some(2_388_040)),
        (body(""), 100, Some(2_388_072)),
        (body("Many\n\n\nlines"), 100, Some(2_388_072)),
        (body("{{name}} is first, which it may not be in any template"), 100, Some(2_388_299)),
        (body("which it may not be in any template, last: {{name}}"), 100, Some(2_388_299)),
        (body("Dear {{name}}{{number}} they stand side by side, which they may not"), 100, Some(2_388_072)),
        (body("Dear {{name}} and {{number}} hello"), 100, Some(2_388_293)),
        (body("Dear {{other}}, this variable has no example in the list that was given."), 100, Some(2_388_043)),
        (body("Dear {{1}}, this is a number and the format says that they are names."), 100, Some(2_388_072)),
        // A named template that does not say so.
        (but("/parameter_format", json!("positional")), 100, Some(2_388_072)),
        (header(&"x".repeat(61)), 100, Some(2_388_040)),
        (header("Two\nlines"), 100, Some(2_388_047)),
        (header("*Bold*"), 100, Some(2_388_047)),
        (header("Hello {{name}}"), 100, Some(2_388_043)),
        (with(&[json!({ "type": "HEADER", "format": "DOCUMENT" })]), 100, Some(2_388_043)),
        (
            with(&[json!({ "type": "HEADER", "format": "DOCUMENT", "example": { "header_handle": ["4::none"] } })]),
            100,
            None,
        ),
        (with(&[json!({ "type": "HEADER", "format": "PDF" })]), 100, Some(2_388_047)),
        (with(&[json!({ "type": "FOOTER", "text": "x".repeat(61) })]), 100, Some(2_388_040)),
        (with(&[json!({ "type": "FOOTER", "text": "Dear {{name}}" })]), 100, Some(2_388_073)),
        (buttons(json!([])), 100, None),
        (buttons(json!(vec![reply.clone(); 11])), 100, None),
        (buttons(json!([web, web, web])), 100, None),
        (buttons(json!([reply, web, reply])), 100, None),
        (buttons(json!([{ "type": "QUICK_REPLY", "text": "x".repeat(26) }])), 100, Some(2_388_040)),
        (buttons(json!([{ "type": "QUICK_REPLY" }])), 100, None),
        (buttons(json!([{ "type": "URL", "text": "Open", "url": "shop.example" }])), 100, None),
        (
            buttons(
                json!([{ "type": "URL", "text": "Open", "url": "https://shop.example/{{1}}/x", "example": ["x"] }]),
            ),
            100,
            None,
        ),
        (
            buttons(json!([{ "type": "URL", "text": "Open", "url": "https://shop.example/{{1}}" }])),
            100,
            Some(2_388_043),
        ),
        (buttons(json!([{ "type": "PHONE_NUMBER", "text": "Call", "phone_number": "call me" }])), 100, None),
        (buttons(json!([{ "type": "COPY_CODE", "example": "x".repeat(16) }])), 100, Some(2_388_040)),
        (buttons(json!([{ "type": "OTP", "otp_type": "COPY_CODE" }])), 100, None),
        (buttons(json!([{ "type": "DANCE", "text": "x" }])), 100, None),
        (auth(json!([{ "type": "BODY", "text": "Your code" }, otp])), 100, None),
        (auth(json!([{ "type": "HEADER", "format": "TEXT", "text": "x" }, { "type": "BODY" }, otp])), 100, None),
        (auth(json!([{ "type": "BODY" }])), 100, None),
        (auth(json!([{ "type": "BODY" }, { "type": "FOOTER", "code_expiration_minutes": 91 }, otp])), 100, None),
        (
            auth(json!([{ "type": "BODY" }, { "type": "BUTTONS", "buttons": [{ "type": "OTP",
                    "otp_type": "ONE_TAP" }] }])),
            100,
            None,
        ),
    ];
    for (index, (template, expected, subcode)) in cases.iter().enumerate() {
        let answer = stand.post(&paths(), template).await;
        assert_eq!((answer.0, code(&answer)), (400, (*expected, *subcode)), "case {index}: {template} {}", answer.1);
        assert!(answer.1["error"]["fbtrace_id"].is_string() && answer.1["error"]["message"].is_string());
    }
    for (ttl, category) in [(29, "UTILITY"), (43_201, "UTILITY"), (-1, "MARKETING"), (43_199, "MARKETING")] {
        let mut template = good("ttl");
        template["message_send_ttl_seconds"] = json!(ttl);
        template["category"] = json!(category);
        assert_eq!(code(&stand.post(&paths(), &template).await), (100, None), "{ttl} {category}");
    }
}

#[tokio::test]
async fn a_template_is_made_reviewed_used_edited_and_deleted() {
    let stand = Stand::open().await;
    let pdf = b"%PDF-1.7 sample";
    let upload =
        format!("{}/uploads?file_name=a.pdf&file_length={}&file_type=application/pdf", Options::APP, pdf.len());
    let (status, opened) = stand.post(&upload, &json!({})).await;
    assert_eq!(status, 200, "{opened}");
    let place = stand.url(opened["id"].as_str().expect("an id"));
    let bytes = |offset: &str, part: &'static [u8]| {
        let request = stand.http.post(&place).header("authorization", format!("OAuth {TOKEN}"));
        Stand::answer(request.header("file_offset", offset).body(part))
    };
    assert_eq!(code(&bytes("3", b"x").await), (100, None));
    assert_eq!(bytes("0", &pdf[..4]).await.1["file_offset"], 4);
    assert_eq!(stand.get(opened["id"].as_str().expect("an id")).await.1["file_offset"], 4);
    let handle = bytes("4", &pdf[4..]).await.1["h"].clone();
    assert!(handle.is_string());
    assert_eq!(code(&stand.post("1/uploads?file_length=1&file_type=image/png", &json!({})).await), (100, Some(33)));
    let wrong = format!("{}/uploads?file_length=1&file_type=image/gif", Options::APP);
    assert_eq!(code(&stand.post(&wrong, &json!({})).await), (100, None));

    let mut template = with(&[
        json!({ "type": "HEADER", "format": "DOCUMENT", "example": { "header_handle": [handle] } }),
        json!({ "type": "FOOTER", "text": "Reply STOP to stop messages" }),
        json!({ "type": "BUTTONS", "buttons": [
            { "type": "URL", "text": "View bill", "url": "https://shop.example/b/{{1}}", "example": ["https://shop.example/b/1"] },
            { "type": "QUICK_REPLY", "text": "Stop" }] }),
    ]);
    template["name"] = json!("bill_v2");
    template["message_send_ttl_seconds"] = json!(43_200);
    let made = stand.post(&paths(), &template).await;
    assert_eq!(
        (made.0, &made.1["status"], &made.1["category"]),
        (200, &json!("PENDING"), &json!("UTILITY")),
        "{}",
        made.1
    );
    let id = made.1["id"].as_str().expect("an id").to_owned();
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()));
    assert_eq!(code(&stand.post(&paths(), &template).await), (100, Some(2_388_024)));
    // Nothing is sent with it, and nothing changed, while it is looked at.
    let unread = message(ASHA, "bill_v2", &json!([]));
    assert_eq!(code(&stand.send(&unread).await), (132_001, None));
    assert_eq!(code(&stand.post(&id, &good("x")).await), (100, Some(2_388_039)));
    assert_eq!(stand.control("templates", &json!({ "name": "bill_v2", "status": "APPROVED" })).await, 204);
    let told = stand.ears.until("the approval", |ears| ears.of("message_template_status_update").pop()).await;
    assert_eq!((&told["event"], &told["message_template_language"]), (&json!("APPROVED"), &json!("en")));
    assert_eq!(told["message_template_id"].as_u64().map(|id| id.to_string()), Some(id.clone()));
    let shown = stand.get(&format!("{id}?fields=name,status,message_send_ttl_seconds,quality_score")).await.1;
    assert_eq!(shown["message_send_ttl_seconds"], 43_200);
    assert_eq!((&shown["status"], shown.get("components")), (&json!("APPROVED"), None));

    let edit = json!({ "components": good("x")["components"] });
    assert_eq!(stand.post(&id, &edit).await, (200, json!({ "success": true })));
    assert_eq!(stand.get(&format!("{id}?fields=status")).await.1["status"], "PENDING");
    assert_eq!(stand.control("templates", &json!({ "id": id, "status": "APPROVED" })).await, 204);
    assert_eq!(code(&stand.post(&id, &edit).await), (100, Some(2_388_039)), "one a day");
    for _ in 0..9 {
        stand.advance(25 * 3600).await;
        assert_eq!(stand.post(&id, &edit).await.0, 200);
        stand.control("templates", &json!({ "id": id, "status": "APPROVED", "silently": true })).await;
    }
    stand.advance(25 * 3600).await;
    assert_eq!(code(&stand.post(&id, &edit).await), (100, Some(2_388_039)), "ten in thirty days");
    assert_eq!(code(&stand.post(&id, &json!({ "category": "MARKETING" })).await).0, 100);

    assert_eq!(stand.delete(&format!("{}?name=bill_v2&hsm_id=1", paths())).await.0, 400);
    assert_eq!(stand.delete(&format!("{}?name=bill_v2&hsm_id={id}", paths())).await.0, 200);
    assert_eq!(code(&stand.delete(&format!("{}?name=bill_v2", paths())).await), (100, Some(2_593_002)));
    assert_eq!(code(&stand.get(&id).await), (100, Some(33)));
    assert_eq!(code(&stand.post(&paths(), &good("bill_v2")).await), (100, Some(2_388_023)));
    stand.advance(30 * 24 * 3600 + 60).await;
    assert_eq!(stand.post(&paths(), &good("bill_v2")).await.0, 200);
}

#[tokio::test]
async fn templates_are_paged_by_cursors_filtered_and_counted() {
    let stand = Stand::open().await;
    let every = stand.get(&format!("{}?limit=1000", paths())).await.1;
    let all = every["data"].as_array().expect("a list").len();
    assert!(all >= 8 && every["data"][0]["components"].is_array());
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = stand.get(&format!("{}?limit=3&fields=name,language{after}", paths())).await.1;
        for one in page["data"].as_array().expect("a list") {
            assert_eq!(one.as_object().expect("a map").len(), 3, "{one}");
            seen.push(one["id"].as_str().expect("an id").to_owned());
        }
        match page["paging"]["next"].as_str() {
            Some(_) => after = format!("&after={}", page["paging"]["cursors"]["after"].as_str().expect("a cursor")),
            None => break,
        }
    }
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (all, all));
    assert_eq!(code(&stand.get(&format!("{}?after=!", paths())).await), (100, None));
    for (filter, least) in
        [("language=hi", 4), ("category=AUTHENTICATION", 2), ("name=tax_invoice", 2), ("status=APPROVED", all)]
    {
        let page = stand.get(&format!("{}?limit=1000&{filter}", paths())).await.1;
        assert!(page["data"].as_array().expect("a list").len() >= least, "{filter}");
    }
    let rejected = stand.get(&format!("{}?status=REJECTED", paths())).await.1;
    assert_eq!(rejected["data"], json!([]));
    assert_eq!(code(&stand.get("1/message_templates").await), (100, Some(33)));
    // What was asked for says how much of the hour's calls is used.
    let answer = stand.http.get(stand.url(&paths())).bearer_auth(TOKEN).send().await.expect("an answer");
    let usage = answer.headers()["x-business-use-case-usage"].to_str().expect("text").to_owned();
    let usage: Value = serde_json::from_str(&usage).expect("JSON");
    assert!(usage[Options::ACCOUNT][0]["call_count"].is_u64(), "{usage}");
}

#[tokio::test]
async fn an_account_has_two_hundred_and_fifty_names_and_a_hundred_new_ones_an_hour() {
    let stand = Stand::with(|options| options.seed_templates = false).await;
    let mut made = 0;
    let refused = loop {
        let answer = stand.post(&paths(), &good(&format!("bill_{made}"))).await;
        match code(&answer) {
            (0, _) => made += 1,
            (80_008, _) => {
                assert_eq!((answer.0, made % 100), (429, 0));
                stand.advance(3601).await;
            }
            other => break other,
        }
    };
    assert_eq!((made, refused), (250, (100, Some(2_388_019))));
    // Another language of a name there is.
    let mut hindi = good("bill_1");
    hindi["language"] = json!("hi");
    assert_eq!(stand.post(&paths(), &hindi).await.0, 200);
}

#[tokio::test]
async fn what_sells_is_taken_as_marketing_and_red_quality_pauses_twice_and_then_for_good() {
    let stand = Stand::open().await;
    let selling =
        named("offer_v1", "Dear {{name}}, you get a discount on your next bill with us. Thank you.", &["name"]);
    let made = stand.post(&paths(), &selling).await.1;
    assert_eq!(made["category"], "MARKETING");
    let name = "approval_link_v1";
    let red = json!({ "name": name, "language": "en", "quality": "RED" });
    let state = async || -> String {
        let page = stand.get(&format!("{}?name={name}&language=en&fields=status", paths())).await.1;
        page["data"][0]["status"].as_str().expect("a status").to_owned()
    };
    for (hours, title) in [(3, "FIRST_PAUSE"), (6, "SECOND_PAUSE")] {
        assert_eq!(stand.control("templates", &red).await, 204);
        assert_eq!(state().await, "PAUSED");
        assert_eq!(code(&stand.send(&link(ASHA)).await), (132_015, None));
        stand
            .ears
            .until(title, |ears| {
                let told = ears.of("message_template_status_update");
                told.into_iter().find(|told| told["other_info"]["title"] == title)
            })
            .await;
        let before = stand.ears.of("message_template_status_update").len();
        stand.advance(hours * 3600 - 60).await;
        assert_eq!(state().await, "PAUSED");
        stand.advance(61).await;
        stand
            .ears
            .until("the end of the pause", |ears| {
                (ears.of("message_template_status_update").len() > before).then_some(())
            })
            .await;
        assert_eq!(state().await, "APPROVED");
        assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    }
    assert_eq!(stand.control("templates", &red).await, 204);
    assert_eq!(state().await, "DISABLED");
    assert_eq!(code(&stand.send(&link(ASHA)).await), (132_016, None));
    stand.advance(24 * 3600).await;
    assert_eq!(state().await, "DISABLED");
    let quality = stand.ears.of("message_template_quality_update");
    assert_eq!((quality.len(), &quality[0]["new_quality_score"]), (3, &json!("RED")));
}

#[tokio::test]
async fn a_held_template_waits_for_its_verdict() {
    let stand = Stand::open().await;
    let hold = json!({ "name": "approval_link_v1", "language": "en", "hold_after": 1 });
    for verdict in ["release", "drop"] {
        assert_eq!(stand.control("templates", &hold).await, 204);
        let statuses: Vec<_> = {
            let mut all = Vec::new();
            for _ in 0..3 {
                all.push(stand.send(&link(ASHA)).await.1["messages"][0]["message_status"].clone());
            }
            all
        };
        assert_eq!(statuses, ["accepted", "held_for_quality_assessment", "held_for_quality_assessment"]);
        assert_eq!(stand.control("templates", &json!({ "name": "approval_link_v1", "verdict": verdict })).await, 204);
        if verdict == "release" {
            stand
                .ears
                .until("three read", |ears| {
                    (ears.statuses().iter().filter(|(status, _)| status == "read").count() == 3).then_some(())
                })
                .await;
        }
    }
    let failed = stand
        .ears
        .until("two failed", |ears| {
            let failed: Vec<_> = ears.statuses().into_iter().filter(|(status, _)| status == "failed").collect();
            (failed.len() == 2).then_some(failed)
        })
        .await;
    assert_eq!(failed[0].1["errors"][0]["code"], 132_015);
    // A pause by pacing ends by hand alone.
    stand.advance(7 * 3600).await;
    assert_eq!(code(&stand.send(&link(ASHA)).await), (132_015, None));
    let page = stand.get(&format!("{}?name=approval_link_v1&language=en", paths())).await.1;
    let id = page["data"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(stand.post(&format!("{id}/unpause"), &json!({})).await, (200, json!({ "success": true })));
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    assert_eq!(stand.post(&format!("{id}/unpause"), &json!({})).await.1["success"], false);
}

#[tokio::test]
async fn categories_words_and_unknown_statuses_are_told_as_they_change() {
    let stand = Stand::with(|options| options.review = Some(Duration::ZERO)).await;
    assert_eq!(stand.post(&paths(), &good("bill_v3")).await.0, 200);
    stand.ears.until("the review", |ears| ears.of("message_template_status_update").pop()).await;
    let change = json!({ "name": "bill_v3", "correct_category": "MARKETING" });
    assert_eq!(stand.control("templates", &change).await, 204);
    assert_eq!(stand.control("templates", &json!({ "name": "bill_v3", "category": "MARKETING" })).await, 204);
    let words = json!([{ "type": "BODY", "text": "Other words" }]);
    assert_eq!(stand.control("templates", &json!({ "name": "bill_v3", "components": words })).await, 204);
    let odd = json!({ "name": "bill_v3", "status": "SHELVED", "reason": "NEW_REASON" });
    assert_eq!(stand.control("templates", &odd).await, 204);
    assert_eq!(stand.control("templates", &json!({ "name": "none", "status": "APPROVED" })).await, 404);
    stand.ears.until("everything", |ears| (ears.of("message_template_status_update").len() == 2).then_some(())).await;
    let categories = stand.ears.of("template_category_update");
    assert_eq!(
        (&categories[0]["correct_category"], &categories[1]["previous_category"]),
        (&json!("MARKETING"), &json!("UTILITY"))
    );
    assert_eq!(stand.ears.of("message_template_components_update").len(), 1);
    // Nobody uses it for a year: archived, and four weeks later gone.
    stand.control("templates", &json!({ "name": "bill_v3", "status": "APPROVED", "silently": true })).await;
    stand.advance(366 * 24 * 3600).await;
    stand
        .ears
        .until("the archive", |ears| {
            ears.of("message_template_status_update")
                .into_iter()
                .find(|told| told["message_template_name"] == "bill_v3" && told["event"] == "ARCHIVED")
        })
        .await;
    stand.advance(29 * 24 * 3600).await;
    stand
        .ears
        .until("the end", |ears| {
            ears.of("message_template_status_update")
                .into_iter()
                .find(|told| told["message_template_name"] == "bill_v3" && told["event"] == "DELETED")
        })
        .await;
}

#[tokio::test]
async fn codes_in_many_languages_are_made_at_once() {
    let stand = Stand::open().await;
    let path = format!("{}/upsert_message_templates", Options::ACCOUNT);
    let many = json!({ "name": "code_v2", "languages": ["en", "hi", "ta"], "category": "AUTHENTICATION",
        "message_send_ttl_seconds": 300, "components": [
            { "type": "BODY", "add_security_recommendation": true }, { "type": "FOOTER", "code_expiration_minutes": 5 },
            { "type": "BUTTONS", "buttons": [{ "type": "OTP", "otp_type": "COPY_CODE" }] }] });
    let (status, made) = stand.post(&path, &many).await;
    assert_eq!((status, made["data"].as_array().map(Vec::len)), (200, Some(3)), "{made}");
    let again = stand.post(&path, &many).await.1;
    assert_eq!(again["data"][1]["id"], made["data"][1]["id"]);
    let mut utility = many.clone();
    utility["category"] = json!("UTILITY");
    assert_eq!(code(&stand.post(&path, &utility).await), (100, None));
    let id = made["data"][0]["id"].as_str().expect("an id");
    let shown = stand.get(id).await.1;
    let button = &shown["components"][2]["buttons"][0];
    assert_eq!(
        (&button["type"], &shown["components"][0]["text"]),
        (&json!("URL"), &json!("{{1}} is your verification code. For your security, do not share this code."))
    );
    stand.control("templates", &json!({ "name": "code_v2", "status": "APPROVED" })).await;
    let code_to = |body: &str, button: &str| {
        message(
            ASHA,
            "code_v2",
            &json!([
            { "type": "body", "parameters": [{ "type": "text", "text": body }] },
            { "type": "button", "sub_type": "url", "index": "0", "parameters": [{ "type": "text", "text": button }] }]),
        )
    };
    assert_eq!(stand.send(&code_to("123456", "123456")).await.0, 200);
    assert_eq!(code(&stand.send(&code_to("123456", "654321")).await), (131_008, None));
    let long = "1".repeat(16);
    assert_eq!(code(&stand.send(&code_to(&long, &long)).await), (132_005, None));
    let oracle = stand.oracle().await;
    let text = oracle["recipients"]["919812345678"][0]["text"].as_str().expect("words");
    assert!(text.starts_with("123456 is your verification code."), "{text}");
}
