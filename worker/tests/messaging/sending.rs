//! One message, one post, however the carrier answers and wherever the worker dies.

use super::*;

#[tokio::test]
async fn a_bill_is_posted_once_and_read() {
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let timeline = shop.until(id, State::Read).await;
    assert_eq!(timeline.attempts.len(), 1);
    let statuses: std::collections::BTreeSet<_> = timeline.events.iter().map(|event| event.status.as_str()).collect();
    assert!(statuses.contains("read"), "{statuses:?}");
    let oracle = shop.oracle().await;
    assert_eq!(oracle["posts"]["messages"], 1);
    let shown = &oracle["recipients"][ASHA][0];
    assert_eq!(shown["filename"], "INV-1042.pdf");
    assert!(shown["text"].as_str().expect("words").contains("आशा वर्मा"));
    // The file is with the carrier: a second message does not upload it again.
    let second = shop.request(RAVI, Policy::AtLeastOnce).await;
    shop.until(second, State::Read).await;
    assert_eq!(shop.oracle().await["posts"]["media"], 1);
}

#[tokio::test]
async fn atk_095_what_was_taken_but_not_answered_is_settled_by_its_webhook() {
    for fault in [
        json!("accept_then_silence"),
        json!("accept_then_cut"),
        json!({ "accept_then_answer": { "status": 500, "body": "html" } }),
        json!({ "accept_then_answer": { "status": 502, "body": "empty" } }),
        json!({ "accept_then_answer": { "status": 200, "body": "half_json" } }),
        json!("report_first"),
    ] {
        let shop = Shop::open().await;
        shop.fault(fault.clone()).await;
        let id = shop.request(ASHA, Policy::AtLeastOnce).await;
        let end = if fault == "report_first" { State::Delivered } else { State::Read };
        shop.until(id, end).await;
        // Long after the window nothing is posted again.
        shop.advance(TimeDelta::minutes(10)).await;
        shop.run_due_jobs(None).await;
        let timeline = shop.timeline(id).await;
        assert_eq!((timeline.attempts.len(), timeline.message.state), (1, end), "{fault}");
        assert_eq!(shop.oracle().await["posts"]["messages"], 1, "{fault}");
    }
}

#[tokio::test]
async fn silence_is_answered_by_another_post_only_when_webhooks_arrive() {
    let shop = Shop::open().await;
    shop.fault(json!("silence")).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(id, State::Unknown).await;
    // The window is over, but nothing at all was heard: silence proves nothing.
    shop.advance(TimeDelta::seconds(121)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Unknown);
    shop.hear_something("wamid.IN").await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::seconds(61)).await;
    let timeline = shop.until(id, State::Read).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::PresumedLost, messaging::AttemptOutcome::Accepted]);
    assert_eq!(shop.shown().await[ASHA], 1);
    shop.assert_no_reference_twice().await;
}

#[tokio::test]
async fn better_never_than_twice_is_left_alone() {
    let shop = Shop::open().await;
    shop.fault(json!("silence")).await;
    let id = shop.request(ASHA, Policy::AtMostOnce).await;
    shop.until(id, State::Unknown).await;
    shop.hear_something("wamid.IN").await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::seconds(121)).await;
    shop.until(id, State::UnknownFinal).await;
    assert_eq!(shop.oracle().await["posts"]["messages"], 1);
}

#[tokio::test]
async fn a_late_sign_of_a_lost_attempt_is_recorded_as_a_duplicate() {
    let shop = Shop::open().await;
    shop.control("faults", &json!({ "callbacks": { "stopped": true }, "faults": [{ "what": "accept_then_silence" }] }))
        .await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(id, State::Unknown).await;
    shop.advance(TimeDelta::seconds(121)).await;
    shop.hear_something("wamid.IN").await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::seconds(61)).await;
    shop.until(id, State::Accepted).await;
    assert!(shop.timeline(id).await.message.duplicate_delivered_at.is_none());
    shop.control("faults", &json!({ "reset": true })).await;
    for _ in 0..200 {
        shop.run_due_jobs(None).await;
        let timeline = shop.timeline(id).await;
        if timeline.message.duplicate_delivered_at.is_some() {
            assert_eq!(shop.shown().await[ASHA], 2);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the duplicate went unnoticed: {:#?}", shop.timeline(id).await);
}

#[tokio::test]
async fn a_refusal_waits_or_ends_as_its_code_says() {
    let shop = Shop::open().await;
    // The pair limit: once more after a second.
    shop.fault(json!({ "refuse": { "code": 131_056 } })).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.until(id, State::Queued).await;
    assert_eq!(shop.timeline(id).await.message.error_code, Some(131_056));
    shop.advance(TimeDelta::seconds(2)).await;
    let timeline = shop.until(id, State::Read).await;
    assert_eq!(timeline.attempts.len(), 2);
    assert_eq!(shop.shown().await[ASHA], 1);

    // A dead token holds the message; nothing is lost.
    shop.fault(json!({ "refuse": { "code": 190, "subcode": 463 } })).await;
    let held = shop.request("919812355555", Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(held).await.message.held_scope.as_deref(), Some("credential"));
    shop.advance(TimeDelta::minutes(6)).await;
    shop.until(held, State::Read).await;

    // Not on WhatsApp: never again.
    shop.fault(json!({ "refuse": { "code": 131_026 } })).await;
    let gone = shop.request(RAVI, Policy::AtLeastOnce).await;
    let timeline = shop.until(gone, State::Failed).await;
    assert_eq!((timeline.message.error_code, timeline.attempts.len()), (Some(131_026), 1));

    // Reported as failed afterwards: final for the attempt, so another one is safe.
    shop.fault(json!({ "fail_later": { "code": 131_000 } })).await;
    let later = shop.request(RAVI, Policy::AtLeastOnce).await;
    let refused = async {
        loop {
            shop.run_due_jobs(None).await;
            let timeline = shop.timeline(later).await;
            if timeline.message.state == State::Queued && timeline.message.error_code == Some(131_000) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("queued again");
    shop.advance(TimeDelta::minutes(6)).await;
    let timeline = shop.until(later, State::Read).await;
    assert_eq!(timeline.attempts.len(), 2);
    assert!(timeline.message.duplicate_delivered_at.is_none());
    shop.assert_no_reference_twice().await;
}

#[tokio::test]
async fn a_carrier_out_of_reach_is_tried_again() {
    // A port that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let shop = Shop::open_with(Some(format!("http://{closed}"))).await;
    let stored = shop.put_pdf().await;
    // The file is already with the carrier, so that the POST itself is what fails.
    sqlx::query("insert into muneem.messaging_media values ($1, $2, '1', now() + interval '1 day')")
        .bind(&stored.digest)
        .bind(Options::NUMBER)
        .execute(&shop.db.pool())
        .await
        .expect("a file");
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::seconds(5)).await;
    shop.run_due_jobs(None).await;
    let timeline = shop.timeline(id).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::NotSent, messaging::AttemptOutcome::NotSent]);
    assert_eq!(timeline.message.state, State::Queued);
    // Nothing ever worked: after its deadline it fails, and says so.
    shop.advance(TimeDelta::hours(25)).await;
    shop.until(id, State::Failed).await;
}

#[tokio::test]
async fn atk_090_a_worker_killed_at_any_step_loses_and_doubles_nothing() {
    for step in ["messaging.uploaded", "messaging.posting", "messaging.posted", "messaging.applied"] {
        let shop = Shop::open().await;
        let id = shop.request(ASHA, Policy::AtLeastOnce).await;
        let mut killed = false;
        for _ in 0..200 {
            killed = killed || shop.run_due_jobs(Some(step)).await;
            if killed {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(killed, "{step} was never reached");
        shop.run_due_jobs(None).await;
        if step == "messaging.posting" {
            // Nobody knows that nothing left: the next run must not post by itself.
            assert_eq!(shop.timeline(id).await.message.state, State::Unknown);
            assert_eq!(shop.oracle().await["posts"]["messages"], 0);
            shop.hear_something("wamid.IN").await;
            shop.run_due_jobs(None).await;
            shop.advance(TimeDelta::seconds(121)).await;
        }
        shop.until(id, State::Read).await;
        assert_eq!(shop.oracle().await["posts"]["messages"], 1, "{step}");
        assert_eq!(shop.shown().await[ASHA], 1, "{step}");
        assert_eq!(shop.oracle().await["posts"]["media"], 1, "{step}");
        let left: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_attempts where outcome = 'posting'")
            .fetch_one(&shop.db.pool())
            .await
            .expect("a count");
        assert_eq!(left, 0, "{step}");
    }
}

#[tokio::test]
async fn a_message_comes_to_an_end_though_its_job_is_gone() {
    // With its attempt under way: what became of it is found out all the same.
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    assert!(shop.run_due_jobs_killing(Some("messaging.posting"), AfterKill::Buried).await);
    assert_eq!((shop.timeline(id).await.message.state, shop.count("sends").await), (State::Posting, 0));
    shop.hear_something("wamid.IN").await;
    shop.advance(TimeDelta::seconds(90)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Posting);
    shop.advance(TimeDelta::seconds(31)).await;
    let timeline = shop.until(id, State::Read).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::PresumedLost, messaging::AttemptOutcome::Accepted]);
    assert_eq!(shop.shown().await[ASHA], 1);

    // Nothing is heard of it ever: unknown first, and at its expiry for good.
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    assert!(shop.run_due_jobs_killing(Some("messaging.posting"), AfterKill::Buried).await);
    shop.advance(TimeDelta::seconds(121)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Unknown);
    shop.advance(TimeDelta::hours(24)).await;
    shop.until(id, State::UnknownFinal).await;

    // Before any attempt: it expires.
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    assert!(shop.run_due_jobs_killing(Some("messaging.uploaded"), AfterKill::Buried).await);
    shop.advance(TimeDelta::hours(23)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Queued);
    shop.advance(TimeDelta::hours(1)).await;
    let timeline = shop.until(id, State::Failed).await;
    assert_eq!(timeline.message.error_details.as_deref(), Some("expired before it could be sent"));
}

#[tokio::test]
async fn a_failure_told_again_in_another_batch_plans_no_second_attempt() {
    let shop = Shop::open().await;
    shop.fault(json!({ "fail_later": { "code": 131_000 } })).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    for _ in 0..400 {
        shop.run_due_jobs(None).await;
        if shop.timeline(id).await.message.error_code == Some(131_000) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shop.count("sends").await, 1);
    let reference: String = sqlx::query_scalar("select ref from muneem.messaging_attempts where message_id = $1")
        .bind(id.0)
        .fetch_one(&shop.db.pool())
        .await
        .expect("an attempt");
    let wamid = shop.told_wamid().await;
    for (status, errors) in [("failed", json!([{ "code": 131_000 }])), ("failed", json!([])), ("sent", json!([]))] {
        let body = json!({ "entry": [{ "changes": [{ "field": "messages", "value": {
            "metadata": { "phone_number_id": Options::NUMBER },
            "statuses": [{ "id": wamid, "status": status, "timestamp": "1764000009", "errors": errors,
                "biz_opaque_callback_data": reference }] } }] }] })
        .to_string();
        assert_eq!(shop.post_webhook(&body, shop.sign(&body)).await, 200);
        shop.run_due_jobs(None).await;
        assert_eq!((shop.timeline(id).await.message.state, shop.count("sends").await), (State::Queued, 1), "{status}");
    }
    shop.advance(TimeDelta::minutes(6)).await;
    assert_eq!(shop.until(id, State::Read).await.attempts.len(), 2);
}

#[tokio::test]
async fn a_failure_told_before_the_answer_stands() {
    let shop = Shop::open().await;
    shop.fault(json!({ "fail_later": { "code": 131_000 } })).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let told = async {
        for _ in 0..400 {
            shop.run_due_jobs(None).await;
            if shop.timeline(id).await.message.state == State::Queued {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the failure was not told: {:#?}", shop.timeline(id).await);
    };
    assert!(matches!(shop.send_held_at("messaging.posted", told).await, Ok(Done::Acked)));
    assert_eq!((shop.timeline(id).await.message.state, shop.count("sends").await), (State::Queued, 1));
    shop.advance(TimeDelta::minutes(6)).await;
    let timeline = shop.until(id, State::Read).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::Failed, messaging::AttemptOutcome::Accepted]);
    assert_eq!(shop.shown().await[ASHA], 1);
}

#[tokio::test]
async fn another_jobs_attempt_is_left_to_it() {
    let shop = Shop::open().await;
    shop.fault(json!({ "refuse": { "code": 131_026 } })).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let second = async {
        let mut conn = shop.deps.db.acquire().await.expect("a connection");
        let job = NewJob::of(shop.business, &messaging::Send { message_id: id }).expect("a payload");
        queue::enqueue(&mut conn, &job).await.expect("a job");
        drop(conn);
        shop.run_due_jobs(None).await;
        assert_eq!(shop.timeline(id).await.message.state, State::Posting);
    };
    assert!(matches!(shop.send_held_at("messaging.posting", second).await, Ok(Done::Acked)));
    shop.advance(TimeDelta::minutes(10)).await;
    shop.run_due_jobs(None).await;
    let timeline = shop.timeline(id).await;
    assert_eq!((timeline.message.state, timeline.attempts.len()), (State::Failed, 1));
    assert_eq!(timeline.attempts[0].outcome, messaging::AttemptOutcome::Refused);
}

#[tokio::test]
async fn a_machine_that_slept_before_the_post_does_not_post() {
    let shop = Shop::open().await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let slept = shop.send_held_at("messaging.posting", shop.advance(TimeDelta::seconds(11))).await;
    assert!(matches!(slept, Err(JobFailure { disposition: Disposition::Snooze(_), .. })), "{slept:?}");
    assert_eq!(shop.oracle().await["posts"]["messages"], 0);
    shop.advance(TimeDelta::seconds(3)).await;
    let timeline = shop.until(id, State::Read).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [messaging::AttemptOutcome::NotSent, messaging::AttemptOutcome::Accepted]);
    // The look that was planned with each attempt finds nothing to do.
    shop.advance(TimeDelta::hours(25)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Read);
    assert_eq!(shop.oracle().await["posts"]["messages"], 1);
}
