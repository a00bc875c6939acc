//! Ways: what does not reach somebody by one goes by the next, once; and what people write is answered.

use muneem_jobs::{
    messaging::{
        Choice, FallBackDue, Free, MessageClass, Named, QuietHours, Recipient,
        campaign::{self, NewCampaign, NewPerson},
        mail::{Format, Source, find_leaving, leave, receive_report},
        template,
        wishes::{self, Cause, Channel, Contact, NewSuppression, Scope},
    },
    outbound::Email,
};

use super::*;

const HER_MAIL: &str = "asha@example.in";

fn email() -> Email {
    Email::parse(HER_MAIL).expect("an address")
}

fn phone(text: &str) -> Phone {
    Phone::parse(text).expect("a mobile")
}

/// Asha, by WhatsApp and then by mail.
fn both() -> Recipient {
    Recipient::from(phone(ASHA)).or(email())
}

/// Words of a folder, filled with its own examples.
fn named(folder: &str) -> Content {
    let parameters = template::library().find(folder, Language::En).expect("shipped").examples();
    Content::Named(Named { template: folder.to_owned(), parameters })
}

impl Shop {
    async fn ask(&self, new: &NewMessage) -> Result<MessageId, messaging::Error> {
        let mut tx = self.deps.db.begin().await.expect("a transaction");
        let by = By::operator(self.clock.now(), &OsChance);
        let asked = messaging::ask(&mut tx, &self.deps.vault, new, &by).await;
        tx.commit().await.expect("committed");
        asked
    }

    /// Her bill, by WhatsApp and then by mail.
    async fn bill(&self, policy: Policy) -> MessageId {
        let stored = self.put_pdf().await;
        let document = Document { digest: stored.digest, filename: "INV-1042.pdf".into() };
        let new =
            NewMessage::new(self.business, both(), (named("tax_invoice"), Language::En), (policy, "invoice.issued"));
        self.ask(&NewMessage { document: Some(document), ..new }).await.expect("a message")
    }

    async fn order(&self, to: impl Into<Recipient>, policy: Policy) -> MessageId {
        let words = (named("order_ready"), Language::En);
        self.ask(&NewMessage::new(self.business, to, words, (policy, "shop.order_ready"))).await.expect("a message")
    }

    /// Every minute this runs.
    async fn look_at_what_is_due(&self) {
        let mut conn = self.deps.db.acquire().await.expect("a connection");
        let look = NewJob::of(self.business, &FallBackDue {}).expect("a job");
        queue::enqueue(&mut conn, &look).await.expect("planned");
        drop(conn);
        self.run_due_jobs(None).await;
    }

    async fn mails(&self) -> Vec<Value> {
        let answer = self.http.get(format!("http://{}/sandbox/mails", self.sandbox)).send().await;
        answer.expect("the sink answers").json().await.expect("JSON")
    }

    async fn mail_fault(&self, at: &str, reply: Option<&str>) {
        self.control("mail/faults", &json!({ "faults": [{ "at": at, "reply": reply }] })).await;
    }

    /// The message by the other way.
    async fn other(&self, id: MessageId) -> messaging::Message {
        let mut others = self.timeline(id).await.others;
        assert_eq!(others.len(), 1, "one row for each way");
        others.remove(0)
    }

    /// What the carrier says of times is seconds: of a no and a yes within one, the no stays.
    pub(super) async fn move_carriers_clock(&self, by: TimeDelta) {
        let url = format!("http://{}/sandbox/clock", self.sandbox);
        let answer = self.http.post(url).json(&json!({ "advance_secs": by.num_seconds() })).send().await;
        assert_eq!(answer.expect("the stand-in answers").status(), 200);
    }

    pub(super) async fn write(&self, from: &str, text: &str) {
        let url = format!("http://{}/sandbox/inbound", self.sandbox);
        let answer = self.http.post(url).json(&json!({ "from": from, "text": text })).send().await;
        assert_eq!(answer.expect("the stand-in answers").status(), 200);
    }

    /// Runs jobs until the person's phone has shown so many messages; all of them.
    pub(super) async fn until_shown(&self, whom: &str, wanted: usize) -> Vec<Value> {
        for _ in 0..400 {
            self.run_due_jobs(None).await;
            let oracle = self.oracle().await;
            let chat = oracle["recipients"][whom].as_array().cloned().unwrap_or_default();
            if chat.iter().filter(|one| !one["displayed_at"].is_null()).count() >= wanted {
                return chat;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{wanted} were not shown: {:#?}", self.oracle().await);
    }

    async fn suppress(&self, contact: Contact, scope: Scope) {
        let mut tx = self.deps.db.begin().await.expect("a transaction");
        let by = By::operator(self.clock.now(), &OsChance);
        let channel = Some(Channel::Whatsapp);
        let new = NewSuppression { scope, channel, cause: Cause::Person, reason: "asked", at: by.now, until: None };
        wishes::suppress(&mut tx, &self.deps.vault, &by, self.business, (&contact, &new)).await.expect("suppressed");
        tx.commit().await.expect("committed");
    }

    /// The same shop with other settings of messaging.
    fn with(mut self, messaging: messaging::Settings) -> Self {
        let Deps { db, clock, chance, objects, carrier, mailer, vault, .. } = &*self.deps;
        self.deps = Arc::new(Deps {
            db: db.clone(),
            clock: Arc::clone(clock),
            chance: Arc::clone(chance),
            objects: Arc::clone(objects),
            carrier: Arc::clone(carrier),
            mailer: Arc::clone(mailer),
            vault: Arc::clone(vault),
            webhooks: muneem_jobs::webhooks::Sending::nowhere(),
            messaging,
        });
        self
    }
}

#[tokio::test]
async fn what_does_not_reach_her_by_one_way_goes_by_the_next() {
    let shop = Shop::open().await;
    // Her number is not on WhatsApp: the mail follows at once, with the same file.
    shop.fault(json!({ "refuse": { "code": 131_026 } })).await;
    let id = shop.bill(Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let first = shop.timeline(id).await.message;
    assert_eq!((first.state, first.channel, first.way, first.ways), (State::Failed, Channel::Whatsapp, 1, 2));
    let second = shop.other(id).await;
    assert_eq!((second.state, second.channel, second.way), (State::Accepted, Channel::Mail, 2));
    assert_eq!((second.delivery_id, second.recipient.as_str()), (id, "…@"));
    let mails = shop.mails().await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0]["to"], json!([HER_MAIL]));
    let raw = mails[0]["raw"].as_str().expect("a mail");
    assert!(raw.contains("INV-1042.pdf") && raw.contains("application/pdf"), "{raw}");
    assert!(!raw.to_ascii_lowercase().contains("list-unsubscribe"), "nobody leaves her bills");
    assert_eq!(shop.evidence("messaging.message_fell_back").await, 1);
    // Nothing more comes of either, however long one looks.
    shop.advance(TimeDelta::hours(2)).await;
    shop.look_at_what_is_due().await;
    assert_eq!((shop.mails().await.len(), shop.rows().await), (1, 2));
}

#[tokio::test]
async fn who_has_it_by_whatsapp_gets_no_mail() {
    let shop = Shop::open().await;
    let id = shop.bill(Policy::AtLeastOnce).await;
    shop.until(id, State::Read).await;
    shop.advance(TimeDelta::hours(2)).await;
    shop.look_at_what_is_due().await;
    let timeline = shop.timeline(id).await;
    assert!(timeline.others.is_empty() && timeline.message.fall_back_at.is_none());
    assert_eq!(shop.mails().await.len(), 0);
}

#[tokio::test]
async fn a_way_that_takes_too_long_is_left_for_the_next_where_twice_is_better_than_never() {
    let shop = Shop::open().await;
    for (policy, mails) in [(Policy::AtMostOnce, 0), (Policy::AtLeastOnce, 1)] {
        // Taken, and then nothing is heard of it.
        shop.fault(json!("vanish")).await;
        let id = shop.bill(policy).await;
        shop.run_due_jobs(None).await;
        assert_eq!(shop.timeline(id).await.message.state, State::Accepted);
        shop.advance(TimeDelta::minutes(29)).await;
        shop.look_at_what_is_due().await;
        assert!(shop.timeline(id).await.others.is_empty(), "its time is not over");
        shop.advance(TimeDelta::minutes(2)).await;
        shop.look_at_what_is_due().await;
        shop.look_at_what_is_due().await;
        assert_eq!(shop.mails().await.len(), mails, "{policy:?}");
    }
    // What has not even begun goes by the next way, whatever its policy: nothing of it is on its way.
    shop.fault(json!({ "refuse": { "code": 131_042 } })).await;
    let held = shop.bill(Policy::AtMostOnce).await;
    shop.run_due_jobs(None).await;
    shop.advance(TimeDelta::minutes(4)).await;
    assert_eq!(shop.timeline(held).await.message.state, State::Queued);
    shop.fault(json!({ "refuse": { "code": 131_042 } })).await;
    shop.advance(TimeDelta::minutes(27)).await;
    shop.look_at_what_is_due().await;
    let first = shop.timeline(held).await.message;
    assert_eq!((first.state, first.skipped_because.as_deref()), (State::Skipped, Some("fell_back")));
    assert_eq!(shop.other(held).await.state, State::Accepted);
    assert_eq!(shop.mails().await.len(), 2);
}

#[tokio::test]
async fn a_worker_that_dies_anywhere_sends_each_way_once_or_says_that_it_may_not_have() {
    for (step, policy, mails, state) in [
        ("messaging.fell_back", Policy::AtMostOnce, 1, State::Accepted),
        ("messaging.mail_posting", Policy::AtMostOnce, 0, State::UnknownFinal),
        ("messaging.mail_posted", Policy::AtMostOnce, 1, State::UnknownFinal),
        ("messaging.mail_posted", Policy::AtLeastOnce, 2, State::Accepted),
    ] {
        let shop = Shop::open().await;
        shop.fault(json!({ "refuse": { "code": 131_026 } })).await;
        let id = shop.bill(policy).await;
        assert!(shop.run_due_jobs(Some(step)).await, "{step} was reached");
        shop.run_due_jobs(None).await;
        shop.advance(TimeDelta::minutes(3)).await;
        shop.run_due_jobs(None).await;
        assert_eq!((shop.mails().await.len(), shop.other(id).await.state), (mails, state), "{step} {policy:?}");
        let doubt = shop.evidence("messaging.outcome_unknown").await;
        assert_eq!(
            doubt > 0,
            step != "messaging.fell_back",
            "{step}: what may be twice, or never, is on record as unknown"
        );
    }
}

#[tokio::test]
async fn a_no_on_one_way_is_a_no_on_the_other_but_for_what_the_law_wants_said() {
    let shop = Shop::open().await;
    shop.suppress(Contact::Phone(phone(ASHA)), Scope::All).await;
    let bill = shop.bill(Policy::AtLeastOnce).await;
    let words = (named("breach_notice"), Language::En);
    let notice = NewMessage::new(shop.business, both(), words, (Policy::AtLeastOnce, "breach.notice"));
    let notice = shop.ask(&notice).await.expect("a message");
    shop.run_due_jobs(None).await;
    let first = shop.timeline(bill).await.message;
    assert_eq!((first.state, first.skipped_because.as_deref()), (State::Skipped, Some("stopped")));
    let second = shop.other(bill).await;
    assert_eq!((second.state, second.skipped_because.as_deref()), (State::Skipped, Some("stopped")));
    // The notice is owed to her, by the way that she did not close.
    assert_eq!(shop.timeline(notice).await.message.class, MessageClass::Statutory);
    assert_eq!(shop.timeline(notice).await.message.state, State::Skipped);
    assert_eq!(shop.other(notice).await.state, State::Accepted);
    assert_eq!((shop.mails().await.len(), shop.rows().await), (1, 4));
}

#[tokio::test]
async fn a_mail_that_comes_back_closes_its_address_and_the_next_way_is_taken() {
    let shop = Shop::open().await;
    let to = Recipient::from(email()).or(phone(ASHA));
    let id = shop.order(to.clone(), Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let first = shop.timeline(id).await.message;
    assert_eq!((first.state, first.channel, first.fall_back_at), (State::Accepted, Channel::Mail, None));
    let raw = shop.mails().await[0]["raw"].as_str().expect("a mail").to_owned();
    let token = raw.lines().find_map(|line| line.strip_prefix("Message-ID: <")).expect("an id");
    let token = token.split('@').next().expect("a token");
    let report = format!(
        "From: MAILER-DAEMON@mx.example.in\r\nContent-Type: multipart/report; report-type=delivery-status; \
         boundary=B\r\n\r\n--B\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.in\r\n\r\n\
         Final-Recipient: rfc822; {HER_MAIL}\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--B\r\n\
         Content-Type: text/rfc822-headers\r\n\r\nMessage-ID: <{token}@shops.example>\r\n\r\n--B--\r\n"
    );
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    for _ in 0..2 {
        let with: (&dyn Clock, _) = (&shop.clock, &OsChance as &dyn muneem_jobs::outbound::Chance);
        receive_report(&mut conn, &shop.deps.vault, with, (Source::Imap, Format::Rfc822), report.as_bytes())
            .await
            .expect("kept");
    }
    drop(conn);
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Failed);
    let second = shop.other(id).await.message_id;
    shop.until(second, State::Read).await;
    // The address is closed: the next message does not try it.
    let next = shop.order(to, Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let message = shop.timeline(next).await.message;
    assert_eq!((message.state, message.skipped_because.as_deref()), (State::Skipped, Some("channel_closed")));
    assert_eq!(shop.mails().await.len(), 1);
}

#[tokio::test]
async fn a_mail_server_is_believed_by_its_codes() {
    let shop = Shop::open().await;
    // Not now: it is tried again, and taken.
    shop.mail_fault("rcpt", Some("451 4.3.2 try again")).await;
    let id = shop.order(email(), Policy::AtMostOnce).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(id).await.message.state, State::Queued);
    shop.advance(TimeDelta::seconds(3)).await;
    shop.run_due_jobs(None).await;
    let timeline = shop.timeline(id).await;
    assert_eq!((timeline.message.state, timeline.attempts.len()), (State::Accepted, 2));
    // The line went dead after the last line: nobody knows, and it is not sent again.
    shop.mail_fault("end", None).await;
    let doubt = shop.order(email(), Policy::AtMostOnce).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(doubt).await.message.state, State::Unknown);
    shop.advance(TimeDelta::minutes(3)).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(doubt).await.message.state, State::UnknownFinal);
    assert_eq!(shop.mails().await.len(), 2);
    // No such mailbox: never again, until somebody says otherwise.
    shop.mail_fault("rcpt", Some("550 5.1.1 no such user")).await;
    let gone = shop.order(email(), Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let message = shop.timeline(gone).await.message;
    assert_eq!(message.state, State::Failed);
    assert!(message.error_details.is_some_and(|details| details.contains("550") && !details.contains("asha")));
    let next = shop.order(email(), Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(next).await.message.state, State::Skipped);
}

#[tokio::test]
async fn what_can_wait_waits_for_the_day() {
    let shop = Shop::open().await;
    let quiet_hours = QuietHours::parse(["transactional 00:00-23:59"]).expect("hours");
    let shop = shop.with(messaging::Settings { quiet_hours, ..messaging::Settings::DEFAULT });
    // Whatever the hour this test runs at, one minute of the day is not quiet.
    let id = shop.bill(Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    let message = shop.timeline(id).await.message;
    let minute = (shop.clock.now() + TimeDelta::minutes(330)).format("%H:%M").to_string();
    if minute == "23:59" {
        return;
    }
    assert_eq!((message.state, message.held_scope.as_deref()), (State::Queued, Some("quiet_hours")));
    assert!(
        message.fall_back_at.is_some_and(|at| at > shop.clock.now() + TimeDelta::minutes(30)),
        "the wait begins later"
    );
    assert_eq!(shop.count("sends").await, 1);
    // What a law wants said does not wait.
    let words = (named("breach_notice"), Language::En);
    let notice = NewMessage::new(shop.business, phone(RAVI), words, (Policy::AtLeastOnce, "breach.notice"));
    let notice = shop.ask(&notice).await.expect("a message");
    shop.until(notice, State::Read).await;
}

#[tokio::test]
async fn words_of_ones_own_are_for_answers_alone() {
    let shop = Shop::open().await;
    let why = (Policy::AtMostOnce, "shop.answer");
    let text = || Content::Free(Free::Text { body: "Yes, until 8 pm.".to_owned() });
    let new = |content| NewMessage::new(shop.business, phone(ASHA), (content, Language::En), why);
    let refused = shop.ask(&new(text())).await.expect_err("nobody wrote");
    assert!(matches!(refused, messaging::Error::WindowClosed), "{refused:?}");
    shop.write(ASHA, "Are you open?").await;
    shop.until_heard(1).await;
    let stored = shop.put_pdf().await;
    let choice = |id: &str, title: &str| Choice { id: id.to_owned(), title: title.to_owned(), description: None };
    let said: Vec<(Content, &str)> = vec![
        (text(), "Yes, until 8 pm."),
        (Content::Free(Free::File { caption: Some("Our prices".to_owned()) }), "Our prices"),
        (
            Content::Free(Free::Buttons {
                body: "Shall we keep it for you?".to_owned(),
                footer: Some("Sharma Mobiles".to_owned()),
                buttons: vec![choice("keep", "Keep it"), choice("no", "No, thanks")],
            }),
            "Shall we keep it for you?",
        ),
        (
            Content::Free(Free::List {
                body: "When will you come?".to_owned(),
                footer: None,
                label: "Times".to_owned(),
                rows: vec![choice("10", "10 am"), choice("16", "4 pm")],
            }),
            "When will you come?",
        ),
        (
            Content::Free(Free::Link {
                body: "This is where we are.".to_owned(),
                footer: None,
                label: "The way".to_owned(),
                url: "https://sharma.example/way".to_owned(),
            }),
            "This is where we are.",
        ),
    ];
    let wanted = said.len();
    for (content, _) in &said {
        let document = matches!(content, Content::Free(Free::File { .. }))
            .then(|| Document { digest: stored.digest.clone(), filename: "prices.pdf".into() });
        shop.ask(&NewMessage { document, ..new(content.clone()) }).await.expect("a message");
    }
    let chat = shop.until_shown(ASHA, wanted).await;
    for (_, words) in &said {
        assert!(chat.iter().any(|one| one["text"].as_str().is_some_and(|text| text.contains(words))), "{words}");
    }
    assert!(chat.iter().any(|one| one["filename"] == "prices.pdf"));
    // A day later the window is closed, also for what was asked for while it was open.
    let late = NewMessage { not_before: Some(shop.clock.now() + TimeDelta::hours(25)), ..new(text()) };
    let late = shop.ask(&NewMessage { expires_at: Some(shop.clock.now() + TimeDelta::hours(30)), ..late }).await;
    let late = late.expect("asked in time");
    shop.advance(TimeDelta::hours(26)).await;
    shop.run_due_jobs(None).await;
    let message = shop.timeline(late).await.message;
    assert_eq!((message.state, message.error_code), (State::Failed, Some(131_047)));
    // What the carrier would refuse is refused before anything is written.
    for (bad, field) in [
        (Free::Text { body: " ".to_owned() }, "text"),
        (Free::Text { body: "a".repeat(4097) }, "text"),
        (Free::Buttons { body: "x".to_owned(), footer: None, buttons: Vec::new() }, "buttons"),
        (
            Free::Buttons { body: "x".to_owned(), footer: None, buttons: vec![choice("a", "A"), choice("a", "B")] },
            "buttons",
        ),
        (
            Free::List {
                body: "x".to_owned(),
                footer: None,
                label: "L".to_owned(),
                rows: vec![choice("a", &"t".repeat(25))],
            },
            "rows",
        ),
        (
            Free::Link {
                body: "x".to_owned(),
                footer: None,
                label: "L".to_owned(),
                url: "http://sharma.example".to_owned(),
            },
            "url",
        ),
    ] {
        let refused = shop.ask(&new(Content::Free(bad))).await.expect_err(field);
        assert!(
            matches!(&refused, messaging::Error::BadParameter { field: named, .. } if named == field),
            "{field}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn who_says_stop_is_answered_once_and_asked_where_it_is_not_clear() {
    let shop = Shop::open().await;
    shop.write(ASHA, "STOP").await;
    let chat = shop.until_shown(ASHA, 1).await;
    let said = chat[0]["text"].as_str().expect("words");
    assert!(said.contains("Sharma Mobiles sends you no more messages"), "{said}");
    // Again is no news.
    shop.write(ASHA, "stop").await;
    shop.until_heard(3).await;
    assert_eq!(shop.rows().await, 1);
    shop.move_carriers_clock(TimeDelta::minutes(1)).await;
    shop.advance(TimeDelta::minutes(1)).await;
    shop.write(ASHA, "START").await;
    let chat = shop.until_shown(ASHA, 2).await;
    assert!(chat[1]["text"].as_str().is_some_and(|text| text.contains("may write to you here again")));
    // A word that no native speaker has read over makes us ask, in its language; the button stops.
    shop.write(RAVI, "बंद करो").await;
    let chat = shop.until_shown(RAVI, 1).await;
    assert!(chat[0]["text"].as_str().is_some_and(|text| text.contains("संदेश नहीं चाहते")), "{chat:?}");
    let bill = shop.request(RAVI, Policy::AtLeastOnce).await;
    shop.until(bill, State::Read).await;
    let tapped = json!({ "from": RAVI, "message": { "type": "interactive", "interactive": { "type": "button_reply",
        "button_reply": { "id": "OPTOUT:all", "title": "संदेश बंद करें" } } } });
    let url = format!("http://{}/sandbox/inbound", shop.sandbox);
    assert_eq!(shop.http.post(url).json(&tapped).send().await.expect("an answer").status(), 200);
    let chat = shop.until_shown(RAVI, 3).await;
    assert!(chat[2]["text"].as_str().is_some_and(|text| text.contains("अब आपको यहाँ कोई संदेश नहीं")), "{chat:?}");
    let later = shop.request(RAVI, Policy::AtLeastOnce).await;
    shop.until(later, State::Skipped).await;
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let ravi = Contact::Phone(phone(RAVI));
    let language = wishes::language_of(&mut conn, &shop.deps.vault, shop.business, &ravi).await.expect("readable");
    assert_eq!(language, Some(Language::Hi), "what she wrote tells her language");
}

#[tokio::test]
async fn whom_a_campaign_does_not_reach_gets_its_mail_and_may_leave_it_with_one_click() {
    let shop = Shop::open().await;
    let settings =
        messaging::Settings { public_url: Some("https://muneem.example".to_owned()), ..messaging::Settings::DEFAULT };
    let shop = shop.with(settings);
    let by = By::operator(shop.clock.now(), &OsChance);
    let consent = wishes::NewConsent {
        purpose: "marketing.offers",
        state: wishes::ConsentState::Given,
        source: wishes::Source::WebForm,
        wording_version: Some("offers-v1"),
        language: Some("en"),
        proof: None,
        at: by.now,
    };
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    for contact in [Contact::Phone(phone(ASHA)), Contact::Email(email())] {
        wishes::record(&mut tx, &shop.deps.vault, &by, shop.business, (&contact, &consent)).await.expect("recorded");
    }
    let new = NewCampaign {
        business: shop.business,
        name: "Diwali".to_owned(),
        purpose: "marketing.offers".to_owned(),
        class: MessageClass::Marketing,
        template: "order_ready".to_owned(),
        rests_after: None,
        expires_at: shop.clock.now() + TimeDelta::hours(6),
    };
    let id = campaign::create(&mut tx, &new, &by).await.expect("a campaign");
    let person =
        NewPerson { to: phone(ASHA), mail: Some(email()), content: named("order_ready"), language: Language::En };
    let of = (shop.business, id);
    campaign::add_people(&mut tx, &shop.deps.vault, of, &[person], &by).await.expect("added");
    campaign::start(&mut tx, of, &by).await.expect("started");
    tx.commit().await.expect("committed");
    shop.fault(json!({ "refuse": { "code": 131_026 } })).await;
    for _ in 0..200 {
        shop.run_due_jobs(None).await;
        if !shop.mails().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let raw = shop.mails().await[0]["raw"].as_str().expect("a mail").replace("\r\n ", " ");
    let link = raw.lines().find_map(|line| line.strip_prefix("List-Unsubscribe: <")).expect("a way to leave");
    assert!(raw.contains("List-Unsubscribe-Post: List-Unsubscribe=One-Click"), "{raw}");
    let token = link.trim_end_matches('>').strip_prefix("https://muneem.example/r/leave/").expect("our page");
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    assert!(find_leaving(&mut tx, &"b".repeat(26)).await.expect("readable").is_none());
    let leaving = find_leaving(&mut tx, token).await.expect("readable").expect("known");
    leave(&mut tx, &shop.deps.vault, leaving, false, &by).await.expect("left");
    tx.commit().await.expect("committed");
    // The next one skips her mail; her bills still come.
    let bill = shop.order(email(), Policy::AtLeastOnce).await;
    shop.run_due_jobs(None).await;
    assert_eq!(shop.timeline(bill).await.message.state, State::Accepted);
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let question = wishes::Question {
        class: wishes::Class::Marketing,
        purpose: "marketing.offers",
        channel: Channel::Mail,
        last_way: true,
    };
    let item = wishes::Item { to: &Contact::Email(email()), others: &[], question };
    let verdict = wishes::judge(&mut conn, &shop.deps.vault, shop.business, &item, shop.clock.now()).await;
    assert_eq!(verdict.expect("judged"), wishes::Verdict::Skipped(wishes::Reason::Withdrawn));
}

#[tokio::test]
async fn what_a_law_wants_said_to_many_does_not_wait_behind_a_held_sender() {
    let shop = Shop::open().await;
    let by = By::operator(shop.clock.now(), &OsChance);
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let new = NewCampaign {
        business: shop.business,
        name: "Incident 7".to_owned(),
        purpose: "breach.notice".to_owned(),
        class: MessageClass::Statutory,
        template: "breach_notice".to_owned(),
        rests_after: None,
        expires_at: shop.clock.now() + TimeDelta::hours(20),
    };
    let id = campaign::create(&mut tx, &new, &by).await.expect("a campaign");
    let person = |nth: u32| NewPerson {
        to: phone(&format!("98123{nth:05}")),
        mail: Some(Email::parse(&format!("p{nth}@example.in")).expect("an address")),
        content: named("breach_notice"),
        language: Language::En,
    };
    let people: Vec<_> = (0..3).map(person).collect();
    let of = (shop.business, id);
    campaign::add_people(&mut tx, &shop.deps.vault, of, &people, &by).await.expect("added");
    campaign::start(&mut tx, of, &by).await.expect("started");
    tx.commit().await.expect("committed");
    // The account is locked, and stays so.
    for _ in 0..12 {
        shop.fault(json!({ "refuse": { "code": 131_031 } })).await;
    }
    shop.run_due_jobs(None).await;
    assert_eq!(shop.mails().await.len(), 0, "its time is not over");
    for _ in 0..8 {
        shop.advance(TimeDelta::minutes(10)).await;
        shop.run_due_jobs(None).await;
        shop.look_at_what_is_due().await;
    }
    assert_eq!(shop.mails().await.len(), 3, "each of them by mail, once");
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let (_, counts) = campaign::find(&mut conn, Some(shop.business), id).await.expect("readable").expect("there");
    assert_eq!(counts["accepted"], 3, "{counts}");
}

impl Shop {
    /// Messages of the ledger.
    async fn rows(&self) -> i64 {
        sqlx::query_scalar("select count(*) from muneem.messaging_messages")
            .fetch_one(&self.db.pool())
            .await
            .expect("a count")
    }

    /// Runs jobs until so many of people's messages were acted on, or opened a window.
    async fn until_heard(&self, wanted: i64) {
        for _ in 0..400 {
            self.run_due_jobs(None).await;
            let heard: i64 = sqlx::query_scalar(
                "select (select count(*) from muneem.messaging_heard)
                    + (select count(*) from muneem.messaging_pairs where heard_at is not null)",
            )
            .fetch_one(&self.db.pool())
            .await
            .expect("a count");
            if heard >= wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nothing was heard");
    }
}
