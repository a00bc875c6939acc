//! Numbers, accounts, phones: what is told of them, and what changes.

use super::*;

#[tokio::test]
async fn a_number_tells_what_is_asked_and_changes_with_a_webhook_for_each() {
    let stand = Stand::open().await;
    let fields = "id,display_phone_number,verified_name,quality_rating,code_verification_status,name_status,status,account_mode,platform_type,throughput,health_status,whatsapp_business_manager_messaging_limit";
    let number = Options::NUMBER;
    let look = async || stand.get(&format!("{number}?fields={fields}")).await.1;
    let told = look().await;
    for field in fields.split(',') {
        assert!(!told[field].is_null(), "{field}: {told}");
    }
    assert_eq!(
        (&told["throughput"]["level"], &told["health_status"]["can_send_message"]),
        (&json!("STANDARD"), &json!("AVAILABLE"))
    );
    let plain = stand.get(number).await.1;
    assert!(plain.get("health_status").is_none() && plain["quality_rating"] == "GREEN");
    assert_eq!(stand.get(&format!("{}/phone_numbers", Options::ACCOUNT)).await.1["data"][0]["id"], number);

    let change = async |script: Value| assert_eq!(stand.control("numbers", &script).await, 204, "{script}");
    change(json!({ "quality": "RED", "name_status": "DECLINED", "security": "PIN_CHANGED" })).await;
    stand.ears.until("the name", |ears| ears.of("phone_number_name_update").pop()).await;
    let security = stand.ears.until("the alarm", |ears| ears.of("security").pop()).await;
    assert_eq!((&security["event"], &look().await["quality_rating"]), (&json!("PIN_CHANGED"), &json!("RED")));
    change(json!({ "upgrade": true })).await;
    assert_eq!(code(&stand.send(&link(ASHA)).await), (131_057, None));
    stand.advance(61).await;
    let told = stand
        .ears
        .until("the upgrade", |ears| {
            ears.of("phone_number_quality_update").into_iter().find(|told| told["event"] == "THROUGHPUT_UPGRADE")
        })
        .await;
    assert_eq!(
        (&told["display_phone_number"], &look().await["throughput"]["level"]),
        (&json!("919800000001"), &json!("HIGH"))
    );
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);

    change(json!({ "ban": "DISABLE", "restriction": "RESTRICTED_BIZ_INITIATED_MESSAGING", "violation": "SPAM",
        "alert": "OBA_REVOKED" }))
    .await;
    let updates =
        stand.ears.until("three updates", |ears| Some(ears.of("account_update")).filter(|told| told.len() == 3)).await;
    let events: Vec<_> = updates.iter().filter_map(|told| told["event"].as_str()).collect();
    assert_eq!(events, ["DISABLED_UPDATE", "ACCOUNT_RESTRICTION", "ACCOUNT_VIOLATION"]);
    stand.ears.until("the alert", |ears| ears.of("account_alerts").pop()).await;
    assert_eq!(code(&stand.send(&link(ASHA)).await), (131_031, None));
    assert_eq!(look().await["health_status"]["can_send_message"], "BLOCKED");
    assert_eq!(
        stand.get(&format!("{}?fields=health_status", Options::ACCOUNT)).await.1["health_status"]["can_send_message"],
        "BLOCKED"
    );
    change(json!({ "ban": "REINSTATE" })).await;
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    change(json!({ "refuse_account": 368 })).await;
    assert_eq!(code(&stand.send(&link(ASHA)).await), (368, None));
    change(json!({ "refuse_account": 0, "refuse": 131_045 })).await;
    assert_eq!(code(&stand.send(&link(ASHA)).await), (131_045, None));
    change(json!({ "refuse": 0, "status": "BANNED" })).await;
    assert_eq!(code(&stand.send(&link(ASHA)).await), (368, None));
    change(json!({ "status": "CONNECTED", "deleted": true })).await;
    assert_eq!(code(&stand.send(&link(ASHA)).await), (33, None));
    assert_eq!(stand.control("numbers", &json!({ "number": "1" })).await, 404);
}

#[tokio::test]
async fn a_number_is_verified_registered_and_blocks_people() {
    let stand = Stand::open().await;
    let number = Options::NUMBER;
    stand.control("numbers", &json!({ "verified": false, "registered": false })).await;
    let register = json!({ "messaging_product": "whatsapp", "pin": "123456", "data_localization_region": "IN" });
    let post = async |what: &str, body: Value| code(&stand.post(&format!("{number}/{what}"), &body).await).0;
    assert_eq!(post("register", register.clone()).await, 133_006);
    assert_eq!(post("request_code", json!({ "code_method": "PIGEON", "language": "en" })).await, 136_024);
    assert_eq!(post("verify_code", json!({ "code": "123456" })).await, 136_025);
    assert_eq!(post("request_code", json!({ "code_method": "SMS", "language": "en" })).await, 0);
    assert_eq!(post("verify_code", json!({ "code": "000000" })).await, 136_025);
    assert_eq!(post("verify_code", json!({ "code": "123456" })).await, 0);
    assert_eq!(
        post(
            "register",
            json!({ "messaging_product": "whatsapp", "pin": "123456", "data_localization_region": "India" })
        )
        .await,
        100
    );
    assert_eq!(post("register", register).await, 0);
    assert_eq!(post("deregister", json!({})).await, 0);
    assert_eq!(post("deregister", json!({})).await, 133_010);
    stand.control("numbers", &json!({ "registered": true })).await;
    assert_eq!(code(&stand.post(number, &json!({ "pin": "12" })).await).0, 100);
    assert_eq!(stand.post(number, &json!({ "pin": "222222" })).await.0, 200);
    assert_eq!(code(&stand.post(number, &json!({})).await).0, 100);
    assert_eq!(code(&stand.post("1", &json!({ "pin": "222222" })).await), (100, Some(33)));

    let block = json!({ "messaging_product": "whatsapp", "block_users": [{ "user": ASHA }] });
    let path = format!("{number}/block_users");
    let (_, told) = stand.post(&path, &block).await;
    assert_eq!(told["block_users"]["failed_users"][0]["errors"][0]["code"], 139_101);
    stand.hear_from(ASHA, "spam spam").await;
    assert_eq!(stand.post(&path, &block).await.1["block_users"]["added_users"][0]["wa_id"], "919812345678");
    assert_eq!(code(&stand.send(&link(ASHA)).await), (130_403, None));
    assert_eq!(stand.get(&path).await.1["data"][0]["wa_id"], "919812345678");
    let unblock = stand.http.delete(stand.url(&path)).bearer_auth(TOKEN).json(&block);
    assert_eq!(Stand::answer(unblock).await.0, 200);
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
}

#[tokio::test]
async fn a_phone_that_is_off_gets_what_still_lives_when_it_is_on_and_nobody_hears_of_the_rest() {
    let stand = Stand::open().await;
    let wish = async |wish: Value| assert_eq!(stand.control("phones", &wish).await, 204);
    wish(json!({ "phone": ASHA, "offline": true, "receipts_off": true })).await;
    let otp = message(
        ASHA,
        "sign_in_code_v1",
        &json!([
        { "type": "body", "parameters": [{ "type": "text", "text": "123456" }] },
        { "type": "button", "sub_type": "url", "index": "0", "parameters": [{ "type": "text", "text": "123456" }] }]),
    );
    assert_eq!(stand.send(&otp).await.0, 200);
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    stand.ears.until("both sent", |ears| (ears.of_status("sent").len() == 2).then_some(())).await;
    stand.advance(11 * 60).await;
    assert_eq!(stand.ears.of_status("delivered").len(), 0);
    wish(json!({ "phone": ASHA, "offline": false })).await;
    stand.ears.until("one delivered", |ears| ears.of_status("delivered").pop()).await;
    // A third one, so that whatever was still to come has come.
    assert_eq!(stand.send(&link(ASHA)).await.0, 200);
    stand.ears.until("two delivered", |ears| (ears.of_status("delivered").len() == 2).then_some(())).await;
    assert_eq!((stand.ears.of_status("read").len(), stand.ears.of_status("failed").len()), (0, 0));
    let shown = stand.oracle().await["recipients"]["919812345678"].clone();
    let displayed: Vec<_> =
        shown.as_array().expect("a list").iter().map(|one| !one["displayed_at"].is_null()).collect();
    assert_eq!(displayed, [false, true, true]);
    let history = stand.get(&format!("{}/message_history?limit=1", Options::NUMBER)).await.1;
    assert_eq!(history["data"][0]["events"][1]["delivery_status"], "DELIVERED");
    assert!(history["data"][0].get("to").is_none());
    assert_eq!(code(&stand.get(&format!("{}/message_history?limit=101", Options::NUMBER)).await), (100, None));
    assert_eq!(stand.control("phones", &json!({ "phone": "x" })).await, 422);
    assert_eq!(stand.control("inbound", &json!({ "from": "919812345678" })).await, 422);
    assert_eq!(stand.control("clock", &json!({})).await, 422);
}
