//! How accounts, words and campaigns stand: in which money an account is billed, what is not approved, what was stopped.

use chrono::{DateTime, Utc};
use muneem_jobs::messaging::CheckSenders;

use super::*;

impl Shop {
    async fn template_told(&self, field: &str, value: &Value) {
        let at = self.clock.now().timestamp();
        let body = json!({ "object": "whatsapp_business_account", "entry": [{ "id": Options::ACCOUNT, "time": at,
            "changes": [{ "field": field, "value": value }] }] })
        .to_string();
        assert_eq!(self.post_webhook(&body, self.sign(&body)).await, 200);
        self.run_due_jobs(None).await;
        // What is told later is later by the carrier's seconds.
        self.advance(TimeDelta::seconds(1)).await;
    }

    /// The open alerts about billing after the carrier was asked at that instant.
    async fn billing_at(&self, at: &str) -> Vec<(String, String)> {
        let at: DateTime<Utc> = at.parse().expect("an instant");
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let job = NewJob::of(self.business, &CheckSenders {}).expect("a payload");
        queue::enqueue(&mut conn, &job).await.expect("a job");
        // Only the job's own clock is what is asked about.
        self.clock.set_offset(TimeDelta::zero());
        self.clock.set_offset(at - self.clock.now());
        self.run_due_jobs(None).await;
        let (_, _, alerts) = messaging::list_health(&mut conn, Some(self.business), at).await.expect("readable");
        alerts.into_iter().filter(|one| one.field == "billing").map(|one| (one.event, one.severity)).collect()
    }
}

#[tokio::test]
async fn an_account_that_is_not_billed_in_rupees_is_warned_of_before_and_critical_from_new_year_2027() {
    let shop = Shop::open().await;
    let said = |event: &str, severity: &str| vec![(event.to_owned(), severity.to_owned())];
    assert_eq!(shop.billing_at("2026-12-01T06:00:00Z").await, [], "in rupees, as it should be");
    shop.control("numbers", &json!({ "currency": "USD" })).await;
    let warned = said("NOT_BILLED_IN_RUPEES", "warning");
    assert_eq!(shop.billing_at("2026-12-01T07:00:00Z").await, warned);
    assert_eq!(shop.billing_at("2026-12-01T08:00:00Z").await, warned, "told once");
    assert_eq!(shop.evidence("messaging.alert_noted").await, 1 + 2, "beside how the number stands");
    // The last second of the year in India, and the first of the next.
    assert_eq!(shop.billing_at("2026-12-31T18:29:58Z").await, warned);
    let critical = said("NOT_BILLED_IN_RUPEES_NOT_DELIVERED", "critical");
    assert_eq!(shop.billing_at("2026-12-31T18:30:00Z").await, critical);
    // Abroad it is nobody's concern, and in rupees it is over.
    shop.control("numbers", &json!({ "country": "SG" })).await;
    assert_eq!(shop.billing_at("2027-01-02T06:00:00Z").await, []);
    shop.control("numbers", &json!({ "country": "IN" })).await;
    assert_eq!(shop.billing_at("2027-01-02T07:00:00Z").await, critical);
    shop.control("numbers", &json!({ "currency": "INR" })).await;
    assert_eq!(shop.billing_at("2027-01-02T08:00:00Z").await, []);
}

#[tokio::test]
async fn words_that_are_not_approved_wait_and_go_when_the_carrier_says_so() {
    let shop = Shop::open().await;
    let status = |event: &str| {
        json!({ "event": event, "message_template_id": 12345, "message_template_name": "tax_invoice_v1",
            "message_template_language": "hi", "reason": "NONE" })
    };
    for (place, state) in ["PENDING", "REJECTED", "PAUSED", "IN_APPEAL"].into_iter().enumerate() {
        shop.template_told("message_template_status_update", &status(state)).await;
        let id = shop.request(&format!("9198200000{place:02}"), Policy::AtLeastOnce).await;
        shop.run_due_jobs(None).await;
        let timeline = shop.timeline(id).await;
        assert_eq!((timeline.message.state, timeline.attempts.len()), (State::Queued, 0), "{state}");
        assert_eq!(timeline.message.held_scope.as_deref(), Some("template"), "{state}: and says what it waits for");
        // It looks again by itself, and finds it as it was.
        shop.advance(TimeDelta::minutes(16)).await;
        shop.run_due_jobs(None).await;
        assert_eq!(shop.timeline(id).await.attempts.len(), 0, "{state}");
        shop.template_told("message_template_status_update", &status("APPROVED")).await;
        // At once, not when it would have looked again.
        shop.until(id, State::Read).await;
    }
    // Approved as what it is not: bills do not go out as advertising.
    let category = json!({ "message_template_id": 12345, "message_template_name": "tax_invoice_v1",
        "message_template_language": "hi", "previous_category": "UTILITY", "new_category": "MARKETING" });
    shop.template_told("template_category_update", &category).await;
    let id = shop.request(ASHA, Policy::AtLeastOnce).await;
    let timeline = shop.until(id, State::Skipped).await;
    assert_eq!(timeline.message.skipped_because.as_deref(), Some("template_is_marketing"));
    assert_eq!(timeline.attempts.len(), 0);
    assert!(!shop.shown().await.contains_key(ASHA));
    assert_eq!(shop.evidence("messaging.message_skipped").await, 1);
}
