//! What comes back, and whom mail comes from, on a real database.

use chrono::TimeDelta;
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::*;
use crate::{
    evidence::By,
    messaging::{
        Error,
        staff_tests::{Noon, Office},
    },
    outbound::{Algorithm, Chance, Clock, DkimKey, Email, Mail},
    people::{self, Authority, Changes, Decision, signin::Channel},
};

/// A report as a mail server writes it.
fn report(token: &str, recipient: &str, (action, status): (&str, &str)) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example.in\r\nTo: bounces@muneem.example\r\nSubject: Undelivered Mail\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=B\r\n\r\n\
         --B\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.in\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: {action}\r\nStatus: {status}\r\n\r\n\
         --B\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <{token}@muneem.example>\r\n\r\n--B--\r\n"
    )
}

impl Office {
    /// Sends Asha a code by mail; what went out.
    async fn mailed(&self) -> Mail {
        self.code(Channel::Email).await;
        self.run("messaging.send_mail").await;
        self.mails.kept().pop().expect("a mail")
    }

    async fn comes_back(&self, raw: &str) -> Kept {
        let (mut conn, deps) = (self.conn().await, &self.deps);
        let with: (&dyn Clock, &dyn Chance) = (&Noon, &*deps.chance);
        let kept = receive_report(&mut conn, &deps.vault, with, (Source::Imap, Format::Rfc822), raw.as_bytes()).await;
        kept.expect("kept or known")
    }

    async fn text(&self, sql: &'static str) -> Vec<String> {
        sqlx::query_scalar(sql).fetch_all(&mut *self.conn().await).await.expect("rows")
    }

    async fn mail_states(&self) -> Vec<String> {
        self.states().await.into_iter().map(|(_, state, _)| state).collect()
    }

    async fn reports(&self) -> Vec<String> {
        self.text(
            "select concat_ws(' ', state, kind, status, case when permanent then 'for good' end)
             from muneem.messaging_mail_reports order by report_id",
        )
        .await
    }

    async fn recorded(&self, word: &str) -> usize {
        let bodies = self.text("select convert_from(body, 'UTF8') from muneem.evidence_events").await;
        bodies.iter().filter(|body| body.contains(word)).count()
    }

    fn by(&self) -> By<'_> {
        By::operator(Noon.now(), &*self.deps.chance)
    }

    async fn identity(&self) -> Identity {
        identity_of(&mut *self.conn().await, &self.deps.vault, self.business).await.expect("an identity")
    }
}

fn email(text: &str) -> Email {
    Email::parse(text).expect("an address")
}

#[tokio::test]
async fn a_report_that_fits_is_folded_once_and_a_forged_one_never() {
    let office = Office::open("en").await;
    let mail = office.mailed().await;
    let token = mail.reference().expect("a token").to_owned();
    assert_eq!(office.mail_states().await, ["accepted"]);

    // What an attacker may know: the mail's id, and her address. And what she cannot: the token of somebody else's mail.
    for guess in
        [mail.id().to_string(), mail.id().simple().to_string(), "a".repeat(26), MailToken::of([9; 16]).expose()]
    {
        assert_eq!(office.comes_back(&report(&guess, "asha@example.in", ("failed", "5.1.1"))).await, Kept::Unmatched);
    }
    assert!(office.claim("messaging.apply_mail_report").await.is_none(), "nothing is done about them");
    // A report with a true token that names somebody else: one of whom she has her mail forwarded to.
    assert_eq!(office.comes_back(&report(&token, "b@example.in", ("failed", "5.1.1"))).await, Kept::New);
    office.run("messaging.apply_mail_report").await;
    assert_eq!(office.mail_states().await, ["accepted"]);
    assert_eq!(office.reports().await.last().map(String::as_str), Some("unfit failed 5.1.1"));
    assert_eq!(office.recorded("messaging.mail_reported").await, 0);

    let bounce = report(&token, "Asha@Example.in", ("failed", "5.1.1"));
    assert_eq!(office.comes_back(&bounce).await, Kept::New);
    assert_eq!(office.comes_back(&bounce).await, Kept::Replayed);
    let clear: i64 = sqlx::query_scalar(
        "select count(*) from muneem.messaging_mail_reports
         where body_sealed is null or position('MAILER' in encode(body_sealed, 'escape')) > 0",
    )
    .fetch_one(&mut *office.conn().await)
    .await
    .expect("counted");
    assert_eq!(clear, 4, "the forged ones lie without their words, ours sealed");
    office.run_twice("messaging.apply_mail_report", 0).await;
    assert_eq!(office.mail_states().await, ["bounced"]);
    assert_eq!(office.reports().await.last().map(String::as_str), Some("applied failed 5.1.1 for good"));
    assert_eq!(office.recorded("messaging.mail_reported").await, 1, "killed and run again, it counts once");
    assert_eq!(office.recorded("messaging.mail_report_kept").await, 6);
    assert_eq!(
        office.text("select failure from muneem.messaging_mails").await,
        ["came back (5.1.1)"],
        "and says why without naming anybody"
    );
}

#[tokio::test]
async fn a_mail_nobody_could_tell_of_arrived_after_all_and_a_complaint_changes_no_state() {
    let office = Office::open("en").await;
    office.code(Channel::Email).await;
    office.run_twice("messaging.send_mail", 1).await;
    assert_eq!(office.mail_states().await, ["unknown"]);
    let token = office.mails.kept()[0].reference().expect("a token").to_owned();
    office.comes_back(&report(&token, "asha@example.in", ("delayed", "4.4.1"))).await;
    office.run("messaging.apply_mail_report").await;
    assert_eq!(office.mail_states().await, ["unknown"]);
    office.comes_back(&report(&token, "asha@example.in", ("delivered", "2.0.0"))).await;
    office.run("messaging.apply_mail_report").await;
    assert_eq!(office.mail_states().await, ["accepted"]);
    let complaint = format!(
        "From: abuse@example.in\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=B\r\n\r\n\
         --B\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: x\r\nVersion: 1\r\n\r\n\
         --B\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <{token}@muneem.example>\r\nTo: <redacted>\r\n\r\nx\r\n--B--\r\n"
    );
    assert_eq!(office.comes_back(&complaint).await, Kept::New);
    office.run("messaging.apply_mail_report").await;
    assert_eq!(office.mail_states().await, ["accepted"]);
    assert_eq!(office.reports().await, ["applied delayed 4.4.1", "applied delivered 2.0.0", "applied complaint"]);
    assert_eq!(office.recorded("messaging.mail_reported").await, 3);
}

#[tokio::test]
async fn of_letters_and_answers_nothing_is_kept_but_that_they_came() {
    let office = Office::open("en").await;
    let token = office.mailed().await.reference().expect("a token").to_owned();
    let vacation = format!(
        "From: asha@example.in\r\nTo: bounces+{token}@x.in\r\nAuto-Submitted: auto-replied\r\nSubject: away\r\n\r\n5.1.1\r\n"
    );
    let letter =
        format!("From: asha@example.in\r\nSubject: Hi\r\nReferences: <{token}@x.in>\r\n\r\nWhere is my phone?\r\n");
    for raw in [vacation.as_str(), letter.as_str(), "\0\0", ""] {
        assert_eq!(office.comes_back(raw).await, Kept::Unmatched, "{raw}");
    }
    assert_eq!(office.reports().await, ["answer", "ignored", "ignored", "ignored"]);
    let kept = office.text("select state from muneem.messaging_mail_reports where body_sealed is not null").await;
    assert!(kept.is_empty());
    assert_eq!(office.mail_states().await, ["accepted"]);
}

#[tokio::test]
async fn each_attempt_has_a_token_of_its_own_and_the_table_holds_none() {
    let office = Office::open("en").await;
    let (first, second) = (office.mailed().await, office.mailed().await);
    assert_ne!(first.reference(), second.reference());
    let held: Vec<Vec<u8>> = sqlx::query_scalar(
        "select token_sha256 from muneem.messaging_mail_tokens union all select recipient_mark from muneem.messaging_mail_tokens",
    )
    .fetch_all(&mut *office.conn().await)
    .await
    .expect("digests");
    assert_eq!(held.len(), 4);
    assert_ne!(held[2], held[3], "the same recipient twice leaves no trace of being the same");
    let id = Uuid::from_u128(5);
    let with: (&dyn Clock, &dyn Chance) = (&Noon, &*office.deps.chance);
    let of = MailRef::Message(crate::messaging::MessageId(id), 2);
    let mut conn = office.conn().await;
    let token = issue_token(&mut conn, with, office.business, of, &email("asha@example.in")).await.expect("a token");
    drop(conn);
    office.comes_back(&report(&token.expose(), "asha@example.in", ("failed", "5.2.2"))).await;
    office.run("messaging.apply_mail_report").await;
    let told = office
        .text("select concat_ws(' ', of_kind, of_id, attempt, state, status) from muneem.messaging_mail_reports")
        .await;
    assert_eq!(told, [format!("message {id} 2 applied 5.2.2")]);
    assert_eq!(office.recorded("messaging.mail_reported").await, 1);
}

#[tokio::test]
async fn mail_comes_from_an_address_only_after_its_reader_showed_the_code() {
    let office = Office::open("en").await;
    let (vault, mut conn) = (&office.deps.vault, office.conn().await);
    let changes = Changes { contact_email: Some(Some("owner@sharma.example".to_owned())), ..Changes::default() };
    let operator = Authority::operator();
    let decision = Decision { by: &operator, now: Noon.now(), chance: &*office.deps.chance };
    people::change_business(&mut conn, vault, office.business, &changes, &decision).await.expect("changed");
    let house = office.identity().await;
    assert_eq!((house.from.is_none(), house.reply_to), (true, Some(email("owner@sharma.example"))));
    let name = house.name;

    let pem = DkimKey::generate(Algorithm::Ed25519, &*office.deps.chance).expect("a key");
    let key = |domain: &str| SigningKey { domain: domain.to_owned(), selector: "a".to_owned(), pem: pem.clone() };
    let new = |domain: Option<&str>| NewIdentity {
        from: email("bills@mail.sharma.example"),
        name: None,
        reply_to: None,
        dkim: domain.map(key),
        is_vouched_for: false,
    };
    let refused = set_identity(&mut conn, vault, office.business, &new(Some("other.example")), &office.by()).await;
    assert!(matches!(refused, Err(Error::MailIdentity(BadIdentity::Unaligned))), "{refused:?}");
    let bad = NewIdentity { name: Some("ceo@bank\r\nX: y".to_owned()), ..new(None) };
    let refused = set_identity(&mut conn, vault, office.business, &bad, &office.by()).await;
    assert!(matches!(refused, Err(Error::MailIdentity(BadIdentity::Name))), "{refused:?}");
    let set = set_identity(&mut conn, vault, office.business, &new(Some("sharma.example")), &office.by()).await;
    let set = set.expect("set");
    assert_eq!((set.from.as_str(), set.verified_at), ("b…@mail.sharma.example", None));
    assert_eq!(set.dkim_dns_name.as_deref(), Some("a._domainkey.sharma.example"));
    assert!(set.dkim_dns_record.is_some_and(|record| record.starts_with("v=DKIM1; k=ed25519; p=")));
    assert!(office.identity().await.from.is_none(), "not before the code was shown");
    let clear: i64 = sqlx::query_scalar(
        "select count(*) from muneem.messaging_mail_identities
         where position('bills' in encode(from_sealed, 'escape')) > 0
             or position('PRIVATE' in encode(dkim_key_sealed, 'escape')) > 0",
    )
    .fetch_one(&mut *conn)
    .await
    .expect("counted");
    assert_eq!(clear, 0);

    // Killed before the mail is sent, a second code goes out, and the first would be void.
    office.run_twice("messaging.verify_mail_identity", 1).await;
    let codes: Vec<String> = office.mails.kept().iter().map(code_in).collect();
    let [old, code] = codes.as_slice() else { panic!("two mails: {codes:?}") };
    assert_ne!(old, code);
    assert_eq!(office.mails.kept()[1].to(), &email("bills@mail.sharma.example"));
    let verify = async |code: &str, later: TimeDelta| {
        let by = By::operator(Noon.now() + later, &*office.deps.chance);
        verify_identity(&mut *office.conn().await, vault, office.business, code, &by).await
    };
    for wrong in [old.as_str(), "", "aaaa-bbbb-cccc"] {
        let refused = verify(wrong, TimeDelta::zero()).await;
        assert!(matches!(refused, Err(Error::MailIdentity(BadIdentity::Code))), "{refused:?}");
    }
    assert!(verify(code, TimeDelta::hours(24)).await.is_err(), "a day later");
    let verified = verify(&code.to_uppercase().replace('-', " "), TimeDelta::hours(1)).await.expect("verified");
    assert!(verified.verified_at.is_some());
    assert!(verify(code, TimeDelta::hours(1)).await.is_err(), "a code is used once");
    let own = office.identity().await;
    assert_eq!((own.from, &own.name), (Some(email("bills@mail.sharma.example")), &name));
    assert_eq!(own.reply_to, Some(email("bills@mail.sharma.example")));
    assert_eq!(own.dkim.expect("a key").dns_name(), "a._domainkey.sharma.example");

    // The same address under another name stays proved and keeps its key; another address is proved anew.
    let renamed = NewIdentity { name: Some("Sharma Bills".to_owned()), ..new(None) };
    set_identity(&mut conn, vault, office.business, &renamed, &office.by()).await.expect("set");
    let own = office.identity().await;
    assert_eq!((own.name.as_str(), own.dkim.is_some(), own.from.is_some()), ("Sharma Bills", true, true));
    let moved = NewIdentity { from: email("bills@elsewhere.example"), ..new(None) };
    let moved = set_identity(&mut conn, vault, office.business, &moved, &office.by()).await.expect("set");
    assert_eq!((moved.verified_at, moved.dkim_dns_name), (None, None), "and its key does not speak for it");
    assert!(office.identity().await.from.is_none());
    let vouched = NewIdentity { from: email("bills@elsewhere.example"), is_vouched_for: true, ..new(None) };
    set_identity(&mut conn, vault, office.business, &vouched, &office.by()).await.expect("set");
    assert!(office.identity().await.from.is_some());
    let all = list_identities(&mut conn, vault, None).await.expect("a list");
    assert_eq!(all.len(), 1);
    assert!(remove_identity(&mut conn, office.business, &office.by()).await.expect("removed"));
    assert!(!remove_identity(&mut conn, office.business, &office.by()).await.expect("nothing to remove"));
    assert!(office.identity().await.from.is_none());
    let counts = [
        office.recorded("messaging.mail_identity_set").await,
        office.recorded("messaging.mail_identity_verified").await,
        office.recorded("messaging.mail_identity_removed").await,
    ];
    assert_eq!(counts, [4, 1, 1]);
    assert!(!pem.expose_secret().is_empty());
}

#[tokio::test]
async fn ten_guesses_use_a_code_up() {
    let office = Office::open("en").await;
    let (vault, mut conn) = (&office.deps.vault, office.conn().await);
    let new = NewIdentity {
        from: email("bills@sharma.example"),
        name: None,
        reply_to: None,
        dkim: None,
        is_vouched_for: false,
    };
    set_identity(&mut conn, vault, office.business, &new, &office.by()).await.expect("set");
    office.run("messaging.verify_mail_identity").await;
    let code = code_in(&office.mails.kept()[0]);
    for _ in 0..10 {
        assert!(verify_identity(&mut conn, vault, office.business, "guess", &office.by()).await.is_err());
    }
    assert!(verify_identity(&mut conn, vault, office.business, &code, &office.by()).await.is_err());
}

fn code_in(mail: &Mail) -> String {
    let words = mail.text().split_whitespace();
    words.into_iter().find(|word| word.len() == 14 && word.matches('-').count() == 2).expect("a code").to_owned()
}
