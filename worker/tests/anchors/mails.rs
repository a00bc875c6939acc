use std::{net::SocketAddr, sync::Arc, time::Duration};

use muneem::{
    evidence::held::{self, Held},
    outbound::{
        anchor_mail::MailAnchor,
        chance::OsChance,
        clock::SystemClock,
        http::{Timeouts, client},
        mail::{Settings, Smtp, Tls},
    },
    sandbox::{Options, Sandbox},
};
use muneem_jobs::{
    evidence::note::{Checkpoint, Signer25519},
    outbound::{Anchor, Email},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A mail server of the test's own.
pub(crate) struct Post {
    smtp: SocketAddr,
    pages: String,
    end: CancellationToken,
}

impl Drop for Post {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Post {
    pub(crate) async fn open() -> Self {
        let sandbox = Sandbox::bind(Options::local(([127, 0, 0, 1], 0).into(), 1)).await.expect("a free port");
        let (smtp, pages) = (sandbox.mail_address().expect("a mail server"), format!("http://{}", sandbox.address()));
        let end = CancellationToken::new();
        tokio::spawn(sandbox.run(end.clone()));
        Self { smtp, pages, end }
    }

    pub(crate) fn smtp(&self) -> Smtp {
        let settings = Settings {
            host: self.smtp.ip().to_string(),
            port: self.smtp.port(),
            tls: Tls::None,
            timeout: Duration::from_secs(10),
            ..Settings::to("", Email::parse("log@sharma.example").expect("an address"))
        };
        Smtp::new(settings, Arc::new(SystemClock)).expect("settings")
    }

    fn anchor(&self, to: &[&str]) -> MailAnchor {
        let to = to.iter().map(|to| Email::parse(to).expect("an address")).collect();
        MailAnchor::new(to, Duration::ZERO, Arc::new(self.smtp()), (Arc::new(SystemClock), Arc::new(OsChance)))
    }

    pub(crate) async fn mails(&self) -> Vec<Value> {
        let http = client(Timeouts::DEFAULT).expect("a client");
        let answer = http.get(format!("{}/sandbox/mails", self.pages)).send().await.expect("an answer");
        answer.json().await.expect("mails")
    }

    async fn refuse_next(&self) {
        let script = json!({ "faults": [{ "at": "rcpt", "reply": "451 4.7.1 later" }] });
        let http = client(Timeouts::DEFAULT).expect("a client");
        let answer = http.post(format!("{}/sandbox/mail/faults", self.pages)).json(&script).send().await;
        assert_eq!(answer.expect("an answer").status(), 204);
    }
}

#[tokio::test]
async fn a_head_goes_to_each_address_once_and_the_mail_proves_itself() {
    let post = Post::open().await;
    let signer = Signer25519::new(&[1; 32]);
    let at = chrono::DateTime::from_timestamp(1_764_000_000, 0).expect("an instant");
    let head = Checkpoint { size: 42, root: [3; 32], at };
    let note = signer.sign(&head);
    let anchor = post.anchor(&["asha@example.in", "ravi@auditor.example"]);
    post.refuse_next().await;
    let error = anchor.lay(42, &note).await.expect_err("one was refused for now");
    assert_eq!(error.to_string(), "1 of 2 mails did not go out (RCPT refused (451 4.7.1))");
    let receipt = anchor.lay(42, &note).await.expect("the other went already");
    let mut mails = post.mails().await;
    mails.sort_by_key(|mail| mail["to"].to_string());
    let [asha, ravi] = mails.as_slice() else { panic!("one mail each: {mails:?}") };
    assert_eq!((&asha["to"], &ravi["to"]), (&json!(["asha@example.in"]), &json!(["ravi@auditor.example"])));
    let receipt = String::from_utf8(receipt).expect("ids");
    for mail in &mails {
        let id = mail["message_id"].as_str().expect("an id");
        assert!(receipt.lines().any(|line| id.contains(line)), "{receipt}: {id}");
    }
    // As a mail program saves it, with either line end.
    let dir = tempfile::tempdir().expect("a directory");
    let raw = asha["raw"].as_str().expect("the raw mail");
    for (name, saved) in [("dos.eml", raw.to_owned()), ("unix.eml", raw.replace("\r\n", "\n"))] {
        std::fs::write(dir.path().join(name), saved).expect("written");
        let held = held::read(&dir.path().join(name)).expect("read");
        let [(_, Held::Head(found))] = held.as_slice() else { panic!("{held:?}") };
        assert_eq!(signer.verifier().open(found), Ok(head.clone()), "{name}");
    }
}
