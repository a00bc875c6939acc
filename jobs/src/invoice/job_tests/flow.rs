//! From payload to paper and message, killed at every step.

use super::*;

#[tokio::test]
async fn invoice_goes_from_payload_to_pdf_and_message_and_leaves_no_clear_text() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    assert!(matches!(shop.run_next().await, Ok(Done::Acked)));
    assert!(matches!(shop.run_next().await, Ok(Done::Acked)));

    let mut conn = shop.conn().await;
    let [recorded] = <[_; 1]>::try_from(list_invoices(&mut conn, Some(shop.business), None, 50).await.expect("a page"))
        .expect("one invoice");
    // The digest changes with every change of the template.
    let mut shown = serde_json::to_value(&recorded).expect("JSON");
    (shown["invoice_id"], shown["pdf_digest"]) = (json!("[id]"), json!("[digest]"));
    insta::assert_json_snapshot!(shown);
    let pdf = shop.pdf(&recorded).await.expect("a PDF");
    assert_eq!(pdf.file_name, "SM-26-27-00042.pdf");
    assert_ne!(Some(files::digest_of(&pdf.bytes)), recorded.pdf_digest, "its name tells nobody what is in it");
    assert_eq!(Some(shop.objects.digests()), recorded.pdf_digest.clone().map(|digest| vec![digest]));
    let message: (String, String, Vec<u8>, String) = sqlx::query_as(
        "select purpose, document_filename, params_sealed, message_id::text from muneem.messaging_messages",
    )
    .fetch_one(&mut *conn)
    .await
    .expect("a message");
    assert_eq!((message.0.as_str(), message.1.as_str()), ("invoice.issued", "SM-26-27-00042.pdf"));
    let cell = Cell {
        business_id: shop.business,
        table: "muneem.messaging_messages",
        column: "params_sealed",
        row: &message.3,
    };
    let params = shop.deps.vault.open(&mut conn, &cell, &message.2).await.expect("it opens");
    let params = String::from_utf8(params.to_vec()).expect("JSON");
    assert!(params.contains("आशा वर्मा") && params.contains("₹14,999.00"), "{params}");

    let text = shop.queue_text().await;
    for personal in ["आशा", "9876543210", "490154203237518", "सोसायटी"] {
        assert!(!text.contains(personal), "{personal} in {text}");
    }
    let delivers: i64 =
        sqlx::query_scalar("select count(*) from muneem.invoice_invoices where deliver_sealed is not null")
            .fetch_one(&mut *conn)
            .await
            .expect("a count");
    assert_eq!(delivers, 0);
}

#[tokio::test]
async fn without_an_account_the_paper_is_made_and_its_message_waits_a_day_and_a_retry() {
    let shop = Shop::open().await;
    shop.execute("delete from muneem.messaging_accounts").await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    assert!(matches!(shop.run_next().await, Ok(Done::Acked)));
    let recorded = list_invoices(&mut *shop.conn().await, None, None, 1).await.expect("a page").remove(0);
    assert!(shop.pdf(&recorded).await.is_some());
    assert_eq!(shop.count("messaging_messages").await, 0);

    let claimed = shop.claim().await.expect("the hand-over waits");
    assert_eq!(claimed.kind, "invoice.hand_over");
    let failure = shop.handle(&claimed, StopAt::never()).await.expect_err("no account yet");
    let soon = FixedClock.now() + chrono::TimeDelta::seconds(15);
    assert_eq!((failure.cause, failure.disposition), ("messaging.no_account", queue::Disposition::Snooze(soon)));

    shop.execute("update muneem.invoice_invoices set issued_at = issued_at - interval '24 hours'").await;
    let failure = shop.handle(&claimed, StopAt::never()).await.expect_err("no account for a day");
    assert_eq!((failure.cause, failure.disposition), ("messaging.no_account", queue::Disposition::Fail));
    let held = Held { job: claimed.job, attempt: claimed.attempt };
    let buried = [Buried { held, cause: failure.cause, error: failure.error }];
    work::bury(&mut *shop.conn().await, shop.worker, &buried).await.expect("a burial");
    assert!(!shop.queue_text().await.contains("9876543210"));

    shop.add_account().await;
    assert!(queue::retry(&mut *shop.conn().await, claimed.job, &shop.by()).await.expect("a retry"));
    assert!(matches!(shop.run_next().await, Ok(Done::Acked)));
    assert_eq!(shop.claim().await.expect("a message goes out").kind, "messaging.send");
    assert_eq!(shop.count("messaging_messages").await, 1);
    assert_eq!(shop.count("invoice_invoices where deliver_sealed is not null").await, 0);
}

#[tokio::test]
async fn what_messaging_will_never_take_is_on_paper_too() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    shop.change_sealed("invoice_invoices", ("invoice_id", "deliver_sealed"), Class::Contact, |deliver| {
        deliver["whatsapp"]["to"] = json!("none");
    })
    .await;
    shop.run_next().await.expect("rendered");
    assert_eq!(shop.count("invoice_invoices where state = 'issued'").await, 1);
    let failure = shop.run_next().await.expect_err("nowhere to go");
    assert_eq!((failure.cause, failure.disposition), ("invoice.bad_phone", queue::Disposition::Fail));
}

/// What came in by SQL and by webhook stands in no table once its job has handled it, whether it was taken or refused.
#[tokio::test]
async fn atk_101_canary_no_table_spells_what_a_job_has_handled() {
    let shop = Shop::open().await;
    let canaries = [
        "आशा",
        "सोसायटी",
        "9812345670",
        "490154203237518",
        "27ZZZPZ0000Z1ZA",
        "29ABCDE1234F1ZW",
        "bills@sharma-mobiles.example",
        "sharma.mobiles@okbank",
        "wamid.HBgMOTE5ODc2NTQzMjEw",
        "tok_canary_7Yx",
    ];
    // As text, and as the bytes that bytea columns show.
    let seen = |text: &str| -> Vec<&str> {
        canaries.into_iter().filter(|canary| text.contains(canary) || text.contains(&hex::encode(canary))).collect()
    };
    let to_asha = |document: &Value| {
        let mut whole = payload(document);
        whole["deliver"]["whatsapp"]["to"] = json!("+919812345670");
        whole
    };
    shop.enqueue_by_sql(to_asha(&samples::phone())).await;
    let mut wrong = samples::interstate();
    wrong["total"] = json!("1");
    wrong["buyer"]["name"] = json!("आशा tok_canary_7Yx");
    shop.enqueue_by_sql(to_asha(&wrong)).await;
    let number = messaging::list_accounts(&mut *shop.conn().await, Some(shop.business)).await.expect("an account");
    let webhook = json!({ "entry": [{ "changes": [{ "field": "messages", "value": {
        "metadata": { "phone_number_id": number[0].number.as_str() },
        "messages": [{ "id": "wamid.HBgMOTE5ODc2NTQzMjEw", "from": "919812345670", "type": "text",
            "timestamp": "1764000000", "text": { "body": "tok_canary_7Yx" } }] } }] }] });
    let (deps, body) = (&shop.deps, webhook.to_string());
    let kept = messaging::receive_webhook(
        &mut *shop.conn().await,
        &deps.vault,
        deps.clock.as_ref(),
        deps.chance.as_ref(),
        body.as_bytes(),
    )
    .await;
    assert_eq!(kept.expect("kept"), messaging::Received::New(1));
    let before = shop.all_text().await;
    assert!(seen(&before).contains(&"आशा"), "jobs enqueued by SQL stand in line in clear, and the look sees them");
    assert!(!seen(&before).contains(&"wamid.HBgMOTE5ODc2NTQzMjEw"), "a webhook is sealed at the door");

    let (mut ended, mut buried) = (0, 0);
    while let Some(claimed) = shop.claim().await {
        if claimed.kind == "messaging.send" {
            continue;
        }
        ended += 1;
        if let Err(failure) = shop.handle(&claimed, StopAt::never()).await {
            buried += 1;
            assert_eq!(seen(&failure.error), Vec::<&str>::new(), "in an error");
            let held = Held { job: claimed.job, attempt: claimed.attempt };
            let given_up = [Buried { held, cause: failure.cause, error: failure.error }];
            work::bury(&mut *shop.conn().await, shop.worker, &given_up).await.expect("a burial");
        }
    }
    assert_eq!((ended, buried), (4, 1), "two documents, a paper, a webhook; one document was refused");
    assert_eq!((shop.count("messaging_messages").await, shop.count("messaging_events").await), (1, 1));
    assert_eq!((shop.count("invoice_refusals").await, shop.count("queue_dead").await), (1, 1));
    assert_eq!(seen(&shop.all_text().await), Vec::<&str>::new());
}

/// Killed after each step and run again, the hand-over ends in one message.
#[tokio::test]
async fn crash_of_the_hand_over_ends_in_one_message() {
    let shop = Shop::open().await;
    shop.execute("delete from muneem.messaging_accounts").await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    shop.run_next().await.expect("rendered");
    shop.add_account().await;
    let claimed = shop.claim().await.expect("the hand-over");
    let stop = StopAt::step(0);
    tokio::select! {
        _ = shop.handle(&claimed, Arc::clone(&stop)) => panic!("it has a step"),
        () = stop.stopped.notified() => {}
    }
    let held = Held { job: claimed.job, attempt: claimed.attempt };
    let back = PutBack { held, run_at: None, counts: true, cause: Some("test.killed"), error: None };
    work::put_back(&mut *shop.conn().await, shop.worker, &[back]).await.expect("put back");
    shop.run_next().await.expect("the second attempt ends well");
    assert_eq!(shop.count("messaging_messages").await, 1);
}

#[tokio::test]
async fn another_business_sees_nothing() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    shop.run_next().await.expect("issued");
    shop.run_next().await.expect("rendered");
    let mut conn = shop.conn().await;
    let id = list_invoices(&mut conn, Some(shop.business), None, 1).await.expect("a page")[0].invoice_id;
    let other = BusinessId(Uuid::from_u128(2));
    assert!(find_invoice(&mut conn, Some(other), id).await.expect("an answer").is_none());
    assert!(list_invoices(&mut conn, Some(other), None, 50).await.expect("a page").is_empty());
    assert!(find_invoice(&mut conn, None, id).await.expect("an answer").is_some());
}

#[tokio::test]
async fn same_document_again_is_the_same_invoice() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    let mut again = samples::phone();
    again["total"] = json!("14999");
    shop.enqueue(payload(&again)).await;
    for _ in 0..3 {
        shop.run_next().await.expect("success");
    }
    assert!(shop.claim().await.is_some_and(|job| job.kind == "messaging.send"));
    assert_eq!((shop.count("invoice_invoices").await, shop.count("messaging_messages").await), (1, 1));
}

#[tokio::test]
async fn same_document_twice_at_once_is_one_invoice() {
    let shop = Shop::open().await;
    for _ in 0..2 {
        shop.enqueue(payload(&samples::phone())).await;
    }
    let (one, other) = (shop.claim().await.expect("a job"), shop.claim().await.expect("a job"));
    let ends = tokio::join!(shop.handle(&one, StopAt::never()), shop.handle(&other, StopAt::never()));
    assert!(matches!(ends, (Ok(Done::Acked), Ok(Done::Acked))), "{ends:?}");
    shop.run_next().await.expect("rendered");
    assert_eq!((shop.count("invoice_invoices").await, shop.count("messaging_messages").await), (1, 1));
}

#[tokio::test]
async fn crash_at_every_step_ends_in_one_invoice_one_file_one_message() {
    for step in 0..5 {
        let shop = Shop::open().await;
        shop.enqueue(payload(&samples::phone())).await;
        for _ in 0..2 {
            let claimed = shop.claim().await.expect("a job");
            let stop = StopAt::step(step);
            let crashed = tokio::select! {
                _ = shop.handle(&claimed, Arc::clone(&stop)) => false,
                () = stop.stopped.notified() => true,
            };
            if crashed {
                let back = PutBack {
                    held: Held { job: claimed.job, attempt: claimed.attempt },
                    run_at: None,
                    counts: true,
                    cause: Some("test.killed"),
                    error: None,
                };
                // The dropped handler's transaction rolls back when its connection is next used: wait for its row lock.
                let done = work::put_back(&mut *shop.conn().await, shop.worker, &[back]).await.expect("put back");
                assert_eq!(done, [claimed.job]);
                shop.run_next().await.expect("the second attempt ends well");
            }
        }
        assert_eq!(shop.count("invoice_invoices").await, 1, "step {step}");
        assert_eq!(shop.count("messaging_messages").await, 1, "step {step}");
        assert_eq!(shop.count("files_objects").await, 1, "step {step}");
        assert_eq!(shop.objects.digests().len(), 1, "step {step}");
    }
}

#[tokio::test]
async fn enqueue_refuses_a_payload_off_schema() {
    let shop = Shop::open().await;
    let mut amount_as_number = samples::phone();
    amount_as_number["lines"][0]["quantity"] = json!(1);
    let mut no_number = samples::phone();
    no_number.as_object_mut().expect("an object").remove("number");
    for bad in [json!({}), json!({ "invoice": 7 }), payload(&amount_as_number), payload(&no_number)] {
        let job = NewJob::named("invoice.issue", shop.business, bad);
        let error = queue::enqueue_sealed(&mut *shop.conn().await, &shop.deps.vault, &job).await.expect_err("refused");
        let queue::Error::Refused { refusal: queue::Refusal::PayloadOffSchema, mend, .. } = &error else {
            panic!("{error}");
        };
        assert!(!mend.is_empty());
    }
}

#[tokio::test]
async fn late_holder_writes_nothing() {
    let shop = Shop::open().await;
    shop.enqueue(payload(&samples::phone())).await;
    let claimed = shop.claim().await.expect("a job");
    let late = Claimed { attempt: claimed.attempt - 1, ..claimed };
    let failure = shop.handle(&late, StopAt::never()).await.expect_err("fenced");
    assert_eq!(failure.cause, "invoice.lost_lease");
    assert_eq!(shop.count("invoice_invoices").await, 0);
}
