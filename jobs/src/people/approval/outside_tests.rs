use secrecy::ExposeSecret;

use super::{tests::plan, *};
use crate::{
    outbound::{Email, Phone},
    people::{
        Changes, Enrolment, Role, change_business, enrol_staff,
        links::{Contact, Entered, Link, SendLink},
        remove_staff,
        testing::House,
    },
};

const ORIGIN: &str = "https://muneem.example.in";

fn mail(text: &str) -> Contact {
    Contact::Email(Email::parse(text).expect("an address"))
}

impl House {
    /// The owner of a shop that has nobody else, her mail address proved.
    async fn alone(&self) -> Staff {
        let operator = Authority::operator();
        let person = Enrolment {
            business_id: Some(self.shop),
            name: "Asha Verma".to_owned(),
            language: "hi".to_owned(),
            phone: None,
            email: Some("asha@example.in".to_owned()),
            roles: vec![Role::Owner],
        };
        let mut db = self.conn().await;
        let owner = enrol_staff(&mut db, &self.vault, &person, &self.by(&operator)).await.expect("enrolled");
        crate::people::mark_verified(&mut db, owner.staff_id, crate::people::ContactKind::Email, self.now())
            .await
            .expect("noted");
        owner
    }

    async fn invite(&self, approval: &Approval, contact: &Contact, by: &Authority) -> Result<(Link, String), Error> {
        self.invite_by(approval, (contact, None), by).await
    }

    async fn invite_by(
        &self,
        approval: &Approval,
        (contact, carrier): (&Contact, Option<BusinessId>),
        by: &Authority,
    ) -> Result<(Link, String), Error> {
        let invitation = Invitation { contact, carrier, language: "hi", origin: ORIGIN };
        let mut db = self.conn().await;
        let (link, url) = invite(&mut db, &self.vault, approval.approval_id, &invitation, &self.by(by)).await?;
        let secret = url.expose_secret().strip_prefix("https://muneem.example.in/r/").expect("our path").to_owned();
        Ok((link, secret))
    }

    /// Asks for a code, takes it out of the mail and enters it.
    async fn enter(&self, secret: &str) -> String {
        let at = (secret, Purpose::Approval);
        let mut db = self.conn().await;
        let link = links::make_code(&mut db, &self.vault, at, self.now(), &*self.chance).await.expect("made");
        let jobs = self.waiting("people.send_link").await.into_iter();
        let ours = jobs.filter(|job| job["link_id"] == link.link_id.to_string() && !job["code"].is_null());
        let payload = ours.max_by_key(|job| job["code"].as_i64()).expect("a job that sends it");
        assert_eq!(payload["link_id"], link.link_id.to_string());
        let job: SendLink = serde_json::from_value(payload).expect("its payload");
        self.run(&job).await.expect("sent");
        let code = self.mails.taken().pop().expect("a mail").text().lines().next().expect("the code").to_owned();
        match links::enter_code(&mut db, at, &code, self.now(), &*self.chance).await.expect("entered") {
            Entered::Right(proof) => proof.expose_secret().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    async fn vote(&self, (secret, proof): (&str, &str), seen: &PlanHash, verdict: Verdict) -> Result<Approval, Error> {
        let operator = Authority::operator();
        let mut tx = self.pool.begin().await.expect("begun");
        let done = decide_outside(&mut tx, &self.vault, Followed { secret, proof }, seen, verdict, &self.by(&operator))
            .await?;
        tx.commit().await.expect("committed");
        Ok(done)
    }
}

#[tokio::test]
async fn the_second_person_of_a_one_person_business_decides_once() {
    let house = House::new().await;
    let owner = house.alone().await;
    let by = Authority::of_staff(&owner);
    let asked = house.ask("R-1", 1, &by).await;
    let ravi = mail("ravi@example.com");
    let (link, secret) = house.invite(&asked, &ravi, &by).await.expect("invited");
    let sent: SendLink =
        serde_json::from_value(house.waiting("people.send_link").await.remove(0)).expect("a job that sends it");
    house.run(&sent).await.expect("sent");
    let mails = house.mails.taken();
    assert_eq!(mails[0].to().expose(), "ravi@example.com");
    assert!(mails[0].text().contains(&format!("{ORIGIN}/r/{secret}")), "{}", mails[0].text());
    assert!(mails[0].text().contains("Sharma Mobiles"));
    house.run(&sent).await.expect("again");
    assert!(house.mails.taken().is_empty(), "what was sent is kept nowhere and not sent again");

    let proof = house.enter(&secret).await;
    let mut tx = house.pool.begin().await.expect("begun");
    let operator = Authority::operator();
    let followed = Followed { secret: &secret, proof: &proof };
    let shown = show_outside(&mut tx, &house.vault, followed, &house.by(&operator)).await.expect("shown");
    tx.commit().await.expect("committed");
    assert_eq!((shown.business.as_str(), &shown.summary), ("Sharma Mobiles", &plan("one").summary));

    // Edited while she reads: she is told, and asked anew.
    let mut db = house.conn().await;
    let changed =
        change_plan(&mut db, &house.vault, asked.approval_id, &plan("two"), &house.by(&by)).await.expect("ok");
    let stale = house.vote((&secret, &proof), &shown.plan_sha256, Verdict::Approve).await;
    assert!(matches!(stale, Err(Error::PlanChanged)), "{stale:?}");
    let done = house.vote((&secret, &proof), &changed.plan_sha256, Verdict::Approve).await.expect("counted");
    assert_eq!(done.state, State::Approved);
    let again = house.vote((&secret, &proof), &changed.plan_sha256, Verdict::Deny).await;
    assert!(matches!(again, Err(Error::Link(links::Error::NoSuchLink))), "used up: {again:?}");
    let votes = list_votes(&mut db, asked.approval_id, &by).await.expect("listed");
    assert_eq!((votes[0].link_id, votes[0].staff_id), (Some(link.link_id), None));
    let evidence = house.evidence().await;
    let given = evidence.iter().find(|event| event["verb"] == "people.approval_given").expect("on record");
    assert_eq!(given["actor"], serde_json::json!({ "kind": "outside", "id": link.link_id }));
    assert!(evidence.iter().any(|event| event["verb"] == "people.approval_shown"), "that she looked is on record");
    assert!(!serde_json::to_string(&evidence).expect("JSON").contains("ravi"), "by id alone");
}

#[tokio::test]
async fn nobody_outside_is_asked_where_somebody_inside_may() {
    let house = House::new().await;
    let owner = house.alone().await;
    let by = Authority::of_staff(&owner);
    let asked = house.ask("R-1", 1, &by).await;
    let ravi = mail("ravi@example.com");

    let refused = house.invite(&asked, &mail("Asha@Example.in"), &by).await;
    assert!(matches!(refused, Err(Error::NotOutside)), "the owner's own: {refused:?}");
    let refused = house
        .invite(&asked, &ravi, &Authority::of_staff(&house.stranger(3, Some(house.shop), &[Role::Manager]).await))
        .await;
    assert!(matches!(refused, Err(Error::People(crate::people::Error::MissingScope(Scope::ApprovalInvite)))));

    // A verified approver of the shop itself comes first; an unverified one is none.
    house.stranger(4, Some(house.shop), &[Role::Approver]).await;
    house.invite(&asked, &ravi, &by).await.expect("she cannot approve yet");
    let inside = house.staff(5, &[Role::Approver]).await;
    let refused = house.invite(&asked, &mail("meera@example.com"), &by).await;
    assert!(matches!(refused, Err(Error::HasApprovers)), "{refused:?}");
    remove_staff(&mut *house.conn().await, inside.staff_id, &house.by(&by)).await.expect("removed");
    for name in ["meera", "sita"] {
        house.invite(&asked, &mail(&format!("{name}@example.com")), &by).await.expect("invited");
    }
    let refused = house.invite(&asked, &mail("gita@example.com"), &by).await;
    assert!(matches!(refused, Err(Error::TooManyInvited)), "{refused:?}");
    // Taking back makes room, and not for ever: each invitation writes to a stranger.
    let mut db = house.conn().await;
    for at in 3..=10 {
        let open = links::list(&mut db, house.shop, Purpose::Approval, asked.approval_id.0).await.expect("listed");
        let open = open.iter().find(|link| link.is_open(house.now())).expect("open");
        revoke_invitation(&mut db, asked.approval_id, open.link_id, &house.by(&by)).await.expect("taken back");
        let invited = house.invite(&asked, &mail(&format!("person{at}@example.com")), &by).await;
        assert_eq!(invited.is_ok(), at < 10, "{at}: {invited:?}");
    }
}

#[tokio::test]
async fn atk_064_no_number_of_the_asker_carries_the_code_of_whoever_decides() {
    let house = House::new().await;
    let owner = house.alone().await;
    let by = Authority::of_staff(&owner);
    let asked = house.ask("R-1", 1, &by).await;
    let phone = Contact::Phone(Phone::parse("+919800000007").expect("a phone"));
    let refused = house.invite_by(&asked, (&phone, None), &by).await;
    assert!(matches!(refused, Err(Error::Link(links::Error::NoWayToPhone))), "{refused:?}");
    let refused = house.invite_by(&asked, (&phone, Some(house.shop)), &by).await;
    assert!(matches!(refused, Err(Error::Link(links::Error::OwnNumber))), "{refused:?}");
    // Nor does a program that skips the check get past the table.
    let mut db = house.conn().await;
    for carried_by in [None, Some(house.shop)] {
        let new = links::NewLink {
            business_id: house.shop,
            purpose: Purpose::Approval,
            subject_id: asked.approval_id.0,
            contact: &phone,
            carried_by,
            language: "en",
            expires_at: asked.expires_at,
            uses: 1,
            made_by: by.name(),
            origin: ORIGIN,
        };
        let refused = links::make(&mut db, &house.vault, &new, house.now(), &*house.chance).await;
        let Err(links::Error::Database(error)) = refused else { panic!("{refused:?}") };
        let held = error.as_database_error().and_then(|error| error.constraint());
        assert_eq!(held, Some("people_links_carried_by_another"));
    }

    // Nor one that she works for under another account, nor to what is the business's own.
    let operator = Authority::operator();
    let person = Enrolment {
        business_id: Some(house.other),
        name: "Asha of the desk".to_owned(),
        language: "en".to_owned(),
        phone: None,
        email: Some("asha@example.in".to_owned()),
        roles: vec![Role::ReadOnly],
    };
    let there = enrol_staff(&mut db, &house.vault, &person, &house.by(&operator)).await.expect("enrolled");
    let refused = house.invite_by(&asked, (&phone, Some(house.other)), &by).await;
    assert!(matches!(refused, Err(Error::Link(links::Error::OwnNumber))), "{refused:?}");
    remove_staff(&mut db, there.staff_id, &house.by(&operator)).await.expect("removed");
    let changes = Changes {
        contact_phone: Some(Some("+919800000008".to_owned())),
        contact_email: Some(Some("shop@example.in".to_owned())),
        ..Changes::default()
    };
    change_business(&mut db, &house.vault, house.shop, &changes, &house.by(&operator)).await.expect("changed");
    let own = Contact::Phone(Phone::parse("+919800000008").expect("a phone"));
    for own in [own, mail("Shop@example.in")] {
        let refused = house.invite_by(&asked, (&own, Some(house.other)), &by).await;
        assert!(matches!(refused, Err(Error::NotOutside)), "{refused:?}");
    }

    // Another's carries it, and whoever holds the phone decides.
    let (link, secret) = house.invite_by(&asked, (&phone, Some(house.other)), &by).await.expect("invited");
    assert_eq!((link.channel.as_str(), link.carried_by), ("phone", Some(house.other)));
    let job = house.waiting("messaging.send_link").await.remove(0);
    assert_eq!(job, serde_json::json!({ "link_id": link.link_id, "code": null }));
    let at = (secret.as_str(), Purpose::Approval);
    links::make_code(&mut db, &house.vault, at, house.now(), &*house.chance).await.expect("a code");
    let outgoing = links::find_outgoing(&mut db, &house.vault, (link.link_id, Some(1)), house.now()).await;
    let outgoing = outgoing.expect("read").expect("a code to send");
    assert_eq!(&**outgoing.to, "+919800000007");
    let code = outgoing.secret.expose_secret().to_owned();
    let proof = match links::enter_code(&mut db, at, &code, house.now(), &*house.chance).await.expect("entered") {
        Entered::Right(proof) => proof.expose_secret().to_owned(),
        other => panic!("{other:?}"),
    };
    let done = house.vote((&secret, &proof), &asked.plan_sha256, Verdict::Approve).await.expect("counted");
    assert_eq!(done.state, State::Approved);
}

#[tokio::test]
async fn atk_064_an_invitation_to_the_askers_other_account_counts_for_nobody() {
    let house = House::new().await;
    let owner = house.alone().await;
    let by = Authority::of_staff(&owner);
    let asked = house.ask("R-1", 1, &by).await;
    // A link to her own address, as a program that skips the check would make it.
    let asha = mail("asha@example.in");
    let new = links::NewLink {
        business_id: house.shop,
        purpose: Purpose::Approval,
        subject_id: asked.approval_id.0,
        contact: &asha,
        carried_by: None,
        language: "en",
        expires_at: asked.expires_at,
        uses: 1,
        made_by: by.name(),
        origin: ORIGIN,
    };
    let mut db = house.conn().await;
    let (_, url) = links::make(&mut db, &house.vault, &new, house.now(), &*house.chance).await.expect("made");
    let secret = url.expose_secret().rsplit('/').next().expect("its secret").to_owned();
    let proof = house.enter(&secret).await;
    let refused = house.vote((&secret, &proof), &asked.plan_sha256, Verdict::Approve).await;
    assert!(matches!(refused, Err(Error::SecondPersonNeeded)), "{refused:?}");
}

#[tokio::test]
async fn an_invitation_ends_with_its_decision_and_when_it_is_taken_back() {
    let house = House::new().await;
    let owner = house.alone().await;
    let by = Authority::of_staff(&owner);
    let mut db = house.conn().await;
    let asked = house.ask("R-1", 1, &by).await;
    let (link, secret) = house.invite(&asked, &mail("ravi@example.com"), &by).await.expect("invited");
    let proof = house.enter(&secret).await;
    revoke_invitation(&mut db, asked.approval_id, link.link_id, &house.by(&by)).await.expect("revoked");
    let told = house.told_of(asked.approval_id).await;
    assert_eq!(told, ["people.approval_asked", "people.approver_invited", "people.approver_uninvited"]);
    let refused = house.vote((&secret, &proof), &asked.plan_sha256, Verdict::Approve).await;
    assert!(matches!(refused, Err(Error::Link(links::Error::NoSuchLink))), "{refused:?}");

    let (_, secret) = house.invite(&asked, &mail("ravi@example.com"), &by).await.expect("invited anew");
    let proof = house.enter(&secret).await;
    withdraw(&mut db, asked.approval_id, &house.by(&by)).await.expect("withdrawn");
    let refused = house.vote((&secret, &proof), &asked.plan_sha256, Verdict::Approve).await;
    assert!(matches!(refused, Err(Error::Link(links::Error::NoSuchLink))), "{refused:?}");
    let kept: i64 = sqlx::query_scalar("select count(*) from muneem.people_links where contact_sealed is not null")
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
    assert_eq!(kept, 0, "whom an unused link was for is forgotten");
    let other = house.ask("R-2", 1, &by).await;
    let refused = revoke_invitation(&mut db, other.approval_id, link.link_id, &house.by(&by)).await;
    assert!(matches!(refused, Err(Error::Link(links::Error::NoSuchLink))), "of another decision: {refused:?}");
    assert_eq!(list_invited(&mut db, asked.approval_id, &by).await.expect("listed").len(), 2);
}

#[tokio::test]
async fn atk_063_a_swapped_summary_is_not_shown_outside_either() {
    let house = House::new().await;
    let owner = house.alone().await;
    let by = Authority::of_staff(&owner);
    let (asked, other) = (house.ask("R-1", 1, &by).await, house.ask("R-2", 1, &by).await);
    let (_, secret) = house.invite(&asked, &mail("ravi@example.com"), &by).await.expect("invited");
    let proof = house.enter(&secret).await;
    sqlx::query(
        "update muneem.people_approvals a set summary_sealed = o.summary_sealed
         from muneem.people_approvals o where a.approval_id = $1 and o.approval_id = $2",
    )
    .bind(asked.approval_id.0)
    .bind(other.approval_id.0)
    .execute(&house.pool)
    .await
    .expect("swapped");
    let operator = Authority::operator();
    let mut tx = house.pool.begin().await.expect("begun");
    let followed = Followed { secret: &secret, proof: &proof };
    let shown = show_outside(&mut tx, &house.vault, followed, &house.by(&operator)).await;
    assert!(matches!(shown, Err(Error::Swapped(_))), "{shown:?}");
    tx.rollback().await.expect("left");
    let yes = house.vote((&secret, &proof), &asked.plan_sha256, Verdict::Approve).await;
    assert!(matches!(yes, Err(Error::Swapped(_))), "{yes:?}");
    assert!(!house.told_of(asked.approval_id).await.contains(&"people.approval_shown".to_owned()));
}
