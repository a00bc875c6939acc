//! What goes wrong on purpose: tokens, secrets, codes, connections, silence.

use super::*;
use muneem_jobs::outbound::carrier::CODES;

#[tokio::test]
async fn any_code_of_the_table_is_refused_or_told_afterwards_as_often_as_scripted() {
    let stand = Stand::with(|options| options.numbers[0].messages_per_second = 1000).await;
    let mut failed = 0;
    for (index, row) in CODES.iter().enumerate() {
        let to = format!("+9197{index:08}");
        let expected = *row.codes().start();
        let refuse = json!({ "faults": [
            { "to": to[1..], "times": 2, "what": { "refuse": { "code": expected } } },
            { "to": to[1..], "what": { "fail_later": { "code": expected, "after_sent": index % 2 == 0 } } }] });
        assert_eq!(stand.control("faults", &refuse).await, 204);
        for _ in 0..2 {
            assert_eq!(code(&stand.send(&link(&to)).await), (expected, None));
        }
        assert_eq!(stand.send(&link(&to)).await.0, 200);
        failed += 1;
    }
    let told = stand
        .ears
        .until("all failures", |ears| Some(ears.of_status("failed")).filter(|told| told.len() == failed))
        .await;
    let codes: std::collections::BTreeSet<_> =
        told.iter().filter_map(|one| one["errors"][0]["code"].as_i64()).collect();
    assert_eq!(codes.len(), CODES.len());
    let sent = stand.ears.of_status("sent").len();
    assert_eq!((sent, stand.ears.of_status("delivered").len()), (CODES.len().div_ceil(2), 0));
}

#[tokio::test]
async fn refusals_come_in_every_form_that_was_seen() {
    let stand = Stand::open().await;
    let script = async |what: Value| stand.control("faults", &json!({ "faults": [{ "what": what }] })).await;
    script(json!({ "refuse": { "code": 139_999, "transient": true, "data": "text", "status": 503, "subcode": 7 } }))
        .await;
    let answer = stand.send(&link(ASHA)).await;
    let error = &answer.1["error"];
    assert_eq!(
        (answer.0, &error["code"], &error["is_transient"], &error["error_subcode"]),
        (503, &json!(139_999), &json!(true), &json!(7))
    );
    assert!(error["error_data"].is_string());
    script(json!({ "refuse": { "code": 4, "data": "absent", "regain_minutes": 19 } })).await;
    let request =
        stand.http.post(stand.url(&format!("{}/messages", Options::NUMBER))).bearer_auth(TOKEN).json(&link(ASHA));
    let answer = request.send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("x-business-use-case-usage")), (429, true));
    script(json!("odd")).await;
    let odd = stand.send(&link(ASHA)).await.1;
    assert_eq!((&odd["messages"][0]["message_status"], odd["meta"].is_string()), (&json!("teleported"), true));
    let told = stand.ears.until("odd statuses", |ears| ears.of_status("teleported").pop()).await;
    assert!(told["gravity"].is_object());
    script(json!({ "hold": { "secs": 3600 } })).await;
    assert_eq!(stand.send(&link(ASHA)).await.1["messages"][0]["message_status"], "held_for_quality_assessment");
    let before = stand.ears.of_status("read").len();
    stand.advance(3601).await;
    stand.ears.until("what was held", |ears| (ears.of_status("read").len() > before).then_some(())).await;
    script(json!({ "tell_late": { "secs": 3 * 24 * 3600 } })).await;
    let wamid = stand.send(&link(ASHA)).await.1["messages"][0]["id"].clone();
    let mine = |ears: &Ears| ears.statuses().into_iter().filter(|(_, one)| one["id"] == wamid).count();
    stand.advance(3600).await;
    assert_eq!(mine(&stand.ears), 0);
    stand.advance(3 * 24 * 3600).await;
    stand.ears.until("three days later", |ears| (mine(ears) == 3).then_some(())).await;
}

#[tokio::test]
async fn what_was_accepted_and_what_was_not_look_alike_to_who_gave_up() {
    let stand = Stand::open().await;
    let hasty =
        client(Timeouts { connect: Duration::from_secs(2), total: Duration::from_millis(300) }).expect("a client");
    let send = async |what: Value, to: &str| {
        stand.control("faults", &json!({ "faults": [{ "what": what }] })).await;
        let url = stand.url(&format!("{}/messages", Options::NUMBER));
        hasty.post(url).bearer_auth(TOKEN).json(&link(to)).send().await
    };
    assert!(send(json!("accept_then_silence"), "+919812300001").await.is_err_and(|error| error.is_timeout()));
    assert!(send(json!("silence"), "+919812300002").await.is_err_and(|error| error.is_timeout()));
    assert!(
        send(json!({ "answer_late": { "millis": 5000 } }), "+919812300003")
            .await
            .is_err_and(|error| error.is_timeout())
    );
    assert!(send(json!("accept_then_cut"), "+919812300004").await.is_err());
    assert!(send(json!("cut"), "+919812300005").await.is_err());
    let half = send(json!({ "accept_then_answer": { "status": 200, "body": "half_json" } }), "+919812300006").await;
    assert!(half.expect("an answer").json::<Value>().await.is_err());
    let twice = link("+919812300007");
    for _ in 0..2 {
        assert_eq!(stand.send(&twice).await.0, 200);
    }
    let oracle = stand.oracle().await;
    let shown: Vec<_> =
        (1..=7).map(|n| oracle["recipients"][format!("91981230000{n}")].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(shown, [1, 0, 1, 1, 0, 1, 2]);

    // Nobody listens: refused before anything was sent, and open again later.
    stand.control("faults", &json!({ "closed_millis": 200 })).await;
    let fresh = || client(Timeouts::DEFAULT).expect("a client").get(stand.url("x")).send();
    let mut refused = false;
    for _ in 0..200 {
        match fresh().await {
            Err(error) => refused |= error.is_connect(),
            Ok(_) if refused => break,
            Ok(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(refused && fresh().await.is_ok());
}

#[tokio::test]
async fn chances_are_the_same_for_the_same_seed() {
    let run = async |seed: u64| {
        let stand = Stand::with(|options| options.seed = seed).await;
        stand
            .control(
                "faults",
                &json!({ "faults": [{ "chance": 0.5, "times": 1000, "what": { "refuse": { "code": 131_000 } } }] }),
            )
            .await;
        let mut seen = Vec::new();
        for index in 0..40 {
            let answer = stand.send(&link(&format!("+9198123{index:05}"))).await;
            seen.push((answer.0, answer.1["messages"][0]["id"].clone()));
        }
        seen
    };
    let (first, again, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!((5..35).contains(&first.iter().filter(|(status, _)| *status == 200).count()));
}

#[tokio::test]
async fn tokens_expire_and_come_back_and_permissions_and_proofs_are_asked_for() {
    let stand = Stand::open().await;
    let send = async || code(&stand.send(&link(ASHA)).await);
    assert_eq!(stand.control("credentials", &json!({ "expired": true })).await, 204);
    assert_eq!(send().await, (190, Some(463)));
    stand.control("credentials", &json!({ "expired": false })).await;
    assert_eq!(send().await, (0, None));
    stand.control("credentials", &json!({ "access_token": "another" })).await;
    assert_eq!(send().await, (190, None));
    stand.control("credentials", &json!({ "access_token": TOKEN, "proof_needed": true })).await;
    assert_eq!(send().await, (104, None));
    let wrong = format!("{}/messages?appsecret_proof={}", Options::NUMBER, "0".repeat(64));
    assert_eq!(code(&stand.post(&wrong, &link(ASHA)).await), (100, None));
    let proof = messaging::sign(&"sandbox-app-secret".to_owned().into(), TOKEN.as_bytes());
    let right = format!("{}/messages?appsecret_proof={}", Options::NUMBER, hex::encode(proof));
    assert_eq!(stand.post(&right, &link(ASHA)).await.0, 200);
    stand.control("credentials", &json!({ "proof_needed": false, "messaging": false })).await;
    assert_eq!(send().await, (10, None));
    stand.control("credentials", &json!({ "messaging": true, "management": false })).await;
    assert_eq!(code(&stand.get(&format!("{}/message_templates", Options::ACCOUNT)).await), (200, None));
    let bare = Stand::answer(stand.http.get(stand.url(Options::NUMBER))).await;
    assert_eq!((bare.0, code(&bare)), (403, (200, None)));
    assert_eq!(stand.control("credentials", &json!({ "number": "1" })).await, 404);
    let old =
        Stand::answer(stand.http.get(stand.url(Options::NUMBER).replace("v25.0", "v20.0")).bearer_auth(TOKEN)).await;
    assert_eq!(code(&old), (2635, None));
}
