//! Limits: of a number, towards a person, of a portfolio, of calls; and what the oracle tells of them.

use super::*;

fn phone(index: usize) -> String {
    format!("+9197{index:08}")
}

/// One of ours that sells.
async fn marketing(stand: &Stand) {
    let template = json!({ "name": "offer_v1", "language": "en", "category": "MARKETING",
        "components": [{ "type": "BODY", "text": "Good day to you from all of us at the shop" }] });
    assert_eq!(stand.post(&format!("{}/message_templates", Options::ACCOUNT), &template).await.0, 200);
    stand.control("templates", &json!({ "name": "offer_v1", "status": "APPROVED", "silently": true })).await;
}

#[tokio::test]
async fn a_number_takes_so_many_in_any_second_and_the_oracle_counts_exactly() {
    let stand = Stand::with(|options| options.numbers[0].messages_per_second = 20).await;
    let stand = Arc::new(stand);
    let mut posts = tokio::task::JoinSet::new();
    for index in 0..60 {
        let stand = Arc::clone(&stand);
        posts.spawn(async move { stand.send(&link(&phone(index))).await });
    }
    let answers = posts.join_all().await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.0 != 200).collect();
    assert!(refused.iter().all(|answer| code(answer) == (130_429, None)));
    let told = stand.oracle().await["numbers"][Options::NUMBER].clone();
    let accepted = answers.len() - refused.len();
    assert!(accepted >= 20 && told["accepted_most_in_a_second"].as_u64() <= Some(20), "{told}");
    assert_eq!((told["accepted"].as_u64(), told["offered"].as_u64()), (Some(accepted as u64), Some(60)));
    assert_eq!(told["refused"]["130429"].as_u64().unwrap_or(0), refused.len() as u64);
    let summary = stand.http.get(format!("http://{}/sandbox/oracle?summary=true", stand.at)).send().await;
    let summary: Value = summary.expect("an answer").json().await.expect("JSON");
    assert!(summary.get("recipients").is_none() && summary["numbers"].is_object());
}

#[tokio::test]
async fn one_person_gets_a_burst_and_then_one_in_six_seconds() {
    let stand = Stand::open().await;
    let mut codes = Vec::new();
    for _ in 0..50 {
        codes.push(code(&stand.send(&link(ASHA)).await).0);
    }
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 45);
    assert!(codes[45..].iter().all(|code| *code == 131_056), "{codes:?}");
    // Others are not held up.
    assert_eq!(stand.send(&link("+919812300000")).await.0, 200);
    stand.advance(6).await;
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    assert_eq!(code(&stand.send(&link(ASHA)).await), (131_056, None));
    let told = stand.oracle().await["numbers"][Options::NUMBER].clone();
    assert_eq!((&told["pair_burst_most"], &told["refused"]["131056"]), (&json!(45.0), &json!(6)));
}

#[tokio::test]
async fn a_portfolio_begins_with_so_many_people_a_day() {
    let stand = Stand::with(|options| options.numbers[0].messages_per_second = 1000).await;
    assert_eq!(stand.control("numbers", &json!({ "tier": "TIER_250" })).await, 204);
    let told = stand.ears.until("the tier", |ears| ears.of("business_capability_update").pop()).await;
    assert_eq!(told["max_daily_conversations_per_business"], 250);
    for index in 0..251 {
        assert_eq!(stand.send(&link(&phone(index))).await.0, 200);
    }
    let failed = stand.ears.until("the failure", |ears| ears.of_status("failed").pop()).await;
    assert_eq!(
        (&failed["errors"][0]["code"], &failed["recipient_id"]),
        (&json!(131_049), &json!(phone(250)[1..].to_owned()))
    );
    // Somebody who was written to today is nobody new, and who wrote herself does not count.
    assert_eq!(stand.send(&link(&phone(0))).await.0, 200);
    stand.hear_from(&phone(300), "Hello").await;
    assert_eq!(stand.send(&link(&phone(300))).await.0, 200);
    stand.ears.until("both are read", |ears| (ears.of_status("read").len() == 252).then_some(())).await;
    assert_eq!(stand.control("behaviour", &json!({ "portfolio_code": 131_048 })).await, 204);
    assert_eq!(stand.send(&link(&phone(400))).await.0, 200);
    let failed = stand.ears.until("the other code", |ears| ears.of_status("failed").get(1).cloned()).await;
    assert_eq!(failed["errors"][0]["code"], 131_048);
    stand.advance(24 * 3600 + 1).await;
    assert_eq!(stand.send(&link(&phone(401))).await.0, 200);
    stand.ears.until("a new day", |ears| (ears.of_status("read").len() == 253).then_some(())).await;
}

#[tokio::test]
async fn a_person_gets_so_much_marketing_and_none_when_she_stopped_it() {
    let stand = Stand::open().await;
    marketing(&stand).await;
    let offer = |to: &str| message(to, "offer_v1", &json!([]));
    assert_eq!(stand.control("behaviour", &json!({ "marketing_cap": 1, "marketing_lock_after": 2 })).await, 204);
    let failed = async |count: usize| {
        let failed = stand.ears.until("a failure", |ears| ears.of_status("failed").get(count - 1).cloned()).await;
        failed["errors"][0]["code"].as_i64()
    };
    assert_eq!(stand.send(&offer(ASHA)).await.0, 200);
    stand.ears.until("the first", |ears| ears.of_status("read").pop()).await;
    for count in [1, 2] {
        assert_eq!(stand.send(&offer(ASHA)).await.0, 200);
        assert_eq!(failed(count).await, Some(131_049));
    }
    // Twice in vain: the day begins anew.
    stand.advance(23 * 3600 + 1800).await;
    stand.send(&offer(ASHA)).await;
    assert_eq!(failed(3).await, Some(131_049));
    // Nobody in the United States gets any.
    stand.send(&offer("+12025550123")).await;
    assert_eq!(failed(4).await, Some(131_049));
    // What she stops in the app's settings is refused at once; the rest still comes, and the oracle counts it.
    assert_eq!(stand.control("webhooks", &json!({ "kind": "stop", "phone": "919812345678" })).await, 204);
    let told = stand.ears.until("her wish", |ears| ears.of("user_preferences").pop()).await;
    assert_eq!(
        (&told["user_preferences"][0]["value"], &told["user_preferences"][0]["category"]),
        (&json!("stop"), &json!("marketing_messages"))
    );
    assert_eq!(code(&stand.send(&offer(ASHA)).await), (131_050, None));
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    let after = stand.oracle().await["after_opt_out"].clone();
    assert_eq!(after["counts"], json!({ "UTILITY": 1 }));
    assert_eq!(after["first"][0]["to"], "919812345678");
    stand.control("webhooks", &json!({ "kind": "resume", "phone": "919812345678" })).await;
    assert_eq!(stand.send(&offer(ASHA)).await.0, 200);
    // A typed word does nothing at the carrier; the oracle knows it all the same.
    stand.hear_from("+919812300000", "Stop.").await;
    assert_eq!(stand.send(&offer("+919812300000")).await.0, 200);
    assert_eq!(stand.oracle().await["after_opt_out"]["counts"]["MARKETING"], 1);
}

#[tokio::test]
async fn an_hour_has_so_many_management_calls_and_three_days_so_many_registrations() {
    let stand = Stand::open().await;
    let number = Options::NUMBER;
    assert_eq!(stand.post(&format!("{number}/deregister"), &json!({})).await.0, 200);
    assert_eq!(code(&stand.send(&link(ASHA)).await), (133_010, None));
    let account = Options::ACCOUNT;
    let mut calls = 0;
    let refused = loop {
        let answer = stand.get(&format!("{account}/phone_numbers")).await;
        if answer.0 != 200 {
            break answer;
        }
        calls += 1;
    };
    assert_eq!((calls, refused.0, code(&refused)), (200, 429, (80_007, None)));
    assert_eq!(code(&stand.get(&format!("{account}/message_templates")).await), (80_008, None));
    let answer = stand.http.get(stand.url(account)).bearer_auth(TOKEN).send().await.expect("an answer");
    let usage: Value =
        serde_json::from_str(answer.headers()["x-business-use-case-usage"].to_str().expect("text")).expect("JSON");
    let minutes = usage[account][0]["estimated_time_to_regain_access"].as_i64().expect("minutes");
    assert!((1..=60).contains(&minutes) && answer.headers().contains_key("x-fb-trace-id"));
    let register = |pin: &str| json!({ "messaging_product": "whatsapp", "pin": pin });
    let path = format!("{number}/register");
    assert_eq!(code(&stand.post(&path, &register("12")).await), (100, None));
    assert_eq!(stand.post(&path, &register("123456")).await.0, 200);
    for _ in 0..7 {
        assert_eq!(code(&stand.post(&path, &register("654321")).await), (133_005, None));
    }
    assert_eq!(code(&stand.post(&path, &register("123456")).await), (133_016, None));
    stand.advance(72 * 3600).await;
    assert_eq!(stand.post(&path, &register("123456")).await.0, 200);
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    // With a registered number there are five thousand.
    for _ in 0..201 {
        assert_eq!(stand.get(account).await.0, 200);
    }
}
