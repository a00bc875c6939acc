use chrono::TimeZone;
use muneem_postgres::testing::TestDb;
use sqlx::PgPool;
use uuid::Uuid;

use super::*;
use crate::outbound::Clock;
use crate::people::{
    self, Enrolment, NewToken, Presented, Refusal, enrol_staff, find_staff_by_email, find_staff_by_phone,
};

struct At(DateTime<Utc>);

impl Clock for At {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}

struct Counting(std::sync::atomic::AtomicU8);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
}

fn noon() -> At {
    At(Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("a real instant"))
}

/// One shop and whoever the tests add to it.
struct Shop {
    db: TestDb,
    pool: PgPool,
    chance: Counting,
    business: BusinessId,
    other: BusinessId,
}

impl Shop {
    async fn new() -> Self {
        let db = TestDb::new(&crate::MIGRATOR).await;
        let pool = db.app_pool();
        let chance = Counting(1.into());
        let mut conn = pool.acquire().await.expect("a connection");
        let mut made = Vec::new();
        for handle in ["sharma-mobiles", "verma-phones"] {
            made.push(
                people::add_business(&mut conn, handle, handle, &noon(), &chance).await.expect("made").business_id,
            );
        }
        Self { pool: pool.clone(), db, chance, business: made[0], other: made[1] }
    }

    /// A person whose sealed values are bytes that nobody opens here.
    fn person(&self, number: u8, business_id: Option<BusinessId>, roles: &[Role]) -> NewStaff {
        NewStaff {
            staff_id: new_staff_id(&self.by(&Authority::operator())),
            business_id,
            name: vec![1, number],
            language: "hi".to_owned(),
            phone: Some(SealedContact { sealed: vec![2, number], index: vec![number; 16], index_version: 1 }),
            email: None,
            roles: roles.to_vec(),
        }
    }

    fn by<'a>(&'a self, by: &'a Authority) -> Decision<'a> {
        Decision { by, now: noon().0, chance: &self.chance }
    }

    async fn add(&self, number: u8, roles: &[Role]) -> Staff {
        let mut db = self.pool.acquire().await.expect("a connection");
        let new = self.person(number, Some(self.business), roles);
        add_staff(&mut db, &new, &self.by(&Authority::operator())).await.expect("added")
    }
}

#[tokio::test]
async fn somebody_is_found_by_her_phone_and_has_what_her_roles_allow() {
    let shop = Shop::new().await;
    let mut db = shop.pool.acquire().await.expect("a connection");
    let asha = shop.add(7, &[Role::CounterStaff, Role::Approver]).await;
    assert_eq!(asha.roles, [Role::CounterStaff, Role::Approver]);
    let found = find_staff_by_contact(&mut db, ContactKind::Phone, &[7; 16]).await.expect("looked up");
    assert_eq!(found, std::slice::from_ref(&asha));
    assert!(find_staff_by_contact(&mut db, ContactKind::Email, &[7; 16]).await.expect("looked up").is_empty());
    assert!(asha.scopes().contains(&Scope::RightsApprove) && !asha.scopes().contains(&Scope::StaffWrite));
    mark_verified(&mut db, asha.staff_id, ContactKind::Phone, noon().0).await.expect("noted");
    let gone = mark_verified(&mut db, asha.staff_id, ContactKind::Email, noon().0).await;
    assert!(matches!(gone, Err(Error::NoSuchStaff(_))), "she has no mail address: {gone:?}");

    let same_phone = shop.person(7, Some(shop.business), &[]);
    let refused = add_staff(&mut db, &same_phone, &shop.by(&Authority::operator())).await;
    assert!(matches!(refused, Err(Error::ContactTaken)), "{refused:?}");
    let elsewhere = shop.person(7, Some(shop.other), &[]);
    add_staff(&mut db, &elsewhere, &shop.by(&Authority::operator())).await.expect("she may work for two");
    let nobody = NewStaff { phone: None, ..shop.person(8, Some(shop.business), &[]) };
    let refused = add_staff(&mut db, &nobody, &shop.by(&Authority::operator())).await;
    assert!(matches!(refused, Err(Error::Unreachable)), "{refused:?}");
}

#[tokio::test]
async fn atk_062_nobody_gives_a_role_beyond_her_own() {
    let shop = Shop::new().await;
    let mut db = shop.pool.acquire().await.expect("a connection");
    let owner = Authority::of_staff(&shop.add(1, &[Role::Owner]).await);
    let manager = Authority::of_staff(&shop.add(2, &[Role::Manager]).await);
    let clerk = shop.add(3, &[Role::CounterStaff]).await;

    for role in [Role::Owner, Role::PrivacyOfficer, Role::Approver, Role::Auditor] {
        let refused = grant_role(&mut db, clerk.staff_id, role, &shop.by(&manager)).await;
        assert!(matches!(refused, Err(Error::BeyondOwn(_))), "{role}: {refused:?}");
    }
    let refused = grant_role(&mut db, clerk.staff_id, Role::Manager, &shop.by(&Authority::of_staff(&clerk))).await;
    assert!(matches!(refused, Err(Error::MissingScope(Scope::StaffWrite))), "{refused:?}");
    for role in [Role::Operator, Role::Support] {
        for by in [&owner, &Authority::operator()] {
            let refused = grant_role(&mut db, clerk.staff_id, role, &shop.by(by)).await;
            assert!(matches!(refused, Err(Error::RoleNotHere(..))), "{role}: {refused:?}");
        }
    }
    let refused = add_staff(&mut db, &shop.person(9, Some(shop.business), &[Role::Owner]), &shop.by(&manager)).await;
    assert!(matches!(refused, Err(Error::BeyondOwn(_))), "{refused:?}");
    // A manager cannot put the owner out either.
    let boss = shop.add(4, &[Role::Owner]).await;
    let refused = remove_staff(&mut db, boss.staff_id, &shop.by(&manager)).await;
    assert!(matches!(refused, Err(Error::BeyondOwn(_))), "{refused:?}");

    let promoted = grant_role(&mut db, clerk.staff_id, Role::Approver, &shop.by(&owner)).await.expect("the owner may");
    assert_eq!(promoted.roles, [Role::CounterStaff, Role::Approver]);
    let again = grant_role(&mut db, clerk.staff_id, Role::Approver, &shop.by(&owner)).await.expect("again is no error");
    assert_eq!(again, promoted);
}

#[tokio::test]
async fn atk_062_the_last_owner_stays_also_when_two_put_each_other_out() {
    let shop = Shop::new().await;
    let (one, two) = (shop.add(1, &[Role::Owner]).await, shop.add(2, &[Role::Owner]).await);
    let (by_one, by_two) = (Authority::of_staff(&one), Authority::of_staff(&two));
    let (by_one, by_two) = (shop.by(&by_one), shop.by(&by_two));
    let (mut a, mut b) = (shop.pool.acquire().await.expect("one"), shop.pool.acquire().await.expect("two"));
    let (first, second) = tokio::join!(
        remove_staff(&mut a, two.staff_id, &by_one),
        withdraw_role(&mut b, one.staff_id, Role::Owner, &by_two),
    );
    let put_out = |done: &Result<Staff, Error>| matches!(done, Err(Error::LastOwner | Error::MissingScope(_)));
    assert_ne!(put_out(&first), put_out(&second), "{first:?} {second:?}");
    // Nor when somebody else puts both out at once.
    let three = shop.add(3, &[Role::Owner]).await;
    let left = if first.is_ok() { one } else { two };
    let operator = Authority::operator();
    let operator = shop.by(&operator);
    let (first, second) = tokio::join!(
        remove_staff(&mut a, left.staff_id, &operator),
        withdraw_role(&mut b, three.staff_id, Role::Owner, &operator),
    );
    let refused = [first, second].into_iter().filter(|done| matches!(done, Err(Error::LastOwner))).count();
    assert_eq!(refused, 1);
    // Its transaction was given up, and is rolled back when the connection goes back to the pool.
    drop(b);
    let left = list_staff(&mut a, Some(shop.business), &Authority::operator()).await.expect("listed");
    let owner = left.iter().find(|staff| staff.roles.contains(&Role::Owner)).expect("one is left");
    let alone = remove_staff(&mut a, owner.staff_id, &shop.by(&Authority::operator())).await;
    assert!(matches!(alone, Err(Error::LastOwner)), "{alone:?}");
}

/// Whoever came with a role that was taken from her since does nothing with it.
#[tokio::test]
async fn atk_062_a_role_that_was_taken_away_meanwhile_gives_nothing() {
    let shop = Shop::new().await;
    let mut db = shop.pool.acquire().await.expect("a connection");
    let (operator, clerk) = (Authority::operator(), shop.add(3, &[Role::CounterStaff]).await);
    for (number, leaves) in [(1, false), (2, true)] {
        let manager = shop.add(number, &[Role::Manager]).await;
        let came = Authority::of_staff(&manager);
        if leaves {
            remove_staff(&mut db, manager.staff_id, &shop.by(&operator)).await.expect("removed");
        } else {
            withdraw_role(&mut db, manager.staff_id, Role::Manager, &shop.by(&operator)).await.expect("withdrawn");
        }
        for refused in [
            grant_role(&mut db, clerk.staff_id, Role::Manager, &shop.by(&came)).await.err(),
            remove_staff(&mut db, clerk.staff_id, &shop.by(&came)).await.err(),
            add_staff(&mut db, &shop.person(9, Some(shop.business), &[]), &shop.by(&came)).await.err(),
            grant_role(&mut db, manager.staff_id, Role::Manager, &shop.by(&came)).await.err(),
        ] {
            assert!(matches!(refused, Some(Error::MissingScope(_) | Error::NoSuchStaff(_))), "{refused:?}");
        }
    }
    let clerk = load_staff(&mut db, clerk.staff_id, &operator).await.expect("there");
    assert_eq!((clerk.roles.as_slice(), clerk.removed_at), (&[Role::CounterStaff][..], None));
}

#[tokio::test]
async fn removing_somebody_ends_her_roles_tokens_and_name_at_once() {
    let shop = Shop::new().await;
    let mut db = shop.pool.acquire().await.expect("a connection");
    let owner = shop.add(1, &[Role::Owner]).await;
    let by = Authority::of_staff(&owner);
    let manager = shop.add(2, &[Role::Manager]).await;
    let new = |scopes: &[Scope]| NewToken {
        business_id: Some(shop.business),
        staff_id: Some(manager.staff_id),
        scopes: scopes.to_vec(),
        ..NewToken::bootstrap()
    };
    let beyond =
        people::create_token_by(&mut db, new(&[Scope::TokenWrite]), &by, &noon(), &shop.chance).await.expect_err("no");
    assert!(matches!(beyond, Error::BeyondHolder(Scope::TokenWrite)), "{beyond}");
    let (_, bearer) =
        people::create_token_by(&mut db, new(&[Scope::QueueRead]), &by, &noon(), &shop.chance).await.expect("made");
    let (_, mighty) =
        people::create_token_by(&mut db, new(&[Scope::QueueWrite]), &by, &noon(), &shop.chance).await.expect("made");
    let presented = |bearer: &secrecy::SecretString| {
        Presented::parse(secrecy::ExposeSecret::expose_secret(bearer)).expect("well formed")
    };
    grant_role(&mut db, manager.staff_id, Role::ReadOnly, &shop.by(&by)).await.expect("granted");
    withdraw_role(&mut db, manager.staff_id, Role::Manager, &shop.by(&by)).await.expect("withdrawn");
    people::authenticate(&mut db, &presented(&bearer), None, noon().0).await.expect("looking on is left to her");
    let ended = people::authenticate(&mut db, &presented(&mighty), None, noon().0).await;
    assert!(matches!(ended, Err(Refusal::Revoked)), "what she may no longer do, her token may not");

    let gone = remove_staff(&mut db, manager.staff_id, &shop.by(&by)).await.expect("removed");
    assert_eq!((gone.roles.as_slice(), gone.scopes().as_slice()), (&[][..], &[][..]));
    assert_eq!(
        find_active_staff(&mut db, manager.staff_id).await.expect("looked up"),
        None,
        "no session of hers goes on"
    );
    let ended = people::authenticate(&mut db, &presented(&bearer), None, noon().0).await;
    assert!(matches!(ended, Err(Refusal::Revoked)));
    assert!(find_staff_by_contact(&mut db, ContactKind::Phone, &[2; 16]).await.expect("looked up").is_empty());
    let told: Vec<String> = sqlx::query_scalar(
        "select convert_from(body, 'UTF8')::jsonb ->> 'verb' from muneem.evidence_events
         where convert_from(body, 'UTF8')::jsonb -> 'object' ->> 'id' = $1 order by 1",
    )
    .bind(manager.staff_id.to_string())
    .fetch_all(&shop.db.pool())
    .await
    .expect("the evidence");
    assert_eq!(told, ["people.role_granted", "people.role_withdrawn", "people.staff_added", "people.staff_removed"]);
    let again = remove_staff(&mut db, manager.staff_id, &shop.by(&by)).await.expect("again is no error");
    assert_eq!(again, gone);
    let back = grant_role(&mut db, manager.staff_id, Role::ReadOnly, &shop.by(&by)).await;
    assert!(matches!(back, Err(Error::NoSuchStaff(_))), "{back:?}");
}

#[tokio::test]
async fn personal_values_are_sealed_and_found_by_their_index() {
    let shop = Shop::new().await;
    let vault = crate::vault::tests::vault(&shop.db);
    let mut db = shop.pool.acquire().await.expect("a connection");
    let phone = crate::outbound::Phone::parse("+919800000007").expect("an Indian mobile");
    let person = Enrolment {
        business_id: Some(shop.business),
        name: "Asha Verma".to_owned(),
        language: "hi".to_owned(),
        phone: Some(phone.clone()),
        email: Some("Asha@Example.in".to_owned()),
        roles: vec![Role::Owner],
    };
    let operator = Authority::operator();
    let asha = enrol_staff(&mut db, &vault, &person, &shop.by(&operator)).await.expect("enrolled");
    let known = find_staff_by_phone(&mut db, &vault, &phone).await.expect("looked up");
    assert_eq!(known, std::slice::from_ref(&asha));
    let known = find_staff_by_email(&mut db, &vault, "asha@example.IN").await.expect("looked up");
    assert_eq!(known, std::slice::from_ref(&asha));
    let row: String = sqlx::query_scalar(
        "select s::text || encode(name_sealed, 'escape') || encode(phone_sealed, 'escape')
             || encode(email_sealed, 'escape') from muneem.people_staff s",
    )
    .fetch_one(&shop.db.pool())
    .await
    .expect("a row");
    for canary in ["Asha", "9800000007", "example"] {
        assert!(!row.contains(canary), "{canary} stands in the table");
    }
    let bad = Enrolment { email: Some("asha at example".to_owned()), phone: None, ..person };
    let refused = enrol_staff(&mut db, &vault, &bad, &shop.by(&operator)).await;
    assert!(matches!(refused, Err(Error::BadEmail)), "{refused:?}");
}

#[tokio::test]
async fn atk_059_staff_of_another_business_do_not_exist() {
    let shop = Shop::new().await;
    let mut db = shop.pool.acquire().await.expect("a connection");
    let clerk = shop.add(3, &[Role::CounterStaff]).await;
    let stranger = shop.person(4, Some(shop.other), &[Role::Owner]);
    let stranger = add_staff(&mut db, &stranger, &shop.by(&Authority::operator())).await.expect("added");
    let stranger = Authority::of_staff(&stranger);
    for refused in [
        load_staff(&mut db, clerk.staff_id, &stranger).await.err(),
        grant_role(&mut db, clerk.staff_id, Role::ReadOnly, &shop.by(&stranger)).await.err(),
        withdraw_role(&mut db, clerk.staff_id, Role::CounterStaff, &shop.by(&stranger)).await.err(),
        remove_staff(&mut db, clerk.staff_id, &shop.by(&stranger)).await.err(),
        load_staff(&mut db, StaffId(Uuid::nil()), &stranger).await.err(),
    ] {
        assert!(matches!(refused, Some(Error::NoSuchStaff(_))), "{refused:?}");
    }
    let listed = list_staff(&mut db, Some(shop.business), &stranger).await;
    assert!(matches!(listed, Err(Error::NoSuchBusiness(_))), "{listed:?}");
}

#[tokio::test]
async fn atk_064_a_token_cannot_be_the_person_who_approves() {
    let shop = Shop::new().await;
    let mut db = shop.pool.acquire().await.expect("a connection");
    for scope in [Scope::RightsApprove, Scope::BreachApprove, Scope::SupportGrant] {
        let new = NewToken { scopes: vec![scope], ..NewToken::bootstrap() };
        let refused = people::create_token(&mut db, new, &noon(), &shop.chance).await;
        assert!(matches!(refused, Err(Error::ForPeopleAlone(refused)) if refused == scope));
    }
    assert!(NewToken::bootstrap().scopes.iter().all(|scope| !scope.is_for_people_alone()));
}
