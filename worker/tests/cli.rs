//! The built binary, as an operator meets it: what it prints, what it complains of, and how it ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use muneem::outbound::http::{Timeouts, client};
use muneem_postgres::testing::TestDb;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A machine with nothing of muneem on it but the binary.
struct House {
    home: TempDir,
    environment: Vec<(&'static str, String)>,
}

/// What a command said.
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

impl House {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a temporary directory"), environment: Vec::new() }
    }

    fn on(url: &str) -> Self {
        Self::new().with("DATABASE_URL", url)
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn settings(self, toml: &str) -> Self {
        std::fs::write(self.home.path().join("muneem.toml"), toml).expect("a file");
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muneem"));
        command
            .args(arguments)
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| ["PATH", "PG_BIN_DIR", "TMPDIR"].contains(&&**name)))
            .env("HOME", self.home.path())
            .envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn muneem(&self, arguments: &[&str]) -> Told {
        let output = self.command(arguments).output().expect("the binary starts");
        Told {
            code: output.status.code(),
            out: self.steady(&String::from_utf8(output.stdout).expect("UTF-8")),
            err: self.steady(&String::from_utf8(output.stderr).expect("UTF-8")),
        }
    }

    /// Without what differs between two runs.
    fn steady(&self, text: &str) -> String {
        text.replace(&*self.home.path().to_string_lossy(), "~")
    }

    /// Runs a command that must end well, and answers what it printed.
    #[track_caller]
    fn well(&self, arguments: &[&str]) -> String {
        let told = self.muneem(arguments);
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "muneem {}\n{}", arguments.join(" "), told.out);
        told.out
    }

    /// Runs commands that must fail on one line, and answers those lines with their exit codes.
    #[track_caller]
    fn complaints(&self, commands: &[&[&str]]) -> String {
        let mut lines = String::new();
        for arguments in commands {
            let told = self.muneem(arguments);
            assert_eq!(told.out, "", "muneem {}", arguments.join(" "));
            lines += &format!("$ muneem {}\n{}[{}]\n\n", arguments.join(" "), told.err, told.code.unwrap_or(-1));
        }
        lines
    }
}

/// The commands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Further in stands the rest of a long description.
    let named = list.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    named.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

/// The help of a command and of all below it.
fn help_of(house: &House, command: &mut Vec<String>) -> String {
    let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let help = house.well(&arguments);
    let below = listed(&help);
    assert!(!below.is_empty() || help.contains("Example:"), "muneem {} has no example", command.join(" "));
    let mut all = format!("$ muneem {}\n{help}\n", arguments.join(" "));
    for name in below {
        command.push(name);
        all += &help_of(house, command);
        command.pop();
    }
    all
}

#[test]
fn muneem_alone_prints_its_help_and_every_command_has_help_with_an_example() {
    let house = House::new();
    let alone = house.muneem(&[]);
    assert_eq!((alone.code, alone.err.as_str()), (Some(2), ""));
    assert_eq!(alone.out, house.well(&["--help"]));
    insta::assert_snapshot!("help", alone.out);
    let commands = listed(&alone.out);
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        insta::assert_snapshot!(format!("help_{command}"), help_of(&house, &mut vec![command]));
    }
    assert_eq!(house.well(&["--version"]), concat!("muneem ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn mistakes_in_the_arguments_are_told_on_one_line() {
    insta::assert_snapshot!(
        "mistakes_in_the_arguments",
        House::new().complaints(&[
            &["serv"],
            &["jobs", "lst"],
            &["frobnicate"],
            &["serve", "--only", "worker"],
            &["serve", "--lanes", "fast"],
            &["serve", "--nowait"],
            &["jobs", "list", "--limit", "0"],
            &["jobs", "list", "--state", "lost"],
            &["jobs", "show"],
            &["jobs", "show", "x"],
            &["people", "token", "create"],
            &["people", "token", "create", "--label", "till", "--scope", "queue:wriet"],
            &["enqueue", "invoice.issue", "{}", "--at", "soon"],
            &["enqueue", "invoice.issue", "{"],
            &["sandbox", "--listen", "8788"],
            &["jobs", "list", "--config", "none.toml"],
        ])
    );
}

#[test]
fn mistakes_in_the_settings_are_told_all_at_once() {
    let toml =
        "[queue]\nleese_secs = 5\nconcurrency = \"many\"\n[database]\nurl = \"postgres://asha:hunter2@db/shop\"\n";
    let house = House::new().settings(toml).with("MUNEEM__SERVER__LISTEN", "8787");
    let told = house.complaints(&[&["config", "check"], &["jobs", "list"]]);
    assert!(!told.contains("hunter2"));
    insta::assert_snapshot!("mistakes_in_the_settings", told);
    let doctor = house.muneem(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    assert_eq!(
        doctor.out.lines().count(),
        doctor.out.lines().filter(|line| line.starts_with("fail  settings ")).count()
    );
}

#[test]
fn a_database_that_does_not_answer_is_told_with_the_cause() {
    let house =
        House::on("postgres://asha:hunter2@127.0.0.1:1/shop").with("MUNEEM__DATABASE__ACQUIRE_TIMEOUT_SECS", "1");
    let told = house.complaints(&[&["jobs", "list"], &["migrate"], &["serve"]]);
    insta::assert_snapshot!("no_database", told);
    let doctor = house.muneem(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    assert!(doctor.out.contains("\nfail  database        does not answer ("), "{}", doctor.out);
    assert!(!(told + &doctor.out).contains("hunter2"));
}

#[test]
fn doctor_tells_what_to_mend() {
    // Somebody else's program at our address, and nobody where the Cloud API should be.
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = other.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in other.incoming().flatten() {
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
        }
    });
    let settings = "[messaging.whatsapp]\nbase_url = \"http://127.0.0.1:1\"\naccess_token_file = \"token\"\n";
    let house = House::on("postgres://asha:hunter2@127.0.0.1:1/shop")
        .settings(settings)
        .with("MUNEEM__DATABASE__ACQUIRE_TIMEOUT_SECS", "1")
        .with("MUNEEM__SERVER__LISTEN", &listen)
        .with("MUNEEM__MESSAGING__WHATSAPP__APP_SECRETS", "app-secret")
        .with("MUNEEM__MESSAGING__WHATSAPP__VERIFY_TOKEN", "verify-token");
    let token = house.home.path().join("token");
    std::fs::write(&token, "EAAG").expect("a file");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).expect("ours");

    let told = house.muneem(&["doctor"]);
    assert_eq!((told.code, told.err.as_str()), (Some(1), ""));
    let filters = [(r"127\.0\.0\.1:\d{2,}", "127.0.0.1:(port)"), (r"(ok|warn)( +free disk +).*", "ok$2(so much)")];
    insta::with_settings!({ filters => filters }, { insta::assert_snapshot!("doctor", told.out) });

    let told = house.muneem(&["doctor", "--json"]);
    assert_eq!(told.code, Some(1));
    let checks: Vec<Value> = told.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let outcome_of = |name: &str| checks.iter().find(|check| check["check"] == name).map(|check| &check["outcome"]);
    assert_eq!(outcome_of("secret files"), Some(&json!("warn")));
    assert_eq!(outcome_of("database"), Some(&json!("fail")));
    assert!(checks.iter().all(|check| check["outcome"] == "ok" || check["mend"].is_string()));
}

#[test]
fn a_fault_in_the_installations_own_templates_is_named_by_doctor_and_nothing_starts_on_it() {
    let house = House::on("postgres://asha@127.0.0.1:1/shop")
        .settings("[messaging]\ntemplates_dir = \"words\"\n")
        .with("MUNEEM__DATABASE__ACQUIRE_TIMEOUT_SECS", "1");
    let folder = house.home.path().join("words/festival/en");
    std::fs::create_dir_all(&folder).expect("a folder");
    let words = "name = \"festival_v1\"\nlanguage = \"en\"\ncategory = \"MARKETING\"\n\
                 body = \"Our festival week begins on Monday.\"\nreviewed_by = \"Sharma\"\nreviewed_on = 2026-11-23\n";
    let file = folder.join("whatsapp.toml");
    std::fs::write(&file, words).expect("a file");
    let line = |told: &str| told.lines().find(|line| line[6..].starts_with("templates")).expect("a row").to_owned();
    let good = line(&house.muneem(&["doctor"]).out);
    assert!(good.starts_with("ok    templates       ") && good.contains(" are well formed, 1 of them from "), "{good}");

    std::fs::write(&file, words.replace("MARKETING", "NEWS")).expect("a file");
    let bad = line(&house.muneem(&["doctor"]).out);
    assert!(bad.starts_with("fail  templates       "), "{bad}");
    assert!(bad.contains("words/festival/en/whatsapp.toml:3: ") && bad.contains("NEWS"), "{bad}");
    let sandbox = house.muneem(&["sandbox", "--listen", "127.0.0.1:0", "--mail", "127.0.0.1:0"]);
    assert_eq!(sandbox.code, Some(1));
    assert!(sandbox.err.contains("words/festival/en/whatsapp.toml:3: "), "{}", sandbox.err);
}

/// `url` for another login.
fn as_login(url: &str, login: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{login}@{rest}")
}

async fn as_owner(db: &TestDb, statement: String) {
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&db.pool()).await.expect("the owner may");
}

#[tokio::test]
async fn a_database_is_set_up_and_worked_with_by_commands_alone() {
    let db = TestDb::empty().await;
    let owner = House::on(&db.url());
    let login = format!("serve_{}", db.name());
    as_owner(&db, format!("create role {login} login")).await;
    // Whatever listens on this machine already is not looked at.
    let house = House::on(&as_login(&db.url(), &login)).with("MUNEEM__SERVER__LISTEN", "127.0.0.1:0");
    let steady = |text: String| text.replace(&login, "muneem_serve");

    insta::assert_snapshot!("not_migrated", owner.complaints(&[&["serve"]]));
    let doctor = owner.muneem(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    assert!(doctor.out.contains("fail  schema          the schema is not there yet: run `muneem migrate`"));
    assert_eq!(owner.well(&["migrate"]), "the schema is up to date\n");
    assert_eq!(owner.well(&["migrate"]), "the schema is up to date\n", "again is no error");

    // Who may do too much, or too little, is told the statement that puts it right; and that statement does.
    let told = owner.complaints(&[&["serve"]]) + &steady(house.complaints(&[&["serve"]]));
    insta::assert_snapshot!("logins_that_do_not_serve", told);
    as_owner(&db, format!("grant muneem_app to {login}")).await;

    let told = steady(story(&house));
    // What differs from day to day. The year 2099 is ours.
    let filters = [
        (r"202\d-\d\d-\d\d[T ][\d:.]+( UTC|Z)", "(instant)"),
        (r"\d+\.\d GiB.*", "(so much)"),
        (r"(ok|warn)( +free disk)", "ok$2"),
        (r"Postgres \d+\.\d+", "Postgres (version)"),
        (r"root key file:[0-9a-f]{16}", "root key file:(fingerprint)"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", "(uuid)"),
    ];
    insta::with_settings!({ filters => filters }, { insta::assert_snapshot!("a_working_day", told) });
    secrets_are_not_stored(&house, &db).await;
    webhooks_are_managed(&house);
    campaigns_are_run(house);
    drop(db);
    let server = TestDb::empty().await;
    as_owner(&server, format!("drop role {login}")).await;
}

/// A day's commands and what they print.
fn story(house: &House) -> String {
    let mut told = String::new();
    let mut say = |arguments: &[&str]| {
        let said = house.muneem(arguments);
        told += &format!("$ muneem {}\n{}{}[{}]\n\n", arguments.join(" "), said.out, said.err, said.code.unwrap_or(-1));
    };
    say(&["people", "business", "list"]);
    say(&["enqueue", "queue.reap_leases", "{}"]);
    say(&["people", "business", "add", "sharma-mobiles", "Sharma Mobiles"]);
    say(&["people", "business", "add", "sharma-mobiles", "Sharma Mobiles"]);
    say(&["people", "business", "add", "Sharma Mobiles", "Sharma Mobiles"]);
    say(&["enqueue", "queue.reap_leases", "{}", "--key", "k-1", "--at", "2099-01-01T00:00:00Z"]);
    say(&["enqueue", "queue.reap_leases", "{}", "--key", "k-1", "--json"]);
    say(&["enqueue", "invoice.isue", "{}"]);
    say(&["enqueue", "invoice.issue", "{}"]);
    say(&["enqueue", "queue.reap_leases", "{}", "--business", "verma-phones"]);
    say(&["enqueue", "queue.reap_leases", "{}", "--lane", "fast"]);
    say(&["jobs", "show", "1"]);
    say(&["jobs", "show", "999999"]);
    say(&["jobs", "list"]);
    say(&["jobs", "list", "--json"]);
    say(&["jobs", "stats"]);
    say(&["jobs", "cancel", "1"]);
    say(&["jobs", "cancel", "1"]);
    say(&["jobs", "retry", "1"]);
    say(&["jobs", "retry"]);
    say(&["jobs", "retry", "--kind", "invoice.issue"]);
    say(&["schedule", "list"]);
    say(&["schedule", "pause", "queue.reap-leases"]);
    say(&["schedule", "pause", "queue.sweep"]);
    say(&["schedule", "resume", "queue.reap-leases"]);
    say(&["schedule", "trigger", "queue.forget-finished"]);
    say(&["people", "token", "revoke", "0123456789abcdef"]);
    say(&["keys", "status"]);
    say(&["keys", "init"]);
    say(&["keys", "init"]);
    say(&["keys", "status"]);
    say(&["keys", "rotate", "--business", "sharma-mobiles", "--class", "contact"]);
    say(&["doctor"]);
    told
}

fn webhooks_are_managed(house: &House) {
    let read = |text: String| -> Value { serde_json::from_str(&text).expect("JSON") };
    let refused = house.muneem(&["webhooks", "add", "sharma-mobiles", "https://10.0.0.1/"]);
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (Some(1), "muneem: url is not on the public internet: give one that everybody can reach\n")
    );
    let address = "https://hooks.example.in/s3cret?key=s3cret";
    let made = read(house.well(&["webhooks", "add", "sharma-mobiles", address, "--json"]));
    let (id, secret) =
        (made["endpoint"]["endpoint_id"].as_str().expect("an id"), made["secret"].as_str().expect("one"));
    let set = house.well(&["webhooks", "set", id, "--event-types", "messaging.*,invoice.*", "--description", "Till"]);
    assert!(set.contains("types    ") && set.contains("messaging.*, invoice.*") && set.contains("Till"), "{set}");
    let shown = house.well(&["webhooks", "list"]) + &house.well(&["webhooks", "show", id, "--json"]) + &set;
    assert!(
        shown.contains("https://hooks.example.in") && !shown.contains("s3cret") && !shown.contains(secret),
        "{shown}"
    );
    let rotated = read(house.well(&["webhooks", "rotate", id, "--json"]));
    assert!(rotated["secret"].as_str().is_some_and(|other| other.starts_with("whsec_") && other != secret));
    let ping = read(house.well(&["webhooks", "test", id, "--json"]));
    let ping = ping["event_id"].as_str().expect("an event");
    assert!(house.well(&["webhooks", "deliveries", "--endpoint", id]).contains(ping));
    assert!(house.well(&["webhooks", "event", ping]).contains("webhooks.ping"));
    let again = house.well(&["webhooks", "replay", "--event", ping]);
    assert_eq!(again, format!("{ping} goes to 0 endpoints again\n"), "it is still on its way");
    let since = ["--since", "2026-01-01T00:00:00+05:30", "--failed-only"];
    let all = house.well(&[&["webhooks", "replay", "--endpoint", id][..], &since].concat());
    assert!(all.contains("is told again of what happened since 2025-12-31 18:30:00 UTC"), "{all}");
    assert!(house.well(&["doctor"]).contains("ok    webhooks        1 endpoints, none failing\n"));
    assert_eq!(house.well(&["webhooks", "remove", id]), format!("{id} is removed; 1 deliveries were dropped\n"));
    assert_eq!(house.muneem(&["webhooks", "show", id]).code, Some(1));
}

/// From words of the shop's own to the end of a campaign.
fn campaigns_are_run(house: House) {
    let read = |text: String| -> Value { serde_json::from_str(&text).expect("JSON") };
    let words = house.home.path().join("words/festival_offer/en");
    std::fs::create_dir_all(&words).expect("a folder");
    let template = r#"
name = "festival_offer_v1"
language = "en"
category = "MARKETING"
parameters = [
    { name = "customer_name", type = "person", example = "Asha Verma" },
    { name = "offer", type = "text", example = "a case with every phone" },
]
body = """
Dear {{customer_name}}, this week at Sharma Mobiles you get {{offer}}. We look forward to seeing you in the shop."""
footer = "Reply STOP to hear no more offers"
reviewed_by = "Sharma Mobiles"
reviewed_on = 2026-11-23
"#;
    std::fs::write(words.join("whatsapp.toml"), template).expect("a file");
    let list = |name: &str, rows: &str| {
        let path = house.home.path().join(name);
        std::fs::write(&path, format!("phone,language,customer_name,offer\n{rows}")).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let good = list(
        "good.csv",
        "+91 98123 45678,hi,Asha,a case\n09812345678,en,Asha V.,a case\n9812345679,en,Ravi,\"a, b\"\n",
    );
    let bad =
        list("bad.csv", "9812345670,en,Asha,a case\n98123-call,en,Asha,a case\n9812345671,en,www.evil.example,x\n");
    let dir = house.home.path().join("words").to_string_lossy().into_owned();
    let house = house.with("MUNEEM__MESSAGING__TEMPLATES_DIR", &dir);
    let say = |arguments: &[&str]| house.muneem(&[&["messaging", "campaigns"], arguments].concat());
    let well = |arguments: &[&str]| house.well(&[&["messaging", "campaigns"], arguments].concat());
    let create = [
        "create",
        "sharma-mobiles",
        "--name",
        "Offers",
        "--template",
        "festival_offer",
        "--purpose",
        "marketing.offers",
    ];
    assert_eq!(say(&create).err, "muneem: the business has no WhatsApp number: add one with its phone number id\n");
    house.well(&[
        "messaging",
        "account",
        "set",
        "sharma-mobiles",
        "--phone-number-id",
        "106540352242922",
        "--waba-id",
        "102290129340398",
        "--display-phone",
        "+919876500142",
    ]);
    let made = read(well(&[&create[..], &["--rest-after", "1", "--json"]].concat()));
    let id = made["campaign_id"].as_str().expect("an id");
    assert_eq!((&made["class"], &made["rests_after"]), (&json!("marketing"), &json!(1)));

    // Nobody is added while a row does not fit, unless those are to be left out.
    let told = say(&["add", id, &bad]);
    assert_eq!((told.code, told.out.as_str()), (Some(1), "nobody was added: 2 of 3 rows do not fit\n"));
    assert!(
        told.err.contains("line 3: phone: ") && told.err.contains("line 4: customer_name: must be a name"),
        "{}",
        told.err
    );
    assert!(!told.err.contains("call") && !told.err.contains("evil"), "{}", told.err);
    assert_eq!(
        well(&["show", id]).lines().find(|line| line.starts_with("messages")),
        Some("messages       nobody is in it")
    );
    let told = say(&["add", id, &bad, "--skip-bad"]);
    assert_eq!(
        (told.code, told.out.as_str()),
        (Some(1), "1 of 3 rows added, 0 of people in the campaign already, 2 left out because they do not fit\n")
    );
    let all = "2 of 3 rows added, 1 of people in the campaign already, 0 left out because they do not fit\n";
    assert_eq!(well(&["add", id, &good]), all);
    let again = read(well(&["add", id, &good, "--json"]));
    assert_eq!((&again["added"], &again["doubles"]), (&json!(0), &json!(3)));
    assert_eq!(say(&["add", id, "-"]).code, Some(1), "what is read twice is no pipe");

    let estimate = read(well(&["estimate", id, "--json"]));
    assert_eq!((&estimate["people"], &estimate["refused"]), (&json!(3), &json!({ "no_consent": 3 })));
    for phone in ["+919812345678", "+919812345679"] {
        house.well(&[
            "messaging",
            "consent",
            "record",
            "sharma-mobiles",
            "--phone",
            phone,
            "--purpose",
            "marketing.offers",
            "--state",
            "given",
            "--source",
            "paper",
            "--wording",
            "offers-v1",
            "--language",
            "en",
        ]);
    }
    let told = well(&["estimate", id]);
    for part in [
        "people                 3\n",
        "may not                no_consent 1\n",
        "cost                   INR 1.7262 (2 × 0.8631 MARKETING)\n",
        "in all                 INR 2.04\n",
        "the number is busy     1 s\n",
        "ends in time           yes\n",
    ] {
        assert!(told.contains(part), "{part}{told}");
    }
    let shown = well(&["preview", id, "--phone", "09812345678"]);
    assert!(shown.starts_with("festival_offer_v1 (en), to …78\n\nDear Asha, this week"), "{shown}");
    assert!(shown.ends_with("\nReply STOP to hear no more offers\n"), "{shown}");

    // What sells goes to a tester who agreed, and that is kept.
    let told = say(&["test", id, "--phone", "9812345600"]);
    assert!(told.code == Some(1) && told.err.contains("agreed must be said"), "{}", told.err);
    let test = read(well(&["test", id, "--phone", "9812345600", "--agreed", "--json"]));
    let message = test["message_id"].as_str().expect("a message");
    assert!(house.well(&["messaging", "show", message]).contains("campaign.test"));
    let check = ["messaging", "check", "sharma-mobiles", "--phone", "9812345600", "--channel", "whatsapp", "--purpose"];
    assert_eq!(house.well(&[&check[..], &["campaign.test"]].concat()), "allowed\n");
    assert_eq!(house.well(&[&check[..], &["marketing.offers"]].concat()), "no_consent\n");

    assert_eq!(well(&["start", id]), format!("{id} is running: queued 3\n"));
    assert_eq!(well(&["pause", id]), format!("{id} is paused: queued 3\n"));
    assert_eq!(well(&["resume", id, "--rest-after", "2"]), format!("{id} is running: queued 3\n"));
    assert_eq!(well(&["stop", id]), format!("{id} is stopped: queued 3\n"));
    assert_eq!(say(&["resume", id]).err, "muneem: the campaign has ended: make another one\n");
    let listed = well(&["list", "--business", "sharma-mobiles"]);
    assert!(listed.contains(id) && listed.contains("stopped"), "{listed}");
}

async fn secrets_are_not_stored(house: &House, db: &TestDb) {
    let made = house.well(&["people", "token", "create", "--scope", "queue:write", "--label", "till", "--json"]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let (bearer, public_id) = (made["token"].as_str().expect("a token"), made["public_id"].as_str().expect("an id"));
    let secret = bearer.split('_').nth(2).expect("the secret part");
    let rows: Vec<String> =
        sqlx::query_scalar("select t::text from muneem.people_tokens t").fetch_all(&db.pool()).await.expect("rows");
    assert!(rows.len() == 1 && rows[0].contains(public_id) && !rows[0].contains(secret));
    let listed = house.well(&["people", "token", "list"]) + &house.well(&["people", "token", "list", "--json"]);
    assert!(listed.contains(public_id) && !listed.contains(secret));
    assert_eq!(house.well(&["people", "token", "revoke", public_id]), format!("revoked {public_id}\n"));
}

/// `muneem serve` in the background; killed with the value.
struct Serving(Child);

impl Serving {
    fn start(house: &House) -> Self {
        Self(house.command(&["serve"]).spawn().expect("the binary starts"))
    }

    /// The lines of standard error until one says where it listens: those lines, and the address.
    fn listening(&mut self) -> (String, String) {
        let mut log = BufReader::new(self.0.stderr.take().expect("piped"));
        let mut seen = String::new();
        loop {
            let before = seen.len();
            assert!(log.read_line(&mut seen).expect("readable") > 0, "it ended: {seen}");
            if let Some((_, address)) = seen[before..].split_once("listening on ") {
                let address = address.trim().to_owned();
                self.0.stderr = Some(log.into_inner());
                return (seen, address);
            }
        }
    }

    /// Ends it as a service manager does; what it still had to say on both streams.
    fn end(mut self) -> (String, String) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().expect("piped").read_to_string(&mut out).expect("UTF-8");
        self.0.stderr.take().expect("piped").read_to_string(&mut err).expect("UTF-8");
        assert!(status.success(), "{status}: {err}");
        (out, err)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_on_a_fresh_machine_shows_the_first_token_once() {
    let house = House::new().with("MUNEEM__SERVER__LISTEN", "127.0.0.1:0").with("MUNEEM__SANDBOX__ENABLED", "true");
    let mut serving = Serving::start(&house);
    let (log, address) = serving.listening();
    let http = client(Timeouts::DEFAULT).expect("a client");
    let began = Instant::now();
    // Workers join beside the API; ready is when they have.
    while http.get(format!("{address}/health/ready")).send().await.expect("answered").status() != 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let moved = http.post(format!("{address}/sandbox/clock")).json(&json!({ "advance_secs": 60 })).send().await;
    assert_eq!(moved.expect("answered").status(), 200);

    // Another command joins the private Postgres that this process runs.
    let listen = address.trim_start_matches("http://").to_owned();
    let doctor = doctor_beside(house.home.path(), &listen);
    for line in
        [", private\n", "ok    schema          up to date", "ok    workers         1 at work", "a muneem answers"]
    {
        assert!(doctor.contains(line), "`{line}` is missing:\n{doctor}");
    }

    let stats = format!("{address}/v1/queue/stats");
    assert_eq!(http.get(&stats).send().await.expect("answered").status(), 401);
    let out = serving.0.stdout.as_mut().expect("piped");
    let mut shown = String::new();
    let mut lines = BufReader::new(out);
    while !shown.contains("Use it:") {
        assert!(lines.read_line(&mut shown).expect("readable") > 0, "{shown}");
    }
    assert!(!shown.contains("mnm_"), "standard output may be a journal: {shown}");
    let file = shown.split_whitespace().find(|word| word.ends_with("/first-token.")).expect("a file");
    let file = Path::new(file.trim_end_matches('.'));
    assert_eq!(std::fs::metadata(file).expect("a file").permissions().mode() & 0o777, 0o600);
    let bearer = std::fs::read_to_string(file).expect("readable").trim().to_owned();
    assert_eq!(http.get(&stats).bearer_auth(&bearer).send().await.expect("answered").status(), 200);
    let (_, rest) = serving.end();
    assert!(!(log + &rest).contains("mnm_"), "a token in the log");

    let mut again = Serving::start(&house);
    again.listening();
    let (out, _) = again.end();
    assert_eq!(out, "", "shown once");
}

fn doctor_beside(home: &Path, listen: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_muneem"))
        .arg("doctor")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("MUNEEM__SERVER__LISTEN", listen)
        .env("MUNEEM__SANDBOX__ENABLED", "true")
        .current_dir(home)
        .output()
        .expect("the binary starts");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{out}");
    out
}

#[tokio::test]
async fn what_people_want_to_hear_is_recorded_shown_and_taken_from_a_list() {
    let db = TestDb::empty().await;
    assert_eq!(House::on(&db.url()).well(&["migrate"]), "the schema is up to date\n");
    let login = format!("wishes_{}", db.name());
    as_owner(&db, format!("create role {login} login")).await;
    as_owner(&db, format!("grant muneem_app to {login}")).await;
    let house = House::on(&as_login(&db.url(), &login));
    house.well(&["people", "business", "add", "sharma-mobiles", "Sharma Mobiles"]);
    house.well(&["keys", "init"]);
    let phone = house.home.path().join("phone");
    std::fs::write(&phone, "+91 98123 45678\n").expect("a file");
    let named = format!("@{}", phone.display());
    let asha = ["sharma-mobiles", "--phone", &named];
    let about = ["--purpose", "marketing.offers"];
    let check = [&["messaging", "check"][..], &asha, &about, &["--channel", "whatsapp"]].concat();
    assert_eq!(house.well(&check), "no_consent\n");
    let record = [&["messaging", "consent", "record"][..], &asha, &about].concat();
    let given = ["--state", "given", "--source", "paper", "--wording", "offers-v3", "--language", "hi"];
    assert_eq!(house.well(&[&record[..], &given].concat()), "marketing.offers stands as given\n");
    assert_eq!(house.well(&check), "allowed\n");
    let refused = house.complaints(&[
        &[&record[..], &["--state", "given", "--source", "paper"]].concat(),
        &[&record[..], &["--state", "given", "--source", "import"]].concat(),
        &["messaging", "check", "sharma-mobiles", "--phone", "98123-call-me", "--purpose", "a", "--channel", "mail"],
    ]);
    assert!(refused.contains("wording_version is missing") && refused.contains("consent import"), "{refused}");
    assert!(refused.contains("holds a letter"), "{refused}");
    let stop = ["--scope", "all", "--cause", "person", "--reason", "asked_in_shop"];
    assert_eq!(house.well(&[&["messaging", "suppress", "set"][..], &asha, &stop].concat()), "done\n");
    let lift = house.muneem(&[&["messaging", "suppress", "lift"][..], &asha, &stop].concat());
    assert_eq!(lift.code, Some(1));
    assert!(lift.err.contains("only the person herself"), "{}", lift.err);
    let shown = house.well(&[&["messaging", "consent", "show"][..], &asha].concat());
    assert!(shown.contains("withdrawn") && shown.contains("asked_in_shop") && !shown.contains("98123"), "{shown}");

    let list = house.home.path().join("list.csv");
    let head = "phone,purpose,state,at,language,wording_version\n";
    let row = |phone: &str| format!("{phone},marketing.offers,given,2026-11-20T12:00:00+05:30,hi,v3\n");
    std::fs::write(&list, [head, &row("+919812345679"), &row("+919812345678"), &row("nobody")].concat())
        .expect("a file");
    let list = list.to_string_lossy();
    let import = ["messaging", "consent", "import", "sharma-mobiles", &list];
    let told = house.muneem(&import);
    assert_eq!(told.code, Some(1));
    assert!(told.out.starts_with("nothing was written: 2 of 3 rows were refused, 0 of them of erased"), "{}", told.out);
    assert!(told.err.contains("line 4: phone") && told.err.contains("line 3: said that she wants"), "{}", told.err);
    let told = house.muneem(&[&import[..], &["--partial", "--json"]].concat());
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!((&told["written"], &told["stopped"]), (&json!(1), &json!(1)), "{told}");

    let words = house.well(&["messaging", "words", "list", "sharma-mobiles"]);
    assert_eq!(words.matches("asks").count(), 13, "{words}");
    assert_eq!(house.well(&["messaging", "words", "try", "sharma-mobiles", "बंद करो"]), "ask (hi)\n");
    house.well(&["messaging", "words", "on", "sharma-mobiles", "hi"]);
    assert_eq!(house.well(&["messaging", "words", "try", "sharma-mobiles", "बंद करो"]), "opt_out (hi)\n");
    drop(db);
    let server = TestDb::empty().await;
    as_owner(&server, format!("drop role {login}")).await;
}
