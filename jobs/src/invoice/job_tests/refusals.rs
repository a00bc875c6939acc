//! Documents that are not issued.

use super::*;

#[tokio::test]
async fn another_document_under_its_number_is_refused_also_in_other_case() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    shop.run_next().await.expect("rendered");
    let mut other = samples::phone();
    other["number"] = json!("sm/26-27/00042");
    shop.enqueue(json!({ "invoice": other })).await;
    // The message of the first waits in the same lane.
    let mut failure = None;
    while let Some(claimed) = shop.claim().await {
        if claimed.kind == "invoice.issue" {
            failure = shop.handle(&claimed, StopAt::never()).await.err();
        }
    }
    let failure = failure.expect("refused");
    assert_eq!(failure.cause, "invoice.number_taken");
    assert!(!failure.error.contains("आशा"), "{}", failure.error);
    assert_eq!(shop.count("invoice_refusals").await, 1);
    assert!(!shop.queue_text().await.contains("आशा"));
    let mut credit = samples::credit_note();
    credit["number"] = samples::phone()["number"].clone();
    shop.enqueue(json!({ "invoice": credit })).await;
    shop.run_next().await.expect("a credit note has a series of its own");
    let mut branch = samples::phone();
    branch["supplier"]["gstin"] = json!("29ZZZCZ9999Z1ZF");
    branch["supplier"]["address"]["state"] = json!("29");
    branch["total"] = json!("14999");
    shop.enqueue(json!({ "invoice": branch })).await;
    while let Some(claimed) = shop.claim().await {
        if claimed.kind == "invoice.issue" {
            shop.handle(&claimed, StopAt::never()).await.expect("a branch in another State has a series of its own");
        }
    }
}

#[tokio::test]
async fn refused_document_leaves_the_job_and_comes_back_on_retry() {
    let shop = Shop::open().await;
    let mut wrong = samples::phone();
    wrong["supplier"]["gstin"] = json!("27ZZZPZ0000Z1ZB");
    wrong["issued_on"] = json!("2026-11-24");
    let job = shop.enqueue(payload(&wrong)).await;
    let failure = shop.run_next().await.expect_err("refused");
    assert_eq!((failure.cause, failure.disposition), ("invoice.refused", queue::Disposition::Fail));
    assert!(failure.error.contains("issued_on") && failure.error.contains("supplier.gstin"), "{}", failure.error);
    assert!(!shop.queue_text().await.contains("आशा"));
    // Somebody mends the document where it is kept, and retries the dead letter.
    shop.change_sealed("invoice_refusals", ("refusal_id", "payload_sealed"), Class::Payload, |payload| {
        payload["invoice"]["supplier"]["gstin"] = json!("27ZZZPZ0000Z1ZA");
        payload["invoice"]["issued_on"] = json!("2026-11-23");
    })
    .await;
    assert!(queue::retry(&mut *shop.conn().await, job, &shop.by()).await.expect("a retry"));
    shop.run_next().await.expect("issued");
    shop.run_next().await.expect("rendered");
    assert_eq!((shop.count("invoice_refusals").await, shop.count("messaging_messages").await), (0, 1));
}

/// The rule in Postgres asks for presence and types only, so these get as far as the handler.
#[tokio::test]
async fn a_document_that_does_not_read_leaves_the_job_too() {
    let shop = Shop::open().await;
    let change = |change: fn(&mut Value)| {
        let mut whole = payload(&samples::phone());
        change(&mut whole);
        whole
    };
    for (bad, field) in [
        (change(|whole| whole["invoice"]["lines"][0]["unit_price"] = json!("12,711.02")), "lines[0].unit_price"),
        (change(|whole| whole["invoice"]["buyer"]["nickname"] = json!("आशा")), "buyer.nickname"),
        (change(|whole| whole["invoice"]["आशा वर्मा"] = json!(1)), "?"),
        (change(|whole| whole["invoice"]["issued_on"] = json!("23-11-2026")), "issued_on"),
        (change(|whole| whole["deliver"]["whatsapp"]["Klingon"] = json!(true)), "deliver.whatsapp.?"),
        (change(|whole| whole["refusal_id"] = json!(Uuid::nil())), "refusal_id"),
    ] {
        let job = shop.enqueue(bad).await;
        let failure = shop.run_next().await.expect_err("refused");
        assert_eq!((failure.cause, failure.disposition), ("invoice.refused", queue::Disposition::Fail), "{field}");
        assert!(failure.error.contains(&format!(": {field} is unknown")), "{field}: {}", failure.error);
        for personal in ["आशा", "9876543210", "12,711", "Klingon", "490154203237518"] {
            assert!(!shop.queue_text().await.contains(personal), "{field}: {personal}");
            assert!(!failure.error.contains(personal), "{field}: {}", failure.error);
        }
        // A retry says the same, and keeps one refusal.
        assert!(queue::retry(&mut *shop.conn().await, job, &shop.by()).await.expect("a retry"));
        assert_eq!(shop.run_next().await.expect_err("refused again").cause, "invoice.refused", "{field}");
    }
    assert_eq!((shop.count("invoice_refusals").await, shop.count("invoice_invoices").await), (6, 0));
    let ids: Vec<Uuid> = sqlx::query_scalar("select refusal_id from muneem.invoice_refusals")
        .fetch_all(&mut *shop.conn().await)
        .await
        .expect("ids");
    let found =
        crate::invoice::find_refusal(&mut *shop.conn().await, Some(shop.business), crate::invoice::RefusalId(ids[0]))
            .await;
    assert_eq!(found.expect("an answer").expect("a refusal").0, "SM/26-27/00042");
}

/// Killed after each step and run again, both jobs end in the same state.
#[tokio::test]
async fn atk_047_a_card_number_enqueued_by_sql_is_in_no_dead_letter() {
    let shop = Shop::open().await;
    let mut document = samples::phone();
    document["note"] = json!("paid with 4111-1111-1111-1111");
    shop.enqueue_by_sql(payload(&document)).await;
    let failure = shop.run_next().await.expect_err("refused");
    assert_eq!(failure.cause, "vault.card_number");
    assert!(failure.error.contains("`invoice.note`") && !failure.error.contains("1111"), "{}", failure.error);
    let kept = shop.queue_text().await;
    assert!(!kept.contains("1111-1111"), "{kept}");
    assert_eq!(shop.count("queue_dead").await, 1);
}
