//! Support, as an owner lets it in, watches it and sends it away.

use std::time::Instant;

use muneem_jobs::{
    evidence::{self, Sealer, note::Signer25519},
    people::{
        self, Authority, BusinessId, Decision, Presented, Refusal, Role, StaffId, authenticate,
        support::{self, Grant, GrantId, Wish},
    },
};
use secrecy::ExposeSecret;

use super::*;

pub(super) const SUPPORT: &str = "/console/support";

impl House {
    pub(super) async fn let_in(&self, owner: &Authority) -> Grant {
        let wish = Wish { reason: "Bills do not go out", lasting: support::USUAL, only: None };
        let decision = Decision { by: owner, now: self.now(), chance: &OsChance };
        support::grant(&mut *self.conn().await, &self.console.vault, &wish, &decision).await.expect("let in")
    }

    /// The token of somebody of support who comes in.
    async fn enter(&self, grant_id: GrantId, staff: StaffId) -> Result<Presented, people::Error> {
        let operator = Authority::operator();
        let decision = Decision { by: &operator, now: self.now(), chance: &OsChance };
        let (_, bearer) = support::open_token(&mut *self.conn().await, grant_id, staff, &decision).await?;
        Ok(Presented::parse(bearer.expose_secret()).expect("well formed"))
    }

    /// Gives every event that waits its number.
    async fn seal(&self) {
        let mut sealer = Sealer::new(Signer25519::new(&[5; 32]), Vec::new(), "test".to_owned());
        let (mut db, begun) = (self.conn().await, Instant::now());
        while evidence::load_standing(&mut db).await.expect("asked").unsealed_since.is_some() {
            sealer.turn(&mut db, self.now()).await.expect("sealed");
            assert!(begun.elapsed().as_secs() < 60, "nothing is sealed");
        }
    }
}

/// The grant that a page of ours leads to.
fn grant_at(to: Option<&str>) -> GrantId {
    to.and_then(|to| to.strip_prefix("/console/support/")).expect("a grant").parse().expect("an id")
}

#[tokio::test]
async fn atk_061_the_owner_sees_every_look_of_support_and_sends_it_away_at_once() {
    let house = House::new().await;
    let kiran = house.join(None, "Kiran of support", "kiran@example.com", Role::Support).await;
    let other = house.join(None, "Other of support", "other@example.com", Role::Support).await;
    let (_, mut tara) = house.colleague("Tara", "tara@example.in", Role::CounterStaff).await;
    let mut asha = house.signed_in().await;
    assert!(asha.get(SUPPORT).await.body.contains("Support is not let in"));
    let page = asha.get("/console/support/new").await.body;
    assert!(page.contains("Kiran of support") && page.contains("value=\"120\" selected"), "{page}");

    let fields =
        [("minutes", "60"), ("person", &*kiran.staff_id.to_string()), ("reason", "Bills of <i>yesterday</i> hang")]
            .map(|(field, value)| (field, value.to_owned()));
    let fields: Vec<_> = fields.iter().map(|(field, value)| (*field, value.as_str())).collect();
    let granted = asha.post(SUPPORT, &fields).await;
    let grant = grant_at(granted.to.as_deref());
    let there = format!("{SUPPORT}/{grant}");
    let refused = house.enter(grant, other.staff_id).await;
    assert!(matches!(refused, Err(people::Error::GrantForAnother)), "she named whom she lets in");
    let presented = house.enter(grant, kiran.staff_id).await.expect("a token");
    let mut db = house.conn().await;
    let caller = authenticate(&mut db, &presented, None, house.now()).await.expect("it opens");
    for route in ["/v1/invoice/invoices/{id}", "/v1/messaging/messages"] {
        let look = ("GET", route);
        support::note_look(&mut db, (&caller, grant), look, house.now(), &OsChance).await.expect("on record");
    }
    house.seal().await;

    let page = asha.get(&there).await.body;
    for part in [
        "Bills of &lt;i&gt;yesterday",
        "Kiran of support",
        "came in",
        "GET /v1/invoice/invoices/id",
        "GET /v1/messaging/messages",
        "End it now",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(house.recorded("evidence.read").await, 1, "that she read it is on record");
    // Everybody of the business is told on every page; who may not look is not led there.
    let told = asha.get("/console").await.body;
    assert!(told.contains("Support is let in until") && told.contains(&format!("href=\"{there}\"")), "{told}");
    for page in ["/console", "/console/security", "/console/sessions"] {
        let told = tara.get(page).await.body;
        assert!(told.contains("Support is let in until") && !told.contains(SUPPORT), "{page}: {told}");
    }

    // Sending away takes no fresh proof.
    house.later(301);
    assert_eq!(asha.post(&format!("{there}/end"), &[]).await.to.as_deref(), Some(there.as_str()));
    let refused = authenticate(&mut db, &presented, None, house.now()).await;
    assert!(matches!(refused, Err(Refusal::Revoked)), "{refused:?}");
    assert!(!asha.get("/console").await.body.contains("Support is let in until"));
    let page = asha.get(&there).await.body;
    assert!(page.contains("sent away by you") && page.contains("GET /v1/messaging/messages"), "{page}");
    assert!(!page.contains("End it now"), "{page}");
    let list = asha.get(SUPPORT).await.body;
    assert!(list.contains("Support is not let in") && list.contains(&there), "{list}");
}

#[tokio::test]
async fn support_is_let_in_for_a_time_and_a_reason_that_the_rule_knows() {
    let house = House::new().await;
    let mut asha = house.signed_in().await;
    let owner = house.asha.staff_id.to_string();
    for (minutes, person, reason, problem) in [
        ("60", "", "  ", "reason is empty"),
        ("60", "", &*"r".repeat(501), "longer than 500"),
        ("5", "", "why", "a quarter of an hour to 24 hours"),
        ("1441", "", "why", "a quarter of an hour to 24 hours"),
        ("9223372036854775807", "", "why", "a quarter of an hour to 24 hours"),
        ("60", &*owner, "why", "not of the platform"),
    ] {
        let again = asha.post(SUPPORT, &[("minutes", minutes), ("person", person), ("reason", reason)]).await;
        assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}: {}", again.body);
        assert!(again.body.contains(problem), "{problem}: {}", again.body);
    }
    let fields = [("minutes", "60"), ("person", "nobody"), ("reason", "why")];
    assert_eq!(asha.post(SUPPORT, &fields).await.status, StatusCode::NOT_FOUND);
    assert_eq!(house.recorded("people.support_granted").await, 0);
    house.later(301);
    let led = asha.post(SUPPORT, &[("minutes", "60"), ("reason", "why")]).await;
    assert_eq!(led.to.as_deref(), Some("/console/confirm?next=/console"));
    let led = asha.get("/console/support/new").await;
    assert_eq!(led.to.as_deref(), Some("/console/confirm?next=/console/support/new"));
}

#[tokio::test]
async fn who_looks_on_sees_that_support_was_let_in_and_not_why_nor_what_it_saw() {
    let house = House::new().await;
    house.give_password(&house.ravi).await;
    let grant = house.let_in(&Authority::of_staff(&house.asha)).await;
    let there = format!("{SUPPORT}/{}", grant.grant_id);
    let mut ravi = house.browser();
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    let list = ravi.get(SUPPORT).await.body;
    assert!(list.contains(&there) && !list.contains("End now") && !list.contains("/console/support/new"), "{list}");
    let page = ravi.get(&there).await.body;
    assert!(page.contains("which you do not see") && !page.contains("Bills do not go out"), "{page}");
    assert!(!page.contains("Asha"), "by id, not by name: {page}");
    assert_eq!(ravi.post(&format!("{there}/end"), &[]).await.status, StatusCode::FORBIDDEN);
    // Its time is over, whether or not the job has written so.
    house.later(7201);
    ravi.sign_in("ravi@example.in", PASSWORD).await;
    let list = ravi.get(SUPPORT).await.body;
    assert!(list.contains("Support is not let in") && list.contains("ran out"), "{list}");
}

#[tokio::test]
async fn past_times_of_support_are_leafed_through_from_the_newest_to_the_first() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.asha);
    let mut grants = Vec::new();
    for _ in 0..23 {
        grants.push(house.let_in(&owner).await.grant_id.to_string());
    }
    let mut asha = house.signed_in().await;
    // What runs stands on the first page, all of it, and the line leads there.
    let first = asha.get(SUPPORT).await.body;
    assert!(grants.iter().all(|grant| first.contains(grant)) && !first.contains("Older ones"), "{first}");
    assert!(first.contains(&format!("<a href=\"{SUPPORT}\">See what it looks at")), "{first}");
    for grant in &grants[1..] {
        assert_eq!(asha.post(&format!("{SUPPORT}/{grant}/end"), &[]).await.status, StatusCode::SEE_OTHER);
    }
    let first = asha.get(SUPPORT).await.body;
    assert!(grants[3..].iter().all(|grant| first.contains(grant)) && !first.contains(&grants[1]), "{first}");
    let running = house::between(&first, "<section class=\"first\"", "</section>");
    assert!(running.contains(&grants[0]), "the oldest, which runs: {first}");
    let older = format!("{SUPPORT}?before={}", grants[3]);
    assert!(first.contains(&format!("href=\"{older}\"")), "{first}");
    // On a page of past times alone it is not said that nobody is let in while somebody is.
    let rest = asha.get(&older).await.body;
    assert!(grants[1..3].iter().all(|grant| rest.contains(grant)) && !rest.contains("Older ones"), "{rest}");
    assert!(rest.contains("sent away by you") && !rest.contains("Support is not let in"), "{rest}");
    assert_eq!(asha.post(&format!("{SUPPORT}/{}/end", grants[0]), &[]).await.status, StatusCode::SEE_OTHER);
    assert!(asha.get(&older).await.body.contains("Support is not let in"));
}

/// For the test of the other business.
pub(super) async fn of_another(house: &House, owner: &Authority, business: BusinessId) -> Grant {
    let grant = house.let_in(owner).await;
    assert_eq!(grant.business_id, business);
    grant
}
