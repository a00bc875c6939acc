use secrecy::ExposeSecret;

use super::*;
use crate::people::{
    self, Presented, Refusal, Staff, grant_role, list_tokens, remove_staff, testing::House, withdraw_role,
};

const WHY: &str = "Bills of yesterday do not go out";

fn wish(reason: &str) -> Wish<'_> {
    Wish { reason, lasting: USUAL, only: None }
}

impl House {
    pub(super) async fn let_in(&self, owner: &Staff, lasting: TimeDelta) -> Result<Grant, Error> {
        let by = Authority::of_staff(owner);
        let wish = Wish { reason: WHY, lasting, only: None };
        grant(&mut *self.conn().await, &self.vault, &wish, &self.by(&by)).await
    }

    async fn token_for(&self, grant: &Grant, support: &Staff) -> Result<(Token, Presented), Error> {
        let operator = Authority::operator();
        let mut db = self.conn().await;
        let (token, bearer) = open_token(&mut db, grant.grant_id, support.staff_id, &self.by(&operator)).await?;
        Ok((token, Presented::parse(bearer.expose_secret()).expect("well formed")))
    }

    async fn knock(&self, presented: &Presented) -> Result<Caller, Refusal> {
        people::authenticate(&mut *self.conn().await, presented, None, self.now()).await
    }
}

#[tokio::test]
async fn support_looks_while_the_owner_lets_it_and_every_look_is_on_record_first() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let ravi = house.stranger(2, None, &[Role::Support]).await;
    assert_eq!(ravi.scopes(), [], "by itself support may look at nothing");
    let grant = house.let_in(&owner, USUAL).await.expect("let in");
    assert_eq!(grant.expires_at - grant.granted_at, TimeDelta::hours(2));
    let (token, presented) = house.token_for(&grant, &ravi).await.expect("a token");
    assert_eq!((token.business_id, token.expires_at), (Some(house.shop), Some(grant.expires_at)));
    assert_eq!(token.scopes, Role::Support.scopes());

    let caller = house.knock(&presented).await.expect("opens");
    assert_eq!((caller.business, caller.support), (Some(house.shop), Some(grant.grant_id)));
    let mut db = house.conn().await;
    let look = ("GET", "/v1/invoice/invoices/{id}");
    note_look(&mut db, (&caller, grant.grant_id), look, house.now(), &*house.chance).await.expect("on record");
    let told = house.evidence().await;
    let looked = told.iter().find(|event| event["verb"] == "people.support_looked").expect("on record");
    assert_eq!(looked["actor"], json!({ "kind": "staff", "id": ravi.staff_id }));
    assert_eq!(
        (&looked["business"], &looked["details"]["route"]),
        (&json!(house.shop), &json!("/v1/invoice/invoices/id"))
    );

    let by = Authority::of_staff(&owner);
    let listed = list(&mut db, Asked::default(), 10, &by).await.expect("she sees it");
    assert_eq!(listed, std::slice::from_ref(&grant));
    let (_, reason) = open_reason(&mut db, &house.vault, grant.grant_id, &house.by(&by)).await.expect("hers");
    assert_eq!(reason, WHY);
    let row: String = sqlx::query_scalar("select encode(reason_sealed, 'escape') from muneem.people_support_grants")
        .fetch_one(&house.db.pool())
        .await
        .expect("a row");
    assert!(!row.contains("Bills"), "{row}");

    let ended = end(&mut db, grant.grant_id, &house.by(&by)).await.expect("sent away");
    assert_eq!(ended.ended_by, Some(format!("staff:{}", owner.staff_id)));
    assert!(matches!(house.knock(&presented).await, Err(Refusal::Revoked)), "from this moment on");
    let refused = note_look(&mut db, (&caller, grant.grant_id), look, house.now(), &*house.chance).await;
    assert!(matches!(refused, Err(Error::GrantEnded)), "also whoever was let in a moment before: {refused:?}");
    assert!(matches!(house.token_for(&grant, &ravi).await, Err(Error::GrantEnded)));
    assert_eq!(end(&mut db, grant.grant_id, &house.by(&by)).await.expect("again is no error"), ended);
    assert_eq!(
        house.told_of(grant.grant_id).await,
        [
            "people.support_granted",
            "people.support_entered",
            "people.support_looked",
            "people.support_reason_shown",
            "people.support_ended"
        ]
    );
}

#[tokio::test]
async fn a_grant_ends_at_its_instant_whether_or_not_the_job_has_run() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let ravi = house.stranger(2, None, &[Role::Support]).await;
    let grant = house.let_in(&owner, TimeDelta::minutes(15)).await.expect("let in");
    let (token, presented) = house.token_for(&grant, &ravi).await.expect("a token");
    let jobs = house.waiting("people.end_support").await;
    assert_eq!(jobs, [json!({ "grant_id": grant.grant_id })]);
    let job = EndSupport { grant_id: grant.grant_id };
    house.run(&job).await.expect("too early is no error");
    let caller = house.knock(&presented).await.expect("still");

    house.clock.forward(TimeDelta::minutes(15));
    assert!(matches!(house.knock(&presented).await, Err(Refusal::Revoked | Refusal::Expired)), "the job is late");
    let mut db = house.conn().await;
    let late = note_look(&mut db, (&caller, grant.grant_id), ("GET", "/v1"), house.now(), &*house.chance).await;
    assert!(matches!(late, Err(Error::GrantEnded)), "{late:?}");
    for _ in 0..2 {
        house.run(&job).await.expect("again is no error");
    }
    let told = house.told_of(grant.grant_id).await;
    assert_eq!(told.iter().filter(|verb| *verb == "people.support_ended").count(), 1, "{told:?}");
    let ended = list(&mut db, Asked { business: Some(house.shop), ..Asked::default() }, 10, &Authority::operator())
        .await
        .expect("listed");
    assert!(ended[0].ended_by.as_deref().is_some_and(|by| by.starts_with("job:")), "{ended:?}");
    let tokens = list_tokens(&mut db).await.expect("listed");
    let revoked = tokens.iter().find(|one| one.public_id == token.public_id).and_then(|one| one.revoked_at);
    assert_eq!(revoked, Some(house.now()));
}

#[tokio::test]
async fn atk_061_nobody_but_a_person_of_the_business_lets_support_in_and_for_a_day_at_most() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let manager = house.staff(2, &[Role::Manager]).await;
    let mut db = house.conn().await;
    let refused = house.let_in(&manager, USUAL).await;
    assert!(matches!(refused, Err(Error::MissingScope(Scope::SupportGrant))), "{refused:?}");
    let refused = grant(&mut db, &house.vault, &wish(WHY), &house.by(&Authority::operator())).await;
    assert!(matches!(refused, Err(Error::NotOfBusiness)), "nor whoever has the machine: {refused:?}");
    for lasting in [TimeDelta::hours(25), TimeDelta::minutes(1), TimeDelta::hours(-1)] {
        let refused = house.let_in(&owner, lasting).await;
        assert!(matches!(refused, Err(Error::BadDuration)), "{lasting}: {refused:?}");
    }
    let by = Authority::of_staff(&owner);
    let refused = grant(&mut db, &house.vault, &wish("  "), &house.by(&by)).await;
    assert!(matches!(refused, Err(Error::BadReason)), "{refused:?}");
    // The database refuses the same without the program.
    for (business, until, constraint) in [
        (house.shop, "25 hours", "people_support_grants_a_day_at_most"),
        (house.other, "1 hour", "people_support_grants_by_its_own_staff"),
    ] {
        let forged = sqlx::query(sqlx::AssertSqlSafe(format!(
            "insert into muneem.people_support_grants
                 (grant_id, business_id, reason_sealed, granted_by, granted_at, expires_at)
             values (gen_random_uuid(), '{business}', '\\x00', '{}', now(), now() + interval '{until}')",
            owner.staff_id
        )))
        .execute(&house.pool)
        .await
        .expect_err("refused");
        assert_eq!(forged.as_database_error().and_then(|error| error.constraint()), Some(constraint));
    }

    let grant = house.let_in(&owner, USUAL).await.expect("let in");
    // Only support enters, and only by the platform.
    let operator = house.stranger(3, None, &[Role::Operator]).await;
    assert!(matches!(house.token_for(&grant, &operator).await, Err(Error::NotSupport)));
    assert!(matches!(house.token_for(&grant, &owner).await, Err(Error::NotSupport)));
    let ravi = house.stranger(4, None, &[Role::Support]).await;
    let hers = open_token(&mut db, grant.grant_id, ravi.staff_id, &house.by(&by)).await;
    assert!(matches!(hers, Err(Error::NoSuchGrant(_))), "{hers:?}");
    // Another business neither sees nor ends it.
    let stranger = Authority::of_staff(&house.stranger(5, Some(house.other), &[Role::Owner]).await);
    let refused = end(&mut db, grant.grant_id, &house.by(&stranger)).await;
    assert!(matches!(refused, Err(Error::NoSuchGrant(_))), "{refused:?}");
    assert_eq!(list(&mut db, Asked::default(), 10, &stranger).await.expect("listed"), []);
    // Whoever leaves support, or the platform, is out.
    let (_, presented) = house.token_for(&grant, &ravi).await.expect("a token");
    let platform = Authority::operator();
    grant_role(&mut db, ravi.staff_id, Role::Operator, &house.by(&platform)).await.expect("granted");
    withdraw_role(&mut db, ravi.staff_id, Role::Operator, &house.by(&platform)).await.expect("withdrawn");
    house.knock(&presented).await.expect("she is of support still");
    withdraw_role(&mut db, ravi.staff_id, Role::Support, &house.by(&platform)).await.expect("withdrawn");
    assert!(matches!(house.knock(&presented).await, Err(Refusal::Revoked)));
    grant_role(&mut db, ravi.staff_id, Role::Support, &house.by(&platform)).await.expect("granted anew");
    let (_, presented) = house.token_for(&grant, &ravi).await.expect("a token");
    remove_staff(&mut db, ravi.staff_id, &house.by(&platform)).await.expect("removed");
    assert!(matches!(house.knock(&presented).await, Err(Refusal::Revoked)));
}

#[tokio::test]
async fn the_owner_may_name_one_person_of_support_and_nobody_else_comes_in() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let (ravi, other) =
        (house.stranger(2, None, &[Role::Support]).await, house.stranger(3, None, &[Role::Support]).await);
    let by = Authority::of_staff(&owner);
    let mut db = house.conn().await;
    let listed = list_people(&mut db, &by).await.expect("she lets them in");
    assert_eq!(listed.len(), 2, "{listed:?}");
    let manager = Authority::of_staff(&house.staff(4, &[Role::Manager]).await);
    assert!(matches!(list_people(&mut db, &manager).await, Err(Error::MissingScope(Scope::SupportGrant))));
    let operator = house.stranger(5, None, &[Role::Operator]).await;
    for (nobody, why) in [(owner.staff_id, "her own"), (operator.staff_id, "of the platform, not of support")] {
        let refused = grant(&mut db, &house.vault, &Wish { only: Some(nobody), ..wish(WHY) }, &house.by(&by)).await;
        assert!(matches!(refused, Err(Error::NotSupport)), "{why}: {refused:?}");
    }
    let named = Wish { only: Some(ravi.staff_id), ..wish(WHY) };
    let grant = grant(&mut db, &house.vault, &named, &house.by(&by)).await.expect("let in");
    assert_eq!(list_live(&mut db, Some(house.shop), house.now()).await.expect("listed"), std::slice::from_ref(&grant));
    assert_eq!(list_live(&mut db, Some(house.other), house.now()).await.expect("listed"), []);
    assert!(matches!(house.token_for(&grant, &other).await, Err(Error::GrantForAnother)));
    house.token_for(&grant, &ravi).await.expect("she is the one");
    house.clock.forward(USUAL);
    assert_eq!(list_live(&mut db, Some(house.shop), house.now()).await.expect("listed"), [], "at its instant");
}

#[tokio::test]
async fn atk_061_looks_are_read_from_the_evidence_across_whatever_else_happens() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let ravi = house.stranger(2, None, &[Role::Support]).await;
    let by = Authority::of_staff(&owner);
    let before = house.let_in(&owner, USUAL).await.expect("let in");
    house.clock.forward(TimeDelta::minutes(1));
    let grant = house.let_in(&owner, USUAL).await.expect("let in");
    let (_, presented) = house.token_for(&grant, &ravi).await.expect("a token");
    let caller = house.knock(&presented).await.expect("opens");
    let mut db = house.conn().await;
    let look = async |db: &mut PgConnection, route: &str| {
        let (caller, look) = ((&caller, grant.grant_id), ("GET", route));
        note_look(db, caller, look, house.now(), &*house.chance).await.expect("on record");
    };
    look(&mut db, "/v1/first").await;
    // More than a window of other things, and the same again by the clock of a later hour.
    for business in [house.shop, house.other] {
        let happened = |_| Event {
            event_id: EventId::new(&*house.chance, house.now()),
            business_id: Some(business),
            actor: Actor::System,
            verb: words::PROBED,
            object: Object { kind: "test", id: "one" },
            details: Value::Null,
        };
        let events: Vec<_> = (0..1100).map(happened).collect();
        evidence::record_many(&mut db, &events).await.expect("recorded");
    }
    look(&mut db, "/v1/{second}").await;
    let read = async |db: &mut PgConnection, id, by: &Authority| read_looks(db, id, None, &house.by(by)).await;
    assert_eq!(read(&mut db, grant.grant_id, &by).await.expect("read"), Looks::default(), "nothing has its number yet");

    let signer = evidence::note::Signer25519::new(&[5; 32]);
    let mut sealer = evidence::Sealer::new(signer, Vec::new(), "test".to_owned());
    while evidence::load_standing(&mut db).await.expect("asked").unsealed_since.is_some() {
        sealer.turn(&mut db, house.now()).await.expect("sealed");
    }
    let found = read(&mut db, grant.grant_id, &by).await.expect("read");
    let looked = |route: &str| Deed::Looked { method: "GET".to_owned(), route: route.to_owned() };
    let deeds: Vec<_> = found.looks.iter().map(|look| look.deed.clone()).collect();
    assert_eq!(deeds, [Deed::Entered, looked("/v1/first"), looked("/v1/second")]);
    assert!(found.looks.iter().all(|look| look.staff == Some(ravi.staff_id)), "{found:?}");
    assert_eq!((found.next, found.retired), (None, 0));
    assert_eq!(
        read(&mut db, before.grant_id, &by).await.expect("read"),
        Looks::default(),
        "nobody came in by that one"
    );
    // Whoever stops after a window is told where to read on.
    let part = looks::read_windows(&mut db, &grant, None, 1).await.expect("read");
    assert_eq!(part.looks, found.looks[..2]);
    let rest = looks::read_windows(&mut db, &grant, part.next, 1).await.expect("read");
    assert_eq!((rest.looks.as_slice(), rest.next), (&found.looks[2..], None));
    let late = read_looks(&mut db, grant.grant_id, Some(u64::MAX >> 2), &house.by(&by)).await.expect("read");
    assert_eq!(late, Looks::default(), "there is nothing behind the end");
    let told = house.told_of(grant.grant_id).await;
    assert_eq!(told.iter().filter(|verb| *verb == "evidence.read").count(), 3, "{told:?}");

    let manager = Authority::of_staff(&house.staff(4, &[Role::Manager]).await);
    let refused = read(&mut db, grant.grant_id, &manager).await;
    assert!(matches!(refused, Err(Error::MissingScope(Scope::EvidenceRead))), "{refused:?}");
    let stranger = Authority::of_staff(&house.stranger(5, Some(house.other), &[Role::Owner]).await);
    assert!(matches!(read(&mut db, grant.grant_id, &stranger).await, Err(Error::NoSuchGrant(_))));
}
