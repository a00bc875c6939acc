//! Reports read back: from a real IMAP server, Dovecot, as an ordinary user on a free port; from a Maildir; and by the
//! webhook. Each is kept before it is marked.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use muneem::{
    http::mail_reports,
    outbound::{
        chance::OsChance,
        clock::SystemClock,
        mailbox::{Error, Imap, Keeper, Reader, Settings},
    },
};
use muneem_jobs::{
    messaging::MessageId,
    messaging::mail::{MailRef, MailToken, issue_token},
    outbound::Email,
    people::{BusinessId, add_business},
    vault::Vault,
};
use muneem_postgres::testing::TestDb;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpStream;
use tower::ServiceExt;
use uuid::Uuid;

use crate::{authority::Authority, skip};

/// A database with one business, and a mail of its that may come back.
struct House {
    db: TestDb,
    keeper: Keeper,
    token: MailToken,
}

impl House {
    async fn open() -> Self {
        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        let vault = Vault::with_root(&db.app_pool(), &[7; 32].into(), Arc::new(SystemClock), Arc::new(OsChance));
        let keeper = Keeper {
            db: db.app_pool(),
            vault: Arc::new(vault),
            clock: Arc::new(SystemClock),
            chance: Arc::new(OsChance),
        };
        let mut conn = db.pool().acquire().await.expect("a connection");
        muneem_jobs::queue::sync_kinds(&mut conn, &muneem_jobs::kinds()).await.expect("kinds");
        let made = add_business(&mut conn, "sharma-mobiles", "Sharma Mobiles", &SystemClock, &OsChance).await;
        let business: BusinessId = made.expect("a business").business_id;
        let of = MailRef::Message(MessageId(Uuid::from_u128(1)), 1);
        let asha = Email::parse("asha@example.in").expect("an address");
        let token = issue_token(&mut conn, (&SystemClock, &OsChance), business, of, &asha).await.expect("a token");
        Self { db, keeper, token }
    }

    fn report(&self, status: &str) -> String {
        format!(
            "From: MAILER-DAEMON@mx.example.in\r\nTo: bounces@muneem.example\r\nSubject: Undelivered\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=B\r\n\r\n\
             --B\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.in\r\n\r\n\
             Final-Recipient: rfc822; asha@example.in\r\nAction: failed\r\nStatus: {status}\r\n\r\n\
             --B\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <{}@x.in>\r\n\r\n--B--\r\n",
            self.token.expose()
        )
    }

    /// Source and state of what was kept, in order, and how many jobs wait.
    async fn kept(&self) -> (Vec<String>, i64) {
        let kept = sqlx::query_scalar(
            "select concat_ws(' ', source, format, state) from muneem.messaging_mail_reports order by received_at, report_id",
        );
        let jobs = "select count(*) from muneem.queue_jobs where kind = 'messaging.apply_mail_report'";
        let pool = self.db.pool();
        (kept.fetch_all(&pool).await.expect("reports"), sqlx::query_scalar(jobs).fetch_one(&pool).await.expect("jobs"))
    }
}

#[tokio::test]
async fn a_maildir_is_read_once_and_what_is_no_mail_is_left() {
    let house = House::open().await;
    let dir = tempfile::tempdir().expect("a directory");
    for sub in ["new", "cur", "tmp"] {
        fs::create_dir(dir.path().join(sub)).expect("made");
    }
    let new = dir.path().join("new");
    fs::write(new.join("1.a"), house.report("5.1.1")).expect("delivered");
    fs::write(new.join("2.b"), "From: b@example.in\r\nSubject: Hi\r\n\r\nwords").expect("delivered");
    fs::write(new.join("3.c"), house.report("5.1.1")).expect("delivered twice");
    fs::write(dir.path().join("secret"), house.report("5.2.2")).expect("written");
    std::os::unix::fs::symlink(dir.path().join("secret"), new.join("4.link")).expect("linked");
    fs::create_dir(new.join("5.dir")).expect("made");
    let reader = Reader {
        keeper: house.keeper.clone(),
        maildir: Some(dir.path().to_owned()),
        imap: None,
        every: Duration::from_secs(60),
    };
    assert_eq!(reader.look().await.expect("read"), 3);
    assert_eq!(
        house.kept().await,
        (vec!["maildir rfc822 received".to_owned(), "maildir rfc822 ignored".to_owned()], 1)
    );
    let mut seen: Vec<_> =
        fs::read_dir(dir.path().join("cur")).expect("listed").map(|file| file.expect("a file").file_name()).collect();
    seen.sort();
    assert_eq!(seen, ["1.a:2,S", "2.b:2,S", "3.c:2,S"]);
    assert_eq!(reader.look().await.expect("read"), 0);

    // Kept, and not yet moved when the process died: it is found again, and known.
    fs::write(new.join("1.a"), house.report("5.1.1")).expect("put back");
    assert_eq!(reader.look().await.expect("read"), 1);
    assert_eq!(house.kept().await.0.len(), 2);
    fs::remove_dir_all(&new).expect("gone");
    assert!(matches!(reader.look().await, Err(Error::Maildir(..))));
}

/// Dovecot with one user, `reports`, whose password is `secret`.
struct Dovecot {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
    authority: Authority,
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // Its children end with it.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

impl Dovecot {
    async fn start() -> Option<Self> {
        let program = Path::new("/usr/sbin/dovecot");
        if !program.exists() {
            skip("dovecot-imapd (apt-get install dovecot-imapd)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new();
        let leaf = authority.issue("localhost", false);
        fs::write(dir.path().join("cert.pem"), leaf.certificate.pem()).expect("written");
        fs::write(dir.path().join("key.pem"), leaf.key.serialize_pem()).expect("written");
        for folder in ["new", "cur", "tmp", ".Done/new", ".Done/cur", ".Done/tmp"] {
            fs::create_dir_all(dir.path().join("mail").join(folder)).expect("made");
        }
        // As root it must be somebody else; as anybody else it can be nobody else.
        let is_root = output("id", &["-u"]) == "0";
        let user = if is_root { "nobody".to_owned() } else { output("id", &["-un"]) };
        let [uid, gid] = ["-u", "-g"].map(|flag| output("id", &[flag, &user]).parse::<u32>().expect("a number"));
        let group = output("id", &["-gn", &user]);
        for _ in 0..5 {
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
            let port = free.local_addr().expect("an address").port();
            drop(free);
            let at = dir.path().display();
            let conf = format!(
                "protocols = imap\nbase_dir = {at}/run\nstate_dir = {at}/run\nlog_path = {at}/log\nlisten = 127.0.0.1\n\
                 ssl = required\nssl_cert = <{at}/cert.pem\nssl_key = <{at}/key.pem\n\
                 mail_location = maildir:{at}/mail\nfirst_valid_uid = 1\nfirst_valid_gid = 1\n\
                 default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n\
                 auth_mechanisms = plain login\n\
                 passdb {{\n  driver = static\n  args = password=secret\n}}\n\
                 userdb {{\n  driver = static\n  args = uid={uid} gid={gid} home={at}/home\n}}\n\
                 service imap-login {{\n  chroot =\n  inet_listener imap {{\n    port = 0\n  }}\n  \
                 inet_listener imaps {{\n    port = {port}\n    ssl = yes\n  }}\n}}\n\
                 service anvil {{\n  chroot =\n}}\nservice stats {{\n  chroot =\n}}\n"
            );
            fs::write(dir.path().join("dovecot.conf"), conf).expect("written");
            let mut command = if is_root {
                give(dir.path(), uid, gid);
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
                command.arg(program);
                command
            } else {
                Command::new(program)
            };
            command.args(["-F", "-c"]).arg(dir.path().join("dovecot.conf"));
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut child = child.expect("dovecot starts");
            for _ in 0..200 {
                if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return Some(Self { dir, child, port, authority });
                }
                if child.try_wait().expect("asked").is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        panic!("dovecot does not listen: {log}");
    }

    fn deliver(&self, name: &str, mail: &str) {
        let file = self.mail().join("new").join(name);
        fs::write(&file, mail).expect("delivered");
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("readable");
    }

    fn mail(&self) -> PathBuf {
        self.dir.path().join("mail")
    }

    fn settings(&self) -> Settings {
        Settings {
            host: "localhost".to_owned(),
            port: self.port,
            user: "reports".to_owned(),
            password: "secret".to_owned().into(),
            mailbox: "INBOX".to_owned(),
            move_to: None,
            tls_roots: Some(self.authority.pem()),
            timeout: Duration::from_secs(20),
        }
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let listed = fs::read_dir(self.mail().join(folder)).expect("listed");
        let mut names: Vec<_> =
            listed.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("it runs");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn give(path: &Path, uid: u32, gid: u32) {
    chown(path, Some(uid), Some(gid)).expect("given");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("listed") {
            give(&entry.expect("an entry").path(), uid, gid);
        }
    }
}

#[tokio::test]
async fn a_mailbox_is_read_over_tls_and_each_mail_is_kept_before_it_is_seen() {
    let Some(server) = Dovecot::start().await else { return };
    let house = House::open().await;
    let reader = |settings: Settings| Reader {
        keeper: house.keeper.clone(),
        maildir: None,
        imap: Some(Imap::new(settings).expect("settings")),
        every: Duration::from_secs(60),
    };
    server.deliver("1.a", &house.report("5.1.1"));
    server.deliver("2.b", "From: b@example.in\r\nSubject: Hi\r\n\r\nwords\r\n");

    // Nobody who cannot prove to be the server is told the password; a wrong one opens nothing.
    let strangers = Settings { tls_roots: Some(Authority::new().pem()), ..server.settings() };
    let machines = Settings { tls_roots: None, ..server.settings() };
    let other = Settings { host: "127.0.0.1".to_owned(), ..server.settings() };
    for settings in [strangers, machines, other] {
        assert!(matches!(reader(settings).look().await, Err(Error::Imap("the server is not believed"))));
    }
    let guess = Settings { password: "guess".to_owned().into(), ..server.settings() };
    assert!(matches!(reader(guess).look().await, Err(Error::Imap("sign-in refused"))));
    assert_eq!(house.kept().await.0.len(), 0);

    let ours = reader(server.settings());
    assert_eq!(ours.look().await.unwrap_or_else(|error| panic!("{error:?}")), 2);
    let both = vec!["imap rfc822 received".to_owned(), "imap rfc822 ignored".to_owned()];
    assert_eq!(house.kept().await, (both.clone(), 1));
    let cur = server.files("cur");
    assert!(cur.len() == 2 && cur.iter().all(|name| name.ends_with('S')), "marked as seen: {cur:?}");
    assert_eq!(ours.look().await.expect("read"), 0);

    // What nobody could keep is not marked, and read when it can be kept.
    server.deliver("3.c", &house.report("5.2.2"));
    let mut closed = reader(server.settings());
    closed.keeper.db = PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/nothing").expect("a pool");
    closed.keeper.db.close().await;
    assert!(closed.look().await.is_err());
    assert_eq!(ours.look().await.expect("read"), 1);
    assert_eq!(house.kept().await.1, 2);

    // The server counts anew: everything is read again, and known.
    for name in ["dovecot-uidlist", "dovecot.index.cache", "dovecot.index.log", "dovecot.index"] {
        let _ = fs::remove_file(server.mail().join(name));
    }
    assert_eq!(ours.look().await.expect("read"), 3);
    assert_eq!(house.kept().await.1, 2);
    let places: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_mailboxes")
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
    assert_eq!(places, 1);

    // A mail larger than any report is read as far as a report would be, and moved where that is wanted.
    let large = format!("{}{}", house.report("5.3.4"), "x".repeat(76).repeat(10_000));
    server.deliver("4.d", &large);
    let moving = Settings { move_to: Some("Done".to_owned()), ..server.settings() };
    assert_eq!(reader(moving).look().await.expect("read"), 1);
    assert_eq!(house.kept().await.1, 3);
    assert_eq!((server.files(".Done/cur").len(), server.files("cur").len()), (1, 3));
}

/// One call of the webhook.
async fn posted(app: &Router, token: &str, kind: &str, body: String) -> u16 {
    let request = http::Request::post(format!("/webhooks/mail/{token}")).header("content-type", kind);
    let answer = app.clone().oneshot(request.body(Body::from(body)).expect("a request")).await.expect("an answer");
    answer.status().as_u16()
}

#[tokio::test]
async fn a_webhook_with_the_secret_brings_reports_and_without_it_nothing() {
    let house = House::open().await;
    let secret = "s".repeat(32);
    let Keeper { db, vault, clock, chance } = house.keeper.clone();
    let token = secret.clone().into();
    let intake = mail_reports::Intake { db, vault, clock, chance, token, body_limit_bytes: 100_000 };
    let app = mail_reports::routes(intake.clone());
    let report = house.report("5.1.1");
    for guess in ["x", &"s".repeat(31), &"s".repeat(33), "S"] {
        assert_eq!(posted(&app, guess, "message/rfc822", report.clone()).await, 404, "{guess}");
    }
    assert_eq!(posted(&app, &secret, "text/plain", report.clone()).await, 415);
    assert_eq!(posted(&app, &secret, "message/rfc822", "x".repeat(100_001)).await, 413);
    assert_eq!(posted(&app, &secret, "application/json", "{}".to_owned()).await, 422);
    assert_eq!(house.kept().await, (vec![], 0));
    assert_eq!(posted(&app, &secret, "message/rfc822", report.clone()).await, 200);
    assert_eq!(posted(&app, &secret, "message/rfc822", report.clone()).await, 200);
    let said = |recipient: &str| {
        let id = house.token.expose();
        format!(r#"{{"message_id":"<{id}@x.in>","recipient":"{recipient}","event":"complaint"}}"#)
    };
    assert_eq!(posted(&app, &secret, "application/json; charset=utf-8", said("asha@example.in")).await, 200);
    let both = vec!["webhook rfc822 received".to_owned(), "webhook json received".to_owned()];
    assert_eq!(house.kept().await, (both, 2));
    // What cannot be kept is not answered as if it were.
    intake.db.close().await;
    assert_eq!(posted(&app, &secret, "application/json", said("b@example.in")).await, 503);
}
