//! Tokens, approvals and support together: who may, from where, and nothing of another business.

use muneem_jobs::people::{Authority, NewToken, Role, Scope, add_business, create_token, list_tokens};

use super::{
    approvals::APPROVALS,
    support::{SUPPORT, of_another},
    tokens::{TOKENS, form},
    *,
};

/// What is sent with a form.
type Fields = &'static [(&'static str, &'static str)];

/// What may be asked of the pages, and what it takes. No form is right: whoever may is told so, and nothing is done.
const PAGES: [(&str, &str, Fields, Scope); 11] = [
    ("GET", TOKENS, &[], Scope::TokenRead),
    ("GET", "/console/tokens/new", &[], Scope::TokenWrite),
    ("POST", TOKENS, &[("name", ""), ("life", "30"), ("scope", "queue:read")], Scope::TokenWrite),
    ("GET", "/console/tokens/0123456789abcdef/revoke", &[], Scope::TokenWrite),
    ("POST", "/console/tokens/0123456789abcdef/revoke", &[], Scope::TokenWrite),
    ("GET", APPROVALS, &[], Scope::ApprovalRead),
    ("GET", "/console/approvals/00000000-0000-0000-0000-000000000009", &[], Scope::ApprovalRead),
    ("GET", SUPPORT, &[], Scope::BusinessRead),
    ("GET", "/console/support/00000000-0000-0000-0000-000000000009", &[], Scope::BusinessRead),
    ("GET", "/console/support/new", &[], Scope::SupportGrant),
    ("POST", SUPPORT, &[("minutes", "60"), ("reason", "")], Scope::SupportGrant),
];

#[tokio::test]
async fn atk_061_every_role_at_every_page_of_access_gets_what_the_table_of_roles_says() {
    let house = House::new().await;
    for role in Role::ALL {
        let business = Some(house.sharma).filter(|business| role.fits(Some(*business)));
        let email = format!("{role}@example.in");
        let staff = house.join(business, "Somebody", &email, role).await;
        house.give_password(&staff).await;
        let mut browser = house.browser();
        browser.sign_in(&email, PASSWORD).await;
        if business.is_none() {
            browser.set_up_totp().await;
        }
        let scopes = staff.scopes();
        let home = browser.get("/console").await.body;
        for (method, path, fields, scope) in PAGES {
            let answer = if method == "GET" { browser.get(path).await } else { browser.post(path, fields).await };
            let refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(refused, !scopes.contains(&scope), "{role} {method} {path}: {} {}", answer.status, answer.body);
            let usual = [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::UNPROCESSABLE_ENTITY];
            assert!(refused || usual.contains(&answer.status), "{role} {method} {path}: {answer:?}");
            if [TOKENS, APPROVALS, SUPPORT].contains(&path) && method == "GET" {
                assert_eq!(home.contains(&format!("href=\"{path}\"")), !refused, "{role} is led to {path}");
            }
        }
    }
    assert_eq!(house.recorded("people.token_made").await + house.recorded("people.support_granted").await, 0);
}

#[tokio::test]
async fn atk_055_only_our_own_forms_change_tokens_approvals_and_support() {
    let house = House::new().await;
    let (_, mut meera) = house.colleague("Meera", "meera@example.in", Role::Approver).await;
    let mut asha = house.signed_in().await;
    let owner = Authority::of_staff(&house.asha);
    let new = NewToken { business_id: Some(house.sharma), label: "till".to_owned(), ..NewToken::bootstrap() };
    let mut db = house.conn().await;
    let (token, _) = create_token(&mut db, new, &*house.console.clock, &OsChance).await.expect("made");
    let (asked, grant) = (house.asked(house.sharma, &owner, "R-1").await, house.let_in(&owner).await);
    let seen = asked.plan_sha256.to_string();
    let decision = format!("{APPROVALS}/{}", asked.approval_id);
    let yes: &[(&str, &str)] = &[("seen", &seen), ("word", "approve")];
    let elsewhere = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
    for (path, fields) in [
        (TOKENS.to_owned(), &*form("evil")),
        (format!("{TOKENS}/{}/revoke", token.public_id), &[][..]),
        (format!("{decision}/withdraw"), &[][..]),
        (format!("{decision}/take-back"), &[][..]),
        (SUPPORT.to_owned(), &[("minutes", "60"), ("reason", "why")][..]),
        (format!("{SUPPORT}/{}/end", grant.grant_id), &[][..]),
    ] {
        assert_eq!(asha.post_with(&path, fields, &elsewhere).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    for (path, fields) in [
        (format!("{decision}/approve"), yes),
        (format!("{decision}/deny"), &[("seen", &*seen), ("reason", "wrong")][..]),
    ] {
        assert_eq!(meera.post_with(&path, fields, &elsewhere).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    for verb in ["people.token_revoked", "people.approval_withdrawn", "people.approval_given", "people.support_ended"] {
        assert_eq!(house.recorded(verb).await, 0, "{verb}");
    }
    assert_eq!((house.recorded("people.token_made").await, house.recorded("people.support_granted").await), (1, 1));
}

#[tokio::test]
async fn atk_059_tokens_approvals_and_support_of_another_business_are_not_there_on_the_page() {
    let house = House::new().await;
    let mut db = house.conn().await;
    let kaveri = add_business(&mut db, "kaveri-retail", "Kaveri Retail", &*house.console.clock, &OsChance).await;
    let kaveri = kaveri.expect("a shop").business_id;
    let meena = house.join(Some(kaveri), "Meena", "meena@example.in", Role::Owner).await;
    let owner = Authority::of_staff(&meena);
    let new = NewToken { business_id: Some(kaveri), label: "kaveri till".to_owned(), ..NewToken::bootstrap() };
    let (token, _) = create_token(&mut db, new, &*house.console.clock, &OsChance).await.expect("made");
    let asked = house.asked(kaveri, &owner, "R-9").await;
    let grant = of_another(&house, &owner, kaveri).await;

    let mut asha = house.signed_in().await;
    for (page, hidden) in [
        (TOKENS, "kaveri till".to_owned()),
        (APPROVALS, "R-9".to_owned()),
        (SUPPORT, grant.grant_id.to_string()),
        ("/console", "Support is let in".to_owned()),
    ] {
        assert!(!asha.get(page).await.body.contains(&hidden), "{page}");
    }
    let (decision, support) = (format!("{APPROVALS}/{}", asked.approval_id), format!("{SUPPORT}/{}", grant.grant_id));
    let revoke = format!("{TOKENS}/{}/revoke", token.public_id);
    for path in [&revoke, &decision, &support] {
        assert_eq!(asha.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let seen = asked.plan_sha256.to_string();
    for (path, fields) in [
        (revoke, &[][..]),
        (format!("{decision}/approve"), &[("seen", &*seen), ("word", "approve")][..]),
        (format!("{decision}/deny"), &[("seen", &*seen), ("reason", "wrong")][..]),
        (format!("{decision}/take-back"), &[][..]),
        (format!("{decision}/withdraw"), &[][..]),
        (format!("{support}/end"), &[][..]),
    ] {
        let answer = asha.post(&path, fields).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {}", answer.body);
    }
    // Nor does a form name another's person to hold a token.
    let holder = meena.staff_id.to_string();
    let fields = [("name", "x"), ("life", "30"), ("holder", &*holder), ("scope", "queue:read")];
    assert_eq!(asha.post(TOKENS, &fields).await.status, StatusCode::NOT_FOUND);
    let mut db = house.conn().await;
    assert!(list_tokens(&mut db).await.expect("listed").iter().all(|one| one.is_usable(house.now())));
    assert_eq!(house.recorded("people.support_ended").await, 0);
}
