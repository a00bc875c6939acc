use muneem_postgres::testing::TestDb;

use super::*;
use crate::{
    outbound::Phone,
    people::{Authority, Enrolment, Role, add_business, enrol_staff, remove_staff},
    vault,
};

const ISSUER: &str = "https://id.example.in";

struct Drawn;

impl Chance for Drawn {
    #[expect(clippy::disallowed_methods, reason = "ids and secrets must differ as they do in a real house")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::Rng::fill_bytes(&mut rand::rng(), bytes);
    }
}

struct Noon;

impl crate::outbound::Clock for Noon {
    fn now(&self) -> DateTime<Utc> {
        noon()
    }
}

fn noon() -> DateTime<Utc> {
    "2026-11-23T06:30:00Z".parse().expect("an instant")
}

struct House {
    db: TestDb,
    vault: Vault,
    operator: Authority,
}

impl House {
    async fn new() -> Self {
        let db = TestDb::new(&crate::MIGRATOR).await;
        let vault = vault::tests::vault(&db);
        Self { db, vault, operator: Authority::operator() }
    }

    async fn conn(&self) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
        self.db.app_pool().acquire().await.expect("a connection")
    }

    fn decision(&self) -> Decision<'_> {
        Decision { by: &self.operator, now: noon(), chance: &Drawn }
    }

    async fn provider(&self, handle: &str, business_id: Option<BusinessId>) -> Provider {
        let new = NewProvider { business_id, handle: handle.to_owned(), ..new() };
        oidc_added(self, &new).await.expect("added")
    }

    async fn business(&self, handle: &str) -> BusinessId {
        add_business(&mut *self.conn().await, handle, "A shop", &Noon, &Drawn).await.expect("made").business_id
    }

    async fn person(&self, business_id: Option<BusinessId>, phone: &str) -> Staff {
        let roles = vec![if business_id.is_some() { Role::Owner } else { Role::Operator }];
        let person = Enrolment {
            business_id,
            name: "Asha".to_owned(),
            language: "en".to_owned(),
            phone: Some(Phone::parse(phone).expect("a phone")),
            email: None,
            roles,
        };
        enrol_staff(&mut *self.conn().await, &self.vault, &person, &self.decision()).await.expect("enrolled")
    }

    async fn link(&self, provider: &Provider, subject: &str, staff: &Staff) -> Result<LinkId, Error> {
        let by = Authority::of_staff(staff);
        let decision = Decision { by: &by, ..self.decision() };
        link(&mut *self.conn().await, &self.vault, (provider, subject), staff, &decision).await
    }

    async fn find(&self, provider: &Provider, subject: &str) -> Result<Staff, Error> {
        find_linked(&mut *self.conn().await, &self.vault, provider, subject, noon()).await
    }
}

async fn oidc_added(house: &House, new: &NewProvider) -> Result<Provider, Error> {
    add_provider(&mut *house.conn().await, &house.vault, new, &house.decision()).await
}

fn new() -> NewProvider {
    NewProvider {
        business_id: None,
        handle: "example".to_owned(),
        label: "Example".to_owned(),
        issuer: ISSUER.to_owned(),
        client_id: "muneem".to_owned(),
        client_secret: Some("hunter2".to_owned().into()),
        trusted_amr: vec!["mfa".to_owned()],
        trusted_acr: vec!["urn:example:gold".to_owned()],
    }
}

#[tokio::test]
async fn a_provider_is_kept_with_its_secret_sealed_until_it_is_removed() {
    let house = House::new().await;
    let provider = house.provider("example", None).await;
    let mut db = house.conn().await;
    let secret = client_secret(&mut db, &house.vault, &provider).await.expect("opened").expect("there is one");
    assert_eq!(secret.expose_secret(), "hunter2");
    assert!(matches!(oidc_added(&house, &new()).await, Err(Error::HandleTaken(_))));
    remove_provider(&mut db, "example", &house.decision()).await.expect("removed");
    assert!(matches!(load_provider(&mut db, "example").await, Err(Error::NoSuchProvider(_))));
    assert!(list_providers(&mut db).await.expect("listed").is_empty());
    oidc_added(&house, &new()).await.expect("the handle is free again");
    let verbs: Vec<String> = sqlx::query_scalar(
        "select convert_from(body, 'UTF8')::jsonb ->> 'verb' from muneem.evidence_events
         where convert_from(body, 'UTF8')::jsonb ->> 'verb' like 'people.oidc%'",
    )
    .fetch_all(&house.db.pool())
    .await
    .expect("the owner reads");
    assert_eq!(verbs.iter().filter(|verb| *verb == "people.oidc_provider_added").count(), 2);
    assert_eq!(verbs.iter().filter(|verb| *verb == "people.oidc_provider_removed").count(), 1);
}

#[tokio::test]
async fn what_is_off_about_a_provider_is_named() {
    let house = House::new().await;
    let cases: [(&str, NewProvider); 9] = [
        ("handle", NewProvider { handle: "Google!".to_owned(), ..new() }),
        ("handle", NewProvider { handle: "a--b".to_owned(), ..new() }),
        ("label", NewProvider { label: " ".to_owned(), ..new() }),
        ("issuer", NewProvider { issuer: "http://id.example.in".to_owned(), ..new() }),
        ("issuer", NewProvider { issuer: "https://id.example.in/?tenant=1".to_owned(), ..new() }),
        ("issuer", NewProvider { issuer: "https://asha@id.example.in".to_owned(), ..new() }),
        ("issuer", NewProvider { issuer: "http://127.0.0.1.example.in".to_owned(), ..new() }),
        ("client_id", NewProvider { client_id: String::new(), ..new() }),
        ("trusted_amr", NewProvider { trusted_amr: vec![String::new()], ..new() }),
    ];
    for (field, case) in cases {
        let error = oidc_added(&house, &case).await.expect_err(field);
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
    let local = NewProvider { issuer: "http://127.0.0.1:4444".to_owned(), ..new() };
    oidc_added(&house, &local).await.expect("on loopback plain http is fine");
}

#[tokio::test]
async fn atk_057_a_person_is_known_by_issuer_and_subject_and_only_once() {
    let house = House::new().await;
    let provider = house.provider("example", None).await;
    let (asha, ravi) = (house.person(None, "+919876543210").await, house.person(None, "+919876543211").await);
    assert!(matches!(house.find(&provider, "s-1").await, Err(Error::NotLinked)));
    let first = house.link(&provider, "s-1", &asha).await.expect("linked");
    assert_eq!(house.link(&provider, "s-1", &asha).await.expect("again is no error"), first);
    assert_eq!(house.find(&provider, "s-1").await.expect("found").staff_id, asha.staff_id);
    assert!(matches!(house.link(&provider, "s-1", &ravi).await, Err(Error::LinkTaken)), "an identity is one person");
    assert!(matches!(house.link(&provider, "s-2", &asha).await, Err(Error::LinkTaken)), "a person has one identity");

    // The same subject elsewhere is somebody else: at another provider, and under another issuer.
    let other = house.provider("other", None).await;
    assert!(matches!(house.find(&other, "s-1").await, Err(Error::NotLinked)));
    let renamed = Provider { issuer: "https://id.example.in/".to_owned(), ..provider.clone() };
    assert!(matches!(house.find(&renamed, "s-1").await, Err(Error::NotLinked)));
    for near in ["S-1", "s-1 ", "s-11", ""] {
        assert!(house.find(&provider, near).await.is_err(), "{near:?}");
    }
    assert!(matches!(house.find(&provider, &"x".repeat(256)).await, Err(Error::BadSubject)));

    // Racing for one identity, one person gets it.
    let (left, right) = tokio::join!(house.link(&provider, "s-9", &ravi), async {
        let zoya = house.person(None, "+919876543212").await;
        house.link(&provider, "s-9", &zoya).await
    });
    assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
}

#[tokio::test]
async fn the_provider_of_one_business_is_for_its_people_alone() {
    let house = House::new().await;
    let (sharma, verma) = (house.business("sharma-mobiles").await, house.business("verma-phones").await);
    let provider = house.provider("sharma-id", Some(sharma)).await;
    let asha = house.person(Some(sharma), "+919876543210").await;
    let ravi = house.person(Some(verma), "+919876543211").await;
    house.link(&provider, "asha", &asha).await.expect("linked");
    for stranger in [&ravi, &house.person(None, "+919876543212").await] {
        assert!(matches!(house.link(&provider, "ravi", stranger).await, Err(Error::NoSuchProvider(_))));
    }
    // A link that should not be there opens nothing either.
    sqlx::query("update muneem.people_oidc_links set staff_id = $1")
        .bind(ravi.staff_id.0)
        .execute(&house.db.pool())
        .await
        .expect("planted");
    assert!(matches!(house.find(&provider, "asha").await, Err(Error::NotLinked)));
}

#[tokio::test]
async fn who_was_removed_or_unlinked_is_not_found() {
    let house = House::new().await;
    let provider = house.provider("example", None).await;
    let asha = house.person(None, "+919876543210").await;
    house.link(&provider, "asha", &asha).await.expect("linked");
    let mut db = house.conn().await;
    assert_eq!(list_linked(&mut db, asha.staff_id).await.expect("listed"), [provider.provider_id]);
    assert!(unlink(&mut db, &provider, &asha, &house.decision()).await.expect("unlinked"));
    assert!(!unlink(&mut db, &provider, &asha, &house.decision()).await.expect("nothing to unlink"));
    assert!(matches!(house.find(&provider, "asha").await, Err(Error::NotLinked)));

    house.link(&provider, "asha", &asha).await.expect("linked again");
    remove_staff(&mut db, asha.staff_id, &house.decision()).await.expect("removed");
    assert!(matches!(house.find(&provider, "asha").await, Err(Error::NotLinked)));
    let left: i64 = sqlx::query_scalar("select count(*) from muneem.people_oidc_links")
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
    assert_eq!(left, 0, "nothing that names her stays");
    let told: Vec<String> = sqlx::query_scalar(
        "select convert_from(body, 'UTF8')::jsonb ->> 'verb' from muneem.evidence_events
         where convert_from(body, 'UTF8')::jsonb ->> 'verb' like 'people.oidc_%linked' order by xid, event_id",
    )
    .fetch_all(&house.db.pool())
    .await
    .expect("the owner reads");
    assert_eq!(told, ["people.oidc_linked", "people.oidc_unlinked", "people.oidc_linked"]);
}

#[tokio::test]
async fn atk_057_a_flow_works_once_in_its_browser_for_its_provider_and_in_time() {
    let house = House::new().await;
    let provider = house.provider("example", None).await;
    let other = house.provider("other", None).await;
    let mut db = house.conn().await;
    let (browser, stranger) = (new_token(&Drawn), new_token(&Drawn));
    let when = (noon(), &Drawn as &dyn Chance);

    let secrets = begin(&mut db, &provider, Purpose::SignIn, &browser, when).await.expect("begun");
    let state = secrets.state.expose_secret().to_owned();
    let (purpose, back) = take(&mut db, &provider, &state, &browser, noon()).await.expect("taken");
    assert_eq!(purpose, Purpose::SignIn);
    assert_eq!(back.nonce.expose_secret(), secrets.nonce.expose_secret());
    assert_eq!(back.verifier.expose_secret(), secrets.verifier.expose_secret());
    assert_eq!(back.verifier.expose_secret().len(), 64, "RFC 7636: 43 to 128 characters");
    assert!(matches!(take(&mut db, &provider, &state, &browser, noon()).await, Err(Error::Void)), "a second time");

    for (what, at, by, when_back) in [
        ("another browser", &provider, &stranger, noon()),
        ("another provider", &other, &browser, noon()),
        ("ten minutes later", &provider, &browser, noon() + FLOW_LIFE),
        ("before it began", &provider, &browser, noon() - TimeDelta::seconds(1)),
    ] {
        let secrets = begin(&mut db, &provider, Purpose::SignIn, &browser, when).await.expect("begun");
        let state = secrets.state.expose_secret();
        assert!(matches!(take(&mut db, at, state, by, when_back).await, Err(Error::Void)), "{what}");
    }
    for nonsense in ["", "x", &"0".repeat(64), &"A".repeat(64)] {
        assert!(matches!(take(&mut db, &provider, nonsense, &browser, noon()).await, Err(Error::Void)), "{nonsense}");
    }

    // Fifty at once: one.
    let secrets = begin(&mut db, &provider, Purpose::SignIn, &browser, when).await.expect("begun");
    let state = secrets.state.expose_secret();
    let takes =
        (0..50).map(|_| async { take(&mut *house.conn().await, &provider, state, &browser, noon()).await.is_ok() });
    let won = futures_util::future::join_all(takes).await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);

    // Neither the table nor two flows of one browser tell each other's secrets.
    let one = begin(&mut db, &provider, Purpose::SignIn, &browser, when).await.expect("begun");
    let two = begin(&mut db, &provider, Purpose::SignIn, &browser, when).await.expect("begun");
    assert_ne!(one.nonce.expose_secret(), two.nonce.expose_secret());
    assert_ne!(one.nonce.expose_secret(), one.verifier.expose_secret());
}

#[tokio::test]
async fn flows_that_ran_out_are_deleted_as_others_begin() {
    let house = House::new().await;
    let provider = house.provider("example", None).await;
    let mut db = house.conn().await;
    let browser = new_token(&Drawn);
    for _ in 0..3 {
        begin(&mut db, &provider, Purpose::SignIn, &browser, (noon(), &Drawn)).await.expect("begun");
    }
    begin(&mut db, &provider, Purpose::SignIn, &browser, (noon() + FLOW_LIFE * 2, &Drawn)).await.expect("begun");
    let left: i64 = sqlx::query_scalar("select count(*) from muneem.people_oidc_flows")
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
    assert_eq!(left, 1);
}

#[test]
fn a_second_factor_is_what_the_row_trusts_and_was_proved_just_now() {
    let provider = Provider {
        provider_id: ProviderId(Uuid::nil()),
        business_id: None,
        handle: "example".to_owned(),
        label: "Example".to_owned(),
        issuer: ISSUER.to_owned(),
        client_id: "muneem".to_owned(),
        trusted_amr: vec!["mfa".to_owned(), "hwk".to_owned()],
        trusted_acr: vec!["urn:example:gold".to_owned()],
        created_at: noon(),
    };
    let proof = |methods: &[&str], class: Option<&str>, age: Option<i64>| Proof {
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        class: class.map(str::to_owned),
        proved_at: age.map(|secs| noon() - TimeDelta::seconds(secs)),
    };
    for (holds, case) in [
        (true, proof(&["pwd", "mfa"], None, Some(0))),
        (true, proof(&[], Some("urn:example:gold"), Some(300))),
        (true, proof(&["hwk"], None, Some(-59))),
        (false, proof(&["pwd"], None, Some(0))),
        (false, proof(&["MFA"], None, Some(0))),
        (false, proof(&["mfa"], None, Some(301))),
        (false, proof(&["mfa"], None, Some(-61))),
        (false, proof(&["mfa"], None, None)),
        (false, proof(&[], Some("urn:example:silver"), Some(0))),
        (false, proof(&[], None, Some(0))),
    ] {
        assert_eq!(provider.proves_second(&case, noon()), holds, "{case:?}");
    }
    let untrusting = Provider { trusted_amr: Vec::new(), trusted_acr: Vec::new(), ..provider };
    assert!(!untrusting.proves_second(&proof(&["mfa"], Some("urn:example:gold"), Some(0)), noon()));
}
