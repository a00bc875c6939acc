//! Decisions that take a second person, as people meet them on the pages.

use chrono::TimeDelta;
use muneem_jobs::{
    evidence::By,
    messaging::{Account, set_account},
    outbound::{Phone, carrier::NumberId},
    people::{
        Authority, BusinessId, ContactKind, Decision, Role, Staff, add_business,
        approval::{self, Approval, Ask, Kind, Line, Plan, State as Stands, Subject},
        mark_verified,
    },
};
use serde_json::json;

use super::*;

pub(super) const APPROVALS: &str = "/console/approvals";

fn plan(rows: &str) -> Plan {
    let summary = vec![Line { label: "Records <i>kept</i>".to_owned(), value: rows.to_owned() }];
    Plan { content: json!({ "rows": rows }), summary }
}

impl House {
    /// Somebody with a password and a verified mail address.
    pub(super) async fn colleague(&self, name: &str, email: &str, role: Role) -> (Staff, Browser<'_>) {
        let staff = self.join(Some(self.sharma), name, email, role).await;
        self.give_password(&staff).await;
        mark_verified(&mut *self.conn().await, staff.staff_id, ContactKind::Email, self.now()).await.expect("noted");
        let mut browser = self.browser();
        browser.sign_in(email, PASSWORD).await;
        (staff, browser)
    }

    pub(super) async fn asked(&self, business: BusinessId, by: &Authority, id: &str) -> Approval {
        let decision = Decision { by, now: self.now(), chance: &OsChance };
        let ask = Ask {
            subject: Subject { business_id: Some(business), kind: Kind::RightsPlan, id },
            plan: &plan("1,204 rows in 7 tables"),
            approvers_needed: 2,
            expires_at: self.now() + TimeDelta::days(2),
        };
        approval::ask(&mut *self.conn().await, &self.console.vault, &ask, &decision).await.expect("asked")
    }

    async fn stands(&self, approval: &Approval) -> Stands {
        let mut db = self.conn().await;
        approval::load(&mut db, approval.approval_id, &Authority::operator()).await.expect("it is there").state
    }
}

/// The hash in the form of a decision's page.
fn seen_on(page: &str) -> &str {
    house::between(page, "name=\"seen\" value=\"", "\"")
}

#[tokio::test]
async fn where_nobody_else_may_an_owner_asks_somebody_outside_and_takes_it_back() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    let asked = house.asked(house.sharma, &Authority::of_staff(&house.asha), "R-2026-000124").await;
    let there = format!("{APPROVALS}/{}", asked.approval_id);
    let form = format!("{there}/invite");
    let page = asha.get(&there).await.body;
    assert!(page.contains(&format!("href=\"{form}\"")) && page.contains("Nobody else of your business"), "{page}");
    let asks = asha.get(&form).await.body;
    assert!(asks.contains("Her mail address<") && !asks.contains("mobile number"), "{asks}");
    for (who, why) in [
        ("meera", "Write a mail address"),
        ("asha@example.in", "of somebody of the business"),
        ("+919800000007", "installation_business"),
    ] {
        let again = asha.post(&form, &[("who", who), ("language", "en")]).await;
        assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", again.body);
        assert!(again.body.contains(why) && again.body.contains(who), "{}", again.body);
    }
    let invited = asha.post(&form, &[("who", "meera@example.org"), ("language", "hi")]).await;
    assert_eq!(invited.to.as_deref(), Some(there.as_str()), "{}", invited.body);
    let page = asha.get(&there).await.body;
    assert!(page.contains("Asked from outside") && page.contains("waits"), "{page}");
    assert!(!page.contains("meera"), "{page}");
    let taken = format!("{there}/invitations/{}/revoke", house::between(&page, "/invitations/", "/revoke"));
    // Not by whoever may not invite, and not for another decision.
    house.give_password(&house.ravi).await;
    let mut ravi = house.browser();
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    assert_eq!(ravi.post(&taken, &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ravi.get(&form).await.status, StatusCode::FORBIDDEN);
    let other = taken.replace(&asked.approval_id.to_string(), "0192f3c1-7000-7000-8000-987654321012");
    assert_eq!(asha.post(&other, &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(asha.post(&taken, &[]).await.to.as_deref(), Some(there.as_str()));
    assert!(asha.get(&there).await.body.contains("taken back"));

    // A number of another business that writes for the installation reaches phones; then somebody here may decide.
    let mut db = house.conn().await;
    let (clock, by) = (&*house.console.clock, By::operator(house.now(), &OsChance));
    let desk = add_business(&mut db, "muneem-desk", "The desk", clock, &OsChance).await.expect("made").business_id;
    let account = Account {
        business: desk,
        number: NumberId::parse("100200300").expect("a number id"),
        waba_id: "500600".to_owned(),
        display_phone: Phone::parse("+919876500142").expect("a phone"),
    };
    set_account(&mut db, &account, &by).await.expect("an account");
    assert!(asha.get(&form).await.body.contains("or mobile number"));
    let invited = asha.post(&form, &[("who", "98000 00007"), ("language", "en")]).await;
    assert_eq!(invited.to.as_deref(), Some(there.as_str()), "{}", invited.body);
    assert!(asha.get(&there).await.body.contains("By WhatsApp"));
    // Not to a number of her own, and by none of the same WhatsApp Business Account.
    let own = Account {
        business: house.sharma,
        number: NumberId::parse("100200301").expect("a number id"),
        display_phone: Phone::parse("+919876500143").expect("a phone"),
        ..account.clone()
    };
    set_account(&mut db, &own, &by).await.expect("an account");
    assert!(!asha.get(&form).await.body.contains("mobile number"));
    for (who, why) in [("98765 00143", "of somebody of the business"), ("98000 00009", "installation_business")] {
        let again = asha.post(&form, &[("who", who), ("language", "en")]).await;
        assert!(again.body.contains(why), "{who}: {}", again.body);
    }
    house.colleague("Dev", "dev@example.in", Role::Approver).await;
    assert!(!asha.get(&there).await.body.contains(&form));
    let late = asha.post(&form, &[("who", "sita@example.org"), ("language", "en")]).await;
    assert!(late.body.contains("omebody of the business may approve this"), "{}", late.body);
}

#[tokio::test]
async fn a_decision_is_looked_at_on_record_and_given_by_two_people() {
    let house = House::new().await;
    let (_, mut meera) = house.colleague("Meera", "meera@example.in", Role::Approver).await;
    let (_, mut dev) = house.colleague("Dev", "dev@example.in", Role::Approver).await;
    assert!(meera.get(APPROVALS).await.body.contains("Nothing waits, and nothing was decided"));
    let asked = house.asked(house.sharma, &Authority::of_staff(&house.asha), "R-2026-000123").await;
    let there = format!("{APPROVALS}/{}", asked.approval_id);

    assert!(meera.get("/console").await.body.contains("1 for you"));
    let list = meera.get(APPROVALS).await.body;
    for part in
        ["Waits for you", "R-2026-000123", "Carry out a request", "Asha &lt;b&gt;Verma", "0 of 2 say yes", &there]
    {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!list.contains("1,204 rows"), "what the plan says is shown on its own page, on record");
    assert_eq!(house.recorded("people.approval_shown").await, 0);
    let page = meera.get(&there).await.body;
    assert!(page.contains("1,204 rows in 7 tables") && page.contains("Records &lt;i&gt;kept"), "{page}");
    assert!(page.contains(&asked.plan_sha256.short()) && seen_on(&page) == asked.plan_sha256.to_string(), "{page}");
    assert_eq!(house.recorded("people.approval_shown").await, 1);

    let seen = seen_on(&page).to_owned();
    let approve = format!("{there}/approve");
    for word in ["", "yes", "approve it"] {
        let again = meera.post(&approve, &[("seen", &seen), ("word", word)]).await;
        assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "{word:?}");
        assert!(again.body.contains("Nothing was decided"), "{}", again.body);
    }
    assert_eq!(house.recorded("people.approval_given").await, 0);
    let given = meera.post(&approve, &[("seen", &seen), ("word", " Approve ")]).await;
    assert_eq!(given.to.as_deref(), Some(there.as_str()), "{}", given.body);
    let page = meera.get(&there).await.body;
    assert!(
        page.contains("1 of 2 says yes") && page.contains("Take it back") && !page.contains("name=\"word\""),
        "{page}"
    );
    let list = meera.get(APPROVALS).await.body;
    assert!(list.contains("Nothing waits for you") && list.contains("Under way"), "{list}");
    assert!(!meera.get("/console").await.body.contains("for you"));
    let twice = meera.post(&approve, &[("seen", &seen), ("word", "approve")]).await;
    assert_eq!(twice.status, StatusCode::FORBIDDEN, "{}", twice.body);

    // She takes it back and gives it again; then the second person.
    assert_eq!(meera.post(&format!("{there}/take-back"), &[]).await.to.as_deref(), Some(there.as_str()));
    assert!(meera.get(&there).await.body.contains("taken back"));
    meera.post(&approve, &[("seen", &seen), ("word", "approve")]).await;
    house.later(301);
    let page = dev.get(&there).await.body;
    assert!(page.contains("asks for a fresh proof") && !page.contains("name=\"word\""), "{page}");
    let led = dev.post(&approve, &[("seen", &seen), ("word", "approve")]).await;
    assert_eq!(led.to.as_deref(), Some("/console/confirm?next=/console"));
    let proved = dev.post("/console/confirm", &[("password", PASSWORD), ("next", &there)]).await;
    assert_eq!(proved.to.as_deref(), Some(there.as_str()));
    dev.post(&approve, &[("seen", &seen), ("word", "approve")]).await;
    assert_eq!(house.stands(&asked).await, Stands::Approved);
    let page = dev.get(&there).await.body;
    assert!(page.contains("2 of 2 say yes") && page.contains("Meera"), "{page}");
}

#[tokio::test]
async fn atk_063_a_plan_that_changed_between_look_and_click_is_not_approved() {
    let house = House::new().await;
    let (_, mut meera) = house.colleague("Meera", "meera@example.in", Role::Approver).await;
    let by = Authority::of_staff(&house.asha);
    let asked = house.asked(house.sharma, &by, "R-2026-000123").await;
    let there = format!("{APPROVALS}/{}", asked.approval_id);
    let seen = seen_on(&meera.get(&there).await.body).to_owned();

    let decision = Decision { by: &by, now: house.now(), chance: &OsChance };
    let wider = plan("9,999 rows in 12 tables");
    let mut db = house.conn().await;
    approval::change_plan(&mut db, &house.console.vault, asked.approval_id, &wider, &decision).await.expect("changed");
    let fields = [("seen", seen.as_str()), ("word", "approve")];
    let refused = meera.post(&format!("{there}/approve"), &fields).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    assert!(refused.body.contains("The plan has changed") && refused.body.contains(&format!("href=\"{there}\"")));
    let refused = meera.post(&format!("{there}/deny"), &[("seen", &seen), ("reason", "wrong")]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    assert_eq!(house.recorded("people.approval_given").await + house.recorded("people.approval_denied").await, 0);

    let page = meera.get(&there).await.body;
    assert!(page.contains("9,999 rows in 12 tables") && page.contains("version 2") && seen_on(&page) != seen, "{page}");
    for strange in ["", "abc", &"g".repeat(64)] {
        let refused = meera.post(&format!("{there}/approve"), &[("seen", strange), ("word", "approve")]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{strange:?}: {}", refused.body);
    }
    assert_eq!(house.stands(&asked).await, Stands::Pending);
}

#[tokio::test]
async fn atk_063_what_was_swapped_in_the_database_can_be_denied_and_withdrawn_on_its_page() {
    let house = House::new().await;
    let (_, mut meera) = house.colleague("Meera", "meera@example.in", Role::Approver).await;
    let mut asha = house.signed_in().await;
    let by = Authority::of_staff(&house.asha);
    let swapped = async |id: &str| {
        let asked = house.asked(house.sharma, &by, id).await;
        sqlx::query("update muneem.people_approvals set summary_sealed = ''::bytea where approval_id = $1")
            .bind(asked.approval_id.0)
            .execute(&house.console.db)
            .await
            .expect("written");
        asked
    };
    let first = swapped("R-2026-000123").await;
    let there = format!("{APPROVALS}/{}", first.approval_id);
    let shown = meera.get(&there).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.body);
    assert!(shown.body.contains("was changed in the database") && shown.body.contains("/deny"), "{}", shown.body);
    assert!(!shown.body.contains("/approve\"") && !shown.body.contains("1,204 rows"), "{}", shown.body);
    assert_eq!(house.recorded("people.approval_shown").await, 0, "she was shown nothing");
    assert_eq!(house.recorded("people.request_refused").await, 0, "and did nothing wrong");
    let seen = seen_on(&shown.body).to_owned();
    let yes = meera.post(&format!("{there}/approve"), &[("seen", &seen), ("word", "approve")]).await;
    assert_eq!(yes.status, StatusCode::FORBIDDEN, "{}", yes.body);
    let no = meera.post(&format!("{there}/deny"), &[("seen", &seen), ("reason", "wrong")]).await;
    assert_eq!(no.to.as_deref(), Some(there.as_str()), "{}", no.body);
    assert_eq!(house.stands(&first).await, Stands::Denied);

    let second = swapped("R-2026-000124").await;
    let there = format!("{APPROVALS}/{}", second.approval_id);
    let page = asha.get(&there).await.body;
    assert!(page.contains("was changed in the database") && page.contains("Withdraw what was asked"), "{page}");
    assert_eq!(asha.post(&format!("{there}/withdraw"), &[]).await.to.as_deref(), Some(there.as_str()));
    assert_eq!(house.stands(&second).await, Stands::Withdrawn);
}

#[tokio::test]
async fn one_no_ends_it_and_whoever_asked_sees_why() {
    let house = House::new().await;
    let (_, mut meera) = house.colleague("Meera", "meera@example.in", Role::Approver).await;
    let mut asha = house.signed_in().await;
    let asked = house.asked(house.sharma, &Authority::of_staff(&house.asha), "R-2026-000123").await;
    let there = format!("{APPROVALS}/{}", asked.approval_id);
    let list = asha.get(APPROVALS).await.body;
    assert!(list.contains("You asked for") && list.contains("Nothing waits for you"), "{list}");
    let page = meera.get(&there).await.body;
    let (seen, deny) = (seen_on(&page).to_owned(), format!("{there}/deny"));
    for reason in [&[("seen", seen.as_str())][..], &[("seen", seen.as_str()), ("reason", "she is a friend")]] {
        let again = meera.post(&deny, reason).await;
        assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", again.body);
        assert!(again.body.contains("choose why"), "{}", again.body);
    }
    let denied = meera.post(&deny, &[("seen", &seen), ("reason", "too_much")]).await;
    assert_eq!(denied.to.as_deref(), Some(there.as_str()), "{}", denied.body);
    assert_eq!(house.stands(&asked).await, Stands::Denied);
    let page = asha.get(&there).await.body;
    assert!(page.contains("it does more than it should") && page.contains("Meera"), "{page}");
    assert!(asha.get(APPROVALS).await.body.contains("Ended in the last thirty days"));
    // Nothing more can be said about it.
    let late = meera.post(&format!("{there}/approve"), &[("seen", &seen), ("word", "approve")]).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "{}", late.body);
    let late = asha.post(&format!("{there}/withdraw"), &[]).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "{}", late.body);
}

#[tokio::test]
async fn atk_064_whoever_asked_approves_nothing_on_the_page_and_withdraws_it() {
    let house = House::new().await;
    let (priya, mut priyas) = house.colleague("Priya", "priya@example.in", Role::PrivacyOfficer).await;
    let (_, mut meera) = house.colleague("Meera", "meera@example.in", Role::Approver).await;
    let mut asha = house.signed_in().await;
    mark_verified(&mut *house.conn().await, house.asha.staff_id, ContactKind::Email, house.now()).await.expect("noted");
    let own = house.asked(house.sharma, &Authority::of_staff(&house.asha), "R-1").await;
    let there = format!("{APPROVALS}/{}", own.approval_id);
    let page = asha.get(&there).await.body;
    assert!(page.contains("1,204 rows") && !page.contains("name=\"word\""), "she sees it, and is not asked: {page}");
    let seen = own.plan_sha256.to_string();
    let refused = asha.post(&format!("{there}/approve"), &[("seen", &seen), ("word", "approve")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    assert!(refused.body.contains("Whoever asks for something does not approve it"), "{}", refused.body);

    // Who may not approve such a thing is not asked either; who neither asked nor owns withdraws nothing.
    let page = priyas.get(&there).await.body;
    assert!(!page.contains("1,204 rows") && !page.contains("name=\"word\""), "{page}");
    let refused = priyas.post(&format!("{there}/approve"), &[("seen", &seen), ("word", "approve")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    assert_eq!(meera.post(&format!("{there}/withdraw"), &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(house.stands(&own).await, Stands::Pending);
    // She withdraws what she asked for; an owner what anybody did.
    let hers = house.asked(house.sharma, &Authority::of_staff(&priya), "R-2").await;
    let withdraw = format!("{APPROVALS}/{}/withdraw", hers.approval_id);
    assert_eq!(priyas.post(&withdraw, &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.stands(&hers).await, Stands::Withdrawn);
    assert_eq!(asha.post(&format!("{there}/withdraw"), &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.recorded("people.approval_withdrawn").await, 2);
    // An address that nobody verified decides nothing.
    let (mut unknown, third) = (house.browser(), house.asked(house.sharma, &Authority::of_staff(&priya), "R-3").await);
    house.give_password(&house.join(Some(house.sharma), "New", "new@example.in", Role::Approver).await).await;
    unknown.sign_in("new@example.in", PASSWORD).await;
    let (there, seen) = (format!("{APPROVALS}/{}", third.approval_id), third.plan_sha256.to_string());
    let refused = unknown.post(&format!("{there}/approve"), &[("seen", &seen), ("word", "approve")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("not verified"), "{}", refused.body);
}
