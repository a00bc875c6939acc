//! Tokens, approvals and support in a real browser, over the built binary: every page in its states, at both widths.

use std::{path::Path, sync::Arc};

use chrono::TimeDelta;
use muneem::outbound::{chance::OsChance, clock::SystemClock};
use muneem_jobs::{
    outbound::Clock,
    people::{
        Authority, ContactKind, Decision, Enrolment, Presented, Role, Staff, StaffId,
        approval::{self, Approval, Ask, Kind, Line, Plan, Subject},
        authenticate, enrol_staff, find_active_staff, load_business, mark_verified,
        support::{self, GrantId},
    },
    vault::Vault,
};
use muneem_tests::browser::{Chromium, Tab};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::console::{House, PASSWORD, picture};

/// What a duty does behind the console: asks for decisions, and lets support enter.
struct Behind {
    db: PgPool,
    vault: Vault,
}

fn plan(rows: &str) -> Plan {
    let lines = [
        ("Asked", "Erasure, by the person herself"),
        ("Person", "A… V…, …10, a…@example.in"),
        ("Records that go", rows),
        ("Records that stay", "3 invoices until 31 December 2034, for section 36 of the CGST Act 2017"),
        ("Where", "shop.customers, shop.orders, shop.addresses, shop.reviews_of_products_with_a_long_name"),
    ];
    let line = |(label, value): (&str, &str)| Line { label: label.to_owned(), value: value.to_owned() };
    Plan { content: json!({ "rows": rows }), summary: lines.map(line).to_vec() }
}

impl Behind {
    async fn of(house: &House) -> Self {
        let (clock, chance) = (Arc::new(SystemClock), Arc::new(OsChance));
        let db = house.db.app_pool();
        Self { vault: Vault::with_root(&db, &[7; 32].into(), clock, chance), db }
    }

    async fn ask(&self, id: &str, by: &Authority, needed: i16) -> Approval {
        let mut db = self.db.acquire().await.unwrap();
        let business = load_business(&mut db, "sharma-mobiles").await.unwrap().business_id;
        let decision = Decision { by, now: SystemClock.now(), chance: &OsChance };
        let ask = Ask {
            subject: Subject { business_id: Some(business), kind: Kind::RightsPlan, id },
            plan: &plan("1,204 in 7 tables"),
            approvers_needed: needed,
            expires_at: SystemClock.now() + TimeDelta::days(2),
        };
        approval::ask(&mut db, &self.vault, &ask, &decision).await.unwrap()
    }

    async fn owner(&self) -> Staff {
        let id = sqlx::query_scalar("select staff_id from muneem.people_staff where business_id is not null");
        let id = StaffId(id.fetch_one(&self.db).await.unwrap());
        let mut db = self.db.acquire().await.unwrap();
        mark_verified(&mut db, id, ContactKind::Email, SystemClock.now()).await.unwrap();
        find_active_staff(&mut db, id).await.unwrap().unwrap()
    }

    async fn of_support(&self) -> Staff {
        let operator = Authority::operator();
        let decision = Decision { by: &operator, now: SystemClock.now(), chance: &OsChance };
        let person = Enrolment {
            business_id: None,
            name: "Kiran Deshpande".to_owned(),
            language: "en".to_owned(),
            phone: None,
            email: Some("kiran@example.com".to_owned()),
            roles: vec![Role::Support],
        };
        enrol_staff(&mut self.db.acquire().await.unwrap(), &self.vault, &person, &decision).await.unwrap()
    }

    /// Somebody of support comes in by the grant and looks at two things.
    async fn look(&self, grant: GrantId, staff: &Staff) {
        let operator = Authority::operator();
        let decision = Decision { by: &operator, now: SystemClock.now(), chance: &OsChance };
        let mut db = self.db.acquire().await.unwrap();
        let (_, bearer) = support::open_token(&mut db, grant, staff.staff_id, &decision).await.unwrap();
        let presented = Presented::parse(bearer.expose_secret()).unwrap();
        let caller = authenticate(&mut db, &presented, None, SystemClock.now()).await.unwrap();
        for route in ["/v1/invoice/invoices/{id}", "/v1/messaging/messages"] {
            let look = ("GET", route);
            support::note_look(&mut db, (&caller, grant), look, SystemClock.now(), &OsChance).await.unwrap();
        }
    }
}

async fn go(chromium: &mut Chromium, tab: &Tab, house: &House, path: &str, name: &str) {
    chromium.go(tab, &format!("{}{path}", house.origin)).await;
    picture(chromium, tab, name).await;
}

async fn text(chromium: &mut Chromium, tab: &Tab, part: &str) -> String {
    let found = chromium.eval(tab, &format!("document.querySelector({}).textContent", Value::from(part))).await;
    found.as_str().unwrap_or_else(|| panic!("no {part}")).to_owned()
}

const SAID: &str = "document.readyState === 'complete' && document.querySelector('[role=alert]') !== null";

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_makes_tokens_decides_and_lets_support_in() {
    let house = House::open().await;
    let Some(mut chromium) = Chromium::start(house.home.path()).await else { return };
    let tab = chromium.open().await;
    chromium.go(&tab, &house.link()).await;
    for (field, text) in [
        ("#business_name", "Sharma Mobiles"),
        ("#name", "Asha Verma"),
        ("#who", "asha@example.in"),
        ("#password", PASSWORD),
    ] {
        chromium.write(&tab, field, text).await;
    }
    chromium.press(&tab, "main .strong").await;
    chromium.at(&tab, "/console/security").await;
    let behind = Behind::of(&house).await;
    let (owner, kiran) = (behind.owner().await, behind.of_support().await);

    tokens(&mut chromium, &tab, &house).await;
    approvals(&mut chromium, &tab, (&house, &behind, &owner)).await;
    let_support_in(&mut chromium, &tab, (&house, &behind, &kiran)).await;
    assert_eq!(chromium.complaints, Vec::<String>::new(), "violations of the policy, or exceptions");
}

async fn tokens(chromium: &mut Chromium, tab: &Tab, house: &House) {
    go(chromium, tab, house, "/console/tokens", "tokens-empty").await;
    chromium.press(tab, "main a.strong").await;
    chromium.at(tab, "/console/tokens/new").await;
    picture(chromium, tab, "token-new").await;
    chromium.write(tab, "#name", "Checkout page of the shop").await;
    chromium.write(tab, "#networks", "203.0.113.0/24\n2001:db8:85a3::8a2e:370:7334").await;
    chromium.press(tab, "main .strong").await;
    chromium.wait(tab, SAID).await;
    picture(chromium, tab, "token-new-problem").await;
    for scope in ["queue:read", "queue:write", "invoice:read", "invoice:open"] {
        chromium.eval(tab, &format!("document.querySelector('input[value=\"{scope}\"]').click()")).await;
    }
    chromium.press(tab, "main .strong").await;
    chromium.at(tab, "/console/tokens/made").await;
    picture(chromium, tab, "token-made").await;
    let token = text(chromium, tab, ".secret").await;
    assert!(Presented::parse(&token).is_some());
    chromium.go(tab, &format!("{}/console/tokens/made", house.origin)).await;
    chromium.at(tab, "/console/tokens").await;
    assert!(!text(chromium, tab, "body").await.contains(&token));
    picture(chromium, tab, "tokens").await;
    chromium.press(tab, "a[href$='/revoke']").await;
    chromium.wait(tab, "document.querySelector('.danger') !== null && document.readyState === 'complete'").await;
    picture(chromium, tab, "token-revoke").await;
    chromium.press(tab, ".danger").await;
    chromium.at(tab, "/console/tokens").await;
    picture(chromium, tab, "tokens-ended").await;
}

async fn approvals(chromium: &mut Chromium, tab: &Tab, (house, behind, owner): (&House, &Behind, &Staff)) {
    go(chromium, tab, house, "/console/approvals", "approvals-empty").await;
    let operator = Authority::operator();
    let first = behind.ask("R-2026-000123", &operator, 1).await;
    let second = behind.ask("R-2026-000124", &operator, 2).await;
    let third = behind.ask("R-2026-000125", &operator, 1).await;
    let own = behind.ask("R-2026-000126", &Authority::of_staff(owner), 1).await;
    let there = |approval: &Approval| format!("/console/approvals/{}", approval.approval_id);
    go(chromium, tab, house, "/console", "home-waiting").await;
    go(chromium, tab, house, &there(&first), "approval").await;
    assert!(text(chromium, tab, "main").await.contains(&first.plan_sha256.short()));
    chromium.write(tab, "#word", "yes").await;
    chromium.press(tab, "form[action$='/approve'] button").await;
    chromium.wait(tab, SAID).await;
    picture(chromium, tab, "approval-problem").await;
    chromium.write(tab, "#word", "approve").await;
    chromium.press(tab, "form[action$='/approve'] button").await;
    chromium.at(tab, &there(&first)).await;
    assert!(text(chromium, tab, "main").await.contains("1 of 1 says yes"));
    picture(chromium, tab, "approval-given").await;

    // What she asked for herself, and nobody else of the business may say yes to.
    go(chromium, tab, house, &there(&own), "approval-alone").await;
    chromium.press(tab, "a[href$='/invite']").await;
    chromium.at(tab, &format!("{}/invite", there(&own))).await;
    picture(chromium, tab, "approval-invite").await;
    chromium.write(tab, "#who", "meera@example.org").await;
    chromium.press(tab, "main .strong").await;
    chromium.at(tab, &there(&own)).await;
    picture(chromium, tab, "approval-invited").await;

    // The plan changes between look and click.
    chromium.go(tab, &format!("{}{}", house.origin, there(&second))).await;
    let decision = Decision { by: &operator, now: SystemClock.now(), chance: &OsChance };
    let (mut db, wider) = (behind.db.acquire().await.unwrap(), plan("9,999 in 12 tables"));
    approval::change_plan(&mut db, &behind.vault, second.approval_id, &wider, &decision).await.unwrap();
    chromium.write(tab, "#word", "approve").await;
    chromium.press(tab, "form[action$='/approve'] button").await;
    chromium.wait(tab, "document.readyState === 'complete' && document.title.includes('changed')").await;
    picture(chromium, tab, "approval-changed").await;
    chromium.press(tab, "main a.button").await;
    chromium.at(tab, &there(&second)).await;
    assert!(text(chromium, tab, "main").await.contains("9,999 in 12 tables"));

    chromium.go(tab, &format!("{}{}", house.origin, there(&third))).await;
    chromium.eval(tab, "document.querySelector('details').open = true").await;
    picture(chromium, tab, "approval-deny").await;
    chromium.eval(tab, "document.querySelector('input[value=too_much]').click()").await;
    chromium.press(tab, "form[action$='/deny'] button").await;
    chromium.at(tab, &there(&third)).await;
    picture(chromium, tab, "approval-denied").await;
    go(chromium, tab, house, "/console/approvals", "approvals").await;
}

async fn let_support_in(chromium: &mut Chromium, tab: &Tab, (house, behind, kiran): (&House, &Behind, &Staff)) {
    go(chromium, tab, house, "/console/support", "support-empty").await;
    chromium.press(tab, "main a.strong").await;
    chromium.at(tab, "/console/support/new").await;
    chromium.write(tab, "#reason", "   ").await;
    chromium.press(tab, "main .strong").await;
    chromium.wait(tab, SAID).await;
    picture(chromium, tab, "support-new-problem").await;
    chromium.write(tab, "#reason", "Bills of yesterday evening do not go out, and nobody knows why.").await;
    chromium.eval(tab, &format!("document.querySelector('#person').value = '{}'", kiran.staff_id)).await;
    chromium.press(tab, "main .strong").await;
    chromium.wait(tab, "document.readyState === 'complete' && document.querySelector('.danger') !== null").await;
    picture(chromium, tab, "support-grant-new").await;
    let path = chromium.eval(tab, "location.pathname").await;
    let path = path.as_str().unwrap().to_owned();
    let grant: GrantId = Path::new(&path).file_name().unwrap().to_str().unwrap().parse().unwrap();
    behind.look(grant, kiran).await;
    // The log numbers what happened a moment later.
    let begun = std::time::Instant::now();
    loop {
        chromium.go(tab, &format!("{}{path}", house.origin)).await;
        if text(chromium, tab, "main").await.contains("/v1/messaging/messages") {
            break;
        }
        assert!(begun.elapsed() < muneem_tests::PATIENCE, "the look is not shown");
    }
    picture(chromium, tab, "support-grant").await;
    go(chromium, tab, house, "/console", "home-support").await;
    go(chromium, tab, house, "/console/support", "support").await;
    chromium.press(tab, ".danger").await;
    chromium.at(tab, &path).await;
    picture(chromium, tab, "support-ended").await;
    assert!(!text(chromium, tab, "body").await.contains("Support is let in until"));
    go(chromium, tab, house, "/console/support", "support-past").await;
}
