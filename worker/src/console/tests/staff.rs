//! Who works here, as owners and managers change it.

use muneem_jobs::people::{Role, add_business};
use serde_json::json;

use super::*;

const STAFF: &str = "/console/staff";

#[tokio::test]
async fn somebody_new_comes_in_by_her_link_and_leaves_at_once() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    let form = |who: &'static str, role: &'static str| [("name", "Meera <i>Patil</i>"), ("who", who), ("role", role)];
    let nobody = asha.post(STAFF, &form("meera", "counter_staff")).await;
    assert_eq!(nobody.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(nobody.body.contains("Write a mail address") && nobody.body.contains("Meera &lt;i&gt;"), "{}", nobody.body);
    let taken = asha.post(STAFF, &form("ravi@example.in", "counter_staff")).await;
    assert!(taken.body.contains("Somebody here has this"), "{}", taken.body);
    let platform = asha.post(STAFF, &form("meera@example.in", "operator")).await;
    assert_eq!(platform.status, StatusCode::FORBIDDEN, "{}", platform.body);

    let added = asha.post(STAFF, &form("meera@example.in", "counter_staff")).await;
    assert_eq!(added.status, StatusCode::OK, "{}", added.body);
    let token = house::between(&added.body, "/console/invitation/", "<").to_owned();
    assert_eq!((house.recorded("people.staff_added").await, house.recorded("people.invited").await), (3, 1));
    let mut meera = house.browser();
    let entered = meera.post(&format!("/console/invitation/{token}"), &[("password", PASSWORD)]).await;
    assert_eq!(entered.to.as_deref(), Some("/console/security"), "{}", entered.body);
    assert!(meera.get("/console").await.body.contains("counter staff"));
    assert_eq!(meera.get(STAFF).await.status, StatusCode::FORBIDDEN, "she does not see who works here");

    let page = asha.get(STAFF).await.body;
    assert!(page.contains("Meera &lt;i&gt;Patil") && page.contains("Ravi"), "{page}");
    let id = id_of(&page, "Meera");
    assert_eq!(asha.post(&format!("{STAFF}/{id}/grant"), &[("role", "approver")]).await.to.as_deref(), Some(STAFF));
    assert!(meera.get("/console").await.body.contains("approver"), "at her next request");
    asha.post(&format!("{STAFF}/{id}/withdraw"), &[("role", "approver")]).await;
    assert!(!meera.get("/console").await.body.contains("approver"));
    assert_eq!(asha.post(&format!("{STAFF}/{id}/remove"), &[]).await.to.as_deref(), Some(STAFF));
    assert!(is_out(&mut meera).await);
    assert!(!asha.get(STAFF).await.body.contains("Meera"));
    // The last owner stays, and what does not exist is not there.
    let own = asha.post(&format!("{STAFF}/{}/remove", house.asha.staff_id), &[]).await;
    assert_eq!(own.status, StatusCode::FORBIDDEN, "{}", own.body);
    assert!(own.body.contains("last owner"), "{}", own.body);
    for id in ["none", "00000000-0000-0000-0000-000000000009"] {
        assert_eq!(asha.post(&format!("{STAFF}/{id}/remove"), &[]).await.status, StatusCode::NOT_FOUND, "{id}");
    }
}

#[tokio::test]
async fn names_of_others_are_on_record_before_a_page_shows_them() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    let shown = async || house.recorded("people.names_shown").await;
    asha.get("/console").await;
    assert_eq!(shown().await, 0, "her own name is no news to her");
    assert!(asha.get(STAFF).await.body.contains("Ravi"));
    assert_eq!(shown().await, 1, "one event a page");
    let body: String = sqlx::query_scalar(
        "select convert_from(body, 'UTF8') from muneem.evidence_events
         where convert_from(body, 'UTF8') like '%people.names_shown%'",
    )
    .fetch_one(&house.db.pool())
    .await
    .expect("on record");
    let (who, whose) = (house.asha.staff_id.to_string(), house.ravi.staff_id.to_string());
    let event: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(event["actor"]["id"], who.as_str());
    assert_eq!((&event["details"]["staff"], &event["business"]), (&json!([whose]), &json!(house.sharma)));
    assert!(!body.contains("Ravi"), "{body}");
    asha.get("/console/tokens/new").await;
    assert_eq!(shown().await, 2, "the form offers them too");

    // Whoever looks on reads no names, and nothing is recorded of her.
    let olga = house.join(Some(house.sharma), "Olga", "olga@example.in", Role::Auditor).await;
    house.give_password(&olga).await;
    let mut olga = house.browser();
    olga.sign_in("olga@example.in", PASSWORD).await;
    let page = olga.get(STAFF).await;
    assert!(page.status == StatusCode::OK && !page.body.contains("Asha"), "{}", page.body);
    assert_eq!(shown().await, 2);
    // Where nothing can be written, no name goes out.
    sqlx::query("alter table muneem.evidence_events add constraint full_disk check (false) not valid")
        .execute(&house.db.pool())
        .await
        .expect("full");
    let refused = asha.get(STAFF).await;
    assert!(refused.status.is_server_error() && !refused.body.contains("Ravi"), "{}", refused.body);
}

/// The id in the form that removes the person of this name.
fn id_of(page: &str, name: &str) -> String {
    let rest = page.split_once(name).expect("the name").1;
    house::between(rest, "/console/staff/", "/").to_owned()
}

#[tokio::test]
async fn atk_062_a_manager_gives_nothing_beyond_her_own_on_the_page_either() {
    let house = House::new().await;
    house.give_password(&house.ravi).await;
    let mut ravi = house.browser();
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    let page = ravi.get(STAFF).await.body;
    assert!(!page.contains("value=\"owner\""), "what she may not give is not offered: {page}");
    let form = [("name", "Friend"), ("who", "friend@example.in"), ("role", "owner")];
    assert_eq!(ravi.post(STAFF, &form).await.status, StatusCode::FORBIDDEN);
    for (path, fields) in [
        (format!("{STAFF}/{}/grant", house.ravi.staff_id), vec![("role", "owner")]),
        (format!("{STAFF}/{}/withdraw", house.asha.staff_id), vec![("role", "owner")]),
        (format!("{STAFF}/{}/remove", house.asha.staff_id), vec![]),
    ] {
        let refused = ravi.post(&path, &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}: {}", refused.body);
    }
    // Five minutes later a fresh proof comes first.
    house.later(301);
    let led = ravi.post(STAFF, &[("name", "N"), ("who", "n@example.in"), ("role", "counter_staff")]).await;
    assert_eq!(led.to.as_deref(), Some("/console/confirm?next=/console"));
    assert_eq!(house.recorded("people.staff_added").await, 2, "those of the house alone");
}

#[tokio::test]
async fn atk_059_staff_of_another_business_are_not_there_on_the_page() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let kaveri = add_business(&mut db, "kaveri-retail", "Kaveri Retail", &*house.console.clock, &OsChance).await;
    let kaveri = kaveri.expect("a shop").business_id;
    drop(db);
    let meena = house.join(Some(kaveri), "Meena", "meena@example.in", Role::CounterStaff).await;
    let mut asha = house.signed_in().await;
    assert!(!asha.get(STAFF).await.body.contains("Meena"));
    for (way, fields) in
        [("remove", vec![]), ("grant", vec![("role", "approver")]), ("withdraw", vec![("role", "approver")])]
    {
        let answer = asha.post(&format!("{STAFF}/{}/{way}", meena.staff_id), &fields).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{way}");
    }
}

#[tokio::test]
async fn atk_061_who_may_not_is_counted_and_on_record_from_pages_too() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    // Held to the end: this test has one thread, and its counts are its own.
    let _own = metrics::set_default_local_recorder(&recorder);
    let house = House::new().await;
    house.give_password(&house.ravi).await;
    let mut ravi = house.browser();
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    let form = [("name", "Friend"), ("who", "friend@example.in"), ("role", "owner")];
    for _ in 0..3 {
        assert_eq!(ravi.post(STAFF, &form).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(house.recorded("people.request_refused").await, 1, "one a minute");
    house.later(60);
    assert_eq!(ravi.post(STAFF, &form).await.status, StatusCode::FORBIDDEN);
    let told: Vec<serde_json::Value> = sqlx::query_scalar(
        "select convert_from(body, 'UTF8')::jsonb from muneem.evidence_events
         where convert_from(body, 'UTF8')::jsonb ->> 'verb' = 'people.request_refused' order by xid, event_id",
    )
    .fetch_all(&house.db.pool())
    .await
    .expect("read");
    let [first, second] = &told[..] else { panic!("two events: {told:?}") };
    assert_eq!((&first["details"]["count"], &second["details"]["count"]), (&1.into(), &3.into()), "with what waited");
    assert_eq!(first["actor"], serde_json::json!({ "kind": "staff", "id": house.ravi.staff_id }));
    assert_eq!(first["object"]["id"], "POST:/console/staff");
    assert_eq!(first["business"], serde_json::json!(house.sharma));
    assert!(counted.render().contains("muneem_refusals_total{reason=\"console.may_not\"} 4"), "{}", counted.render());
}
