//! What lies on the desk of somebody of the platform, behind everything that tenants decide on.

use chrono::TimeDelta;

use super::{tests::plan, *};
use crate::people::{Role, testing::House};

impl House {
    async fn ask_about(&self, subject: Subject<'_>, by: &Authority) -> Approval {
        let plan = plan("one");
        let asked = Ask { subject, plan: &plan, approvers_needed: 1, expires_at: self.now() + TimeDelta::days(2) };
        ask(&mut *self.conn().await, &self.vault, &asked, &self.by(by)).await.expect("asked")
    }

    /// So many open decisions of the shop, newer than any other.
    async fn flood(&self, many: i32) {
        let written = sqlx::query(
            "insert into muneem.people_approvals
                 (approval_id, business_id, kind, subject_id, plan_sha256, version, summary_sealed, approvers_needed,
                  requested_by, requested_at, expires_at, state)
             select ('ffffffff-ffff-7fff-8fff-' || lpad(n::text, 12, '0'))::uuid, $1, 'rights.plan', 'flood-' || n,
                    decode(repeat('ab', 32), 'hex'), 1, ''::bytea, 1, 'operator', $2, $2 + interval '1 day', 'pending'
             from generate_series(1, $3) n",
        )
        .bind(self.shop.0)
        .bind(self.now())
        .bind(many)
        .execute(&self.pool)
        .await
        .expect("written");
        assert_eq!(written.rows_affected(), u64::try_from(many).expect("positive"));
    }
}

#[tokio::test]
async fn decisions_of_the_platform_lie_on_top_of_those_of_tenants() {
    let house = House::new().await;
    let operator = Authority::operator();
    let approver = house.stranger(1, None, &[Role::Approver]).await;
    let two = house.staff(2, &[Role::Approver]).await;
    let keys = |id| Subject { business_id: None, kind: Kind::KeyChange, id };
    let waits = house.ask_about(keys("kek-2026"), &operator).await;
    let hers = house.ask_about(keys("kek-2027"), &Authority::of_staff(&approver)).await;
    let shops = house.ask_about(house.subject("R-1"), &operator).await;
    house.flood(250).await;

    let mut db = house.conn().await;
    let ids = |part: &[Standing]| part.iter().map(|one| one.approval.approval_id).collect::<Vec<_>>();
    let desk = find_desk(&mut db, &approver, house.now()).await.expect("laid out");
    assert_eq!(ids(&desk.waiting), [waits.approval_id]);
    assert_eq!(ids(&desk.asked), [hers.approval_id]);
    assert_eq!(desk.others.len(), 200, "the newest of everybody, and none of hers twice");
    assert_eq!(count_waiting(&mut db, &approver, house.now()).await.expect("counted"), 1);
    // Whom it is not for, it does not wait for: who looks on, and who decides for the shop.
    let auditor = house.stranger(3, None, &[Role::Auditor]).await;
    assert_eq!(count_waiting(&mut db, &auditor, house.now()).await.expect("counted"), 0);
    let desk = find_desk(&mut db, &two, house.now()).await.expect("laid out");
    assert!(
        !ids(&desk.waiting).contains(&waits.approval_id)
            && desk.others.iter().all(|one| one.approval.approval_id != waits.approval_id)
    );
    assert_eq!(desk.waiting.len(), 200, "what waits for her is listed to a limit");

    // Denied, it waits for nobody; so does what has run out, whether or not its job has come.
    let by = Authority::of_staff(&two);
    let (id, seen) = (shops.approval_id, shops.plan_sha256);
    decide(&mut db, &house.vault, id, &seen, Verdict::Deny, &house.by(&by)).await.expect("denied");
    house.clock.forward(TimeDelta::days(3));
    assert_eq!(count_waiting(&mut db, &approver, house.now()).await.expect("counted"), 0);
    let desk = find_desk(&mut db, &approver, house.now()).await.expect("laid out");
    assert_eq!((desk.waiting.len(), desk.asked.len(), desk.others.len()), (0, 0, 0));
}

#[tokio::test]
async fn whoever_has_said_yes_is_asked_again_when_the_plan_changes() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let two = house.staff(2, &[Role::Approver]).await;
    let plan_of_two = Ask {
        subject: house.subject("R-1"),
        plan: &plan("one"),
        approvers_needed: 2,
        expires_at: house.now() + TimeDelta::days(2),
    };
    let mut db = house.conn().await;
    let asked = ask(&mut db, &house.vault, &plan_of_two, &house.by(&owner)).await.expect("asked");
    assert_eq!(count_waiting(&mut db, &two, house.now()).await.expect("counted"), 1);
    let by = Authority::of_staff(&two);
    let (id, seen) = (asked.approval_id, asked.plan_sha256);
    decide(&mut db, &house.vault, id, &seen, Verdict::Approve, &house.by(&by)).await.expect("counted");
    assert_eq!(count_waiting(&mut db, &two, house.now()).await.expect("counted"), 0, "she has said it");
    let other = plan("two");
    change_plan(&mut db, &house.vault, asked.approval_id, &other, &house.by(&owner)).await.expect("changed");
    assert_eq!(count_waiting(&mut db, &two, house.now()).await.expect("counted"), 1, "of the new plan she has not");
}
