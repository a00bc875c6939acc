//! Consents and suppressions on a real database, of two businesses.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use muneem_postgres::testing::TestDb;
use sqlx::{Postgres, Transaction};

use super::*;
use crate::{
    MIGRATOR,
    evidence::By,
    outbound::{Chance, Clock, Email, Phone},
    people::{BusinessId, add_business, enter_business},
    queue,
    vault::Vault,
};

/// Noon of the day of these tests.
pub(in crate::messaging) fn noon() -> DateTime<Utc> {
    "2026-11-23T06:30:00Z".parse().expect("an instant")
}

pub(in crate::messaging) struct Noon;

impl Clock for Noon {
    fn now(&self) -> DateTime<Utc> {
        noon()
    }
}

/// Counts, so that ids and codes differ.
#[derive(Default)]
pub(in crate::messaging) struct Counting(AtomicU64);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        for (byte, part) in bytes.iter_mut().rev().zip(count.iter().rev().cycle()) {
            *byte = *part;
        }
    }
}

/// Two shops that share a customer.
pub(in crate::messaging) struct Shops {
    pub(in crate::messaging) db: TestDb,
    pub(in crate::messaging) vault: Arc<Vault>,
    pub(in crate::messaging) chance: Arc<Counting>,
    pub(in crate::messaging) sharma: BusinessId,
    pub(in crate::messaging) verma: BusinessId,
}

impl Shops {
    pub(in crate::messaging) async fn open() -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        let chance = Arc::new(Counting::default());
        let mut conn = db.pool().acquire().await.expect("a connection");
        queue::sync_kinds(&mut conn, &crate::kinds()).await.expect("kinds");
        let mut shops = Vec::new();
        for handle in ["sharma-mobiles", "verma-phones"] {
            let shop = add_business(&mut conn, handle, "Sharma Mobiles", &Noon, &*chance).await.expect("a shop");
            shops.push(shop.business_id);
        }
        drop(conn);
        let vault = Arc::new(crate::vault::tests::vault(&db));
        Self { vault, chance, sharma: shops[0], verma: shops[1], db }
    }

    /// Behind the wall of a business.
    pub(in crate::messaging) async fn of(&self, business: BusinessId) -> Transaction<'static, Postgres> {
        let mut tx = self.db.app_pool().begin().await.expect("a transaction");
        enter_business(&mut tx, business).await.expect("entered");
        tx
    }

    pub(in crate::messaging) fn by(&self, now: DateTime<Utc>) -> By<'_> {
        By::token("0011223344556677", now, &*self.chance)
    }

    /// How many events of this name there are.
    pub(in crate::messaging) async fn told(&self, verb: &str) -> i64 {
        sqlx::query_scalar(
            "select count(*) from muneem.evidence_events where convert_from(body, 'UTF8')::jsonb ->> 'verb' = $1",
        )
        .bind(verb)
        .fetch_one(&self.db.pool())
        .await
        .expect("counted")
    }

    async fn record(&self, business: BusinessId, to: &Contact, new: &NewConsent<'_>) -> Result<Recorded, Error> {
        let mut tx = self.of(business).await;
        let recorded = record(&mut tx, &self.vault, &self.by(noon()), business, (to, new)).await?;
        tx.commit().await.expect("committed");
        Ok(recorded)
    }

    async fn suppress(&self, to: &Contact, new: &NewSuppression<'_>) -> Result<bool, Error> {
        let mut tx = self.of(self.sharma).await;
        let done = suppress(&mut tx, &self.vault, &self.by(noon()), self.sharma, (to, new)).await?;
        tx.commit().await.expect("committed");
        Ok(done.1)
    }

    pub(in crate::messaging) async fn erase(&self, to: &Contact) {
        let mut tx = self.of(self.sharma).await;
        erase(&mut tx, &self.vault, &self.by(noon()), self.sharma, to).await.expect("erased");
        tx.commit().await.expect("committed");
    }

    pub(in crate::messaging) async fn judged(&self, business: BusinessId, to: &Contact, class: Class) -> Verdict {
        self.judged_at(business, (to, &[]), (class, Channel::Whatsapp), noon()).await
    }

    pub(in crate::messaging) async fn judged_at(
        &self,
        business: BusinessId,
        (to, others): (&Contact, &[Contact]),
        (class, channel): (Class, Channel),
        now: DateTime<Utc>,
    ) -> Verdict {
        let question = Question { class, purpose: "marketing.offers", channel, last_way: false };
        let item = Item { to, others, question };
        judge(&mut *self.of(business).await, &self.vault, business, &item, now).await.expect("judged")
    }
}

pub(in crate::messaging) fn phone(ending: u32) -> Contact {
    Contact::Phone(Phone::parse(&format!("+9198123{ending:05}")).expect("a phone"))
}

pub(in crate::messaging) fn mail(text: &str) -> Contact {
    Contact::Email(Email::parse(text).expect("an address"))
}

pub(in crate::messaging) fn given(at: DateTime<Utc>) -> NewConsent<'static> {
    NewConsent {
        purpose: "marketing.offers",
        state: ConsentState::Given,
        source: Source::WebForm,
        wording_version: Some("offers-v3"),
        language: Some("hi"),
        proof: Some("form 12 of Asha Verma"),
        at,
    }
}

fn no(scope: Scope, cause: Cause, at: DateTime<Utc>) -> NewSuppression<'static> {
    NewSuppression { scope, channel: Some(Channel::Whatsapp), cause, reason: "asked_in_shop", at, until: None }
}

const NO_CONSENT: Verdict = Verdict::Skipped(Reason::NoConsent);
const WITHDRAWN: Verdict = Verdict::Skipped(Reason::Withdrawn);
const STOPPED: Verdict = Verdict::Skipped(Reason::Stopped);
const ERASED: Verdict = Verdict::Skipped(Reason::Erased);

#[tokio::test]
async fn what_somebody_said_of_a_purpose_is_kept_and_the_latest_counts() {
    let shops = Shops::open().await;
    let asha = phone(1);
    let hour = TimeDelta::hours(1);
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, NO_CONSENT);
    let first = shops.record(shops.sharma, &asha, &given(noon() - hour * 3)).await.expect("recorded");
    assert!(first.new && first.stands == ConsentState::Given);
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, Verdict::Allowed);
    // Another business knows nothing of it.
    assert_eq!(shops.judged(shops.verma, &asha, Class::Marketing).await, NO_CONSENT);
    // Again is no event; an older word that arrives late changes nothing.
    assert!(!shops.record(shops.sharma, &asha, &given(noon() - hour * 3)).await.expect("recorded").new);
    let withdrawn = NewConsent { state: ConsentState::Withdrawn, proof: None, ..given(noon() - hour) };
    assert_eq!(shops.record(shops.sharma, &asha, &withdrawn).await.expect("recorded").stands, ConsentState::Withdrawn);
    let late = shops.record(shops.sharma, &asha, &given(noon() - hour * 2)).await.expect("recorded");
    assert!(late.new && late.stands == ConsentState::Withdrawn);
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, WITHDRAWN);
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Transactional).await, Verdict::Allowed);
    assert_eq!((shops.told("messaging.consent_given").await, shops.told("messaging.consent_withdrawn").await), (2, 1));

    let mut tx = shops.of(shops.sharma).await;
    let known = history(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, &asha).await.expect("known");
    tx.commit().await.expect("committed");
    let seen: Vec<_> = known.consents.iter().map(|one| (one.state, one.proved, one.recorded_by.as_str())).collect();
    let token = "token:0011223344556677";
    assert_eq!(
        seen,
        [
            (ConsentState::Withdrawn, false, token),
            (ConsentState::Given, true, token),
            (ConsentState::Given, true, token)
        ]
    );
    assert_eq!(shops.told("messaging.wishes_shown").await, 1);
    // Neither the address nor the proof lies anywhere in clear.
    for table in ["contacts", "consents", "suppressions"] {
        let lying: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "select exists (select from muneem.messaging_{table} t where t::text ~ '98123|Asha|Verma'
                 or t::text ~ encode('Asha'::bytea, 'hex') or t::text ~ encode('98123'::bytea, 'hex'))"
        )))
        .fetch_one(&shops.db.pool())
        .await
        .expect("looked");
        assert!(!lying, "{table}");
    }
}

#[tokio::test]
async fn a_no_is_ended_by_whose_it_is_alone() {
    let shops = Shops::open().await;
    let asha = phone(1);
    let minute = TimeDelta::minutes(1);
    shops.record(shops.sharma, &asha, &given(noon() - minute * 9)).await.expect("recorded");
    assert!(shops.suppress(&asha, &no(Scope::All, Cause::Person, noon() - minute * 8)).await.expect("set"));
    assert!(!shops.suppress(&asha, &no(Scope::All, Cause::Person, noon() - minute * 8)).await.expect("again"));
    for class in [Class::Marketing, Class::Transactional, Class::Statutory] {
        assert_eq!(shops.judged(shops.sharma, &asha, class).await, STOPPED, "{class:?}");
    }
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Otp).await, Verdict::Allowed);
    // What a law demands goes another way; everything else stops there too.
    let home = mail("asha@example.in");
    let by_mail =
        |class| shops.judged_at(shops.sharma, (&home, std::slice::from_ref(&asha)), (class, Channel::Mail), noon());
    assert_eq!(by_mail(Class::Statutory).await, Verdict::Allowed);
    assert_eq!(by_mail(Class::Transactional).await, STOPPED);

    let mut tx = shops.of(shops.sharma).await;
    for cause in [Cause::Person, Cause::Preference] {
        let what = (&asha, Scope::All, cause, "we_want_to");
        let lifted = lift(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, what).await;
        assert!(matches!(lifted, Err(Error::NotYoursToLift)), "{cause:?}");
    }
    let operator = (&asha, Scope::All, Cause::Operator, "we_want_to");
    assert!(!lift(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, operator).await.expect("nothing to lift"));
    drop(tx);
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Transactional).await, STOPPED);
    // A list is not her word, an older form neither; her own later one is.
    let imported = NewConsent { source: Source::Import, ..given(noon() - minute * 2) };
    shops.record(shops.sharma, &asha, &imported).await.expect("recorded");
    shops.record(shops.sharma, &asha, &given(noon() - minute * 8 - TimeDelta::seconds(1))).await.expect("recorded");
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, STOPPED);
    shops.record(shops.sharma, &asha, &given(noon() - minute)).await.expect("recorded");
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, Verdict::Allowed);

    // What the business set, it ends, and until an instant by itself.
    let until =
        NewSuppression { until: Some(noon() + minute), ..no(Scope::Marketing, Cause::Operator, noon() - minute) };
    assert!(shops.suppress(&asha, &until).await.expect("set"));
    let later = |now| shops.judged_at(shops.sharma, (&asha, &[]), (Class::Marketing, Channel::Whatsapp), now);
    assert_eq!(later(noon()).await, Verdict::Skipped(Reason::MarketingStopped));
    assert_eq!(later(noon() + minute * 2).await, Verdict::Allowed);
    let mut tx = shops.of(shops.sharma).await;
    let operator = (&asha, Scope::Marketing, Cause::Operator, "settled");
    assert!(lift(&mut tx, &shops.vault, &shops.by(noon()), shops.sharma, operator).await.expect("lifted"));
    tx.commit().await.expect("committed");
    assert_eq!(later(noon()).await, Verdict::Allowed);
    assert_eq!(shops.told("messaging.suppression_set").await, 2);
    assert!(shops.told("messaging.suppression_lifted").await >= 2);
    // What cannot be is refused with the field named.
    for bad in [
        NewSuppression { channel: None, ..no(Scope::Channel, Cause::Operator, noon()) },
        NewSuppression { until: Some(noon() - minute), ..no(Scope::All, Cause::Operator, noon()) },
        NewSuppression { until: Some(noon() + minute), ..no(Scope::All, Cause::Person, noon()) },
        NewSuppression { reason: "Asha said so", ..no(Scope::All, Cause::Operator, noon()) },
        no(Scope::All, Cause::Operator, noon() + TimeDelta::hours(1)),
    ] {
        assert!(matches!(shops.suppress(&asha, &bad).await, Err(Error::BadField { .. })), "{bad:?}");
    }
}

#[tokio::test]
async fn atk_098_an_erased_person_is_brought_back_by_herself_alone() {
    let shops = Shops::open().await;
    let asha = phone(1);
    let hour = TimeDelta::hours(1);
    shops.record(shops.sharma, &asha, &given(noon() - hour)).await.expect("recorded");
    shops.record(shops.verma, &asha, &given(noon() - hour)).await.expect("recorded");
    shops.erase(&asha).await;
    shops.erase(&asha).await;
    for class in [Class::Marketing, Class::Transactional, Class::Statutory] {
        assert_eq!(shops.judged(shops.sharma, &asha, class).await, ERASED, "{class:?}");
    }
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Otp).await, Verdict::Allowed, "she may come back");
    assert_eq!(shops.judged(shops.verma, &asha, Class::Marketing).await, Verdict::Allowed, "of another business");
    let left: i64 = sqlx::query_scalar(
        "select (select count(*) from muneem.messaging_contacts where business_id = $1)
              + (select count(*) from muneem.messaging_consents where business_id = $1)",
    )
    .bind(shops.sharma.0)
    .fetch_one(&shops.db.pool())
    .await
    .expect("counted");
    assert_eq!(left, 0, "nothing but a keyed index");
    // Neither a list, nor staff, nor a form without proof, nor one from before.
    for back in [
        NewConsent { source: Source::Import, ..given(noon() + TimeDelta::minutes(1)) },
        NewConsent { source: Source::PhoneCall, ..given(noon() + TimeDelta::minutes(1)) },
        NewConsent { proof: None, ..given(noon() + TimeDelta::minutes(1)) },
        given(noon() - hour),
        NewConsent { state: ConsentState::Withdrawn, ..given(noon()) },
    ] {
        assert!(matches!(shops.record(shops.sharma, &asha, &back).await, Err(Error::Erased)), "{back:?}");
    }
    assert!(matches!(shops.suppress(&asha, &no(Scope::All, Cause::Operator, noon())).await, Err(Error::Erased)));
    shops.record(shops.sharma, &asha, &given(noon() + TimeDelta::minutes(1))).await.expect("she is back");
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, Verdict::Allowed);
    assert_eq!(shops.told("messaging.contact_erased").await, 2);
    // And may be erased anew.
    shops.erase(&asha).await;
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Marketing).await, ERASED);
}

#[tokio::test]
async fn thousands_are_judged_with_one_statement_as_one_by_one() {
    let shops = Shops::open().await;
    let everybody: Vec<_> = (0..2_000).map(phone).collect();
    for (at, to) in everybody.iter().enumerate().take(6) {
        shops.record(shops.sharma, to, &given(noon() - TimeDelta::hours(1))).await.expect("recorded");
        match at {
            0 => shops.erase(to).await,
            1 => drop(shops.suppress(to, &no(Scope::All, Cause::Person, noon())).await.expect("set")),
            2 => drop(shops.suppress(to, &no(Scope::Marketing, Cause::Operator, noon())).await.expect("set")),
            3 => drop(shops.suppress(to, &no(Scope::Identity, Cause::Operator, noon())).await.expect("set")),
            _ => {}
        }
    }
    let question =
        Question { class: Class::Marketing, purpose: "marketing.offers", channel: Channel::Whatsapp, last_way: false };
    let mut tx = shops.of(shops.sharma).await;
    let verdicts =
        judge_all(&mut tx, &shops.vault, shops.sharma, (&everybody, question), noon()).await.expect("judged");
    let reason = Verdict::Skipped;
    let first = [
        reason(Reason::Erased),
        reason(Reason::Stopped),
        reason(Reason::MarketingStopped),
        reason(Reason::IdentityChanged),
        Verdict::Allowed,
        Verdict::Allowed,
    ];
    assert_eq!(verdicts[..6], first);
    assert_eq!(verdicts.len(), 2_000);
    assert!(verdicts[6..].iter().all(|verdict| *verdict == NO_CONSENT));
    for (to, expected) in everybody.iter().zip(&verdicts).take(8) {
        assert_eq!(shops.judged(shops.sharma, to, Class::Marketing).await, *expected);
    }
}

#[tokio::test]
async fn a_list_of_consents_is_taken_whole_or_not_at_all() {
    let shops = Shops::open().await;
    shops.erase(&phone(1)).await;
    let minute = TimeDelta::minutes(1);
    shops.suppress(&phone(2), &no(Scope::All, Cause::Person, noon() - minute)).await.expect("set");
    let head = "phone,email,purpose,state,at,language,wording_version,proof\n";
    let row = |ending: u32| {
        format!(
            "+9198123{ending:05},,marketing.offers,given,2026-11-20T12:00:00+05:30,hi,v3,\"page 1, line {ending}\"\n"
        )
    };
    let good = [
        head.to_owned(),
        row(10),
        row(11),
        ",Asha@Example.in,marketing.offers,withdrawn,2026-11-20T06:30:00Z,,,\n".into(),
    ]
    .concat();
    let bad =
        [good.clone(), row(1), row(2), "not a phone,,marketing.offers,given,2026-11-20T06:30:00Z,hi,v3,\n".into()]
            .concat();
    let take = async |list: &str, partial: bool| {
        let mut refused = Vec::new();
        let mut conn = shops.db.app_pool().acquire().await.expect("a connection");
        let how = (shops.sharma, Import { partial });
        let by = By::operator(noon(), &*shops.chance);
        let mut tell = |row: &RefusedRow| refused.push(row.clone());
        let done = import(&mut conn, &shops.vault, &by, how, list.as_bytes(), &mut tell).await.expect("read");
        (done, refused)
    };
    let (done, refused) = take(&bad, false).await;
    assert_eq!((done.rows, done.written, done.refused, done.erased, done.stopped), (6, 0, 3, 1, 1));
    let lines: Vec<_> = refused.iter().map(|row| (row.line, row.column)).collect();
    assert_eq!(lines, [(7, Some("phone")), (5, None), (6, None)]);
    assert!(!format!("{refused:?}").contains("98123") && !format!("{refused:?}").contains("not a phone"));
    assert_eq!(shops.judged(shops.sharma, &phone(10), Class::Marketing).await, NO_CONSENT, "nothing was written");
    assert_eq!(shops.told("messaging.consents_imported").await, 0);

    let (done, refused) = take(&bad, true).await;
    assert_eq!((done.written, refused.len()), (3, 3));
    assert_eq!(done.sha256.len(), 64);
    assert_eq!(shops.judged(shops.sharma, &phone(10), Class::Marketing).await, Verdict::Allowed);
    assert_eq!(shops.judged(shops.sharma, &phone(1), Class::Marketing).await, ERASED);
    assert_eq!(shops.judged(shops.sharma, &phone(2), Class::Marketing).await, STOPPED);
    let asha = mail("asha@example.in");
    let by_mail = shops.judged_at(shops.sharma, (&asha, &[]), (Class::Marketing, Channel::Mail), noon());
    assert_eq!(by_mail.await, WITHDRAWN, "in whatever capitals");
    // Again is nothing new.
    let (done, _) = take(&good, false).await;
    assert_eq!((done.written, done.known), (0, 3));
    assert_eq!(shops.told("messaging.consents_imported").await, 2);
}

#[tokio::test]
async fn atk_035_a_list_that_is_no_list_is_refused_by_line_and_nothing_is_written() {
    let shops = Shops::open().await;
    let head = "phone,purpose,state,at,language,wording_version";
    let good = "+919812300010,marketing.offers,given,2026-11-20T06:30:00Z,hi,v3";
    let take = async |list: &[u8]| {
        let mut refused = Vec::new();
        let mut conn = shops.db.app_pool().acquire().await.expect("a connection");
        let by = By::operator(noon(), &*shops.chance);
        let how = (shops.sharma, Import { partial: false });
        let done =
            import(&mut conn, &shops.vault, &by, how, list, &mut |row: &RefusedRow| refused.push(row.clone())).await;
        (done, refused)
    };
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(head.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let wide = (0..1_000_000).map(|_| "a").collect::<Vec<_>>().join(",");
    let endless = format!("{head}\n\"{}", "x\n".repeat(2 << 20));
    for (list, why) in [
        (utf16.as_slice(), "UTF-16"),
        (wide.as_bytes(), "1 MB"),
        ([&b"a,"[..]; 201].concat().as_slice(), "200 columns"),
        (endless.as_bytes(), "1 MB"),
        (format!("{head}\n{good}\0\n").as_bytes(), "NUL"),
        (format!("{head},phone\n").as_bytes(), "twice"),
        (format!("{head},name\n").as_bytes(), "none of"),
        (&b"purpose,state,at\n"[..], "phone, email or user_id"),
        (&b""[..], "phone, email or user_id"),
    ] {
        let (done, _) = take(list).await;
        let error = done.expect_err(why).to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    let long = format!("+919812300011,marketing.offers,given,2026-11-20T06:30:00Z,hi,{}", "v".repeat(70_000));
    let rows = format!("{head}\n{good}\n{head}\n{good},x\n{long}\n");
    let mut bytes = rows.into_bytes();
    bytes.extend_from_slice(b"+919812300012,\xff,given,2026-11-20T06:30:00Z,hi,v3\n");
    let (done, refused) = take(&bytes).await;
    let done = done.expect("read");
    assert_eq!((done.rows, done.written, done.refused), (5, 0, 4), "{refused:?}");
    for (row, why) in refused.iter().zip(["repeats the header", "another number", "64 KB", "UTF-8"]) {
        assert!(row.problem.contains(why), "{row:?}");
    }
    // Marks of byte order and old line ends are not held against it.
    let mac = format!("\u{feff}{head}\r{good}\r");
    let (done, refused) = take(mac.as_bytes()).await;
    assert_eq!((done.expect("read").written, refused.len()), (1, 0));
}

#[tokio::test]
async fn one_click_unsubscribes_from_one_purpose_or_all_that_sells() {
    let shops = Shops::open().await;
    let asha = mail("asha@example.in");
    shops.record(shops.sharma, &asha, &given(noon() - TimeDelta::hours(1))).await.expect("recorded");
    let click = async |purpose: Option<&str>| {
        let mut tx = shops.of(shops.sharma).await;
        one_click(&mut tx, &shops.vault, &By::system(noon(), &*shops.chance), shops.sharma, (&asha, purpose))
            .await
            .expect("heard");
        tx.commit().await.expect("committed");
    };
    let stands = || shops.judged_at(shops.sharma, (&asha, &[]), (Class::Marketing, Channel::Mail), noon());
    click(Some("news")).await;
    assert_eq!(stands().await, Verdict::Allowed, "another purpose");
    click(Some("marketing.offers")).await;
    click(Some("marketing.offers")).await;
    assert_eq!(stands().await, WITHDRAWN);
    click(None).await;
    assert_eq!(stands().await, Verdict::Skipped(Reason::MarketingStopped));
    let bill = shops.judged_at(shops.sharma, (&asha, &[]), (Class::Transactional, Channel::Mail), noon()).await;
    assert_eq!(bill, Verdict::Allowed, "bills still come");
}

#[tokio::test]
async fn atk_079_while_index_keys_change_a_no_is_found_and_stays_one_contact() {
    let shops = Shops::open().await;
    let asha = phone(1);
    shops.suppress(&asha, &no(Scope::All, Cause::Person, noon())).await.expect("set");
    shops.erase(&phone(2)).await;
    let replace = crate::vault::Replace::Index("muneem.messaging_contacts.mark");
    let mut conn = shops.db.app_pool().acquire().await.expect("a connection");
    let replaced = shops.vault.prepare_key(&mut conn, shops.sharma, replace, crate::evidence::Actor::Operator).await;
    assert!(replaced.expect("prepared").is_some());
    drop(conn);
    // The new key takes over; what the old one indexed is not made anew yet.
    for (from, to) in [("active", "decrypt_only"), ("pending", "active")] {
        sqlx::query(
            "update muneem.vault_keys set state = $2 where purpose = 'muneem.messaging_contacts.mark' and state = $1",
        )
        .bind(from)
        .bind(to)
        .execute(&shops.db.pool())
        .await
        .expect("changed");
    }
    // Another process, which reads all keys anew.
    let vault = Arc::new(crate::vault::tests::vault(&shops.db));
    let shops = Shops { vault, ..shops };
    assert_eq!(shops.judged(shops.sharma, &asha, Class::Transactional).await, STOPPED);
    assert_eq!(shops.judged(shops.sharma, &phone(2), Class::Transactional).await, ERASED);
    shops.record(shops.sharma, &asha, &given(noon())).await.expect("recorded");
    let contacts: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_contacts")
        .fetch_one(&shops.db.pool())
        .await
        .expect("counted");
    assert_eq!(contacts, 1);
}

#[tokio::test]
async fn what_many_say_of_one_contact_at_once_makes_one_contact() {
    let shops = Arc::new(Shops::open().await);
    let asha = phone(1);
    let mut saying = tokio::task::JoinSet::new();
    for second in 0..12 {
        let (shops, asha) = (Arc::clone(&shops), asha.clone());
        saying.spawn(async move {
            let new = given(noon() - TimeDelta::seconds(second));
            shops.record(shops.sharma, &asha, &new).await.map(|recorded| recorded.contact_id)
        });
    }
    let ids: std::collections::BTreeSet<_> =
        saying.join_all().await.into_iter().map(|id| id.expect("recorded")).collect();
    assert_eq!(ids.len(), 1);
}
