//! Templates against the stand-in's account: compared, submitted, kept, and what that means for a message. The commands
//! are those of the built binary.

use std::process::{Command, Stdio};

use muneem_jobs::messaging::{
    MessageClass, Named,
    template::{self, May, Noted},
};

use super::*;

/// A stand-in whose account has no template, and a shop that sends through it.
struct Fresh {
    shop: Shop,
    carrier: SocketAddr,
    home: tempfile::TempDir,
}

/// What a command said.
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Fresh {
    async fn open() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = Options {
            pace: Pace::INSTANT,
            review: None,
            seed_templates: false,
            mail: None,
            ..Options::local(loopback, 11)
        };
        let sandbox = Sandbox::bind(options).await.expect("a free port");
        let carrier = sandbox.address();
        let shop = Shop::open_with(Some(format!("http://{carrier}"))).await;
        tokio::spawn(sandbox.run(shop.end.clone()));
        Self { shop, carrier, home: tempfile::tempdir().expect("a directory") }
    }

    /// Runs `muneem messaging templates …`. The stand-in answers meanwhile.
    async fn templates(&self, arguments: &[&str]) -> Told {
        self.templates_with(arguments, &[]).await
    }

    async fn templates_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Told {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muneem"));
        command
            .args(["messaging", "templates"])
            .args(arguments)
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| ["PATH", "PG_BIN_DIR", "TMPDIR"].contains(&&**name)))
            .env("HOME", self.home.path())
            .env("DATABASE_URL", self.shop.db.url())
            .env("MUNEEM__MESSAGING__WHATSAPP__BASE_URL", format!("http://{}", self.carrier))
            .env("MUNEEM__MESSAGING__WHATSAPP__APP_ID", Options::APP)
            .env("MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN", "sandbox-access-token")
            .env("MUNEEM__MESSAGING__WHATSAPP__APP_SECRETS", "sandbox-app-secret")
            .env("MUNEEM__MESSAGING__WHATSAPP__VERIFY_TOKEN", "sandbox-verify-token")
            .envs(environment.iter().copied())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it starts");
        Told {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The rows that a command prints for machines.
    async fn rows(&self, arguments: &[&str], code: i32) -> Vec<Value> {
        let told = self.templates(&[arguments, &["--json"]].concat()).await;
        assert_eq!((told.code, told.err.as_str()), (Some(code), ""), "{}", told.out);
        told.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Plays the carrier's reviewers.
    async fn review(&self, script: Value) {
        let url = format!("http://{}/sandbox/templates", self.carrier);
        let answer = self.shop.http.post(url).json(&script).send().await.expect("the stand-in answers");
        assert_eq!(answer.status(), 204, "{script}");
    }

    async fn approve_all(&self) {
        for row in self.remote().await {
            if row["status"] == "PENDING" {
                self.review(json!({ "id": row["id"], "status": "APPROVED", "silently": true })).await;
            }
        }
    }

    async fn remote(&self) -> Vec<Value> {
        let answer = self.shop.http.get(format!("http://{}/sandbox/templates", self.carrier)).send().await;
        let all: Value = answer.expect("the stand-in answers").json().await.expect("JSON");
        all["data"].as_array().expect("a list").clone()
    }

    async fn may(&self, folder: &str, language: &str, class: MessageClass) -> May {
        let mut conn = self.shop.deps.db.acquire().await.expect("a connection");
        let place = (self.shop.business, Options::ACCOUNT);
        template::may_send(&mut conn, place, (folder, language), class).await.expect("readable")
    }

    /// How many are approved, not approved and unknown, as `doctor` tells of the one account.
    async fn standing(&self) -> (usize, usize, usize) {
        let mut conn = self.shop.deps.db.acquire().await.expect("a connection");
        let standings = template::standings(&mut conn, template::library()).await.expect("readable");
        let [standing] = standings.as_slice() else { panic!("one account: {standings:?}") };
        assert_eq!((standing.business, standing.waba_id.as_str()), (self.shop.business, Options::ACCOUNT));
        (standing.approved, standing.not_approved.len(), standing.unknown.len())
    }

    async fn evidence(&self, word: &str) -> i64 {
        let statement =
            "select count(*) from muneem.evidence_events where convert_from(body, 'UTF8')::json ->> 'verb' = $1";
        sqlx::query_scalar(statement).bind(word).fetch_one(&self.shop.db.pool()).await.expect("a count")
    }
}

fn word_of<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

#[tokio::test]
async fn what_is_missing_is_made_and_what_came_of_it_is_told() {
    let fresh = Fresh::open().await;
    let all = template::library().iter().count();
    assert!(all > 20, "more than one page");

    let missing = fresh.rows(&["diff", "--business", "sharma-mobiles"], 1).await;
    assert!(missing.len() == all && missing.iter().all(|row| row["verdict"] == "missing"));

    let planned = fresh.rows(&["push", "--dry-run"], 0).await;
    assert!(planned.len() == all && planned.iter().all(|row| row["outcome"] == "would_create"));
    assert!(fresh.remote().await.is_empty() && fresh.evidence("messaging.template_submitted").await == 0);

    assert_eq!(fresh.standing().await, (0, 0, all), "nobody asked yet");
    let made = fresh.rows(&["push"], 0).await;
    assert_eq!(fresh.standing().await, (0, all, 0), "in review");
    assert!(made.len() == all && made.iter().all(|row| row["outcome"] == "created" && row["status"] == "PENDING"));
    for word in ["messaging.template_submitted", "messaging.template_answered"] {
        assert_eq!(fresh.evidence(word).await, i64::try_from(all).expect("few"), "{word}");
    }
    let remote = fresh.remote().await;
    assert_eq!(remote.len(), all);
    for row in &remote {
        let authentication = row["category"] == "AUTHENTICATION";
        assert_eq!(row["parameter_format"], if authentication { "POSITIONAL" } else { "NAMED" }, "{}", row["name"]);
        assert_ne!(row["category"], "MARKETING", "{}", row["name"]);
    }
    let code = remote.iter().find(|row| row["name"] == "sign_in_code_v1").expect("made");
    assert_eq!(code["message_send_ttl_seconds"], 600);

    // In review they are the same, and what was made is not sent before it is approved.
    fresh.rows(&["diff"], 0).await;
    let pending = May::NotNow { status: "PENDING".to_owned() };
    assert_eq!(fresh.may("tax_invoice", "hi", MessageClass::Transactional).await, pending);
    fresh.approve_all().await;
    let pulled = fresh.rows(&["pull", "--business", "sharma-mobiles"], 0).await;
    assert!(pulled.len() == all && pulled.iter().all(|row| row["status"] == "APPROVED"));
    assert_eq!(fresh.may("tax_invoice", "hi", MessageClass::Transactional).await, May::Send);
    assert_eq!(fresh.standing().await, (all, 0, 0));
    let again = fresh.templates(&["push"]).await;
    assert_eq!((again.code, again.out.as_str()), (Some(0), "the carrier has every template as it stands here\n"));
}

#[tokio::test]
async fn what_the_carrier_changed_is_shown_mended_or_left_alone() {
    let fresh = Fresh::open().await;
    let never_asked = fresh.may("payment_reminder", "en", MessageClass::Transactional).await;
    assert_eq!(never_asked, May::Send, "nobody knows anything against it");
    fresh.rows(&["push"], 0).await;
    fresh.approve_all().await;
    let words = json!([{ "type": "BODY", "text": "Dear {{name}}, other words stand here than ours do." }]);
    fresh.review(json!({ "name": "order_ready_v1", "language": "en", "components": words })).await;
    fresh.review(json!({ "name": "payment_reminder_v1", "category": "MARKETING" })).await;
    fresh.review(json!({ "name": "security_alert_v1", "language": "hi", "status": "DISABLED" })).await;
    fresh.review(json!({ "name": "tax_invoice_v1", "language": "hi", "correct_category": "MARKETING" })).await;
    fresh.review(json!({ "name": "opt_out_confirmed_v1", "status": "DELETED" })).await;

    let told = fresh.templates(&["diff"]).await;
    assert_eq!(told.code, Some(1), "{}", told.err);
    let differing: String =
        told.out.lines().filter(|line| !line.ends_with("same")).map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!("templates_diff", differing);

    let told = fresh.templates(&["push"]).await;
    assert_eq!(told.code, Some(1), "{}", told.err);
    insta::assert_snapshot!("templates_push", told.out);
    let edited =
        fresh.remote().await.into_iter().find(|row| row["name"] == "order_ready_v1" && row["language"] == "en");
    let edited = edited.expect("still there");
    assert!(word_of(&edited["components"][0], "text").starts_with("Dear {{customer_name}}, your order"), "{edited}");

    fresh.rows(&["pull"], 0).await;
    let never = May::Never { category: "MARKETING".to_owned() };
    assert_eq!(fresh.may("payment_reminder", "en", MessageClass::Transactional).await, never);
    assert_eq!(fresh.may("payment_reminder", "en", MessageClass::Marketing).await, May::Send);
    let pending = May::NotNow { status: "PENDING".to_owned() };
    assert_eq!(fresh.may("order_ready", "en", MessageClass::Transactional).await, pending);
    let disabled = May::NotNow { status: "DISABLED".to_owned() };
    assert_eq!(fresh.may("security_alert", "hi", MessageClass::Transactional).await, disabled);
    // Both languages of the reminder sell to the carrier, one is disabled, one in review; a deleted one is unknown.
    let (_, not_approved, unknown) = fresh.standing().await;
    assert_eq!((not_approved, unknown), (4, 2));
    // Announced, and not yet so.
    assert_eq!(fresh.may("tax_invoice", "hi", MessageClass::Transactional).await, May::Send);
}

#[tokio::test]
async fn a_webhook_changes_what_is_known_unless_it_is_late() {
    let fresh = Fresh::open().await;
    let shop = &fresh.shop;
    let place = (shop.business, Options::ACCOUNT);
    let invoice = ("tax_invoice_v1", "en");
    let now = shop.clock.now();
    let mut conn = shop.deps.db.acquire().await.expect("a connection");
    let mut note = async |noted: Noted<'_>, at| {
        template::note_status(&mut conn, place, invoice, &noted, at).await.expect("noted");
    };
    note(Noted { quality: Some("GREEN"), ..Noted::default() }, now).await;
    assert_eq!(
        fresh.may("tax_invoice", "en", MessageClass::Transactional).await,
        May::Send,
        "only its quality is known"
    );
    note(Noted { status: Some("PAUSED"), ..Noted::default() }, now).await;
    let paused = May::NotNow { status: "PAUSED".to_owned() };
    assert_eq!(fresh.may("tax_invoice", "en", MessageClass::Transactional).await, paused);
    // It was approved before it was paused, and that is told late.
    note(Noted { status: Some("APPROVED"), ..Noted::default() }, now - TimeDelta::minutes(5)).await;
    note(Noted { status: Some("FLAGGED"), ..Noted::default() }, now + TimeDelta::minutes(1)).await;
    assert_eq!(fresh.may("tax_invoice", "en", MessageClass::Transactional).await, paused);
    note(Noted { status: Some("REINSTATED"), ..Noted::default() }, now + TimeDelta::minutes(2)).await;
    assert_eq!(fresh.may("tax_invoice", "en", MessageClass::Transactional).await, May::Send);
    note(Noted { category: Some("MARKETING"), ..Noted::default() }, now + TimeDelta::minutes(3)).await;
    let never = May::Never { category: "MARKETING".to_owned() };
    assert_eq!(fresh.may("tax_invoice", "en", MessageClass::Transactional).await, never);
    // What is no word changes nothing, and another language is another template.
    note(Noted { status: Some("'; drop"), category: Some("<b>"), ..Noted::default() }, now + TimeDelta::minutes(4))
        .await;
    assert_eq!(fresh.may("tax_invoice", "en", MessageClass::Transactional).await, never);
    assert_eq!(fresh.may("tax_invoice", "hi", MessageClass::Transactional).await, May::Send);
    // Whoever asks afterwards is told what is so; what the carrier has not is forgotten.
    template::keep_pulled(&mut conn, place, &[], now + TimeDelta::minutes(5)).await.expect("kept");
    assert_eq!(template::list_known(&mut conn, shop.business).await.expect("readable"), []);
}

#[tokio::test]
async fn any_template_is_sent_by_its_folder_and_its_parameters() {
    let shop = Shop::open().await;
    let mut parameters = template::library().find("order_ready", Language::Hi).expect("shipped").examples();
    let new = |parameters: BTreeMap<String, String>| {
        let content = Content::Named(Named { template: "order_ready".to_owned(), parameters });
        let why = (Policy::AtLeastOnce, "order.ready");
        NewMessage::new(shop.business, Phone::parse(ASHA).expect("a mobile"), (content, Language::Mr), why)
    };
    let mut tx = shop.deps.db.begin().await.expect("a transaction");
    let good = new(parameters.clone());
    let id = messaging::request(&mut tx, &shop.deps.vault, &shop.clock, &OsChance, &good).await.expect("a message");
    parameters.insert("order_number".to_owned(), "ORD 2208".to_owned());
    let bad = new(parameters);
    let refused =
        messaging::request(&mut tx, &shop.deps.vault, &shop.clock, &OsChance, &bad).await.expect_err("ill-typed");
    assert_eq!(refused.to_string(), "template parameter order_number must be letters, digits and - / _ . # alone");
    tx.commit().await.expect("committed");
    assert_eq!(shop.count("sends").await, 1, "nothing was written of the other");
    let timeline = shop.until(id, State::Read).await;
    assert_eq!(
        (timeline.message.template.as_str(), timeline.message.class),
        ("order_ready", MessageClass::Transactional)
    );
    let said = shop.oracle().await["recipients"][ASHA][0].to_string();
    assert!(said.contains("आपका ऑर्डर ORD-2208 तैयार है"), "Marathi falls back on Hindi: {said}");
}

#[tokio::test]
async fn words_of_an_installation_are_checked_listed_and_submitted() {
    let fresh = Fresh::open().await;
    let words = fresh.home.path().join("words");
    let folder = words.join("festival/en");
    std::fs::create_dir_all(&folder).expect("made");
    let text = "name = \"festival_v1\"\nlanguage = \"en\"\ncategory = \"MARKETING\"\nheader = \"image\"\n\
        parameters = [{ name = \"customer_name\", type = \"person\", example = \"Asha\" }]\n\
        body = \"Dear {{customer_name}}, our festival week begins on Monday, come and see.\"\n\
        reviewed_by = \"Sharma Mobiles\"\nreviewed_on = 2026-11-23\n\n\
        [[buttons]]\ntype = \"quick_reply\"\ntext = \"Stop\"\npayload = \"OPTOUT:marketing\"\n";
    std::fs::write(folder.join("whatsapp.toml"), text.replace("Dear {{customer_name}}", "{{customer_name}}"))
        .expect("written");
    let dir = words.to_string_lossy().into_owned();
    let own = [("MUNEEM__MESSAGING__TEMPLATES_DIR", dir.as_str())];
    let told = fresh.templates_with(&["check"], &own).await;
    assert_eq!(told.code, Some(1), "{}", told.err);
    assert_eq!(
        told.out.replace(&dir, "words"),
        "words/festival/en/whatsapp.toml:6: body: must neither begin nor end with a parameter\n"
    );
    // What cannot be used stops the start, with the same words.
    let stopped = fresh.templates_with(&["diff"], &own).await;
    assert_eq!((stopped.code, stopped.out.as_str()), (Some(1), ""));
    assert!(stopped.err.contains("festival/en/whatsapp.toml:6: body:"), "{}", stopped.err);

    std::fs::write(folder.join("whatsapp.toml"), text).expect("written");
    let told = fresh.templates_with(&["check"], &own).await;
    assert!(told.code == Some(0) && told.out.ends_with("1 of them your own\n"), "{} {}", told.out, told.err);
    let listed = fresh.templates_with(&["list"], &own).await;
    assert!(
        listed.out.lines().any(|line| line.starts_with("festival ") && line.ends_with("your own")),
        "{}",
        listed.out
    );
    let pushed = fresh.templates_with(&["push", "--only", "festival", "--json"], &own).await;
    assert_eq!((pushed.code, pushed.err.as_str()), (Some(0), ""));
    let remote = fresh.remote().await;
    assert_eq!(
        (remote.len(), word_of(&remote[0], "name"), word_of(&remote[0], "category")),
        (1, "festival_v1", "MARKETING")
    );
    let header = &remote[0]["components"][0];
    assert_eq!(header["format"], "IMAGE");
    assert!(header["example"]["header_handle"][0].is_string());
    let unknown = fresh.templates(&["push", "--only", "festival"]).await;
    assert!(unknown.code == Some(1) && unknown.err.contains("there is no template `festival`"), "{}", unknown.err);
}

#[tokio::test]
async fn a_token_that_the_carrier_refuses_is_told_in_its_words() {
    let fresh = Fresh::open().await;
    let told = fresh.templates_with(&["pull"], &[("MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN", "another")]).await;
    assert_eq!((told.code, told.out.as_str()), (Some(1), ""));
    assert!(told.err.contains("code 190") && told.err.contains("(sharma-mobiles)"), "{}", told.err);
    assert!(!told.err.contains("another"), "{}", told.err);
}
