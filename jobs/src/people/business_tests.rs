use super::*;
use crate::people::{Role, testing::House};

const GSTIN: &str = "27AAPFU0939F1ZV";

fn everything() -> Changes {
    Changes {
        legal_name: Some(" Sharma Mobiles Private Limited ".to_owned()),
        gstin: Some(Some(GSTIN.to_lowercase())),
        language: Some("hi".to_owned()),
        contact_name: Some(Some("Asha Verma".to_owned())),
        contact_phone: Some(Some("98000 00007".to_owned())),
        contact_email: Some(Some("Asha@Example.in".to_owned())),
        whatsapp_account_id: Some(Some("500600".to_owned())),
        mail_from: Some(Some("bills@sharma.example.in".to_owned())),
        plan: Some(Plan::Standard),
        second_factor_wanted: None,
    }
}

impl House {
    async fn set(&self, changes: &Changes, by: &Authority) -> Result<Profile, Error> {
        change_business(&mut *self.conn().await, &self.vault, self.shop, changes, &self.by(by)).await
    }
}

#[tokio::test]
async fn a_profile_is_set_field_by_field_and_shown_in_hints() {
    let house = House::new().await;
    let operator = Authority::operator();
    let profile = house.set(&everything(), &operator).await.expect("set");
    let mut shown = serde_json::to_value(&profile).expect("JSON");
    for field in ["business_id", "created_at"] {
        shown[field] = format!("[{field}]").into();
    }
    insta::assert_json_snapshot!("profile", shown);
    let mut db = house.conn().await;
    assert_eq!(load_profile(&mut db, &house.vault, house.shop, &operator).await.expect("loaded"), profile);
    let known = find_businesses_by_gstin(&mut db, &house.vault, GSTIN).await.expect("looked up");
    assert_eq!(known, [house.shop]);

    let less = Changes { contact_phone: Some(None), gstin: Some(None), ..Changes::default() };
    let after = house.set(&less, &operator).await.expect("emptied");
    assert_eq!((&after.gstin, &after.contact_phone), (&None, &None));
    assert_eq!((&after.contact_name, after.plan), (&profile.contact_name, Plan::Standard), "the rest stays");
    assert!(find_businesses_by_gstin(&mut db, &house.vault, GSTIN).await.expect("looked up").is_empty());
    let told = house.evidence().await;
    let changed: Vec<_> = told.iter().filter(|event| event["verb"] == "people.business_changed").collect();
    assert_eq!(changed[1]["details"]["fields"], json!(["gstin", "contact_phone"]));
    let row: String = sqlx::query_scalar(
        "select b::text || encode(contact_name_sealed, 'escape') || encode(contact_email_sealed, 'escape')
         from muneem.people_businesses b where business_id = $1",
    )
    .bind(house.shop.0)
    .fetch_one(&house.db.pool())
    .await
    .expect("a row");
    for canary in ["Asha", "asha", "98000", GSTIN] {
        assert!(!row.contains(canary) && !serde_json::to_string(&told).expect("JSON").contains(canary), "{canary}");
    }
}

#[tokio::test]
async fn a_business_is_stricter_than_its_plan_and_never_laxer() {
    let house = House::new().await;
    let operator = Authority::operator();
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let set = async |changes: Changes, by: &Authority| house.set(&changes, by).await;
    let wish = |wanted| Changes { second_factor_wanted: Some(wanted), ..Changes::default() };
    let plan = |plan| Changes { plan: Some(plan), ..Changes::default() };

    let basic = set(wish(false), &owner).await.expect("set");
    assert!(!basic.second_factor_required && basic.recovery_point_minutes == 24 * 60);
    assert!(set(wish(true), &owner).await.expect("set").second_factor_required);
    let standard = set(plan(Plan::Standard), &operator).await.expect("set");
    assert!(standard.second_factor_required);
    assert!(set(wish(false), &owner).await.expect("set").second_factor_required, "its plan demands one");
    assert_eq!(set(plan(Plan::Premium), &operator).await.expect("set").recovery_point_minutes, 60);
    let refused = set(plan(Plan::Basic), &owner).await;
    assert!(matches!(refused, Err(Error::PlanNotYours)), "what it pays for is not its own to set: {refused:?}");
    for (less, more) in Plan::ALL.into_iter().zip(Plan::ALL.into_iter().skip(1)) {
        assert!(more.recovery_point() <= less.recovery_point());
        assert!(more.demands_second_factor() >= less.demands_second_factor());
    }
}

#[tokio::test]
async fn each_bad_field_is_named_and_its_value_is_not() {
    let house = House::new().await;
    let operator = Authority::operator();
    let some = |text: &str| Some(Some(text.to_owned()));
    for (changes, field, value) in [
        (Changes { gstin: some("27AAPFU0939F1ZW"), ..Changes::default() }, "gstin", "0939"),
        (Changes { language: Some("Hindi".to_owned()), ..Changes::default() }, "language", "Hindi"),
        (Changes { contact_name: some("\u{7}Asha"), ..Changes::default() }, "contact_name", "Asha"),
        (Changes { contact_phone: some("98000 0000O"), ..Changes::default() }, "contact_phone", "98000"),
        (Changes { contact_email: some("asha at home"), ..Changes::default() }, "contact_email", "at home"),
        (Changes { mail_from: some("a@b"), ..Changes::default() }, "mail_from", "a@b"),
        (Changes { whatsapp_account_id: some("x1"), ..Changes::default() }, "whatsapp_account_id", "x1"),
    ] {
        let error = house.set(&changes, &operator).await.expect_err(field);
        let told = error.to_string();
        assert!(matches!(&error, Error::BadField { field: named, .. } if *named == field), "{told}");
        assert!(!told.contains(value), "{told}");
    }
    let nobody = Changes { legal_name: Some(" ".to_owned()), ..Changes::default() };
    assert!(matches!(house.set(&nobody, &operator).await, Err(Error::EmptyLegalName)));
    let clerk = Authority::of_staff(&house.staff(1, &[Role::CounterStaff]).await);
    let refused = house.set(&everything(), &clerk).await;
    assert!(matches!(refused, Err(Error::MissingScope(Scope::BusinessWrite))), "{refused:?}");
    let stranger = Authority::of_staff(&house.stranger(2, Some(house.other), &[Role::Owner]).await);
    let refused = house.set(&Changes::default(), &stranger).await;
    assert!(matches!(refused, Err(Error::NoSuchBusiness(_))), "{refused:?}");
}
