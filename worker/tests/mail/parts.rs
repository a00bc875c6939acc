//! What is in a mail as it arrived: its parts, its headers, its signature.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use mail_parser::{HeaderValue, MessageParser, MimeHeaders};
use muneem::outbound::{
    chance::OsChance,
    clock::SystemClock,
    mail::{ReturnPath, Settings, Smtp, Tls},
};
use muneem_jobs::outbound::{Algorithm, Attachment, DkimKey, Email, Mail, MailOutcome, MailSender, Mailer};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    mail,
    server::{Server, Taken},
    settings, skip,
};

/// Sends one mail and answers what arrived.
async fn arrived(settings: Settings, mail: &Mail) -> Taken {
    let server = Server::open(Tls::None, None).await;
    let settings = Settings { port: server.address.port(), ..settings };
    let smtp = Smtp::new(settings, Arc::new(SystemClock)).expect("settings");
    assert_eq!(smtp.send(mail).await, MailOutcome::Accepted);
    server.taken().remove(0)
}

fn email(text: &str) -> Email {
    Email::parse(text).expect("an address")
}

/// Everything that a mail may hold.
fn whole() -> Mail {
    let pdf = Attachment::new("बिल INV-1042.pdf", "application/pdf", b"%PDF-1.7\n.\n%%EOF".to_vec().into());
    let csv = Attachment::new("items; \u{e9}.csv", "text/csv", b"a,b\r\n".to_vec().into());
    let name = "शर्मा \"Mobiles\", <till@evil.example>\t";
    mail(9)
        .with_html("<p>कोड: <b>123456</b></p>")
        .and_then(|mail| mail.with_attachment(pdf.expect("a file")))
        .and_then(|mail| mail.with_attachment(csv.expect("a file")))
        .and_then(|mail| mail.with_unsubscribe(&format!("https://shop.example.in/r/u?t={}", "x".repeat(300))))
        .and_then(|mail| mail.with_reference("abcdefghijklmnopqrstuvwxyz"))
        .and_then(|mail| {
            let name = name.trim().to_owned();
            mail.with_sender(MailSender { name, address: Some(email("bills@sharma-mobiles.example")) })
        })
        .expect("a mail")
        .with_reply_to(email("owner@sharma-mobiles.example"))
        .in_language("hi")
}

#[tokio::test]
async fn a_mail_with_everything_arrives_with_everything() {
    let path = ReturnPath::parse("bounces+{token}@muneem.example").expect("a path");
    let taken = arrived(Settings { return_path: Some(path), ..settings() }, &whole()).await;
    assert_eq!(taken.envelope.0, "bounces+abcdefghijklmnopqrstuvwxyz@muneem.example");
    assert_eq!(taken.envelope.1, "asha@example.in");
    assert!(taken.raw.is_ascii());
    let bare = taken.raw.windows(2).filter(|two| two[1] == b'\n' && two[0] != b'\r').count();
    assert_eq!(bare, 0, "a bare line feed could end the mail for one server and not for the next");
    let raw = String::from_utf8(taken.raw.clone()).expect("ASCII");
    assert!(raw.lines().all(|line| line.len() <= 998), "{raw}");

    let read = MessageParser::default().parse(&taken.raw).expect("a message");
    let from = read.from().and_then(|from| from.first()).expect("a sender");
    assert_eq!(from.address.as_deref(), Some("bills@sharma-mobiles.example"));
    assert_eq!(from.name.as_deref(), Some("शर्मा \"Mobiles\", <till@evil.example>"));
    let reply = read.reply_to().and_then(|to| to.first()).expect("where answers go");
    assert_eq!(reply.address.as_deref(), Some("owner@sharma-mobiles.example"));
    assert_eq!(read.message_id(), Some("abcdefghijklmnopqrstuvwxyz@sharma-mobiles.example"));
    assert_eq!(read.header_raw("Content-Language").map(str::trim), Some("hi"));
    assert_eq!(read.header_raw("Auto-Submitted").map(str::trim), Some("auto-generated"));
    let leave = format!("<https://shop.example.in/r/u?t={}>", "x".repeat(300));
    assert_eq!(read.header_raw("List-Unsubscribe").map(str::trim), Some(leave.as_str()));
    assert_eq!(read.header_raw("List-Unsubscribe-Post").map(str::trim), Some("List-Unsubscribe=One-Click"));
    for absent in ["Precedence", "Bcc", "Sender", "X-Mailer", "User-Agent"] {
        assert!(matches!(read.header(absent), None | Some(HeaderValue::Empty)), "{absent}");
    }

    assert_eq!(read.content_type().and_then(|kind| kind.subtype()), Some("mixed"));
    assert_eq!(read.part(1).and_then(|part| part.content_type()).and_then(|kind| kind.subtype()), Some("alternative"));
    let text = read.body_text(0).expect("a text").replace("\r\n", "\n");
    assert_eq!(text.trim_end(), "कोड: 123456\n.\n.. a dot stays a dot\n<b>not bold</b>");
    assert_eq!(read.body_html(0).expect("HTML").trim_end(), "<p>कोड: <b>123456</b></p>");
    let files: Vec<_> = read.attachments().map(|file| (file.attachment_name(), file.contents().to_vec())).collect();
    assert_eq!(
        files,
        [(Some("बिल INV-1042.pdf"), b"%PDF-1.7\n.\n%%EOF".to_vec()), (Some("items; \u{e9}.csv"), b"a,b\r\n".to_vec())]
    );
}

#[tokio::test]
async fn a_mail_without_a_reference_comes_back_to_the_plain_address() {
    let path = ReturnPath::parse("bounces+{token}@muneem.example").expect("a path");
    let taken = arrived(Settings { return_path: Some(path), ..settings() }, &mail(3)).await;
    assert_eq!(taken.envelope.0, "bounces@muneem.example");
    let taken = arrived(settings(), &whole()).await;
    assert_eq!(taken.envelope.0, "till@sharma.example", "no return path is set: the installation's own address");
}

/// What an independent program says of a signature: dkimpy, of Debian's python3-dkim.
fn verdict(raw: &[u8], key: &DkimKey) -> String {
    const PROGRAM: &str = "import sys, dkim\nname, record = sys.argv[1:3]\n\
        def find(asked, timeout=5):\n    return record.encode() if asked.decode().rstrip('.') == name else None\n\
        print(dkim.verify(sys.stdin.buffer.read(), dnsfunc=find))\n";
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", PROGRAM, &key.dns_name(), &key.dns_record()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    child.stdin.take().expect("an input").write_all(raw).expect("written");
    let output = child.wait_with_output().expect("an end");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn can_verify() -> bool {
    let asked = Command::new("/usr/bin/python3").args(["-c", "import dkim, nacl"]).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn key(domain: &str, algorithm: Algorithm) -> DkimKey {
    let pem = match algorithm {
        Algorithm::Ed25519 => DkimKey::generate(algorithm, &OsChance).expect("a key"),
        // As operators make them; ours would take its time in a debug build.
        Algorithm::Rsa => {
            let made = Command::new("openssl").args(["genrsa", "-traditional", "2048"]).stderr(Stdio::null()).output();
            SecretString::from(String::from_utf8(made.expect("openssl").stdout).expect("PEM"))
        }
    };
    DkimKey::read(domain, "mnm2026", &pem).expect("a key")
}

#[tokio::test]
async fn the_signature_holds_for_the_bytes_that_arrived_and_for_no_others() {
    if !can_verify() {
        return skip("python3-dkim and python3-nacl (apt-get install python3-dkim python3-nacl)");
    }
    for algorithm in [Algorithm::Ed25519, Algorithm::Rsa] {
        let house = Arc::new(key("sharma.example", algorithm));
        let signing = Settings { dkim: Some(Arc::clone(&house)), ..settings() };
        // The installation's own mail; and that of a business with a key of its own.
        let plain = arrived(signing.clone(), &mail(1)).await.raw;
        assert_eq!(verdict(&plain, &house), "True", "{algorithm:?}\n{}", String::from_utf8_lossy(&plain));
        let own = Arc::new(key("sharma-mobiles.example", algorithm));
        let rich = arrived(signing.clone(), &whole().with_dkim(Arc::clone(&own))).await.raw;
        assert_eq!(verdict(&rich, &own), "True", "{algorithm:?}\n{}", String::from_utf8_lossy(&rich));
        assert_eq!(verdict(&rich, &house), "False", "{algorithm:?}: another domain's key");

        let text = String::from_utf8(rich).expect("ASCII");
        for (from, to) in [
            ("List-Unsubscribe: <https://shop", "List-Unsubscribe: <https://shap"),
            ("Content-Language: hi", "Content-Language: en"),
            ("Message-ID: <abc", "Message-ID: <abd"),
            ("JVBERi0", "JVBERi1"),
        ] {
            assert!(text.contains(from), "{from}");
            assert_eq!(verdict(text.replacen(from, to, 1).as_bytes(), &own), "False", "{algorithm:?} {from}");
        }
        // A second one of what is there once, which some readers would show in the place of the first.
        for added in ["From: ceo@bank.example\r\n", "Subject: other\r\n", "Reply-To: x@evil.example\r\n"] {
            assert_eq!(verdict(format!("{added}{text}").as_bytes(), &own), "False", "{algorithm:?} {added}");
        }
        // What changes on the way by custom does not matter: folding and white space.
        let refolded = text.replacen("Content-Language: hi", "Content-Language:\r\n\t hi ", 1);
        assert_eq!(verdict(refolded.as_bytes(), &own), "True", "{algorithm:?}");
    }
}

#[tokio::test]
async fn the_installation_signs_nothing_for_a_domain_that_is_not_its_own() {
    let house = Arc::new(key("sharma.example", Algorithm::Ed25519));
    let signing = Settings { dkim: Some(house), ..settings() };
    let raw = String::from_utf8(arrived(signing.clone(), &whole()).await.raw).expect("ASCII");
    assert!(!raw.contains("DKIM-Signature"), "{raw}");
    let from = email("till@evil.example");
    let refused = Smtp::new(Settings { from, ..signing }, Arc::new(SystemClock));
    assert!(refused.is_err_and(|error| error.to_string().contains("dkim_domain")));
}

#[test]
fn a_key_that_is_made_here_is_one_that_openssl_knows() {
    let pem = DkimKey::generate(Algorithm::Ed25519, &OsChance).expect("a key");
    let mut child = Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    child.stdin.take().expect("an input").write_all(pem.expose_secret().as_bytes()).expect("written");
    let public = child.wait_with_output().expect("an end").stdout;
    let key = DkimKey::read("sharma.example", "a", &pem).expect("a key");
    let theirs = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &public[public.len() - 32..]);
    assert!(key.dns_record().ends_with(&format!("p={theirs}")), "{}", key.dns_record());
}
