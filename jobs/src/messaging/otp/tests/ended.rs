//! Codes whose worker was killed, and codes that nobody wanted.

use super::*;

#[tokio::test]
async fn atk_101_a_code_lies_nowhere_in_clear_and_dies_with_its_worker() {
    for (step, mails) in [(0, 1), (1, 2), (2, 1)] {
        let desk = Desk::open().await;
        let issued = desk.ask(&to_mail("asha@example.in")).await.expect("issued");
        desk.run_twice("messaging.send_otp", step).await;
        let codes = desk.mailed();
        assert_eq!(codes.len(), mails, "step {step}");
        let last = codes.last().expect("a mail");
        for table in ["messaging_otps", "messaging_otp_codes", "queue_jobs", "evidence_events", "messaging_otp_limits"]
        {
            let lying: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "select exists (select from muneem.{table} t where t::text ~ $1 or t::text ~ $2)"
            )))
            .bind(format!("[^0-9a-f]{last}[^0-9a-f]"))
            .bind(hex::encode(last))
            .fetch_one(&desk.shops.db.pool())
            .await
            .expect("looked");
            assert!(!lying, "{table}");
        }
        // Of two that were mailed the later one counts.
        if let [first, _] = codes.as_slice() {
            assert!(!desk.enter(&entry(issued.otp_id, first)).await.verified);
        }
        assert!(desk.enter(&entry(issued.otp_id, last)).await.verified, "step {step}");
    }
}

#[tokio::test]
async fn crash_at_every_step_plans_one_message_for_whatsapp() {
    for step in 0..2 {
        let desk = Desk::open().await;
        desk.add_account().await;
        let issued = desk.ask(&to_phone(1)).await.expect("issued");
        desk.run_twice("messaging.send_otp", step).await;
        let planned: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_messages")
            .fetch_one(&desk.shops.db.pool())
            .await
            .expect("counted");
        assert_eq!(planned, 1, "step {step}");
        let code = desk.planned().await;
        assert!(desk.enter(&entry(issued.otp_id, &code)).await.verified);
    }
}

#[tokio::test]
async fn a_code_that_nobody_asked_for_is_void() {
    let desk = Desk::open().await;
    desk.add_account().await;
    let issued = desk.ask(&to_phone(1)).await.expect("issued");
    desk.run("messaging.send_otp").await;
    let code = desk.planned().await;
    let Contact::Phone(number) = phone(1) else { panic!("a phone") };
    for (key, answered) in [("wamid.1", true), ("wamid.2", false)] {
        let said = Said::Payload("DID_NOT_REQUEST_CODE");
        let inbound = Inbound { key, phone: Some(&number), user_id: None, said, at: noon() };
        let mut tx = desk.shops.of(desk.shops.sharma).await;
        let heard =
            hear(&mut tx, &desk.shops.vault, &desk.shops.by(noon()), desk.shops.sharma, &inbound).await.expect("heard");
        tx.commit().await.expect("committed");
        assert_eq!(heard.answer.is_some(), answered, "{key}");
    }
    assert!(!desk.enter(&entry(issued.otp_id, &code)).await.verified);
    assert_eq!(desk.shops.told("messaging.otp_disowned").await, 1);
    // An erased person's requests are gone.
    desk.wait(3600);
    desk.ask(&to_phone(1)).await.expect("issued");
    desk.shops.erase(&phone(1)).await;
    let left: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_otps")
        .fetch_one(&desk.shops.db.pool())
        .await
        .expect("counted");
    assert_eq!(left, 0);
}
